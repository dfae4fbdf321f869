//! Taking events: many in one round trip, each one atomic step, with second steps only where a device and an
//! account meet.
//!
//! It does not decide anything; the scripts do, as the device crate says.

use crate::accounts::{Note, Registers};
use crate::keys::{Partition, Place};
use crate::marks::{Lookup, Shape};
use crate::script::{Call, Script};
use crate::store::Times;
use crate::{Store, StoreError, marks, reply};
use porchlight_device::view::HistoryEntry;
use porchlight_device::{Action, Cause, Decision, News, Outcome, Reason, Subject};
use redis::Value;
use std::collections::BTreeSet;

/// Rounds in which a batch must come to its end: one, a second for what needs an account's registers or a new shape
/// of the marks, and some for others who move the same devices meanwhile.
pub(crate) const ROUNDS_MAX: usize = 6;

/// One event on its way.
pub(crate) struct Pending<'a> {
    pub(crate) index: usize,
    pub(crate) news: &'a News,
    pub(crate) place: Place,
    pub(crate) registers: Option<Registers>,
}

/// The scripts of one purpose, by what an event is about.
#[derive(Clone, Copy)]
pub(crate) struct Scripts {
    pub(crate) device: Script,
    pub(crate) other: Script,
}

const APPLY: Scripts = Scripts {
    device: Script::ApplyEvent,
    other: Script::ApplyAccount,
};

/// What a script answered.
enum Answer {
    Decided {
        decision: Decision,
        fill: i64,
        note: Option<Note>,
    },
    NeedsShape,
    NeedsAccount(String),
}

impl Store {
    /// Takes events, in order, over the connection of `shard`, in one round trip but for the few that need more;
    /// 64 to 128 at once keep both sides busy. One result for each, in the same order.
    ///
    /// The commands of a decision are in the outbox already. They are given back to be sent at once; a resume that
    /// has to wait for its device to settle is not among them.
    ///
    /// # Errors
    /// Each event has its own. After a [`StoreError`] the event may or may not have had its effect: take it again.
    ///
    /// # Cancel safety
    /// Events may have had their effect when the future is dropped; their commands then come from [`Store::claim`].
    pub async fn apply_batch(
        &self,
        shard: usize,
        news: &[News],
        now_ms: i64,
    ) -> Vec<Result<Decision, StoreError>> {
        let mut results = vec![Err(StoreError::Contended); news.len()];
        let mut notes = Vec::new();
        let mut full = Vec::new();
        let mut open: Vec<Pending> = news.iter().enumerate().map(pending).collect();
        for _ in 0..ROUNDS_MAX {
            if open.is_empty() {
                break;
            }
            let mut again = Vec::new();
            for (event, answer) in self.round(shard, open, now_ms).await {
                match answer {
                    Ok(Answer::Decided { decision, fill, note }) => {
                        full.extend(marks::is_full(fill).then_some((event.place.partition, fill)));
                        notes.extend(note.map(|note| (event.index, note)));
                        results[event.index] = Ok(self.for_fast_path(decision));
                    }
                    Ok(Answer::NeedsShape) => {
                        self.marks().forget(event.place.partition);
                        again.push((event, None));
                    }
                    Ok(Answer::NeedsAccount(account)) => again.push((event, Some(account))),
                    Err(error) => results[event.index] = Err(error),
                }
            }
            open = self.with_registers(shard, again, &mut results).await;
        }
        for (partition, fill) in full {
            self.grow_marks(shard, partition, fill, now_ms).await;
        }
        for (index, note) in notes {
            // The note stays in the store until each device was told, so a failure here only delays that.
            match (self.spread(shard, &note, now_ms).await, &mut results[index]) {
                (Ok(commands), Ok(decision)) => decision.commands.extend(commands),
                (Err(error), _) => tracing::debug!(%error, "an account's devices are told later"),
                (Ok(_), Err(_)) => {}
            }
        }
        results
    }

    async fn round<'a>(
        &self,
        shard: usize,
        open: Vec<Pending<'a>>,
        now_ms: i64,
    ) -> Vec<(Pending<'a>, Result<Answer, StoreError>)> {
        let partitions: BTreeSet<Partition> = open.iter().map(|event| event.place.partition).collect();
        let times = self.times(now_ms);
        let calls: Result<Vec<Call>, StoreError> = match self.prepare_marks(shard, &partitions, now_ms).await
        {
            Ok(()) => open.iter().map(|event| self.call(event, times)).collect(),
            Err(error) => Err(error),
        };
        match calls {
            Err(error) => open
                .into_iter()
                .map(|event| (event, Err(error.clone())))
                .collect(),
            Ok(calls) => {
                let answers = self.run(shard, calls).await.into_iter();
                let read = answers.map(|answer| answer.and_then(read_answer));
                open.into_iter().zip(read).collect()
            }
        }
    }

    /// Fetches the registers of the accounts that were asked for. Events whose fetch fails get that error.
    async fn with_registers<'a>(
        &self,
        shard: usize,
        again: Vec<(Pending<'a>, Option<String>)>,
        results: &mut [Result<Decision, StoreError>],
    ) -> Vec<Pending<'a>> {
        let fetched = self.touch_accounts(shard, wanted(&again)).await;
        hand_out(again, fetched, results)
    }

    /// The call for one event. Contended when another call gave the shape up since it was made sure of.
    fn call(&self, event: &Pending, times: Times) -> Result<Call, StoreError> {
        let Pending { news, place, .. } = event;
        let shape = self.marks().shape(place.partition).ok_or(StoreError::Contended)?;
        let lookup = shape.lookup(
            place.partition,
            news.identity_mark,
            news.request_mark,
            times.now_ms,
        );
        let lookup = lookup.ok_or(StoreError::Contended)?;
        Ok(event.call(APPLY, &shape, lookup, times))
    }

    pub(crate) fn for_fast_path(&self, mut decision: Decision) -> Decision {
        if self.resumes_later() {
            decision
                .commands
                .retain(|command| command.action != Action::Resume);
        }
        decision
    }
}

impl Pending<'_> {
    /// The call of one of these scripts for this event.
    pub(crate) fn call(&self, scripts: Scripts, shape: &Shape, lookup: Lookup, times: Times) -> Call {
        let Self {
            news,
            place,
            registers,
            ..
        } = self;
        let is_device = matches!(news.subject, Subject::Device(_));
        let mut keys = Vec::with_capacity(9 + lookup.buckets.len());
        if is_device {
            keys.extend(place.device_keys());
        } else {
            keys.extend([place.account(), place.partition.accounts_to_tell()]);
        }
        keys.push(place.partition.shape());
        keys.extend(lookup.buckets);
        let script = if is_device { scripts.device } else { scripts.other };
        let call = script
            .call(&keys)
            .arg(shape.text())
            .arg(lookup.count)
            .arg(news.identity_mark)
            .arg(news.request_mark.map(|mark| mark.to_string()).unwrap_or_default())
            .arg(lookup.ttl_s)
            .arg(subject_id(news))
            .arg(news.kind.code())
            .arg(news.order.as_str());
        if is_device {
            let call = call
                .arg(given(news.account_id.as_deref()))
                .arg(news.timestamp_ms)
                .arg(json(&Cause::of(news)))
                .arg(history_line(news, times.now_ms))
                .arg(times.now_ms)
                .arg(times.due_ms)
                .arg(times.due_resume_ms);
            Registers::add_to(registers.as_ref(), call)
        } else {
            call.arg(json(&Cause::of(news)))
                .arg(news.timestamp_ms)
                .arg(history_line(news, times.now_ms))
                .arg(times.due_ms)
        }
    }
}

pub(crate) fn pending((index, news): (usize, &News)) -> Pending<'_> {
    Pending {
        index,
        news,
        place: Place::of(subject_id(news)),
        registers: None,
    }
}

fn subject_id(news: &News) -> &str {
    match &news.subject {
        Subject::Device(id) | Subject::Account(id) | Subject::Other(id) => id,
    }
}

/// Tells an absent text from an empty one.
pub(crate) fn given(text: Option<&str>) -> String {
    text.map(|text| format!("={text}")).unwrap_or_default()
}

pub(crate) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("strings and integers always serialise")
}

/// A line of history up to its outcome, which the script adds.
pub(crate) fn history_line(news: &News, now_ms: i64) -> String {
    let entry = HistoryEntry {
        at: now_ms,
        event_id: news.event_id.clone(),
        request_id: news.request_id.clone(),
        kind: news.event_type.clone(),
        timestamp: news.timestamp_ms,
        time_source: news.time_source.code().to_owned(),
        outcome: String::new(),
        reason: String::new(),
    };
    let mut line = json(&entry);
    let end = line.rfind(r#","outcome":"#).unwrap_or(line.len());
    line.truncate(end);
    line
}

/// The accounts whose registers were asked for, and from where.
pub(crate) fn wanted(again: &[(Pending<'_>, Option<String>)]) -> Vec<(Place, String)> {
    again
        .iter()
        .filter_map(|(event, account)| Some((event.place, account.clone()?)))
        .collect()
}

/// Gives each event what was `read` for it, in the order of [`wanted`]; one whose registers could not be read gets that
/// error, and is not among those that go on.
pub(crate) fn hand_out<'a, T>(
    again: Vec<(Pending<'a>, Option<String>)>,
    read: Vec<Result<Registers, StoreError>>,
    results: &mut [Result<T, StoreError>],
) -> Vec<Pending<'a>> {
    let mut read = read.into_iter();
    let mut open = Vec::new();
    for (mut event, account) in again {
        match account.and_then(|_| read.next()) {
            Some(Err(error)) => {
                results[event.index] = Err(error);
                continue;
            }
            Some(Ok(registers)) => event.registers = Some(registers),
            None => {}
        }
        open.push(event);
    }
    open
}

fn read_answer(answer: Value) -> Result<Answer, StoreError> {
    let mut parts = reply::list(answer)?.into_iter();
    let mut next = || parts.next().unwrap_or(Value::Nil);
    match reply::text(next())?.as_str() {
        "shape" => Ok(Answer::NeedsShape),
        "account" => Ok(Answer::NeedsAccount(reply::text(next())?)),
        "duplicate" => Ok(Answer::Decided {
            decision: Decision {
                outcome: Outcome::Duplicate,
                reason: Reason::Seen,
                commands: Vec::new(),
            },
            fill: 0,
            note: None,
        }),
        "ok" => {
            let odd = StoreError::Unreadable("an outcome");
            let outcome = Outcome::from_code(&reply::text(next())?).ok_or(odd.clone())?;
            let reason = Reason::from_code(&reply::text(next())?).ok_or(odd)?;
            let fill = reply::number(&next())?;
            let (mut commands, mut note) = (Vec::new(), None);
            match next() {
                Value::BulkString(text) if !text.is_empty() => note = Some(Note::read(text)?),
                moved @ Value::Array(_) => {
                    commands = reply::commands(moved)?;
                    commands.extend(reply::commands(next())?);
                }
                _ => {}
            }
            Ok(Answer::Decided {
                decision: Decision {
                    outcome,
                    reason,
                    commands,
                },
                fill,
                note,
            })
        }
        _ => Err(StoreError::Unreadable("an answer of an unexpected form")),
    }
}
