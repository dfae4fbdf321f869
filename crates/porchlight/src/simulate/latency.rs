//! Latencies in bounded memory: counts in buckets that grow with the value.
//!
//! It measures nothing itself.

use std::time::Duration;

use serde::Serialize;

/// Buckets in each doubling: a shown latency is at most 1.6 % above the true one.
const STEPS: usize = 64;
/// Doublings above the first two groups of steps; the largest value is over an hour.
const DOUBLINGS: usize = 26;
const BUCKETS: usize = (DOUBLINGS + 2) * STEPS;

/// Counts of latencies.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    counts: Vec<u64>,
    total: u64,
    max_us: u64,
}

/// What is shown of them, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Latencies {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
            max_us: 0,
        }
    }

    /// Adds one.
    pub(crate) fn add(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(us)] += 1;
        self.total += 1;
        self.max_us = self.max_us.max(us);
    }

    /// Adds all of another.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// The usual ones; `None` when nothing was measured.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        if self.total == 0 {
            return None;
        }
        let ms = |us: u64| Duration::from_micros(us).as_secs_f64() * 1e3;
        Some(Quantiles {
            p50: ms(self.at(50)),
            p90: ms(self.at(90)),
            p99: ms(self.at(99)),
            max: ms(self.max_us),
        })
    }

    /// The latency in microseconds that `percent` of all do not exceed.
    fn at(&self, percent: u64) -> u64 {
        let rank = u128::from(self.total) * u128::from(percent);
        let mut seen = 0_u128;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count) * 100;
            if seen >= rank && *count > 0 {
                return upper_bound(bucket).min(self.max_us);
            }
        }
        self.max_us
    }
}

fn bucket(us: u64) -> usize {
    let magnitude = (us | 1).ilog2() as usize;
    let doublings = magnitude.saturating_sub(STEPS.ilog2() as usize);
    let step = usize::try_from(us >> doublings).unwrap_or(usize::MAX);
    (doublings * STEPS).saturating_add(step).min(BUCKETS - 1)
}

fn upper_bound(bucket: usize) -> u64 {
    let doublings = (bucket / STEPS).saturating_sub(1);
    let step = (bucket - doublings * STEPS) as u64;
    ((step + 1) << doublings) - 1
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn each_value_lies_in_a_bucket_whose_bound_is_close_above() {
        for us in (0..5_000).chain((1..3_600).map(|second| second * 1_000_000 + 17)) {
            let bound = upper_bound(bucket(us));
            assert!(bound >= us && bound - us <= us / 60, "{us} {bound}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_merged_counts() {
        let (mut fast, mut slow) = (Latencies::new(), Latencies::new());
        for _ in 0..98 {
            fast.add(Duration::from_micros(100));
        }
        slow.add(Duration::from_millis(5));
        slow.add(Duration::from_secs(1));
        fast.merge(&slow);
        let shown = fast.quantiles().unwrap();
        assert!(
            (shown.p50 - 0.1).abs() < 1e-9 && (shown.p90 - 0.1).abs() < 1e-9,
            "{shown:?}"
        );
        assert!(
            (shown.p99 - 5.0).abs() < 0.1 && (shown.max - 1000.0).abs() < 1e-9,
            "{shown:?}"
        );
        assert_eq!(Latencies::new().quantiles(), None);
    }
}
