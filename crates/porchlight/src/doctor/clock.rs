//! Whether clocks agree: ours and that of whoever answers.
//!
//! It asks nobody; a reading comes with how long it took.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::finding::Finding;
use crate::output::span;

/// From here on workers get in each other's way: one that is ahead takes over commands that another is still sending.
const APART_WARNING: Duration = Duration::from_secs(2);
/// From here on events look as if they came from the future, or waited for ever.
const APART_ERROR: Duration = Duration::from_secs(60);
/// A header tells whole seconds, so a clock may be this much further than it says.
pub(super) const HEADER_GRAIN: Duration = Duration::from_secs(1);

/// One reading of another clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// What it said.
    pub(super) theirs: SystemTime,
    /// What ours said when the answer was there.
    pub(super) ours: SystemTime,
    /// How wrong it may be: how long the question took, and the grain of what was told.
    pub(super) blur: Duration,
}

impl Reading {
    /// A reading of now.
    pub(super) fn now(theirs: SystemTime, took: Duration, grain: Duration) -> Self {
        let (ours, blur) = (SystemTime::now(), took + grain);
        Self { theirs, ours, blur }
    }

    /// The same from microseconds since the epoch.
    pub(super) fn from_micros(theirs_us: i64, took: Duration) -> Self {
        let theirs = UNIX_EPOCH + Duration::from_micros(theirs_us.max(0).unsigned_abs());
        Self::now(theirs, took, Duration::ZERO)
    }

    /// How far they are apart for certain, and whether theirs is ahead.
    fn apart(self) -> (Duration, bool) {
        match self.theirs.duration_since(self.ours) {
            Ok(ahead) => (ahead.saturating_sub(self.blur), true),
            Err(behind) => (behind.duration().saturating_sub(self.blur), false),
        }
    }
}

/// What a reading says of the clock of `whom`.
pub(super) fn judge(id: &'static str, whom: &str, reading: Reading) -> Finding {
    let (apart, is_ahead) = reading.apart();
    let side = if is_ahead { "ahead of" } else { "behind" };
    let what = format!("the clock of {whom} is {} {side} this machine's", span(apart));
    let mend = "timedatectl set-ntp true    # on both machines; then: timedatectl timesync-status";
    if apart >= APART_ERROR {
        let why = "Events are judged by the worker's clock: those that seem to lie more than 5 minutes ahead are put \
                   off and end as dead letters, and ages, retries and deadlines are all wrong.";
        Finding::error(id, what).why(why).mend(mend)
    } else if apart >= APART_WARNING {
        let why = "A worker whose clock is ahead takes over commands that another one is still sending, so receivers \
                   see them twice, under one identity; and ages in metrics are wrong.";
        Finding::warning(id, what).why(why).mend(mend)
    } else {
        Finding::ok(id, format!("the clock of {whom} agrees"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    #[test]
    fn clocks_apart_are_told_by_how_much_and_a_slow_answer_is_no_skew() {
        let ours = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let seconds = Duration::from_secs;
        for (theirs, blur, severity) in [
            (ours, Duration::ZERO, Severity::Ok),
            (ours - seconds(3), seconds(0), Severity::Warning),
            (ours - seconds(3), seconds(2), Severity::Ok),
            (ours + seconds(300), seconds(1), Severity::Error),
            (ours - seconds(61), seconds(0), Severity::Error),
        ] {
            let reading = Reading { theirs, ours, blur };
            assert_eq!(
                judge("clock.redis", "Redis", reading).severity,
                severity,
                "{reading:?}"
            );
        }
        let (theirs, blur) = (ours + seconds(300), seconds(1));
        let finding = judge("clock.redis", "Redis", Reading { theirs, ours, blur });
        assert!(finding.what.contains("4m 59s ahead of"), "{finding:?}");
    }
}
