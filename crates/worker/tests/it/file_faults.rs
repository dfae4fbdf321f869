//! A file that fails under the worker: events are held and none is lost, and all goes on by itself once it works again.

use std::time::Duration;

use bytes::Bytes;
use porchlight_device::Status;
use porchlight_event::Envelope;
use porchlight_event::queue::DeathNote;
use porchlight_queue::Deadlines;
use porchlight_worker::RunError;
use rusqlite::Connection;

use crate::harness::{Form, PATIENCE, Running, Setup, body, now_ms};
use crate::one_file::{OneFile, soon};

const EVENTS: usize = 300;
const SETTLED: &str = "porchlight_worker_events_total";

async fn publish(form: &OneFile) {
    let at = now_ms() - 60_000;
    let bodies = (0..EVENTS).map(|n| body("device_online", &format!("d{n}"), at));
    form.publish_all(bodies).await;
}

/// All events are settled once the file works again, and none is buried meanwhile.
async fn settled_after(form: &OneFile, worker: Running, repair: impl AsyncFnOnce()) {
    worker.readiness(503).await;
    assert_eq!(
        worker.call("GET", "/v1/devices", "").await.status,
        200,
        "reading still works"
    );
    repair().await;
    worker.wait_sum(SETTLED, EVENTS as f64).await;
    worker.ready().await;
    form.drained().await;
    let applied = format!("{SETTLED}{{type=\"device_online\",outcome=\"applied\"}}");
    assert_eq!(worker.sum(&applied).await, EVENTS as f64);
    assert_eq!(form.letters().await.unwrap().len(), 0);
    worker.stop().await.unwrap();
}

/// A worker whose file may not grow from its start on, filled by another process with a larger share, and events.
async fn full(form: &mut OneFile, setup: Setup) -> Running {
    form.pages_max = Some(1);
    let worker = form.start(setup);
    worker.ready().await;
    let large = Envelope::bare(Bytes::from(vec![b'x'; 4 << 20]));
    let note = DeathNote {
        reason: "filler",
        stage: "test",
        detail: "",
        at_ms: 1,
    };
    form.queue()
        .bury(&large, note, Deadlines::within(PATIENCE))
        .await
        .unwrap();
    publish(form).await;
    worker
}

async fn make_room(form: &OneFile) {
    let letters = form.journal_queue().letters(0, 10, soon()).await.unwrap().letters;
    let seq = letters.first().unwrap().seq;
    assert!(form.journal_queue().drop_letter(seq, soon()).await.unwrap());
}

#[tokio::test]
async fn a_full_disk_is_waited_for() {
    let mut form = OneFile::start().await;
    let worker = full(&mut form, Setup::default()).await;
    worker.wait_sum("porchlight_worker_held_tries_total", 3.0).await;
    let depth = form.depth().await.unwrap();
    // Some may have found room in pages that were there already.
    let settled = worker.sum(SETTLED).await;
    let left = (depth.ready.count + depth.in_hand.count) as f64;
    assert!(
        left > 0.0 && left + settled >= EVENTS as f64,
        "{settled} are settled: {depth:?}"
    );
    settled_after(&form, worker, async || make_room(&form).await).await;
}

#[tokio::test]
async fn a_stop_while_the_disk_is_full_gives_everything_back_and_says_so() {
    let mut form = OneFile::start().await;
    let mut setup = Setup::default();
    setup.work.stop_grace = Duration::from_secs(1);
    let worker = full(&mut form, setup).await;
    worker.wait_sum("porchlight_worker_held_tries_total", 1.0).await;
    let error = worker.stop().await.unwrap_err();
    let RunError::Grace { events, commands: 0 } = error else {
        panic!("{error}")
    };
    assert!((1..=EVENTS).contains(&events), "{events} were in hand");
    make_room(&form).await;
    form.pages_max = None;
    let next = form.worker().await;
    form.drained().await;
    let ledger = form.ledger();
    assert_eq!(ledger.counts().await.unwrap()[&Status::Online], EVENTS as u64);
    next.stop().await.unwrap();
}

#[tokio::test]
async fn a_locked_file_is_waited_for() {
    let form = OneFile::start().await;
    publish(&form).await;
    let worker = form.worker().await;
    let other = Connection::open(form.dir.path().join("porchlight.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let let_go = async || other.execute_batch("ROLLBACK").unwrap();
    settled_after(&form, worker, let_go).await;
}
