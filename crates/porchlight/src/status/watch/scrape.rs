//! What a daemon's `/metrics` say of the figures that the live view shows, read from their text.
//!
//! Whatever else is on the page is passed over, and so is a line that cannot be read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use porchlight_service::client::{Client, Target, connector};

use crate::failure::chain;

/// For one page, connecting included.
const ASK_MAX: Duration = Duration::from_secs(3);
/// Most values of one label that are kept; a daemon of ours has a dozen.
const VALUES_MAX: usize = 64;

/// A daemon that is asked again and again, over a connection that is kept.
pub(super) struct Daemon {
    pub(super) address: String,
    path: String,
    client: Result<Client, String>,
}

/// The figures of one page. What is not there is empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figures {
    /// Answers to webhooks so far, by status.
    pub(super) answers: BTreeMap<String, f64>,
    /// Events settled so far, by outcome.
    pub(super) settled: BTreeMap<String, f64>,
    /// Events that died so far, by reason.
    pub(super) died: BTreeMap<String, f64>,
    /// Age of the oldest event that waits, in seconds.
    pub(super) oldest_waiting_seconds: Option<f64>,
    /// When the newest event happened that was applied, in seconds since the epoch.
    pub(super) newest_applied_at: Option<f64>,
    /// An outage that goes on.
    pub(super) outage: Option<Outage>,
    /// Whether a key that matches nothing has opened the breaker.
    pub(super) key_breaker_open: bool,
}

/// An outage in Ring's terms; times in seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outage {
    pub(super) started_at: f64,
    /// When the first event falls off Ring's retries.
    pub(super) first_loss_at: f64,
    /// When Ring forgets that event.
    pub(super) forgotten_at: f64,
}

impl Daemon {
    /// The one at this admin listener; its page lies beside `/readyz`.
    pub(super) fn at(target: Target) -> Self {
        let address = target.to_string().trim_end_matches('/').to_owned();
        let path = match target.path() {
            "/" => "/metrics".to_owned(),
            path => format!(
                "{}/metrics",
                path.rsplit_once('/').map_or("", |(before, _)| before)
            ),
        };
        let client = match connector(&target, None) {
            Ok(tls) => Ok(Client::new(Arc::new(target), tls, ASK_MAX)),
            Err(error) => Err(chain(&error)),
        };
        Self {
            address,
            path,
            client,
        }
    }

    /// Reads its page. The error is one line for a person.
    pub(super) async fn scrape(&self) -> Result<Figures, String> {
        let client = self.client.as_ref().map_err(Clone::clone)?;
        let answer = client.send("GET", &self.path, &[], Bytes::new()).await;
        let answer = answer.map_err(|error| chain(&error))?;
        if !answer.status.is_success() {
            return Err(format!("answers {} to {}", answer.status.as_u16(), self.path));
        }
        let text = std::str::from_utf8(&answer.body).map_err(|_| "its metrics are no text".to_owned())?;
        Ok(Figures::read(text))
    }
}

impl Figures {
    /// Reads a page.
    pub(super) fn read(text: &str) -> Self {
        let mut figures = Self::default();
        let (mut in_outage, mut outage) = (false, [0.0; 3]);
        for series in text.lines().filter_map(Series::read) {
            let value = series.value;
            match series.name {
                "porchlight_ingress_requests_total" => add(&mut figures.answers, &series, "answer"),
                "porchlight_worker_events_total" => add(&mut figures.settled, &series, "outcome"),
                "porchlight_worker_dead_letters_total" => add(&mut figures.died, &series, "reason"),
                "porchlight_worker_oldest_waiting_age_seconds" => {
                    figures.oldest_waiting_seconds = Some(value);
                }
                "porchlight_worker_newest_applied_timestamp_seconds" => {
                    figures.newest_applied_at = Some(value).filter(|at| *at > 0.0);
                }
                "porchlight_ingress_outage" => in_outage = value > 0.0,
                "porchlight_ingress_outage_started_timestamp_seconds" => outage[0] = value,
                "porchlight_ingress_outage_first_loss_timestamp_seconds" => outage[1] = value,
                "porchlight_ingress_outage_forgotten_timestamp_seconds" => outage[2] = value,
                "porchlight_ingress_key_breaker_open" => figures.key_breaker_open = value > 0.0,
                _ => {}
            }
        }
        figures.outage = in_outage.then_some(Outage {
            started_at: outage[0],
            first_loss_at: outage[1],
            forgotten_at: outage[2],
        });
        figures
    }

    /// Puts what another daemon says to this: sums, and the worse of what cannot be summed.
    pub(super) fn merge(&mut self, other: &Self) {
        for (own, others) in [
            (&mut self.answers, &other.answers),
            (&mut self.settled, &other.settled),
            (&mut self.died, &other.died),
        ] {
            for (value, count) in others {
                *own.entry(value.clone()).or_default() += count;
            }
        }
        let larger = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        self.oldest_waiting_seconds = larger(self.oldest_waiting_seconds, other.oldest_waiting_seconds);
        self.newest_applied_at = larger(self.newest_applied_at, other.newest_applied_at);
        self.key_breaker_open |= other.key_breaker_open;
        // Of several outages the one that began first is the one whose events Ring gives up on first.
        self.outage = match (self.outage, other.outage) {
            (Some(a), Some(b)) if b.started_at < a.started_at => Some(b),
            (a, b) => a.or(b),
        };
    }
}

/// One line of the page.
struct Series<'t> {
    name: &'t str,
    labels: &'t str,
    value: f64,
}

impl<'t> Series<'t> {
    fn read(line: &'t str) -> Option<Self> {
        let name_end = line.find(['{', ' '])?;
        let name = &line[..name_end];
        if name.is_empty() || name.starts_with('#') {
            return None;
        }
        let (labels, rest) = match line[name_end..].strip_prefix('{') {
            None => ("", &line[name_end..]),
            Some(inner) => inner.split_at_checked(end_of_labels(inner)?)?,
        };
        let value = rest.trim_start_matches('}').split_ascii_whitespace().next()?;
        Some(Self {
            name,
            labels,
            value: value.parse().ok().filter(|value: &f64| value.is_finite())?,
        })
    }

    /// The value of a label, with its escapes read.
    fn label(&self, wanted: &str) -> Option<String> {
        let mut rest = self.labels;
        loop {
            let (name, after) = rest.split_once("=\"")?;
            let end = end_of_value(after)?;
            if name.trim_start_matches(',').trim() == wanted {
                return Some(unescaped(&after[..end]));
            }
            rest = &after[end + 1..];
        }
    }
}

fn add(sums: &mut BTreeMap<String, f64>, series: &Series, label: &str) {
    if let Some(value) = series.label(label)
        && (sums.len() < VALUES_MAX || sums.contains_key(&value))
    {
        *sums.entry(value).or_default() += series.value;
    }
}

/// Where the closing brace is; one within a value does not count.
fn end_of_labels(inner: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// Where the closing quote is.
fn end_of_value(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

fn unescaped(text: &str) -> String {
    let mut read = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => read.push('\n'),
                Some(other) => read.push(other),
                None => {}
            },
            c => read.push(c),
        }
    }
    read
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const PAGE: &str = r#"# HELP porchlight_ingress_requests Requests by answer and cause.
# TYPE porchlight_ingress_requests counter
porchlight_ingress_requests_total{answer="200",cause="stored"} 7
porchlight_ingress_requests_total{answer="200",cause="spooled"} 2
porchlight_ingress_requests_total{answer="503",cause="odd \"}{ \\ one"} 3 # {trace_id="x"} 1
porchlight_worker_events_total{type="device_online",outcome="applied"} 4
porchlight_worker_dead_letters_total{reason="no_device"} 1
porchlight_worker_oldest_waiting_age_seconds 1.5
porchlight_worker_newest_applied_timestamp_seconds 0
porchlight_ingress_outage 1
porchlight_ingress_outage_started_timestamp_seconds 100
porchlight_ingress_outage_first_loss_timestamp_seconds 4456
porchlight_ingress_outage_forgotten_timestamp_seconds 263656
porchlight_ingress_key_breaker_open 0
other{a="b"} NaN
{} 1
broken{a="b
# EOF
"#;

    #[test]
    fn the_figures_of_a_page_are_read_and_the_rest_is_passed_over() {
        let figures = Figures::read(PAGE);
        assert_eq!((figures.answers["200"], figures.answers["503"]), (9.0, 3.0));
        assert_eq!(
            (figures.settled["applied"], figures.died["no_device"]),
            (4.0, 1.0)
        );
        assert_eq!(
            (figures.oldest_waiting_seconds, figures.newest_applied_at),
            (Some(1.5), None)
        );
        let outage = figures.outage.unwrap();
        assert_eq!((outage.started_at, outage.first_loss_at), (100.0, 4456.0));
        assert_eq!(Figures::read(""), Figures::default());
        assert_eq!(Figures::read(&PAGE.replace("outage 1", "outage 0")).outage, None);
    }

    #[test]
    fn labels_are_found_in_any_order_and_with_their_escapes() {
        let series = Series::read(r#"n{a="1",b="x\"},{y\\",c="\n"} 2 1700000000"#).unwrap();
        let label = |name| series.label(name);
        assert_eq!((series.name, series.value), ("n", 2.0));
        assert_eq!(label("b").unwrap(), r#"x"},{y\"#);
        assert_eq!((label("c"), label("d")), (Some("\n".to_owned()), None));
    }

    #[test]
    fn daemons_are_summed_and_of_what_is_no_sum_the_worse_counts() {
        let mut figures = Figures::read(PAGE);
        let mut other = figures.clone();
        other.oldest_waiting_seconds = Some(9.0);
        other.outage = other.outage.map(|outage| Outage {
            started_at: 50.0,
            ..outage
        });
        other.key_breaker_open = true;
        figures.merge(&other);
        assert_eq!(
            (figures.answers["200"], figures.oldest_waiting_seconds),
            (18.0, Some(9.0))
        );
        assert!(figures.key_breaker_open && figures.outage.unwrap().started_at < 51.0);
    }
}
