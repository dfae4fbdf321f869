//! Dead letters: what they say about their death, and looking at them without consuming any.
//!
//! Nothing is published or removed here; see [`crate::replay`].

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use lapin::{
    BasicProperties, Channel,
    options::{BasicAckOptions, BasicGetOptions, BasicNackOptions},
    types::{AMQPValue, FieldTable},
};
use porchlight_event::envelope::header;
pub use porchlight_event::queue::{DeadLetter, Death, Origin};

use crate::{
    connection::{CLOSE_STEP_MAX, ConnectError, Link, REQUEST_MAX, within},
    depth, topology,
    urls::BrokerUrls,
    wire::{self, Headers, int_of, text_of},
};

/// Letters held unacked at once, at most: the broker remembers each of them for our channel, and gives each back one
/// by one when we go. Our own memory holds one letter at a time, whatever this number.
pub const HELD_MAX: usize = 10_000;

/// Says what a letter was, where the broker's own record does not.
pub(crate) const DEAD_ORIGIN: &str = "x-porchlight-dead-origin";

/// A letter with what a copy of it is made from.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) letter: DeadLetter,
    pub(crate) properties: BasicProperties,
    pub(crate) raw_headers: Headers,
}

/// Why dead letters could not be read or replayed.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// There is no `porchlight.dead`: no daemon has ever connected to this broker.
    #[error("there is no queue 'porchlight.dead' on this broker yet")]
    NoQueue,
    /// The connection ended; every letter that was held is back in the queue.
    #[error("reading 'porchlight.dead' failed")]
    Lost(#[from] lapin::Error),
}

/// What a look at the letters found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Letters in the queue when the look began.
    pub ready: usize,
    /// Letters looked at.
    pub seen: usize,
}

/// Shows the letters, oldest first, and puts every one back: none is consumed, whatever crashes.
///
/// `visit` sees one letter at a time and may break off. At most `count_max` letters are looked at, and never more
/// than [`HELD_MAX`], because a letter that was seen must be held until the end or it would come again.
/// Afterwards RabbitMQ 3.x puts the seen ones behind the unseen; their order among themselves stays.
///
/// # Errors
/// [`DeadLetterError`]; letters already visited stay valid.
///
/// # Cancel safety
/// Dropping the future cuts the connection, and the letters go back.
pub async fn list(
    urls: &BrokerUrls,
    role: &str,
    count_max: usize,
    mut visit: impl FnMut(DeadLetter) -> ControlFlow<()>,
) -> Result<Listed, DeadLetterError> {
    let desk = Desk::open(urls, role).await?;
    let mut listed = Listed {
        ready: desk.ready,
        seen: 0,
    };
    while listed.seen < count_max.min(HELD_MAX).min(desk.ready) {
        let Some((_, held)) = desk.next().await? else {
            break;
        };
        listed.seen += 1;
        if visit(held.letter).is_break() {
            break;
        }
    }
    desk.close().await;
    Ok(listed)
}

/// A channel that takes letters one by one and holds them; closing it in any way returns them.
pub(crate) struct Desk {
    link: Link,
    channel: Channel,
    /// Tags not settled yet. Returned in this order at the end: left to the broker, the end of a channel returns
    /// letters sorted by the text of an internal number, 1 before 10 before 2.
    held: Mutex<BTreeSet<u64>>,
    /// Letters in the queue when the desk was opened. What dies later lies behind these.
    pub(crate) ready: usize,
}

impl Desk {
    pub(crate) async fn open(urls: &BrokerUrls, role: &str) -> Result<Self, DeadLetterError> {
        let link = Link::connect(urls, role).await?;
        let channel = link.open_channel().await?;
        let counts = match depth::ready_in(&channel, topology::DEAD).await {
            Err(error) if depth::is_not_found(&error) => return Err(DeadLetterError::NoQueue),
            counts => counts?,
        };
        Ok(Self {
            link,
            channel,
            held: Mutex::default(),
            ready: counts.ready as usize,
        })
    }

    /// The next letter and its tag; `None` when the queue is empty. One letter at a time crosses the network, so a
    /// queue of large letters cannot fill our memory, as a consumer's prefetch could.
    pub(crate) async fn next(&self) -> Result<Option<(u64, Held)>, DeadLetterError> {
        let got = self
            .channel
            .basic_get(topology::DEAD.into(), BasicGetOptions { no_ack: false });
        let Some(message) = within(REQUEST_MAX, got).await? else {
            return Ok(None);
        };
        let delivery = message.delivery;
        self.held().insert(delivery.delivery_tag);
        let held = Held::from_parts(delivery.routing_key.as_str(), delivery.properties, delivery.data);
        Ok(Some((delivery.delivery_tag, held)))
    }

    /// Removes one letter from the queue for good.
    pub(crate) async fn remove(&self, tag: u64) -> Result<(), DeadLetterError> {
        let acked = self.channel.basic_ack(tag, BasicAckOptions { multiple: false });
        within(REQUEST_MAX, acked).await?;
        self.held().remove(&tag);
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what is held, oldest first, and waits for the broker to have seen it.
    pub(crate) async fn close(self) {
        let held = std::mem::take(&mut *self.held());
        for tag in held {
            let returned = self.channel.basic_nack(
                tag,
                BasicNackOptions {
                    multiple: false,
                    requeue: true,
                },
            );
            if within(REQUEST_MAX, returned).await.is_err() {
                // The rest goes back with the channel, in whatever order.
                break;
            }
        }
        let closed = self.channel.close(200, "letters returned".into());
        // Without an answer the cut that follows returns them, too.
        let _ = tokio::time::timeout(CLOSE_STEP_MAX, closed).await;
        self.link.close().await;
    }
}

impl Held {
    fn from_parts(routing_key: &str, properties: BasicProperties, body: Vec<u8>) -> Self {
        let headers = Headers::of(&properties);
        let deaths = deaths_in(&headers);
        let own = |name| headers.text(name).map(str::to_owned);
        let broker_reason = deaths.first().map(|death| death.reason.clone());
        let letter = DeadLetter {
            envelope: wire::envelope_from(&properties, Bytes::from(body)),
            origin: origin_in(&headers, &deaths),
            routing_key: routing_key.to_owned(),
            reason: own(header::DEAD_REASON)
                .or(broker_reason)
                .unwrap_or_else(|| "unknown".to_owned()),
            stage: own(header::DEAD_STAGE),
            detail: own(header::DEAD_DETAIL),
            dead_at_ms: headers
                .int(header::DEAD_AT)
                .or(deaths.first().and_then(|death| death.at_ms)),
            delivery_count: headers
                .int("x-delivery-count")
                .and_then(|n| u64::try_from(n).ok())
                .unwrap_or(0),
            headers: headers.shown(),
            deaths,
        };
        Self {
            letter,
            properties,
            raw_headers: headers,
        }
    }
}

fn origin_in(headers: &Headers, deaths: &[Death]) -> Origin {
    let first_queue = headers
        .text("x-first-death-queue")
        .or(deaths.last().map(|death| death.queue.as_str()));
    match headers.text(DEAD_ORIGIN).and_then(Origin::from_word) {
        Some(origin) => origin,
        None if first_queue == Some(topology::COMMANDS) => Origin::Command,
        None => Origin::Event,
    }
}

fn deaths_in(headers: &Headers) -> Vec<Death> {
    let Some(AMQPValue::FieldArray(entries)) = headers.value("x-death") else {
        return Vec::new();
    };
    let tables = entries.as_slice().iter().filter_map(|entry| match entry {
        AMQPValue::FieldTable(table) => Some(table),
        _ => None,
    });
    tables.map(death_in).collect()
}

fn death_in(table: &FieldTable) -> Death {
    let text = |name: &str| {
        table
            .inner()
            .get(name)
            .and_then(text_of)
            .unwrap_or_default()
            .to_owned()
    };
    let int = |name: &str| table.inner().get(name).and_then(int_of);
    Death {
        queue: text("queue"),
        reason: text("reason"),
        count: int("count").and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
        at_ms: int("time").and_then(|seconds| seconds.checked_mul(1000)),
    }
}
