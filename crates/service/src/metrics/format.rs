//! The two text forms of metrics: Prometheus's own, which every reader knows, and OpenMetrics for whoever asks for it.
//!
//! It knows no metric.

use std::fmt::Write as _;

use hyper::HeaderMap;
use hyper::header::ACCEPT;

const OPEN_METRICS: &str = "application/openmetrics-text";
/// Versions of OpenMetrics that ours can be read as.
const OPEN_METRICS_VERSIONS: [&str; 2] = ["1.0.0", "0.0.1"];

/// A text form of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, version 0.0.4.
    Prometheus,
    /// OpenMetrics text, version 1.0.0.
    OpenMetrics,
}

/// One line of OpenMetrics text. The help of a family comes right before its type, which names it again.
enum Line<'t> {
    Help(&'t str),
    Type { name: &'t str, kind: &'t str },
    Sample(&'t str),
    Other,
}

impl Format {
    /// The form that a request asks for. Whoever does not ask for OpenMetrics by name, or likes plain text better, gets
    /// Prometheus text.
    pub fn asked_for(headers: &HeaderMap) -> Self {
        let (mut open_metrics, mut plain) = (0.0_f32, 0.0_f32);
        let values = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok());
        for range in values.flat_map(|value| value.split(',')) {
            let (media, weight, version) = media_range(range);
            match media.as_str() {
                OPEN_METRICS if version.is_none_or(|version| OPEN_METRICS_VERSIONS.contains(&version)) => {
                    open_metrics = open_metrics.max(weight);
                }
                "text/plain" | "text/*" | "*/*" => plain = plain.max(weight),
                _ => {}
            }
        }
        if open_metrics > 0.0 && open_metrics >= plain {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The `Content-Type` of this form.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// OpenMetrics text in this form.
    pub(super) fn of(self, open_metrics: String) -> String {
        match self {
            Self::Prometheus => prometheus(&open_metrics),
            Self::OpenMetrics => open_metrics,
        }
    }
}

/// The media type in lower case, its weight from 0 to 1, and its version.
fn media_range(range: &str) -> (String, f32, Option<&str>) {
    let mut parts = range.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default().to_ascii_lowercase();
    let (mut weight, mut version) = (1.0, None);
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => weight = value.trim().parse::<f32>().unwrap_or(0.0).clamp(0.0, 1.0),
            "version" => version = Some(value.trim().trim_matches('"')),
            _ => {}
        }
    }
    (media, weight, version)
}

/// Says the same in Prometheus text, where a family has the name of its samples and fewer types are known.
fn prometheus(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len() + 1024);
    let mut help = "";
    for line in open_metrics.lines() {
        match read(line) {
            Line::Help(text) => help = text,
            Line::Type { name, kind } => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "stateset" => ("", "gauge"),
                    "unknown" => ("", "untyped"),
                    kind => ("", kind),
                };
                // Writing to a string does not fail.
                let _ = writeln!(out, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}");
                help = "";
            }
            Line::Sample(sample) => {
                out.push_str(sample);
                out.push('\n');
            }
            Line::Other => {}
        }
    }
    out
}

fn read(line: &str) -> Line<'_> {
    if let Some((_, text)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
        return Line::Help(text);
    }
    if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
        return Line::Type { name, kind };
    }
    if line.starts_with('#') || line.is_empty() {
        return Line::Other;
    }
    Line::Sample(without_exemplar(line))
}

/// A sample may have an exemplar behind ` # `, which Prometheus text has no place for. A label may hold the same.
fn without_exemplar(sample: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (at, character) in sample.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '#' if !quoted => return sample[..at].trim_end(),
            _ => {}
        }
    }
    sample
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn asked(accept: &[&'static str]) -> Format {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT, HeaderValue::from_static(value));
        }
        Format::asked_for(&headers)
    }

    #[test]
    fn open_metrics_is_given_only_to_whoever_asks_for_it_and_likes_nothing_better() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for accept in [
            &["application/openmetrics-text"][..],
            &[prometheus],
            &[
                "text/plain;q=0.5",
                "Application/OpenMetrics-Text; version=\"1.0.0\"",
            ],
        ] {
            assert_eq!(asked(accept), Format::OpenMetrics, "{accept:?}");
        }
        for accept in [
            &[][..],
            &["*/*"],
            &["text/html, */*;q=0.8"],
            &["application/openmetrics-text;q=0"],
            &["application/openmetrics-text;version=2.0.0"],
            &["text/plain, application/openmetrics-text;q=0.9"],
            &["application/openmetrics-text;q=often"],
        ] {
            assert_eq!(asked(accept), Format::Prometheus, "{accept:?}");
        }
    }

    #[test]
    fn in_prometheus_text_a_family_is_called_as_its_samples_are() {
        let open_metrics = "# HELP a_requests How many.\n# TYPE a_requests counter\n# UNIT a_requests requests\n\
                            a_requests_total{of=\"x # {\\\" #\"} 3 # {trace=\"1\"} 1\n\
                            # HELP build What.\n# TYPE build info\nbuild_info{version=\"1\"} 1\n\
                            # HELP up Up.\n# TYPE up gauge\nup 1\n# EOF\n";
        assert_eq!(
            prometheus(open_metrics),
            "# HELP a_requests_total How many.\n# TYPE a_requests_total counter\n\
             a_requests_total{of=\"x # {\\\" #\"} 3\n\
             # HELP build_info What.\n# TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n\
             # HELP up Up.\n# TYPE up gauge\nup 1\n"
        );
    }
}
