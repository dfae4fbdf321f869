//! Dead letters: what they say about their death, and looking at them without consuming any.
//!
//! Nothing is published or removed here; see [`crate::walk`] and [`crate::replay`].

use std::ops::ControlFlow;

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use porchlight_event::envelope::header;
pub use porchlight_event::queue::{DeadLetter, Death, Origin};

use crate::{
    connection::ConnectError,
    topology,
    urls::BrokerUrls,
    walk::Walk,
    wire::{self, Headers, int_of, text_of},
};

/// Says what a letter was, where the broker's own record does not.
pub(crate) const DEAD_ORIGIN: &str = "x-porchlight-dead-origin";

/// How often a quorum queue has taken a letter back. RabbitMQ 4.3 counts apart what was given back on purpose.
const RETURN_COUNTS: [&str; 2] = ["x-acquired-count", "x-delivery-count"];

/// A letter with what a copy of it needs besides.
pub(crate) struct Held {
    pub(crate) letter: DeadLetter,
    pub(crate) remains: Remains,
}

/// What a copy of a letter needs besides the letter: what it was published with.
#[derive(Debug, Clone)]
pub struct Remains {
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
    /// Another walk has not ended in time; two at once would each see a part.
    #[error("somebody else is at the dead letters")]
    Busy,
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

/// Shows the letters, oldest first: none is consumed, whatever crashes. See [`Walk`] for how.
///
/// `visit` sees one letter at a time and may break off. At most `count_max` letters are looked at.
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
    let mut walk = Walk::open(urls, role).await?;
    let mut seen = 0;
    while seen < count_max
        && let Some(taken) = walk.next().await?
    {
        seen += 1;
        walk.leave(taken.tag, &taken.letter);
        if visit(taken.letter).is_break() {
            break;
        }
    }
    let ready = walk.ready();
    walk.close().await;
    Ok(Listed { ready, seen })
}

impl Held {
    pub(crate) fn from_parts(routing_key: &str, properties: BasicProperties, body: Vec<u8>) -> Self {
        let headers = Headers::of(&properties);
        let deaths = deaths_in(&headers);
        let own = |name| headers.text(name).map(str::to_owned);
        let returns = RETURN_COUNTS.iter().filter_map(|name| headers.int(name)).max();
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
            delivery_count: returns.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            headers: headers.shown(),
            deaths,
        };
        Self {
            letter,
            remains: Remains {
                properties,
                raw_headers: headers,
            },
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
