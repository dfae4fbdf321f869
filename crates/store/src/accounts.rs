//! Where devices and accounts meet: fetching an account's registers for a device, and telling its devices.
//!
//! It does not decide what the registers mean.

use crate::keys::{Partition, Place};
use crate::script::{Call, Script};
use crate::{Store, StoreError, record, reply};
use porchlight_device::ledger::Spread;
use porchlight_device::{ActionCounts, Command};
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

/// The devices that are entered at an account, page by page.
struct DevicePages {
    account: Place,
    /// Where the next page begins; none after the last.
    from: Option<String>,
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

impl DevicePages {
    fn of(account: Place) -> Self {
        Self {
            account,
            from: Some("-".to_owned()),
        }
    }

    async fn next(&mut self, store: &Store, shard: usize) -> Result<Option<Vec<Place>>, StoreError> {
        let Some(from) = self.from.take() else {
            return Ok(None);
        };
        let page = Call::plain("ZRANGEBYLEX")
            .arg(self.account.devices_of_account())
            .arg(from)
            .arg("+");
        let page = store
            .run_one(shard, page.arg("LIMIT").arg(0).arg(PAGE_DEVICES))
            .await?;
        let members = reply::texts(page)?;
        let full = members.len() == PAGE_DEVICES;
        self.from = members.last().filter(|_| full).map(|last| format!("({last}"));
        let odd = StoreError::Unreadable("a device of an account");
        let places = members.iter().map(|member| Place::from_member(member));
        places.collect::<Option<Vec<_>>>().ok_or(odd).map(Some)
    }
}

impl Store {
    /// Enters each device among those of its account and gives the account's registers, in one round trip.
    pub(crate) async fn touch_accounts(
        &self,
        shard: usize,
        wanted: Vec<(Place, String)>,
    ) -> Vec<Result<Registers, StoreError>> {
        let touch = |device: &Place, account: &Place| {
            Script::AccountTouch
                .call(&[account.account(), account.devices_of_account()])
                .arg(device.member())
        };
        self.registers(shard, wanted, touch).await
    }

    /// Gives the registers of each account, and enters no device there.
    pub(crate) async fn look_at_accounts(
        &self,
        shard: usize,
        wanted: Vec<(Place, String)>,
    ) -> Vec<Result<Registers, StoreError>> {
        let look = |_: &Place, account: &Place| {
            let call = Call::plain("HMGET").arg(account.account());
            call.arg("added").arg("removed")
        };
        self.registers(shard, wanted, look).await
    }

    async fn registers(
        &self,
        shard: usize,
        wanted: Vec<(Place, String)>,
        call: impl Fn(&Place, &Place) -> Call,
    ) -> Vec<Result<Registers, StoreError>> {
        let calls = wanted
            .iter()
            .map(|(device, account_id)| call(device, &Place::of(account_id)));
        let answers = self.run(shard, calls.collect()).await;
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
        let mut pages = DevicePages::of(account);
        while let Some(devices) = pages.next(self, shard).await? {
            let tell = |device: &Place| self.tell(Script::AccountChanged, device, &account, note, now_ms);
            for answer in self.run(shard, devices.iter().map(tell).collect()).await {
                let owed = reply::commands(answer?)?;
                commands.extend(owed.into_iter().take(COMMANDS_MAX - commands.len()));
            }
        }
        let done = Script::SpreadDone.call(&[account.partition.accounts_to_tell()]);
        self.run_one(shard, done.arg(account.hash()).arg(&note.stored))
            .await?;
        reply::sort(&mut commands);
        if self.resumes_later() {
            commands.retain(|command| command.action != porchlight_device::Action::Resume);
        }
        Ok(commands)
    }

    /// How many commands [`Store::spread`] would make owed. Nothing is told.
    pub(crate) async fn predict_spread(
        &self,
        shard: usize,
        note: &Note,
        now_ms: i64,
    ) -> Result<ActionCounts, StoreError> {
        let account = Place::of(&note.account_id);
        let mut owes = ActionCounts::default();
        let mut pages = DevicePages::of(account);
        while let Some(devices) = pages.next(self, shard).await? {
            let tell = |device: &Place| self.tell(Script::PredictChange, device, &account, note, now_ms);
            for answer in self.run(shard, devices.iter().map(tell).collect()).await {
                owes.merge(reply::action_counts(&reply::list(answer?)?)?);
            }
        }
        Ok(owes)
    }

    fn tell(&self, script: Script, device: &Place, account: &Place, note: &Note, now_ms: i64) -> Call {
        let times = self.times(now_ms);
        script
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
