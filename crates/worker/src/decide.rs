//! What becomes of one delivery, decided from its bytes alone.
//!
//! It sends, stores and logs nothing; [`crate::settle`] does what is decided here.

use std::panic::{AssertUnwindSafe, catch_unwind};

use porchlight_device::News;
use porchlight_event::queue::RetryTier;
use porchlight_event::{Envelope, RingEvent, SigningKeys};

use crate::metrics::type_label;

/// Tries of an event from the future in the short tier, one minute each: a clock that is a little ahead.
const TRIES_SHORT: u32 = 2;
/// Tries in both tiers together. With ten minutes in the long tier an event waits 32 minutes in all; a clock that is
/// further ahead than that is wrong, and a person has to look.
const TRIES_MAX: u32 = 5;

/// What is to be done with one delivery before it may be acked.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Hand it to the ledger, which says whether it is applied, duplicate, stale, refused or recorded.
    Apply(Box<News>),
    /// Put a copy, with the attempt counted, into a retry queue.
    PutOff {
        /// Which one.
        tier: RetryTier,
        /// How often it was put off then, this time included.
        attempt: u32,
        /// The label of the event's type.
        kind: &'static str,
    },
    /// Put a copy into the dead letters.
    Bury(Death),
}

/// Why an event will never be applied as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// A short code from a closed set: a metric label and a header.
    pub reason: &'static str,
    /// Which step gave up.
    pub stage: Stage,
    /// One sentence for a person, with nothing of the body in it.
    pub detail: String,
    /// The label of the event's type; `none` where it did not get so far.
    pub kind: &'static str,
    /// The event's id, where it got so far.
    pub event_id: Option<String>,
}

/// The steps of the way through the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Verifying the signature again.
    Verify,
    /// Reading the body as an event.
    Parse,
    /// Making news of the event: whom it concerns.
    News,
    /// Waiting for its time to come.
    Later,
    /// Applying it to the ledger.
    Apply,
}

impl Death {
    pub(crate) fn new(reason: &'static str, stage: Stage, detail: impl Into<String>) -> Self {
        Self {
            reason,
            stage,
            detail: detail.into(),
            kind: "none",
            event_id: None,
        }
    }

    pub(crate) fn of(self, event_type: &str, event_id: String) -> Self {
        Self {
            kind: type_label(event_type),
            event_id: Some(event_id),
            ..self
        }
    }
}

impl Stage {
    /// The code in the header.
    pub fn code(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Parse => "parse",
            Self::News => "news",
            Self::Later => "later",
            Self::Apply => "apply",
        }
    }
}

/// Decides about one delivery at `now_ms`, which also stands in for a missing time of receipt.
///
/// The policy, in this order:
///
/// 1. Keys are given and the stored signature matches none: dead, `bad_signature`.
/// 2. The body is no event, or is about a device or account and names none: dead, with the parser's code. No number
///    of tries would change it.
/// 3. It claims to happen more than five minutes from now: put off, and after five tries dead, `future`.
/// 4. Everything else belongs to the ledger.
///
/// A panic on the way, which would be a mistake of ours that this event brings to light, counts as the second case,
/// with the code `panic`: the event waits among the dead letters for the mistake to be repaired. Unwinding further
/// would end the worker and charge every event it holds with a delivery, again and again.
pub fn decide(envelope: &Envelope, keys: Option<&SigningKeys>, now_ms: i64) -> Decision {
    guarded(|| examine(envelope, keys, now_ms))
}

fn guarded(examine: impl FnOnce() -> Decision) -> Decision {
    // Nothing mutable crosses the boundary, so nothing can be left half-changed.
    catch_unwind(AssertUnwindSafe(examine)).unwrap_or_else(|_| {
        bury(
            "panic",
            Stage::Parse,
            "reading the event failed in a way that is a mistake of the program".to_owned(),
        )
    })
}

fn examine(envelope: &Envelope, keys: Option<&SigningKeys>, now_ms: i64) -> Decision {
    if let Some(keys) = keys
        && let Some(detail) = distrust(envelope, keys)
    {
        return bury("bad_signature", Stage::Verify, detail.to_owned());
    }
    let event = match RingEvent::parse(&envelope.body) {
        Ok(event) => event,
        Err(error) => return bury(error.code(), Stage::Parse, error.to_string()),
    };
    let news = match News::new(&event, envelope.received_at_ms.unwrap_or(now_ms)) {
        Ok(news) => news,
        Err(error) => {
            let death = Death::new(error.code(), Stage::News, error.to_string());
            return Decision::Bury(death.of(event.event_type.as_str(), event.event_id));
        }
    };
    if news.is_from_the_future(now_ms) {
        return put_off(envelope.attempt, now_ms, news);
    }
    Decision::Apply(Box::new(news))
}

fn distrust(envelope: &Envelope, keys: &SigningKeys) -> Option<&'static str> {
    match &envelope.signature {
        None => Some("it carries no signature, and this worker was given keys to verify with"),
        Some(signature) if keys.verify(signature.as_bytes(), &envelope.body).is_err() => {
            Some("its signature matches none of this worker's keys")
        }
        Some(_) => None,
    }
}

fn put_off(attempts: u32, now_ms: i64, news: News) -> Decision {
    let kind = type_label(&news.event_type);
    match attempts.saturating_add(1) {
        attempt @ ..=TRIES_SHORT => Decision::PutOff {
            tier: RetryTier::OneMinute,
            attempt,
            kind,
        },
        attempt @ ..=TRIES_MAX => Decision::PutOff {
            tier: RetryTier::TenMinutes,
            attempt,
            kind,
        },
        _ => {
            let ahead_s = news.timestamp_ms.saturating_sub(now_ms) / 1000;
            let detail = format!("after {attempts} tries it is still {ahead_s} s in the future");
            Decision::Bury(Death::new("future", Stage::Later, detail).of(&news.event_type, news.event_id))
        }
    }
}

fn bury(reason: &'static str, stage: Stage, detail: String) -> Decision {
    Decision::Bury(Death::new(reason, stage, detail))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use bytes::Bytes;
    use porchlight_event::sample::{SAMPLES, Sample};

    const NOW_MS: i64 = 1_771_025_567_000;

    fn online_at(timestamp_ms: i64, attempt: u32) -> Envelope {
        let body = Sample {
            event_type: "device_online",
            device_id: "d",
            account_id: "a",
            timestamp_ms,
            sent_at_ms: NOW_MS,
            request_id: "r",
        };
        Envelope {
            attempt,
            ..Envelope::bare(Bytes::from(body.body()))
        }
    }

    fn death(body: &[u8]) -> (&'static str, &'static str) {
        match decide(&Envelope::bare(Bytes::copy_from_slice(body)), None, NOW_MS) {
            Decision::Bury(death) => (death.reason, death.stage.code()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_documented_event_goes_to_the_ledger() {
        for (file, body) in SAMPLES {
            let decision = decide(
                &Envelope::bare(Bytes::from_static(body.as_bytes())),
                None,
                i64::MAX / 2,
            );
            assert!(matches!(decision, Decision::Apply(_)), "{file}: {decision:?}");
        }
    }

    #[test]
    fn what_is_no_event_is_buried_with_step_and_reason() {
        assert_eq!(death(b""), ("not_json", "parse"));
        assert_eq!(death(b"[]"), ("wrong_shape", "parse"));
        assert_eq!(death(br#"{"data":{"id":"e"}}"#), ("no_type", "parse"));
        assert_eq!(death(br#"{"data":{"type":"t"}}"#), ("no_id", "parse"));
        assert_eq!(
            death(br#"{"data":{"type":"device_online","id":"e"}}"#),
            ("no_device", "news")
        );
        assert_eq!(
            death(br#"{"data":{"type":"app_integration_removed","id":"e"}}"#),
            ("no_account", "news")
        );
    }

    #[test]
    fn the_future_is_put_off_twice_a_minute_then_three_times_ten_and_then_buried() {
        let ahead = NOW_MS + 300_001;
        let tries: Vec<_> = (0..6)
            .map(|attempt| match decide(&online_at(ahead, attempt), None, NOW_MS) {
                Decision::PutOff { tier, attempt, .. } => (Some(tier), attempt),
                Decision::Bury(death) => (None, u32::from(death.reason != "future")),
                Decision::Apply(_) => (None, 2),
            })
            .collect();
        assert_eq!(
            tries,
            [
                (Some(RetryTier::OneMinute), 1),
                (Some(RetryTier::OneMinute), 2),
                (Some(RetryTier::TenMinutes), 3),
                (Some(RetryTier::TenMinutes), 4),
                (Some(RetryTier::TenMinutes), 5),
                (None, 0)
            ]
        );
        assert!(matches!(
            decide(&online_at(ahead, u32::MAX), None, NOW_MS),
            Decision::Bury(_)
        ));
        assert!(matches!(
            decide(&online_at(ahead, 3), None, NOW_MS + 1),
            Decision::Apply(_)
        ));
    }

    #[test]
    fn keys_make_an_unsigned_or_foreign_event_dead() {
        let keys = SigningKeys::parse_list("a=one,b=two").unwrap();
        let reason = |signature: Option<String>| {
            let envelope = Envelope {
                signature,
                ..online_at(NOW_MS, 0)
            };
            match decide(&envelope, Some(&keys), NOW_MS) {
                Decision::Bury(death) => death.reason,
                _ => "kept",
            }
        };
        let body = online_at(NOW_MS, 0).body;
        let by = |name: usize| keys.iter().nth(name).unwrap().sign(&body);
        assert_eq!((reason(Some(by(0))), reason(Some(by(1)))), ("kept", "kept"));
        assert_eq!(reason(None), "bad_signature");
        assert_eq!(reason(Some("sha256=00".to_owned())), "bad_signature");
        let foreign = SigningKeys::parse_list("c=three")
            .unwrap()
            .iter()
            .next()
            .unwrap()
            .sign(&body);
        assert_eq!(reason(Some(foreign)), "bad_signature");
    }

    #[test]
    fn a_mistake_of_ours_buries_the_event_that_brought_it_to_light() {
        let Decision::Bury(death) = guarded(|| panic!("quotes topsecret")) else {
            panic!("not buried")
        };
        assert_eq!((death.reason, death.stage.code()), ("panic", "parse"));
        assert!(!format!("{death:?}").contains("topsecret"));
    }

    #[test]
    fn details_show_nothing_of_the_body() {
        for body in ["topsecret", r#"{"data":"topsecret"}"#] {
            let decision = decide(&Envelope::bare(Bytes::from(body)), None, NOW_MS);
            assert!(!format!("{decision:?}").contains("topsecret"));
        }
    }
}
