//! What is known of an account: the newest addition and removal of its integration.
//!
//! A device keeps a copy of its account's registers, because the two live in different partitions of a ledger.

use crate::Order;

/// The two registers of an account. Merging is a maximum, so copies converge in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountRegisters {
    /// The newest `app_integration_added`.
    pub added: Option<Order>,
    /// The newest `app_integration_removed`.
    pub removed: Option<Order>,
}

impl AccountRegisters {
    /// Takes the larger of each register.
    pub fn merge(&mut self, other: &Self) {
        self.added = self.added.take().max(other.added.clone());
        self.removed = self.removed.take().max(other.removed.clone());
    }

    /// Whether the integration is removed and not added since.
    pub fn is_removed(&self) -> bool {
        self.removed > self.added
    }
}
