//! What is left of a journal after a kill at any moment and after a power cut at any byte.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cut;
mod kill;
mod many;

use std::path::Path;
use std::time::Duration;

use porchlight_event::queue::AckOutcome;
use porchlight_journal::{Journal, JournalConfig, Queue, Role, Source, SourceConfig};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn open(dir: &Path) -> Journal {
    Journal::open(JournalConfig::new(dir), Role::Daemon).unwrap()
}

/// Takes every event there is, in order, and acks it.
async fn drain(journal: &Journal) -> Vec<String> {
    let depth = Queue::new(journal)
        .depth(Instant::now() + PATIENCE)
        .await
        .unwrap();
    let count = usize::try_from(depth.ready.count).unwrap();
    let mut source = Source::start(journal, SourceConfig::default(), CancellationToken::new());
    let handle = source.handle();
    let mut seen = Vec::with_capacity(count);
    while seen.len() < count {
        let batch = timeout(PATIENCE, source.next_batch(512)).await.unwrap().unwrap();
        let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
        seen.extend(batch.deliveries.iter().map(|d| text(&d.envelope.body)));
        let last = batch.deliveries.last().unwrap().tag;
        assert_eq!(
            handle.ack_through(batch.incarnation, last).await,
            AckOutcome::Sent
        );
    }
    source.close().await;
    seen
}
