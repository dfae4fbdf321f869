//! Sets up logging: filter, format, and a cap on what the AMQP client may say.
//!
//! It decides nothing about what is logged; libraries and daemons do that with `tracing`.

use std::io::IsTerminal as _;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, FilterFn, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::settings::Checker;

/// Targets that log nothing unless the filter names them: what fails in the AMQP client comes as an error to whoever uses
/// it, and is logged there once, while the client repeats it several times a second as long as a broker is away. Named,
/// they log errors only: the client warns of a returned message by printing it whole, body and headers included.
const CAPPED_TARGETS: [&str; 5] = ["lapin", "amq_protocol", "pinky_swear", "async_rs", "tcp_stream"];

/// A target, and those that begin like it, that may log nothing at all: to look whether a queue is there costs a channel
/// each time that it is not.
const SILENT_TARGET: &str = "lapin::channel";

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// How to log.
#[derive(Debug)]
pub struct LogSettings {
    filter: EnvFilter,
    format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For a person.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logging was set up before in this process.
#[derive(Debug, thiserror::Error)]
#[error("logging cannot be set up")]
pub struct InitError(#[from] tracing_subscriber::util::TryInitError);

impl LogSettings {
    /// Checks `PORCHLIGHT_LOG` and `PORCHLIGHT_LOG_FORMAT`.
    pub fn read(checker: &mut Checker, filter: &str, format: &str) -> Self {
        let filter = checker.parsed("PORCHLIGHT_LOG", filter, parse_filter);
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let format = checker.choice("PORCHLIGHT_LOG_FORMAT", format, &formats);
        Self {
            filter: filter.unwrap_or_default(),
            format,
        }
    }
}

/// Sends the log to standard error from here on. Colours only on a terminal.
///
/// # Errors
/// [`InitError`] when called twice in one process.
pub fn init(settings: LogSettings) -> Result<(), InitError> {
    let stderr = std::io::stderr;
    let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = match settings.format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_writer(stderr)
            .with_ansi(colour)
            .boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(stderr)
            .boxed(),
    };
    let filter = settings.filter.and(cap());
    Ok(tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .try_init()?)
}

/// `info`, or `warn,porchlight_broker=debug`. A bare word must be a level: a mistyped level would otherwise be taken for
/// a target and silence everything.
fn parse_filter(text: &str) -> Result<EnvFilter, String> {
    for part in text.split(',').map(str::trim) {
        if !part.contains(['=', '[']) && !LEVELS.contains(&part.to_ascii_lowercase().as_str()) {
            return Err(format!(
                "has a part that is neither a level ({}) nor target=level",
                LEVELS.join(", ")
            ));
        }
    }
    // Of two parts about one target the last one counts.
    let quiet: String = CAPPED_TARGETS
        .iter()
        .map(|target| format!("{target}=off,"))
        .collect();
    EnvFilter::try_new(quiet + text)
        .map_err(|_| "is not a filter; write for example info,porchlight_broker=debug".to_owned())
}

fn cap() -> FilterFn {
    filter_fn(|metadata: &Metadata<'_>| {
        let target = metadata.target();
        // Levels compare by verbosity: more than ERROR is WARN and below.
        let is_error = *metadata.level() <= Level::ERROR;
        let is_capped = CAPPED_TARGETS.iter().any(|name| target.starts_with(name));
        (is_error || !is_capped) && !target.starts_with(SILENT_TARGET)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let filter = parse_filter(filter).unwrap().and(cap());
        tracing::subscriber::with_default(
            tracing_subscriber::registry().with(layer.with_filter(filter)),
            log,
        );
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn the_amqp_client_logs_errors_only_and_those_when_it_is_named() {
        for (filter, is_named) in [
            ("trace", false),
            ("lapin=trace,amq_protocol_tcp=trace,info", true),
            ("info,lapin::io_loop=error", true),
        ] {
            let shown = logged(filter, || {
                tracing::warn!(target: "lapin::channel", "returned the-body");
                tracing::trace!(target: "amq_protocol_tcp", "the-body");
                tracing::error!(target: "lapin::channel", "no such queue");
                tracing::error!(target: "lapin::io_loop", "broken");
                tracing::info!(target: "porchlight_broker", "hello");
            });
            assert!(
                !shown.contains("the-body") && !shown.contains("no such queue"),
                "{shown}"
            );
            assert_eq!(shown.contains("broken"), is_named, "{shown}");
            assert!(shown.contains("hello"), "{shown}");
        }
    }

    #[test]
    fn a_mistyped_level_is_refused() {
        for wrong in ["inof", "", "info,debg", "a=b=c", "x=loud"] {
            assert!(parse_filter(wrong).is_err(), "{wrong}");
        }
        for right in ["info", "WARN", "info,porchlight_broker=debug", "off"] {
            assert!(parse_filter(right).is_ok(), "{right}");
        }
    }
}
