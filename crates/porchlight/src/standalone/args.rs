//! The flags of `standalone`: those of the public side and of the work, as in the scaled form, and where the data lies.
//!
//! Nothing is checked here: every value stays the text it was, so that all mistakes can be told at once.

use clap::{Args, CommandFactory as _};
use porchlight_ingress::EdgeArgs;
use porchlight_service::trace::TraceArgs;
use porchlight_worker::{CallbackArgs, WorkArgs};

use crate::cli::Cli;

const OUTRO: &str = "\
Signals:
  SIGTERM, SIGINT   stop: not ready at once, drain, answer what was read, finish what is in hand; a second one ends at
                    once, and loses nothing either
  SIGHUP            read the signing keys and the certificate again

Exit codes:
  0    stopped, and everything in hand was finished
  1    could not start (an address or the directory is taken, say), or did not stop in time
  64   a flag or a setting is wrong; all that are wrong are named, and nothing was started
  130, 143   ended by a second SIGINT or SIGTERM

Least to set: PORCHLIGHT_SIGNING_KEYS=ring=<the HMAC signing key from Ring's developer portal>";

/// Runs everything in one process, with one directory and no servers: receives, stores, applies, sends commands.
///
/// Ring's webhooks are verified, stored in an SQLite file and answered 200 when they are on the disk. Each is applied
/// once to the devices in the same file, and the commands that it owes are posted to the callback, or written as JSON
/// lines to standard output. The log goes to standard error.
///
/// Every setting is a flag or a variable of the same name; a flag wins. An empty variable counts as not set. Spans of
/// time need a unit (ms, s, m, h); sizes are bytes, or end in KiB, MiB or GiB.
#[derive(Args)]
#[command(after_help = OUTRO)]
pub(crate) struct StandaloneArgs {
    /// Directory of the one file that everything is in; made when it does not exist. One process at a time
    #[arg(
        long,
        env = "PORCHLIGHT_DATA_DIR",
        hide_env_values = true,
        value_name = "DIR",
        default_value = "./porchlight-data",
        help_heading = "Data"
    )]
    pub(super) data_dir: String,
    /// Largest size of the data; beyond it events are answered 503 until some were worked off. 16MiB to 1TiB
    #[arg(
        long,
        env = "PORCHLIGHT_DATA_BYTES_MAX",
        hide_env_values = true,
        value_name = "BYTES",
        default_value = "4GiB",
        help_heading = "Data"
    )]
    pub(super) data_bytes_max: String,

    #[command(flatten)]
    pub(super) edge: EdgeArgs,
    #[command(flatten, next_help_heading = "Work")]
    pub(super) work: WorkArgs,
    #[command(flatten)]
    pub(super) callback: CallbackArgs,

    /// Address for /livez, /readyz, /metrics and the control API; never public.
    #[arg(
        long,
        env = "PORCHLIGHT_ADMIN_LISTEN",
        hide_env_values = true,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9090",
        help_heading = "Operation"
    )]
    pub(super) admin_listen: String,
    /// Bearer token of the control API, at least 16 characters; without one that API is off.
    #[arg(
        long,
        env = "PORCHLIGHT_ADMIN_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "Operation"
    )]
    pub(super) admin_token: Option<String>,
    /// Form of the log: text or json.
    #[arg(
        long,
        env = "PORCHLIGHT_LOG_FORMAT",
        hide_env_values = true,
        value_name = "FORM",
        default_value = "text",
        help_heading = "Operation"
    )]
    pub(super) log_format: String,
    #[command(flatten)]
    pub(super) trace: TraceArgs,
}

/// All flags that the process knows, those of every command included.
pub(crate) fn command() -> clap::Command {
    StandaloneArgs::augment_args(Cli::command())
}
