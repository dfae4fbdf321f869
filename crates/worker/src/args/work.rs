//! The flags of the work itself, the same with every queue and every ledger.
//!
//! Nothing is checked here.

use clap::Args as Group;
use porchlight_monitor::WatchArgs;

/// Bounds and spans of the work, as text; [`crate::WorkSettings::check`] reads them.
#[derive(Debug, Group)]
pub struct WorkArgs {
    /// How long a device must stay online before its operations are resumed [0s to 1h]
    #[arg(
        long,
        env = "PORCHLIGHT_SETTLE",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "0s"
    )]
    pub(crate) settle: String,
    /// Events taken from the queue in advance; each may hold up to 1 MiB of memory [8 to 2000]
    #[arg(
        long,
        env = "PORCHLIGHT_PREFETCH",
        hide_env_values = true,
        value_name = "COUNT",
        default_value = "512"
    )]
    pub(crate) prefetch: String,
    /// Events applied in one round trip to the ledger [1 to 512]
    #[arg(
        long,
        env = "PORCHLIGHT_BATCH_SIZE",
        hide_env_values = true,
        value_name = "COUNT",
        default_value = "64"
    )]
    pub(crate) batch_size: String,
    /// Round trips to the ledger at once [1 to 16]
    #[arg(
        long,
        env = "PORCHLIGHT_BATCHES_MAX",
        hide_env_values = true,
        value_name = "COUNT",
        default_value = "4"
    )]
    pub(crate) batches_max: String,
    /// How long events are held and tried again while the ledger or the queue fails, before they are left to the
    /// queue [1s to 10m]
    #[arg(
        long,
        env = "PORCHLIGHT_HOLD_MAX",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "60s"
    )]
    pub(crate) hold_max: String,
    /// Commands being sent at once [1 to 1024]
    #[arg(
        long,
        env = "PORCHLIGHT_COMMANDS_INFLIGHT_MAX",
        hide_env_values = true,
        value_name = "COUNT",
        default_value = "64"
    )]
    pub(crate) commands_inflight_max: String,
    /// How often commands that are still owed are looked for [100ms to 1m]
    #[arg(
        long,
        env = "PORCHLIGHT_SWEEP_INTERVAL",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "1s"
    )]
    pub(crate) sweep_interval: String,
    /// How long a stop may take, for each of: events in hand, commands in hand [1s to 5m]
    #[arg(
        long,
        env = "PORCHLIGHT_STOP_GRACE",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "10s"
    )]
    pub(crate) stop_grace: String,
    #[command(flatten)]
    pub(crate) watch: WatchArgs,
}
