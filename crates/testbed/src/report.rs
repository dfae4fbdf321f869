//! What a load run saw: answers by status, failures, latencies, and which events were promised to be kept.
//!
//! It holds a few bytes per request, so its memory is bounded by the length of the run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What one attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// A status code.
    Status(u16),
    /// No answer in time.
    TimedOut,
    /// The connection could not be made or broke.
    Disconnected,
}

/// The sum of a run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Attempts by what they came to.
    pub answers: BTreeMap<Answer, u64>,
    /// Numbers of the events that were answered 2xx.
    pub accepted: BTreeSet<u64>,
    /// Numbers of the events that were given up, with the last answer: a 4xx, or the end of the ladder.
    pub given_up: BTreeMap<u64, Answer>,
    /// How long the whole run took.
    pub elapsed: Duration,
    /// Microseconds of each attempt that was answered, in no order until [`Self::percentile`] sorts a copy.
    latencies_us: Vec<u32>,
}

impl Answer {
    /// Whether it is final in Ring's eyes: a 2xx is delivered, a 4xx is never sent again.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Status(200..=299 | 400..=499))
    }

    /// Whether the event is now ours.
    pub fn is_accepted(self) -> bool {
        matches!(self, Self::Status(200..=299))
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(code) => write!(f, "{code}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Disconnected => f.write_str("disconnected"),
        }
    }
}

impl Report {
    pub(crate) fn record_attempt(&mut self, answer: Answer, latency: Duration) {
        *self.answers.entry(answer).or_default() += 1;
        if let Answer::Status(_) = answer {
            self.latencies_us
                .push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
        }
    }

    pub(crate) fn record_end(&mut self, number: u64, answer: Answer) {
        if answer.is_accepted() {
            self.accepted.insert(number);
        } else {
            self.given_up.insert(number, answer);
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (answer, count) in other.answers {
            *self.answers.entry(answer).or_default() += count;
        }
        self.accepted.extend(other.accepted);
        self.given_up.extend(other.given_up);
        self.latencies_us.extend(other.latencies_us);
    }

    /// Attempts that were answered with `status`.
    pub fn count(&self, status: u16) -> u64 {
        self.answers.get(&Answer::Status(status)).copied().unwrap_or(0)
    }

    /// Attempts in all.
    pub fn attempts(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Accepted events per second of the run.
    pub fn accepted_per_second(&self) -> f64 {
        // Exact up to 2^53 events.
        #[expect(clippy::cast_precision_loss, reason = "no run sends 2^53 events")]
        let accepted = self.accepted.len() as f64;
        accepted / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The latency that `percent` (0 to 100) of the answered attempts did not exceed; zero when there are none.
    pub fn percentile(&self, percent: u8) -> Duration {
        let mut sorted = self.latencies_us.clone();
        sorted.sort_unstable();
        let Some(last) = sorted.len().checked_sub(1) else {
            return Duration::ZERO;
        };
        let rank = (sorted.len() * usize::from(percent.min(100)))
            .div_ceil(100)
            .saturating_sub(1);
        Duration::from_micros(u64::from(sorted[rank.min(last)]))
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1e3;
        writeln!(
            f,
            "accepted {} in {:.2} s, {:.0} events/s",
            self.accepted.len(),
            self.elapsed.as_secs_f64(),
            self.accepted_per_second()
        )?;
        writeln!(
            f,
            "latency ms: p50 {:.2}, p90 {:.2}, p99 {:.2}, max {:.2}",
            ms(50),
            ms(90),
            ms(99),
            ms(100)
        )?;
        write!(f, "answers:")?;
        for (answer, count) in &self.answers {
            write!(f, " {answer} x {count};")?;
        }
        write!(f, " given up: {}", self.given_up.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let mut report = Report::default();
        for ms in (1..=100).rev() {
            report.record_attempt(Answer::Status(200), Duration::from_millis(ms));
        }
        let ms = |percent| report.percentile(percent).as_millis();
        assert_eq!((ms(0), ms(50), ms(99), ms(100)), (1, 50, 99, 100));
    }

    #[test]
    fn only_2xx_and_4xx_are_final() {
        for (code, is_final) in [
            (200, true),
            (204, true),
            (302, false),
            (401, true),
            (429, true),
            (503, false),
        ] {
            assert_eq!(Answer::Status(code).is_final(), is_final, "{code}");
        }
        assert!(!Answer::TimedOut.is_final() && !Answer::Disconnected.is_final());
    }
}
