//! The spool: events kept on this machine's disk while the queue is away, and handed over when it is back.
//!
//! It never looks into what it holds. Whether an event comes here is the storage's decision.

mod drain;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use porchlight_event::Envelope;
use porchlight_event::queue::QueueState;
use porchlight_journal::{
    Journal, JournalConfig, JournalError, Limits, OpenError, Purpose, Queue as Rows, Role, Source,
    SourceConfig,
};
use porchlight_queue::Queue;
use porchlight_service::{NotReady, Note};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::settings::SpoolSettings;
use drain::Drainer;

/// Most events that are being handed over at once.
const IN_HAND_MAX: usize = 64;
/// At most one part of so many of the queue's window is taken for handing over; the rest is for new events.
const WINDOW_PART: usize = 4;
/// Between two looks at how much there is.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// For one look, on a disk that may be slow.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// For what is in hand when the end is asked for: a confirm's time and a little more.
const END_MAX: Duration = Duration::from_secs(6);
/// For closing the file.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// An open spool. A cheap handle; clones share everything.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
}

struct Shared {
    journal: Journal,
    /// What is in it. The spool is a journal whatever the queue is, so it is used as one.
    rows: Rows,
    bytes_max: u64,
    held: watch::Sender<Held>,
    stored_total: AtomicU64,
    handed_over_total: Arc<AtomicU64>,
    ending: CancellationToken,
    tasks: TaskTracker,
}

/// What it holds, as of the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) events: u64,
    /// When the oldest was stored, in milliseconds since the epoch.
    pub(crate) oldest_at_ms: Option<i64>,
}

/// Numbers for metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpoolStats {
    pub(crate) events: u64,
    /// Of the file, in use.
    pub(crate) bytes: u64,
    pub(crate) oldest_age_seconds: u64,
    pub(crate) stored_total: u64,
    pub(crate) handed_over_total: u64,
}

/// Why there is no spool.
#[derive(Debug, thiserror::Error)]
#[error("the spool in '{}' cannot be used", dir.display())]
pub struct SpoolError {
    dir: PathBuf,
    source: OpenError,
}

impl Spool {
    /// Opens the spool, or makes it. Nothing is handed over yet.
    ///
    /// # Errors
    /// [`SpoolError`]: another process has it, or what is there cannot be read; it is left as it is.
    pub fn open(settings: &SpoolSettings) -> Result<Self, SpoolError> {
        let mut config = JournalConfig::new(&settings.dir);
        config.bytes_max = settings.bytes_max;
        // Nothing here looks into an event, so that no event can be what ended the process.
        config.returns_max = None;
        config.purpose = Purpose::Spool;
        let journal = Journal::open(config, Role::Daemon).map_err(|source| SpoolError {
            dir: settings.dir.clone(),
            source,
        })?;
        Ok(Self {
            shared: Arc::new(Shared {
                rows: Rows::new(&journal),
                journal,
                bytes_max: settings.bytes_max,
                held: watch::Sender::new(Held::default()),
                stored_total: AtomicU64::new(0),
                handed_over_total: Arc::default(),
                ending: CancellationToken::new(),
                tasks: TaskTracker::new(),
            }),
        })
    }

    /// Begins to hand over to `target`, whenever that takes events, and to say so in the log.
    pub(crate) fn begin(&self, target: Queue) {
        let shared = &self.shared;
        let in_hand_max = (target.stats().inflight_max / WINDOW_PART).clamp(1, IN_HAND_MAX);
        let config = SourceConfig {
            prefetch: in_hand_max,
            prefetch_suspicious: in_hand_max,
            ..SourceConfig::default()
        };
        let drainer = Drainer {
            source: Source::start(&shared.journal, config, CancellationToken::new()),
            target,
            in_hand_max,
            handed_over: Arc::clone(&shared.handed_over_total),
            ending: shared.ending.clone(),
        };
        shared.tasks.spawn(drainer.run());
        let watching = self.clone().watch();
        let ending = shared.ending.clone();
        shared.tasks.spawn(ending.run_until_cancelled_owned(watching));
    }

    /// Stores one event on the disk, or says by `until` why not.
    ///
    /// # Cancel safety
    /// Once dropped the event may or may not be stored.
    pub(crate) async fn store(&self, envelope: &Envelope, until: Instant) -> Result<(), JournalError> {
        let limits = Limits {
            slot_until: until,
            until,
        };
        self.shared.rows.accept(envelope, limits).await?;
        self.shared.stored_total.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Why an event could not be stored here now, if so.
    pub(crate) fn not_ready(&self) -> Option<NotReady> {
        match &*self.shared.journal.state().borrow() {
            QueueState::Ready => None,
            QueueState::Blocked { reason } => Some(NotReady::new(
                "spool_full",
                format!("the spool takes no more events: {reason}"),
            )),
            _ => Some(NotReady::new("spool_failed", "the spool cannot be written")),
        }
    }

    pub(crate) fn stats(&self) -> SpoolStats {
        let shared = &self.shared;
        let held = *shared.held.borrow();
        let age_ms = held
            .oldest_at_ms
            .map_or(0, |at_ms| now_ms().saturating_sub(at_ms));
        SpoolStats {
            events: held.events,
            bytes: shared.journal.stats().bytes_in_use,
            oldest_age_seconds: u64::try_from(age_ms / 1000).unwrap_or_default(),
            stored_total: shared.stored_total.load(Relaxed),
            handed_over_total: shared.handed_over_total.load(Relaxed),
        }
    }

    /// What an operator should know while it is in use.
    pub(crate) fn note(&self) -> Note {
        let stats = self.stats();
        let message = match stats.events {
            0 => "the queue takes no events; they are kept in the spool".to_owned(),
            events => format!("{events} events wait in the spool to be handed over to the queue"),
        };
        Note {
            code: "spooling",
            message,
            figures: [
                ("events", stats.events),
                ("bytes", stats.bytes),
                ("bytes_max", self.shared.bytes_max),
                ("oldest_age_seconds", stats.oldest_age_seconds),
            ]
            .into(),
        }
    }

    /// Goes on handing over for up to `grace`, as long as there is something and `target` takes it; then closes. What is
    /// left stays on the disk.
    pub(crate) async fn close(&self, target: &Queue, grace: Duration) {
        let shared = &self.shared;
        // Nobody waits for what is left here, so a look that fails costs nothing but time.
        let _ = timeout(grace, self.emptied(target)).await;
        shared.ending.cancel();
        shared.tasks.close();
        if timeout(END_MAX, shared.tasks.wait()).await.is_err() {
            tracing::warn!("handing over did not end in time; what is left stays in the spool");
        }
        let left = self.look().await.map_or(0, |held| held.events);
        if left > 0 {
            tracing::warn!(
                events = left,
                "events are left in the spool; they are handed over after the next start on this directory"
            );
        }
        shared.journal.close(CLOSE_MAX).await;
    }

    /// Returns when nothing is left, or when the target takes nothing.
    async fn emptied(&self, target: &Queue) {
        while target.state().borrow().is_ready() {
            match self.look().await {
                Some(held) if held.events > 0 => sleep(LOOK_INTERVAL / 10).await,
                _ => return,
            }
        }
    }

    /// Keeps the figures up to date, and tells the log when spooling begins and when it is over.
    async fn watch(self) {
        let (mut told, mut stored_seen) = (false, 0);
        loop {
            if let Some(held) = self.look().await {
                let stored = self.shared.stored_total.load(Relaxed);
                if !told && (held.events > 0 || stored > stored_seen) {
                    tracing::warn!(
                        events = held.events,
                        "events are in the spool instead of the queue"
                    );
                    told = true;
                }
                if told && held.events == 0 {
                    let handed_over = self.shared.handed_over_total.load(Relaxed);
                    tracing::info!(handed_over, "the spool is empty again");
                    told = false;
                }
                stored_seen = stored;
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    async fn look(&self) -> Option<Held> {
        let looked = self.shared.rows.depth(Instant::now() + LOOK_MAX).await;
        let depth = looked
            .inspect_err(|error| tracing::debug!(%error, "the spool could not be looked at"))
            .ok()?;
        let held = Held {
            events: depth.in_hand.count + depth.ready.count,
            oldest_at_ms: depth.in_hand.oldest_at_ms.or(depth.ready.oldest_at_ms),
        };
        self.shared.held.send_replace(held);
        Some(held)
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").finish_non_exhaustive()
    }
}

/// Wall-clock time in milliseconds since the epoch.
fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
