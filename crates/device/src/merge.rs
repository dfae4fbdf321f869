//! Taking in what another ledger knew of a device or an account: both are brought together, nothing is overwritten.
//!
//! It does not know marks or history. Everything here may be done twice, or by halves and then again, and ends the same.
//!
//! Registers are maxima, so they need no thought. Of an operation that both know, the one that went further counts:
//! first by generation, then, within one, in the order paused, resuming, running, cancelled. A command that one of two
//! equals no longer owes was delivered there. Where only one side knows an operation, the other may have forgotten one
//! of the same id; so its generation is lifted to where the other side would begin a new one, and no identity of a
//! former life can come back.

use crate::news::TimeSource;
use crate::records::{Records, tell_devices};
use crate::{AccountRegisters, Cause, Command, Device, Kind, News, Operation, Order, State, Subject};

/// The type in causes and history of what follows from taking records in.
pub const IMPORT: &str = "import";

impl State {
    /// How far an operation is within one generation.
    pub fn progress(self) -> u8 {
        match self {
            Self::Paused => 0,
            Self::Resuming => 1,
            Self::Running => 2,
            Self::Cancelled => 3,
        }
    }
}

impl Cause {
    /// The cause of what follows from taking in a record.
    pub fn of_import(id: &str, now_ms: i64) -> Self {
        Self {
            event_id: id.to_owned(),
            request_id: None,
            kind: IMPORT.to_owned(),
            timestamp: now_ms,
            traceparent: None,
        }
    }
}

impl Device {
    /// The account whose registers [`Device::merge`] needs: the one the device belongs to afterwards.
    pub fn account_after_merge<'a>(&'a self, other: &'a Self) -> Option<&'a str> {
        let is_newer = self.account_id.is_none() || other.account_order > self.account_order;
        match other.account_id.as_deref() {
            Some(account) if is_newer => Some(account),
            _ => self.account_id.as_deref(),
        }
    }

    /// Takes in what another ledger knew of the same device; what is owed because of it and was owed by neither.
    /// `registers` are those of [`Device::account_after_merge`].
    pub fn merge(&mut self, other: &Self, registers: &AccountRegisters, now_ms: i64) -> Vec<Command> {
        let cause = Cause::of_import(&self.device_id, now_ms);
        self.merge_account(other, registers);
        if other.news.as_ref().map(|(order, _)| order) > self.news.as_ref().map(|(order, _)| order) {
            self.news.clone_from(&other.news);
        }
        self.added = self.added.take().max(other.added.clone());
        self.removed = self.removed.take().max(other.removed.clone());
        self.merge_operations(other);
        self.generation_floor = self.generation_floor.max(other.generation_floor);
        self.merge_status(other, now_ms);
        let mut commands = self.cancel_strangers(&cause, now_ms);
        commands.extend(self.settle(now_ms, &cause, now_ms));
        commands
    }

    fn merge_account(&mut self, other: &Self, registers: &AccountRegisters) {
        let after = self.account_after_merge(other).map(str::to_owned);
        if after == self.account_id {
            self.account.merge(registers);
        } else {
            self.account = registers.clone();
        }
        if other.account_id == after {
            self.account.merge(&other.account);
        }
        self.account_id = after;
        self.account_order = self.account_order.take().max(other.account_order.clone());
    }

    fn merge_operations(&mut self, other: &Self) {
        let own_floor = self.generation_floor;
        for operation in self.operations.values_mut() {
            if !other.operations.contains_key(&operation.id) {
                let owed = self.owed.get_mut(&operation.id);
                lift(operation, owed, other.generation_floor);
            }
        }
        for theirs in other.operations.values() {
            let mut owed = other.owed.get(&theirs.id).cloned();
            let how_far = |operation: &Operation| (operation.generation, operation.state.progress());
            match self.operations.get(&theirs.id) {
                Some(own) if how_far(own) > how_far(theirs) => continue,
                Some(own) if how_far(own) == how_far(theirs) => {
                    if owed.is_none() {
                        self.owed.remove(&theirs.id);
                    }
                    continue;
                }
                Some(_) => {
                    self.operations.insert(theirs.id.clone(), theirs.clone());
                }
                None => {
                    let mut operation = theirs.clone();
                    lift(&mut operation, owed.as_mut(), own_floor);
                    self.operations.insert(theirs.id.clone(), operation);
                }
            }
            match owed {
                Some(command) => drop(self.owed.insert(theirs.id.clone(), command)),
                None => drop(self.owed.remove(&theirs.id)),
            }
        }
    }

    /// Derives the status anew. It is as old as the one that says the same, the later of both.
    fn merge_status(&mut self, other: &Self, now_ms: i64) {
        let status = self.derived_status();
        self.status_since_ms = match (self.status == status, other.status == status) {
            (true, true) => self.status_since_ms.max(other.status_since_ms),
            (true, false) => self.status_since_ms,
            (false, true) => other.status_since_ms,
            (false, false) => Some(now_ms),
        };
        self.status = status;
    }
}

fn lift(operation: &mut Operation, owed: Option<&mut Command>, floor: u64) {
    operation.generation = operation.generation.max(floor);
    if let Some(command) = owed {
        command.generation = operation.generation;
    }
}

/// Takes in what another ledger knew of an account. Where that moves a register, every device of the account is told
/// in the same step; what they owe then.
///
/// # Errors
/// The ledger's own.
pub fn restore_account<R: Records>(
    records: &mut R,
    account_id: &str,
    registers: &AccountRegisters,
    now_ms: i64,
) -> Result<Vec<Command>, R::Error> {
    let mut merged = records.account(account_id)?;
    let before = merged.clone();
    merged.merge(registers);
    if merged == before {
        return Ok(Vec::new());
    }
    tell_devices(
        records,
        account_id,
        &merged,
        &account_news(account_id, now_ms),
        now_ms,
    )
}

/// A device as it is after [`Device::merge`] with what is known here, what it newly owes, and the row to store it in.
///
/// # Errors
/// The ledger's own.
pub fn merged_device<R: Records>(
    records: &mut R,
    other: &Device,
    now_ms: i64,
) -> Result<(Device, Vec<Command>, R::Row), R::Error> {
    let (mut device, row) = records.device(&other.device_id)?;
    let registers = match device.account_after_merge(other) {
        Some(account) => records.account(account)?,
        None => AccountRegisters::default(),
    };
    let commands = device.merge(other, &registers, now_ms);
    Ok((device, commands, row))
}

/// What taking in an account is to its devices: a line of their history, and the cause of what they owe.
pub fn account_news(account_id: &str, now_ms: i64) -> News {
    News {
        subject: Subject::Account(account_id.to_owned()),
        kind: Kind::Recorded,
        order: Order::new(now_ms, None, account_id, IMPORT),
        timestamp_ms: now_ms,
        time_source: TimeSource::Receipt,
        event_id: account_id.to_owned(),
        event_type: IMPORT.to_owned(),
        request_id: None,
        account_id: Some(account_id.to_owned()),
        identity_mark: 0,
        request_mark: None,
        traceparent: None,
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
