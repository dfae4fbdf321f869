//! A command: what a partner's service is told to do with one operation, under one identity.
//!
//! The identity is a function of (device, operation, generation, action), so however often a command is sent,
//! by whomever and after whatever crash, a receiver that remembers identities acts once.

use crate::{News, Operation, State};
use porchlight_event::TraceParent;
use porchlight_event::ids::hash_parts;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// What to do with an operation. Within one generation a later action overrules an earlier one, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Stop until told to resume.
    Pause,
    /// Go on.
    Resume,
    /// Stop for good.
    Cancel,
}

/// The event that a command is owed to; for an operation registered on an offline device, the registration.
///
/// As JSON it is what ledgers and exports keep. What is sent of it is in [`Command::body`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// `data.id`.
    pub event_id: String,
    /// `meta.request_id`.
    pub request_id: Option<String>,
    /// `data.type`, or `registration`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it happened, in milliseconds since the epoch.
    pub timestamp: i64,
    /// Where in a trace it was worked on.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "readable_trace"
    )]
    pub traceparent: Option<TraceParent>,
}

/// One owed command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What to do.
    pub action: Action,
    /// The generation it belongs to.
    pub generation: u64,
    /// The operation's id.
    pub operation_id: String,
    /// The operation's kind, as registered.
    pub kind: String,
    /// The operation's parameters, as registered: JSON text.
    pub params: String,
    /// The device.
    pub device_id: String,
    /// The account the operation was registered for, else the device's.
    pub account_id: Option<String>,
    /// What it is owed to.
    pub cause: Cause,
    /// When it became owed, in milliseconds since the epoch.
    pub issued_at_ms: i64,
}

/// What became of a command that was to be owed once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OweAgain {
    /// It is owed, and due now.
    Owed,
    /// Its operation is gone, or went on since: it would tell what is no longer true. Nothing was changed.
    Overtaken,
}

/// Why bytes are not the body of a command.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Not the JSON that a command is sent as.
    #[error("not the JSON of a command")]
    Form(#[from] serde_json::Error),
    /// An action that does not exist.
    #[error("a command with an unknown action")]
    Action,
    /// Not a time as commands carry it.
    #[error("a command whose time cannot be read")]
    IssuedAt,
    /// Its id is not the one that its content has.
    #[error("a command whose id does not belong to its content")]
    Id,
}

impl Cause {
    /// An event as a cause.
    pub fn of(news: &News) -> Self {
        Self {
            event_id: news.event_id.clone(),
            request_id: news.request_id.clone(),
            kind: news.event_type.clone(),
            timestamp: news.timestamp_ms,
            traceparent: news.traceparent.clone(),
        }
    }
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 3] = [Self::Pause, Self::Resume, Self::Cancel];

    /// The stored and sent code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
        }
    }

    /// Reads a code back.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.code() == code)
    }

    /// The state in which an operation owes it.
    pub fn state(self) -> State {
        match self {
            Self::Pause => State::Paused,
            Self::Resume => State::Resuming,
            Self::Cancel => State::Cancelled,
        }
    }
}

/// The identity of a command: 64 hex digits.
pub fn command_id(device_id: &str, operation_id: &str, generation: u64, action: Action) -> String {
    hex::encode(hash_parts(&[
        b"command",
        device_id.as_bytes(),
        operation_id.as_bytes(),
        &generation.to_be_bytes(),
        action.code().as_bytes(),
    ]))
}

impl Command {
    /// The command that `operation` owes now.
    pub(crate) fn owed(
        action: Action,
        device_id: &str,
        account_id: Option<&str>,
        operation: &Operation,
        cause: &Cause,
        now_ms: i64,
    ) -> Self {
        Self {
            action,
            generation: operation.generation,
            operation_id: operation.id.clone(),
            kind: operation.kind.clone(),
            params: operation.params.clone(),
            device_id: device_id.to_owned(),
            account_id: operation
                .account_id
                .clone()
                .or_else(|| account_id.map(str::to_owned)),
            cause: cause.clone(),
            issued_at_ms: now_ms,
        }
    }

    /// Its identity, the receiver's idempotency key.
    pub fn id(&self) -> String {
        command_id(&self.device_id, &self.operation_id, self.generation, self.action)
    }

    /// Whether the two are one command, under one identity, whatever else they say.
    pub fn is_same(&self, other: &Self) -> bool {
        let identity = |of: &Self| (of.generation, of.action);
        identity(self) == identity(other)
            && self.operation_id == other.operation_id
            && self.device_id == other.device_id
    }

    /// The routing key `<action>.<kind>`. A kind is made of letters, digits, `_` and `-`, so it stays one word.
    pub fn routing_key(&self) -> String {
        format!("{}.{}", self.action.code(), self.kind)
    }

    /// The JSON body in which it is sent. Its place in a trace is not in there: headers carry that.
    pub fn body(&self) -> Vec<u8> {
        let params = RawValue::from_string(self.params.clone()).unwrap_or_else(|_| RawValue::NULL.to_owned());
        let wire = WireCommand {
            id: &self.id(),
            action: self.action.code(),
            generation: self.generation,
            operation: WireOperation {
                id: &self.operation_id,
                kind: &self.kind,
                params: &params,
            },
            device_id: &self.device_id,
            account_id: self.account_id.as_deref(),
            cause: WireCause::of(&self.cause),
            issued_at: &iso_milliseconds(self.issued_at_ms),
        };
        serde_json::to_vec(&wire).expect("strings, integers and raw JSON always serialise")
    }

    /// Reads back what [`Command::body`] gave. The parameters keep their text, and the time its milliseconds.
    ///
    /// # Errors
    /// [`CommandError`], for anything else.
    pub fn from_body(body: &[u8]) -> Result<Self, CommandError> {
        let sent: SentCommand = serde_json::from_slice(body)?;
        let issued_at =
            OffsetDateTime::parse(&sent.issued_at, &Rfc3339).map_err(|_| CommandError::IssuedAt)?;
        let issued_at_ms = i64::try_from(issued_at.unix_timestamp_nanos().div_euclid(1_000_000));
        let command = Self {
            action: Action::from_code(&sent.action).ok_or(CommandError::Action)?,
            generation: sent.generation,
            operation_id: sent.operation.id,
            kind: sent.operation.kind,
            params: sent.operation.params.get().to_owned(),
            device_id: sent.device_id,
            account_id: sent.account_id,
            cause: sent.cause,
            issued_at_ms: issued_at_ms.map_err(|_| CommandError::IssuedAt)?,
        };
        if command.id() == sent.id {
            Ok(command)
        } else {
            Err(CommandError::Id)
        }
    }
}

impl<'a> WireCause<'a> {
    fn of(cause: &'a Cause) -> Self {
        Self {
            event_id: &cause.event_id,
            request_id: cause.request_id.as_deref(),
            kind: &cause.kind,
            timestamp: cause.timestamp,
        }
    }
}

/// A trace that cannot be read is none: a command must not be lost for it.
fn readable_trace<'de, D: Deserializer<'de>>(from: D) -> Result<Option<TraceParent>, D::Error> {
    let kept = serde_json::Value::deserialize(from)?;
    Ok(kept.as_str().and_then(TraceParent::parse))
}

/// ISO 8601 in UTC with milliseconds; the epoch for what no calendar holds.
pub fn iso_milliseconds(ms: i64) -> String {
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .ok()
        .and_then(|date| date.format(form).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00.000Z".to_owned())
}

#[derive(Serialize)]
struct WireCommand<'a> {
    id: &'a str,
    action: &'a str,
    generation: u64,
    operation: WireOperation<'a>,
    device_id: &'a str,
    account_id: Option<&'a str>,
    cause: WireCause<'a>,
    issued_at: &'a str,
}

#[derive(Serialize)]
struct WireCause<'a> {
    event_id: &'a str,
    request_id: Option<&'a str>,
    #[serde(rename = "type")]
    kind: &'a str,
    timestamp: i64,
}

#[derive(Serialize)]
struct WireOperation<'a> {
    id: &'a str,
    kind: &'a str,
    params: &'a RawValue,
}

#[derive(Deserialize)]
struct SentCommand {
    id: String,
    action: String,
    generation: u64,
    operation: SentOperation,
    device_id: String,
    account_id: Option<String>,
    cause: Cause,
    issued_at: String,
}

#[derive(Deserialize)]
struct SentOperation {
    id: String,
    kind: String,
    params: Box<RawValue>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_identity_differs_in_each_of_its_four_parts() {
        let ids = [
            command_id("d", "o", 1, Action::Pause),
            command_id("e", "o", 1, Action::Pause),
            command_id("d", "p", 1, Action::Pause),
            command_id("d", "o", 2, Action::Pause),
            command_id("d", "o", 1, Action::Resume),
            command_id("do", "", 1, Action::Pause),
        ];
        assert!(ids.iter().all(|id| id.len() == 64));
        assert_eq!(
            ids.iter().collect::<std::collections::BTreeSet<_>>().len(),
            ids.len()
        );
    }

    fn command() -> Command {
        Command {
            action: Action::Resume,
            generation: 3,
            operation_id: "nightly-snapshot".to_owned(),
            kind: "snapshot".to_owned(),
            params: r#"{"a":[1,"x"]}"#.to_owned(),
            device_id: "d".to_owned(),
            account_id: None,
            cause: Cause {
                event_id: "e".to_owned(),
                request_id: None,
                kind: "device_online".to_owned(),
                timestamp: 1_771_025_567_000,
                traceparent: None,
            },
            issued_at_ms: 1_771_025_571_300,
        }
    }

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_cause_keeps_its_trace_and_one_that_cannot_be_read_is_none() {
        let mut cause = command().cause;
        let bare = serde_json::to_string(&cause).unwrap();
        assert!(!bare.contains("traceparent"), "{bare}");
        cause.traceparent = TraceParent::parse(TRACE);
        let kept = serde_json::to_string(&cause).unwrap();
        assert_eq!(serde_json::from_str::<Cause>(&kept).unwrap(), cause);
        cause.traceparent = None;
        for odd in [
            bare,
            kept.replace(TRACE, "00-x"),
            kept.replace(&format!("\"{TRACE}\""), "[7]"),
        ] {
            assert_eq!(serde_json::from_str::<Cause>(&odd).unwrap(), cause, "{odd}");
        }
    }

    #[test]
    fn the_body_has_the_promised_form() {
        let mut command = command();
        command.cause.traceparent = TraceParent::parse(TRACE);
        let body: serde_json::Value = serde_json::from_slice(&command.body()).unwrap();
        let wanted = serde_json::json!({
            "id": command.id(), "action": "resume", "generation": 3,
            "operation": { "id": "nightly-snapshot", "kind": "snapshot", "params": { "a": [1, "x"] } },
            "device_id": "d", "account_id": null,
            "cause": { "event_id": "e", "request_id": null, "type": "device_online", "timestamp": 1_771_025_567_000_i64 },
            "issued_at": "2026-02-13T23:32:51.300Z",
        });
        assert_eq!(body, wanted);
        assert_eq!(command.routing_key(), "resume.snapshot");
        assert_eq!(iso_milliseconds(i64::MAX), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_body_reads_back_to_the_last_digit() {
        let large = Command {
            action: Action::Cancel,
            generation: u64::MAX,
            operation_id: "op\0\u{1f600}\"".to_owned(),
            params: r#"{"a": 1.0,  "b":[1e400,0.10000000000000000001],"c":"\u0000","a":2}"#.to_owned(),
            device_id: "d\u{e9}v\n".repeat(500),
            account_id: Some(String::new()),
            issued_at_ms: -1,
            ..command()
        };
        let late = Command {
            cause: Cause {
                request_id: Some("r".to_owned()),
                timestamp: i64::MIN,
                ..command().cause
            },
            issued_at_ms: 253_402_300_799_999,
            ..command()
        };
        for command in [command(), large, late] {
            let read = Command::from_body(&command.body()).unwrap();
            assert_eq!(read.body(), command.body());
            assert_eq!(read, command);
        }
    }

    #[test]
    fn what_is_no_body_of_ours_is_told() {
        let body = String::from_utf8(command().body()).unwrap();
        let with = |from: &str, to: &str| {
            assert!(body.contains(from), "{from}");
            Command::from_body(body.replace(from, to).as_bytes())
        };
        assert!(matches!(Command::from_body(b"{}"), Err(CommandError::Form(_))));
        assert!(matches!(
            with("\"resume\"", "\"restart\""),
            Err(CommandError::Action)
        ));
        assert!(matches!(
            with("2026-02-13T", "yesterday "),
            Err(CommandError::IssuedAt)
        ));
        for (from, to) in [
            ("\"resume\"", "\"pause\""),
            ("\"generation\":3", "\"generation\":4"),
            ("\"device_id\":\"d\"", "\"device_id\":\"e\""),
        ] {
            assert!(matches!(with(from, to), Err(CommandError::Id)), "{to}");
        }
    }
}
