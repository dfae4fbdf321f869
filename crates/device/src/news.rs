//! An event as the ledger takes it: whom it concerns, what kind of news it is, where it stands in order, and the
//! marks by which a repeat is known.
//!
//! It does not decide; see [`crate::device`] for devices and [`crate::account`] for accounts.

use crate::Order;
use porchlight_event::ids::hash_parts;
use porchlight_event::{EventType, RingEvent, TraceParent};

/// How far ahead of our clock an event may be, in milliseconds: one device with a wrong clock would otherwise
/// freeze its own status until that time comes. Five minutes is more than honest clocks differ.
pub const FUTURE_MS_MAX: i64 = 5 * 60 * 1000;

/// Whom an event concerns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// One device.
    Device(String),
    /// One account.
    Account(String),
    /// Nothing that has a state: the event is only recorded. The text keeps its repeats together.
    Other(String),
}

/// What kind of news an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The device is online.
    Online,
    /// The device is offline.
    Offline,
    /// The device was added.
    Added,
    /// The device was removed.
    Removed,
    /// The account's integration was added.
    AccountAdded,
    /// The account's integration was removed.
    AccountRemoved,
    /// Nothing that changes a state.
    Recorded,
}

/// Which clock an event's timestamp came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeSource {
    /// `data.attributes.timestamp`.
    Timestamp,
    /// `meta.time`, for want of a timestamp.
    MetaTime,
    /// Our own receipt, for want of both.
    Receipt,
}

/// One event, ready for the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Whom it concerns.
    pub subject: Subject,
    /// What kind of news it is.
    pub kind: Kind,
    /// Where it stands among the news of its subject.
    pub order: Order,
    /// When it happened, in milliseconds since the epoch, by `time_source`.
    pub timestamp_ms: i64,
    /// Which clock that is.
    pub time_source: TimeSource,
    /// `data.id`.
    pub event_id: String,
    /// `data.type`.
    pub event_type: String,
    /// `meta.request_id`.
    pub request_id: Option<String>,
    /// `meta.account_id`, or the account an account event is about.
    pub account_id: Option<String>,
    /// Mark of `(type, id, source, timestamp)`.
    pub identity_mark: i64,
    /// Mark of `(subject, request id)`.
    pub request_mark: Option<i64>,
    /// Where in a trace it is worked on. It decides nothing, and is no part of what the event is.
    pub traceparent: Option<TraceParent>,
}

/// Why an event cannot be taken by the ledger, ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NewsError {
    /// A type that is about a device, without one.
    #[error("the event is about a device and names none")]
    NoDevice,
    /// A type that is about an account, without one.
    #[error("the event is about an account and names none")]
    NoAccount,
}

impl NewsError {
    /// A short code for a header and a metric label.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoDevice => "no_device",
            Self::NoAccount => "no_account",
        }
    }
}

impl TimeSource {
    /// The stored and shown code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Timestamp => "timestamp",
            Self::MetaTime => "meta_time",
            Self::Receipt => "receipt",
        }
    }
}

impl Kind {
    /// The code a script is given.
    pub fn code(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Added => "added",
            Self::Removed => "removed",
            Self::AccountAdded => "account_added",
            Self::AccountRemoved => "account_removed",
            Self::Recorded => "recorded",
        }
    }
}

impl News {
    /// Makes news of an event that we received at `received_at_ms`.
    ///
    /// # Errors
    /// [`NewsError`], when a type that needs a device or an account names none.
    pub fn new(event: &RingEvent, received_at_ms: i64) -> Result<Self, NewsError> {
        let kind = kind(&event.event_type);
        let subject = subject(event, kind)?;
        let meta_ms = event
            .sent_at_ns
            .and_then(|ns| i64::try_from(ns.div_euclid(1_000_000)).ok());
        let (timestamp_ms, time_source) = match (event.timestamp_ms, meta_ms) {
            (Some(timestamp), _) => (timestamp, TimeSource::Timestamp),
            (None, Some(sent_at)) => (sent_at, TimeSource::MetaTime),
            (None, None) => (received_at_ms, TimeSource::Receipt),
        };
        let event_type = event.event_type.as_str();
        let account_id = match &subject {
            Subject::Account(account) => Some(account.clone()),
            Subject::Device(_) | Subject::Other(_) => event.account_id.clone(),
        };
        Ok(Self {
            identity_mark: identity_mark(event),
            request_mark: event
                .request_id
                .as_deref()
                .map(|request| request_mark(&subject, request)),
            order: Order::new(timestamp_ms, event.sent_at_ns, &event.event_id, event_type),
            kind,
            timestamp_ms,
            time_source,
            event_id: event.event_id.clone(),
            event_type: event_type.to_owned(),
            request_id: event.request_id.clone(),
            account_id,
            subject,
            traceparent: None,
        })
    }

    /// Whether the event claims to happen more than [`FUTURE_MS_MAX`] after `now_ms`.
    pub fn is_from_the_future(&self, now_ms: i64) -> bool {
        self.timestamp_ms > now_ms.saturating_add(FUTURE_MS_MAX)
    }

    /// The device it concerns.
    pub fn device_id(&self) -> Option<&str> {
        match &self.subject {
            Subject::Device(device) => Some(device),
            Subject::Account(_) | Subject::Other(_) => None,
        }
    }
}

fn kind(event_type: &EventType) -> Kind {
    match event_type {
        EventType::DeviceOnline => Kind::Online,
        EventType::DeviceOffline => Kind::Offline,
        EventType::DeviceAdded => Kind::Added,
        EventType::DeviceRemoved => Kind::Removed,
        EventType::AppIntegrationAdded => Kind::AccountAdded,
        EventType::AppIntegrationRemoved => Kind::AccountRemoved,
        EventType::MotionDetected
        | EventType::ButtonPress
        | EventType::SubscriptionActivated
        | EventType::SubscriptionDeactivated
        | EventType::Other(_) => Kind::Recorded,
    }
}

fn subject(event: &RingEvent, kind: Kind) -> Result<Subject, NewsError> {
    let account = || {
        let source = event
            .source
            .as_ref()
            .filter(|_| event.source_type.as_deref() != Some("devices"));
        source
            .or(event.account_id.as_ref())
            .cloned()
            .map(Subject::Account)
    };
    let about_device = match event.event_type {
        EventType::MotionDetected | EventType::ButtonPress => true,
        _ => matches!(kind, Kind::Online | Kind::Offline | Kind::Added | Kind::Removed),
    };
    if about_device {
        return device(event).map(Subject::Device).ok_or(NewsError::NoDevice);
    }
    if matches!(kind, Kind::AccountAdded | Kind::AccountRemoved) {
        return account().ok_or(NewsError::NoAccount);
    }
    Ok(match event.source_type.as_deref() {
        Some("devices") if event.source.is_some() => {
            Subject::Device(event.source.clone().unwrap_or_default())
        }
        _ => Subject::Other(event.source.clone().unwrap_or_default()),
    })
}

/// The source, unless it says that it is something else; else the one related device.
fn device(event: &RingEvent) -> Option<String> {
    match (
        event.source_type.as_deref(),
        &event.source,
        event.related_devices.as_slice(),
    ) {
        (Some("users" | "subscriptions"), _, [only]) => Some(only.clone()),
        (Some("users" | "subscriptions"), ..) => None,
        (_, Some(source), _) => Some(source.clone()),
        (_, None, [only]) => Some(only.clone()),
        (_, None, _) => None,
    }
}

fn identity_mark(event: &RingEvent) -> i64 {
    let timestamp = event.timestamp_ms.map(|ms| ms.to_string());
    mark(&[
        b"event",
        event.event_type.as_str().as_bytes(),
        event.event_id.as_bytes(),
        event.source.as_deref().unwrap_or_default().as_bytes(),
        timestamp.as_deref().unwrap_or_default().as_bytes(),
    ])
}

fn request_mark(subject: &Subject, request_id: &str) -> i64 {
    let (class, id): (&[u8], &str) = match subject {
        Subject::Device(id) => (b"device", id),
        Subject::Account(id) => (b"account", id),
        Subject::Other(id) => (b"other", id),
    };
    mark(&[b"request", class, id.as_bytes(), request_id.as_bytes()])
}

fn mark(parts: &[&[u8]]) -> i64 {
    let hash = hash_parts(parts);
    i64::from_be_bytes([
        hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7],
    ])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use porchlight_event::sample::SAMPLES;

    fn news(body: &str) -> Result<News, NewsError> {
        News::new(&RingEvent::parse(body.as_bytes()).unwrap(), 1_000)
    }

    #[test]
    fn every_sample_has_the_subject_its_type_needs() {
        for (file, body) in SAMPLES {
            let news = news(body).unwrap();
            let right = match news.event_type.as_str() {
                kind if kind.starts_with("app_") => matches!(news.subject, Subject::Account(_)),
                kind if kind.starts_with("subscription_") => matches!(news.subject, Subject::Other(_)),
                _ => matches!(news.subject, Subject::Device(_)),
            };
            assert!(
                right && news.account_id.is_some() && news.request_mark.is_some(),
                "{file}"
            );
        }
    }

    #[test]
    fn samples_that_share_an_id_are_different_events() {
        let marks: std::collections::BTreeSet<_> = SAMPLES
            .iter()
            .map(|(_, body)| news(body).unwrap().identity_mark)
            .collect();
        assert_eq!(marks.len(), SAMPLES.len());
    }

    #[test]
    fn meta_time_then_receipt_stand_in_for_a_timestamp() {
        let at = |meta: &str, attributes: &str| {
            let news = news(&format!(
                r#"{{"meta":{{{meta}}},"data":{{"id":"e","type":"device_online","attributes":{{"source":"d"{attributes}}}}}}}"#
            ))
            .unwrap();
            (news.timestamp_ms, news.time_source)
        };
        let time = r#""time":"1970-01-01T00:00:02.5Z""#;
        assert_eq!(at(time, r#","timestamp":7"#), (7, TimeSource::Timestamp));
        assert_eq!(at(time, r#","timestamp":null"#), (2500, TimeSource::MetaTime));
        assert_eq!(at("", ""), (1000, TimeSource::Receipt));
    }

    #[test]
    fn a_device_event_without_a_device_is_no_news() {
        let of = |kind: &str, attributes: &str| {
            news(&format!(
                r#"{{"data":{{"id":"e","type":"{kind}","attributes":{attributes}}}}}"#
            ))
        };
        for kind in [
            "device_online",
            "device_removed",
            "motion_detected",
            "button_press",
        ] {
            assert_eq!(of(kind, "{}"), Err(NewsError::NoDevice), "{kind}");
            assert_eq!(
                of(kind, r#"{"source":"a","source_type":"users"}"#),
                Err(NewsError::NoDevice)
            );
        }
        assert_eq!(of("app_integration_removed", "{}"), Err(NewsError::NoAccount));
        assert!(of("something_new", "{}").is_ok());
    }

    #[test]
    fn more_than_five_minutes_ahead_is_the_future() {
        let news = news(
            r#"{"data":{"id":"e","type":"device_online","attributes":{"source":"d","timestamp":300000}}}"#,
        );
        let news = news.unwrap();
        assert!(
            !news.is_from_the_future(0) && news.is_from_the_future(-1) && !news.is_from_the_future(i64::MAX)
        );
    }
}
