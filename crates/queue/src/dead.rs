//! Dead letters: looking at them without consuming any, and sending them round again.
//!
//! Which of them is worth it is the caller's; so is how a command is owed again.

use std::ops::ControlFlow;
use std::time::Duration;

use porchlight_broker::{
    self as broker, BrokerUrls, Publisher, PublisherConfig, QueueState, dead_letter::HELD_MAX,
};
use porchlight_event::queue::{DeadLetter, Origin};
use porchlight_event::replay::{
    Fate, Owing, REPLAY_COUNT_MAX, ReplayOptions, ReplaySummary, Settled, StopReason,
};
use porchlight_journal::{self as journal, JournalError};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

pub use porchlight_broker::dead_letter::Listed;

/// For a connection to publish on.
const READY_MAX: Duration = Duration::from_secs(15);
/// For what a replay still has under way at its end; nothing, normally.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// For SQLite to answer one question.
const READ_MAX: Duration = Duration::from_secs(5);
/// Letters read at once.
const PAGE: usize = 64;

/// Where dead letters lie.
#[derive(Debug, Clone)]
pub enum DeadLetters {
    /// RabbitMQ: `porchlight.dead`. The configuration says where, under which role, and which topology is published to.
    RabbitMq(Box<PublisherConfig>),
    /// SQLite.
    Sqlite(journal::Queue),
}

/// Why dead letters could not be read or replayed.
#[derive(Debug, thiserror::Error)]
pub enum DeadLettersError {
    /// RabbitMQ could not be read.
    #[error(transparent)]
    RabbitMq(#[from] broker::DeadLetterError),
    /// RabbitMQ takes no copies.
    #[error("no connection to publish on came about{}", .0.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    NotReady(Option<String>),
    /// SQLite could not be read or written.
    #[error(transparent)]
    Sqlite(#[from] JournalError),
}

impl DeadLettersError {
    /// Whether there is no place for letters at all: no daemon has ever connected to this broker.
    #[must_use]
    pub fn is_no_queue(&self) -> bool {
        matches!(self, Self::RabbitMq(broker::DeadLetterError::NoQueue))
    }
}

impl DeadLetters {
    /// Those of this broker.
    #[must_use]
    pub fn in_rabbitmq(urls: BrokerUrls, role: &str) -> Self {
        Self::RabbitMq(Box::new(PublisherConfig::new(urls, role)))
    }

    /// The most letters that one look can show; `None` without a limit.
    #[must_use]
    pub fn look_max(&self) -> Option<usize> {
        match self {
            Self::RabbitMq(_) => Some(HELD_MAX),
            Self::Sqlite(_) => None,
        }
    }

    /// Shows up to `count_max` letters, oldest first; `visit` may break off. None is consumed, whatever crashes.
    ///
    /// # Errors
    /// [`DeadLettersError`]; letters already visited stay valid.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn list(
        &self,
        count_max: usize,
        mut visit: impl FnMut(DeadLetter) -> ControlFlow<()>,
    ) -> Result<Listed, DeadLettersError> {
        match self {
            Self::RabbitMq(config) => {
                Ok(broker::dead_letter::list(&config.urls, &config.role, count_max, visit).await?)
            }
            Self::Sqlite(queue) => {
                let mut pages = Pages::new(queue);
                let mut seen = 0;
                while seen < count_max
                    && let Some(next) = pages.next().await?
                {
                    seen += 1;
                    if visit(next.letter).is_break() {
                        break;
                    }
                }
                let ready = pages.ready().await?;
                Ok(Listed { ready, seen })
            }
        }
    }

    /// Sends the letters that `wanted` picks round again, oldest first. Each is gone from the dead letters only when its
    /// copy is stored. What dies meanwhile is not looked at.
    ///
    /// An event goes back to the events, and a command that died in a queue of commands goes back to that. For a command
    /// that no receiver took, `owe_again` is asked. `progress` is called after every letter looked at, and with each
    /// wanted letter whose fate is settled.
    ///
    /// # Errors
    /// [`DeadLettersError`]; copies already stored may then still be among the letters.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing; copies that were under way may exist beside their letters.
    pub async fn replay<Owed: Future<Output = Owing>>(
        &self,
        options: &ReplayOptions,
        now_ms: impl Fn() -> i64,
        wanted: impl FnMut(&DeadLetter) -> bool,
        owe_again: impl Fn(DeadLetter) -> Owed,
        progress: impl FnMut(&ReplaySummary, Option<&Settled>),
    ) -> Result<ReplaySummary, DeadLettersError> {
        match self {
            Self::RabbitMq(config) => {
                let publisher = ready_publisher(config).await?;
                let (urls, role) = (&config.urls, &config.role);
                let replayed = broker::replay::replay(
                    urls, role, &publisher, options, now_ms, wanted, owe_again, progress,
                );
                let replayed = replayed.await;
                publisher.close(DRAIN_MAX).await;
                Ok(replayed?)
            }
            Self::Sqlite(queue) => replay_rows(queue, options, wanted, owe_again, progress).await,
        }
    }
}

async fn ready_publisher(config: &PublisherConfig) -> Result<Publisher, DeadLettersError> {
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

async fn replay_rows<Owed: Future<Output = Owing>>(
    queue: &journal::Queue,
    options: &ReplayOptions,
    mut wanted: impl FnMut(&DeadLetter) -> bool,
    owe_again: impl Fn(DeadLetter) -> Owed,
    mut progress: impl FnMut(&ReplaySummary, Option<&Settled>),
) -> Result<ReplaySummary, DeadLettersError> {
    let mut pages = Pages::new(queue);
    let mut summary = ReplaySummary {
        ready: pages.ready().await?,
        ..ReplaySummary::default()
    };
    let mut pace = options.per_second_max.map(pace);
    while summary.seen < options.count_max
        && summary.stopped_by.is_none()
        && let Some(next) = pages.next().await?
    {
        summary.seen += 1;
        let mut settled = settled(&next.letter);
        if !wanted(&next.letter) {
            summary.unwanted += 1;
        } else if next.letter.envelope.replay >= REPLAY_COUNT_MAX && !options.force {
            summary.refused += 1;
            settled.fate = Fate::Refused;
            progress(&summary, Some(&settled));
        } else {
            if let Some(pace) = pace.as_mut() {
                pace.tick().await;
            }
            let until = Instant::now() + options.confirm_max;
            if let Some(fate) = replay_one(queue, next, &owe_again, until, &mut summary).await {
                settled.fate = fate;
                progress(&summary, Some(&settled));
            }
        }
        progress(&summary, None);
    }
    Ok(summary)
}

/// What became of it; `None` when somebody else has dealt with the letter meanwhile.
async fn replay_one<Owed: Future<Output = Owing>>(
    queue: &journal::Queue,
    next: journal::Numbered,
    owe_again: &impl Fn(DeadLetter) -> Owed,
    until: Instant,
    summary: &mut ReplaySummary,
) -> Option<Fate> {
    let (seq, origin) = (next.seq, next.letter.origin);
    let (gone, fate) = match origin {
        Origin::Event => (queue.replay_letter(seq, until).await, Fate::Replayed),
        // There is no queue of commands here; what was brought from one is owed to the receiver of this place.
        Origin::Command | Origin::Callback => match owe_again(next.letter).await {
            Owing::Owed => (queue.drop_letter(seq, until).await, Fate::Replayed),
            Owing::Overtaken => (queue.drop_letter(seq, until).await, Fate::Overtaken),
            Owing::Failed(why) => {
                summary.stopped_by = Some(StopReason::Owe(why.clone()));
                return Some(Fate::Kept(why));
            }
        },
    };
    match gone {
        Ok(false) => return None,
        Ok(true) if fate == Fate::Overtaken => summary.overtaken += 1,
        Ok(true) => summary.replayed += 1,
        Err(error) => {
            summary.stopped_by = Some(StopReason::Copy(error.to_string()));
            return Some(Fate::Kept(error.to_string()));
        }
    }
    Some(fate)
}

/// Walks over the letters that were there at the first look.
struct Pages<'a> {
    queue: &'a journal::Queue,
    waiting: std::vec::IntoIter<journal::Numbered>,
    after: i64,
    /// Letters and the newest one's number at the first look.
    at_first: Option<(usize, i64)>,
}

impl<'a> Pages<'a> {
    fn new(queue: &'a journal::Queue) -> Self {
        Self {
            queue,
            waiting: Vec::new().into_iter(),
            after: 0,
            at_first: None,
        }
    }

    async fn ready(&mut self) -> Result<usize, JournalError> {
        if self.at_first.is_none() {
            self.read().await?;
        }
        Ok(self.at_first.map_or(0, |(ready, _)| ready))
    }

    async fn next(&mut self) -> Result<Option<journal::Numbered>, JournalError> {
        if self.waiting.as_slice().is_empty() {
            self.read().await?;
        }
        let last = self.at_first.map_or(0, |(_, last)| last);
        Ok(self.waiting.next().filter(|next| next.seq <= last))
    }

    async fn read(&mut self) -> Result<(), JournalError> {
        let page = self
            .queue
            .letters(self.after, PAGE, Instant::now() + READ_MAX)
            .await?;
        self.after = page.letters.last().map_or(self.after, |last| last.seq);
        let ready = usize::try_from(page.total).unwrap_or(usize::MAX);
        self.at_first.get_or_insert((ready, page.last_seq));
        self.waiting = page.letters.into_iter();
        Ok(())
    }
}

fn settled(letter: &DeadLetter) -> Settled {
    Settled {
        message_id: letter.envelope.message_id.clone(),
        reason: letter.reason.clone(),
        replayed_before: letter.envelope.replay,
        fate: Fate::Replayed,
    }
}

fn pace(per_second_max: u32) -> Interval {
    let mut ticks = interval(Duration::from_secs(1) / per_second_max.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
