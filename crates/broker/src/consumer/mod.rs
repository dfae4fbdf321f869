//! Consuming with manual acks: deliveries come in batches, and an ack can only reach the channel it belongs to.
//!
//! It decides nothing about a delivery and never sends a nack: to give deliveries back, the connection is closed.

mod feed;
mod supervisor;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lapin::{Channel, options::BasicAckOptions};
use porchlight_event::queue::{AckOutcome, Batch, QueueState};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use feed::{Feed, FeedQueue};

use crate::{
    connection::{CLOSE_STEP_MAX, within},
    topology::{self, TopologyConfig},
    urls::BrokerUrls,
};

/// What quorum queues allow one consumer.
const PREFETCH_MAX: u16 = 2000;

/// How a [`Consumer`] works; the defaults are right for production.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// Where the broker is.
    pub urls: BrokerUrls,
    /// Names the connection, as `role@host:pid`.
    pub role: String,
    /// What to declare.
    pub topology: TopologyConfig,
    /// The queue; by default `porchlight.events`.
    pub queue: String,
    /// Deliveries in hand at first. A crash charges each of them one of its 20 returns, so a worker that crashes at
    /// once should hold few.
    pub prefetch_initial: u16,
    /// Deliveries in hand after `healthy_after`, 1 to 2000. More than about 500 no longer speeds anything up.
    pub prefetch_full: u16,
    /// How long a connection must have been good before the full prefetch.
    pub healthy_after: Duration,
    /// Begin as after [`ConsumerHandle::pause`]: nothing is taken before [`ConsumerHandle::resume`].
    pub begin_paused: bool,
}

impl ConsumerConfig {
    /// The defaults, for this broker and this role.
    #[must_use]
    pub fn new(urls: BrokerUrls, role: impl Into<String>) -> Self {
        Self {
            urls,
            role: role.into(),
            topology: TopologyConfig::default(),
            queue: topology::EVENTS.to_owned(),
            prefetch_initial: 8,
            prefetch_full: 512,
            healthy_after: Duration::from_secs(30),
            begin_paused: false,
        }
    }
}

/// Consumes one queue over a connection of its own, and makes a new one whenever the old one is in doubt.
///
/// Dropping it cuts the connection; unacked deliveries go back to the queue.
pub struct Consumer {
    feeds: Arc<FeedQueue>,
    current: Option<Feed>,
    handle: ConsumerHandle,
}

/// What may be shared with the tasks that apply batches: acks, and the wish to give everything back.
#[derive(Clone)]
pub struct ConsumerHandle {
    live: Arc<Mutex<Option<Live>>>,
    wishes: mpsc::Sender<Wish>,
    paused: Arc<watch::Sender<bool>>,
    state: watch::Receiver<QueueState>,
    closing: CancellationToken,
}

/// A channel that deliveries may still be acked on.
struct Live {
    incarnation: u64,
    channel: Channel,
}

enum Wish {
    /// Give the incarnation up.
    Abandon { incarnation: u64 },
    /// This feed has ended; the supervisor knows whether it was meant to.
    FeedEnded { number: u64, reason: String },
}

/// Abandonings and ended feeds under way; each is at most one per incarnation and task, the rest repeats them.
const WISHES_MAX: usize = 64;

impl Consumer {
    /// Starts connecting in the background. Cancelling `stop` begins a graceful end: consuming stops, what has
    /// arrived is still yielded, then [`Consumer::next_batch`] returns `None`; ack, then call [`Consumer::close`].
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    #[must_use]
    pub fn start(config: ConsumerConfig, stop: CancellationToken) -> Self {
        let feeds = Arc::new(FeedQueue::default());
        let (wishes, wish_receiver) = mpsc::channel(WISHES_MAX);
        let (state_sender, state) = watch::channel(QueueState::Connecting { last_error: None });
        let closing = CancellationToken::new();
        let live = Arc::new(Mutex::new(None));
        let paused = Arc::new(watch::Sender::new(config.begin_paused));
        let supervisor = supervisor::Supervisor {
            config,
            feeds: Arc::clone(&feeds),
            wishes: wish_receiver,
            state: state_sender,
            live: Arc::clone(&live),
            paused: paused.subscribe(),
            stop,
            closing: closing.clone(),
            feed_number: 0,
        };
        tokio::spawn(supervisor.run());
        Self {
            feeds,
            current: None,
            handle: ConsumerHandle {
                live,
                wishes,
                paused,
                state,
                closing,
            },
        }
    }

    /// Waits for deliveries and takes what is there, up to `count_max` (at least 1). `None` after a stop, when
    /// everything that had arrived was yielded.
    ///
    /// Deliveries that were not acked before their incarnation ended come again in a later one.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken before it is returned.
    pub async fn next_batch(&mut self, count_max: usize) -> Option<Batch> {
        loop {
            let Some(feed) = self.current.as_mut() else {
                self.current = Some(self.feeds.next().await?);
                continue;
            };
            // What an ended incarnation left in memory cannot be acked any more and will come again.
            if !self.handle.is_live(feed.incarnation) {
                self.current = None;
                continue;
            }
            match feed.take_ready(count_max.max(1)).await {
                // It was given back while this waited.
                Ok(_) if !self.handle.is_live(feed.incarnation) => self.current = None,
                Ok(deliveries) => {
                    return Some(Batch {
                        incarnation: feed.incarnation,
                        deliveries,
                    });
                }
                Err(reason) => {
                    let number = feed.number;
                    let room = self.handle.wishes.reserve().await;
                    self.current = None;
                    if let Ok(room) = room {
                        room.send(Wish::FeedEnded { number, reason });
                    }
                }
            }
        }
    }

    /// A handle for the tasks that finish batches.
    #[must_use]
    pub fn handle(&self) -> ConsumerHandle {
        self.handle.clone()
    }

    /// See [`ConsumerHandle::ack_through`].
    pub async fn ack_through(&self, incarnation: u64, tag: u64) -> AckOutcome {
        self.handle.ack_through(incarnation, tag).await
    }

    /// Where the connection stands, and every change of it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<QueueState> {
        self.handle.state.clone()
    }

    /// Closes channel and connection politely, each step under 2 s. What is unacked goes back to the queue.
    pub async fn close(self) {
        self.handle.closing.cancel();
        let mut state = self.handle.state.clone();
        // An error means that the supervisor is gone, which is what is waited for.
        let _ = state.wait_for(|state| *state == QueueState::Stopped).await;
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.handle.closing.cancel();
    }
}

impl ConsumerHandle {
    /// Acks every delivery of that incarnation up to and including `tag`. Ack in order, and only what is done with.
    ///
    /// Reports `Stale`, and sends nothing, when the incarnation is over: its tags would mean other deliveries on
    /// the channel of today.
    ///
    /// # Cancel safety
    /// The ack is queued at the first poll; dropping the future later does not take it back.
    pub async fn ack_through(&self, incarnation: u64, tag: u64) -> AckOutcome {
        let channel = match &*self.live.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(live) if live.incarnation == incarnation => live.channel.clone(),
            _ => return AckOutcome::Stale,
        };
        match within(
            CLOSE_STEP_MAX,
            channel.basic_ack(tag, BasicAckOptions { multiple: true }),
        )
        .await
        {
            Ok(()) => AckOutcome::Sent,
            Err(_) => {
                // Not written in two seconds or refused: the connection is of no use any more.
                self.abandon(incarnation);
                AckOutcome::Stale
            }
        }
    }

    /// Gives everything unacked of that incarnation back to the queue, by closing its connection, and connects anew.
    /// From here on nothing of it is yielded or acked.
    pub fn abandon(&self, incarnation: u64) {
        self.end_live(|live| live.incarnation == incarnation);
        // Full means that the supervisor has been told so often enough; closed, that it is gone.
        let _ = self.wishes.try_send(Wish::Abandon { incarnation });
    }

    /// Gives everything unacked back to the queue and stays away from it until [`ConsumerHandle::resume`]. From here
    /// on nothing of this incarnation is yielded or acked, however soon it is resumed.
    pub fn pause(&self) {
        self.paused.send_replace(true);
        self.end_live(|_| true);
    }

    /// Consumes again after [`ConsumerHandle::pause`], beginning with the small prefetch.
    pub fn resume(&self) {
        self.paused.send_replace(false);
    }

    /// Where the connection stands, and every change of it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<QueueState> {
        self.state.clone()
    }

    /// Whether deliveries of that incarnation can still be acked; if not, they come again.
    #[must_use]
    pub fn is_live(&self, incarnation: u64) -> bool {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.as_ref().is_some_and(|live| live.incarnation == incarnation)
    }

    /// Returns when deliveries of that incarnation cannot be acked any more.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ended(&self, incarnation: u64) {
        let mut state = self.state.clone();
        // Each end changes the state after it; an error means that the supervisor is gone, and all have ended.
        while self.is_live(incarnation) && state.changed().await.is_ok() {}
    }

    /// At once, and not when the supervisor comes to it: until then more could be taken and acked, and an ack reaches
    /// back over every delivery of the channel, those given back included.
    fn end_live(&self, which: impl FnOnce(&Live) -> bool) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.take_if(|live| which(live));
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("state", &*self.handle.state.borrow())
            .finish_non_exhaustive()
    }
}
