//! Taking events out of a journal: deliveries come in batches, in order, and are removed once they are acked.
//!
//! It decides nothing about a delivery. There is one source to a journal; giving back ends a whole incarnation.

mod feeder;
mod hand;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use porchlight_event::queue::{AckOutcome, Batch, QueueState};
use rusqlite::Connection;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::journal::Journal;
use crate::queue;
use feeder::Feeder;
use hand::Hand;

/// For an ack to be on the disk. Longer means that the journal fails; what is held then comes again.
const ACK_MAX: Duration = Duration::from_secs(5);

/// How a [`Source`] works; the defaults are right for production.
#[derive(Debug, Clone, Copy)]
pub struct SourceConfig {
    /// Deliveries in hand, at most. A crash charges each of them one of its 20 returns.
    pub prefetch: usize,
    /// Bytes of bodies in hand, at most; a single larger one is still taken.
    pub prefetch_bytes: usize,
    /// Deliveries in hand while there are events that a crash has charged: if one of them is what ends the process, few
    /// others are charged beside it.
    pub prefetch_suspicious: usize,
    /// Begin as after [`SourceHandle::pause`]: nothing is taken before [`SourceHandle::resume`].
    pub begin_paused: bool,
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            prefetch: 512,
            prefetch_bytes: 16 << 20,
            prefetch_suspicious: 8,
            begin_paused: false,
        }
    }
}

/// The one consumer of a journal's events. Dropping it gives everything unacked back.
pub struct Source {
    handle: SourceHandle,
}

/// What may be shared with those who finish batches: acks, and the wish to give everything back.
#[derive(Clone)]
pub struct SourceHandle {
    journal: Journal,
    hand: Arc<Hand>,
    state: watch::Receiver<QueueState>,
    closing: CancellationToken,
}

impl Source {
    /// Starts taking in the background, and bringing back what was put off. Cancelling `stop` begins a graceful end:
    /// nothing more is taken, what was taken is still yielded, then [`Source::next_batch`] returns `None`; ack, then call
    /// [`Source::close`].
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    #[must_use]
    pub fn start(journal: &Journal, config: SourceConfig, stop: CancellationToken) -> Self {
        let hand = Arc::new(Hand::new(config.begin_paused));
        let closing = CancellationToken::new();
        let first = if config.begin_paused {
            QueueState::Paused
        } else {
            QueueState::Connecting { last_error: None }
        };
        let (state_sender, state) = watch::channel(first);
        let feeder = Feeder {
            journal: journal.clone(),
            config,
            hand: Arc::clone(&hand),
            state: state_sender,
            stop,
            closing: closing.clone(),
        };
        tokio::spawn(feeder.run());
        tokio::spawn(feeder::bring_back(journal.clone(), closing.clone()));
        Self {
            handle: SourceHandle {
                journal: journal.clone(),
                hand,
                state,
                closing,
            },
        }
    }

    /// Waits for deliveries and takes what is there, up to `count_max` (at least 1). `None` after a stop, when
    /// everything that had been taken was yielded.
    ///
    /// Deliveries that were not acked before their incarnation ended come again in a later one.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken before it is returned.
    pub async fn next_batch(&mut self, count_max: usize) -> Option<Batch> {
        self.handle.hand.next_batch(count_max.max(1)).await
    }

    /// A handle for those who finish batches.
    #[must_use]
    pub fn handle(&self) -> SourceHandle {
        self.handle.clone()
    }

    /// How the journal stands for consuming, and every change of it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<QueueState> {
        self.handle.state.clone()
    }

    /// Ends politely; what is unacked goes back.
    pub async fn close(self) {
        self.handle.closing.cancel();
        let mut state = self.handle.state.clone();
        // An error means that the feeder is gone, which is what is waited for.
        let _ = state.wait_for(|state| *state == QueueState::Stopped).await;
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.handle.closing.cancel();
        self.handle.hand.end_live(|_| true);
    }
}

impl SourceHandle {
    /// Removes every delivery of that incarnation up to and including `tag`, and returns when that is on the disk. Ack
    /// in order, and only what is done with.
    ///
    /// Reports `Stale`, and removes nothing, when the incarnation is over.
    ///
    /// # Cancel safety
    /// The ack goes on although the future was dropped.
    pub async fn ack_through(&self, incarnation: u64, tag: u64) -> AckOutcome {
        let Some(through) = self.hand.ackable(incarnation, tag) else {
            return AckOutcome::Stale;
        };
        // A task of its own: were it dropped between the disk and the books, the place in hand would stay taken.
        let acking = tokio::spawn(self.clone().ack(incarnation, through));
        acking.await.unwrap_or(AckOutcome::Stale)
    }

    async fn ack(self, incarnation: u64, through: i64) -> AckOutcome {
        let hand = Arc::clone(&self.hand);
        let work = move |connection: &Connection| {
            // It may have been given back while this waited for its turn.
            let live = hand.live() == Some(incarnation);
            if live {
                queue::remove_through(connection, through)?;
            }
            Ok(live)
        };
        match self.journal.write(Instant::now() + ACK_MAX, work).await {
            Ok(true) => {
                self.hand.acked(incarnation, through);
                AckOutcome::Sent
            }
            Ok(false) => AckOutcome::Stale,
            Err(error) => {
                tracing::debug!(%error, "an ack is not known to be stored");
                // What is left of them comes again.
                self.abandon(incarnation);
                AckOutcome::Stale
            }
        }
    }

    /// Gives everything unacked of that incarnation back. From here on nothing of it is yielded or acked.
    pub fn abandon(&self, incarnation: u64) {
        self.hand.end_live(|live| live == incarnation);
    }

    /// Gives everything unacked back and takes nothing until [`SourceHandle::resume`]. From here on nothing of this
    /// incarnation is yielded or acked, however soon it is resumed.
    pub fn pause(&self) {
        self.hand.pause();
    }

    /// Takes again after [`SourceHandle::pause`].
    pub fn resume(&self) {
        self.hand.resume();
    }

    /// How the journal stands for consuming, and every change of it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<QueueState> {
        self.state.clone()
    }

    /// Whether deliveries of that incarnation can still be acked; if not, they come again.
    #[must_use]
    pub fn is_live(&self, incarnation: u64) -> bool {
        self.hand.live() == Some(incarnation)
    }

    /// Returns when deliveries of that incarnation cannot be acked any more.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ended(&self, incarnation: u64) {
        let mut live = self.hand.live_receiver();
        // An error means that the source is gone, and with it every incarnation.
        let _ = live.wait_for(|live| *live != Some(incarnation)).await;
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("state", &*self.handle.state.borrow())
            .finish_non_exhaustive()
    }
}
