//! What every ledger says of itself: how much it owes, which devices a page is made of, whom a sweep has told.
//!
//! Pure values; a ledger fills them.

use crate::{Command, Status};

/// Most devices of one page; a ledger gives fewer where more are asked for.
pub const PAGE_DEVICES_MAX: usize = 500;

/// How much is owed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Commands owed.
    pub commands: u64,
    /// Since when the oldest of them is owed, in milliseconds since the epoch.
    pub oldest_ms: Option<i64>,
    /// Accounts whose devices have not all been told of its news.
    pub accounts_to_tell: u64,
}

/// Which devices a page is made of; all where nothing is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceFilter {
    /// Those that belong to this account.
    pub account_id: Option<String>,
    /// Those with this status.
    pub status: Option<Status>,
}

/// What telling the devices of accounts did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spread {
    /// Accounts whose devices have all been told.
    pub accounts: usize,
    /// Commands that are owed because of it. They are in the outbox.
    pub commands: Vec<Command>,
}
