//! What can be set about watching.
//!
//! Every daemon has these flags, with one meaning; those of RabbitMQ in the scaled form alone.

use std::time::Duration;

use clap::Args as Group;
use porchlight_management::{Management, ManagementUrl};
use porchlight_service::Checker;

/// Shorter would be load without news; the bound is for tests.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Longer would be no watching.
const INTERVAL_MAX: Duration = Duration::from_secs(600);

/// For one question to the management API, connecting included: it may take a busy broker a second to gather.
const ASK_MAX: Duration = Duration::from_secs(5);

/// Flags of watching.
#[derive(Debug, Group)]
pub struct WatchArgs {
    /// How often queue depths and the ledger's figures are read for /metrics; a scrape shows the last reading [100ms to
    /// 10m]
    #[arg(
        long,
        env = "PORCHLIGHT_WATCH_INTERVAL",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "10s"
    )]
    watch_interval: String,
}

impl WatchArgs {
    /// The time between two readings; what is wrong is noted with `checker`.
    pub fn interval(&self, checker: &mut Checker) -> Duration {
        checker.duration(
            "PORCHLIGHT_WATCH_INTERVAL",
            &self.watch_interval,
            INTERVAL_MIN..=INTERVAL_MAX,
        )
    }
}

/// Flags of what only RabbitMQ has.
#[derive(Debug, Group)]
pub struct ManagementArgs {
    /// Optional: RabbitMQ's management API, such as `http://user:password@host:15672`, for what AMQP does not tell:
    /// messages in hand and bytes of each queue. The user needs the tag monitoring
    #[arg(
        long,
        env = "PORCHLIGHT_MANAGEMENT_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    management_url: Option<String>,
}

impl ManagementArgs {
    /// The API, where one is named; what is wrong is noted with `checker`. Nothing is connected yet.
    pub fn management(&self, checker: &mut Checker) -> Option<Management> {
        let name = "PORCHLIGHT_MANAGEMENT_URL";
        let url = checker.optional_parsed(name, self.management_url.as_deref(), ManagementUrl::parse)?;
        Management::new(url, ASK_MAX)
            .map_err(|error| checker.problem(name, format!("cannot be asked over https: {error}")))
            .ok()
    }
}
