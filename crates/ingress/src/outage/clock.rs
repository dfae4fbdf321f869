//! When an outage begins, goes on and ends, in Ring's terms: a pure state machine over answers and moments.
//!
//! It reads no clock, logs nothing, and does not know why an answer was a failure.

use std::borrow::Cow;
use std::collections::VecDeque;

use porchlight_event::ring_schedule::{KEPT_MS, LADDER_MS, Span, first_loss_ms};

use super::page::OutageFacts;
use crate::moment::Moment;

/// Outages that are remembered after their end.
const PAST_MAX: usize = 16;
/// An outage that goes on is told again so often, in milliseconds.
const TELL_EVERY_MS: i64 = 600_000;
/// An outage is over when this long after an answer 200 none was 5xx, in milliseconds: a broker that comes and goes makes one
/// outage and not hundreds.
pub(crate) const QUIET_MS: i64 = 10_000;

/// Some time in which requests that may be Ring's were answered 5xx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outage {
    /// The first failure.
    pub(crate) started: Moment,
    /// The last failure so far.
    pub(crate) last_failed: Moment,
    /// The first 200 after the last failure; the end, once it has proved to be that.
    pub(crate) recovered: Option<Moment>,
    /// Answers 5xx, by cause; causes are a closed set.
    pub(crate) causes: Vec<(Cow<'static, str>, u64)>,
    /// Answers 200 between failures: with any, Ring's repetitions may have succeeded. Those that end it are not among
    /// them.
    pub(crate) stored: u64,
    /// When Ring gives up on the first event if this goes on, in milliseconds since the epoch.
    pub(crate) first_loss_ms: i64,
}

/// What has changed, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is on still.
    GoesOn,
    /// Ring begins to give up on events.
    FirstLoss,
    /// Ring begins to forget what it gave up on.
    Forgotten,
    /// It is over; it is the newest of the past ones now.
    Ended,
}

/// The outage that is on, if any, and the ones before.
#[derive(Debug)]
pub(crate) struct OutageClock {
    quiet_ms: i64,
    current: Option<Current>,
    /// The newest first.
    past: VecDeque<Outage>,
}

#[derive(Debug)]
struct Current {
    outage: Outage,
    /// Answers 200 since the last failure. They are not written down: after a restart in an outage there may seem to be fewer
    /// between failures, and Ring is asked for too much, never for too little.
    stored_since: u64,
    told_ms: i64,
    told_loss: bool,
    told_forgotten: bool,
}

impl Outage {
    /// All answers 5xx.
    pub(crate) fn failed(&self) -> u64 {
        self.causes.iter().map(|(_, count)| count).sum()
    }

    /// When Ring forgets the first event that it gave up on, in milliseconds since the epoch.
    pub(crate) fn forgotten_ms(&self) -> i64 {
        self.first_loss_ms.saturating_add(KEPT_MS)
    }

    /// From the first failure to the recovery, or to `now`, in milliseconds.
    pub(crate) fn lasted_ms(&self, now: Moment) -> i64 {
        self.recovered.unwrap_or(now).since(self.started)
    }

    /// As the page shows it.
    pub(super) fn facts(&self, is_over: bool, now: Moment) -> OutageFacts {
        let recovered_at_ms = self.recovered.map(|moment| moment.wall_ms);
        let causes = self.causes.iter();
        OutageFacts {
            started_at_ms: self.started.wall_ms,
            last_failed_at_ms: self.last_failed.wall_ms,
            recovered_at_ms,
            ended_at_ms: recovered_at_ms.filter(|_| is_over),
            lasted_ms: self.lasted_ms(now),
            first_loss_at_ms: self.first_loss_ms,
            forgotten_at_ms: self.forgotten_ms(),
            answers_5xx: self.failed(),
            answers_200: self.stored,
            causes: causes.map(|(cause, count)| (cause.to_string(), *count)).collect(),
        }
    }

    /// What an earlier process saw.
    fn restored(facts: OutageFacts, now: Moment) -> Self {
        let at = |wall_ms: i64| now.earlier_by((now.wall_ms - wall_ms).max(0), wall_ms);
        Self {
            started: at(facts.started_at_ms),
            last_failed: at(facts.last_failed_at_ms),
            recovered: facts.recovered_at_ms.map(at),
            causes: facts
                .causes
                .into_iter()
                .map(|(cause, count)| (cause.into(), count))
                .collect(),
            stored: facts.answers_200,
            first_loss_ms: facts.first_loss_at_ms,
        }
    }

    fn span(&self) -> Span {
        let until = self.recovered.unwrap_or(self.last_failed);
        Span {
            from_ms: self.started.wall_ms,
            until_ms: until.wall_ms,
        }
    }

    fn count(&mut self, cause: &'static str) {
        match self.causes.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, count)) => *count += 1,
            None => self.causes.push((cause.into(), 1)),
        }
    }
}

impl OutageClock {
    pub(crate) fn new(quiet_ms: i64) -> Self {
        Self {
            quiet_ms,
            current: None,
            past: VecDeque::with_capacity(PAST_MAX + 1),
        }
    }

    /// Goes on where an earlier process stopped; what was on is on still until something is answered 200. `all` are as the
    /// page shows them.
    pub(super) fn restore(&mut self, all: Vec<OutageFacts>, now: Moment) {
        for facts in all.into_iter().take(PAST_MAX + 1) {
            let is_over = facts.ended_at_ms.is_some();
            let outage = Outage::restored(facts, now);
            if is_over {
                self.past.push_back(outage);
            } else if self.current.is_none() {
                let loss_in_ms = outage.first_loss_ms - now.wall_ms;
                self.current = Some(Current {
                    told_ms: now.mono_ms,
                    told_loss: loss_in_ms <= 0,
                    told_forgotten: loss_in_ms + KEPT_MS <= 0,
                    stored_since: 0,
                    outage,
                });
            }
        }
        self.past.truncate(PAST_MAX);
    }

    /// The outage that is on.
    pub(crate) fn current(&self) -> Option<&Outage> {
        self.current.as_ref().map(|current| &current.outage)
    }

    /// Those that are over, the newest first.
    pub(crate) fn past(&self) -> impl Iterator<Item = &Outage> {
        self.past.iter()
    }

    /// A request that may be Ring's was answered 5xx. Whether that begins an outage.
    pub(crate) fn failed(&mut self, cause: &'static str, now: Moment) -> bool {
        if let Some(Current {
            outage, stored_since, ..
        }) = &mut self.current
        {
            outage.last_failed = now;
            outage.recovered = None;
            outage.stored += std::mem::take(stored_since);
            outage.count(cause);
            return false;
        }
        let before: Vec<Span> = self.past.iter().map(Outage::span).collect();
        self.current = Some(Current {
            outage: Outage {
                started: now,
                last_failed: now,
                recovered: None,
                causes: vec![(cause.into(), 1)],
                stored: 0,
                first_loss_ms: first_loss_ms(now.wall_ms, &before),
            },
            stored_since: 0,
            told_ms: now.mono_ms,
            told_loss: false,
            told_forgotten: false,
        });
        true
    }

    /// A request of Ring's was answered 200.
    pub(crate) fn stored(&mut self, now: Moment) {
        if let Some(Current {
            outage, stored_since, ..
        }) = &mut self.current
        {
            *stored_since += 1;
            outage.recovered.get_or_insert(now);
        }
    }

    /// What has changed by itself until `now`; at most one thing at a time, so ask until there is nothing.
    pub(crate) fn turn(&mut self, now: Moment) -> Option<Turn> {
        let current = self.current.as_mut()?;
        let outage = &current.outage;
        if let Some(recovered) = outage.recovered {
            // Whatever else is due: it has recovered, and is only not known yet to stay so.
            return (now.since(recovered) >= self.quiet_ms).then(|| self.end());
        }
        let after = now.since(outage.started);
        let loss_after = outage.first_loss_ms - outage.started.wall_ms;
        if !current.told_loss && after >= loss_after {
            current.told_loss = true;
            current.told_ms = now.mono_ms;
            return Some(Turn::FirstLoss);
        }
        if !current.told_forgotten && after >= loss_after + KEPT_MS {
            current.told_forgotten = true;
            current.told_ms = now.mono_ms;
            return Some(Turn::Forgotten);
        }
        if now.mono_ms - current.told_ms >= TELL_EVERY_MS {
            current.told_ms = now.mono_ms;
            return Some(Turn::GoesOn);
        }
        None
    }

    fn end(&mut self) -> Turn {
        if let Some(Current { outage, .. }) = self.current.take() {
            self.past.push_front(outage);
        }
        if self.past.len() > PAST_MAX {
            // Those that lost nothing go first: a broker that comes and goes must not push out the one that matters.
            let lost_nothing = |outage: &Outage| {
                let Span { from_ms, until_ms } = outage.span();
                until_ms - from_ms < LADDER_MS
            };
            let oldest = self.past.len() - 1;
            let goes = (1..=oldest).rev().find(|index| lost_nothing(&self.past[*index]));
            self.past.remove(goes.unwrap_or(oldest));
        }
        Turn::Ended
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    /// Any time of day; the forward clock begins at 0.
    const EPOCH: i64 = 1_771_025_567_000;

    fn at(ms: i64) -> Moment {
        Moment {
            mono_ms: ms,
            wall_ms: EPOCH + ms,
        }
    }

    /// What is told until `to`, looking every second.
    fn told(clock: &mut OutageClock, from: i64, to: i64) -> Vec<(i64, Turn)> {
        let mut found = Vec::new();
        for ms in (from..=to).step_by(1_000) {
            while let Some(turn) = clock.turn(at(ms)) {
                found.push((ms, turn));
            }
        }
        found
    }

    fn outage(clock: &mut OutageClock, from: i64, to: i64) {
        clock.failed("queue_unavailable", at(from));
        clock.failed("queue_unavailable", at(to - 1));
        clock.stored(at(to));
        assert_eq!(clock.turn(at(to + QUIET_MS)), Some(Turn::Ended));
    }

    #[test]
    fn an_outage_begins_at_the_first_failure_and_ends_at_the_first_200_that_stays() {
        let mut clock = OutageClock::new(QUIET_MS);
        clock.stored(at(0));
        assert_eq!(clock.turn(at(0)), None);
        assert!(clock.failed("queue_unavailable", at(1_000)));
        assert!(!clock.failed("queue_unavailable", at(2_000)));
        assert!(!clock.failed("confirm_timeout", at(3_000)));
        clock.stored(at(5_000));
        clock.stored(at(6_000));
        assert_eq!(clock.turn(at(14_999)), None);
        assert_eq!(clock.turn(at(15_000)), Some(Turn::Ended));
        assert!(clock.current().is_none());
        let over = clock.past().next().unwrap();
        assert_eq!((over.started, over.recovered), (at(1_000), Some(at(5_000))));
        assert_eq!(
            over.causes,
            [("queue_unavailable".into(), 2), ("confirm_timeout".into(), 1)]
        );
        assert_eq!((over.failed(), over.stored), (3, 0));
        assert_eq!(over.lasted_ms(at(99_000)), 4_000);
    }

    #[test]
    fn failures_between_answers_200_are_one_outage() {
        let mut clock = OutageClock::new(QUIET_MS);
        clock.failed("window_full", at(0));
        for second in 1..60 {
            clock.stored(at(second * 1_000));
            assert_eq!(clock.turn(at(second * 1_000)), None);
            assert!(!clock.failed("window_full", at(second * 1_000 + 500)));
        }
        clock.stored(at(60_000));
        assert_eq!(told(&mut clock, 60_000, 80_000), [(70_000, Turn::Ended)]);
        assert_eq!(clock.past().count(), 1);
        assert_eq!(clock.past().next().unwrap().stored, 59);
    }

    #[test]
    fn it_is_told_every_ten_minutes_and_when_ring_gives_up_and_forgets() {
        let mut clock = OutageClock::new(QUIET_MS);
        clock.failed("queue_unavailable", at(0));
        let turns = told(&mut clock, 0, LADDER_MS + 10 * MINUTE);
        let expected: Vec<_> = (1..=7).map(|n| (n * 10 * MINUTE, Turn::GoesOn)).collect();
        let after = [
            (LADDER_MS, Turn::FirstLoss),
            (LADDER_MS + 10 * MINUTE, Turn::GoesOn),
        ];
        assert_eq!(turns, [&expected[..], &after].concat());
        assert_eq!(
            clock.turn(at(LADDER_MS + KEPT_MS - 1)),
            Some(Turn::GoesOn),
            "not forgotten yet"
        );
        assert_eq!(clock.turn(at(LADDER_MS + KEPT_MS)), Some(Turn::Forgotten));
        let outage = clock.current().unwrap();
        assert_eq!(outage.first_loss_ms, EPOCH + LADDER_MS);
        assert_eq!(outage.forgotten_ms(), EPOCH + LADDER_MS + KEPT_MS);
    }

    #[test]
    fn a_wall_clock_that_is_set_changes_no_span() {
        let mut clock = OutageClock::new(QUIET_MS);
        clock.failed("queue_unavailable", at(0));
        let set_forward = |ms| Moment {
            mono_ms: ms,
            wall_ms: EPOCH + ms + 90 * MINUTE,
        };
        assert_eq!(clock.turn(set_forward(9 * MINUTE)), None);
        clock.stored(set_forward(9 * MINUTE));
        assert_eq!(
            clock.current().unwrap().lasted_ms(set_forward(20 * MINUTE)),
            9 * MINUTE
        );
    }

    #[test]
    fn an_outage_just_before_brings_the_first_loss_nearer() {
        let mut clock = OutageClock::new(QUIET_MS);
        outage(&mut clock, 0, 20 * MINUTE);
        clock.failed("queue_unavailable", at(60 * MINUTE));
        assert_eq!(clock.current().unwrap().first_loss_ms, EPOCH + LADDER_MS);
    }

    #[test]
    fn a_process_that_starts_anew_goes_on_with_what_the_one_before_saw() {
        let mut before = OutageClock::new(QUIET_MS);
        outage(&mut before, 0, 20 * MINUTE);
        before.failed("queue_unavailable", at(60 * MINUTE));
        let facts = [
            (before.current().unwrap(), false),
            (before.past().next().unwrap(), true),
        ];
        let facts = facts.map(|(outage, is_over)| outage.facts(is_over, at(61 * MINUTE)));
        // The new process's forward clock begins at 0.
        let later = |after: i64| Moment {
            mono_ms: after,
            wall_ms: EPOCH + 65 * MINUTE + after,
        };
        let mut clock = OutageClock::new(QUIET_MS);
        clock.restore(facts.to_vec(), later(0));
        let on = clock.current().unwrap().clone();
        assert_eq!((on.started.wall_ms, on.failed()), (EPOCH + 60 * MINUTE, 1));
        assert_eq!(on.lasted_ms(later(MINUTE)), 6 * MINUTE);
        assert!(
            !clock.failed("queue_unavailable", later(MINUTE)),
            "it is the same outage"
        );
        let loss_after = LADDER_MS - 65 * MINUTE;
        assert_eq!(clock.turn(later(loss_after - 1)), None);
        assert_eq!(clock.turn(later(loss_after)), Some(Turn::FirstLoss));
        assert_eq!(clock.past().count(), 1);
    }

    #[test]
    fn sixteen_are_remembered_and_the_one_that_lost_something_longest() {
        let mut clock = OutageClock::new(QUIET_MS);
        outage(&mut clock, 0, 2 * LADDER_MS);
        let mut from = 3 * LADDER_MS;
        for _ in 0..50 {
            outage(&mut clock, from, from + MINUTE);
            from += 2 * LADDER_MS;
        }
        assert_eq!(clock.past().count(), PAST_MAX);
        assert_eq!(
            clock.past().last().unwrap().started,
            at(0),
            "the long one is still there"
        );
        for _ in 0..20 {
            outage(&mut clock, from, from + 2 * LADDER_MS);
            from += 4 * LADDER_MS;
        }
        assert_eq!(clock.past().count(), PAST_MAX);
        assert!(clock.past().last().unwrap().started.mono_ms > 0);
    }
}
