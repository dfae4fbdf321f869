//! Where the servers are: the same settings as the daemons, checked without ever showing a password.
//!
//! Nothing is connected here.

use std::time::Duration;

use porchlight_broker::BrokerUrls;
use porchlight_store::{Store, StoreConfig};

use crate::failure::Failure;

const AMQP_URL: &str = "amqp://guest:guest@127.0.0.1:5672/%2f";
const REDIS_URL: &str = "redis://127.0.0.1:6379";
/// One command makes a few calls, one after the other.
const CONNECTIONS: usize = 1;
/// For one round trip: a person waits, so longer than a daemon would.
const RESPONSE_MAX: Duration = Duration::from_secs(5);
/// For making a connection.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// Where RabbitMQ is.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct AmqpArgs {
    #[arg(
        long,
        help = "RabbitMQ; several addresses, comma-separated, are tried in turn [default: \
                amqp://guest:guest@127.0.0.1:5672/%2f]",
        value_name = "URL",
        env = "PORCHLIGHT_AMQP_URL",
        hide_env_values = true,
        help_heading = "Servers"
    )]
    amqp_url: Option<String>,
}

/// Where Redis is.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct RedisArgs {
    /// Redis, as the workers have it [default: redis://127.0.0.1:6379]
    #[arg(
        long,
        value_name = "URL",
        env = "PORCHLIGHT_REDIS_URL",
        hide_env_values = true,
        help_heading = "Servers"
    )]
    redis_url: Option<String>,
}

impl AmqpArgs {
    /// Whether an address was given.
    pub(crate) fn is_given(&self) -> bool {
        given(&self.amqp_url).is_some()
    }

    /// The checked addresses.
    pub(crate) fn urls(&self) -> Result<BrokerUrls, Failure> {
        BrokerUrls::parse(given(&self.amqp_url).unwrap_or(AMQP_URL))
            .map_err(|error| Failure::usage("PORCHLIGHT_AMQP_URL (--amqp-url)").because(&error))
    }
}

impl RedisArgs {
    /// Whether an address was given.
    pub(crate) fn is_given(&self) -> bool {
        given(&self.redis_url).is_some()
    }

    /// A store that connects with its first call.
    pub(crate) fn store(&self) -> Result<Store, Failure> {
        let mut config = StoreConfig::new(given(&self.redis_url).unwrap_or(REDIS_URL));
        config.connections = CONNECTIONS;
        config.response_timeout = RESPONSE_MAX;
        config.connect_timeout = CONNECT_MAX;
        Store::connect(&config)
            .map_err(|error| Failure::usage("PORCHLIGHT_REDIS_URL (--redis-url)").because(&error))
    }
}

/// A setting's text; an empty one counts as not given.
pub(crate) fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().map(str::trim).filter(|text| !text.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_address_is_told_without_its_password() {
        let args = |url: &str| AmqpArgs {
            amqp_url: Some(url.to_owned()),
        };
        let failure = args("http://user:hunter2@host").urls().unwrap_err();
        assert!(failure.line().contains("PORCHLIGHT_AMQP_URL") && !failure.line().contains("hunter2"));
        assert!(args(" ").urls().is_ok() && !args(" ").is_given());
    }
}
