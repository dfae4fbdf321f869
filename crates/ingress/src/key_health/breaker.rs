//! When it is likelier that our keys are wrong than that every sender is a forger: a pure state machine.
//!
//! It reads no clock and no request; a request is a number that another one does not have.

use crate::moment::Moment;

/// When the breaker opens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BreakerRules {
    /// So many different requests have failed;
    pub(crate) requests: usize,
    /// over at least this time, in milliseconds;
    pub(crate) over_ms: i64,
    /// and none has matched for this long, in milliseconds, or since the start.
    pub(crate) silence_ms: i64,
}

/// Requests with a well-formed signature that no key matched, since the last one that did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub(crate) count: u64,
    pub(crate) first: Moment,
    pub(crate) last: Moment,
    /// Of these, answered 401: Ring does not repeat them.
    pub(crate) refused: u64,
}

/// Open means: answer 503 in place of 401.
#[derive(Debug)]
pub(crate) struct KeyBreaker {
    rules: BreakerRules,
    /// Different requests that failed since the last match; at most as many as the rules ask for.
    different: Vec<u64>,
    rejected: Option<Rejected>,
    open_since: Option<Moment>,
}

impl Default for BreakerRules {
    fn default() -> Self {
        Self {
            requests: 10,
            over_ms: 60_000,
            silence_ms: 300_000,
        }
    }
}

impl KeyBreaker {
    pub(crate) fn new(rules: BreakerRules) -> Self {
        Self {
            rules,
            different: Vec::new(),
            rejected: None,
            open_since: None,
        }
    }

    /// Whether it still matters which request fails.
    pub(crate) fn counts_requests(&self) -> bool {
        self.different.len() < self.rules.requests
    }

    /// A request failed. `last_match_ms` is on the forward clock, and `None` when there was none since the start; `may_open`
    /// is false when the breaker is switched off. Whether it opens with this one.
    pub(crate) fn failed(
        &mut self,
        request: u64,
        last_match_ms: Option<i64>,
        may_open: bool,
        now: Moment,
    ) -> bool {
        if self.counts_requests() && !self.different.contains(&request) {
            self.different.push(request);
        }
        let rejected = self.rejected.get_or_insert(Rejected {
            count: 0,
            first: now,
            last: now,
            refused: 0,
        });
        rejected.count += 1;
        rejected.last = now;
        let silent = last_match_ms.is_none_or(|at| now.mono_ms - at >= self.rules.silence_ms);
        let lasting = now.since(rejected.first) >= self.rules.over_ms;
        let many = self.different.len() >= self.rules.requests;
        let opens = self.open_since.is_none() && may_open && many && lasting && silent;
        if opens {
            self.open_since = Some(now);
        }
        if self.open_since.is_none() {
            rejected.refused += 1;
        }
        opens
    }

    /// A request matched: everything begins anew. Since when the breaker was open, if it was, and what failed meanwhile.
    pub(crate) fn matched(&mut self) -> Option<(Moment, Rejected)> {
        self.different.clear();
        let (open_since, rejected) = (self.open_since.take(), self.rejected.take());
        open_since.zip(rejected)
    }

    /// Since when it is open.
    pub(crate) fn open_since(&self) -> Option<Moment> {
        self.open_since
    }

    /// What failed since the last match.
    pub(crate) fn rejected(&self) -> Option<Rejected> {
        self.rejected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000;
    const MINUTE: i64 = 60 * SECOND;

    fn at(ms: i64) -> Moment {
        Moment {
            mono_ms: ms,
            wall_ms: 1_771_025_567_000 + ms,
        }
    }

    fn breaker() -> KeyBreaker {
        KeyBreaker::new(BreakerRules::default())
    }

    /// Fails different requests, one every `every` milliseconds from `from` on; which one of them opened the breaker.
    fn fail(
        breaker: &mut KeyBreaker,
        count: u64,
        from: i64,
        every: i64,
        last_match: Option<i64>,
    ) -> Option<u64> {
        let moments = (0..).map(|n| at(from + n * every));
        (1..=count)
            .zip(moments)
            .find(|(request, now)| breaker.failed(*request, last_match, true, *now))
            .map(|(request, _)| request)
    }

    #[test]
    fn without_a_match_since_the_start_it_opens_at_the_tenth_different_request_after_a_minute() {
        assert_eq!(
            fail(&mut breaker(), 20, 0, 10 * SECOND, None),
            Some(10),
            "enough time, so it is the tenth"
        );
        assert_eq!(
            fail(&mut breaker(), 200, 0, SECOND, None),
            Some(61),
            "enough requests, so it is the minute"
        );
        assert_eq!(fail(&mut breaker(), 9, 0, 10 * MINUTE, None), None);
        assert_eq!(
            fail(&mut breaker(), 1_000, 0, 59, None),
            None,
            "all within a minute"
        );
    }

    #[test]
    fn after_a_match_it_waits_for_five_minutes_of_silence() {
        let matched = Some(0);
        assert_eq!(
            fail(&mut breaker(), 1_000, SECOND, SECOND, matched),
            Some(300),
            "300 s after the match"
        );
        assert_eq!(
            fail(&mut breaker(), 12, 10 * MINUTE, 10 * SECOND, matched),
            Some(10)
        );
    }

    #[test]
    fn one_request_over_and_over_does_not_open_it() {
        let mut breaker = breaker();
        for n in 0..1_000 {
            assert!(!breaker.failed(7, None, true, at(n * SECOND)));
        }
        assert_eq!(breaker.different.len(), 1);
        assert!(breaker.rejected().is_some_and(|rejected| rejected.count == 1_000));
    }

    #[test]
    fn what_it_remembers_is_bounded_and_a_match_clears_it() {
        let mut breaker = breaker();
        assert!(fail(&mut breaker, 100, 0, SECOND, None).is_some());
        for n in 100..10_000 {
            assert!(
                !breaker.failed(n, None, true, at(100 * SECOND)),
                "it is open already"
            );
        }
        assert_eq!(breaker.different.len(), 10);
        let Some((since, rejected)) = breaker.matched() else {
            panic!("it was open")
        };
        assert_eq!(
            (since, rejected.first, rejected.refused),
            (at(60 * SECOND), at(0), 60)
        );
        assert!(breaker.open_since().is_none() && breaker.rejected().is_none());
        assert!(breaker.matched().is_none(), "it is closed already");
        assert_eq!(
            fail(&mut breaker, 9, 200 * SECOND, MINUTE, None),
            None,
            "it counts from the beginning"
        );
    }

    #[test]
    fn switched_off_it_only_counts() {
        let mut breaker = breaker();
        for n in 0..1_000 {
            assert!(!breaker.failed(n, None, false, at(i64::try_from(n).unwrap_or(0) * SECOND)));
        }
        assert!(
            breaker
                .rejected()
                .is_some_and(|rejected| rejected.refused == 1_000)
        );
    }
}
