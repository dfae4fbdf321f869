//! Dead letters: looking without taking, and replaying without losing.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use porchlight_event::Envelope;
use porchlight_event::queue::{DeadLetter, DeathNote, Origin};
use porchlight_event::replay::{Fate, Owing, ReplayOptions, ReplaySummary, StopReason};
use porchlight_queue::CommandLetter;
use porchlight_queue::dead::Listed;

use crate::bench::{Bench, event, soon, take, texts};

pub(crate) const NOTE: DeathNote<'_> = DeathNote {
    reason: "not_json",
    stage: "parse",
    detail: "the body is not JSON",
    at_ms: 1_771_025_567_000,
};

async fn bury_all(bench: &Bench, texts: &[&str]) {
    for text in texts {
        bench.queue.bury(&event(text), NOTE, soon()).await.unwrap();
    }
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn bury_command(bench: &Bench, id: &str) {
    let letter = CommandLetter {
        id,
        action: "resume",
        kind: "clip",
        body: b"{\"id\":1}",
        traceparent: Some(TRACE),
    };
    bench.queue.bury_command(letter, NOTE, soon()).await.unwrap();
}

async fn letters(bench: &Bench, count_max: usize) -> (Listed, Vec<DeadLetter>) {
    let mut letters = Vec::new();
    let listed = bench.letters.list(count_max, |letter| {
        letters.push(letter);
        ControlFlow::Continue(())
    });
    (listed.await.unwrap(), letters)
}

async fn replay(
    bench: &Bench,
    options: &ReplayOptions,
    wanted: impl FnMut(&DeadLetter) -> bool,
) -> (ReplaySummary, Vec<(String, Fate)>) {
    let mut fates = Vec::new();
    let owe = async |letter: DeadLetter| match letter.envelope.message_id.as_str() {
        "owed" => Owing::Owed,
        "overtaken" => Owing::Overtaken,
        _ => Owing::Failed("the ledger is away".to_owned()),
    };
    let replayed = bench.letters.replay(
        options,
        || 42,
        wanted,
        owe,
        |_, settled| {
            fates.extend(settled.map(|settled| (settled.message_id.clone(), settled.fate.clone())));
        },
    );
    (replayed.await.unwrap(), fates)
}

pub(crate) async fn listed(mut bench: Bench) {
    let full = Envelope {
        received_at_ms: Some(7),
        key_name: Some("main".to_owned()),
        signature: Some("sha256=feed".to_owned()),
        content_type: Some("application/json".to_owned()),
        attempt: 4,
        ..event("first")
    };
    bench.queue.bury(&full, NOTE, soon()).await.unwrap();
    bury_all(&bench, &["second", "third"]).await;
    bench.settle_at("porchlight.dead", 3).await;
    for _ in 0..2 {
        let (listed, letters) = letters(&bench, 100).await;
        assert_eq!(listed, Listed { ready: 3, seen: 3 });
        let first = &letters[0];
        assert!(first.envelope == full, "{:?}", first.envelope);
        assert_eq!((first.origin, first.routing_key.as_str()), (Origin::Event, ""));
        let why = (
            first.reason.as_str(),
            first.stage.as_deref(),
            first.detail.as_deref(),
        );
        assert_eq!(why, (NOTE.reason, Some(NOTE.stage), Some(NOTE.detail)));
        assert_eq!((first.dead_at_ms, first.deaths.len()), (Some(NOTE.at_ms), 0));
        assert!(first.headers.iter().any(|(_, value)| value == "not_json"));
        assert!(first.headers.iter().all(|(_, value)| !value.contains("feed")));
        assert_eq!(letters[2].envelope.body, "third");
        bench.settle_at("porchlight.dead", 3).await;
    }
    assert_eq!(letters(&bench, 2).await.0, Listed { ready: 3, seen: 2 });
}

pub(crate) async fn commands(bench: Bench) {
    bury_command(&bench, "a command").await;
    let (_, letters) = letters(&bench, 9).await;
    let letter = &letters[0];
    assert_eq!(
        (letter.origin, letter.routing_key.as_str()),
        (Origin::Callback, "resume.clip")
    );
    assert_eq!(letter.envelope.message_id, "a command");
    assert_eq!(letter.envelope.body, "{\"id\":1}");
    assert_eq!(
        (letter.reason.as_str(), letter.dead_at_ms),
        (NOTE.reason, Some(NOTE.at_ms))
    );
}

pub(crate) async fn replayed(mut bench: Bench) {
    bury_all(&bench, &["a", "b", "c", "d"]).await;
    let wanted = |letter: &DeadLetter| letter.envelope.body != "b";
    let (summary, fates) = replay(&bench, &ReplayOptions::default(), wanted).await;
    assert_eq!(
        (summary.ready, summary.seen, summary.replayed, summary.unwanted),
        (4, 4, 3, 1)
    );
    assert_eq!(summary.stopped_by, None);
    assert!(
        fates.len() == 3 && fates.iter().all(|(_, fate)| *fate == Fate::Replayed),
        "{fates:?}"
    );
    bench.settle_at("porchlight.dead", 1).await;
    let mut source = bench.source();
    let batch = take(&mut source, 3).await;
    let mut back = texts(&batch);
    back.sort();
    assert_eq!(back, ["a", "c", "d"]);
    for delivery in &batch.deliveries {
        assert_eq!((delivery.envelope.replay, delivery.delivery_count), (1, 0));
        let id = event(std::str::from_utf8(&delivery.envelope.body).unwrap()).message_id;
        assert_eq!(delivery.envelope.message_id, id);
    }
}

pub(crate) async fn too_often(mut bench: Bench) {
    let often = Envelope {
        replay: 3,
        ..event("again")
    };
    bench.queue.bury(&often, NOTE, soon()).await.unwrap();
    let (summary, fates) = replay(&bench, &ReplayOptions::default(), |_| true).await;
    assert_eq!((summary.refused, summary.replayed), (1, 0));
    assert_eq!(fates, [(often.message_id.clone(), Fate::Refused)]);
    bench.settle_at("porchlight.dead", 1).await;
    let forced = ReplayOptions {
        force: true,
        ..ReplayOptions::default()
    };
    assert_eq!(replay(&bench, &forced, |_| true).await.0.replayed, 1);
    let mut source = bench.source();
    assert_eq!(take(&mut source, 1).await.deliveries[0].envelope.replay, 4);
}

pub(crate) async fn owed_again(mut bench: Bench) {
    for id in ["owed", "overtaken", "failing"] {
        bury_command(&bench, id).await;
    }
    let wanted = |letter: &DeadLetter| {
        assert_eq!(letter.envelope.traceparent.as_deref(), Some(TRACE));
        true
    };
    let (summary, fates) = replay(&bench, &ReplayOptions::default(), wanted).await;
    assert_eq!((summary.replayed, summary.overtaken), (1, 1));
    let why = "the ledger is away".to_owned();
    assert_eq!(summary.stopped_by, Some(StopReason::Owe(why.clone())));
    let fate = |id: &str| fates.iter().find(|(known, _)| known == id).unwrap().1.clone();
    assert_eq!(fate("owed"), Fate::Replayed);
    assert_eq!(fate("overtaken"), Fate::Overtaken);
    assert_eq!(fate("failing"), Fate::Kept(why));
    bench.settle_at("porchlight.dead", 1).await;
    bench.settle_at("porchlight.events", 0).await;
}

pub(crate) async fn slowly(mut bench: Bench) {
    bury_all(&bench, &["a", "b", "c", "d", "e"]).await;
    let options = ReplayOptions {
        per_second_max: Some(10),
        count_max: 4,
        ..ReplayOptions::default()
    };
    let began = Instant::now();
    let (summary, _) = replay(&bench, &options, |_| true).await;
    // The first goes at once.
    assert!(
        began.elapsed() >= Duration::from_millis(290),
        "{:?}",
        began.elapsed()
    );
    assert_eq!((summary.seen, summary.replayed), (4, 4));
    bench.settle_at("porchlight.dead", 1).await;
    bench.settle_at("porchlight.events", 4).await;
}
