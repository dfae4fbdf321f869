//! Dead letters: looking without taking, and replaying without losing.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use porchlight_event::Envelope;
use porchlight_event::queue::{DeadLetter, DeathNote, Origin};
use porchlight_event::replay::{
    Action, Fate, Owing, ReplayOptions, ReplaySummary, Settled, StopReason, Wish,
};
use porchlight_queue::CommandLetter;
use porchlight_queue::dead::Listed;
use tokio_util::sync::CancellationToken;

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
    mut wanted: impl FnMut(&DeadLetter) -> bool,
) -> (ReplaySummary, Vec<(String, Fate)>) {
    let stop = CancellationToken::new();
    let wish = |letter: &DeadLetter| if wanted(letter) { Wish::Take } else { Wish::Leave };
    work_through(bench, options, &stop, wish, |_| {}).await
}

async fn work_through(
    bench: &Bench,
    options: &ReplayOptions,
    stop: &CancellationToken,
    wish: impl FnMut(&DeadLetter) -> Wish,
    mut told: impl FnMut(&ReplaySummary),
) -> (ReplaySummary, Vec<(String, Fate)>) {
    let mut fates = Vec::new();
    let owe = async |letter: DeadLetter| match letter.envelope.message_id.as_str() {
        "owed" => Owing::Owed,
        "overtaken" => Owing::Overtaken,
        "unusable" => Owing::Unusable("no command".to_owned()),
        _ => Owing::Failed("the ledger is away".to_owned()),
    };
    let progress = |summary: &ReplaySummary, settled: Option<&Settled>| {
        told(summary);
        fates.extend(settled.map(|settled| (settled.message_id.clone(), settled.fate.clone())));
    };
    let worked = bench
        .letters
        .work_through(options, stop, || 42, wish, owe, progress);
    (worked.await.unwrap(), fates)
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
    for id in ["unusable", "owed", "overtaken"] {
        bury_command(&bench, id).await;
    }
    let wanted = |letter: &DeadLetter| {
        assert_eq!(letter.envelope.traceparent.as_deref(), Some(TRACE));
        true
    };
    let (summary, fates) = replay(&bench, &ReplayOptions::default(), wanted).await;
    assert_eq!(
        (summary.owed_again, summary.overtaken, summary.replayed),
        (1, 1, 0)
    );
    assert_eq!(
        (summary.unusable, &summary.stopped_by),
        (1, &None),
        "it stands in nobody's way"
    );
    bench.settle_at("porchlight.dead", 1).await;
    let unusable = Fate::Unusable("no command".to_owned());
    assert!(fates.contains(&("unusable".to_owned(), unusable)), "{fates:?}");

    bury_command(&bench, "failing").await;
    let (summary, failed) = replay(&bench, &ReplayOptions::default(), wanted).await;
    let fates: Vec<_> = fates.into_iter().chain(failed).collect();
    let why = StopReason::Owe("the ledger is away".to_owned());
    assert_eq!(summary.stopped_by, Some(why.clone()));
    let fate = |id: &str| fates.iter().find(|(known, _)| known == id).unwrap().1.clone();
    assert_eq!(fate("owed"), Fate::OwedAgain);
    assert_eq!(fate("overtaken"), Fate::Overtaken);
    assert_eq!(fate("failing"), Fate::Kept(why));
    bench.settle_at("porchlight.dead", 2).await;
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

pub(crate) async fn dropped(mut bench: Bench) {
    let texts: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    bury_all(&bench, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    bury_command(&bench, "a command").await;
    let options = ReplayOptions {
        action: Action::Drop,
        ..ReplayOptions::default()
    };
    let is_odd = |letter: &DeadLetter| !letter.envelope.body.ends_with(b"0");
    let (summary, fates) = replay(&bench, &options, is_odd).await;
    assert_eq!(
        (summary.ready, summary.seen, summary.dropped, summary.unwanted),
        (301, 301, 271, 30)
    );
    assert!(fates.len() == 271 && fates.iter().all(|(_, fate)| *fate == Fate::Dropped));
    bench.settle_at("porchlight.dead", 30).await;
    bench.settle_at("porchlight.events", 0).await;
    let (_, left) = letters(&bench, 100).await;
    assert!(left.iter().all(|letter| letter.envelope.body.ends_with(b"0")));
}

pub(crate) async fn stopped(mut bench: Bench) {
    let texts: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    bury_all(&bench, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let stop = CancellationToken::new();
    let told = |summary: &ReplaySummary| {
        if summary.seen == 150 {
            stop.cancel();
        }
    };
    let options = ReplayOptions::default();
    let (summary, fates) = work_through(&bench, &options, &stop, |_| Wish::Take, told).await;
    assert_eq!(summary.stopped_by, Some(StopReason::Signal));
    // What was under way is settled and told.
    assert!(
        (150..300).contains(&summary.seen) && summary.replayed == summary.seen,
        "{summary:?}"
    );
    assert_eq!(fates.len(), summary.replayed);
    bench
        .settle_at("porchlight.dead", 300 - summary.replayed as u64)
        .await;
    bench
        .settle_at("porchlight.events", summary.replayed as u64)
        .await;
    let again = CancellationToken::new();
    let (rest, _) = work_through(&bench, &options, &again, |_| Wish::Take, |_| {}).await;
    assert_eq!((rest.replayed, rest.stopped_by), (300 - summary.replayed, None));
    bench.settle_at("porchlight.dead", 0).await;
}

pub(crate) async fn enough(mut bench: Bench) {
    bury_all(&bench, &["a", "b", "c", "d", "e"]).await;
    let mut left = 2;
    let wish = |_: &DeadLetter| {
        left -= 1;
        if left >= 0 { Wish::Take } else { Wish::Enough }
    };
    let stop = CancellationToken::new();
    let (summary, _) = work_through(&bench, &ReplayOptions::default(), &stop, wish, |_| {}).await;
    assert_eq!((summary.seen, summary.replayed, summary.stopped_by), (2, 2, None));
    bench.settle_at("porchlight.dead", 3).await;
    let (_, left) = letters(&bench, 9).await;
    let bodies: Vec<_> = left.iter().map(|letter| letter.envelope.body.clone()).collect();
    assert_eq!(bodies, ["c", "d", "e"]);
}

pub(crate) async fn known(bench: Bench) {
    bury_all(&bench, &["a", "b"]).await;
    let known = bench.letters.known().await.unwrap();
    let (_, letters) = letters(&bench, 9).await;
    assert!(letters.iter().all(|letter| known.has(letter)));
    let later = DeadLetter {
        dead_at_ms: Some(1),
        ..letters[0].clone()
    };
    assert!(!known.has(&later) && known.held_max().is_none());
}
