//! What a letter's bytes alone decide, and what is said while the ledger is away.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use porchlight_event::Envelope;
use porchlight_event::sample::Sample;
use porchlight_store::{Store, StoreConfig};

const NOW_MS: i64 = 1_771_025_567_000;

fn letter(origin: Origin, reason: &str, body: impl Into<Bytes>) -> DeadLetter {
    DeadLetter {
        envelope: Envelope::bare(body.into()),
        origin,
        routing_key: String::new(),
        reason: reason.to_owned(),
        stage: None,
        detail: None,
        dead_at_ms: None,
        deaths: Vec::new(),
        delivery_count: 0,
        headers: Vec::new(),
    }
}

fn online(at: i64) -> Vec<u8> {
    let sample = Sample {
        event_type: "device_online",
        device_id: "d",
        account_id: "a",
        timestamp_ms: at,
        sent_at_ms: at,
        request_id: "r",
    };
    sample.body()
}

/// The outcome and reason, or that it needs the ledger.
fn said(case: &Case) -> (&'static str, &str) {
    match case {
        Case::Settled(forecast) => (forecast.outcome.code(), &forecast.reason),
        Case::Event(_) => ("asks", "about an event"),
        Case::Command(_) => ("asks", "about a command"),
    }
}

#[test]
fn an_event_is_poison_again_put_off_or_a_question_for_the_ledger() {
    for (body, wanted) in [
        (online(NOW_MS), ("asks", "about an event")),
        (online(NOW_MS + 300_001), ("later", "future")),
        (b"{".to_vec(), ("poison", "not_json")),
        (
            br#"{"data":{"type":"device_online","id":"e"}}"#.to_vec(),
            ("poison", "no_device"),
        ),
    ] {
        for form in [Form::Scaled, Form::Standalone] {
            let case = case(&letter(Origin::Event, "x", body.clone()), form, None, NOW_MS);
            assert_eq!(said(&case), wanted);
        }
    }
    let mut often = letter(Origin::Event, "future", online(NOW_MS + 300_001));
    often.envelope.attempt = 5;
    assert_eq!(
        said(&case(&often, Form::Scaled, None, NOW_MS)),
        ("poison", "future")
    );
}

#[test]
fn a_signature_is_only_verified_where_a_worker_has_done_so() {
    let keys = SigningKeys::parse_list("ring=one").unwrap();
    let unsigned = |reason| letter(Origin::Event, reason, online(NOW_MS));
    let with = |letter: &DeadLetter, form, keys| {
        let case = case(letter, form, keys, NOW_MS);
        let (outcome, reason) = said(&case);
        format!("{outcome} {reason}")
    };
    let scaled = Form::Scaled;
    assert_eq!(
        with(&unsigned("no_device"), scaled, Some(&keys)),
        "asks about an event"
    );
    assert_eq!(
        with(&unsigned(BAD_SIGNATURE), scaled, None),
        "unknown keys_not_given"
    );
    assert_eq!(
        with(&unsigned(BAD_SIGNATURE), scaled, Some(&keys)),
        "poison bad_signature"
    );
    assert_eq!(
        with(&unsigned(BAD_SIGNATURE), Form::Standalone, Some(&keys)),
        "asks about an event"
    );
    let mut signed = unsigned(BAD_SIGNATURE);
    signed.envelope.signature = Some(keys.iter().next().unwrap().sign(&signed.envelope.body));
    assert_eq!(with(&signed, scaled, Some(&keys)), "asks about an event");
}

#[test]
fn a_command_goes_where_it_died_or_is_a_question_for_the_ledger() {
    let of = |origin, form| {
        let case = case(&letter(origin, "x", "{}"), form, None, NOW_MS);
        said(&case).0
    };
    assert_eq!(of(Origin::Command, Form::Scaled), "sent_again");
    // What is no command cannot be owed, and stays.
    assert_eq!(of(Origin::Command, Form::Standalone), "kept");
    assert_eq!(of(Origin::Callback, Form::Scaled), "kept");
}

#[tokio::test]
async fn without_the_ledger_only_what_the_bytes_decide_is_said_and_nobody_waits_twice() {
    let store = Store::connect(&StoreConfig::new("redis://127.0.0.1:1")).unwrap();
    let ledger = Ledger::Redis(store);
    let mut predictor = Predictor::new(&ledger, Form::Scaled, None);
    predictor.push(1, &letter(Origin::Event, "x", online(NOW_MS)));
    predictor.push(2, &letter(Origin::Event, "x", "{"));
    assert!(!predictor.is_full());
    let said: Vec<_> = predictor
        .flush()
        .await
        .into_iter()
        .map(|(under, forecast)| (under, forecast.outcome, forecast.reason))
        .collect();
    let wanted = [
        (1, Fortune::Unknown, "ledger_away".to_owned()),
        (2, Fortune::Poison, "not_json".to_owned()),
    ];
    assert_eq!(said, wanted);
    assert!(predictor.away.is_some());
    for under in 0..BATCH_LETTERS {
        predictor.push(under, &letter(Origin::Event, "x", online(NOW_MS)));
    }
    assert!(predictor.is_full());
    assert!(
        predictor
            .flush()
            .await
            .iter()
            .all(|(_, forecast)| forecast.outcome == Fortune::Unknown)
    );
}
