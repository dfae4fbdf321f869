//! Marks: the sets that hold them, and what that costs.

use crate::support::{Event, PATIENCE, store, store_on};
use porchlight_device::{News, Outcome};
use porchlight_testbed::redis::Reply;
use porchlight_testbed::{Redis, wait_for};

const HOUR: i64 = 60 * 60 * 1000;
const GENERATION: i64 = 96 * HOUR;
/// Events of the memory measurement, unless `PORCHLIGHT_TEST_MARKS` says otherwise.
const MEASURED: usize = 60_000;

fn lua(redis: &Redis, script: &str) -> Vec<Reply> {
    match redis.command(&["EVAL", script, "0"]).unwrap() {
        Reply::List(replies) => replies,
        other => panic!("{other:?}"),
    }
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

#[tokio::test]
async fn every_mark_is_found_while_the_sets_multiply_and_each_set_stays_compact_and_expires() {
    let (redis, store) = store().await;
    let now = 1_000 * GENERATION + 7;
    let events: Vec<News> = (0..4000).map(|at| with_request(at, &format!("r-{at}"))).collect();
    for some in events.chunks(64) {
        assert!(
            store
                .apply_batch(0, some, now)
                .await
                .iter()
                .all(|result| result.is_ok())
        );
    }
    // One that has never seen the shape, and one generation on.
    for (store, now) in [(store_on(&redis), now), (store, now + GENERATION)] {
        for some in events.chunks(64) {
            for result in store.apply_batch(0, some, now).await {
                assert_eq!(result.unwrap().outcome, Outcome::Duplicate);
            }
        }
    }
    let sets = lua(
        &redis,
        "local found = {}
         for _, key in ipairs(redis.call('KEYS', '*:dd:*')) do
           local form = redis.call('OBJECT', 'ENCODING', key)
           found[#found + 1] = { form, redis.call('SCARD', key), redis.call('TTL', key) }
         end
         return found",
    );
    assert!(sets.len() > 1 + 4, "{}", sets.len());
    for set in sets {
        let Reply::List(set) = set else { panic!("{set:?}") };
        assert!(
            matches!(&set[0], Reply::Bytes(form) if form == b"intset"),
            "{set:?}"
        );
        assert!(matches!(set[1], Reply::Number(1..=512)), "{set:?}");
        assert!(matches!(set[2], Reply::Number(691_000..=698_400)), "{set:?}");
    }
}

#[tokio::test]
async fn a_remembered_event_costs_few_bytes() {
    let (redis, store) = store().await;
    let wanted = std::env::var("PORCHLIGHT_TEST_MARKS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(MEASURED);
    let used = || {
        let Reply::Bytes(text) = redis.command(&["INFO", "memory"]).unwrap() else {
            panic!("no text")
        };
        let text = String::from_utf8(text).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("used_memory:"))
            .unwrap()
            .to_owned();
        line.parse::<f64>().unwrap()
    };
    store.probe(0).await.unwrap();
    let before = used();
    let mut taken = 0;
    while taken < wanted {
        let event = |n: usize| {
            let (device_id, request_id) = (format!("subject-{}", n % 5000), format!("r-{n}"));
            let at = i64::try_from(n).unwrap();
            let (event_type, request_id) = ("something_new", Some(request_id.as_str()));
            Event {
                event_type,
                device_id: &device_id,
                account_id: None,
                at,
                request_id,
            }
            .news()
        };
        let some: Vec<News> = (taken..taken + 200).map(event).collect();
        assert!(
            store
                .apply_batch(0, &some, 0)
                .await
                .iter()
                .all(|result| result.is_ok())
        );
        taken += some.len();
    }
    let events: f64 = u32::try_from(taken).unwrap().into();
    // Some of it is let go of later, above all what a slow disk has not yet taken of the log.
    let bytes = wait_for("few bytes for each event", PATIENCE, async || {
        let bytes = (used() - before) / events;
        let told = format!("{bytes:.1} bytes for each of {events} events");
        (bytes < 24.0).then_some(bytes).ok_or(told)
    })
    .await
    .unwrap();
    #[expect(clippy::print_stdout, reason = "the long form is run to read this number")]
    {
        println!("{bytes:.1} bytes for each of {events} events");
    }
}
