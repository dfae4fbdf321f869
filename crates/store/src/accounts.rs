//! Where devices and accounts meet: fetching an account's registers for a device, and telling its devices.
//!
//! It does not decide what the registers mean.

use crate::keys::{Partition, Place};
use crate::script::{Call, Script};
use crate::{Store, StoreError, record, reply};
use porchlight_device::Command;
use porchlight_device::ledger::Spread;
use redis::Value;

/// Devices told in one round trip.
const PAGE_DEVICES: usize = 64;
/// Commands that are given back to be sent at once, which bounds memory; the outbox has all of them.
const COMMANDS_MAX: usize = 1024;
/// Notes that one look at the accounts of a partition asks the server for.
const NOTES_SCAN: usize = 64;

/// The registers of an account, for the device that was entered there before they were read.
#[derive(Debug, Clone)]
pub(crate) struct Registers {
    account_id: String,
    added: Option<String>,
    removed: Option<String>,
    hash: String,
}

/// News of an account that its devices must be told.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    stored: Vec<u8>,
    account_id: String,
    added: String,
    removed: String,
    cause: String,
    timestamp: String,
    history: String,
    due_ms: i64,
}

impl Registers {
    /// Adds the four arguments that a script takes them in.
    pub(crate) fn add_to(registers: Option<&Self>, call: Call) -> Call {
        match registers {
            None => call.arg("").arg("").arg("").arg(""),
            Some(known) => call
                .arg(format!("={}", known.account_id))
                .arg(known.added.as_deref().unwrap_or_default())
                .arg(known.removed.as_deref().unwrap_or_default())
                .arg(&known.hash),
        }
    }
}

impl Note {
    pub(crate) fn read(stored: Vec<u8>) -> Result<Self, StoreError> {
        let read = || {
            let mut values = record::unpack(&stored)?.into_iter();
            let account_id = values.next()??;
            let added = values.next()?.unwrap_or_default();
            let removed = values.next()?.unwrap_or_default();
            let (cause, timestamp, history) = (values.next()??, values.next()??, values.next()??);
            let due_ms = values.next()??.parse().ok()?;
            Some((account_id, added, removed, cause, timestamp, history, due_ms))
        };
        let (account_id, added, removed, cause, timestamp, history, due_ms) =
            read().ok_or(StoreError::Unreadable("a note of an account's news"))?;
        Ok(Self {
            stored,
            account_id,
            added,
            removed,
            cause,
            timestamp,
            history,
            due_ms,
        })
    }
}

impl Store {
    /// Enters each device among those of its account and gives the account's registers, in one round trip.
    pub(crate) async fn touch_accounts(
        &self,
        shard: usize,
        wanted: Vec<(Place, String)>,
    ) -> Vec<Result<Registers, StoreError>> {
        let touch = |(device, account_id): &(Place, String)| {
            let account = Place::of(account_id);
            Script::AccountTouch
                .call(&[account.account(), account.devices_of_account()])
                .arg(device.member())
        };
        let answers = self.run(shard, wanted.iter().map(touch).collect()).await;
        let read = |((_, account_id), answer): ((Place, String), Result<Value, StoreError>)| {
            let mut orders = reply::list(answer?)?.into_iter();
            let mut next = || reply::optional_text(orders.next().unwrap_or(Value::Nil));
            Ok(Registers {
                added: next()?,
                removed: next()?,
                hash: Place::of(&account_id).hash(),
                account_id,
            })
        };
        wanted.into_iter().zip(answers).map(read).collect()
    }

    /// Tells each device of the account. The commands that are owed because of it are in the outbox.
    pub(crate) async fn spread(
        &self,
        shard: usize,
        note: &Note,
        now_ms: i64,
    ) -> Result<Vec<Command>, StoreError> {
        let account = Place::of(&note.account_id);
        let mut commands = Vec::new();
        let mut from = "-".to_owned();
        loop {
            let page = Call::plain("ZRANGEBYLEX")
                .arg(account.devices_of_account())
                .arg(&from)
                .arg("+");
            let page = self
                .run_one(shard, page.arg("LIMIT").arg(0).arg(PAGE_DEVICES))
                .await?;
            let members = reply::texts(page)?;
            let tell = |member: &String| {
                let device =
                    Place::from_member(member).ok_or(StoreError::Unreadable("a device of an account"))?;
                Ok(self.tell(&device, &account, note, now_ms))
            };
            let calls = members.iter().map(tell).collect::<Result<Vec<_>, StoreError>>()?;
            for answer in self.run(shard, calls).await {
                let owed = reply::commands(answer?)?;
                commands.extend(owed.into_iter().take(COMMANDS_MAX - commands.len()));
            }
            let Some(last) = members.last().filter(|_| members.len() == PAGE_DEVICES) else {
                let done = Script::SpreadDone.call(&[account.partition.accounts_to_tell()]);
                self.run_one(shard, done.arg(account.hash()).arg(&note.stored))
                    .await?;
                break;
            };
            from = format!("({last}");
        }
        reply::sort(&mut commands);
        if self.resumes_later() {
            commands.retain(|command| command.action != porchlight_device::Action::Resume);
        }
        Ok(commands)
    }

    fn tell(&self, device: &Place, account: &Place, note: &Note, now_ms: i64) -> Call {
        let times = self.times(now_ms);
        Script::AccountChanged
            .call(&device.device_keys())
            .arg(&note.account_id)
            .arg(account.hash())
            .arg(&note.added)
            .arg(&note.removed)
            .arg(&note.cause)
            .arg(&note.timestamp)
            .arg(&note.history)
            .arg(now_ms)
            .arg(times.due_ms)
            .arg(times.due_resume_ms)
    }

    /// Carries on where telling the devices of an account was cut short, for every account. To be called now and
    /// then by each worker; that two do so at once is no harm.
    ///
    /// # Errors
    /// [`StoreError`]; what was not told is told by a later call.
    pub async fn spread_pending(&self, now_ms: i64) -> Result<Spread, StoreError> {
        let shard = self.any_shard();
        let scan = |partition: Partition| {
            Call::plain("HSCAN")
                .arg(partition.accounts_to_tell())
                .arg(0)
                .arg("COUNT")
                .arg(NOTES_SCAN)
        };
        let mut spread = Spread::default();
        for answer in self.run(shard, Partition::all().map(scan).collect()).await {
            let found = reply::list(answer?)?.into_iter().nth(1).unwrap_or(Value::Nil);
            for stored in reply::list(found)?.into_iter().skip(1).step_by(2) {
                let Value::BulkString(stored) = stored else {
                    return Err(StoreError::Unreadable("a note of an account's news"));
                };
                let note = Note::read(stored)?;
                if note.due_ms <= now_ms {
                    spread.commands.extend(self.spread(shard, &note, now_ms).await?);
                    spread.accounts += 1;
                }
            }
        }
        Ok(spread)
    }
}
