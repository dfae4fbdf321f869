//! The lines of an export that come from a queue: events that wait, and dead letters.
//!
//! Bodies are base64: every byte comes back as it was.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use porchlight_event::Envelope;
use porchlight_event::queue::{DeadLetter, Origin};
use serde::{Deserialize, Serialize};

use super::lines::{Odd, counted};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Letter {
    origin: String,
    routing_key: String,
    reason: String,
    stage: Option<String>,
    detail: Option<String>,
    dead_at: Option<i64>,
    delivery_count: u64,
    envelope: EnvelopeLine,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    /// When its time has come, for one that was put off.
    due_at: Option<i64>,
    envelope: EnvelopeLine,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeLine {
    message_id: String,
    body: String,
    received_at: Option<i64>,
    key_name: Option<String>,
    signature: Option<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    traceparent: Option<String>,
    attempt: u32,
    replay: u32,
}

impl From<&Envelope> for EnvelopeLine {
    fn from(envelope: &Envelope) -> Self {
        Self {
            message_id: envelope.message_id.clone(),
            body: STANDARD.encode(&envelope.body),
            received_at: envelope.received_at_ms,
            key_name: envelope.key_name.clone(),
            signature: envelope.signature.clone(),
            content_type: envelope.content_type.clone(),
            content_encoding: envelope.content_encoding.clone(),
            traceparent: envelope.traceparent.clone(),
            attempt: envelope.attempt,
            replay: envelope.replay,
        }
    }
}

impl TryFrom<EnvelopeLine> for Envelope {
    type Error = Odd;

    fn try_from(line: EnvelopeLine) -> Result<Self, Odd> {
        let body = STANDARD
            .decode(line.body)
            .map_err(|_| Odd("a body that is not base64"))?;
        Ok(Self {
            message_id: line.message_id,
            body: Bytes::from(body),
            received_at_ms: line.received_at,
            key_name: line.key_name,
            signature: line.signature,
            content_type: line.content_type,
            content_encoding: line.content_encoding,
            traceparent: line.traceparent,
            attempt: line.attempt,
            replay: line.replay,
        })
    }
}

impl Event {
    pub(crate) fn new(envelope: &Envelope, due_at: Option<i64>) -> Self {
        Self {
            due_at,
            envelope: envelope.into(),
        }
    }

    /// The event, and when its time has come where it was put off.
    pub(crate) fn read(self) -> Result<(Envelope, Option<i64>), Odd> {
        Ok((self.envelope.try_into()?, self.due_at))
    }
}

impl From<&DeadLetter> for Letter {
    fn from(letter: &DeadLetter) -> Self {
        Self {
            origin: letter.origin.as_str().to_owned(),
            routing_key: letter.routing_key.clone(),
            reason: letter.reason.clone(),
            stage: letter.stage.clone(),
            detail: letter.detail.clone(),
            dead_at: letter.dead_at_ms,
            delivery_count: letter.delivery_count,
            envelope: (&letter.envelope).into(),
        }
    }
}

impl Letter {
    /// The letter; one without a time of death died at `at` at the latest.
    pub(crate) fn read(self, at: i64) -> Result<DeadLetter, Odd> {
        Ok(DeadLetter {
            envelope: self.envelope.try_into()?,
            origin: Origin::from_word(&self.origin).ok_or(Odd("a letter of an unknown origin"))?,
            routing_key: self.routing_key,
            reason: self.reason,
            stage: self.stage,
            detail: self.detail,
            dead_at_ms: Some(self.dead_at.unwrap_or(at)),
            deaths: Vec::new(),
            delivery_count: counted(self.delivery_count)?,
            headers: Vec::new(),
        })
    }
}
