//! What the live view remembers of its looks: the last one whole, and of those before it what rates and sparklines need.
//!
//! Pure: the time is passed in, and memory is bounded.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::look::Look;

/// Looks that are remembered: as many as the widest sparkline has columns.
pub(super) const POINTS_MAX: usize = 120;
/// A rate is taken over at least this long, where there is so much, so that it does not jump about.
const RATE_MIN: Duration = Duration::from_secs(5);
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What a series is a series of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    /// Ready in a queue.
    Ready(String),
    /// Commands owed.
    Owed,
    /// How long the oldest event waits, in seconds.
    Lag,
    /// Answers so far, by status.
    Answers(String),
    /// Events settled so far, whatever became of them.
    Settled,
}

/// The looks so far.
#[derive(Default)]
pub(super) struct Board {
    pub(super) last: Option<Look>,
    points: VecDeque<Point>,
}

struct Point {
    at: Instant,
    values: BTreeMap<Name, f64>,
}

impl Board {
    /// Takes a look.
    pub(super) fn take(&mut self, look: Look) {
        self.points.push_back(Point {
            at: look.at,
            values: look.values(),
        });
        if self.points.len() > POINTS_MAX {
            self.points.pop_front();
        }
        self.last = Some(look);
    }

    /// By how much a value changes in a second, over the last seconds; nothing where it is not known at both ends.
    pub(super) fn change(&self, name: &Name) -> Option<f64> {
        let last = self.points.back()?;
        let since = |point: &&Point| last.at.saturating_duration_since(point.at);
        let mut before = self.points.iter().rev().skip(1);
        // What lies a gap back says nothing of the last seconds.
        let mut known = before.next()?;
        for point in before {
            if since(&known) >= RATE_MIN {
                break;
            }
            known = point;
        }
        let seconds = since(&known).as_secs_f64();
        let change = last.values.get(name)? - known.values.get(name)?;
        (seconds > 0.0).then_some(change / seconds)
    }

    /// As [`Board::change`], of a count that only grows: one that fell began anew, and has no rate yet.
    pub(super) fn rate(&self, name: &Name) -> Option<f64> {
        self.change(name).filter(|rate| *rate >= 0.0)
    }

    /// The last values as bars, the newest last; the highest bar is the largest of them. A look that did not know the
    /// value leaves a gap.
    pub(super) fn sparkline(&self, name: &Name, columns: usize) -> String {
        let skipped = self.points.len().saturating_sub(columns);
        let values = || {
            self.points
                .iter()
                .skip(skipped)
                .map(|point| point.values.get(name).copied())
        };
        bars(values, columns)
    }

    /// The same of how a count grew from look to look.
    pub(super) fn sparkline_of_growth(&self, name: &Name, columns: usize) -> String {
        let skipped = self.points.len().saturating_sub(columns + 1);
        let values = || {
            let pairs = self.points.iter().zip(self.points.iter().skip(1)).skip(skipped);
            pairs.map(|(before, after)| {
                let seconds = after.at.saturating_duration_since(before.at).as_secs_f64();
                let grown = after.values.get(name)? - before.values.get(name)?;
                (seconds > 0.0 && grown >= 0.0).then_some(grown / seconds)
            })
        };
        bars(values, columns)
    }
}

fn bars<I: Iterator<Item = Option<f64>>>(values: impl Fn() -> I, columns: usize) -> String {
    let most = values().flatten().fold(0.0, f64::max);
    let drawn: Vec<char> = values()
        .map(|value| value.map_or(' ', |value| bar(value, most)))
        .collect();
    let blanks = columns.saturating_sub(drawn.len());
    std::iter::repeat_n(' ', blanks).chain(drawn).collect()
}

/// Nothing is the lowest bar and anything else is above it, so that one event among thousands shows.
fn bar(value: f64, most: f64) -> char {
    if value <= 0.0 || most <= 0.0 {
        return BARS[0];
    }
    let highest = BARS.len() - 1;
    let height = (1..highest).find(|step| value / most <= step_of(*step, highest));
    BARS[height.unwrap_or(highest)]
}

#[expect(clippy::cast_precision_loss, reason = "numbers below ten")]
fn step_of(step: usize, highest: usize) -> f64 {
    step as f64 / highest as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn board(values: &[(u64, Option<f64>)]) -> Board {
        let began = Instant::now();
        let points = values.iter().map(|(seconds, value)| Point {
            at: began + Duration::from_secs(*seconds),
            values: value.map(|value| (Name::Owed, value)).into_iter().collect(),
        });
        Board {
            last: None,
            points: points.collect(),
        }
    }

    #[test]
    fn a_rate_is_taken_over_some_seconds_and_not_across_what_is_not_known() {
        let change = |values: &[(u64, Option<f64>)]| board(values).change(&Name::Owed);
        assert_eq!(change(&[]), None);
        assert_eq!(change(&[(0, Some(5.0))]), None);
        assert_eq!(change(&[(0, Some(5.0)), (2, Some(9.0))]), Some(2.0));
        // Six seconds back, not ten.
        let long = [
            (0, Some(1000.0)),
            (4, Some(4.0)),
            (6, Some(0.0)),
            (8, Some(0.0)),
            (10, Some(10.0)),
        ];
        assert_eq!(change(&long), Some(1.0));
        assert_eq!(change(&[(0, None), (2, Some(9.0))]), None);
        assert_eq!(change(&[(0, Some(9.0)), (2, None)]), None);
        let fell = board(&[(0, Some(9.0)), (2, Some(1.0))]);
        assert_eq!(
            (fell.change(&Name::Owed), fell.rate(&Name::Owed)),
            (Some(-4.0), None)
        );
    }

    #[test]
    fn a_sparkline_ends_with_the_newest_and_shows_gaps_and_the_smallest_of_counts() {
        let all = board(&[
            (0, Some(0.0)),
            (1, None),
            (2, Some(1.0)),
            (3, Some(1000.0)),
            (4, Some(500.0)),
        ]);
        assert_eq!(all.sparkline(&Name::Owed, 7), "  ▁ ▂█▅");
        assert_eq!(all.sparkline(&Name::Owed, 2), "█▅");
        assert_eq!(all.sparkline(&Name::Lag, 5), "     ");
        let growing = board(&[
            (0, Some(0.0)),
            (1, Some(4.0)),
            (2, Some(4.0)),
            (3, Some(1.0)),
            (4, Some(3.0)),
        ]);
        assert_eq!(growing.sparkline_of_growth(&Name::Owed, 5), " █▁ ▅");
    }
}
