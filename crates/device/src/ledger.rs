//! What every ledger says of itself: how much it owes, which devices a page is made of, whom a sweep has told.
//!
//! Pure values; a ledger fills them.

use crate::{Command, Status};

/// Most devices of one page; a ledger gives fewer where more are asked for.
pub const PAGE_DEVICES_MAX: usize = 500;

/// Shortest time for which a claimed command is held back from other sweepers, in milliseconds: longer than a
/// publish with its confirm may take.
pub const HOLD_MS_MIN: i64 = 5_000;
/// Longest such time, and so the longest pause between two attempts, in milliseconds.
pub const HOLD_MS_MAX: i64 = 5 * 60 * 1000;

/// For how long a claimed command is held back: as long as it is overdue since it first was due, so that the pauses
/// between attempts about double, times 0.75 to 1.25, so that what fails together does not come back together.
/// `chance` is 0 to 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "at most five minutes in milliseconds"
)]
pub fn hold_ms(overdue_ms: i64, chance: f64) -> i64 {
    let bounded = |ms: i64| ms.clamp(HOLD_MS_MIN, HOLD_MS_MAX);
    bounded((bounded(overdue_ms) as f64 * (0.75 + chance / 2.0)) as i64)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_double_about_and_stay_within_their_bounds() {
        assert_eq!(
            [0.0, 0.5, 1.0].map(|chance| hold_ms(0, chance)),
            [5_000, 5_000, 6_250]
        );
        assert_eq!(
            [0.0, 0.5, 1.0].map(|chance| hold_ms(40_000, chance)),
            [30_000, 40_000, 50_000]
        );
        assert_eq!(
            [0.0, 0.5, 1.0].map(|chance| hold_ms(i64::MAX, chance)),
            [225_000, 300_000, 300_000]
        );
        assert_eq!(hold_ms(i64::MIN, 0.9), 6_000);
    }
}
