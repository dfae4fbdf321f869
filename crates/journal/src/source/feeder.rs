//! Fills a source's hand: notes durably what is taken before it is handed out, and brings back what was put off.
//!
//! It never looks at what an event says.

use std::sync::Arc;
use std::time::Duration;

use porchlight_event::queue::QueueState;
use rusqlite::Connection;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::SourceConfig;
use super::hand::Hand;
use crate::error::{JournalError, WorkError};
use crate::journal::Journal;
use crate::queue::{self, Event, now_ms};

/// How often the file is looked at for what another process put in, and for what is due.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// For one step of a take; longer means that the journal fails, and it is tried again.
const STEP_MAX: Duration = Duration::from_secs(5);
/// After a step that failed.
const RETRY_WAIT: Duration = Duration::from_millis(250);
/// Bytes taken in one step, at most, so that what is first can be worked on while more is read.
const TAKE_BYTES_MAX: usize = 4 << 20;
/// Room, as a part of the prefetch, from which it is worth a take.
const ROOM_PART: usize = 8;
/// Events brought back in one transaction: a commit must stay short.
const BRING_BACK_MAX: usize = 256;

pub(super) struct Feeder {
    pub(super) journal: Journal,
    pub(super) config: SourceConfig,
    pub(super) hand: Arc<Hand>,
    pub(super) state: watch::Sender<QueueState>,
    pub(super) stop: CancellationToken,
    pub(super) closing: CancellationToken,
}

enum Fed {
    Some,
    Nothing,
    NoRoom,
}

impl Feeder {
    pub(super) async fn run(self) {
        let mut incarnation = 0;
        let mut paused = self.hand.paused();
        while !self.is_over() {
            if *paused.borrow_and_update() {
                // If that fails now, it is done before the next take.
                if let Err(error) = self.give_back().await {
                    tracing::debug!(%error, "what was in hand stays noted as taken for now");
                }
                self.show(QueueState::Paused);
                tokio::select! {
                    () = self.stop.cancelled() => {}
                    () = self.closing.cancelled() => {}
                    _ = paused.wait_for(|paused| !paused) => {}
                }
                continue;
            }
            if let Err(error) = self.give_back().await {
                self.show(blocked(&error));
                self.rest(RETRY_WAIT).await;
                continue;
            }
            incarnation += 1;
            if self.hand.begin(incarnation) {
                self.show(QueueState::Ready);
                self.feed(incarnation).await;
            }
        }
        self.hand.end();
        // What was taken may still be yielded and acked until the source is closed.
        self.closing.cancelled().await;
        self.hand.end_live(|_| true);
        if let Err(error) = self.give_back().await {
            tracing::debug!(%error, "what was in hand stays noted as taken");
        }
        self.show(QueueState::Stopped);
    }

    fn is_over(&self) -> bool {
        self.stop.is_cancelled() || self.closing.is_cancelled()
    }

    /// Takes until the incarnation ends or nothing more is to be taken.
    async fn feed(&self, incarnation: u64) {
        let mut after = 0;
        let mut polls = interval(POLL_INTERVAL);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.is_over() && self.hand.live() == Some(incarnation) {
            let fed = tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.closing.cancelled() => return,
                fed = self.take(incarnation, &mut after) => fed,
            };
            match fed {
                Ok(Fed::Some) => self.show(QueueState::Ready),
                Ok(Fed::Nothing) => {
                    // Without a take of its own to fail, what others met with is all that is known.
                    let standing = self.journal.working_state().borrow().clone();
                    self.show(standing);
                    tokio::select! {
                        () = self.stop.cancelled() => {}
                        () = self.closing.cancelled() => {}
                        () = self.journal.arrival() => {}
                        () = self.hand.changed() => {}
                        _ = polls.tick() => {}
                    }
                }
                Ok(Fed::NoRoom) => tokio::select! {
                    () = self.stop.cancelled() => {}
                    () = self.closing.cancelled() => {}
                    () = self.hand.changed() => {}
                },
                // What is in hand stays good; only taking more must wait.
                Err(error) => {
                    self.show(blocked(&error));
                    self.rest(RETRY_WAIT).await;
                }
            }
        }
    }

    /// Reads what comes next and notes it as taken; only then it is handed out.
    async fn take(&self, incarnation: u64, after: &mut i64) -> Result<Fed, JournalError> {
        let held = self.hand.held();
        let config = self.config;
        if held.count >= config.prefetch || (held.count > 0 && held.bytes >= config.prefetch_bytes) {
            return Ok(Fed::NoRoom);
        }
        let (from, until) = (*after, Instant::now() + STEP_MAX);
        let look = move |connection: &Connection| {
            let most = if has_charged(connection)? {
                config.prefetch_suspicious
            } else {
                config.prefetch
            };
            let room = most.saturating_sub(held.count);
            if room == 0 || (held.count > 0 && room < most / ROOM_PART) {
                return Ok(None);
            }
            queue::read_events(connection, from, room, TAKE_BYTES_MAX).map(Some)
        };
        let events: Vec<Event> = match self.journal.read(until, look).await? {
            None => return Ok(Fed::NoRoom),
            Some(events) if events.is_empty() => return Ok(Fed::Nothing),
            Some(events) => events,
        };
        let last = events.last().map_or(0, |event| event.seq);
        let hand = Arc::clone(&self.hand);
        let note = move |connection: &Connection| {
            // After the end of the incarnation nothing is handed out, and must not be charged.
            if hand.live() == Some(incarnation) {
                queue::set_fact(connection, "taken_through", last)?;
            }
            Ok(())
        };
        self.journal.write(until, note).await?;
        self.hand.put(incarnation, events);
        *after = last;
        Ok(Fed::Some)
    }

    /// Nothing is in hand.
    async fn give_back(&self) -> Result<(), JournalError> {
        let note = |connection: &Connection| queue::set_fact(connection, "taken_through", 0);
        self.journal.write(Instant::now() + STEP_MAX, note).await
    }

    async fn rest(&self, wait: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.closing.cancelled() => {}
            () = sleep(wait) => {}
        }
    }

    fn show(&self, wanted: QueueState) {
        self.state.send_if_modified(|state| {
            let differs = *state != wanted;
            *state = wanted;
            differs
        });
    }
}

/// Whether a crash has charged an event that is still there.
fn has_charged(connection: &Connection) -> Result<bool, WorkError> {
    let mut asked =
        connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM events WHERE delivery_count > 0)")?;
    Ok(asked.query_row([], |row| row.get(0))?)
}

fn blocked(error: &JournalError) -> QueueState {
    QueueState::Blocked {
        reason: error.to_string(),
    }
}

/// Puts events whose time has come at the back of the queue, until the source is closed.
pub(super) async fn bring_back(journal: Journal, closing: CancellationToken) {
    let longest = journal.config().retry_1m.max(journal.config().retry_10m);
    let mut polls = interval(POLL_INTERVAL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            _ = polls.tick() => {}
        }
        while bring_back_some(&journal, longest).await == Ok(BRING_BACK_MAX) {}
    }
}

/// How many there were. A fault shows elsewhere; they are still due at the next look.
async fn bring_back_some(journal: &Journal, longest: Duration) -> Result<usize, JournalError> {
    let until = Instant::now() + STEP_MAX;
    // Most looks find nothing, and a look is cheaper than a commit.
    if !journal
        .read(until, move |c| queue::is_due(c, now_ms(), longest))
        .await?
    {
        return Ok(0);
    }
    let work = move |c: &Connection| queue::promote(c, now_ms(), longest, BRING_BACK_MAX);
    let count = journal.write(until, work).await?;
    journal.wake_source();
    Ok(count)
}
