//! A device: its registers, its status derived from them, and its operations brought in line after each change.
//!
//! It does not know which events were seen before; marks are the ledger's. The registers and why they make order
//! of arrival irrelevant are explained at the crate's root.

use crate::command::OweAgain;
use crate::operation::OPERATIONS_MAX;
use crate::{
    AccountRegisters, Action, Cause, Command, Decision, Kind, News, Operation, Order, Outcome, Reason,
    Registration, RegistrationError, State, Status,
};
use std::collections::BTreeMap;

/// Everything a ledger remembers of one device, but for its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Ring's id.
    pub device_id: String,
    /// The account it belongs to, by the newest event that named one.
    pub account_id: Option<String>,
    /// The order of that event; `None` when only a registration named the account.
    pub account_order: Option<Order>,
    /// A copy of that account's registers.
    pub account: AccountRegisters,
    /// The newest online or offline news.
    pub news: Option<(Order, Status)>,
    /// The newest `device_added`.
    pub added: Option<Order>,
    /// The newest `device_removed`.
    pub removed: Option<Order>,
    /// The derived status, kept to notice when it changes.
    pub status: Status,
    /// When it last changed, by the event's clock, in milliseconds since the epoch.
    pub status_since_ms: Option<i64>,
    /// Where the generation of a new operation begins: above that of every forgotten one.
    pub generation_floor: u64,
    /// Registered operations by id.
    pub operations: BTreeMap<String, Operation>,
    /// The newest owed command of each operation. A newer one replaces it: it says all that is still true.
    pub owed: BTreeMap<String, Command>,
}

impl Device {
    /// A device of which nothing is known yet.
    pub fn new(device_id: impl Into<String>) -> Self {
        Self {
            device_id: device_id.into(),
            account_id: None,
            account_order: None,
            account: AccountRegisters::default(),
            news: None,
            added: None,
            removed: None,
            status: Status::Unknown,
            status_since_ms: None,
            generation_floor: 0,
            operations: BTreeMap::new(),
            owed: BTreeMap::new(),
        }
    }

    /// The account whose registers [`Device::apply`] needs for `news`: the one the device belongs to afterwards.
    pub fn account_after<'a>(&'a self, news: &'a News) -> Option<&'a str> {
        match news.account_id.as_deref() {
            Some(account) if self.account_id.is_none() || Some(&news.order) > self.account_order.as_ref() => {
                Some(account)
            }
            _ => self.account_id.as_deref(),
        }
    }

    /// Takes one event that was not seen before. `account` holds the registers of [`Device::account_after`].
    pub fn apply(&mut self, news: &News, account: &AccountRegisters, now_ms: i64) -> Decision {
        let cause = Cause::of(news);
        let mut commands = self.follow_account(news, account, &cause, now_ms);
        let (outcome, reason) = self.decide(news);
        commands.extend(self.settle(news.timestamp_ms, &cause, now_ms));
        // An operation that the move cancelled and nothing revived owes one command, so the list has no twins.
        Decision {
            outcome,
            reason,
            commands,
        }
    }

    /// Takes the registers of its account after one of them moved; what is owed because of it.
    pub fn account_changed(
        &mut self,
        registers: &AccountRegisters,
        cause: &Cause,
        now_ms: i64,
    ) -> Vec<Command> {
        self.account.merge(registers);
        self.settle(cause.timestamp, cause, now_ms)
    }

    /// Takes the registers of its account before a registration. Its operations already follow them, or it has none.
    pub(crate) fn account_told(&mut self, registers: &AccountRegisters, now_ms: i64) {
        self.account.merge(registers);
        let status = self.derived_status();
        if status != self.status {
            self.status = status;
            self.status_since_ms = Some(now_ms);
        }
    }

    /// Registers an operation, or updates its kind and parameters; paused at once when the device is offline.
    /// A cancelled operation begins a new life with a higher generation.
    ///
    /// # Errors
    /// [`RegistrationError`]; nothing was changed.
    pub fn register(
        &mut self,
        registration: &Registration,
        now_ms: i64,
    ) -> Result<Option<Command>, RegistrationError> {
        registration.check()?;
        if self.status == Status::Removed {
            return Err(RegistrationError::DeviceRemoved);
        }
        match (&self.account_id, &registration.account_id) {
            (Some(known), Some(given)) if known != given => return Err(RegistrationError::AccountMismatch),
            (None, Some(given)) => self.account_id = Some(given.clone()),
            _ => {}
        }
        let known = self.operations.get(&registration.operation_id);
        if known.is_none() && self.operations.len() >= OPERATIONS_MAX {
            return Err(RegistrationError::TooMany);
        }
        let (state, generation) = match known {
            Some(operation) if operation.state != State::Cancelled => (operation.state, operation.generation),
            Some(cancelled) => (State::Running, cancelled.generation + 1),
            None => (State::Running, self.generation_floor),
        };
        let mut operation = Operation {
            id: registration.operation_id.clone(),
            kind: registration.kind.clone(),
            params: registration.params.clone(),
            account_id: registration
                .account_id
                .clone()
                .or_else(|| self.account_id.clone()),
            state,
            generation,
        };
        let action = operation.follow(self.status);
        if known.is_some_and(|known| known.state == State::Cancelled) {
            self.owed.remove(&operation.id);
        }
        let cause = Cause {
            event_id: operation.id.clone(),
            request_id: None,
            kind: "registration".to_owned(),
            timestamp: now_ms,
            traceparent: None,
        };
        let command = action.map(|action| self.owe(action, &operation, &cause, now_ms));
        self.operations.insert(operation.id.clone(), operation);
        Ok(command)
    }

    /// Forgets an operation and drops what it owes; whether there was one. Its generations are never used again.
    pub fn forget(&mut self, operation_id: &str) -> bool {
        let Some(operation) = self.operations.remove(operation_id) else {
            return false;
        };
        self.owed.remove(operation_id);
        self.generation_floor = self.generation_floor.max(operation.generation + 1);
        true
    }

    /// Notes that a command was delivered; a resumed operation runs again. A command that a newer one replaced
    /// changes nothing. Whether it was still owed.
    pub fn confirm(&mut self, delivered: &Command) -> bool {
        if !self.give_up(delivered) {
            return false;
        }
        if let Some(operation) = self.operations.get_mut(&delivered.operation_id)
            && (delivered.action, operation.state, operation.generation)
                == (Action::Resume, State::Resuming, delivered.generation)
        {
            operation.state = State::Running;
        }
        true
    }

    /// Strikes a command off that could not be delivered within its time and was dead-lettered. Its operation stays
    /// as it is: one whose resume nobody received is still `resuming`. A command that a newer one replaced changes
    /// nothing. Whether it was still owed.
    pub fn give_up(&mut self, command: &Command) -> bool {
        let is_owed = self
            .owed
            .get(&command.operation_id)
            .is_some_and(|owed| owed.is_same(command));
        if is_owed {
            self.owed.remove(&command.operation_id);
        }
        is_owed
    }

    /// Owes a command again that was given up, where it still says what its operation is in; its time to be
    /// delivered begins anew. One that is owed already stays as it is.
    pub fn owe_again(&mut self, command: &Command, now_ms: i64) -> OweAgain {
        let fits = |operation: &Operation| {
            (operation.generation, operation.state) == (command.generation, command.action.state())
        };
        if command.device_id != self.device_id
            || !self.operations.get(&command.operation_id).is_some_and(fits)
        {
            return OweAgain::Overtaken;
        }
        match self.owed.get(&command.operation_id) {
            Some(owed) if owed.is_same(command) => OweAgain::Owed,
            Some(_) => OweAgain::Overtaken,
            None => {
                let mut again = command.clone();
                again.issued_at_ms = now_ms;
                self.owed.insert(command.operation_id.clone(), again);
                OweAgain::Owed
            }
        }
    }

    /// What the registers say.
    pub fn derived_status(&self) -> Status {
        if self.removed > self.added || self.account.removed.as_ref() > self.account_lift() {
            return Status::Removed;
        }
        match &self.news {
            Some((order, status)) if Some(order) > self.last_removal() => *status,
            _ => Status::Unknown,
        }
    }

    /// The newest proof that the account is back: its own addition, or the device's, which Ring only sends for an
    /// account that is there.
    fn account_lift(&self) -> Option<&Order> {
        self.account.added.as_ref().max(self.added.as_ref())
    }

    fn last_removal(&self) -> Option<&Order> {
        self.removed.as_ref().max(self.account.removed.as_ref())
    }

    fn follow_account(
        &mut self,
        news: &News,
        registers: &AccountRegisters,
        cause: &Cause,
        now_ms: i64,
    ) -> Vec<Command> {
        let after = self.account_after(news).map(str::to_owned);
        let moved = after != self.account_id;
        if news.account_id.is_some() && after == news.account_id {
            self.account_order = self.account_order.take().max(Some(news.order.clone()));
        }
        if !moved {
            self.account.merge(registers);
            return Vec::new();
        }
        self.account = registers.clone();
        self.account_id = after;
        self.cancel_strangers(cause, now_ms)
    }

    /// Ends every operation that was registered for another account than the device's.
    pub(crate) fn cancel_strangers(&mut self, cause: &Cause, now_ms: i64) -> Vec<Command> {
        let mut commands = Vec::new();
        let strangers: Vec<_> = self
            .operations
            .values()
            .filter(|op| op.account_id != self.account_id && op.account_id.is_some())
            .cloned()
            .collect();
        for mut operation in strangers {
            if let Some(action) = operation.cancel() {
                commands.push(self.owe(action, &operation, cause, now_ms));
                self.operations.insert(operation.id.clone(), operation);
            }
        }
        commands
    }

    /// Moves the registers and says what became of the event, by the state before and after.
    fn decide(&mut self, news: &News) -> (Outcome, Reason) {
        let order = &news.order;
        match news.kind {
            Kind::Online | Kind::Offline => {
                let status = if news.kind == Kind::Online {
                    Status::Online
                } else {
                    Status::Offline
                };
                let newest = self.news.as_ref().is_none_or(|(known, _)| order > known);
                if newest {
                    self.news = Some((order.clone(), status));
                }
                if self.removed > self.added {
                    (Outcome::Refused, Reason::DeviceRemoved)
                } else if self.account.removed.as_ref() > self.account_lift() {
                    (Outcome::Refused, Reason::AccountRemoved)
                } else if Some(order) < self.last_removal() {
                    (Outcome::Refused, Reason::RemovedLater)
                } else if newest {
                    (Outcome::Applied, Reason::Newest)
                } else {
                    (Outcome::Stale, Reason::OlderThanKnown)
                }
            }
            Kind::Added => {
                let newest = Some(order) > self.added.as_ref();
                if newest {
                    self.added = Some(order.clone());
                }
                if Some(order) < self.last_removal() {
                    (Outcome::Refused, Reason::RemovedLater)
                } else if newest {
                    (Outcome::Applied, Reason::Newest)
                } else {
                    (Outcome::Stale, Reason::OlderThanKnown)
                }
            }
            Kind::Removed if Some(order) <= self.removed.as_ref() => (Outcome::Stale, Reason::OlderThanKnown),
            Kind::Removed => {
                let before = self.derived_status();
                self.removed = Some(order.clone());
                match self.derived_status() {
                    Status::Removed => (Outcome::Applied, Reason::Newest),
                    after if after != before => (Outcome::Applied, Reason::Newest),
                    _ => (Outcome::Stale, Reason::AddedSince),
                }
            }
            Kind::AccountAdded | Kind::AccountRemoved | Kind::Recorded => {
                (Outcome::Recorded, Reason::NoEffect)
            }
        }
    }

    /// Derives the status anew and brings every operation in line with it.
    pub(crate) fn settle(&mut self, timestamp_ms: i64, cause: &Cause, now_ms: i64) -> Vec<Command> {
        let status = self.derived_status();
        if status != self.status {
            self.status = status;
            self.status_since_ms = Some(timestamp_ms);
        }
        let mut commands = Vec::new();
        for mut operation in self.operations.clone().into_values() {
            if let Some(action) = operation.follow(status) {
                commands.push(self.owe(action, &operation, cause, now_ms));
                self.operations.insert(operation.id.clone(), operation);
            }
        }
        commands
    }

    fn owe(&mut self, action: Action, operation: &Operation, cause: &Cause, now_ms: i64) -> Command {
        let command = Command::owed(
            action,
            &self.device_id,
            self.account_id.as_deref(),
            operation,
            cause,
            now_ms,
        );
        self.owed.insert(operation.id.clone(), command.clone());
        command
    }
}
