//! Envelopes as AMQP properties and headers, both ways; the one place that maps them.
//!
//! It publishes and consumes nothing itself.

use std::borrow::Cow;

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use porchlight_event::{
    envelope::{Envelope, header},
    ids,
    queue::{DeadLetter, DeathNote, Origin, RetryTier},
};

use crate::{dead_letter::DEAD_ORIGIN, topology};

/// Persistent: quorum queues keep everything on disk anyway, dead-lettered copies keep this mode.
const DELIVERY_MODE_PERSISTENT: u8 = 2;
/// Longest text we put in one header. None of ours comes near it; request headers that do are unsigned noise, and
/// all headers together must fit one AMQP frame.
const HEADER_TEXT_BYTES_MAX: usize = 2048;
/// Where a content type goes that is too long for the property of that name.
const LONG_CONTENT_TYPE: &str = "x-porchlight-content-type";
/// What AMQP allows a short string.
const SHORT_STRING_BYTES_MAX: usize = 255;

/// The queue behind a tier.
#[must_use]
pub fn retry_queue(tier: RetryTier) -> &'static str {
    match tier {
        RetryTier::OneMinute => topology::RETRY_1M,
        RetryTier::TenMinutes => topology::RETRY_10M,
    }
}

/// Message headers: text and integers under short names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Headers(FieldTable);

impl Headers {
    /// Sets a text, cut to 2 KiB at a character's edge.
    pub fn set_text(&mut self, name: &'static str, value: &str) {
        let cut = cut_to(value, HEADER_TEXT_BYTES_MAX);
        self.0
            .insert(ShortString::from(name), AMQPValue::LongString(cut.into()));
    }

    /// Sets an integer.
    pub fn set_int(&mut self, name: &'static str, value: i64) {
        self.0
            .insert(ShortString::from(name), AMQPValue::LongLongInt(value));
    }

    /// A text, whatever AMQP string type it came as; `None` when absent, no string or not UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        Arrived(Some(&self.0)).text(name)
    }

    /// An integer, whatever AMQP integer type it came as, or a text that is one.
    #[must_use]
    pub fn int(&self, name: &str) -> Option<i64> {
        Arrived(Some(&self.0)).int(name)
    }

    /// Every header as a pair of texts, nested values as AMQP's own debug form. The signature is left out.
    #[must_use]
    pub fn shown(&self) -> Vec<(String, String)> {
        let shown = |value: &AMQPValue| match (text_of(value), int_of(value)) {
            (Some(text), _) => text.to_owned(),
            (_, Some(int)) => int.to_string(),
            _ => format!("{value:?}"),
        };
        let open = self
            .0
            .inner()
            .iter()
            .filter(|(name, _)| name.as_str() != header::SIGNATURE);
        open.map(|(name, value)| (name.to_string(), shown(value)))
            .collect()
    }

    pub(crate) fn value(&self, name: &str) -> Option<&AMQPValue> {
        self.0.inner().get(name)
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let kept: std::collections::BTreeMap<_, _> = self
            .0
            .inner()
            .iter()
            .filter(|(name, _)| keep(name.as_str()))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        self.0 = FieldTable::from(kept);
    }

    pub(crate) fn of(properties: &BasicProperties) -> Self {
        Self(properties.headers().clone().unwrap_or_default())
    }
}

/// Headers as they lie in what arrived; nothing is copied.
#[derive(Clone, Copy)]
pub(crate) struct Arrived<'a>(Option<&'a FieldTable>);

impl<'a> Arrived<'a> {
    pub(crate) fn of(properties: &'a BasicProperties) -> Self {
        Self(properties.headers().as_ref())
    }

    pub(crate) fn text(self, name: &str) -> Option<&'a str> {
        text_of(self.0?.inner().get(name)?)
    }

    pub(crate) fn int(self, name: &str) -> Option<i64> {
        int_of(self.0?.inner().get(name)?)
    }
}

/// One thing to publish. The publisher adds persistence, `mandatory` and a publish id.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub(crate) exchange: Cow<'static, str>,
    pub(crate) routing_key: Cow<'static, str>,
    pub(crate) properties: BasicProperties,
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
}

impl Outgoing {
    /// A body to an exchange, with nothing else set.
    #[must_use]
    pub fn to(
        exchange: impl Into<Cow<'static, str>>,
        routing_key: impl Into<Cow<'static, str>>,
        body: Bytes,
    ) -> Self {
        Self {
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            properties: BasicProperties::default(),
            headers: Headers::default(),
            body,
        }
    }

    /// An envelope to the work exchange, as the ingress does it.
    #[must_use]
    pub fn event(envelope: &Envelope) -> Self {
        Self::to(topology::EVENTS, "", envelope.body.clone()).with_envelope(envelope)
    }

    /// An envelope to a retry queue, through the default exchange; `envelope.attempt` should already count this try.
    #[must_use]
    pub fn retry(envelope: &Envelope, tier: RetryTier) -> Self {
        Self::to("", retry_queue(tier), envelope.body.clone()).with_envelope(envelope)
    }

    /// An envelope to the dead letters, with the reason.
    #[must_use]
    pub fn dead(envelope: &Envelope, note: DeathNote<'_>) -> Self {
        Self::to(topology::DEAD, "", envelope.body.clone())
            .with_envelope(envelope)
            .with_note(note)
    }

    /// A command's JSON to `porchlight.commands` under `<action>.<kind>`; a longer key is cut to AMQP's 255 bytes.
    #[must_use]
    pub fn command(id: &str, action: &str, kind: &str, json: Bytes, at_ms: i64) -> Self {
        let key = cut_to(&format!("{action}.{kind}"), SHORT_STRING_BYTES_MAX).to_owned();
        Self::to(topology::COMMANDS, key, json)
            .with_message_id(id)
            .with_content_type("application/json")
            .with_timestamp_ms(at_ms)
    }

    /// A command that no receiver took to the dead letters, with the reason; a replay lets it be owed again.
    #[must_use]
    pub fn dead_command(id: &str, action: &str, kind: &str, json: Bytes, note: DeathNote<'_>) -> Self {
        let mut outgoing = Self::command(id, action, kind, json, note.at_ms).with_note(note);
        outgoing.exchange = Cow::Borrowed(topology::DEAD);
        outgoing.headers.set_text(DEAD_ORIGIN, Origin::Callback.as_str());
        outgoing
    }

    /// A dead letter as it was elsewhere. The broker's own record of deaths is the broker's alone to write; its newest
    /// reason and time go on as ours.
    #[must_use]
    pub fn letter(letter: &DeadLetter) -> Self {
        let mut outgoing = Self::to(
            topology::DEAD,
            letter.routing_key.clone(),
            letter.envelope.body.clone(),
        )
        .with_envelope(&letter.envelope);
        let headers = &mut outgoing.headers;
        headers.set_text(DEAD_ORIGIN, letter.origin.as_str());
        headers.set_text(header::DEAD_REASON, &letter.reason);
        for (name, text) in [
            (header::DEAD_STAGE, &letter.stage),
            (header::DEAD_DETAIL, &letter.detail),
        ] {
            if let Some(text) = text {
                headers.set_text(name, text);
            }
        }
        if let Some(at_ms) = letter.dead_at_ms {
            headers.set_int(header::DEAD_AT, at_ms);
        }
        outgoing
    }

    /// Sets the message id, cut to AMQP's 255 bytes.
    #[must_use]
    pub fn with_message_id(mut self, id: &str) -> Self {
        self.properties = self.properties.with_message_id(short(id));
        self
    }

    /// Sets the content type; one that AMQP has no room for goes to a header.
    #[must_use]
    pub fn with_content_type(mut self, content_type: &str) -> Self {
        match ShortString::try_new(content_type) {
            Ok(fits) => self.properties = self.properties.with_content_type(fits),
            Err(_) => self.headers.set_text(LONG_CONTENT_TYPE, content_type),
        }
        self
    }

    /// Sets the timestamp property, whose unit is the second.
    #[must_use]
    pub fn with_timestamp_ms(mut self, at_ms: i64) -> Self {
        self.properties = self
            .properties
            .with_timestamp(u64::try_from(at_ms / 1000).unwrap_or(0));
        self
    }

    /// The headers, to add to.
    pub fn headers_mut(&mut self) -> &mut Headers {
        &mut self.headers
    }

    /// Bytes of the body.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.body.len()
    }

    fn with_note(mut self, note: DeathNote<'_>) -> Self {
        self.headers.set_text(header::DEAD_REASON, note.reason);
        self.headers.set_text(header::DEAD_STAGE, note.stage);
        self.headers.set_text(header::DEAD_DETAIL, note.detail);
        self.headers.set_int(header::DEAD_AT, note.at_ms);
        self
    }

    fn with_envelope(self, envelope: &Envelope) -> Self {
        let mut out = self.with_message_id(&envelope.message_id);
        if let Some(content_type) = &envelope.content_type {
            out = out.with_content_type(content_type);
        }
        if let Some(at_ms) = envelope.received_at_ms {
            out = out.with_timestamp_ms(at_ms);
            out.headers.set_int(header::RECEIVED_AT, at_ms);
        }
        let texts = [
            (header::KEY_NAME, &envelope.key_name),
            (header::SIGNATURE, &envelope.signature),
            (header::CONTENT_ENCODING, &envelope.content_encoding),
            (header::TRACEPARENT, &envelope.traceparent),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                out.headers.set_text(name, value);
            }
        }
        for (name, count) in [
            (header::ATTEMPT, envelope.attempt),
            (header::REPLAY, envelope.replay),
        ] {
            if count > 0 {
                out.headers.set_int(name, i64::from(count));
            }
        }
        out
    }

    /// The final properties, with the publish id among the headers.
    pub(crate) fn into_parts(
        mut self,
        publish_id: &str,
    ) -> (ShortString, ShortString, BasicProperties, Bytes) {
        self.headers.set_text(header::PUBLISH_ID, publish_id);
        let properties = self
            .properties
            .with_delivery_mode(DELIVERY_MODE_PERSISTENT)
            .with_headers(self.headers.0);
        (
            short(&self.exchange),
            short(&self.routing_key),
            properties,
            self.body,
        )
    }
}

/// What arrived, as an envelope. Nothing that arrives is an error: a person may have published it by hand.
pub(crate) fn envelope_from(properties: &BasicProperties, body: Bytes) -> Envelope {
    let headers = Arrived::of(properties);
    let text = |name| headers.text(name).map(str::to_owned);
    let count = |name| {
        headers
            .int(name)
            .map_or(0, |n| u32::try_from(n.max(0)).unwrap_or(u32::MAX))
    };
    Envelope {
        message_id: properties
            .message_id()
            .as_ref()
            .map_or_else(|| ids::message_id(&body), ToString::to_string),
        received_at_ms: headers.int(header::RECEIVED_AT),
        key_name: text(header::KEY_NAME),
        signature: text(header::SIGNATURE),
        content_type: text(LONG_CONTENT_TYPE)
            .or_else(|| properties.content_type().as_ref().map(ToString::to_string)),
        content_encoding: text(header::CONTENT_ENCODING),
        traceparent: text(header::TRACEPARENT),
        attempt: count(header::ATTEMPT),
        replay: count(header::REPLAY),
        body,
    }
}

pub(crate) fn text_of(value: &AMQPValue) -> Option<&str> {
    match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str()),
        AMQPValue::ByteArray(bytes) => std::str::from_utf8(bytes.as_slice()).ok(),
        _ => None,
    }
}

pub(crate) fn int_of(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortShortUInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortUInt(n) => Some(i64::from(*n)),
        AMQPValue::LongInt(n) => Some(i64::from(*n)),
        AMQPValue::LongUInt(n) => Some(i64::from(*n)),
        AMQPValue::LongLongInt(n) => Some(*n),
        AMQPValue::Timestamp(n) => i64::try_from(*n).ok(),
        other => text_of(other)?.trim().parse().ok(),
    }
}

/// lapin panics on a short string over 255 bytes, so none is built without a look at its length.
pub(crate) fn short(text: &str) -> ShortString {
    ShortString::try_new(cut_to(text, SHORT_STRING_BYTES_MAX)).unwrap_or_default()
}

fn cut_to(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Envelope {
        Envelope {
            received_at_ms: Some(1_771_025_567_123),
            key_name: Some("main".to_owned()),
            signature: Some("sha256=feed".to_owned()),
            content_type: Some("application/json".to_owned()),
            content_encoding: Some("gzip".to_owned()),
            traceparent: Some("00-ab-cd-01".to_owned()),
            attempt: 3,
            replay: 2,
            ..Envelope::bare(Bytes::from_static(b"{}"))
        }
    }

    fn there_and_back(outgoing: Outgoing) -> (Envelope, BasicProperties) {
        let (_, _, properties, body) = outgoing.into_parts("p-1");
        (envelope_from(&properties, body), properties)
    }

    #[test]
    fn an_envelope_survives_the_wire() {
        let (back, properties) = there_and_back(Outgoing::event(&full()));
        assert!(back == full(), "{back:?}");
        assert_eq!(properties.delivery_mode(), &Some(2));
        assert_eq!(properties.timestamp(), &Some(1_771_025_567));
        assert_eq!(Headers::of(&properties).text(header::PUBLISH_ID), Some("p-1"));
    }

    #[test]
    fn a_content_type_longer_than_amqp_allows_survives_too() {
        let long = format!("application/json; note={}", "x".repeat(400));
        let envelope = Envelope {
            content_type: Some(long.clone()),
            ..full()
        };
        assert_eq!(
            there_and_back(Outgoing::event(&envelope)).0.content_type,
            Some(long)
        );
    }

    #[test]
    fn oversize_texts_are_cut_at_a_characters_edge_instead_of_panicking() {
        let long = "é".repeat(2000);
        let envelope = Envelope {
            message_id: long.clone(),
            traceparent: Some(long),
            ..full()
        };
        let (back, _) = there_and_back(Outgoing::event(&envelope));
        assert_eq!(back.message_id.len(), 254);
        assert_eq!(back.traceparent.map(|text| text.len()), Some(2048));
        let command = Outgoing::command("id", "pause", &"k".repeat(300), Bytes::new(), -5);
        assert_eq!(command.into_parts("p").1.as_str().len(), 255);
    }

    #[test]
    fn a_bare_body_gets_the_id_of_its_bytes() {
        let body = Bytes::from_static(b"by hand");
        let back = envelope_from(&BasicProperties::default(), body.clone());
        assert!(back == Envelope::bare(body), "{back:?}");
    }

    #[test]
    fn odd_header_types_are_read_or_ignored() {
        let mut table = FieldTable::default();
        table.insert(header::ATTEMPT.into(), AMQPValue::ShortUInt(4));
        table.insert(header::REPLAY.into(), AMQPValue::LongString("7".into()));
        table.insert(header::RECEIVED_AT.into(), AMQPValue::Boolean(true));
        table.insert(header::KEY_NAME.into(), AMQPValue::LongInt(5));
        let properties = BasicProperties::default().with_headers(table);
        let back = envelope_from(&properties, Bytes::new());
        assert_eq!(
            (back.attempt, back.replay, back.received_at_ms, back.key_name),
            (4, 7, None, None)
        );
    }

    #[test]
    fn shown_headers_leave_the_signature_out() {
        let shown = Outgoing::event(&full()).headers.shown();
        assert!(
            shown
                .iter()
                .all(|(name, value)| name != header::SIGNATURE && !value.contains("feed")),
            "{shown:?}"
        );
        assert!(
            shown.contains(&(header::ATTEMPT.to_owned(), "3".to_owned())),
            "{shown:?}"
        );
    }
}
