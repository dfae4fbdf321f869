//! Which commands this process has in hand, by operation: the newest of each.
//!
//! It only spares a receiver needless calls. What is still owed is known by the ledger alone.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use porchlight_device::{Action, Command};

type Operation = (String, String);
/// Within one operation a later command is larger.
type Rank = (u64, Action);

/// The newest command in hand of each operation that has any.
#[derive(Debug, Default)]
pub(super) struct InHand(Mutex<HashMap<Operation, Rank>>);

/// One command in hand.
#[derive(Debug)]
pub(super) struct Entry {
    operation: Operation,
    rank: Rank,
}

impl InHand {
    /// Takes a command in hand; `None` when the same is in hand already, or a newer one.
    pub(super) fn enter(&self, command: &Command) -> Option<Entry> {
        let operation = (command.device_id.clone(), command.operation_id.clone());
        let rank = (command.generation, command.action);
        let mut newest = self.lock();
        if newest.get(&operation).is_some_and(|known| *known >= rank) {
            return None;
        }
        newest.insert(operation.clone(), rank);
        Some(Entry { operation, rank })
    }

    /// Whether no newer one came to hand since.
    pub(super) fn is_newest(&self, entry: &Entry) -> bool {
        self.lock().get(&entry.operation) == Some(&entry.rank)
    }

    /// It is done with.
    pub(super) fn leave(&self, entry: &Entry) {
        let mut newest = self.lock();
        if newest.get(&entry.operation) == Some(&entry.rank) {
            newest.remove(&entry.operation);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Operation, Rank>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::outlet::tests::command;

    #[test]
    fn the_newest_of_an_operation_overtakes_and_nothing_is_in_hand_twice() {
        let in_hand = InHand::default();
        let first = in_hand.enter(&command("k", 1)).unwrap();
        assert!(in_hand.enter(&command("k", 1)).is_none());
        let second = in_hand.enter(&command("k", 2)).unwrap();
        assert!(in_hand.enter(&command("k", 1)).is_none());
        assert!(!in_hand.is_newest(&first) && in_hand.is_newest(&second));
        in_hand.leave(&first);
        assert!(in_hand.is_newest(&second));
        in_hand.leave(&second);
        assert!(
            in_hand.enter(&command("k", 1)).is_some(),
            "nothing is remembered for good"
        );
    }
}
