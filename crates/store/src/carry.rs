//! Carrying the ledger out and in: pages of accounts and devices, and taking in what another ledger knew of them.
//!
//! Marks are carried in [`crate::carry_marks`]. What taking in does to a device says [`porchlight_device::merge`].

use crate::accounts::Note;
use crate::accounts::Registers;
use crate::apply::{given, history_line, json};
use crate::devices::Stored;
use crate::keys::Place;
use crate::script::{Call, Script};
use crate::{PageError, Store, StoreError, reply};
use porchlight_device::carry::{CarriedAccount, CarriedDevice, Page};
use porchlight_device::merge::account_news;
use porchlight_device::{AccountRegisters, Action, Cause, Command, Device, Order};
use redis::Value;

/// Devices of one page: each may have 256 operations of 16 KiB, so few.
const DEVICES_AT_ONCE: usize = 32;
/// Keys that one step of a walk over all keys looks at.
const KEYS_AT_ONCE: usize = 2000;
/// Attempts to take a device in while it moves between accounts.
const ROUNDS_MAX: usize = 5;
/// The keys of all accounts.
const ACCOUNT_KEYS: &str = "porchlight:{*}:ac:*";

const ODD: StoreError = StoreError::Unreadable("an account");

impl Store {
    /// Some accounts with their registers. One may come twice while others write.
    ///
    /// # Errors
    /// [`PageError`]
    pub async fn carry_accounts(&self, cursor: Option<&str>) -> Result<Page<CarriedAccount>, PageError> {
        let cursor: u64 = cursor.unwrap_or("0").parse().map_err(|_| PageError::BadCursor)?;
        let shard = self.any_shard();
        let scan = Call::plain("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(ACCOUNT_KEYS)
            .arg("COUNT")
            .arg(KEYS_AT_ONCE);
        let mut answer = reply::list(self.run_one(shard, scan).await?)?.into_iter();
        let mut next = || answer.next().unwrap_or(Value::Nil);
        let (next_cursor, keys) = (reply::text(next())?, reply::texts(next())?);
        let read = |key: &String| Call::plain("HMGET").arg(key).arg(&["id", "added", "removed"]);
        let mut rows = Vec::new();
        for answer in self.run(shard, keys.iter().map(read).collect()).await {
            let mut values = reply::list(answer?)?.into_iter();
            let mut next = || reply::optional_text(values.next().unwrap_or(Value::Nil));
            let Some(account_id) = next()? else { continue };
            let mut order = || {
                next()?
                    .map(|text| Order::from_stored(text).ok_or(ODD))
                    .transpose()
            };
            let registers = AccountRegisters {
                added: order()?,
                removed: order()?,
            };
            rows.push(CarriedAccount {
                account_id,
                registers,
            });
        }
        Ok(Page {
            rows,
            next_cursor: Some(next_cursor).filter(|cursor| cursor != "0"),
        })
    }

    /// Some devices, whole.
    ///
    /// # Errors
    /// [`PageError`]
    pub async fn carry_devices(&self, cursor: Option<&str>) -> Result<Page<CarriedDevice>, PageError> {
        let after = match cursor {
            Some(text) => Some(Place::from_member(text).ok_or(PageError::BadCursor)?),
            None => None,
        };
        let places = self.places(after, DEVICES_AT_ONCE).await?;
        let views = places.iter().map(Stored::call).collect();
        let mut rows = Vec::new();
        for answer in self.run(self.any_shard(), views).await {
            rows.extend(Stored::read(answer?)?.map(|stored| CarriedDevice {
                device: stored.device,
                history: stored.history,
            }));
        }
        let last = places.last().filter(|_| places.len() == DEVICES_AT_ONCE);
        Ok(Page {
            rows,
            next_cursor: last.map(Place::member),
        })
    }

    /// Takes in what another ledger knew of an account, and tells its devices where that moved a register; what they
    /// owe then is in the outbox.
    ///
    /// # Errors
    /// [`StoreError`]; taking it in again is right.
    pub async fn restore_account(&self, account: &CarriedAccount, now_ms: i64) -> Result<(), StoreError> {
        let CarriedAccount {
            account_id,
            registers,
        } = account;
        let (place, shard) = (Place::of(account_id), self.any_shard());
        let news = account_news(account_id, now_ms);
        let call = Script::RestoreAccount
            .call(&[place.account(), place.partition.accounts_to_tell()])
            .arg(account_id)
            .arg(text_of(registers.added.as_ref()))
            .arg(text_of(registers.removed.as_ref()))
            .arg(json(&Cause::of(&news)))
            .arg(news.timestamp_ms)
            .arg(history_line(&news, now_ms))
            .arg(self.times(now_ms).due_ms);
        match self.run_one(shard, call).await? {
            Value::BulkString(note) if !note.is_empty() => {
                self.spread(shard, &Note::read(note)?, now_ms).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Takes in what another ledger knew of a device; what is newly owed because of it, which is in the outbox.
    ///
    /// # Errors
    /// [`StoreError`]; taking it in again is right.
    pub async fn restore_device(
        &self,
        carried: &CarriedDevice,
        now_ms: i64,
    ) -> Result<Vec<Command>, StoreError> {
        let (place, shard) = (Place::of(&carried.device.device_id), self.any_shard());
        // Mostly it is new here, and its account is the one that it comes with.
        let mut account = carried.device.account_id.clone();
        for _ in 0..ROUNDS_MAX {
            let registers = match account.take() {
                Some(account) => {
                    let touched = self.touch_accounts(shard, vec![(place, account)]).await.pop();
                    Some(touched.unwrap_or(Err(StoreError::Contended))?)
                }
                None => None,
            };
            let call = self.restore_call(&place, carried, registers.as_ref(), now_ms);
            let mut answer = reply::list(self.run_one(shard, call).await?)?.into_iter();
            let mut next = || answer.next().unwrap_or(Value::Nil);
            if reply::text(next())? == "account" {
                account = Some(reply::text(next())?);
                continue;
            }
            let mut commands = reply::commands(next())?;
            commands.extend(reply::commands(next())?);
            return Ok(commands);
        }
        Err(StoreError::Contended)
    }

    fn restore_call(
        &self,
        place: &Place,
        carried: &CarriedDevice,
        registers: Option<&Registers>,
        now_ms: i64,
    ) -> Call {
        let CarriedDevice { device, history } = carried;
        let times = self.times(now_ms);
        let (order, status) = match &device.news {
            Some((order, status)) => (order.as_str(), status.code()),
            None => ("", ""),
        };
        let call = Script::Restore
            .call(&place.device_keys())
            .arg(&device.device_id)
            .arg(given(device.account_id.as_deref()))
            .arg(text_of(device.account_order.as_ref()))
            .arg(order)
            .arg(status)
            .arg(text_of(device.added.as_ref()))
            .arg(text_of(device.removed.as_ref()))
            .arg(text_of(device.account.added.as_ref()))
            .arg(text_of(device.account.removed.as_ref()))
            .arg(device.status.code())
            .arg(
                device
                    .status_since_ms
                    .map(|since| since.to_string())
                    .unwrap_or_default(),
            )
            .arg(device.generation_floor)
            .arg(json(&Cause::of_import(&device.device_id, now_ms)))
            .arg(now_ms)
            .arg(times.due_ms)
            .arg(times.due_resume_ms);
        let call = Registers::add_to(registers, call)
            .arg(device.operations.len())
            .arg(history.len());
        let call = operations_of(device, call);
        history.iter().fold(call, |call, entry| call.arg(json(entry)))
    }
}

fn operations_of(device: &Device, mut call: Call) -> Call {
    for operation in device.operations.values() {
        call = call
            .arg(&operation.id)
            .arg(operation.state.code())
            .arg(operation.generation)
            .arg(given(operation.account_id.as_deref()))
            .arg(&operation.kind)
            .arg(&operation.params);
        call = match device.owed.get(&operation.id) {
            None => (0..6).fold(call, |call, _| call.arg("")),
            Some(command) => call
                .arg(Action::code(command.action))
                .arg(&command.kind)
                .arg(&command.params)
                .arg(given(command.account_id.as_deref()))
                .arg(json(&command.cause))
                .arg(command.issued_at_ms),
        };
    }
    call
}

fn text_of(order: Option<&Order>) -> &str {
    order.map_or("", Order::as_str)
}
