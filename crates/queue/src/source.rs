//! Taking events out of the queue: deliveries in batches, acked in order.
//!
//! It never gives one delivery back alone; giving back ends the whole incarnation.

use porchlight_broker::{Consumer, ConsumerHandle};
use porchlight_event::queue::{AckOutcome, Batch, QueueState};
use tokio::sync::watch;

/// Where events come out. Dropping it gives everything unacked back.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a process has one or two of them, and they are moved at the start"
)]
pub enum Source {
    /// RabbitMQ.
    RabbitMq(Consumer),
    /// SQLite.
    Sqlite(porchlight_journal::Source),
}

/// What may be shared with those who finish batches.
#[derive(Clone)]
pub enum SourceHandle {
    /// RabbitMQ.
    RabbitMq(ConsumerHandle),
    /// SQLite.
    Sqlite(porchlight_journal::SourceHandle),
}

impl Source {
    /// Waits for deliveries and takes what is there, up to `count_max` (at least 1). `None` after a stop, when
    /// everything that had arrived was yielded.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken before it is returned.
    pub async fn next_batch(&mut self, count_max: usize) -> Option<Batch> {
        match self {
            Self::RabbitMq(consumer) => consumer.next_batch(count_max).await,
            Self::Sqlite(source) => source.next_batch(count_max).await,
        }
    }

    /// A handle for those who finish batches.
    #[must_use]
    pub fn handle(&self) -> SourceHandle {
        match self {
            Self::RabbitMq(consumer) => SourceHandle::RabbitMq(consumer.handle()),
            Self::Sqlite(source) => SourceHandle::Sqlite(source.handle()),
        }
    }

    /// How the queue stands for consuming, and every change of it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<QueueState> {
        match self {
            Self::RabbitMq(consumer) => consumer.state(),
            Self::Sqlite(source) => source.state(),
        }
    }

    /// Ends politely; what is unacked goes back.
    pub async fn close(self) {
        match self {
            Self::RabbitMq(consumer) => consumer.close().await,
            Self::Sqlite(source) => source.close().await,
        }
    }
}

impl SourceHandle {
    /// Acks every delivery of that incarnation up to and including `tag`. Ack in order, and only what is done with.
    ///
    /// # Cancel safety
    /// The ack may have its effect although the future was dropped.
    pub async fn ack_through(&self, incarnation: u64, tag: u64) -> AckOutcome {
        match self {
            Self::RabbitMq(handle) => handle.ack_through(incarnation, tag).await,
            Self::Sqlite(handle) => handle.ack_through(incarnation, tag).await,
        }
    }

    /// Gives everything unacked of that incarnation back. From here on nothing of it is yielded or acked.
    pub fn abandon(&self, incarnation: u64) {
        match self {
            Self::RabbitMq(handle) => handle.abandon(incarnation),
            Self::Sqlite(handle) => handle.abandon(incarnation),
        }
    }

    /// Gives everything unacked back and stays away from the queue until [`SourceHandle::resume`].
    pub fn pause(&self) {
        match self {
            Self::RabbitMq(handle) => handle.pause(),
            Self::Sqlite(handle) => handle.pause(),
        }
    }

    /// Takes again after [`SourceHandle::pause`].
    pub fn resume(&self) {
        match self {
            Self::RabbitMq(handle) => handle.resume(),
            Self::Sqlite(handle) => handle.resume(),
        }
    }

    /// Whether deliveries of that incarnation can still be acked; if not, they come again.
    #[must_use]
    pub fn is_live(&self, incarnation: u64) -> bool {
        match self {
            Self::RabbitMq(handle) => handle.is_live(incarnation),
            Self::Sqlite(handle) => handle.is_live(incarnation),
        }
    }

    /// Returns when deliveries of that incarnation cannot be acked any more.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ended(&self, incarnation: u64) {
        match self {
            Self::RabbitMq(handle) => handle.ended(incarnation).await,
            Self::Sqlite(handle) => handle.ended(incarnation).await,
        }
    }
}
