//! The steps of a ledger that keeps whole records: what is loaded, what the device decides, what is stored.
//!
//! It does not keep anything itself. The reference model and the SQLite ledger are the two [`Records`]; they share
//! these steps. (Redis does the same in its scripts, where the records are.)

use crate::account::decide;
use crate::command::OweAgain;
use crate::{
    AccountRegisters, Cause, Command, Decision, Device, News, Outcome, Reason, Registration,
    RegistrationError, Subject,
};

/// A ledger's records, within one step that happens whole or not at all. A step loads before it stores, so that a
/// record which cannot be read is found while nothing has changed.
pub trait Records {
    /// Why a record could not be loaded or stored.
    type Error;
    /// What storing a device needs to know of the record that it was loaded from.
    type Row;

    /// Whether one of the event's marks is there.
    ///
    /// # Errors
    /// The ledger's own; so for all calls here.
    fn is_marked(&mut self, news: &News) -> Result<bool, Self::Error>;

    /// Remembers the event's marks.
    ///
    /// # Errors
    /// The ledger's own.
    fn mark(&mut self, news: &News) -> Result<(), Self::Error>;

    /// A device, blank when nothing is known of it.
    ///
    /// # Errors
    /// The ledger's own.
    fn device(&mut self, device_id: &str) -> Result<(Device, Self::Row), Self::Error>;

    /// Stores a device, new or changed, and a line of its history where something happened to it.
    ///
    /// # Errors
    /// The ledger's own.
    fn store_device(&mut self, row: Self::Row, device: Device, line: Option<Line>)
    -> Result<(), Self::Error>;

    /// The registers of an account, blank when nothing is known of it.
    ///
    /// # Errors
    /// The ledger's own.
    fn account(&mut self, account_id: &str) -> Result<AccountRegisters, Self::Error>;

    /// Stores the registers of an account.
    ///
    /// # Errors
    /// The ledger's own.
    fn store_account(&mut self, account_id: &str, registers: &AccountRegisters) -> Result<(), Self::Error>;

    /// The devices that belong to an account, in the order of their ids. Each of them can be loaded.
    ///
    /// # Errors
    /// The ledger's own.
    fn devices_of(&mut self, account_id: &str) -> Result<Vec<String>, Self::Error>;
}

/// A line of a device's history: what became of an event, and when.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// The event.
    pub news: &'a News,
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// When it was decided, in milliseconds since the epoch.
    pub at_ms: i64,
}

/// Takes one event: marks, status, operations and owed commands in one step. An account's news reaches every device
/// of the account in the same step.
///
/// # Errors
/// The ledger's own.
pub fn apply<R: Records>(records: &mut R, news: &News, now_ms: i64) -> Result<Decision, R::Error> {
    if records.is_marked(news)? {
        return Ok(Decision::without_commands(Outcome::Duplicate, Reason::Seen));
    }
    let decision = match &news.subject {
        Subject::Device(id) => apply_to_device(records, id, news, now_ms)?,
        Subject::Account(id) => apply_to_account(records, id, news, now_ms)?,
        Subject::Other(_) => Decision::without_commands(Outcome::Recorded, Reason::NoEffect),
    };
    records.mark(news)?;
    Ok(decision)
}

fn apply_to_device<R: Records>(
    records: &mut R,
    device_id: &str,
    news: &News,
    now_ms: i64,
) -> Result<Decision, R::Error> {
    let (mut device, row) = records.device(device_id)?;
    let after = device.account_after(news);
    // A device has the registers of its account already: they reached it in the step that moved them.
    let registers = match after.filter(|_| after != device.account_id.as_deref()) {
        Some(account) => records.account(account)?,
        None => device.account.clone(),
    };
    let decision = device.apply(news, &registers, now_ms);
    let line = Line {
        news,
        outcome: decision.outcome,
        reason: decision.reason,
        at_ms: now_ms,
    };
    records.store_device(row, device, Some(line))?;
    Ok(decision)
}

fn apply_to_account<R: Records>(
    records: &mut R,
    account_id: &str,
    news: &News,
    now_ms: i64,
) -> Result<Decision, R::Error> {
    let mut registers = records.account(account_id)?;
    let before = registers.clone();
    let (outcome, reason) = decide(&mut registers, news);
    let mut decision = Decision::without_commands(outcome, reason);
    if registers == before {
        return Ok(decision);
    }
    decision.commands = tell_devices(records, account_id, &registers, news, now_ms)?;
    Ok(decision)
}

/// Stores the registers of an account, which moved, and tells every device of it; what they owe then.
pub(crate) fn tell_devices<R: Records>(
    records: &mut R,
    account_id: &str,
    registers: &AccountRegisters,
    news: &News,
    now_ms: i64,
) -> Result<Vec<Command>, R::Error> {
    let devices = records.devices_of(account_id)?;
    records.store_account(account_id, registers)?;
    let cause = Cause::of(news);
    let mut commands = Vec::new();
    for device_id in devices {
        let (mut device, row) = records.device(&device_id)?;
        let status = device.status;
        commands.extend(device.account_changed(registers, &cause, now_ms));
        let line = (device.status != status).then_some(Line {
            news,
            outcome: Outcome::Applied,
            reason: Reason::Newest,
            at_ms: now_ms,
        });
        records.store_device(row, device, line)?;
    }
    Ok(commands)
}

/// Registers an operation on a device, which is first told what is known of its account: an account that was
/// removed takes no operations, also for a device that nothing was heard of yet.
///
/// # Errors
/// The ledger's own. The inner one says that the registration is not accepted; nothing was changed then.
pub fn register<R: Records>(
    records: &mut R,
    device_id: &str,
    registration: &Registration,
    now_ms: i64,
) -> Result<Result<Option<Command>, RegistrationError>, R::Error> {
    let (mut device, row) = records.device(device_id)?;
    if device.account_id.is_none()
        && let Some(account) = &registration.account_id
    {
        let registers = records.account(account)?;
        device.account_id = Some(account.clone());
        device.account_told(&registers, now_ms);
    }
    match device.register(registration, now_ms) {
        Err(refused) => Ok(Err(refused)),
        Ok(owed) => {
            records.store_device(row, device, None)?;
            Ok(Ok(owed))
        }
    }
}

/// Forgets an operation and drops what it owes; whether there was one.
///
/// # Errors
/// The ledger's own.
pub fn forget<R: Records>(records: &mut R, device_id: &str, operation_id: &str) -> Result<bool, R::Error> {
    change(
        records,
        device_id,
        |device| device.forget(operation_id),
        |was| *was,
    )
}

/// Notes that a command was delivered; whether it was still owed.
///
/// # Errors
/// The ledger's own.
pub fn confirm<R: Records>(records: &mut R, command: &Command) -> Result<bool, R::Error> {
    change(
        records,
        &command.device_id,
        |device| device.confirm(command),
        |was| *was,
    )
}

/// Strikes a command off that could not be delivered; whether it was still owed.
///
/// # Errors
/// The ledger's own.
pub fn give_up<R: Records>(records: &mut R, command: &Command) -> Result<bool, R::Error> {
    change(
        records,
        &command.device_id,
        |device| device.give_up(command),
        |was| *was,
    )
}

/// Puts a command back that was given up, unless something newer happened to its operation.
///
/// # Errors
/// The ledger's own.
pub fn owe_again<R: Records>(records: &mut R, command: &Command, now_ms: i64) -> Result<OweAgain, R::Error> {
    change(
        records,
        &command.device_id,
        |device| device.owe_again(command, now_ms),
        |again| *again == OweAgain::Owed,
    )
}

/// Loads a device, and stores it where that made a difference.
fn change<R: Records, T>(
    records: &mut R,
    device_id: &str,
    work: impl FnOnce(&mut Device) -> T,
    is_change: impl FnOnce(&T) -> bool,
) -> Result<T, R::Error> {
    let (mut device, row) = records.device(device_id)?;
    let answer = work(&mut device);
    if is_change(&answer) {
        records.store_device(row, device, None)?;
    }
    Ok(answer)
}
