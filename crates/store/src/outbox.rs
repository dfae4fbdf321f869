//! Owed commands: taken by a sweeper for a while, and struck off once delivered.
//!
//! It does not send them. They enter the outbox in the step that makes them owed, and only there.

use crate::apply::{given, json};
use crate::keys::{Partition, Place};
use crate::script::{Call, Script};
use crate::{Store, StoreError, reply};
use porchlight_device::ledger::{Backlog, HOLD_MS_MAX};
use porchlight_device::{Command, OweAgain};
use redis::Value;

/// Most commands that one call claims from one partition.
pub const CLAIM_MAX: usize = 256;

impl Store {
    /// Takes commands that are due and holds each back from other sweepers for the shortest hold that is set, and about
    /// twice as long with every attempt, up to 5 min; see [`porchlight_device::ledger::hold_ms`]. At most about `limit` in all, and
    /// [`CLAIM_MAX`] of one partition. A command stays owed until it is confirmed or given up.
    ///
    /// # Errors
    /// [`StoreError`]; what was claimed then becomes due again by itself.
    ///
    /// # Cancel safety
    /// As after an error.
    pub async fn claim(&self, now_ms: i64, limit: usize) -> Result<Vec<Command>, StoreError> {
        let shard = self.any_shard();
        let first = |partition: Partition| {
            let call = Call::plain("ZRANGEBYSCORE")
                .arg(partition.due())
                .arg("-inf")
                .arg(now_ms);
            call.arg("LIMIT").arg(0).arg(1)
        };
        let answers = self.run(shard, Partition::all().map(first).collect()).await;
        let mut due = Vec::new();
        for (partition, answer) in Partition::all().zip(answers) {
            if !reply::list(answer?)?.is_empty() {
                due.push(partition);
            }
        }
        // Where all cannot be served, those served differ from call to call.
        let turn = shard.checked_rem(due.len()).unwrap_or_default();
        due.rotate_left(turn);
        due.truncate(limit);
        let each = limit
            .checked_div(due.len())
            .unwrap_or_default()
            .clamp(1, CLAIM_MAX);
        let claim = |partition: &Partition| {
            let call = Script::Claim
                .call(&[partition.outbox(), partition.due()])
                .arg(now_ms);
            call.arg(each)
                .arg(self.hold_min_ms())
                .arg(HOLD_MS_MAX)
                .arg(fastrand::u32(..))
        };
        let mut claimed = Vec::new();
        for answer in self.run(shard, due.iter().map(claim).collect()).await {
            claimed.extend(reply::readable_commands(answer?)?);
        }
        Ok(claimed)
    }

    /// Notes that commands were delivered: each is owed no longer, and a resumed operation runs again. A command
    /// that a newer one replaced changes nothing. One result for each: whether it was still owed.
    ///
    /// # Errors
    /// Each has its own [`StoreError`]. A command whose confirmation failed is sent again, under the same identity.
    pub async fn confirm(&self, shard: usize, delivered: &[Command]) -> Vec<Result<bool, StoreError>> {
        let confirm = |command: &Command| {
            let place = Place::of(&command.device_id);
            let partition = place.partition;
            let keys = [
                place.operations(),
                partition.outbox(),
                partition.due(),
                partition.owed_since(),
            ];
            Script::Confirm
                .call(&keys)
                .arg(place.outbox_member(&command.operation_id))
                .arg(&command.operation_id)
                .arg(command.action.code())
                .arg(command.generation)
        };
        let answers = self.run(shard, delivered.iter().map(confirm).collect()).await;
        answers
            .into_iter()
            .map(|answer| Ok(reply::number(&answer?)? == 1))
            .collect()
    }

    /// Strikes a command off that could not be delivered within its time and was dead-lettered; whether it was still
    /// owed. Its operation stays as it is.
    ///
    /// # Errors
    /// [`StoreError`]; it may or may not be owed still.
    pub async fn give_up(&self, command: &Command) -> Result<bool, StoreError> {
        let place = Place::of(&command.device_id);
        let partition = place.partition;
        let call = Script::GiveUp
            .call(&[partition.outbox(), partition.due(), partition.owed_since()])
            .arg(place.outbox_member(&command.operation_id))
            .arg(command.action.code())
            .arg(command.generation);
        Ok(reply::number(&self.run_one(self.any_shard(), call).await?)? == 1)
    }

    /// Owes a command again that was given up, due now, unless its operation is gone or went on since.
    ///
    /// # Errors
    /// [`StoreError`]; it may or may not be owed.
    pub async fn owe_again(&self, command: &Command, now_ms: i64) -> Result<OweAgain, StoreError> {
        let call = owing(Script::OweAgain, command, now_ms);
        read_owing(&self.run_one(self.any_shard(), call).await?)
    }

    /// How much is owed, over all partitions.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn backlog(&self) -> Result<Backlog, StoreError> {
        let look = |partition: Partition| {
            let oldest = Call::plain("ZRANGE")
                .arg(partition.owed_since())
                .arg(0)
                .arg(0)
                .arg("WITHSCORES");
            [
                Call::plain("HLEN").arg(partition.outbox()),
                oldest,
                Call::plain("HLEN").arg(partition.accounts_to_tell()),
            ]
        };
        let mut backlog = Backlog::default();
        let mut answers = self
            .run(self.any_shard(), Partition::all().flat_map(look).collect())
            .await
            .into_iter();
        while let (Some(count), Some(oldest), Some(accounts)) =
            (answers.next(), answers.next(), answers.next())
        {
            backlog.commands += u64::try_from(reply::number(&count?)?).unwrap_or_default();
            backlog.accounts_to_tell += u64::try_from(reply::number(&accounts?)?).unwrap_or_default();
            let since = reply::list(oldest?)?.into_iter().nth(1).map(score).transpose()?;
            backlog.oldest_ms = match (backlog.oldest_ms, since) {
                (Some(known), Some(other)) => Some(known.min(other)),
                (known, other) => known.or(other),
            };
        }
        Ok(backlog)
    }
}

/// The call that owes a command again, or says whether it would.
pub(crate) fn owing(script: Script, command: &Command, now_ms: i64) -> Call {
    let place = Place::of(&command.device_id);
    let partition = place.partition;
    let keys = [
        place.operations(),
        partition.outbox(),
        partition.due(),
        partition.owed_since(),
    ];
    script
        .call(&keys)
        .arg(place.outbox_member(&command.operation_id))
        .arg(command.action.state().code())
        .arg(now_ms)
        .arg(command.action.code())
        .arg(command.generation)
        .arg(&command.operation_id)
        .arg(&command.kind)
        .arg(&command.params)
        .arg(&command.device_id)
        .arg(given(command.account_id.as_deref()))
        .arg(json(&command.cause))
}

/// What such a call answered.
pub(crate) fn read_owing(answer: &Value) -> Result<OweAgain, StoreError> {
    match reply::number(answer)? {
        1 => Ok(OweAgain::Owed),
        _ => Ok(OweAgain::Overtaken),
    }
}

/// A time that served as a score: a double, exact for every date that matters.
fn score(value: Value) -> Result<i64, StoreError> {
    let number: f64 = match value {
        Value::Double(number) => number,
        other => reply::text(other)?
            .parse()
            .map_err(|_| StoreError::Unreadable("a time in the outbox"))?,
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the cast saturates, and no date comes near the bounds"
    )]
    Ok(number as i64)
}
