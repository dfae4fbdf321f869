//! Ring's wire types, read from the signed bytes: strict on what identifies an event, tolerant of all else.
//!
//! It does not decide what an event means for a device; it says what was sent. Unknown fields are ignored,
//! optional fields of a wrong type count as missing, numbers may be strings. A field given twice is an error,
//! because guessing which one was meant could mark a device wrongly.

use crate::loose::{Loose, LooseRefs, LooseText, Object};
use serde::Deserialize;
use serde_json::error::Category;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// One event as Ring sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingEvent {
    /// `data.type`.
    pub event_type: EventType,
    /// `data.id`: opaque, of any length, not unique by itself.
    pub event_id: String,
    /// `data.attributes.source`: a device id, an account id, or `subscriptions`, as `source_type` says.
    pub source: Option<String>,
    /// `data.attributes.source_type`.
    pub source_type: Option<String>,
    /// `data.attributes.timestamp` in milliseconds since the epoch, where it is a number.
    pub timestamp_ms: Option<i64>,
    /// `meta.time` in nanoseconds since the epoch, where it is a date.
    pub sent_at_ns: Option<i128>,
    /// `meta.request_id`.
    pub request_id: Option<String>,
    /// `meta.account_id`; absent in version 1.0.
    pub account_id: Option<String>,
    /// `data.relationships.devices.data[].id`, for events about several devices.
    pub related_devices: Vec<String>,
}

/// `data.type`, with every type that Ring documents and room for those to come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the variants are Ring's own names")]
pub enum EventType {
    DeviceOnline,
    DeviceOffline,
    DeviceAdded,
    DeviceRemoved,
    MotionDetected,
    ButtonPress,
    AppIntegrationAdded,
    AppIntegrationRemoved,
    SubscriptionActivated,
    SubscriptionDeactivated,
    /// Any other name, untouched.
    Other(String),
}

/// Why bytes are not an event. Says where, never what: a body is not for logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not JSON, or more than one JSON value, or text that is not UTF-8, or a string with half a surrogate pair.
    #[error("the body is not JSON (line {line}, column {column})")]
    NotJson {
        /// Line of the first offending byte, from 1.
        line: usize,
        /// Column of the first offending byte, from 1.
        column: usize,
    },
    /// JSON, but not an object with an object `data`, or a field given twice.
    #[error("the body is not an event object{}", place(*line, *column))]
    WrongShape {
        /// Line where the shape went wrong, from 1; 0 when it is the body as a whole.
        line: usize,
        /// Column where the shape went wrong, from 1.
        column: usize,
    },
    /// No `data.type`, or an empty one.
    #[error("the event has no data.type")]
    NoType,
    /// No `data.id`, or an empty one.
    #[error("the event has no data.id")]
    NoId,
}

impl ParseError {
    /// A short code for a header and a metric label.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotJson { .. } => "not_json",
            Self::WrongShape { .. } => "wrong_shape",
            Self::NoType => "no_type",
            Self::NoId => "no_id",
        }
    }
}

impl EventType {
    /// The documented types, in Ring's spelling.
    pub const KNOWN: [EventType; 10] = [
        Self::DeviceOnline,
        Self::DeviceOffline,
        Self::DeviceAdded,
        Self::DeviceRemoved,
        Self::MotionDetected,
        Self::ButtonPress,
        Self::AppIntegrationAdded,
        Self::AppIntegrationRemoved,
        Self::SubscriptionActivated,
        Self::SubscriptionDeactivated,
    ];

    /// Ring's spelling.
    pub fn as_str(&self) -> &str {
        match self {
            Self::DeviceOnline => "device_online",
            Self::DeviceOffline => "device_offline",
            Self::DeviceAdded => "device_added",
            Self::DeviceRemoved => "device_removed",
            Self::MotionDetected => "motion_detected",
            Self::ButtonPress => "button_press",
            Self::AppIntegrationAdded => "app_integration_added",
            Self::AppIntegrationRemoved => "app_integration_removed",
            Self::SubscriptionActivated => "subscription_activated",
            Self::SubscriptionDeactivated => "subscription_deactivated",
            Self::Other(name) => name,
        }
    }

    /// One of a bounded set of names, fit for a metric label: unknown types become `other`.
    pub fn label(&self) -> &str {
        match self {
            Self::Other(_) => "other",
            known => known.as_str(),
        }
    }
}

impl From<String> for EventType {
    fn from(name: String) -> Self {
        Self::KNOWN
            .into_iter()
            .find(|known| known.as_str() == name)
            .unwrap_or(Self::Other(name))
    }
}

impl RingEvent {
    /// Reads one event from the raw body.
    ///
    /// # Errors
    /// [`ParseError`], when the bytes cannot be identified as one event; they will never become one.
    pub fn parse(body: &[u8]) -> Result<Self, ParseError> {
        let Object(wire) =
            serde_json::from_slice::<Object<WireEvent>>(body).map_err(|error| located(&error))?;
        let Object(data) = wire.data;
        let name = data
            .kind
            .0
            .filter(|name| !name.is_empty())
            .ok_or(ParseError::NoType)?;
        let event_id = data.id.0.filter(|id| !id.is_empty()).ok_or(ParseError::NoId)?;
        let filled = |text: LooseText| text.0.filter(|text| !text.is_empty());
        let attributes = data.attributes.0;
        Ok(Self {
            event_type: EventType::from(name),
            event_id,
            timestamp_ms: attributes.timestamp.0.as_deref().and_then(milliseconds),
            source: filled(attributes.source),
            source_type: filled(attributes.source_type),
            sent_at_ns: wire.meta.0.time.0.as_deref().and_then(nanoseconds),
            request_id: filled(wire.meta.0.request_id),
            account_id: filled(wire.meta.0.account_id),
            related_devices: data.relationships.0.devices.0.data.0,
        })
    }
}

/// The whole body has no place in itself.
fn place(line: usize, column: usize) -> String {
    match line {
        0 => String::new(),
        _ => format!(" (line {line}, column {column})"),
    }
}

fn located(error: &serde_json::Error) -> ParseError {
    let (line, column) = (error.line(), error.column());
    match error.classify() {
        Category::Data => ParseError::WrongShape { line, column },
        Category::Io | Category::Syntax | Category::Eof => ParseError::NotJson { line, column },
    }
}

/// An integer in any of JSON's spellings; what exceeds 64 bits saturates and so stays in the far future or past.
fn milliseconds(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole);
    }
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite())?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float cast saturates, which is what is wanted"
    )]
    Some(number as i64)
}

fn nanoseconds(text: &str) -> Option<i128> {
    let text = text.trim();
    let date = OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(&format!("{text}Z"), &Rfc3339))
        .ok()?;
    Some(date.unix_timestamp_nanos())
}

#[derive(Deserialize)]
struct WireEvent {
    #[serde(default)]
    meta: Loose<WireMeta>,
    data: Object<WireData>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireMeta {
    time: LooseText,
    request_id: LooseText,
    account_id: LooseText,
}

#[derive(Deserialize)]
struct WireData {
    #[serde(default)]
    id: LooseText,
    #[serde(rename = "type", default)]
    kind: LooseText,
    #[serde(default)]
    attributes: Loose<WireAttributes>,
    #[serde(default)]
    relationships: Loose<WireRelationships>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireAttributes {
    source: LooseText,
    source_type: LooseText,
    timestamp: LooseText,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireRelationships {
    devices: Loose<WireDevices>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireDevices {
    data: LooseRefs,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<RingEvent, ParseError> {
        RingEvent::parse(body.as_bytes())
    }

    fn with_attributes(attributes: &str) -> RingEvent {
        parse(&format!(
            r#"{{"data":{{"id":"e","type":"t","attributes":{attributes}}}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn the_least_event_is_a_type_and_an_id() {
        let event = parse(r#"{"data":{"type":"new_thing","id":"e"}}"#).unwrap();
        assert_eq!(event.event_type, EventType::Other("new_thing".to_owned()));
        assert_eq!(event.event_type.label(), "other");
        assert_eq!(
            (event.source, event.request_id, event.sent_at_ns),
            (None, None, None)
        );
    }

    #[test]
    fn every_known_type_survives_its_spelling() {
        for known in EventType::KNOWN {
            assert_eq!(EventType::from(known.as_str().to_owned()), known);
        }
    }

    #[test]
    fn a_timestamp_is_read_in_every_spelling_of_a_number() {
        for (text, wanted) in [
            ("1771025567000", Some(1_771_025_567_000)),
            (r#""1771025567000""#, Some(1_771_025_567_000)),
            ("1771025567000.0", Some(1_771_025_567_000)),
            ("1.771025567e12", Some(1_771_025_567_000)),
            ("0", Some(0)),
            ("-5", Some(-5)),
            ("9007199254740993", Some(9_007_199_254_740_993)),
            ("99999999999999999999", Some(i64::MAX)),
            ("1e300", Some(i64::MAX)),
            ("null", None),
            (r#""soon""#, None),
            ("[1]", None),
            ("true", None),
            ("{}", None),
        ] {
            let event = with_attributes(&format!(r#"{{"timestamp":{text}}}"#));
            assert_eq!(event.timestamp_ms, wanted, "{text}");
        }
    }

    #[test]
    fn meta_time_keeps_its_nanoseconds() {
        let at = |time: &str| {
            parse(&format!(
                r#"{{"meta":{{"time":{time}}},"data":{{"type":"t","id":"e"}}}}"#
            ))
            .unwrap()
            .sent_at_ns
        };
        assert_eq!(
            at(r#""2026-02-13T23:32:51.234231900Z""#),
            Some(1_771_025_571_234_231_900)
        );
        assert_eq!(
            at(r#""2026-02-14T00:32:51.234231900+01:00""#),
            Some(1_771_025_571_234_231_900)
        );
        assert_eq!(at(r#""2026-02-13T23:32:51""#), Some(1_771_025_571_000_000_000));
        assert_eq!(at(r#""yesterday""#), None);
        assert_eq!(at("12"), None);
    }

    #[test]
    fn optional_parts_of_a_wrong_type_count_as_missing() {
        for part in ["null", "5", "true", r#""text""#, "[1,[2]]"] {
            let body = format!(
                r#"{{"meta":{part},"data":{{"type":"t","id":"e","attributes":{part},"relationships":{part}}}}}"#
            );
            let event = parse(&body).unwrap();
            assert_eq!((event.source, event.account_id), (None, None), "{part}");
            assert_eq!(event.related_devices, Vec::<String>::new());
        }
    }

    #[test]
    fn what_is_no_event_is_told_apart() {
        let code = |body: &[u8]| RingEvent::parse(body).unwrap_err().code();
        for body in [
            "",
            "{",
            "hello",
            r#"{"data":{"type":"t","id":"e"}} {}"#,
            "\u{feff}{}",
        ] {
            assert_eq!(code(body.as_bytes()), "not_json", "{body:?}");
        }
        assert_eq!(code(b"{\"data\":{\"type\":\"t\",\"id\":\"\xff\"}}"), "not_json");
        for body in [
            "[]",
            "5",
            "null",
            "{}",
            r#"{"data":5}"#,
            r#"{"data":null}"#,
            r#"{"data":[]}"#,
        ] {
            assert_eq!(code(body.as_bytes()), "wrong_shape", "{body}");
        }
        assert_eq!(code(br#"{"data":{"id":"e","id":"f","type":"t"}}"#), "wrong_shape");
        assert_eq!(code(br#"{"data":{"id":"e"}}"#), "no_type");
        assert_eq!(code(br#"{"data":{"id":"e","type":""}}"#), "no_type");
        assert_eq!(code(br#"{"data":{"id":{},"type":"t"}}"#), "no_id");
    }

    #[test]
    fn hostile_text_neither_crashes_nor_changes() {
        let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
        let event = with_attributes(&format!(r#"{{"source":"d","extra":{deep}}}"#));
        assert_eq!(event.source.as_deref(), Some("d"));
        assert!(
            parse(&format!(
                r#"{{"data":{{"id":"e","type":"t","attributes":{{"source":{deep}}}}}}}"#
            ))
            .is_ok()
        );
        assert_eq!(parse(&deep).unwrap_err().code(), "wrong_shape");
        let odd = with_attributes(r#"{"source":"a\u0000b\u001f\ud83d\ude00","other":"\ud800"}"#);
        assert_eq!(odd.source.as_deref(), Some("a\0b\u{1f}\u{1f600}"));
        let half = parse(r#"{"data":{"id":"\ud800","type":"t"}}"#).unwrap_err();
        assert!(matches!(half.code(), "not_json" | "wrong_shape"));
        let long = "x".repeat(4096);
        assert_eq!(
            with_attributes(&format!(r#"{{"source":"{long}"}}"#)).source,
            Some(long)
        );
    }

    #[test]
    fn errors_show_none_of_the_body() {
        for body in [r#"{"data":"topsecret"}"#, r#""topsecret""#, "topsecret"] {
            let error = parse(body).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("topsecret"));
        }
    }
}
