//! Dead letters where they lie, RabbitMQ or a standalone's file; commands that no receiver took go back to the ledger.
//!
//! How letters are read and moved safely is the queue crate's.

use std::time::Duration;

use porchlight_broker::DeadLetterError;
use porchlight_device::OweAgain;
use porchlight_device::command::Command;
use porchlight_event::TraceParent;
use porchlight_event::queue::DeadLetter;
use porchlight_event::replay::{Owing, ReplayOptions, ReplaySummary, Settled, Wish};
use porchlight_ledger::Ledger;
use porchlight_queue::dead::Walk;
use porchlight_queue::{DeadLetters, DeadLettersError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::facts::Row;
use super::letters::{Pace, Peeked, Sight};
use super::shown::Shown;
use super::wire::Replayed;
use crate::clock::now_ms;
use crate::failure::{Failure, chain};

/// For SQLite to answer one question.
const READ_MAX: Duration = Duration::from_secs(5);
/// Letters of a page, and bytes of their bodies: what this process holds of them.
const PAGE_LETTERS: usize = 64;
const PAGE_BYTES_MAX: usize = 4 << 20;

/// The letters and what replaying them needs.
pub(super) struct Direct {
    pub(super) letters: DeadLetters,
    pub(super) ledger: Ledger,
}

impl Direct {
    pub(super) async fn walk(&self) -> Result<Walk, Failure> {
        self.letters.walk().await.map_err(|error| unreadable(&error))
    }

    pub(super) async fn show(
        &self,
        prefix: &str,
        count_max: usize,
        with_body: bool,
    ) -> Result<Vec<Shown>, Failure> {
        let shown = |letter: &DeadLetter| {
            let shown = Shown::of(letter);
            if with_body {
                shown.with_body(&letter.envelope.body)
            } else {
                shown
            }
        };
        // A file has an index of ids.
        if let DeadLetters::Sqlite(queue) = &self.letters {
            let found = queue
                .letters_named(prefix, count_max, Instant::now() + READ_MAX)
                .await;
            let found = found.map_err(|error| unreadable(&error.into()))?;
            return Ok(found.iter().map(|found| shown(&found.letter)).collect());
        }
        let mut found = Vec::new();
        let mut walk = self.walk().await?;
        while found.len() < count_max {
            let page = page_of(&mut walk).await?;
            if page.is_empty() {
                break;
            }
            let named = page
                .iter()
                .filter(|letter| letter.envelope.message_id.starts_with(prefix));
            found.extend(named.take(count_max - found.len()).map(shown));
        }
        walk.close().await;
        Ok(found)
    }

    pub(super) async fn work_through(
        &self,
        pace: Pace,
        stop: &CancellationToken,
        mut wish: impl FnMut(&Row) -> Wish,
        mut progress: impl FnMut(&ReplaySummary, Option<&Replayed>),
    ) -> Result<ReplaySummary, Failure> {
        let options = ReplayOptions {
            action: pace.action,
            force: pace.force,
            per_second_max: pace.per_second_max,
            ..ReplayOptions::default()
        };
        let owe = async |letter: DeadLetter| owe_again(&self.ledger, &letter).await;
        let mut done = ReplaySummary::default();
        let told = |summary: &ReplaySummary, settled: Option<&Settled>| {
            done.clone_from(summary);
            progress(summary, settled.map(Replayed::of).as_ref());
        };
        let text = pace.text.as_deref();
        let worked = self.letters.work_through(
            &options,
            stop,
            now_ms,
            |letter| wish(&Row::looked_at(letter, text)),
            owe,
            told,
        );
        match worked.await {
            Ok(summary) => Ok(summary),
            // What was done is to be told.
            Err(error) if done.seen > 0 => {
                let why = porchlight_event::replay::StopReason::Lost(chain(&error));
                done.stopped_by.get_or_insert(why);
                Ok(done)
            }
            Err(error) => Err(unreadable(&error)),
        }
    }
}

/// The next letters of a walk; none at its end.
pub(super) async fn page_of(walk: &mut Walk) -> Result<Vec<DeadLetter>, Failure> {
    let page = walk.page(PAGE_LETTERS, PAGE_BYTES_MAX).await;
    page.map_err(|error| unreadable(&error))
}

impl Peeked {
    pub(super) fn of(letter: DeadLetter, sight: &Sight) -> Self {
        Self {
            row: Row::looked_at(&letter, sight.text.as_deref()),
            key: None,
            letter: Some(letter),
        }
    }
}

/// Hands a command that no receiver took back to the ledger.
pub(crate) async fn owe_again(ledger: &Ledger, letter: &DeadLetter) -> Owing {
    let mut command = match Command::from_body(&letter.envelope.body) {
        Ok(command) => command,
        Err(error) => return Owing::Unusable(chain(&error)),
    };
    let trace = letter.envelope.traceparent.as_deref();
    command.cause.traceparent = trace.and_then(TraceParent::parse);
    match ledger.owe_again(&command, now_ms()).await {
        Ok(OweAgain::Owed) => Owing::Owed,
        Ok(OweAgain::Overtaken) => Owing::Overtaken,
        Err(error) => Owing::Failed(chain(&error)),
    }
}

pub(super) fn unreadable(error: &DeadLettersError) -> Failure {
    let failure = Failure::unavailable("the dead letters").because(error);
    let server = "is RabbitMQ running, and is it the one at --amqp-url? For a standalone: --data-dir DIR";
    match error {
        DeadLettersError::RabbitMq(DeadLetterError::Connect(_)) => failure.advise(server),
        DeadLettersError::RabbitMq(DeadLetterError::NoQueue) => {
            failure.advise("start an ingress or a worker once; it makes the queues")
        }
        DeadLettersError::RabbitMq(DeadLetterError::Busy) => {
            failure.advise("wait for the other `porchlight dead`, export or import to end, or stop it")
        }
        DeadLettersError::RabbitMq(DeadLetterError::Lost(_)) => {
            failure.advise("the same again; looking loses nothing")
        }
        DeadLettersError::NotReady(_) | DeadLettersError::Sqlite(_) => failure.advise("porchlight status"),
    }
}
