//! Keeps a flood of log lines of one cause from filling the disk.
//!
//! It logs nothing, and it is no count: metrics count every case.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines of one cause that are logged within [`WINDOW`].
const LINES_MAX: u32 = 5;
const WINDOW: Duration = Duration::from_secs(1);

/// Lets at most five lines a second of each cause through, and says how many it kept back before.
///
/// Causes are a small closed set: each is remembered for good.
#[derive(Debug, Default)]
pub struct LogGate {
    causes: Mutex<Vec<Cause>>,
}

/// What was logged of one cause within the current window.
#[derive(Debug)]
struct Cause {
    code: &'static str,
    began: Instant,
    lines: u32,
    suppressed: u64,
}

impl LogGate {
    /// Whether a line of this cause may be logged, and how many were not since the last.
    pub fn admit(&self, code: &'static str) -> Option<u64> {
        self.admit_at(code, Instant::now())
    }

    fn admit_at(&self, code: &'static str, now: Instant) -> Option<u64> {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let index = causes
            .iter()
            .position(|cause| cause.code == code)
            .unwrap_or_else(|| {
                causes.push(Cause {
                    code,
                    began: now,
                    lines: 0,
                    suppressed: 0,
                });
                causes.len() - 1
            });
        let cause = &mut causes[index];
        if now.duration_since(cause.began) >= WINDOW {
            (cause.began, cause.lines) = (now, 0);
        }
        if cause.lines == LINES_MAX {
            cause.suppressed += 1;
            return None;
        }
        cause.lines += 1;
        Some(std::mem::take(&mut cause.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_cause_is_logged_in_part_and_the_rest_counted() {
        let (gate, now) = (LogGate::default(), Instant::now());
        let logged = (0..100).filter(|_| gate.admit_at("a", now).is_some()).count();
        assert_eq!(logged, 5);
        assert_eq!(gate.admit_at("b", now), Some(0));
        assert_eq!(gate.admit_at("a", now + WINDOW), Some(95));
        assert_eq!(gate.admit_at("a", now + WINDOW), Some(0));
    }
}
