//! What is known of an account: the newest addition and removal of its integration.
//!
//! A device keeps a copy of its account's registers, because the two live in different partitions of a ledger.

use crate::{Kind, News, Order, Outcome, Reason};

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

/// Moves an account's registers by one event and says what became of it.
pub(crate) fn decide(registers: &mut AccountRegisters, news: &News) -> (Outcome, Reason) {
    let order = &news.order;
    match news.kind {
        Kind::AccountRemoved if Some(order) <= registers.removed.as_ref() => {
            (Outcome::Stale, Reason::OlderThanKnown)
        }
        Kind::AccountRemoved => {
            registers.removed = Some(order.clone());
            if registers.is_removed() {
                (Outcome::Applied, Reason::Newest)
            } else {
                (Outcome::Stale, Reason::AddedSince)
            }
        }
        Kind::AccountAdded if Some(order) <= registers.added.as_ref() => {
            (Outcome::Stale, Reason::OlderThanKnown)
        }
        Kind::AccountAdded => {
            registers.added = Some(order.clone());
            if Some(order) < registers.removed.as_ref() {
                (Outcome::Refused, Reason::RemovedLater)
            } else {
                (Outcome::Applied, Reason::Newest)
            }
        }
        Kind::Online | Kind::Offline | Kind::Added | Kind::Removed | Kind::Recorded => {
            (Outcome::Recorded, Reason::NoEffect)
        }
    }
}
