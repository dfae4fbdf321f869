//! What taking an event would decide now, without taking it: the same steps, on records that nothing is stored in.
//!
//! It is about one event at a time, as if it were the only one: of two events that would both be applied, taking the
//! first may make the second stale.

use crate::records::{self, Line, Records};
use crate::{AccountRegisters, Action, Command, Decision, Device, News, Outcome, OweAgain, Reason};

/// What would become of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prediction {
    /// What would become of it.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// The commands that it would make owed, on all devices together.
    pub owes: ActionCounts,
}

/// How many commands of each action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ActionCounts {
    /// [`Action::Pause`]
    pub pause: u64,
    /// [`Action::Resume`]
    pub resume: u64,
    /// [`Action::Cancel`]
    pub cancel: u64,
}

/// Records that are read and never stored.
struct Unwritten<'r, R>(&'r mut R);

/// Says what [`records::apply`] would answer now. Nothing is stored.
///
/// # Errors
/// The ledger's own.
pub fn predict<R: Records>(records: &mut R, news: &News, now_ms: i64) -> Result<Prediction, R::Error> {
    let decision = records::apply(&mut Unwritten(records), news, now_ms)?;
    Ok(Prediction::of(&decision))
}

/// Says what [`records::owe_again`] would answer now. Nothing is stored.
///
/// # Errors
/// The ledger's own.
pub fn predict_owe_again<R: Records>(
    records: &mut R,
    command: &Command,
    now_ms: i64,
) -> Result<OweAgain, R::Error> {
    records::owe_again(&mut Unwritten(records), command, now_ms)
}

impl Prediction {
    /// The prediction that a decision would have fulfilled.
    pub fn of(decision: &Decision) -> Self {
        let mut owes = ActionCounts::default();
        for command in &decision.commands {
            owes.add(command.action, 1);
        }
        Self {
            outcome: decision.outcome,
            reason: decision.reason,
            owes,
        }
    }
}

impl ActionCounts {
    /// Counts so many commands more.
    pub fn add(&mut self, action: Action, count: u64) {
        let sum = match action {
            Action::Pause => &mut self.pause,
            Action::Resume => &mut self.resume,
            Action::Cancel => &mut self.cancel,
        };
        *sum = sum.saturating_add(count);
    }

    /// Counts everything that `other` counts, too.
    pub fn merge(&mut self, other: Self) {
        for action in Action::ALL {
            self.add(action, other.of(action));
        }
    }

    /// How many of one action.
    pub fn of(self, action: Action) -> u64 {
        match action {
            Action::Pause => self.pause,
            Action::Resume => self.resume,
            Action::Cancel => self.cancel,
        }
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl<R: Records> Records for Unwritten<'_, R> {
    type Error = R::Error;
    type Row = R::Row;

    fn is_marked(&mut self, news: &News) -> Result<bool, R::Error> {
        self.0.is_marked(news)
    }

    fn mark(&mut self, _: &News) -> Result<(), R::Error> {
        Ok(())
    }

    fn device(&mut self, device_id: &str) -> Result<(Device, R::Row), R::Error> {
        self.0.device(device_id)
    }

    fn store_device(&mut self, _: R::Row, _: Device, _: Option<Line>) -> Result<(), R::Error> {
        Ok(())
    }

    fn account(&mut self, account_id: &str) -> Result<AccountRegisters, R::Error> {
        self.0.account(account_id)
    }

    fn store_account(&mut self, _: &str, _: &AccountRegisters) -> Result<(), R::Error> {
        Ok(())
    }

    fn devices_of(&mut self, account_id: &str) -> Result<Vec<String>, R::Error> {
        self.0.devices_of(account_id)
    }
}
