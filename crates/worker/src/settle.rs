//! Settling: does what was decided about each delivery of a piece, so that the whole piece may be acked.
//!
//! It neither takes deliveries nor acks them. Nothing is ever given back one by one: a nack in a loop would carry
//! the whole queue into the dead letters within seconds of an outage.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use porchlight_device::{Command, News, Outcome, Reason};
use porchlight_event::queue::{DeathNote, Delivery, RetryTier};
use porchlight_event::{Envelope, TraceParent};
use porchlight_queue::{Deadlines, Queue, QueueError, SourceHandle, Stored};
use porchlight_service::LogGate;

use crate::clerk::{Answer, Clerk};
use crate::decide::{Death, Decision, Stage, decide};
use crate::hold::Hold;
use crate::keys::KeysInForce;
use crate::metrics::{WorkerMetrics, fresh_since, type_label};
use crate::piece::Piece;
use crate::spans::AtWork;
use crate::{now_ms, shown};

/// For one copy to be confirmed: a queue that works answers in milliseconds.
const COPY_CONFIRM_MAX: Duration = Duration::from_secs(5);
/// Tries of an event that the ledger fails on although it takes writes. More than one, since a failover can garble an
/// answer, and since all but the first are alone in their request, so that no event is charged with what another did;
/// few, since nothing behind it is acked meanwhile.
const REFUSALS_MAX: u32 = 3;

/// Settles pieces; shared by all that are at work at once.
pub(crate) struct Settler {
    pub(crate) clerk: Arc<Clerk>,
    pub(crate) queue: Queue,
    pub(crate) source: SourceHandle,
    pub(crate) keys: KeysInForce,
    pub(crate) metrics: Arc<WorkerMetrics>,
    /// For the lines about dead letters, by reason.
    pub(crate) log_gate: LogGate,
    pub(crate) hold_max: Duration,
}

/// A piece that may be acked.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) incarnation: u64,
    /// Everything up to here is done.
    pub(crate) last_tag: u64,
    pub(crate) events: usize,
    /// Newly owed; they are in the outbox, too.
    pub(crate) commands: Vec<Command>,
}

/// A piece that is not settled and must not be acked.
#[derive(Debug)]
pub(crate) struct GaveUp {
    /// Whose deliveries are to go back.
    pub(crate) incarnation: u64,
    pub(crate) events: usize,
    pub(crate) failed: Failed,
}

/// What a piece was held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The ledger did not take it in time.
    Ledger,
    /// The queue did not take a copy in time.
    Queue,
    /// Its deliveries cannot be acked any more and come again: there is nothing left to hold it for.
    Incarnation,
}

/// A copy that must be confirmed before the original is acked.
struct Copy {
    envelope: Envelope,
    fate: Fate,
    at_work: AtWork,
}

enum Fate {
    PutOff {
        tier: RetryTier,
        /// The label of the event's type.
        kind: &'static str,
    },
    Buried {
        death: Death,
        at_ms: i64,
    },
}

/// News on its way into the ledger; beside each its case.
#[derive(Default)]
struct Candidates {
    news: Vec<News>,
    cases: Vec<Case>,
}

/// What is needed to bury news instead, and how it went so far.
struct Case {
    envelope: Envelope,
    at_work: AtWork,
    refusals: u32,
}

impl Candidates {
    fn with_capacity(count: usize) -> Self {
        Self {
            news: Vec::with_capacity(count),
            cases: Vec::with_capacity(count),
        }
    }

    fn push(&mut self, news: News, case: Case) {
        self.news.push(news);
        self.cases.push(case);
    }

    /// Those that were refused before alone, and the others together before them.
    fn into_requests(self) -> Vec<Self> {
        if self.cases.iter().all(|case| case.refusals == 0) {
            return vec![self];
        }
        let mut requests = vec![Self::default()];
        for (news, case) in self.into_iter() {
            if case.refusals > 0 {
                requests.push(Self::default());
                let last = requests.len() - 1;
                requests[last].push(news, case);
            } else {
                requests[0].push(news, case);
            }
        }
        requests.retain(|request| !request.news.is_empty());
        requests
    }

    fn into_iter(self) -> impl Iterator<Item = (News, Case)> {
        self.news.into_iter().zip(self.cases)
    }
}

impl Settler {
    /// Settles every delivery of a piece, or gives the piece up as a whole.
    ///
    /// # Cancel safety
    /// Dropping it half-way is like a crash: what was applied is a duplicate when it comes again, and a copy that was
    /// sent may be sent twice.
    pub(crate) async fn settle(&self, turn: usize, piece: Piece) -> Result<Settled, GaveUp> {
        let began = Instant::now();
        let (incarnation, last_tag, events) = (piece.incarnation, piece.last_tag(), piece.deliveries.len());
        let received_at_ms: Vec<i64> = piece
            .deliveries
            .iter()
            .filter_map(|delivery| fresh_since(&delivery.envelope))
            .collect();
        let (candidates, copies) = self.sort(piece.deliveries);
        let applying = self.apply(turn, candidates, incarnation);
        let settled = futures_util::try_join!(applying, self.copy(copies, incarnation));
        let (commands, ()) = settled.map_err(|failed| GaveUp {
            incarnation,
            events,
            failed,
        })?;
        self.metrics.applied(began.elapsed());
        self.metrics.settled_after(&received_at_ms);
        Ok(Settled {
            incarnation,
            last_tag,
            events,
            commands,
        })
    }

    /// Decides about each delivery, and says in one match what settles it.
    fn sort(&self, deliveries: Vec<Delivery>) -> (Candidates, Vec<Copy>) {
        let keys = self.keys.borrow().clone();
        let now_ms = now_ms();
        let mut candidates = Candidates::with_capacity(deliveries.len());
        let mut copies = Vec::new();
        for delivery in deliveries {
            let mut at_work = AtWork::begin(&delivery);
            let envelope = delivery.envelope;
            match decide(&envelope, keys.as_deref(), now_ms) {
                Decision::Apply(mut news) => {
                    at_work.apply(&news.event_type, &news.event_id);
                    news.traceparent = at_work.traceparent(&envelope);
                    let refusals = 0;
                    candidates.push(
                        *news,
                        Case {
                            envelope,
                            at_work,
                            refusals,
                        },
                    );
                }
                Decision::PutOff { tier, attempt, kind } => {
                    copies.push(Copy {
                        envelope: Envelope { attempt, ..envelope },
                        fate: Fate::PutOff { tier, kind },
                        at_work,
                    });
                }
                Decision::Bury(death) => copies.push(Copy {
                    envelope,
                    fate: Fate::Buried { death, at_ms: now_ms },
                    at_work,
                }),
            }
        }
        (candidates, copies)
    }

    /// Applies what the ledger takes, again and again until it took everything or patience runs out.
    async fn apply(
        &self,
        turn: usize,
        mut left: Candidates,
        incarnation: u64,
    ) -> Result<Vec<Command>, Failed> {
        let mut commands = Vec::new();
        let mut hopeless = Vec::new();
        let mut hold = Hold::new(self.hold_max);
        let mut tries = 0;
        while !left.news.is_empty() {
            tries += 1;
            let mut again = Candidates::default();
            for ((news, mut case), answer) in self.ask(turn, left).await {
                match answer {
                    Answer::Settled {
                        outcome,
                        reason,
                        commands: owed,
                    } => {
                        log_settled(&case.envelope, &news, outcome, reason, owed.len());
                        case.at_work.settled(outcome, reason, tries);
                        self.metrics.settled(type_label(&news.event_type), outcome.code());
                        if matches!(outcome, Outcome::Applied | Outcome::Recorded) {
                            self.metrics.lag.applied(news.timestamp_ms);
                        }
                        commands.extend(owed);
                    }
                    Answer::Refused if case.refusals + 1 >= REFUSALS_MAX && self.clerk.probe().await => {
                        hopeless.push(bury_hopeless(news, case));
                    }
                    Answer::Refused => {
                        case.refusals += 1;
                        again.push(news, case);
                    }
                    Answer::Fault => again.push(news, case),
                }
            }
            left = again;
            if !left.news.is_empty() {
                self.wait(&mut hold, incarnation, Failed::Ledger).await?;
            }
        }
        self.copy(hopeless, incarnation).await?;
        Ok(commands)
    }

    /// Asks the ledger once about each: together, but for those that it refused before.
    async fn ask(&self, turn: usize, all: Candidates) -> Vec<((News, Case), Answer)> {
        let mut answered = Vec::with_capacity(all.news.len());
        let mut is_up = true;
        for some in all.into_requests() {
            let answers = if is_up {
                self.clerk.apply(turn, &some.news).await
            } else {
                some.news.iter().map(|_| Answer::Fault).collect()
            };
            is_up = !answers.iter().any(|answer| matches!(answer, Answer::Fault));
            answered.extend(some.into_iter().zip(answers));
        }
        answered
    }

    /// Waits before the next try, unless patience has run out or the deliveries come again anyway.
    async fn wait(&self, hold: &mut Hold, incarnation: u64, failed: Failed) -> Result<(), Failed> {
        self.metrics.held_try();
        let wait = hold.next_wait().ok_or(failed)?;
        tokio::select! {
            biased;
            () = self.source.ended(incarnation) => Err(Failed::Incarnation),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }

    /// Stores every copy, again and again until patience runs out.
    async fn copy(&self, copies: Vec<Copy>, incarnation: u64) -> Result<(), Failed> {
        let mut waiting: FuturesUnordered<_> = copies
            .into_iter()
            .map(|copy| self.copy_one(copy, incarnation))
            .collect();
        while let Some(copied) = waiting.next().await {
            copied?;
        }
        Ok(())
    }

    async fn copy_one(&self, copy: Copy, incarnation: u64) -> Result<(), Failed> {
        let mut hold = Hold::new(self.hold_max);
        let copying = match &copy.fate {
            Fate::PutOff { .. } => copy.at_work.copy("put off", "porchlight.retry"),
            Fate::Buried { .. } => copy.at_work.copy("bury", "porchlight.dead"),
        };
        loop {
            match self.store(&copy).await {
                Ok(_) => break,
                Err(error) => tracing::debug!(%error, "a copy is not confirmed yet"),
            }
            self.wait(&mut hold, incarnation, Failed::Queue).await?;
        }
        drop(copying);
        match copy.fate {
            Fate::PutOff { kind, .. } => {
                self.metrics.settled(kind, "later");
                tracing::debug!(
                    message.id = copy.envelope.message_id,
                    attempt = copy.envelope.attempt,
                    trace.id = copy.envelope.trace_id(),
                    "event put off"
                );
                copy.at_work.copied("later", None);
            }
            Fate::Buried { death, .. } => {
                self.metrics.settled(death.kind, "dead");
                self.metrics.buried(death.reason);
                self.log_death(&copy.envelope, &death);
                copy.at_work.copied("dead", Some(death.reason));
            }
        }
        Ok(())
    }

    fn log_death(&self, envelope: &Envelope, death: &Death) {
        if let Some(suppressed) = self.log_gate.admit(death.reason) {
            tracing::warn!(
                message.id = envelope.message_id,
                event.id = death.event_id.as_deref().map(shown),
                reason = death.reason,
                stage = death.stage.code(),
                detail = death.detail,
                trace.id = envelope.trace_id(),
                suppressed,
                "event dead-lettered"
            );
        }
    }

    async fn store(&self, copy: &Copy) -> Result<Stored, QueueError> {
        let deadlines = Deadlines::within(COPY_CONFIRM_MAX);
        match &copy.fate {
            Fate::PutOff { tier, .. } => self.queue.put_off(&copy.envelope, *tier, deadlines).await,
            Fate::Buried { death, at_ms } => {
                let note = DeathNote {
                    reason: death.reason,
                    stage: death.stage.code(),
                    detail: &death.detail,
                    at_ms: *at_ms,
                };
                self.queue.bury(&copy.envelope, note, deadlines).await
            }
        }
    }
}

fn log_settled(envelope: &Envelope, news: &News, outcome: Outcome, reason: Reason, commands: usize) {
    tracing::debug!(
        message.id = envelope.message_id,
        event.id = shown(&news.event_id),
        event.type = shown(&news.event_type),
        device.id = news.device_id().map(shown),
        outcome = outcome.code(),
        reason = reason.code(),
        commands,
        trace.id = news.traceparent.as_ref().map(TraceParent::trace_id),
        "event settled"
    );
}

fn bury_hopeless(news: News, mut case: Case) -> Copy {
    let detail = format!("the ledger failed on it {REFUSALS_MAX} times although it takes writes");
    let death = Death::new("ledger_refused", Stage::Apply, detail).of(&news.event_type, news.event_id);
    let at_ms = now_ms();
    case.at_work.refused();
    Copy {
        envelope: case.envelope,
        fate: Fate::Buried { death, at_ms },
        at_work: case.at_work,
    }
}
