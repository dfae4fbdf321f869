//! Where the servers are: the same settings as the daemons, checked without ever showing a password.
//!
//! Nothing is connected here.

use porchlight_broker::BrokerUrls;

use crate::failure::Failure;

const AMQP_URL: &str = "amqp://guest:guest@127.0.0.1:5672/%2f";

/// Where RabbitMQ is.
#[derive(clap::Args)]
pub(crate) struct AmqpArgs {
    /// RabbitMQ; several addresses, comma-separated, are tried in turn
    #[arg(
        long,
        value_name = "URL",
        env = "PORCHLIGHT_AMQP_URL",
        hide_env_values = true,
        default_value = AMQP_URL,
        help_heading = "Servers"
    )]
    amqp_url: String,
}

impl AmqpArgs {
    /// The checked addresses.
    pub(crate) fn urls(&self) -> Result<BrokerUrls, Failure> {
        let text = if self.amqp_url.trim().is_empty() {
            AMQP_URL
        } else {
            &self.amqp_url
        };
        BrokerUrls::parse(text)
            .map_err(|error| Failure::usage("PORCHLIGHT_AMQP_URL (--amqp-url)").because(&error))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_address_is_told_without_its_password() {
        let args = AmqpArgs {
            amqp_url: "http://user:hunter2@host".to_owned(),
        };
        let failure = args.urls().unwrap_err();
        assert!(failure.line().contains("PORCHLIGHT_AMQP_URL") && !failure.line().contains("hunter2"));
        assert!(
            AmqpArgs {
                amqp_url: " ".to_owned()
            }
            .urls()
            .is_ok()
        );
    }
}
