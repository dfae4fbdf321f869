//! Dead letters where they lie, RabbitMQ or a standalone's file; commands that no receiver took go back to the ledger.
//!
//! How letters are read and moved safely is the queue crate's.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Duration;

use porchlight_broker::DeadLetterError;
use porchlight_device::OweAgain;
use porchlight_device::command::Command;
use porchlight_event::queue::DeadLetter;
use porchlight_event::replay::{self, Owing, ReplayOptions, ReplaySummary, Settled};
use porchlight_ledger::Ledger;
use porchlight_queue::{DeadLetters, DeadLettersError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::facts::Row;
use super::letters::{Pace, Progress, Seen};
use super::shown::Shown;
use super::wire::{Fate, Replayed};
use crate::clock::now_ms;
use crate::failure::{Failure, chain};

/// For SQLite to answer one question.
const READ_MAX: Duration = Duration::from_secs(5);
/// After a stop, for the letters under way to be settled, so that each that was moved is told.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// The letters and what replaying them needs.
pub(super) struct Direct {
    pub(super) letters: DeadLetters,
    pub(super) ledger: Ledger,
}

impl Direct {
    pub(super) async fn look(&self, mut visit: impl FnMut(Row) -> ControlFlow<()>) -> Result<Seen, Failure> {
        let count_max = self.letters.look_max().unwrap_or(usize::MAX);
        let listed = self
            .letters
            .list(count_max, |letter| visit(Row::of(&letter)))
            .await;
        let listed = listed.map_err(|error| unreadable(&error))?;
        Ok(Seen {
            ready: listed.ready,
            seen: listed.seen,
        })
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
        let visit = |letter: DeadLetter| {
            if letter.envelope.message_id.starts_with(prefix) {
                found.push(shown(&letter));
            }
            if found.len() < count_max {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        let listed = self.letters.list(usize::MAX, visit).await;
        listed.map_err(|error| unreadable(&error))?;
        Ok(found)
    }

    pub(super) async fn replay(
        &self,
        pace: Pace,
        stop: &CancellationToken,
        mut wanted: impl FnMut(&Row) -> bool,
        mut progress: impl FnMut(&Progress, Option<&Replayed>),
    ) -> Result<Progress, Failure> {
        let options = ReplayOptions {
            force: pace.force,
            per_second_max: pace.per_second_max,
            ..ReplayOptions::default()
        };
        // The commands that were owed again: to the queue, they are replayed as all others.
        let owed = RefCell::new(BTreeSet::new());
        let owe = async |letter: DeadLetter| match owe_again(&self.ledger, &letter).await {
            Ok(Fate::Overtaken) => Owing::Overtaken,
            Ok(_) => {
                owed.borrow_mut().insert(letter.envelope.message_id);
                Owing::Owed
            }
            Err(why) => Owing::Failed(why),
        };
        let passed_by = Cell::new(0);
        let wanted = |letter: &DeadLetter| {
            if stop.is_cancelled() {
                passed_by.set(passed_by.get() + 1);
                return false;
            }
            wanted(&Row::of(letter))
        };
        let mut done = Progress::default();
        let told = |summary: &ReplaySummary, settled: Option<&Settled>| {
            done.ready = summary.ready;
            done.seen = summary.seen - passed_by.get();
            done.unwanted = summary.unwanted - passed_by.get();
            let settled = settled.map(|settled| replayed(settled, &owed.borrow()));
            if let Some(settled) = &settled {
                done.count(&settled.fate);
            }
            progress(&done, settled.as_ref());
        };
        let ended = {
            let mut run = pin!(self.letters.replay(&options, now_ms, wanted, owe, told));
            let stopped = async {
                stop.cancelled().await;
                tokio::time::sleep(SETTLE_MAX).await;
            };
            tokio::select! {
                ended = &mut run => Some(ended),
                // Dropped half-way it loses nothing.
                () = stopped => None,
            }
        };
        match ended {
            Some(Err(DeadLettersError::NotReady(_))) if stop.is_cancelled() => {}
            Some(Err(error @ DeadLettersError::NotReady(_))) => return Err(unreadable(&error)),
            Some(Err(error)) if done.seen == 0 => return Err(unreadable(&error)),
            Some(Err(error)) => done.stopped_by = Some(chain(&error)),
            Some(Ok(summary)) => {
                done.ready = summary.ready;
                done.stopped_by = summary
                    .stopped_by
                    .map(|reason| reason.to_string())
                    .or(done.stopped_by);
            }
            None => {}
        }
        if stop.is_cancelled() {
            done.stopped_by.get_or_insert_with(|| "a signal".to_owned());
        }
        Ok(done)
    }
}

/// Hands a command that no receiver took back to the ledger; why not, in words.
pub(crate) async fn owe_again(ledger: &Ledger, letter: &DeadLetter) -> Result<Fate, String> {
    let command = Command::from_body(&letter.envelope.body).map_err(|error| chain(&error))?;
    match ledger.owe_again(&command, now_ms()).await {
        Ok(OweAgain::Owed) => Ok(Fate::OwedAgain),
        Ok(OweAgain::Overtaken) => Ok(Fate::Overtaken),
        Err(error) => Err(chain(&error)),
    }
}

/// `owed` has the commands that were handed back to the ledger.
fn replayed(settled: &Settled, owed: &BTreeSet<String>) -> Replayed {
    let fate = match &settled.fate {
        replay::Fate::Replayed if owed.contains(&settled.message_id) => Fate::OwedAgain,
        replay::Fate::Replayed => Fate::Replayed,
        replay::Fate::Overtaken => Fate::Overtaken,
        replay::Fate::Refused => Fate::Refused,
        replay::Fate::Kept(why) => Fate::Kept(why.clone()),
    };
    Replayed {
        key: settled.message_id.clone(),
        message_id: Some(settled.message_id.clone()),
        reason: Some(settled.reason.clone()),
        replays: settled.replayed_before + u32::from(fate == Fate::Replayed),
        fate,
    }
}

fn unreadable(error: &DeadLettersError) -> Failure {
    let failure = Failure::unavailable("the dead letters").because(error);
    let server = "is RabbitMQ running, and is it the one at --amqp-url? For a standalone: --data-dir DIR";
    match error {
        DeadLettersError::RabbitMq(DeadLetterError::Connect(_)) => failure.advise(server),
        DeadLettersError::RabbitMq(DeadLetterError::NoQueue) => {
            failure.advise("start an ingress or a worker once; it makes the queues")
        }
        DeadLettersError::RabbitMq(DeadLetterError::Lost(_)) => {
            failure.advise("the same again; looking loses nothing")
        }
        DeadLettersError::NotReady(_) | DeadLettersError::Sqlite(_) => failure.advise("porchlight status"),
    }
}
