//! What a replay publishes: a fresh copy of a dead letter, with nothing of its former life but what it carries.
//!
//! Which letters are replayed, and when a letter is gone, is not decided here.

use lapin::BasicProperties;
use porchlight_event::envelope::header;

use crate::{
    dead_letter::{DEAD_ORIGIN, DeadLetter, Origin, Remains},
    topology,
    wire::Outgoing,
};

/// Headers of a former life. RabbitMQ up to 3.13 counts a republished `x-death` on; CC and BCC would route copies.
const STRIPPED: [&str; 8] = [
    "x-delivery-count",
    "x-acquired-count",
    "CC",
    "BCC",
    header::DEAD_REASON,
    header::DEAD_STAGE,
    header::DEAD_DETAIL,
    header::DEAD_AT,
];
const STRIPPED_PREFIXES: [&str; 3] = ["x-death", "x-first-death-", "x-last-death-"];

/// A fresh message for the queue that a letter came from: same body and id, nothing of its deaths, one replay more.
#[must_use]
pub fn copy_of(letter: DeadLetter, remains: Remains, now_ms: i64) -> Outgoing {
    let (exchange, key) = match letter.origin {
        Origin::Event => (topology::EVENTS, String::new()),
        Origin::Command | Origin::Callback => (topology::COMMANDS, letter.routing_key),
    };
    let mut outgoing = Outgoing::to(exchange, key, letter.envelope.body);
    outgoing.headers = remains.raw_headers;
    outgoing.headers.retain(|name| {
        let former = STRIPPED.contains(&name) || name == DEAD_ORIGIN;
        !former && !STRIPPED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    });
    outgoing.headers.set_int(
        header::REPLAY,
        i64::from(letter.envelope.replay.saturating_add(1)),
    );
    outgoing.headers.set_int(header::REPLAYED_AT, now_ms);
    outgoing.properties = kept(&remains.properties);
    outgoing.with_message_id(&letter.envelope.message_id)
}

/// Not kept: expiration, user id (the broker refuses another user's), reply-to, priority.
fn kept(old: &BasicProperties) -> BasicProperties {
    let mut new = BasicProperties::default();
    if let Some(content_type) = old.content_type() {
        new = new.with_content_type(content_type.clone());
    }
    if let Some(encoding) = old.content_encoding() {
        new = new.with_content_encoding(encoding.clone());
    }
    if let Some(timestamp) = old.timestamp() {
        new = new.with_timestamp(*timestamp);
    }
    if let Some(correlation) = old.correlation_id() {
        new = new.with_correlation_id(correlation.clone());
    }
    new
}
