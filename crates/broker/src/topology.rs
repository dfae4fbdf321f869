//! Every exchange and queue of ours: its name, its arguments, and the declaring of it.
//!
//! Sizes are not set here; they belong to the operator's policies. Arguments cannot be changed on a queue that
//! exists, so only what safety needs is one.

use std::{collections::BTreeMap, time::Duration};

use lapin::{
    Channel, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{AMQPValue, FieldTable, ShortString},
};

use crate::connection::{Link, REQUEST_MAX, ServerVersion, within};

/// The work: fanout exchange and queue.
pub const EVENTS: &str = "porchlight.events";
/// Events that wait a minute: queue, published to through the default exchange.
pub const RETRY_1M: &str = "porchlight.retry.1m";
/// Events that wait ten minutes: queue, published to through the default exchange.
pub const RETRY_10M: &str = "porchlight.retry.10m";
/// Dead letters: fanout exchange and queue.
pub const DEAD: &str = "porchlight.dead";
/// What found no queue: fanout exchange and queue; must stay empty.
pub const UNROUTED: &str = "porchlight.unrouted";
/// Commands for partners' services: topic exchange and queue.
pub const COMMANDS: &str = "porchlight.commands";

/// Every queue of ours, in the order a person wants to see them.
pub const QUEUES: [&str; 6] = [EVENTS, RETRY_1M, RETRY_10M, DEAD, UNROUTED, COMMANDS];

/// Returns to the queue a message survives; the next one dead-letters it. Set explicitly, because the default is
/// none up to RabbitMQ 3.13 and 20 from 4.0 on.
const DELIVERY_LIMIT: i64 = 20;
/// "No limit", which RabbitMQ understands from 4.0 on and refuses before.
const DELIVERY_UNLIMITED: i64 = -1;
/// The first major version with a delivery limit nobody asked for.
const MAJOR_WITH_DEFAULT_LIMIT: u32 = 4;

/// The little of the topology that tests need different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyConfig {
    /// How long `porchlight.retry.1m` holds an event; in production always one minute, as its name says.
    pub retry_1m_ttl: Duration,
    /// How long `porchlight.retry.10m` holds an event; in production always ten minutes.
    pub retry_10m_ttl: Duration,
}

impl Default for TopologyConfig {
    fn default() -> Self {
        Self {
            retry_1m_ttl: Duration::from_secs(60),
            retry_10m_ttl: Duration::from_secs(600),
        }
    }
}

/// Why the topology could not be brought into being.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// An object exists with another type or argument. It stays as it is; nothing is deleted by us.
    #[error("{object}: {argument} should be {wanted} but is {found}; {remedy}")]
    Mismatch {
        /// Kind and name, such as `queue 'porchlight.events'`.
        object: String,
        /// The argument or property that differs.
        argument: String,
        /// What we declare.
        wanted: String,
        /// What the broker has.
        found: String,
        /// How to get from one to the other.
        remedy: String,
    },
    /// The user may not declare it.
    #[error(
        "{object}: access refused; give the user configure and read permission on ^porchlight\\. and write permission \
         on ^(porchlight\\.|amq\\.default$) ({reason})"
    )]
    Access {
        /// Kind and name.
        object: String,
        /// The broker's words.
        reason: String,
    },
    /// The broker refused for another reason.
    #[error("{object}: {reason}")]
    Refused {
        /// Kind and name.
        object: String,
        /// The broker's words.
        reason: String,
    },
    /// The connection failed half-way; declaring again is safe.
    #[error("{object}: the connection failed")]
    Lost {
        /// Kind and name.
        object: String,
        /// What lapin said.
        source: lapin::Error,
    },
}

pub(crate) struct QueueSpec {
    pub(crate) name: &'static str,
    arguments: Vec<(&'static str, AMQPValue)>,
    /// An exchange to bind to, and the key.
    binding: Option<(&'static str, &'static str)>,
    /// Must never lose anything to a delivery limit.
    unlimited: bool,
}

pub(crate) struct ExchangeSpec {
    pub(crate) name: &'static str,
    kind: ExchangeKind,
    alternate: Option<&'static str>,
}

/// Safety nets first: whatever order daemons start and die in, an exchange never exists before its alternate.
pub(crate) fn exchanges() -> [ExchangeSpec; 4] {
    use ExchangeKind::{Fanout, Topic};
    [
        ExchangeSpec {
            name: UNROUTED,
            kind: Fanout,
            alternate: None,
        },
        ExchangeSpec {
            name: DEAD,
            kind: Fanout,
            alternate: None,
        },
        ExchangeSpec {
            name: EVENTS,
            kind: Fanout,
            alternate: Some(UNROUTED),
        },
        ExchangeSpec {
            name: COMMANDS,
            kind: Topic,
            alternate: Some(UNROUTED),
        },
    ]
}

/// Dead-lettering "at least once" needs all three: the exchange, the strategy, and an overflow that refuses.
fn dead_lettering(exchange: &'static str) -> Vec<(&'static str, AMQPValue)> {
    vec![
        ("x-overflow", text("reject-publish")),
        ("x-dead-letter-exchange", text(exchange)),
        ("x-dead-letter-strategy", text("at-least-once")),
    ]
}

pub(crate) fn queues(config: &TopologyConfig) -> [QueueSpec; 6] {
    let limited = || {
        let mut arguments = dead_lettering(DEAD);
        arguments.push(("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT)));
        arguments
    };
    let waiting = |ttl: Duration| {
        let mut arguments = dead_lettering(EVENTS);
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        arguments.push(("x-message-ttl", AMQPValue::LongLongInt(ttl_ms)));
        arguments
    };
    let spec = |name, arguments, binding, unlimited| QueueSpec {
        name,
        arguments,
        binding,
        unlimited,
    };
    [
        spec(UNROUTED, vec![], Some((UNROUTED, "")), true),
        spec(DEAD, vec![], Some((DEAD, "")), true),
        spec(EVENTS, limited(), Some((EVENTS, "")), false),
        spec(RETRY_1M, waiting(config.retry_1m_ttl), None, false),
        spec(RETRY_10M, waiting(config.retry_10m_ttl), None, false),
        spec(COMMANDS, limited(), Some((COMMANDS, "#")), false),
    ]
}

/// Declares everything that is missing and checks what exists.
///
/// Idempotent, and safe when several daemons do it at once. A failure leaves a part of the topology behind in which
/// nothing can be lost; the next call completes it.
///
/// # Errors
/// [`TopologyError::Mismatch`] and [`TopologyError::Access`] need a person; the rest may pass by itself.
pub async fn declare(link: &Link, config: &TopologyConfig) -> Result<(), TopologyError> {
    let mut channel = open(link).await?;
    for spec in exchanges() {
        declare_exchange(&channel, &spec).await?;
    }
    for spec in queues(config) {
        channel = declare_queue(link, channel, &spec).await?;
        if let Some((exchange, key)) = spec.binding {
            let bound = channel.queue_bind(
                ShortString::from(spec.name),
                ShortString::from(exchange),
                ShortString::from(key),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            within(REQUEST_MAX, bound)
                .await
                .map_err(|error| typed(format!("binding of queue '{}'", spec.name), error))?;
        }
    }
    let _ = within(REQUEST_MAX, channel.close(200, "declared".into())).await;
    Ok(())
}

pub(crate) async fn open(link: &Link) -> Result<Channel, TopologyError> {
    link.open_channel().await.map_err(|source| TopologyError::Lost {
        object: "channel".to_owned(),
        source,
    })
}

pub(crate) async fn declare_exchange(channel: &Channel, spec: &ExchangeSpec) -> Result<(), TopologyError> {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let alternate = spec.alternate.map(|name| ("alternate-exchange", text(name)));
    let arguments = table(alternate);
    let declared = channel.exchange_declare(spec.name.into(), spec.kind.clone(), options, arguments);
    within(REQUEST_MAX, declared)
        .await
        .map_err(|error| typed(format!("exchange '{}'", spec.name), error))
}

/// Whether this queue says on this server that it has no limit.
pub(crate) fn lifts_limit(spec: &QueueSpec, server: &ServerVersion) -> bool {
    spec.unlimited && server.major >= MAJOR_WITH_DEFAULT_LIMIT
}

async fn declare_queue(link: &Link, channel: Channel, spec: &QueueSpec) -> Result<Channel, TopologyError> {
    let lift_limit = lifts_limit(spec, link.server_version());
    match try_queue(&channel, spec, lift_limit).await {
        Ok(()) => Ok(channel),
        // The refusal closed the channel. A queue that came through an upgrade lacks the argument; every return
        // would count against the default limit, but a policy can lift that, so warn and go on.
        Err(TopologyError::Mismatch { argument, .. }) if lift_limit && argument == "x-delivery-limit" => {
            warn_of_default_limit(spec.name, link.server_version());
            let channel = open(link).await?;
            try_queue(&channel, spec, false).await?;
            Ok(channel)
        }
        Err(error) => Err(error),
    }
}

pub(crate) async fn try_queue(
    channel: &Channel,
    spec: &QueueSpec,
    lift_limit: bool,
) -> Result<(), TopologyError> {
    let kind = ("x-queue-type", text("quorum"));
    let limit = lift_limit.then_some(("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_UNLIMITED)));
    let arguments = table(spec.arguments.iter().cloned().chain([kind]).chain(limit));
    let declared = channel.queue_declare(spec.name.into(), QueueDeclareOptions::durable(), arguments);
    within(REQUEST_MAX, declared)
        .await
        .map_err(|error| typed(format!("queue '{}'", spec.name), error))?;
    Ok(())
}

fn warn_of_default_limit(queue: &str, server: &ServerVersion) {
    tracing::warn!(
        queue,
        server = %server,
        "this queue predates RabbitMQ 4 and falls under its default delivery limit of 20, which deletes dead letters \
         for good after 20 looks at them; lift it with: rabbitmqctl set_policy --apply-to queues {queue}-unlimited \
         '^{}$' '{{\"delivery-limit\":-1}}' --priority 10",
        queue.replace('.', "\\."),
    );
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn table(arguments: impl IntoIterator<Item = (&'static str, AMQPValue)>) -> FieldTable {
    let arguments = arguments
        .into_iter()
        .map(|(name, value)| (ShortString::from(name), value));
    FieldTable::from(arguments.collect::<BTreeMap<_, _>>())
}

pub(crate) fn typed(object: String, error: lapin::Error) -> TopologyError {
    let ErrorKind::ProtocolError(refusal) = error.kind() else {
        return TopologyError::Lost {
            object,
            source: error,
        };
    };
    let reason = refusal.get_message().to_string();
    match refusal.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => {
            mismatch_in(&reason).unwrap_or(TopologyError::Refused { object, reason })
        }
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => TopologyError::Access { object, reason },
        _ => TopologyError::Refused { object, reason },
    }
}

/// Reads RabbitMQ's sentence: `inequivalent arg 'A' for KIND 'NAME' in vhost 'V': received X but current is Y`.
fn mismatch_in(reason: &str) -> Option<TopologyError> {
    let (_, rest) = reason.split_once("inequivalent arg '")?;
    let (argument, rest) = rest.split_once("' for ")?;
    let (object, rest) = rest.split_once(" in vhost '")?;
    let (_, rest) = rest.split_once("received ")?;
    let (wanted, found) = rest.split_once(" but current is ")?;
    let kind = object.split_once(' ').map_or("queue", |(kind, _)| kind);
    Some(TopologyError::Mismatch {
        object: object.to_owned(),
        argument: argument.to_owned(),
        wanted: plain(wanted),
        found: plain(found),
        remedy: remedy(kind, object),
    })
}

/// `the value '20' of type 'signedint'`, `'fanout'` and `none`, without the words around them.
fn plain(value: &str) -> String {
    let mut quoted = value.split('\'');
    match (quoted.next(), quoted.next()) {
        (Some(_), Some(inside)) => inside.to_owned(),
        _ => value.trim_end_matches('.').to_owned(),
    }
}

fn remedy(kind: &str, object: &str) -> String {
    let name = object.split('\'').nth(1).unwrap_or(object);
    if kind == "exchange" {
        return format!(
            "an exchange holds nothing, so stop the daemons, delete it with: rabbitmqctl eval \
             'rabbit_exchange:delete(rabbit_misc:r(<<\"/\">>, exchange, <<\"{name}\">>), false, <<\"operator\">>).' \
             (or in the management page), and start them again"
        );
    }
    format!(
        "arguments of a queue never change: stop the ingresses, let the workers drain it (or shovel it to another \
         queue), see that it is empty with: rabbitmqctl list_queues name messages, delete it with: rabbitmqctl \
         delete_queue {name}, start again and it is declared anew"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "a test fails by panicking")]
    use super::*;

    fn parts(reason: &str) -> (String, String, String, String) {
        match mismatch_in(reason) {
            Some(TopologyError::Mismatch {
                object,
                argument,
                wanted,
                found,
                ..
            }) => (object, argument, wanted, found),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_brokers_sentence_about_a_queue_is_understood() {
        let reason = "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'porchlight.events' in \
                      vhost '/': received the value '20' of type 'signedint' but current is none";
        let (object, argument, wanted, found) = parts(reason);
        assert_eq!(object, "queue 'porchlight.events'");
        assert_eq!(
            (argument.as_str(), wanted.as_str(), found.as_str()),
            ("x-delivery-limit", "20", "none")
        );
    }

    #[test]
    fn the_brokers_sentence_about_an_exchange_is_understood() {
        let reason = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'porchlight.events' in vhost '/': \
                      received 'fanout' but current is 'topic'";
        let (object, argument, wanted, found) = parts(reason);
        assert_eq!(object, "exchange 'porchlight.events'");
        assert_eq!(
            (argument.as_str(), wanted.as_str(), found.as_str()),
            ("type", "fanout", "topic")
        );
    }

    #[test]
    fn every_queue_that_dead_letters_does_it_at_least_once() {
        for spec in queues(&TopologyConfig::default())
            .iter()
            .filter(|spec| !spec.unlimited)
        {
            let has =
                |name: &str, value: &str| spec.arguments.iter().any(|a| a.0 == name && a.1 == text(value));
            assert!(has("x-overflow", "reject-publish"), "{}", spec.name);
            assert!(has("x-dead-letter-strategy", "at-least-once"), "{}", spec.name);
        }
    }
}
