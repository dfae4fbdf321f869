//! Queue and source together, and what a crash leaves of them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use porchlight_event::Envelope;
use porchlight_event::queue::{AckOutcome, Batch, DeathNote, Origin, QueueState, RetryTier};
use porchlight_testbed::wait_for;
use tempfile::TempDir;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    Command, Depth, Journal, JournalConfig, JournalError, Limits, Queue, Role, Source, SourceConfig,
};

const LONG: Duration = Duration::from_secs(60);

fn config(dir: &Path) -> JournalConfig {
    JournalConfig {
        retry_1m: Duration::from_millis(50),
        retry_10m: Duration::from_millis(200),
        ..JournalConfig::new(dir)
    }
}

/// What a kill would leave of it, since every commit is on the disk: a copy, made while it is still open. The log comes
/// first, so that a checkpoint in between can only make the file newer than the log.
fn crashed(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["porchlight.db-wal", "porchlight.db"] {
        std::fs::copy(dir.join(name), copy.path().join(name)).unwrap();
    }
    copy
}

/// Whoever had it before may still be letting go of it.
async fn open(dir: &Path) -> Journal {
    wait_for("the directory to be free", LONG, async || {
        Journal::open(config(dir), Role::Daemon).map_err(|error| error.to_string())
    })
    .await
    .unwrap()
}

fn source(journal: &Journal) -> Source {
    Source::start(journal, SourceConfig::default(), CancellationToken::new())
}

fn limits() -> Limits {
    Limits::within(LONG)
}

fn event(number: usize) -> Envelope {
    Envelope::bare(Bytes::from(format!("event {number}")))
}

async fn fill(queue: &Queue, numbers: std::ops::Range<usize>) {
    for number in numbers {
        queue.accept(&event(number), limits()).await.unwrap();
    }
}

async fn next(source: &mut Source, count_max: usize) -> Batch {
    timeout(LONG, source.next_batch(count_max))
        .await
        .unwrap()
        .unwrap()
}

/// Takes until so many are in hand.
async fn take(source: &mut Source, count: usize) -> Batch {
    let mut all = next(source, count).await;
    while all.deliveries.len() < count {
        let more = next(source, count - all.deliveries.len()).await;
        assert_eq!(more.incarnation, all.incarnation);
        all.deliveries.extend(more.deliveries);
    }
    all
}

fn bodies(batch: &Batch) -> Vec<String> {
    let text = |body: &Bytes| String::from_utf8(body.to_vec()).unwrap();
    batch.deliveries.iter().map(|d| text(&d.envelope.body)).collect()
}

fn names(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers
        .into_iter()
        .map(|number| format!("event {number}"))
        .collect()
}

async fn depth(queue: &Queue) -> Depth {
    queue.depth(Instant::now() + LONG).await.unwrap()
}

const NOTE: DeathNote<'static> = DeathNote {
    reason: "not_json",
    stage: "parse",
    detail: "it is no JSON",
    at_ms: 5,
};

#[tokio::test]
async fn events_come_in_order_and_are_gone_when_acked() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    let queue = Queue::new(&journal);
    fill(&queue, 0..10).await;
    let mut source = source(&journal);
    let batch = take(&mut source, 10).await;
    assert_eq!(bodies(&batch), names(0..10));
    let seen = depth(&queue).await;
    assert_eq!(
        (seen.ready.count, seen.in_hand.count, seen.in_hand.bytes),
        (0, 10, 70)
    );
    let handle = source.handle();
    let acked = handle
        .ack_through(batch.incarnation, batch.deliveries[3].tag)
        .await;
    assert_eq!(acked, AckOutcome::Sent);
    assert_eq!(depth(&queue).await.in_hand.count, 6);
    drop(source);
    let mut again = self::source(&journal);
    let batch = take(&mut again, 6).await;
    assert_eq!(bodies(&batch), names(4..10));
    let last = batch.deliveries[5].tag;
    assert_eq!(
        again.handle().ack_through(batch.incarnation, last + 99).await,
        AckOutcome::Sent
    );
    fill(&queue, 10..11).await;
    assert_eq!(bodies(&next(&mut again, 5).await), names(10..11));
    again.close().await;
    assert_eq!(depth(&queue).await.ready.count, 1);
}

#[tokio::test]
async fn what_was_abandoned_comes_again_and_cannot_be_acked_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    let queue = Queue::new(&journal);
    fill(&queue, 0..5).await;
    let mut source = source(&journal);
    let first = take(&mut source, 5).await;
    let handle = source.handle();
    handle.abandon(first.incarnation);
    assert!(!handle.is_live(first.incarnation));
    timeout(LONG, handle.ended(first.incarnation)).await.unwrap();
    let stale = handle
        .ack_through(first.incarnation, first.deliveries[4].tag)
        .await;
    assert_eq!(stale, AckOutcome::Stale);
    let second = take(&mut source, 5).await;
    assert!(second.incarnation > first.incarnation);
    assert_eq!(bodies(&second), names(0..5));
    assert!(
        second
            .deliveries
            .iter()
            .all(|d| d.redelivered && d.delivery_count == 1)
    );
    assert_eq!(
        handle
            .ack_through(second.incarnation, second.deliveries[4].tag)
            .await,
        AckOutcome::Sent
    );
    assert_eq!(depth(&queue).await, Depth::default());
}

#[tokio::test]
async fn a_paused_source_holds_nothing_until_it_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    let queue = Queue::new(&journal);
    let paused = SourceConfig {
        begin_paused: true,
        ..SourceConfig::default()
    };
    let mut source = Source::start(&journal, paused, CancellationToken::new());
    fill(&queue, 0..3).await;
    assert_eq!(*source.state().borrow(), QueueState::Paused);
    let handle = source.handle();
    handle.resume();
    let batch = take(&mut source, 3).await;
    handle.pause();
    assert!(!handle.is_live(batch.incarnation));
    let mut state = source.state();
    timeout(LONG, state.wait_for(|s| *s == QueueState::Paused))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        handle
            .ack_through(batch.incarnation, batch.deliveries[0].tag)
            .await,
        AckOutcome::Stale
    );
    handle.resume();
    assert_eq!(bodies(&take(&mut source, 3).await), names(0..3));
}

#[tokio::test]
async fn after_a_stop_what_was_taken_is_yielded_and_acked_and_nothing_more_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    let queue = Queue::new(&journal);
    fill(&queue, 0..4).await;
    let stop = CancellationToken::new();
    let mut source = Source::start(&journal, SourceConfig::default(), stop.clone());
    let first = take(&mut source, 1).await;
    stop.cancel();
    fill(&queue, 4..6).await;
    let mut last = first.deliveries[0].tag;
    let mut yielded = 1;
    while let Some(batch) = timeout(LONG, source.next_batch(2)).await.unwrap() {
        yielded += batch.deliveries.len();
        last = batch.deliveries.last().unwrap().tag;
    }
    assert!(yielded <= 6, "{yielded}");
    assert_eq!(
        source.handle().ack_through(first.incarnation, last).await,
        AckOutcome::Sent
    );
    source.close().await;
    assert_eq!(depth(&queue).await.ready.count, 6 - yielded as u64);
}

#[tokio::test]
async fn no_more_is_in_hand_than_the_prefetch_allows() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    let queue = Queue::new(&journal);
    fill(&queue, 0..50).await;
    let small = SourceConfig {
        prefetch: 16,
        ..SourceConfig::default()
    };
    let mut source = Source::start(&journal, small, CancellationToken::new());
    let handle = source.handle();
    let mut seen = Vec::new();
    while seen.len() < 50 {
        let batch = next(&mut source, 7).await;
        let held = depth(&queue).await.in_hand.count;
        assert!(held <= 16, "{held}");
        seen.extend(bodies(&batch));
        let last = batch.deliveries.last().unwrap().tag;
        assert_eq!(
            handle.ack_through(batch.incarnation, last).await,
            AckOutcome::Sent
        );
    }
    assert_eq!(seen, names(0..50));
}

#[tokio::test]
async fn a_crash_charges_what_was_in_hand_and_few_are_taken_at_once_until_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    let queue = Queue::new(&journal);
    fill(&queue, 0..30).await;
    let small = SourceConfig {
        prefetch: 20,
        ..SourceConfig::default()
    };
    let mut first = Source::start(&journal, small, CancellationToken::new());
    take(&mut first, 20).await;
    let dir = crashed(dir.path());
    let journal = open(dir.path()).await;
    assert!(!journal.ended_cleanly());
    let queue = Queue::new(&journal);
    let mut second = Source::start(&journal, small, CancellationToken::new());
    let batch = take(&mut second, 8).await;
    assert!(
        batch
            .deliveries
            .iter()
            .all(|d| d.redelivered && d.delivery_count == 1)
    );
    assert_eq!(depth(&queue).await.in_hand.count, 8);
    let handle = second.handle();
    let mut counts = vec![1; 8];
    let mut last = batch.deliveries[7].tag;
    while counts.len() < 30 {
        assert_eq!(
            handle.ack_through(batch.incarnation, last).await,
            AckOutcome::Sent
        );
        let more = next(&mut second, 99).await;
        counts.extend(more.deliveries.iter().map(|d| d.delivery_count));
        last = more.deliveries.last().unwrap().tag;
    }
    assert_eq!(counts, [vec![1; 20], vec![0; 10]].concat());
}

#[tokio::test]
async fn a_clean_end_charges_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    let queue = Queue::new(&journal);
    fill(&queue, 0..3).await;
    let mut first = source(&journal);
    take(&mut first, 3).await;
    first.close().await;
    journal.close(LONG).await;
    let journal = open(dir.path()).await;
    let mut second = source(&journal);
    assert!(
        take(&mut second, 3)
            .await
            .deliveries
            .iter()
            .all(|d| d.delivery_count == 0)
    );
}

#[tokio::test]
async fn an_event_that_ends_the_process_again_and_again_becomes_a_dead_letter() {
    let mut dir = tempfile::tempdir().unwrap();
    for crashes in 0..21 {
        let journal = open(dir.path()).await;
        let queue = Queue::new(&journal);
        if crashes == 0 {
            fill(&queue, 0..2).await;
        }
        assert_eq!(depth(&queue).await.dead.count, 0);
        let mut source = source(&journal);
        let batch = take(&mut source, 2).await;
        assert_eq!(batch.deliveries[0].delivery_count, crashes);
        dir = crashed(dir.path());
    }
    let journal = open(dir.path()).await;
    let queue = Queue::new(&journal);
    let seen = depth(&queue).await;
    assert_eq!((seen.ready.count, seen.dead.count, seen.dead.bytes), (0, 2, 14));
    let page = queue.letters(0, 10, Instant::now() + LONG).await.unwrap();
    let letter = &page.letters[0].letter;
    assert_eq!(
        (
            letter.reason.as_str(),
            letter.origin,
            letter.stage.as_deref(),
            letter.deaths.len()
        ),
        ("delivery_limit", Origin::Event, None, 1)
    );
}

#[tokio::test]
async fn where_nobody_looks_into_events_a_crash_charges_nothing() {
    let mut dir = tempfile::tempdir().unwrap();
    for crashes in 0..30 {
        let config = JournalConfig {
            returns_max: None,
            ..config(dir.path())
        };
        let journal = Journal::open(config, Role::Daemon).unwrap();
        let queue = Queue::new(&journal);
        if crashes == 0 {
            fill(&queue, 0..2).await;
        }
        let mut source = source(&journal);
        let batch = take(&mut source, 2).await;
        assert_eq!(batch.deliveries[0].delivery_count, 0);
        assert_eq!(depth(&queue).await.dead.count, 0);
        dir = crashed(dir.path());
    }
}

#[tokio::test]
async fn what_is_put_off_comes_back_after_its_time_behind_the_others() {
    let dir = tempfile::tempdir().unwrap();
    // Far enough apart that the one that is put off first comes last, however long a commit takes.
    let config = JournalConfig {
        retry_10m: Duration::from_secs(4),
        ..config(dir.path())
    };
    let journal = Journal::open(config, Role::Daemon).unwrap();
    let queue = Queue::new(&journal);
    queue
        .put_off(&event(7), RetryTier::TenMinutes, limits())
        .await
        .unwrap();
    queue
        .put_off(&event(6), RetryTier::OneMinute, limits())
        .await
        .unwrap();
    fill(&queue, 0..1).await;
    let seen = depth(&queue).await;
    assert_eq!(
        (seen.ready.count, seen.put_off.count, seen.put_off.bytes),
        (1, 2, 14)
    );
    assert!(seen.put_off.oldest_at_ms.is_some());
    let mut source = source(&journal);
    assert_eq!(bodies(&take(&mut source, 3).await), names([0, 6, 7]));
    assert_eq!(depth(&queue).await.put_off.count, 0);
}

#[tokio::test]
async fn what_another_process_puts_in_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    let mut source = source(&journal);
    let tool = Journal::open(config(dir.path()), Role::Tool).unwrap();
    fill(&Queue::new(&tool), 0..2).await;
    assert_eq!(bodies(&take(&mut source, 2).await), names(0..2));
}

#[tokio::test]
async fn dead_letters_are_read_replayed_and_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    let queue = Queue::new(&journal);
    for number in 0..3 {
        queue.bury(&event(number), NOTE, limits()).await.unwrap();
    }
    let command = Command {
        id: "a command",
        key: "resume.clip",
        body: b"{}",
        traceparent: None,
    };
    queue.bury_command(command, NOTE, limits()).await.unwrap();
    let until = Instant::now() + LONG;
    let page = queue.letters(0, 2, until).await.unwrap();
    assert_eq!((page.letters.len(), page.total), (2, 4));
    let rest = queue.letters(page.letters[1].seq, 9, until).await.unwrap();
    let callback = &rest.letters[1];
    assert_eq!(
        (
            callback.letter.origin,
            callback.letter.routing_key.as_str(),
            callback.seq
        ),
        (Origin::Callback, "resume.clip", rest.last_seq)
    );
    let id = event(1).message_id;
    let named = queue.letters_named(&id[..12], 9, until).await.unwrap();
    assert_eq!(named.len(), 1);
    assert!(named[0].letter.envelope == event(1));
    assert!(!queue.replay_letter(callback.seq, until).await.unwrap());
    assert!(queue.replay_letter(named[0].seq, until).await.unwrap());
    assert!(!queue.replay_letter(named[0].seq, until).await.unwrap());
    assert!(queue.drop_letter(callback.seq, until).await.unwrap());
    assert!(!queue.drop_letter(callback.seq, until).await.unwrap());
    let seen = depth(&queue).await;
    assert_eq!(
        (seen.ready.count, seen.dead.count, seen.dead.oldest_at_ms),
        (1, 2, Some(5))
    );
    let mut source = source(&journal);
    let batch = next(&mut source, 9).await;
    let wanted = Envelope {
        replay: 1,
        ..event(1)
    };
    assert!(batch.deliveries[0].envelope == wanted);
}

#[tokio::test]
async fn a_journal_that_stops_gives_up_nobody_silently() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).await;
    let queue = Queue::new(&journal);
    journal.close(LONG).await;
    assert_eq!(
        queue.accept(&event(0), limits()).await,
        Err(JournalError::Stopping)
    );
    assert_eq!(*journal.state().borrow(), QueueState::Stopped);
}
