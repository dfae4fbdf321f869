//! Looking a broker over without changing anything: what exists as it should, and what its user may do.
//!
//! It judges nothing. What a policy adds to a queue is not visible over AMQP.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lapin::{
    Channel, ErrorKind,
    options::{BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPSoftError, basic::AMQPProperties},
    types::{AMQPValue, FieldTable, ShortString},
};

use crate::{
    connection::{Events, Link, REQUEST_MAX, within},
    depth::is_not_found,
    topology::{self, TopologyConfig, TopologyError},
};

/// How often the way there and back is measured.
const ROUND_TRIPS: usize = 5;
/// For the reason of a refusal, which has arrived by then.
const REASON_MAX: Duration = Duration::from_secs(2);
/// An exchange that every virtual host has.
const ANY_EXCHANGE: &str = "amq.fanout";

/// One exchange or queue of ours.
#[derive(Debug)]
pub struct Examined {
    /// Kind and name, such as `queue 'porchlight.events'`.
    pub object: String,
    /// The name alone.
    pub name: &'static str,
    /// How it stands.
    pub state: ObjectState,
}

/// How an exchange or queue stands.
#[derive(Debug)]
pub enum ObjectState {
    /// It exists as we declare it.
    AsDeclared,
    /// It does not exist; a daemon declares it when it starts.
    Missing,
    /// It exists otherwise, or the user may not look at it.
    Faulty(TopologyError),
}

/// What a user does with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Publish to an exchange: needs `write`.
    Publish,
    /// Consume from a queue: needs `read`.
    Consume,
}

/// Whether the user may do what a daemon does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// What is done.
    pub deed: Deed,
    /// With which exchange or queue; `amq.default` is the exchange without a name, which retries go through.
    pub name: &'static str,
    /// The broker's words when it refuses.
    pub refusal: Option<String>,
}

/// Looks at every exchange and queue of ours. What exists is declared again as it is, which changes nothing; what does
/// not exist is left so.
///
/// # Errors
/// [`TopologyError::Lost`] when the connection fails half-way.
///
/// # Cancel safety
/// Safe.
pub async fn objects(link: &Link, config: &TopologyConfig) -> Result<Vec<Examined>, TopologyError> {
    let mut found = Vec::new();
    for spec in topology::exchanges() {
        let object = format!("exchange '{}'", spec.name);
        let channel = topology::open(link).await?;
        let state = match exchange_exists(&channel, spec.name).await {
            Ok(true) => state_of(topology::declare_exchange(&channel, &spec).await)?,
            Ok(false) => ObjectState::Missing,
            Err(error) => state_of(Err(topology::typed(object.clone(), error)))?,
        };
        let name = spec.name;
        found.push(Examined { object, name, state });
        close(channel).await;
    }
    for spec in topology::queues(config) {
        let object = format!("queue '{}'", spec.name);
        let channel = topology::open(link).await?;
        let lift_limit = topology::lifts_limit(&spec, link.server_version());
        let state = match queue_exists(&channel, spec.name).await {
            Ok(true) => state_of(topology::try_queue(&channel, &spec, lift_limit).await)?,
            Ok(false) => ObjectState::Missing,
            Err(error) => state_of(Err(topology::typed(object.clone(), error)))?,
        };
        let name = spec.name;
        found.push(Examined { object, name, state });
        close(channel).await;
    }
    Ok(found)
}

/// Tries what daemons and tool do with our exchanges and queues, in ways that have no effect: a publish that is rolled
/// back, and a consume that is refused for its arguments, after the permission was looked at. What does not exist is
/// left out.
///
/// # Errors
/// What lapin says when the connection fails half-way.
///
/// # Cancel safety
/// Safe; a channel that ends rolls back, too.
pub async fn rights(link: &Link) -> Result<Vec<Right>, lapin::Error> {
    let mut rights = Vec::new();
    let mut events = link.events();
    for name in ["", topology::EVENTS, topology::DEAD, topology::COMMANDS] {
        let channel = link.open_channel().await?;
        let tried = reason_of(publish_nothing(&channel, name).await, &mut events).await;
        let name = if name.is_empty() { "amq.default" } else { name };
        rights.extend(refusal_in(tried)?.map(|refusal| Right {
            deed: Deed::Publish,
            name,
            refusal,
        }));
        close(channel).await;
    }
    for name in [topology::EVENTS, topology::DEAD] {
        let channel = link.open_channel().await?;
        let tried = reason_of(consume_nothing(&channel, name).await, &mut events).await;
        rights.extend(refusal_in(tried)?.map(|refusal| Right {
            deed: Deed::Consume,
            name,
            refusal,
        }));
        close(channel).await;
    }
    Ok(rights)
}

/// How long a small question takes there and back: the middle of several.
///
/// # Errors
/// What lapin says.
///
/// # Cancel safety
/// Safe.
pub async fn round_trip(link: &Link) -> Result<Duration, lapin::Error> {
    let channel = link.open_channel().await?;
    let mut took = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let asked = Instant::now();
        exchange_exists(&channel, ANY_EXCHANGE).await?;
        took.push(asked.elapsed());
    }
    close(channel).await;
    took.sort();
    Ok(took[ROUND_TRIPS / 2])
}

async fn exchange_exists(channel: &Channel, name: &str) -> Result<bool, lapin::Error> {
    let passive = ExchangeDeclareOptions {
        passive: true,
        ..ExchangeDeclareOptions::default()
    };
    let kind = lapin::ExchangeKind::Fanout;
    let asked = channel.exchange_declare(ShortString::from(name), kind, passive, FieldTable::default());
    existence(within(REQUEST_MAX, asked).await)
}

async fn queue_exists(channel: &Channel, name: &str) -> Result<bool, lapin::Error> {
    let passive = QueueDeclareOptions::durable().passive();
    let asked = channel.queue_declare(ShortString::from(name), passive, FieldTable::default());
    existence(within(REQUEST_MAX, asked).await)
}

fn existence<T>(asked: Result<T, lapin::Error>) -> Result<bool, lapin::Error> {
    match asked {
        Ok(_) => Ok(true),
        Err(error) if is_not_found(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a person must see is a state; what ended the examination is an error.
fn state_of(declared: Result<(), TopologyError>) -> Result<ObjectState, TopologyError> {
    match declared {
        Ok(()) => Ok(ObjectState::AsDeclared),
        Err(error @ TopologyError::Lost { .. }) => Err(error),
        Err(error) => Ok(ObjectState::Faulty(error)),
    }
}

async fn publish_nothing(channel: &Channel, exchange: &str) -> Result<(), lapin::Error> {
    within(REQUEST_MAX, channel.tx_select()).await?;
    let (exchange, key) = (
        ShortString::from(exchange),
        ShortString::from("porchlight.examined"),
    );
    let options = BasicPublishOptions::default();
    let published = channel.basic_publish(exchange, key, options, b"", AMQPProperties::default());
    drop(within(REQUEST_MAX, published).await?);
    within(REQUEST_MAX, channel.tx_rollback()).await
}

/// A publish has no answer of its own: its refusal closes the channel, and what is asked then may find it closed without
/// being told why. The connection's events tell.
async fn reason_of(tried: Result<(), lapin::Error>, events: &mut Events) -> Result<(), lapin::Error> {
    if tried.is_ok() {
        return tried;
    }
    let told = async {
        while let Some(event) = events.next().await {
            if let lapin::Event::Error(error) = event {
                return Some(error);
            }
        }
        None
    };
    match tokio::time::timeout(REASON_MAX, told).await {
        Ok(Some(error)) => Err(error),
        _ => tried,
    }
}

async fn consume_nothing(channel: &Channel, queue: &str) -> Result<(), lapin::Error> {
    // A priority must be a number; that is looked at after the permission and before anything is handed out.
    let mut arguments = FieldTable::default();
    arguments.insert("x-priority".into(), AMQPValue::LongString("none".into()));
    let tag = ShortString::from("porchlight.examined");
    let consumed = channel.basic_consume(
        ShortString::from(queue),
        tag,
        BasicConsumeOptions::default(),
        arguments,
    );
    within(REQUEST_MAX, consumed).await.map(drop)
}

/// `None` when there is nothing to have a right to, else the refusal if there was one.
fn refusal_in(tried: Result<(), lapin::Error>) -> Result<Option<Option<String>>, lapin::Error> {
    let Err(error) = tried else {
        return Ok(Some(None));
    };
    if is_not_found(&error) {
        return Ok(None);
    }
    let ErrorKind::ProtocolError(refusal) = error.kind() else {
        return Err(error);
    };
    match refusal.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => {
            Ok(Some(Some(refusal.get_message().to_string())))
        }
        // The refusal that was asked for.
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => Ok(Some(None)),
        _ => Err(error),
    }
}

async fn close(channel: Channel) {
    if channel.status().connected() {
        let _ = within(REQUEST_MAX, channel.close(200, "examined".into())).await;
    }
}
