//! Confirmed publishing: a success means that the broker stored this very message.
//!
//! It retries nothing: the caller decides what a failure means. Connecting, watching and rebuilding happen in a task
//! of its own; see [`lane`] for how publishes and confirms are matched.

mod breaker;
mod lane;
mod supervisor;

use std::{
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use porchlight_event::queue::QueueState;

use crate::{topology::TopologyConfig, urls::BrokerUrls, wire::Outgoing};
use breaker::{Breaker, Counters};
use lane::{Lane, Verdict};

/// How a [`Publisher`] works; the defaults are right for production.
#[derive(Debug, Clone)]
pub struct PublisherConfig {
    /// Where the broker is.
    pub urls: BrokerUrls,
    /// Names the connection, as `role@host:pid`.
    pub role: String,
    /// What to declare.
    pub topology: TopologyConfig,
    /// Confirm channels on the one connection, 1 to 16. Beside the broker on one machine one channel is as fast as
    /// four. Over a network a quorum queue grants each channel 32 unconfirmed commands before it slows the channel
    /// down, so several are faster; and a return fails only what is in flight on its own channel.
    pub channel_count: usize,
    /// Publishes in flight over all channels, 1 to 65536. lapin's own outgoing queue has no bound; this is it.
    pub inflight_max: usize,
    /// Without any confirm for this long while some are outstanding, a connection is given up.
    pub confirm_silence_max: Duration,
    /// A connection blocked for longer is given up.
    pub blocked_max: Duration,
    /// How long a close waits for confirms in flight when the stop token asks for it.
    pub drain_max: Duration,
}

impl PublisherConfig {
    /// The defaults, for this broker and this role.
    #[must_use]
    pub fn new(urls: BrokerUrls, role: impl Into<String>) -> Self {
        Self {
            urls,
            role: role.into(),
            topology: TopologyConfig::default(),
            channel_count: 4,
            inflight_max: 256,
            confirm_silence_max: Duration::from_secs(5),
            blocked_max: Duration::from_secs(30),
            drain_max: Duration::from_secs(5),
        }
    }
}

/// How long one publish may take.
#[derive(Debug, Clone, Copy)]
pub struct PublishDeadlines {
    /// The longest wait for a place in the window.
    pub slot_wait_max: Duration,
    /// When to stop waiting for the confirm. It is still awaited in the background, and counted as late.
    pub confirm_by: Instant,
}

impl PublishDeadlines {
    /// At most 0.3 s for a place, and `total` from now for everything.
    #[must_use]
    pub fn within(total: Duration) -> Self {
        Self {
            slot_wait_max: Duration::from_millis(300),
            confirm_by: Instant::now() + total,
        }
    }
}

/// The broker has the message.
#[derive(Debug, Clone, Copy)]
pub struct Confirmed {
    /// From handing it to the connection to the confirm.
    pub latency: Duration,
}

/// Why a publish is not known to be stored. After `TimedOut`, `Returned` and `Disconnected` it may be all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No connection to the broker now.
    #[error("the broker cannot be reached")]
    Unavailable,
    /// The broker takes nothing from us now (memory or disk alarm).
    #[error("the broker has blocked publishing")]
    Blocked,
    /// No place in the window within the wait.
    #[error("too many publishes are in flight")]
    WindowFull,
    /// The broker refused it, as a queue at its limit does.
    #[error("the broker refused the message")]
    Nacked,
    /// The broker found no queue for it, or for another one in flight on the same channel.
    #[error("the broker returned a message of this channel as unroutable")]
    Returned,
    /// No confirm by the deadline.
    #[error("the confirm did not come in time")]
    TimedOut,
    /// The connection ended while the confirm was outstanding.
    #[error("the connection ended before the confirm")]
    Disconnected,
    /// This publisher is closing.
    #[error("the publisher is closing")]
    Stopping,
}

/// Numbers for metrics, as of one moment; totals count since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublisherStats {
    /// Publishes in flight, late ones included.
    pub inflight: usize,
    /// The window's size.
    pub inflight_max: usize,
    /// Messages the broker returned.
    pub returned_total: u64,
    /// Messages the broker refused.
    pub nacked_total: u64,
    /// Confirms that came after their caller had left.
    pub late_total: u64,
    /// Connections made after the first.
    pub reconnects_total: u64,
}

/// Publishes through one connection of its own. A cheap handle; all clones share the connection and the window.
///
/// Dropping the last handle closes it in the background, as the stop token would.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
    _last_handle_closes: Arc<DropGuard>,
}

struct Shared {
    window: Arc<Semaphore>,
    inflight_max: usize,
    session: RwLock<Option<Arc<Session>>>,
    state: watch::Sender<QueueState>,
    next_lane: AtomicUsize,
    counters: Arc<Counters>,
    connections_made: AtomicU64,
    publish_id_prefix: String,
    publish_id_next: AtomicU64,
    closing: CancellationToken,
    drain_by: RwLock<Option<Instant>>,
}

/// The lanes of one connection. A new connection brings a new session; nothing moves from one to the next.
struct Session {
    lanes: Vec<Arc<Lane>>,
    breaker: Arc<Breaker>,
}

/// A connection on which this many confirms in a row did not come in time is given up.
const TIMEOUTS_IN_ROW_MAX: usize = 3;
/// Far above where more channels only cost batching.
const CHANNEL_COUNT_MAX: usize = 16;
/// Bounds the memory a window can hold; far above where more stops helping.
const INFLIGHT_MAX: usize = 65_536;

impl Publisher {
    /// Starts connecting in the background. Out-of-range counts in `config` are brought into range.
    ///
    /// `stop` closes it as [`Publisher::close`] does, so cancel it only when nobody publishes any more.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a token is a handle; callers hand it over as to the consumer"
    )]
    pub fn start(config: PublisherConfig, stop: CancellationToken) -> Self {
        let inflight_max = config.inflight_max.clamp(1, INFLIGHT_MAX);
        let shared = Arc::new(Shared {
            window: Arc::new(Semaphore::new(inflight_max)),
            inflight_max,
            session: RwLock::new(None),
            state: watch::Sender::new(QueueState::Connecting { last_error: None }),
            next_lane: AtomicUsize::new(0),
            counters: Arc::new(Counters::default()),
            connections_made: AtomicU64::new(0),
            publish_id_prefix: format!("{:016x}", fastrand::u64(..)),
            publish_id_next: AtomicU64::new(0),
            closing: stop.child_token(),
            drain_by: RwLock::new(None),
        });
        tokio::spawn(supervisor::supervise(Arc::clone(&shared), config));
        let last_handle_closes = Arc::new(shared.closing.clone().drop_guard());
        Self {
            shared,
            _last_handle_closes: last_handle_closes,
        }
    }

    /// Publishes one message, mandatory and persistent, and waits for its confirm.
    ///
    /// # Errors
    /// [`PublishError`]; `Unavailable`, `Blocked` and `Stopping` come at once, without waiting for anything.
    ///
    /// # Cancel safety
    /// Dropping the future before it has a place publishes nothing. Later the message may or may not be stored; its
    /// confirm is awaited in the background and the place stays taken until then.
    pub async fn publish(
        &self,
        outgoing: Outgoing,
        deadlines: PublishDeadlines,
    ) -> Result<Confirmed, PublishError> {
        let shared = &*self.shared;
        shared.session_now()?;
        let permit = shared.place(deadlines).await?;
        // The wait may have outlived the connection it began on.
        let session = shared.session_now()?;
        let parts = outgoing.into_parts(&shared.publish_id());
        let published_at = Instant::now();
        let lane = session.lane(shared.next_lane.fetch_add(1, Relaxed));
        let verdict = lane.submit(parts, permit).ok_or(PublishError::Disconnected)?;
        match timeout_at(deadlines.confirm_by, verdict).await {
            Ok(Ok(Verdict::Acked)) => Ok(Confirmed {
                latency: published_at.elapsed(),
            }),
            Ok(Ok(Verdict::Nacked)) => Err(PublishError::Nacked),
            Ok(Ok(Verdict::Returned)) => Err(PublishError::Returned),
            Ok(Ok(Verdict::Lost) | Err(_)) => Err(PublishError::Disconnected),
            Err(_) => {
                shared.note_timeout(&session);
                Err(PublishError::TimedOut)
            }
        }
    }

    /// Where the connection stands, and every change of it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<QueueState> {
        self.shared.state.subscribe()
    }

    /// Publishes in flight now, late ones included.
    #[must_use]
    pub fn inflight(&self) -> usize {
        self.shared
            .inflight_max
            .saturating_sub(self.shared.window.available_permits())
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn stats(&self) -> PublisherStats {
        let counters = &self.shared.counters;
        PublisherStats {
            inflight: self.inflight(),
            inflight_max: self.shared.inflight_max,
            returned_total: counters.returned.load(Relaxed),
            nacked_total: counters.nacked.load(Relaxed),
            late_total: counters.late.load(Relaxed),
            reconnects_total: self.shared.connections_made.load(Relaxed).saturating_sub(1),
        }
    }

    /// Takes nothing more, waits up to `drain_max` for confirms in flight, then closes channels and connection
    /// politely, each step under 2 s. Returns when all is closed.
    pub async fn close(&self, drain_max: Duration) {
        *self
            .shared
            .drain_by
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + drain_max);
        self.shared.closing.cancel();
        let mut state = self.shared.state.subscribe();
        // The supervisor owns the sender through `shared`, so this ends with it and cannot fail before.
        let _ = state.wait_for(|state| *state == QueueState::Stopped).await;
    }
}

impl Shared {
    fn session_now(&self) -> Result<Arc<Session>, PublishError> {
        if self.closing.is_cancelled() {
            return Err(PublishError::Stopping);
        }
        match &*self.state.borrow() {
            QueueState::Ready => {}
            QueueState::Blocked { .. } => return Err(PublishError::Blocked),
            QueueState::Stopped => return Err(PublishError::Stopping),
            QueueState::Connecting { .. } | QueueState::Paused => return Err(PublishError::Unavailable),
        }
        let session = self.session.read().unwrap_or_else(PoisonError::into_inner);
        session.clone().ok_or(PublishError::Unavailable)
    }

    async fn place(&self, deadlines: PublishDeadlines) -> Result<OwnedSemaphorePermit, PublishError> {
        match Arc::clone(&self.window).try_acquire_owned() {
            Ok(permit) => return Ok(permit),
            Err(TryAcquireError::Closed) => return Err(PublishError::Stopping),
            Err(TryAcquireError::NoPermits) => {}
        }
        let left = deadlines.confirm_by.saturating_duration_since(Instant::now());
        let waiting = Arc::clone(&self.window).acquire_owned();
        match timeout(deadlines.slot_wait_max.min(left), waiting).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(PublishError::Stopping),
            Err(_) => Err(PublishError::WindowFull),
        }
    }

    fn publish_id(&self) -> String {
        format!(
            "{}-{}",
            self.publish_id_prefix,
            self.publish_id_next.fetch_add(1, Relaxed)
        )
    }

    fn note_timeout(&self, session: &Session) {
        // A blocked connection confirms nothing and is no fault of the connection; it has its own deadline.
        let blocked = matches!(&*self.state.borrow(), QueueState::Blocked { .. });
        if !blocked && self.counters.timeouts_in_row.fetch_add(1, Relaxed) + 1 >= TIMEOUTS_IN_ROW_MAX {
            session
                .breaker
                .trip(|| format!("{TIMEOUTS_IN_ROW_MAX} confirms in a row did not come in time"));
        }
    }
}

impl Session {
    fn lane(&self, turn: usize) -> &Lane {
        &self.lanes[turn % self.lanes.len()]
    }

    fn close(&self) {
        for lane in &self.lanes {
            lane.close();
        }
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("state", &*self.shared.state.borrow())
            .finish_non_exhaustive()
    }
}
