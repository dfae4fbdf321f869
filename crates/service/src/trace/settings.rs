//! Where traces go and how many are kept: the flags, the same for every daemon, and what becomes of them.
//!
//! It starts nothing.

use std::sync::Arc;

use clap::Args;

use crate::Checker;
use crate::client::{Target, TlsConnector, connector};

const URL: &str = "PORCHLIGHT_OTLP_URL";
const RATIO: &str = "PORCHLIGHT_TRACE_RATIO";
/// Where a collector listens that is told by its address alone.
const USUAL_PATH: &str = "/v1/traces";

/// Flags and variables of traces, as text.
#[derive(Debug, Clone, Args)]
pub struct TraceArgs {
    /// Export traces here, by OTLP over HTTP in protobuf; http or https, a URL without a path gets /v1/traces. Not set:
    /// no traces.
    #[arg(
        long,
        env = "PORCHLIGHT_OTLP_URL",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Operation"
    )]
    otlp_url: Option<String>,
    /// Share of the traces that are kept, decided once for each event. 0 to 1.
    #[arg(
        long,
        env = "PORCHLIGHT_TRACE_RATIO",
        hide_env_values = true,
        value_name = "SHARE",
        default_value = "1",
        help_heading = "Operation"
    )]
    trace_ratio: String,
}

/// Where traces go, and how many.
#[derive(Clone)]
pub struct TraceSettings {
    pub(super) target: Arc<Target>,
    tls: Option<TlsConnector>,
    pub(super) ratio: f64,
}

impl TraceSettings {
    /// Checks the flags; what is wrong is noted with `checker`. `None` when traces are off, or wrong.
    pub fn check(checker: &mut Checker, args: &TraceArgs) -> Option<Self> {
        let ratio = checker.parsed(RATIO, &args.trace_ratio, ratio);
        let target = checker.optional_parsed(URL, args.otlp_url.as_deref(), target)?;
        let tls = match connector(&target, None) {
            Ok(tls) => tls,
            Err(error) => {
                checker.problem(URL, error.to_string());
                return None;
            }
        };
        Some(Self {
            target: Arc::new(target),
            tls,
            ratio: ratio?,
        })
    }

    pub(super) fn tls(&self) -> Option<TlsConnector> {
        self.tls.clone()
    }
}

/// Neither path nor query is shown: either may hold a secret.
impl std::fmt::Debug for TraceSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TraceSettings({}, {})", self.target.address(), self.ratio)
    }
}

fn target(text: &str) -> Result<Target, String> {
    let parse = |text: &str| {
        Target::parse(text).map_err(|error| match error {
            crate::client::TargetError::NotUrl => {
                "is not a URL; write for example http://127.0.0.1:4318".to_owned()
            }
            other => other.to_string(),
        })
    };
    let target = parse(text)?;
    if target.path() == "/" {
        return parse(&format!("{}{USUAL_PATH}", text.trim().trim_end_matches('/')));
    }
    Ok(target)
}

fn ratio(text: &str) -> Result<f64, &'static str> {
    let share: Result<f64, _> = text.parse();
    share
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or("is no share; write a number from 0 to 1, for example 0.05")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Process {
        #[command(flatten)]
        trace: TraceArgs,
    }

    fn check(flags: &[&str]) -> Result<Option<TraceSettings>, String> {
        use clap::CommandFactory as _;
        let args = Process::parse_from(["process"].iter().chain(flags));
        let mut checker = Checker::new(&Process::command());
        let settings = TraceSettings::check(&mut checker, &args.trace);
        match checker.finish() {
            Ok(()) => Ok(settings),
            Err(problems) => Err(problems.to_string()),
        }
    }

    #[test]
    fn an_address_alone_gets_the_usual_path_and_any_other_path_is_kept() {
        for (url, wanted) in [
            ("http://otel:4318", "http://otel:4318/v1/traces"),
            ("http://otel:4318/", "http://otel:4318/v1/traces"),
            ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
            (
                " http://otel/otlp/v1/traces?a=b ",
                "http://otel/otlp/v1/traces?a=b",
            ),
        ] {
            let settings = check(&["--otlp-url", url]).unwrap().unwrap();
            assert_eq!(settings.target.to_string(), wanted);
            assert!(!format!("{settings:?}").contains("traces"), "{settings:?}");
        }
        assert!(check(&["--otlp-url", ""]).unwrap().is_none());
        assert!(check(&[]).unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_is_told_without_the_value() {
        for (flags, words) in [
            (["--otlp-url", "otel:4318"], "http://127.0.0.1:4318"),
            (["--otlp-url", "grpc://otel:4317"], "must begin with http"),
            (["--otlp-url", "http://user:s3cret@otel"], "must not hold a user"),
            (["--trace-ratio", "1.1"], "0 to 1"),
            (["--trace-ratio", "NaN"], "0 to 1"),
            (["--trace-ratio=-0.1", "--otlp-url="], "0 to 1"),
        ] {
            let told = check(&flags).unwrap_err();
            assert!(told.contains(words) && !told.contains("s3cret"), "{told}");
        }
        assert_eq!(
            check(&["--otlp-url", "http://o", "--trace-ratio", "0.25"])
                .unwrap()
                .unwrap()
                .ratio,
            0.25
        );
    }
}
