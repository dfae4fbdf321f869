//! The reference ledger: every device, account and mark in memory, one event at a time.
//!
//! It keeps all marks for ever and reads no clock. Each real ledger must give the same answers and end in the same
//! state for the same calls; their tests drive both side by side.

use crate::command::OweAgain;
use crate::merge;
use crate::predict::{self, Prediction};
use crate::records::{self, Line, Records};
use crate::{AccountRegisters, Command, Decision, Device, News, Registration, RegistrationError, Subject};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

/// The reference ledger. What each call does is written at [`records`].
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Devices by id.
    pub devices: BTreeMap<String, Device>,
    /// Account registers by id.
    pub accounts: BTreeMap<String, AccountRegisters>,
    marks: BTreeSet<(String, i64)>,
}

impl Ledger {
    /// Takes one event. An account's news reaches every device of the account in the same step.
    pub fn apply(&mut self, news: &News, now_ms: i64) -> Decision {
        let Ok(decision) = records::apply(self, news, now_ms);
        decision
    }

    /// What [`Ledger::apply`] would answer. Nothing changes.
    pub fn predict(&mut self, news: &News, now_ms: i64) -> Prediction {
        let Ok(prediction) = predict::predict(self, news, now_ms);
        prediction
    }

    /// What [`Ledger::owe_again`] would answer. Nothing changes.
    pub fn predict_owe_again(&mut self, command: &Command, now_ms: i64) -> OweAgain {
        let Ok(again) = predict::predict_owe_again(self, command, now_ms);
        again
    }

    /// Registers an operation on a device.
    ///
    /// # Errors
    /// [`RegistrationError`]; nothing was changed.
    pub fn register(
        &mut self,
        device_id: &str,
        registration: &Registration,
        now_ms: i64,
    ) -> Result<Option<Command>, RegistrationError> {
        let Ok(registered) = records::register(self, device_id, registration, now_ms);
        registered
    }

    /// Forgets an operation and drops what it owes; whether there was one.
    pub fn forget(&mut self, device_id: &str, operation_id: &str) -> bool {
        let Ok(was_there) = records::forget(self, device_id, operation_id);
        was_there
    }

    /// Notes that a command was delivered; whether it was still owed.
    pub fn confirm(&mut self, command: &Command) -> bool {
        let Ok(was_owed) = records::confirm(self, command);
        was_owed
    }

    /// Strikes a command off that could not be delivered; whether it was still owed.
    pub fn give_up(&mut self, command: &Command) -> bool {
        let Ok(was_owed) = records::give_up(self, command);
        was_owed
    }

    /// Puts a command back that was given up, unless something newer happened to its operation.
    pub fn owe_again(&mut self, command: &Command, now_ms: i64) -> OweAgain {
        let Ok(again) = records::owe_again(self, command, now_ms);
        again
    }

    /// Takes in what another ledger knew of an account.
    pub fn restore_account(
        &mut self,
        account_id: &str,
        registers: &AccountRegisters,
        now_ms: i64,
    ) -> Vec<Command> {
        let Ok(commands) = merge::restore_account(self, account_id, registers, now_ms);
        commands
    }

    /// Takes in what another ledger knew of a device.
    pub fn restore_device(&mut self, other: &Device, now_ms: i64) -> Vec<Command> {
        let Ok((device, commands, ())) = merge::merged_device(self, other, now_ms);
        self.devices.insert(device.device_id.clone(), device);
        commands
    }

    /// The device, made when it is not known yet.
    pub fn device(&mut self, device_id: &str) -> &mut Device {
        self.devices
            .entry(device_id.to_owned())
            .or_insert_with(|| Device::new(device_id))
    }

    /// Every command that is owed now.
    pub fn owed(&self) -> Vec<Command> {
        self.devices
            .values()
            .flat_map(|device| device.owed.values().cloned())
            .collect()
    }
}

impl Records for Ledger {
    type Error = Infallible;
    type Row = ();

    fn is_marked(&mut self, news: &News) -> Result<bool, Infallible> {
        Ok(marks(news).any(|mark| self.marks.contains(&mark)))
    }

    fn mark(&mut self, news: &News) -> Result<(), Infallible> {
        self.marks.extend(marks(news));
        Ok(())
    }

    fn device(&mut self, device_id: &str) -> Result<(Device, ()), Infallible> {
        let known = self.devices.get(device_id).cloned();
        Ok((known.unwrap_or_else(|| Device::new(device_id)), ()))
    }

    fn store_device(&mut self, (): (), device: Device, _: Option<Line>) -> Result<(), Infallible> {
        self.devices.insert(device.device_id.clone(), device);
        Ok(())
    }

    fn account(&mut self, account_id: &str) -> Result<AccountRegisters, Infallible> {
        Ok(self.accounts.get(account_id).cloned().unwrap_or_default())
    }

    fn store_account(&mut self, account_id: &str, registers: &AccountRegisters) -> Result<(), Infallible> {
        self.accounts.insert(account_id.to_owned(), registers.clone());
        Ok(())
    }

    fn devices_of(&mut self, account_id: &str) -> Result<Vec<String>, Infallible> {
        let of_account = |device: &&Device| device.account_id.as_deref() == Some(account_id);
        let devices = self.devices.values().filter(of_account);
        Ok(devices.map(|device| device.device_id.clone()).collect())
    }
}

/// The marks of an event, each with whom it is about.
fn marks(news: &News) -> impl Iterator<Item = (String, i64)> {
    let scope = match &news.subject {
        Subject::Device(id) => format!("device {id}"),
        Subject::Account(id) => format!("account {id}"),
        Subject::Other(id) => format!("other {id}"),
    };
    let numbers = std::iter::once(news.identity_mark).chain(news.request_mark);
    numbers.map(move |mark| (scope.clone(), mark))
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
