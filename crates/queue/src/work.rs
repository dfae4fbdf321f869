//! Works through dead letters: sends each round again, or drops it. A letter is gone only when that is safe.
//!
//! Which of them is worth it is the caller's; so is how a command is owed again.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use porchlight_broker::{PublishDeadlines, Publisher, PublisherConfig, QueueState, replay::copy_of};
use porchlight_event::queue::{DeadLetter, Origin};
use porchlight_event::replay::{
    Action, Fate, Owing, REPLAY_COUNT_MAX, ReplayOptions, ReplaySummary, Settled, StopReason, Wish,
};
use porchlight_journal as journal;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::walk::{Found, Spot, Walk};
use crate::{DeadLetters, DeadLettersError};

/// For a connection to publish on.
const READY_MAX: Duration = Duration::from_secs(15);
/// For what is still under way at the end; nothing, normally.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// Letters under way at once in RabbitMQ: enough to hide the confirm's latency, few enough that a crash repeats little.
const COPIES_MAX: usize = 20;
/// Letters under way at once in SQLite: they share a commit, and a crash repeats none.
const ROWS_MAX: usize = 128;

impl DeadLetters {
    /// Does with the letters that `wish` picks, oldest first, what `options` say, until `stop`. A replayed one is gone from
    /// the dead letters only when its copy is stored. What dies meanwhile is not looked at.
    ///
    /// An event goes back to the events, and a command that died in a queue of commands goes back to that. For a command
    /// that no receiver took, `owe_again` is asked. `progress` is called after every letter looked at, and with each
    /// wanted letter whose fate is settled.
    ///
    /// A stop lets what is under way be settled, which takes [`ReplayOptions::confirm_max`] at most.
    ///
    /// # Errors
    /// [`DeadLettersError`]; copies already stored may then still be among the letters.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing; copies that were under way may exist beside their letters.
    pub async fn work_through<Owed: Future<Output = Owing>>(
        &self,
        options: &ReplayOptions,
        stop: &CancellationToken,
        now_ms: impl Fn() -> i64,
        wish: impl FnMut(&DeadLetter) -> Wish,
        owe_again: impl Fn(DeadLetter) -> Owed,
        progress: impl FnMut(&ReplaySummary, Option<&Settled>),
    ) -> Result<ReplaySummary, DeadLettersError> {
        let hands = Hands::ready(self, options.action).await?;
        let walk = self.walk().await?;
        let mut run = Run {
            summary: ReplaySummary {
                ready: walk.ready(),
                ..ReplaySummary::default()
            },
            walk,
            options,
            stop,
            progress,
        };
        let worked = run.go(&hands, now_ms, wish, owe_again).await;
        let finished = run.walk.finish().await;
        hands.close().await;
        worked?;
        if finished.is_err() {
            // Whatever else ended it: the counts are not sure.
            run.summary.stopped_by = Some(StopReason::Unsettled);
        }
        Ok(run.summary)
    }
}

/// Whether a letter is left alone because it was replayed too often.
#[must_use]
pub fn is_refused(letter: &DeadLetter, options: &ReplayOptions) -> bool {
    options.action == Action::Replay && !options.force && letter.envelope.replay >= REPLAY_COUNT_MAX
}

/// Does with one row what is wanted, each in one commit, and says what became of it.
pub async fn work_on_row<Owed: Future<Output = Owing>>(
    queue: &journal::Queue,
    row: journal::Numbered,
    action: Action,
    owe_again: &impl Fn(DeadLetter) -> Owed,
    until: Instant,
) -> Fate {
    let seq = row.seq;
    let (gone, fate) = match (action, row.letter.origin) {
        (Action::Drop, _) => (queue.drop_letter(seq, until).await, Fate::Dropped),
        (Action::Replay, Origin::Event) => (queue.replay_letter(seq, until).await, Fate::Replayed),
        // There is no queue of commands here; what was brought from one is owed to the receiver of this place.
        (Action::Replay, Origin::Command | Origin::Callback) => match owe(row.letter, owe_again).await {
            fate @ (Fate::Kept(_) | Fate::Unusable(_)) => return fate,
            // The letter goes last: cut off in between, the command is owed twice, under one identity.
            fate => (queue.drop_letter(seq, until).await, fate),
        },
    };
    match gone {
        Ok(true) => fate,
        Ok(false) => Fate::Gone,
        Err(error) if fate == Fate::Replayed => Fate::Kept(StopReason::Copy(error.to_string())),
        Err(error) => Fate::Kept(StopReason::Remove(error.to_string())),
    }
}

async fn owe<Owed: Future<Output = Owing>>(
    letter: DeadLetter,
    owe_again: &impl Fn(DeadLetter) -> Owed,
) -> Fate {
    match owe_again(letter).await {
        Owing::Owed => Fate::OwedAgain,
        Owing::Overtaken => Fate::Overtaken,
        Owing::Unusable(why) => Fate::Unusable(why),
        Owing::Failed(why) => Fate::Kept(StopReason::Owe(why)),
    }
}

/// What does the work on one letter.
enum Hands {
    RabbitMq(Option<Publisher>),
    Sqlite(journal::Queue),
}

/// A letter whose work is done, and its tag where that is to be said to the broker.
struct Done {
    tag: Option<u64>,
    settled: Settled,
}

impl Hands {
    async fn ready(letters: &DeadLetters, action: Action) -> Result<Self, DeadLettersError> {
        Ok(match letters {
            DeadLetters::Sqlite(queue) => Self::Sqlite(queue.clone()),
            DeadLetters::RabbitMq(_) if action == Action::Drop => Self::RabbitMq(None),
            DeadLetters::RabbitMq(config) => Self::RabbitMq(Some(ready_publisher(config).await?)),
        })
    }

    fn inflight_max(&self) -> usize {
        match self {
            Self::RabbitMq(_) => COPIES_MAX,
            Self::Sqlite(_) => ROWS_MAX,
        }
    }

    async fn work<Owed: Future<Output = Owing>>(
        &self,
        found: Found,
        options: &ReplayOptions,
        now_ms: i64,
        owe_again: &impl Fn(DeadLetter) -> Owed,
    ) -> Done {
        let Found { letter, spot } = found;
        let mut settled = settled(&letter, Fate::Gone);
        let mut tag = None;
        settled.fate = match (self, spot) {
            (Self::Sqlite(queue), Spot::Sqlite { seq }) => {
                let row = journal::Numbered { seq, letter };
                let until = Instant::now() + options.confirm_max;
                work_on_row(queue, row, options.action, owe_again, until).await
            }
            (Self::RabbitMq(publisher), Spot::RabbitMq { tag: own, remains }) => {
                tag = Some(own);
                match publisher {
                    None => Fate::Dropped,
                    Some(_) if letter.origin == Origin::Callback => owe(letter, owe_again).await,
                    Some(publisher) => {
                        let copy = copy_of(letter, *remains, now_ms);
                        let stored = publisher.publish(copy, PublishDeadlines::within(options.confirm_max));
                        match stored.await {
                            Ok(_) => Fate::Replayed,
                            Err(error) => Fate::Kept(StopReason::Copy(error.to_string())),
                        }
                    }
                }
            }
            // A walk gives letters of its own place only.
            _ => Fate::Gone,
        };
        Done { tag, settled }
    }

    async fn close(self) {
        if let Self::RabbitMq(Some(publisher)) = self {
            publisher.close(DRAIN_MAX).await;
        }
    }
}

/// One run over the letters.
struct Run<'a, P> {
    walk: Walk,
    summary: ReplaySummary,
    options: &'a ReplayOptions,
    stop: &'a CancellationToken,
    progress: P,
}

impl<P: FnMut(&ReplaySummary, Option<&Settled>)> Run<'_, P> {
    async fn go<Owed: Future<Output = Owing>>(
        &mut self,
        hands: &Hands,
        now_ms: impl Fn() -> i64,
        mut wish: impl FnMut(&DeadLetter) -> Wish,
        owe_again: impl Fn(DeadLetter) -> Owed,
    ) -> Result<(), DeadLettersError> {
        let options = self.options;
        let mut pace = options.per_second_max.map(pace);
        let mut under_way = FuturesUnordered::new();
        while self.goes_on() {
            let (next, done) = meanwhile(&mut under_way, self.walk.next()).await;
            self.settle(done).await?;
            let Some(found) = next? else { break };
            match wish(&found.letter) {
                Wish::Enough => break,
                Wish::Leave => {
                    self.summary.unwanted += 1;
                    self.walk.leave(&found);
                }
                Wish::Take if is_refused(&found.letter, options) => {
                    self.walk.leave(&found);
                    self.tell(&settled(&found.letter, Fate::Refused));
                }
                Wish::Take => {
                    if let Some(pace) = pace.as_mut() {
                        let tick = self.stop.run_until_cancelled(pace.tick());
                        let (_, done) = meanwhile(&mut under_way, tick).await;
                        self.settle(done).await?;
                    }
                    if !self.goes_on() {
                        break;
                    }
                    under_way.push(hands.work(found, options, now_ms(), &owe_again));
                }
            }
            self.summary.seen += 1;
            if under_way.len() >= hands.inflight_max() {
                let done = under_way.next().await;
                self.settle(done).await?;
            }
            (self.progress)(&self.summary, None);
        }
        while let Some(done) = under_way.next().await {
            self.settle([done]).await?;
        }
        let full = self.walk.held_max().map(StopReason::HeldMax);
        let told = (self.stop.is_cancelled() && self.summary.seen < self.summary.ready)
            .then_some(StopReason::Signal);
        self.summary.stopped_by = self.summary.stopped_by.take().or(full).or(told);
        Ok(())
    }

    fn goes_on(&self) -> bool {
        self.summary.seen < self.options.count_max
            && self.summary.stopped_by.is_none()
            && !self.stop.is_cancelled()
    }

    /// Tells each only when the broker was told that the letter is gone, or when it is known to stay. Whether all are gone is
    /// known at the end of the walk.
    async fn settle(&mut self, done: impl IntoIterator<Item = Done>) -> Result<(), DeadLettersError> {
        for Done { tag, settled } in done {
            if let Some(tag) = tag
                && settled.fate.is_moved()
            {
                self.walk.remove(tag).await?;
            }
            self.tell(&settled);
        }
        Ok(())
    }

    fn tell(&mut self, settled: &Settled) {
        self.summary.count(&settled.fate);
        (self.progress)(&self.summary, Some(settled));
    }
}

/// Waits for something, and lets letters under way go on meanwhile: they do only while somebody polls them.
async fn meanwhile<T, F: Future>(
    under_way: &mut FuturesUnordered<F>,
    waiting: impl Future<Output = T>,
) -> (T, Vec<F::Output>) {
    let mut waiting = pin!(waiting);
    let mut done = Vec::new();
    loop {
        tokio::select! {
            ended = &mut waiting => return (ended, done),
            Some(one) = under_way.next() => done.push(one),
        }
    }
}

fn settled(letter: &DeadLetter, fate: Fate) -> Settled {
    Settled {
        message_id: letter.envelope.message_id.clone(),
        reason: letter.reason.clone(),
        replayed_before: letter.envelope.replay,
        fate,
    }
}

fn pace(per_second_max: u32) -> Interval {
    let mut ticks = interval(Duration::from_secs(1) / per_second_max.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

pub(crate) async fn ready_publisher(config: &PublisherConfig) -> Result<Publisher, DeadLettersError> {
    let publisher = Publisher::start(config.clone(), CancellationToken::new());
    let mut state = publisher.state();
    let is_ready = {
        let ready = timeout(READY_MAX, state.wait_for(QueueState::is_ready)).await;
        matches!(ready, Ok(Ok(_)))
    };
    if is_ready {
        return Ok(publisher);
    }
    let why = match &*state.borrow() {
        QueueState::Connecting { last_error } => last_error.clone(),
        QueueState::Blocked { reason } => Some(reason.clone()),
        _ => None,
    };
    publisher.close(Duration::ZERO).await;
    Err(DeadLettersError::NotReady(why))
}
