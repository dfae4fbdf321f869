//! Many events waiting: what must stay cheap however much there is.
//!
//! `PORCHLIGHT_JOURNAL_EVENTS` is how many; with a million it takes a minute and a gigabyte.

use std::time::Duration;

use bytes::Bytes;
use porchlight_event::Envelope;
use porchlight_journal::{Journal, JournalConfig, Limits, Queue, Role, Source, SourceConfig};
use porchlight_testbed::wait_for;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::PATIENCE;

const WRITERS: u64 = 256;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_many_events_the_depth_and_the_first_batch_come_at_once() {
    let wanted: u64 = std::env::var("PORCHLIGHT_JOURNAL_EVENTS").map_or(25_600, |text| text.parse().unwrap());
    let each = wanted.div_ceil(WRITERS);
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig {
        bytes_max: 8 << 30,
        ..JournalConfig::new(dir.path())
    };
    let journal = Journal::open(config.clone(), Role::Daemon).unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let queue = Queue::new(&journal);
        writers.spawn(async move {
            for number in 0..each {
                let envelope = Envelope::bare(Bytes::from(format!("{writer} {number} {}", "x".repeat(400))));
                queue.accept(&envelope, Limits::within(PATIENCE)).await.unwrap();
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    // Once is enough: what is slow by itself is slow each time, and a busy machine is not.
    let queue = Queue::new(&journal);
    wait_for("the depth at once", PATIENCE, async || {
        let began = Instant::now();
        let depth = queue.depth(began + PATIENCE).await.unwrap();
        assert_eq!(depth.ready.count, each * WRITERS);
        quick(began, Duration::from_millis(100))
    })
    .await
    .unwrap();
    wait_for("a first batch at once", PATIENCE, async || {
        let began = Instant::now();
        let mut source = Source::start(&journal, SourceConfig::default(), CancellationToken::new());
        let batch = timeout(PATIENCE, source.next_batch(64)).await.unwrap().unwrap();
        let came = quick(began, Duration::from_millis(500));
        assert!(batch.deliveries.len() > 1);
        source.close().await;
        came
    })
    .await
    .unwrap();
    journal.close(PATIENCE).await;
    let began = Instant::now();
    Journal::open(config, Role::Daemon).unwrap();
    let took = began.elapsed();
    assert!(took < PATIENCE, "opening took {took:?}");
}

fn quick(began: Instant, most: Duration) -> Result<(), String> {
    let took = began.elapsed();
    (took < most).then_some(()).ok_or_else(|| format!("{took:?}"))
}
