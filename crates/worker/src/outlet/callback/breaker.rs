//! A circuit breaker: after some failures in a row nothing is tried for a while, then one try decides.
//!
//! It counts only what it is told and runs nothing by itself; time passes by being looked at.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// When it opens, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct BreakerBounds {
    /// Failures in a row that open it.
    pub failures_max: u32,
    /// The wait before the first probe.
    pub wait_min: Duration,
    /// The longest wait between two probes; it doubles up to there.
    pub wait_max: Duration,
}

impl Default for BreakerBounds {
    fn default() -> Self {
        Self {
            failures_max: 5,
            wait_min: Duration::from_secs(1),
            wait_max: Duration::from_secs(60),
        }
    }
}

/// What it says of one receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// Everything is tried.
    Closed,
    /// One is being tried.
    Probing,
    /// Nothing is tried.
    Open,
}

#[derive(Debug)]
pub(super) struct Breaker {
    bounds: BreakerBounds,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, wait: Duration },
    Probing,
}

/// Leave for one try, which ends by saying how it went. Dropped without a word, it leaves things as they were.
#[derive(Debug)]
pub(super) struct Pass<'b> {
    breaker: &'b Breaker,
    /// For a probe: the wait before it.
    probe: Option<Duration>,
}

enum Look {
    Pass(Option<Duration>),
    Refused,
    Wait,
}

impl Breaker {
    pub(super) fn new(bounds: BreakerBounds) -> Self {
        Self {
            bounds,
            state: watch::Sender::new(State::Closed { failures: 0 }),
        }
    }

    pub(super) fn position(&self) -> Position {
        match *self.state.borrow() {
            State::Closed { .. } => Position::Closed,
            State::Probing => Position::Probing,
            State::Open { .. } => Position::Open,
        }
    }

    /// Whether a try would be let through now, or decided about soon.
    pub(super) fn admits(&self) -> bool {
        match *self.state.borrow() {
            State::Closed { .. } | State::Probing => true,
            State::Open { until, .. } => Instant::now() >= until,
        }
    }

    /// Leave for a try; `None` while it is open. During a probe it waits for the outcome, so that what was handed in
    /// beside the probe follows it at once.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn admit(&self) -> Option<Pass<'_>> {
        loop {
            // From here on no change is missed.
            let mut changes = self.state.subscribe();
            match self.look() {
                Look::Pass(probe) => {
                    return Some(Pass { breaker: self, probe });
                }
                Look::Refused => return None,
                // The sender is ours, so this does not fail.
                Look::Wait => changes.changed().await.ok()?,
            }
        }
    }

    fn look(&self) -> Look {
        let mut look = Look::Wait;
        self.state.send_if_modified(|state| match *state {
            State::Closed { .. } => {
                look = Look::Pass(None);
                false
            }
            State::Open { until, wait } if Instant::now() >= until => {
                look = Look::Pass(Some(wait));
                *state = State::Probing;
                true
            }
            State::Open { .. } => {
                look = Look::Refused;
                false
            }
            State::Probing => false,
        });
        look
    }

    fn open_for(&self, wait: Duration) -> State {
        let wait = wait.min(self.bounds.wait_max);
        // What fails together is not to come back together.
        let until = Instant::now() + wait.mul_f64(0.75 + fastrand::f64() / 2.0);
        State::Open { until, wait }
    }
}

impl Pass<'_> {
    /// It was delivered. Whether that closed the breaker.
    pub(super) fn succeeded(mut self) -> bool {
        self.probe = None;
        let mut closed = false;
        self.breaker.state.send_modify(|state| {
            closed = !matches!(state, State::Closed { .. });
            *state = State::Closed { failures: 0 };
        });
        closed
    }

    /// It was not. Whether that opened the breaker, from being closed.
    pub(super) fn failed(mut self) -> bool {
        let (breaker, probe) = (self.breaker, self.probe.take());
        let mut opened = false;
        breaker.state.send_modify(|state| match (*state, probe) {
            (State::Closed { failures }, _) if failures + 1 >= breaker.bounds.failures_max => {
                opened = true;
                *state = breaker.open_for(breaker.bounds.wait_min);
            }
            (State::Closed { failures }, _) => {
                *state = State::Closed {
                    failures: failures + 1,
                }
            }
            (State::Probing, Some(wait)) => *state = breaker.open_for(wait * 2),
            // One that began before the breaker opened; it says nothing new.
            (State::Open { .. } | State::Probing, _) => {}
        });
        opened
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(wait) = self.probe {
            self.breaker.state.send_if_modified(|state| {
                let undecided = matches!(state, State::Probing);
                if undecided {
                    *state = self.breaker.open_for(wait);
                }
                undecided
            });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn breaker(wait_min: Duration) -> Breaker {
        Breaker::new(BreakerBounds {
            failures_max: 2,
            wait_min,
            wait_max: Duration::from_secs(3600),
        })
    }

    async fn fail(breaker: &Breaker) -> bool {
        breaker.admit().await.unwrap().failed()
    }

    #[tokio::test]
    async fn only_failures_in_a_row_open_it() {
        let breaker = breaker(Duration::from_secs(60));
        assert!(!fail(&breaker).await);
        assert!(!breaker.admit().await.unwrap().succeeded());
        assert!(!fail(&breaker).await);
        assert!(fail(&breaker).await);
        assert_eq!(breaker.position(), Position::Open);
        assert!(breaker.admit().await.is_none() && !breaker.admits());
    }

    #[tokio::test]
    async fn one_probe_decides_for_those_who_wait() {
        let breaker = breaker(Duration::ZERO);
        fail(&breaker).await;
        fail(&breaker).await;
        let probe = breaker.admit().await.unwrap();
        assert_eq!(breaker.position(), Position::Probing);
        let (other, closed) = tokio::join!(breaker.admit(), async {
            tokio::task::yield_now().await;
            probe.succeeded()
        });
        assert!(closed && !other.unwrap().failed());
        assert_eq!(breaker.position(), Position::Closed);
    }

    #[tokio::test]
    async fn a_probe_that_fails_doubles_the_wait_and_one_that_is_dropped_does_not() {
        let breaker = breaker(Duration::from_nanos(1));
        fail(&breaker).await;
        fail(&breaker).await;
        let wait = || match *breaker.state.borrow() {
            State::Open { wait, .. } => wait.as_nanos(),
            other => panic!("{other:?}"),
        };
        for wanted in [1, 2, 4, 8] {
            assert_eq!(wait(), wanted);
            drop(breaker.admit().await.unwrap());
            assert_eq!(wait(), wanted);
            assert!(!fail(&breaker).await, "it was open before");
        }
    }
}
