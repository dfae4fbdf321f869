//! Now, twice: on a clock that only goes forward, for spans, and on the wall's, for people.
//!
//! Whoever decides by time takes a [`Moment`] as a value; only the edge asks for one.

use std::time::SystemTime;

use tokio::time::Instant;

/// One moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Milliseconds since the timekeeper began; negative for what a process before this one saw.
    pub(crate) mono_ms: i64,
    /// Milliseconds since the epoch.
    pub(crate) wall_ms: i64,
}

/// Tells the time. A cheap copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timekeeper {
    began: Instant,
}

impl Moment {
    /// Milliseconds from `earlier` to this; never negative.
    pub(crate) fn since(self, earlier: Self) -> i64 {
        self.mono_ms.saturating_sub(earlier.mono_ms).max(0)
    }

    /// A moment so many milliseconds before this, when the wall's clock showed `wall_ms`.
    pub(crate) fn earlier_by(self, ms: i64, wall_ms: i64) -> Self {
        Self {
            mono_ms: self.mono_ms.saturating_sub(ms),
            wall_ms,
        }
    }
}

impl Timekeeper {
    pub(crate) fn begin() -> Self {
        Self {
            began: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Moment {
        Moment {
            mono_ms: self.at(Instant::now()),
            wall_ms: now_ms(),
        }
    }

    /// A time on the forward clock as [`Moment`] has it.
    pub(crate) fn at(&self, instant: Instant) -> i64 {
        let after = instant.saturating_duration_since(self.began);
        i64::try_from(after.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Wall-clock time in milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
