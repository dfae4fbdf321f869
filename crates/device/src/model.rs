//! The reference ledger: every device, account and mark in memory, one event at a time.
//!
//! It keeps all marks for ever and reads no clock. Each real ledger must give the same answers and end in the same
//! state for the same calls; their tests drive both side by side.

use crate::{
    AccountRegisters, Cause, Command, Decision, Device, Kind, News, Outcome, Reason, Registration,
    RegistrationError, Subject,
};
use std::collections::{BTreeMap, BTreeSet};

/// The reference ledger.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Devices by id.
    pub devices: BTreeMap<String, Device>,
    /// Account registers by id.
    pub accounts: BTreeMap<String, AccountRegisters>,
    marks: BTreeSet<(String, i64)>,
}

impl Ledger {
    /// Takes one event: marks, status, operations and owed commands in one step. An account's news reaches every
    /// device of the account in the same step.
    pub fn apply(&mut self, news: &News, now_ms: i64) -> Decision {
        if !self.mark(news) {
            return decision(Outcome::Duplicate, Reason::Seen);
        }
        match &news.subject {
            Subject::Device(id) => self.apply_to_device(id, news, now_ms),
            Subject::Account(id) => self.apply_to_account(id, news, now_ms),
            Subject::Other(_) => decision(Outcome::Recorded, Reason::NoEffect),
        }
    }

    /// Registers an operation on a device, which is first told what is known of its account: an account that was
    /// removed takes no operations, also for a device that nothing was heard of yet.
    ///
    /// # Errors
    /// [`RegistrationError`]; nothing was changed.
    pub fn register(
        &mut self,
        device_id: &str,
        registration: &Registration,
        now_ms: i64,
    ) -> Result<Option<Command>, RegistrationError> {
        let known = self.devices.get(device_id).cloned();
        let mut device = known.unwrap_or_else(|| Device::new(device_id));
        if device.account_id.is_none() {
            device.account_id.clone_from(&registration.account_id);
        }
        let account = device
            .account_id
            .as_ref()
            .and_then(|account| self.accounts.get(account));
        if let Some(registers) = account {
            device.account_told(registers, now_ms);
        }
        let owed = device.register(registration, now_ms)?;
        self.devices.insert(device_id.to_owned(), device);
        Ok(owed)
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

    /// Whether neither mark was there before. Both are there afterwards.
    fn mark(&mut self, news: &News) -> bool {
        let scope = match &news.subject {
            Subject::Device(id) => format!("device {id}"),
            Subject::Account(id) => format!("account {id}"),
            Subject::Other(id) => format!("other {id}"),
        };
        let identity = (scope.clone(), news.identity_mark);
        let request = news.request_mark.map(|mark| (scope, mark));
        let seen =
            self.marks.contains(&identity) || request.as_ref().is_some_and(|mark| self.marks.contains(mark));
        if !seen {
            self.marks.insert(identity);
            self.marks.extend(request);
        }
        !seen
    }

    fn apply_to_device(&mut self, device_id: &str, news: &News, now_ms: i64) -> Decision {
        let after = self.device(device_id).account_after(news).map(str::to_owned);
        let registers = after
            .and_then(|account| self.accounts.get(&account))
            .cloned()
            .unwrap_or_default();
        self.device(device_id).apply(news, &registers, now_ms)
    }

    fn apply_to_account(&mut self, account_id: &str, news: &News, now_ms: i64) -> Decision {
        let registers = self.accounts.entry(account_id.to_owned()).or_default();
        let mut decision = decide_account(registers, news);
        let registers = registers.clone();
        let cause = Cause {
            event_id: news.event_id.clone(),
            request_id: news.request_id.clone(),
            kind: news.event_type.clone(),
            timestamp: news.timestamp_ms,
        };
        for device in self.devices.values_mut() {
            if device.account_id.as_deref() == Some(account_id) {
                decision
                    .commands
                    .extend(device.account_changed(&registers, &cause, now_ms));
            }
        }
        decision
    }
}

/// Moves an account's registers by one event and says what became of it.
fn decide_account(registers: &mut AccountRegisters, news: &News) -> Decision {
    let order = &news.order;
    match news.kind {
        Kind::AccountRemoved if Some(order) <= registers.removed.as_ref() => {
            decision(Outcome::Stale, Reason::OlderThanKnown)
        }
        Kind::AccountRemoved => {
            registers.removed = Some(order.clone());
            if registers.is_removed() {
                decision(Outcome::Applied, Reason::Newest)
            } else {
                decision(Outcome::Stale, Reason::AddedSince)
            }
        }
        Kind::AccountAdded if Some(order) <= registers.added.as_ref() => {
            decision(Outcome::Stale, Reason::OlderThanKnown)
        }
        Kind::AccountAdded => {
            registers.added = Some(order.clone());
            if Some(order) < registers.removed.as_ref() {
                decision(Outcome::Refused, Reason::RemovedLater)
            } else {
                decision(Outcome::Applied, Reason::Newest)
            }
        }
        Kind::Online | Kind::Offline | Kind::Added | Kind::Removed | Kind::Recorded => {
            decision(Outcome::Recorded, Reason::NoEffect)
        }
    }
}

fn decision(outcome: Outcome, reason: Reason) -> Decision {
    Decision {
        outcome,
        reason,
        commands: Vec::new(),
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
