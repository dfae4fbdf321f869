//! The command line of the ingress, as text; what it says is the help.
//!
//! Nothing is checked here: every value stays the text it was, so that all mistakes can be told at once.

mod edge;

use clap::{Args as Group, Parser};
use porchlight_monitor::{ManagementArgs, WatchArgs};

pub use edge::EdgeArgs;
use porchlight_service::trace::TraceArgs;

const INTRO: &str = "\
Receives Ring's webhooks: verifies the signature over the raw body, stores the event in RabbitMQ, and answers 200 \
only when the broker has confirmed it. With a spool, events are kept on this machine's disk while the broker is away.

Every setting is a flag or a variable of the same name; a flag wins. An empty variable counts as not set. Spans of \
time need a unit (ms, s, m, h); sizes are bytes, or end in KiB, MiB, GiB or TiB.";

const OUTRO: &str = "\
Signals:
  SIGTERM, SIGINT   stop: not ready at once, drain, answer what was read; a second one ends at once
  SIGHUP            read the signing keys and the certificate again

Exit codes:
  0    stopped, and every request was answered
  1    could not start (an address is taken, say), or connections were cut when the grace ran out
  64   a flag or a setting is wrong; all that are wrong are named, and nothing was started
  130, 143   ended by a second SIGINT or SIGTERM

Least to set: PORCHLIGHT_SIGNING_KEYS=ring=<the HMAC signing key from Ring's developer portal>";

/// The command line and the environment, as text.
#[derive(Parser)]
#[command(name = "porchlight-ingress", version, about = INTRO, after_help = OUTRO, max_term_width = 110)]
pub struct Args {
    #[command(flatten)]
    pub(crate) edge: EdgeArgs,
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    #[command(flatten)]
    pub(crate) spool: SpoolArgs,
    #[command(flatten)]
    pub(crate) operation: OperationArgs,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

/// Flags and variables of publishing to RabbitMQ.
#[derive(Group)]
pub(crate) struct BrokerArgs {
    /// RabbitMQ; several, comma-separated, are tried in turn.
    #[arg(
        long,
        env = "PORCHLIGHT_AMQP_URL",
        hide_env_values = true,
        value_name = "URL,..",
        default_value = "amqp://guest:guest@127.0.0.1:5672/%2f",
        help_heading = "Queue"
    )]
    pub(crate) amqp_url: String,
    /// Events being stored at once; more wait for a place. 1 to 4096.
    #[arg(
        long,
        env = "PORCHLIGHT_PUBLISH_WINDOW",
        hide_env_values = true,
        value_name = "COUNT",
        default_value = "256",
        help_heading = "Queue"
    )]
    pub(crate) publish_window: String,
    /// Channels on the one connection to the broker. 1 to 16.
    #[arg(
        long,
        env = "PORCHLIGHT_PUBLISH_CHANNELS",
        hide_env_values = true,
        value_name = "COUNT",
        default_value = "4",
        help_heading = "Queue"
    )]
    pub(crate) publish_channels: String,
    /// Longest wait for a place in the window, then 503. 0ms to 2s.
    #[arg(
        long,
        env = "PORCHLIGHT_SLOT_TIMEOUT",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "300ms",
        help_heading = "Queue"
    )]
    pub(crate) slot_timeout: String,
    #[command(flatten, next_help_heading = "Queue")]
    pub(crate) management: ManagementArgs,
}

/// Flags and variables of keeping events on this machine's disk.
#[derive(Group)]
pub(crate) struct SpoolArgs {
    /// Directory of the spool, this ingress's alone: events are stored there while RabbitMQ is away, and handed over when
    /// it is back. Not set: no spool.
    #[arg(
        long,
        env = "PORCHLIGHT_DATA_DIR",
        hide_env_values = true,
        value_name = "DIRECTORY",
        help_heading = "Spool"
    )]
    pub(crate) data_dir: Option<String>,
    /// Most that the spool may hold; beyond it 503. 16MiB to 1TiB.
    #[arg(
        long,
        env = "PORCHLIGHT_SPOOL_BYTES_MAX",
        hide_env_values = true,
        value_name = "BYTES",
        default_value = "1GiB",
        help_heading = "Spool"
    )]
    pub(crate) spool_bytes_max: String,
}

/// Flags and variables of watching the process.
#[derive(Group)]
pub(crate) struct OperationArgs {
    /// Address for /livez, /readyz and /metrics; never public.
    #[arg(
        long,
        env = "PORCHLIGHT_ADMIN_LISTEN",
        hide_env_values = true,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9090",
        help_heading = "Operation"
    )]
    pub(crate) admin_listen: String,
    /// Bearer token of the control API, at least 16 characters. The ingress has no calls there yet.
    #[arg(
        long,
        env = "PORCHLIGHT_ADMIN_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "Operation"
    )]
    pub(crate) admin_token: Option<String>,
    /// What to log: a level, or target=level, comma-separated.
    #[arg(
        long,
        env = "PORCHLIGHT_LOG",
        hide_env_values = true,
        value_name = "FILTER",
        default_value = "info",
        help_heading = "Operation"
    )]
    pub(crate) log: String,
    /// Form of the log: text or json.
    #[arg(
        long,
        env = "PORCHLIGHT_LOG_FORMAT",
        hide_env_values = true,
        value_name = "FORM",
        default_value = "text",
        help_heading = "Operation"
    )]
    pub(crate) log_format: String,
    #[command(flatten, next_help_heading = "Operation")]
    pub(crate) watch: WatchArgs,
}
