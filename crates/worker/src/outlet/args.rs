//! The flags of callbacks, the same in every process that can send them.
//!
//! Nothing is checked here.

use clap::Args as Group;

/// Callbacks, as text; [`crate::CallbackSettings::check`] reads them.
#[derive(Debug, Group)]
pub struct CallbackArgs {
    /// Optional: POST commands here, signed [URL, or kind=URL for each kind of operation, separated by commas].
    ///
    /// A bare URL or *=URL among the pairs is for all other kinds. A receiver that fails is tried again with growing
    /// pauses, and does not hold up the others.
    #[arg(
        long,
        env = "PORCHLIGHT_CALLBACK_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) callback_url: Option<String>,
    /// What callbacks are signed with, by the Standard Webhooks scheme; several, separated by commas, while you change
    /// it [`whsec_` and 24 to 64 bytes in Base64]
    #[arg(
        long,
        env = "PORCHLIGHT_CALLBACK_SECRET",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    pub(crate) callback_secret: Option<String>,
    /// Certificates (PEM) that https receivers are checked with, in place of the system's
    #[arg(
        long,
        env = "PORCHLIGHT_CALLBACK_CA_FILE",
        hide_env_values = true,
        value_name = "PATH"
    )]
    pub(crate) callback_ca_file: Option<String>,
    /// For one whole call, connecting included; then it counts as failed [100ms to 1m]
    #[arg(
        long,
        env = "PORCHLIGHT_CALLBACK_TIMEOUT",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "10s"
    )]
    pub(crate) callback_timeout: String,
    /// Calls under way to one receiver; together not more than the commands that may be sent at once [1 to 256]
    #[arg(
        long,
        env = "PORCHLIGHT_CALLBACK_INFLIGHT_MAX",
        hide_env_values = true,
        value_name = "COUNT",
        default_value = "16"
    )]
    pub(crate) callback_inflight_max: String,
    /// How long after it was issued a command that fails once more goes to the dead letters [1m to 168h]
    #[arg(
        long,
        env = "PORCHLIGHT_CALLBACK_GIVE_UP",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "24h"
    )]
    pub(crate) callback_give_up: String,
}
