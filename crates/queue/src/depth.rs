//! How much waits, in the words that operators know, whichever queue it is.
//!
//! Nothing is taken and nothing is judged here.

use std::time::Duration;

use porchlight_broker as broker;
use porchlight_journal::{self as journal, JournalError};
use tokio::time::Instant;

/// For SQLite to answer.
const READ_MAX: Duration = Duration::from_secs(5);
/// The work, under RabbitMQ's name for it.
const EVENTS: &str = "porchlight.events";
/// What is put off, whatever its tier.
const RETRY: &str = "porchlight.retry";
/// Dead letters.
const DEAD: &str = "porchlight.dead";

/// One queue at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueDepth {
    /// The queue's name.
    pub queue: &'static str,
    /// What is known of it; `None` when there is no such queue.
    pub counts: Option<QueueCounts>,
}

/// How much there is. What an implementation cannot tell is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Ready to be taken.
    pub ready: u64,
    /// Consumers.
    pub consumers: Option<u32>,
    /// Taken and not acked.
    pub in_hand: Option<u64>,
    /// Bytes of the bodies, those in hand included.
    pub bytes: Option<u64>,
    /// When the oldest was stored, in milliseconds since the epoch.
    pub oldest_at_ms: Option<i64>,
}

/// Why the depths are not known.
#[derive(Debug, thiserror::Error)]
pub enum DepthError {
    /// RabbitMQ.
    #[error(transparent)]
    RabbitMq(#[from] broker::depth::DepthError),
    /// SQLite.
    #[error(transparent)]
    Sqlite(#[from] JournalError),
}

/// Reads the depths, again and again.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a process has one of them")]
pub enum DepthReader {
    /// RabbitMQ, over a connection that is kept between readings.
    RabbitMq(broker::DepthReader),
    /// SQLite.
    Sqlite(journal::Queue),
}

impl DepthReader {
    /// Every queue there should be, in the order a person wants to see them. A missing one is part of the answer.
    ///
    /// # Errors
    /// [`DepthError`]; the next reading begins anew.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn read(&mut self) -> Result<Vec<QueueDepth>, DepthError> {
        match self {
            Self::RabbitMq(reader) => {
                let depths = reader.read().await?;
                Ok(depths.into_iter().map(QueueDepth::from).collect())
            }
            Self::Sqlite(queue) => {
                let depth = queue.depth(Instant::now() + READ_MAX).await?;
                let events = QueueCounts {
                    in_hand: Some(depth.in_hand.count),
                    bytes: Some(depth.ready.bytes + depth.in_hand.bytes),
                    oldest_at_ms: depth.in_hand.oldest_at_ms.or(depth.ready.oldest_at_ms),
                    ..of(depth.ready)
                };
                let named = [
                    (EVENTS, events),
                    (RETRY, of(depth.put_off)),
                    (DEAD, of(depth.dead)),
                ];
                let all = named.into_iter().map(|(queue, counts)| QueueDepth {
                    queue,
                    counts: Some(counts),
                });
                Ok(all.collect())
            }
        }
    }
}

impl DepthReader {
    /// Whether [`QueueCounts::oldest_at_ms`] is known: `None` then says that there is nothing. RabbitMQ tells no ages.
    #[must_use]
    pub fn tells_age(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// Lets go of the queue politely, in 2 s at most.
    pub async fn close(self) {
        match self {
            Self::RabbitMq(reader) => reader.close().await,
            Self::Sqlite(_) => {}
        }
    }
}

impl From<broker::QueueDepth> for QueueDepth {
    fn from(depth: broker::QueueDepth) -> Self {
        let counts = depth.counts.map(|counts| QueueCounts {
            ready: u64::from(counts.ready),
            consumers: Some(counts.consumers),
            ..QueueCounts::default()
        });
        Self {
            queue: depth.queue,
            counts,
        }
    }
}

fn of(pile: journal::Pile) -> QueueCounts {
    QueueCounts {
        ready: pile.count,
        consumers: None,
        in_hand: None,
        bytes: Some(pile.bytes),
        oldest_at_ms: pile.oldest_at_ms,
    }
}
