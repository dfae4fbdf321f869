//! The command line of the worker, as text; what it says is the help.
//!
//! Nothing is checked here: every value stays the text it was, so that all mistakes can be told at once.

mod work;

use clap::{Args as Group, Parser};
use porchlight_monitor::ManagementArgs;
use porchlight_service::trace::TraceArgs;

pub use work::WorkArgs;

use crate::outlet::CallbackArgs;

/// The flags. Each has a variable of the same name, which the flag overrides.
#[derive(Debug, Parser)]
#[command(
    name = "porchlight-worker",
    version,
    about = "Takes Ring's events from the queue, applies each once to the ledger, and sends the commands they owe.",
    long_about = "Takes Ring's events from RabbitMQ, applies each once to the ledger in Redis, and sends the commands \
                  (pause, resume, cancel) that they owe to the exchange porchlight.commands, or to the callback URL where \
                  one is given.\n\nAn event leaves the \
                  queue only after the ledger has it. While Redis is away the worker holds what it has and takes \
                  nothing new; it never gives events back one by one. What can never be applied goes to \
                  porchlight.dead with the reason. Any number of workers may run at once.",
    after_help = "Every flag can be given as its variable instead; an empty value means the default.\n\nExit codes: 0 \
                  stopped cleanly, with nothing left unacknowledged; 1 could not start or not stop cleanly; 64 a \
                  setting is wrong; 130 or 143 a second SIGINT or SIGTERM ended it at once."
)]
pub struct Args {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) servers: ServerArgs,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    #[command(flatten)]
    pub(crate) work: WorkArgs,
    #[command(flatten)]
    pub(crate) callback: CallbackArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

/// Where a person looks at it.
#[derive(Debug, Group)]
pub(crate) struct AdminArgs {
    /// Health, metrics and control API; never make it public [IP address and port]
    #[arg(
        long,
        env = "PORCHLIGHT_ADMIN_LISTEN",
        hide_env_values = true,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9091"
    )]
    pub(crate) admin_listen: String,
    /// Bearer token of the control API; without one that API is off [at least 16 characters]
    #[arg(
        long,
        env = "PORCHLIGHT_ADMIN_TOKEN",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    pub(crate) admin_token: Option<String>,
}

/// The servers of the scaled form.
#[derive(Debug, Group)]
pub(crate) struct ServerArgs {
    /// RabbitMQ; several addresses, separated by commas, are tried in turn
    #[arg(
        long,
        env = "PORCHLIGHT_AMQP_URL",
        hide_env_values = true,
        value_name = "URL",
        default_value = "amqp://guest:guest@127.0.0.1:5672/%2f"
    )]
    pub(crate) amqp_url: String,
    /// Redis 7 or Valkey, with an append-only file and without eviction
    #[arg(
        long,
        env = "PORCHLIGHT_REDIS_URL",
        hide_env_values = true,
        value_name = "URL",
        default_value = "redis://127.0.0.1:6379"
    )]
    pub(crate) redis_url: String,
    /// How long a connection must have been good before the full prefetch; a crash charges each event in hand with a
    /// delivery, so until then only 8 are [0s to 10m]
    #[arg(
        long,
        env = "PORCHLIGHT_PREFETCH_RAMP",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "30s"
    )]
    pub(crate) prefetch_ramp: String,
    #[command(flatten)]
    pub(crate) management: ManagementArgs,
}

/// Verifying once more.
#[derive(Debug, Group)]
pub(crate) struct KeyArgs {
    /// Optional: verify each event's stored signature again, with any of these keys [name=key, separated by commas].
    ///
    /// Without keys whatever is on the queue is trusted, as only the ingresses may write there. With keys an event
    /// that no key matches, or that carries no signature, goes to the dead letters as `bad_signature`. Keep an old key
    /// here until neither queue nor dead letters hold an event that it signed.
    #[arg(
        long,
        env = "PORCHLIGHT_SIGNING_KEYS",
        hide_env_values = true,
        value_name = "KEYS"
    )]
    pub(crate) signing_keys: Option<String>,
    /// Optional: more such keys in a file, one `name=key` a line; read again on SIGHUP and when it changes
    #[arg(
        long,
        env = "PORCHLIGHT_SIGNING_KEYS_FILE",
        hide_env_values = true,
        value_name = "PATH"
    )]
    pub(crate) signing_keys_file: Option<String>,
}

/// The log.
#[derive(Debug, Group)]
pub(crate) struct LogArgs {
    /// What is logged: a level (off, error, warn, info, debug, trace), or parts such as info,porchlight_broker=debug
    #[arg(
        long,
        env = "PORCHLIGHT_LOG",
        hide_env_values = true,
        value_name = "FILTER",
        default_value = "info"
    )]
    pub(crate) log: String,
    /// The form of a log line [text or json]
    #[arg(
        long,
        env = "PORCHLIGHT_LOG_FORMAT",
        hide_env_values = true,
        value_name = "FORM",
        default_value = "text"
    )]
    pub(crate) log_format: String,
}
