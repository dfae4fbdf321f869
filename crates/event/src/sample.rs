//! Events of Ring's form, for simulated traffic and tests, and the documented samples as Ring signs them.
//!
//! Nothing here is random and nothing reads a clock: the caller chooses ids and times.

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The documented samples: file name and exact bytes.
pub const SAMPLES: [(&str, &str); 10] = [
    (
        "device_online.json",
        include_str!("../fixtures/device_online.json"),
    ),
    (
        "device_offline.json",
        include_str!("../fixtures/device_offline.json"),
    ),
    ("device_added.json", include_str!("../fixtures/device_added.json")),
    (
        "device_removed.json",
        include_str!("../fixtures/device_removed.json"),
    ),
    (
        "motion_detected.json",
        include_str!("../fixtures/motion_detected.json"),
    ),
    ("button_press.json", include_str!("../fixtures/button_press.json")),
    (
        "app_integration_added.json",
        include_str!("../fixtures/app_integration_added.json"),
    ),
    (
        "app_integration_removed.json",
        include_str!("../fixtures/app_integration_removed.json"),
    ),
    (
        "subscription_activated.json",
        include_str!("../fixtures/subscription_activated.json"),
    ),
    (
        "subscription_deactivated.json",
        include_str!("../fixtures/subscription_deactivated.json"),
    ),
];

/// What an event to be made should say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample<'a> {
    /// `data.type`, any name.
    pub event_type: &'a str,
    /// The device; for the two `app_integration` types it is not used.
    pub device_id: &'a str,
    /// The account.
    pub account_id: &'a str,
    /// When it happened, in milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// When it was sent, in milliseconds since the epoch.
    pub sent_at_ms: i64,
    /// `meta.request_id`.
    pub request_id: &'a str,
}

impl Sample<'_> {
    /// The event's id in Ring's form.
    pub fn event_id(&self) -> String {
        let subject = if self.is_about_account() {
            self.account_id
        } else {
            self.device_id
        };
        format!("{subject}_{}_{}", self.event_type, self.timestamp_ms)
    }

    /// The body as Ring would send it.
    pub fn body(&self) -> Vec<u8> {
        let sent_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.sent_at_ms) * 1_000_000)
            .ok()
            .and_then(|date| date.format(&Rfc3339).ok());
        let account = self.is_about_account();
        let mut event = json!({
            "meta": {
                "version": "1.1", "time": sent_at, "request_id": self.request_id, "account_id": self.account_id,
            },
            "data": {
                "id": self.event_id(),
                "type": self.event_type,
                "attributes": {
                    "source": if account { self.account_id } else { self.device_id },
                    "source_type": if account { "users" } else { "devices" },
                    "timestamp": self.timestamp_ms,
                },
            },
        });
        if !account {
            let link = format!("/v1/devices/{}", self.device_id);
            event["data"]["relationships"] = json!({ "devices": { "links": { "self": link } } });
        }
        event.to_string().into_bytes()
    }

    fn is_about_account(&self) -> bool {
        self.event_type.starts_with("app_integration_")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::{EventType, RingEvent};

    #[test]
    fn a_made_event_reads_back_as_what_was_asked_for() {
        let sample = Sample {
            event_type: "device_online",
            device_id: "ava1.ring.device.A\"B",
            account_id: "acct",
            timestamp_ms: 1_771_025_567_000,
            sent_at_ms: 1_771_025_571_234,
            request_id: "r-1",
        };
        let event = RingEvent::parse(&sample.body()).unwrap();
        assert_eq!(event.event_type, EventType::DeviceOnline);
        assert_eq!(event.source.as_deref(), Some(sample.device_id));
        assert_eq!(event.event_id, sample.event_id());
        assert_eq!(event.timestamp_ms, Some(sample.timestamp_ms));
        assert_eq!(event.sent_at_ns, Some(1_771_025_571_234_000_000));
        assert_eq!(event.request_id.as_deref(), Some("r-1"));
        let account = Sample {
            event_type: "app_integration_removed",
            ..sample
        };
        assert_eq!(
            RingEvent::parse(&account.body()).unwrap().source.as_deref(),
            Some("acct")
        );
    }
}
