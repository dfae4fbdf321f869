//! When to look next: regularly, sooner after a failure, and never in step with other processes.
//!
//! It reads nothing itself.

use std::time::Duration;

/// After a failure the next look comes no later than this: whoever waits for a server to return wants to see it.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The first look comes no later than this after the start, and not at once: on a fresh broker the queues are only just
/// being declared, and each question for one that is missing costs a channel and a line in its log.
const FIRST_MAX: Duration = Duration::from_secs(1);

/// The pauses between readings.
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    interval: Duration,
}

impl Beat {
    /// A reading every `interval`, about.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval }
    }

    /// Waits for the first reading.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn first(self) {
        tokio::time::sleep(self.interval.min(FIRST_MAX)).await;
    }

    /// Waits for the next reading. `good` says how the last one went. A tenth more or less at random keeps a fleet
    /// from asking all at once.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn pause(self, good: bool) {
        tokio::time::sleep(self.wait(good, fastrand::f64())).await;
    }

    fn wait(self, good: bool, chance: f64) -> Duration {
        let usual = if good {
            self.interval
        } else {
            self.interval.min(RETRY_MAX)
        };
        usual.mul_f64(0.9 + chance / 5.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_looked_at_again_soon_and_never_later_than_usual() {
        let (slow, quick) = (
            Beat::new(Duration::from_secs(60)),
            Beat::new(Duration::from_secs(1)),
        );
        assert_eq!(slow.wait(true, 0.5), Duration::from_secs(60));
        assert_eq!(slow.wait(false, 0.5), RETRY_MAX);
        assert_eq!(quick.wait(false, 0.5), Duration::from_secs(1));
        assert!(slow.wait(true, 0.0) < slow.wait(true, 1.0));
    }
}
