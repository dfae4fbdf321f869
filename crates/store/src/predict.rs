//! Saying what would become of events and commands now, and changing nothing: no mark, no account, no time to live.
//!
//! It decides nothing: the scripts hold the same text as those that apply, up to the point where those begin to write,
//! and the server runs them under a flag that forbids every write.

use crate::accounts::Note;
use crate::apply::{Pending, ROUNDS_MAX, Scripts, hand_out, pending, wanted};
use crate::keys::Partition;
use crate::outbox::{owing, read_owing};
use crate::script::{Call, Script};
use crate::{Store, StoreError, reply};
use porchlight_device::{ActionCounts, Command, News, Outcome, OweAgain, Prediction, Reason};
use redis::Value;
use std::collections::BTreeSet;

const PREDICT: Scripts = Scripts {
    device: Script::PredictEvent,
    other: Script::PredictAccount,
};

/// What a script answered.
enum Answer {
    Predicted(Prediction),
    /// The devices of an account would be told, and owe something, too.
    Spreads(Prediction, Note),
    NeedsShape,
    NeedsAccount(String),
}

impl Store {
    /// Says what [`Store::apply_batch`] would answer about each event now, as if it were the only one. Nothing changes.
    /// 64 to 256 at once keep both sides busy. The commands that would be owed are counted with those that wait for
    /// their device to settle, on all devices of an account.
    ///
    /// # Errors
    /// Each event has its own [`StoreError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn predict(&self, news: &[News], now_ms: i64) -> Vec<Result<Prediction, StoreError>> {
        let shard = self.any_shard();
        let mut results = vec![Err(StoreError::Contended); news.len()];
        let mut open: Vec<Pending> = news.iter().enumerate().map(pending).collect();
        for _ in 0..ROUNDS_MAX {
            if open.is_empty() {
                break;
            }
            let answers = self.ask(shard, &open, now_ms).await;
            let mut again = Vec::new();
            for (event, answer) in open.into_iter().zip(answers) {
                let predicted = match answer {
                    Ok(Answer::NeedsShape) => {
                        self.marks().forget(event.place.partition);
                        again.push((event, None));
                        continue;
                    }
                    Ok(Answer::NeedsAccount(account)) => {
                        again.push((event, Some(account)));
                        continue;
                    }
                    Ok(Answer::Predicted(prediction)) => Ok(prediction),
                    Ok(Answer::Spreads(prediction, note)) => {
                        let owes = self.predict_spread(shard, &note, now_ms).await;
                        owes.map(|owes| Prediction { owes, ..prediction })
                    }
                    Err(error) => Err(error),
                };
                results[event.index] = predicted;
            }
            open = self.with_looked_at(shard, again, &mut results).await;
        }
        results
    }

    /// Says what [`Store::owe_again`] would answer about each command now. Nothing changes.
    ///
    /// # Errors
    /// Each command has its own [`StoreError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn predict_owe_again(
        &self,
        commands: &[Command],
        now_ms: i64,
    ) -> Vec<Result<OweAgain, StoreError>> {
        let calls = commands
            .iter()
            .map(|command| owing(Script::PredictOwing, command, now_ms));
        let answers = self.run(self.any_shard(), calls.collect()).await;
        answers.into_iter().map(|answer| read_owing(&answer?)).collect()
    }

    async fn ask(&self, shard: usize, open: &[Pending<'_>], now_ms: i64) -> Vec<Result<Answer, StoreError>> {
        let partitions: BTreeSet<Partition> = open.iter().map(|event| event.place.partition).collect();
        let looked = self.look_at_marks(shard, &partitions).await;
        let calls = looked.and_then(|()| open.iter().map(|event| self.look(event, now_ms)).collect());
        match calls {
            Err(error) => open.iter().map(|_| Err(error.clone())).collect(),
            Ok(calls) => {
                let answers = self.run(shard, calls).await.into_iter();
                answers.map(|answer| answer.and_then(read_answer)).collect()
            }
        }
    }

    /// The call for one event. Contended when another call gave the shape up since it was read.
    fn look(&self, event: &Pending, now_ms: i64) -> Result<Call, StoreError> {
        let Pending { news, place, .. } = event;
        let shape = self.marks().shape(place.partition).ok_or(StoreError::Contended)?;
        let lookup = shape.look(place.partition, news.identity_mark, news.request_mark, now_ms);
        Ok(event.call(PREDICT, &shape, lookup, self.times(now_ms)))
    }

    /// Reads the registers of the accounts that were asked for. Events whose account cannot be read get that error.
    async fn with_looked_at<'a>(
        &self,
        shard: usize,
        again: Vec<(Pending<'a>, Option<String>)>,
        results: &mut [Result<Prediction, StoreError>],
    ) -> Vec<Pending<'a>> {
        let read = self.look_at_accounts(shard, wanted(&again)).await;
        hand_out(again, read, results)
    }
}

fn read_answer(answer: Value) -> Result<Answer, StoreError> {
    let mut parts = reply::list(answer)?.into_iter();
    let mut next = || parts.next().unwrap_or(Value::Nil);
    match reply::text(next())?.as_str() {
        "shape" => return Ok(Answer::NeedsShape),
        "account" => return Ok(Answer::NeedsAccount(reply::text(next())?)),
        "duplicate" => {
            return Ok(Answer::Predicted(Prediction {
                outcome: Outcome::Duplicate,
                reason: Reason::Seen,
                owes: ActionCounts::default(),
            }));
        }
        "ok" => {}
        _ => return Err(StoreError::Unreadable("an answer of an unexpected form")),
    }
    let odd = StoreError::Unreadable("an outcome");
    let mut prediction = Prediction {
        outcome: Outcome::from_code(&reply::text(next())?).ok_or(odd.clone())?,
        reason: Reason::from_code(&reply::text(next())?).ok_or(odd)?,
        owes: ActionCounts::default(),
    };
    match next() {
        Value::BulkString(note) if note.is_empty() => {}
        Value::BulkString(note) => return Ok(Answer::Spreads(prediction, Note::read(note)?)),
        first => {
            let counts: Vec<Value> = std::iter::once(first).chain(parts).collect();
            prediction.owes = reply::action_counts(&counts)?;
        }
    }
    Ok(Answer::Predicted(prediction))
}
