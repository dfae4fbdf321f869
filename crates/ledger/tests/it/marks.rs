//! Marks: how long a repeat is known.

use porchlight_device::{News, Outcome};

use crate::support::{Event, Place, apply, news};

const HOUR: i64 = 60 * 60 * 1000;
const GENERATION: i64 = 96 * HOUR;

for_both! {
    a_repeat_is_known_for_at_least_96_hours_whenever_the_event_came,
    workers_whose_clocks_differ_by_an_hour_know_each_others_marks_at_the_turn,
    every_mark_of_many_is_found_in_this_generation_and_the_next_and_gone_in_the_one_after,
}

fn with_request(at: i64, request_id: &str) -> News {
    let request_id = Some(request_id);
    Event {
        event_type: "motion_detected",
        device_id: "dev",
        account_id: None,
        at,
        request_id,
    }
    .news()
}

async fn a_repeat_is_known_for_at_least_96_hours_whenever_the_event_came(mut place: Place) {
    for into in [0, 1, HOUR, GENERATION / 2, GENERATION - HOUR, GENERATION - 1] {
        let ledger = place.emptied();
        let first = 1_000 * GENERATION + into;
        apply(&ledger, &with_request(1, "r"), first).await.unwrap();
        for after in [0, 1, HOUR, 48 * HOUR, 96 * HOUR - 1, 96 * HOUR] {
            for repeat in [
                with_request(1, "other"),
                with_request(2, "r"),
                with_request(1, "r"),
            ] {
                let outcome = apply(&ledger, &repeat, first + after).await.unwrap().outcome;
                assert_eq!(outcome, Outcome::Duplicate, "{into} {after}");
            }
        }
        let late = apply(&ledger, &with_request(1, "r"), first + 2 * GENERATION + HOUR)
            .await
            .unwrap();
        assert_eq!(late.outcome, Outcome::Recorded, "{into}");
    }
}

async fn workers_whose_clocks_differ_by_an_hour_know_each_others_marks_at_the_turn(place: Place) {
    let (ledger, other) = (place.ledger(), place.other());
    let turn = 500 * GENERATION;
    for (n, (mine, theirs)) in [(-1, HOUR - 1), (0, -HOUR), (HOUR / 2, -HOUR / 2)]
        .into_iter()
        .enumerate()
    {
        let event = news("motion_detected", &format!("dev-{n}"), 1);
        apply(&ledger, &event, turn + mine).await.unwrap();
        assert_eq!(
            apply(&other, &event, turn + theirs).await.unwrap().outcome,
            Outcome::Duplicate,
            "{n}"
        );
        let event = news("motion_detected", &format!("dev-{n}"), 2);
        apply(&other, &event, turn + theirs).await.unwrap();
        assert_eq!(
            apply(&ledger, &event, turn + mine).await.unwrap().outcome,
            Outcome::Duplicate,
            "{n}"
        );
    }
}

async fn every_mark_of_many_is_found_in_this_generation_and_the_next_and_gone_in_the_one_after(place: Place) {
    let ledger = place.ledger();
    let now = 1_000 * GENERATION + 7;
    let event = |n: i64| {
        let (device_id, request_id) = (format!("dev-{}", n % 300), format!("r-{n}"));
        let (event_type, device_id, request_id) =
            ("motion_detected", device_id.as_str(), Some(request_id.as_str()));
        Event {
            event_type,
            device_id,
            account_id: None,
            at: n,
            request_id,
        }
        .news()
    };
    let events: Vec<News> = (0..2000).map(event).collect();
    // The last but one round is new to a ledger that keeps marks for 96 to 192 hours, and so fills that generation.
    for (ledger, now, wanted) in [
        (&ledger, now, Outcome::Recorded),
        (&place.other(), now, Outcome::Duplicate),
        (&ledger, now + GENERATION, Outcome::Duplicate),
        (&ledger, now + 2 * GENERATION + 2 * HOUR, Outcome::Recorded),
        (&ledger, now + 3 * GENERATION, Outcome::Duplicate),
    ] {
        for some in events.chunks(64) {
            for result in ledger.apply_batch(0, some, now).await {
                assert_eq!(result.unwrap().outcome, wanted, "{now}");
            }
        }
    }
}
