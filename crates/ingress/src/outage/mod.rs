//! Notices while requests that may be Ring's are answered 5xx, and tells how long Ring will wait: in log, metrics and page.
//!
//! Counted are answers to requests whose signature matched, or could not be checked by our own fault: no keys are loaded,
//! or the keys' health is in doubt. A body that is slow or breaks off is anybody's, and would let strangers begin an
//! outage. A good request costs one look at a flag.

mod book;
pub(crate) mod clock;
pub mod page;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use porchlight_event::ring_schedule::LADDER_MS;
use porchlight_journal::JournalError;
use porchlight_queue::QueueError;
use porchlight_service::Note;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::health_metrics::HealthMetrics;
use crate::moment::{Moment, Timekeeper};
use crate::receive::{Accepted, ReceiveError};
use crate::reply;
use crate::storage::StoreFailure;
pub(crate) use book::Book;
pub use book::FILE_NAME;
use clock::{Outage, OutageClock, Turn};
use page::OutageFacts;

/// How often the clock is looked at during an outage.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Without an event for so long during an outage, in milliseconds, it may be over, and nobody can know.
const SILENCE_MS: i64 = 15_000;

/// The outage clock of this process; shared by all connections.
#[derive(Debug)]
pub(crate) struct Outages {
    /// Whether the clock has an outage that is on: all that a good request looks at.
    on: AtomicBool,
    clock: Mutex<OutageClock>,
    began: Notify,
    time: Timekeeper,
    metrics: Arc<HealthMetrics>,
}

impl Outages {
    pub(crate) fn new(quiet_ms: i64, time: Timekeeper, metrics: Arc<HealthMetrics>) -> Self {
        Self {
            on: AtomicBool::new(false),
            clock: Mutex::new(OutageClock::new(quiet_ms)),
            began: Notify::new(),
            time,
            metrics,
        }
    }

    /// Takes notice of what is about to be answered.
    pub(crate) fn note(&self, outcome: &Result<Accepted, ReceiveError>) {
        match outcome {
            Ok(_) if !self.on.load(Relaxed) => {}
            Ok(_) => self.clock().stored(self.time.now()),
            Err(error) if may_be_rings(error) => self.failed(reply::code_of(error)),
            Err(_) => {}
        }
    }

    fn failed(&self, cause: &'static str) {
        let now = self.time.now();
        self.metrics.outage_answers.inc();
        let (begins, first_loss_in_ms) = {
            let mut clock = self.clock();
            let begins = clock.failed(cause, now);
            if begins {
                self.on.store(true, Relaxed);
                self.show(&clock);
            }
            let first_loss = clock.current().map(|outage| outage.first_loss_ms);
            (begins, first_loss.map(|at| at - now.wall_ms))
        };
        if begins {
            let waits = words(first_loss_in_ms.unwrap_or(LADDER_MS));
            tracing::error!(
                cause,
                "outage: events are answered 5xx; Ring repeats each for {waits}"
            );
            self.began.notify_one();
        }
    }

    /// Waits for the next outage to begin. One at a time may wait.
    pub(crate) async fn begins(&self) {
        self.began.notified().await;
    }

    /// Waits a little, and tells what has changed. Whether the outage is on still.
    pub(crate) async fn goes_on(&self) -> bool {
        sleep(LOOK_INTERVAL).await;
        self.look();
        self.on.load(Relaxed)
    }

    /// Tells what has changed by now.
    fn look(&self) {
        loop {
            let now = self.time.now();
            let (turn, outage) = {
                let mut clock = self.clock();
                let Some(turn) = clock.turn(now) else { return };
                self.on.store(clock.current().is_some(), Relaxed);
                self.show(&clock);
                let outage = clock.current().or_else(|| clock.past().next()).cloned();
                (turn, outage)
            };
            if let Some(outage) = outage {
                tell(&turn, &outage, now);
            }
        }
    }

    fn show(&self, clock: &OutageClock) {
        let times = clock.current().map(|outage| {
            [
                outage.started.wall_ms,
                outage.first_loss_ms,
                outage.forgotten_ms(),
            ]
        });
        self.metrics.show_outage(times);
    }

    /// The note of `/readyz` while an outage is on.
    pub(crate) fn readiness_note(&self) -> Option<Note> {
        if !self.on.load(Relaxed) {
            return None;
        }
        let (clock, now) = (self.clock(), self.time.now());
        let outage = clock.current()?;
        let (lasted, left) = (outage.lasted_ms(now), loss_in_ms(outage, now));
        let silence = match now.since(outage.last_failed) {
            silence if silence < SILENCE_MS => String::new(),
            silence => format!(
                "; none has come for {}, and only one that is stored ends this",
                words(silence)
            ),
        };
        let message = match outage.recovered {
            Some(_) => format!(
                "events are taken again after an outage of {}; it is over when that stays so",
                words(lasted)
            ),
            None if left > 0 => format!(
                "events have been answered 5xx for {}; Ring gives up on the first in {}{silence}",
                words(lasted),
                words(left)
            ),
            None => format!(
                "events have been answered 5xx for {}; Ring gave up on the first {} ago: porchlight outage{silence}",
                words(lasted),
                words(-left)
            ),
        };
        let figures = [
            ("seconds", lasted / 1_000),
            ("first_loss_in_seconds", left.max(0) / 1_000),
        ];
        Some(Note {
            code: "outage",
            message,
            figures: figures.map(|(name, value)| (name, value.unsigned_abs())).into(),
        })
    }

    /// All that are remembered, the one that is on first, then the newest.
    pub(crate) fn facts(&self, now: Moment) -> Vec<OutageFacts> {
        let clock = self.clock();
        let all = clock.current().into_iter().map(|outage| (outage, false));
        let all = all.chain(clock.past().map(|outage| (outage, true)));
        all.map(|(outage, is_over)| outage.facts(is_over, now)).collect()
    }

    /// Goes on where an earlier process stopped.
    pub(crate) fn restore(&self, outages: Vec<OutageFacts>) {
        let mut clock = self.clock();
        clock.restore(outages, self.time.now());
        self.on.store(clock.current().is_some(), Relaxed);
        self.show(&clock);
        if clock.current().is_some() {
            tracing::warn!(
                "outage: the one that was on when the process before ended is on until an event is stored"
            );
            self.began.notify_one();
        }
    }

    fn clock(&self) -> MutexGuard<'_, OutageClock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an error that is answered 5xx keeps an event of Ring's from being taken. Stopping is none: another process
/// takes the event, or this one after its start.
fn may_be_rings(error: &ReceiveError) -> bool {
    match error {
        ReceiveError::NotStored(StoreFailure::Queue(error), _) => *error != QueueError::Stopping,
        ReceiveError::NotStored(StoreFailure::Spool { spool, .. }, _) => *spool != JournalError::Stopping,
        ReceiveError::NoKeys | ReceiveError::KeysInDoubt => true,
        _ => false,
    }
}

/// Milliseconds until Ring gives up on the first event; negative once it has.
fn loss_in_ms(outage: &Outage, now: Moment) -> i64 {
    outage.first_loss_ms - outage.started.wall_ms - now.since(outage.started)
}

fn tell(turn: &Turn, outage: &Outage, now: Moment) {
    let lasted = outage.lasted_ms(now);
    let (seconds, failed, stored) = (lasted / 1_000, outage.failed(), outage.stored);
    let (lasted, left) = (words(lasted), loss_in_ms(outage, now));
    match turn {
        Turn::GoesOn if left > 0 => {
            let left = words(left);
            tracing::error!(
                seconds,
                failed,
                stored,
                "outage: lasts for {lasted}; Ring gives up on the first event in {left}"
            );
        }
        Turn::GoesOn => {
            let ago = words(-left);
            tracing::error!(
                seconds,
                failed,
                stored,
                "outage: lasts for {lasted}; Ring has been giving up on events for {ago}"
            );
        }
        Turn::FirstLoss => tracing::error!(
            seconds,
            failed,
            stored,
            "outage: Ring gives up on the first events now and keeps them for 72 h: ask it to send them again (porchlight outage)"
        ),
        Turn::Forgotten => tracing::error!(
            seconds,
            failed,
            stored,
            "outage: Ring forgets the first events now; what is asked for from now on comes in part"
        ),
        Turn::Ended if outage.lasted_ms(now) > outage.first_loss_ms - outage.started.wall_ms => {
            tracing::error!(
                seconds,
                failed,
                stored,
                "outage: over after {lasted}; Ring gave up on some events: ask it to send them again (porchlight outage)"
            );
        }
        Turn::Ended => tracing::warn!(
            seconds,
            failed,
            stored,
            "outage: over after {lasted}; Ring repeats by itself what it could not deliver"
        ),
    }
}

/// A span of time for a person: `12s`, `3m 20s`, `5h 10m`.
pub(crate) fn words(ms: i64) -> String {
    let seconds = ms.max(0) / 1_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        _ => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::BodyError;
    use porchlight_event::Refusal;

    fn outages() -> Outages {
        Outages::new(
            clock::QUIET_MS,
            Timekeeper::begin(),
            Arc::new(HealthMetrics::default()),
        )
    }

    fn stored() -> Result<Accepted, ReceiveError> {
        Ok(Accepted {
            message_id: "m".to_owned(),
            spooled: false,
        })
    }

    fn not_stored(error: QueueError) -> Result<Accepted, ReceiveError> {
        Err(ReceiveError::NotStored(StoreFailure::Queue(error), String::new()))
    }

    #[test]
    fn strangers_begin_no_outage() {
        let outages = outages();
        for error in [
            ReceiveError::WrongPath,
            ReceiveError::NotSigned(Refusal::Missing),
            ReceiveError::NoMatch,
            ReceiveError::Body(BodyError::Slow),
            ReceiveError::Body(BodyError::MemoryFull),
            ReceiveError::Body(BodyError::TooLarge),
        ] {
            outages.note(&Err(error));
        }
        outages.note(&not_stored(QueueError::Stopping));
        outages.note(&stored());
        assert!(outages.readiness_note().is_none());
        assert_eq!(outages.facts(outages.time.now()).len(), 0);
        assert_eq!(outages.metrics.outage.get(), 0);
    }

    #[test]
    fn every_failure_of_ours_to_a_request_that_may_be_rings_counts() {
        for outcome in [
            not_stored(QueueError::Unavailable),
            not_stored(QueueError::TimedOut),
            Err(ReceiveError::NoKeys),
            Err(ReceiveError::KeysInDoubt),
        ] {
            let outages = outages();
            outages.note(&outcome);
            outages.note(&outcome);
            assert_eq!(outages.metrics.outage.get(), 1, "{outcome:?}");
            assert_eq!(outages.metrics.outage_answers.get(), 2);
            assert!(
                outages
                    .readiness_note()
                    .is_some_and(|note| note.message.contains("gives up on the first in"))
            );
        }
    }

    #[test]
    fn an_outage_that_is_over_shows_in_no_metric_but_on_the_page() {
        let metrics = Arc::new(HealthMetrics::default());
        let outages = Outages::new(0, Timekeeper::begin(), Arc::clone(&metrics));
        outages.note(&not_stored(QueueError::Unavailable));
        let [started, loss, forgotten] = [
            metrics.outage_started.get(),
            metrics.outage_first_loss.get(),
            metrics.outage_forgotten.get(),
        ];
        assert!(started > 0 && (loss - started).abs_diff(4_356) <= 1 && forgotten - loss == 259_200);
        outages.note(&stored());
        outages.look();
        assert_eq!((metrics.outage.get(), metrics.outage_started.get()), (0, 0));
        let facts = outages.facts(outages.time.now());
        assert_eq!(
            (facts.len(), facts[0].answers_5xx, facts[0].answers_200),
            (1, 1, 0)
        );
        assert!(facts[0].ended_at_ms.is_some() && outages.readiness_note().is_none());
    }

    #[test]
    fn spans_read_well() {
        assert_eq!(
            [words(-5), words(59_999), words(4_356_000), words(200_000)],
            ["0s", "59s", "1h 12m", "3m 20s"]
        );
    }
}
