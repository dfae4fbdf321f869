//! How long something is held and tried again while a server fails, and how long to wait between tries.
//!
//! It waits for nothing itself.

use std::time::{Duration, Instant};

/// The first wait: a failover or a full second of fsync is often over by then.
const WAIT_FIRST: Duration = Duration::from_millis(50);
/// The longest: a server that comes back is noticed soon, one that is down is not hammered.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// One stretch of trying: begins with the first failure and ends with success or when patience runs out.
#[derive(Debug)]
pub(crate) struct Hold {
    until: Instant,
    wait: Duration,
}

impl Hold {
    /// Begins now and lasts `patience`.
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            until: Instant::now() + patience,
            wait: WAIT_FIRST,
        }
    }

    /// How long to wait before the next try, or `None` when patience has run out. Doubles up to 2 s; each wait is cut
    /// by up to half at random, so that workers which lost the same server do not come back in step.
    pub(crate) fn next_wait(&mut self) -> Option<Duration> {
        if Instant::now() >= self.until {
            return None;
        }
        let wait = self.wait.mul_f64(1.0 - fastrand::f64() / 2.0);
        self.wait = (self.wait * 2).min(WAIT_MAX);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_fifty_milliseconds_to_two_seconds() {
        let mut hold = Hold::new(Duration::from_secs(60));
        let waits: Vec<_> = std::iter::from_fn(|| hold.next_wait()).take(9).collect();
        for (tried, wait) in waits.iter().enumerate() {
            let full = WAIT_FIRST.saturating_mul(1 << tried).min(WAIT_MAX);
            assert!(*wait <= full && *wait >= full / 2, "{tried}: {wait:?}");
        }
        assert_eq!(waits.len(), 9);
    }

    #[test]
    fn patience_runs_out() {
        assert_eq!(Hold::new(Duration::ZERO).next_wait(), None);
    }
}
