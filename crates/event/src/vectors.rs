//! Ring's signed samples: every one parses, and verifies with either of its keys.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::sample::SAMPLES;
use crate::{EventType, RingEvent, SigningKeys};

fn vectors() -> serde_json::Value {
    serde_json::from_str(include_str!("../fixtures/vectors.json")).unwrap()
}

#[test]
fn every_sample_verifies_with_both_keys_and_with_no_other() {
    let vectors = vectors();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let keys = SigningKeys::parse_list(&format!(
        "now={},before={}",
        text(&vectors["key"]),
        text(&vectors["previous_key"])
    ))
    .unwrap();
    let other = SigningKeys::parse_list("other=whsec-porch-2f9c1e").unwrap();
    let rows = vectors["vectors"].as_array().unwrap();
    assert_eq!(rows.len(), SAMPLES.len());
    for row in rows {
        let body = SAMPLES
            .iter()
            .find(|sample| sample.0 == row["file"])
            .unwrap()
            .1
            .as_bytes();
        let current = text(&row["x_signature"]);
        let previous = text(&row["x_signature_previous_key"]);
        assert_eq!(
            keys.verify(current.as_bytes(), body),
            Ok("now"),
            "{}",
            row["file"]
        );
        assert_eq!(
            keys.verify(previous.as_bytes(), body),
            Ok("before"),
            "{}",
            row["file"]
        );
        assert!(other.verify(current.as_bytes(), body).is_err());
        assert_eq!(keys.iter().next().unwrap().sign(body), current);
    }
}

#[test]
fn every_sample_is_an_event_of_its_file_name() {
    for (file, body) in SAMPLES {
        let event = RingEvent::parse(body.as_bytes()).unwrap();
        assert_eq!(format!("{}.json", event.event_type.as_str()), file);
        assert!(event.request_id.is_some() && event.sent_at_ns.is_some() && event.source.is_some());
        let about_devices = matches!(
            event.event_type,
            EventType::SubscriptionActivated | EventType::SubscriptionDeactivated
        );
        assert_eq!(
            event.related_devices.len(),
            if about_devices { 2 } else { 0 },
            "{file}"
        );
        assert_eq!(event.timestamp_ms.is_none(), about_devices, "{file}");
    }
}
