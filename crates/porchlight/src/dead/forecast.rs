//! What a replay of a dead letter would do now, as a value: for one letter, and summed up for many.
//!
//! It asks nobody; [`super::predict`] does.

use std::collections::BTreeMap;

use porchlight_device::{Action, ActionCounts, Outcome, Prediction};
use serde::{Deserialize, Serialize};

use crate::output::{Output, plain};

/// What would become of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fortune {
    /// The event would change the state.
    Applied,
    /// A command would be owed again, under its own id.
    OwedAgain,
    /// A command would go back to the queue of commands.
    SentAgain,
    /// The event is about nothing that has a state, and would be recorded.
    Recorded,
    /// It is older than what is known.
    Stale,
    /// The same event is known.
    Duplicate,
    /// Its device or account was removed.
    Refused,
    /// A newer command has overtaken it: nothing would be sent.
    Overtaken,
    /// It would be put off: it claims to happen in the future.
    Later,
    /// It would die again.
    Poison,
    /// It cannot be moved, and would stay where it is.
    Kept,
    /// It cannot be said.
    Unknown,
}

/// What a replay of one letter would do now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Forecast {
    /// What would become of it.
    pub(crate) outcome: Fortune,
    /// A short code from a closed set.
    pub(crate) reason: String,
    /// The reason as a clause for a person.
    pub(crate) why: String,
    /// Commands that would be owed.
    pub(crate) commands: Owes,
}

/// Commands that would be owed, by action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owes {
    pub(crate) pause: u64,
    pub(crate) resume: u64,
    pub(crate) cancel: u64,
}

/// Forecasts of many letters, each for itself.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Outlook {
    /// By outcome, then by reason. Both are closed sets.
    outcomes: BTreeMap<Fortune, BTreeMap<String, Sum>>,
    /// Of all letters together.
    commands: Owes,
}

#[derive(Debug, Default, Serialize)]
struct Sum {
    letters: usize,
    #[serde(skip)]
    why: String,
    commands: Owes,
}

impl Fortune {
    /// The word for it.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::OwedAgain => "owed_again",
            Self::SentAgain => "sent_again",
            Self::Recorded => "recorded",
            Self::Stale => "stale",
            Self::Duplicate => "duplicate",
            Self::Refused => "refused",
            Self::Overtaken => "overtaken",
            Self::Later => "later",
            Self::Poison => "poison",
            Self::Kept => "kept",
            Self::Unknown => "unknown",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::OwedAgain => "owed again",
            Self::SentAgain => "sent again",
            Self::Poison => "poison again",
            other => other.code(),
        }
    }
}

impl From<Outcome> for Fortune {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Applied => Self::Applied,
            Outcome::Duplicate => Self::Duplicate,
            Outcome::Stale => Self::Stale,
            Outcome::Refused => Self::Refused,
            Outcome::Recorded => Self::Recorded,
        }
    }
}

impl Forecast {
    /// One without commands.
    pub(super) fn new(outcome: Fortune, reason: &str, why: impl Into<String>) -> Self {
        Self {
            outcome,
            reason: reason.to_owned(),
            why: why.into(),
            commands: Owes::default(),
        }
    }

    /// What the ledger predicts.
    pub(super) fn of(prediction: &Prediction) -> Self {
        let Prediction {
            outcome,
            reason,
            owes,
        } = *prediction;
        Self {
            commands: owes.into(),
            ..Self::new(outcome.into(), reason.code(), reason.text())
        }
    }

    /// The outcome, and what would be owed, in a few words.
    pub(crate) fn short(&self) -> String {
        match self.commands.words() {
            None => self.outcome.words().to_owned(),
            Some(owed) => format!("{}, owes {owed}", self.outcome.words()),
        }
    }
}

impl From<ActionCounts> for Owes {
    fn from(counts: ActionCounts) -> Self {
        Self {
            pause: counts.of(Action::Pause),
            resume: counts.of(Action::Resume),
            cancel: counts.of(Action::Cancel),
        }
    }
}

impl Owes {
    fn add(&mut self, other: Self) {
        self.pause = self.pause.saturating_add(other.pause);
        self.resume = self.resume.saturating_add(other.resume);
        self.cancel = self.cancel.saturating_add(other.cancel);
    }

    /// `2 pauses and 1 resume`; nothing where there is none.
    pub(crate) fn words(self) -> Option<String> {
        let counts = [
            (self.pause, "pause"),
            (self.resume, "resume"),
            (self.cancel, "cancel"),
        ];
        let some = counts.into_iter().filter(|(count, _)| *count > 0);
        let words: Vec<_> = some
            .map(|(count, word)| format!("{count} {word}{}", if count == 1 { "" } else { "s" }))
            .collect();
        let (last, others) = words.split_last()?;
        Some(if others.is_empty() {
            last.clone()
        } else {
            format!("{} and {last}", others.join(", "))
        })
    }
}

impl Outlook {
    /// Counts one letter.
    pub(crate) fn add(&mut self, forecast: &Forecast) {
        let reasons = self.outcomes.entry(forecast.outcome).or_default();
        let sum = reasons.entry(forecast.reason.clone()).or_default();
        sum.letters += 1;
        sum.commands.add(forecast.commands);
        if sum.why.is_empty() {
            // The sentence about a letter that would die again may be about that one alone; the code is about all.
            sum.why = match forecast.outcome {
                Fortune::Poison => forecast.reason.clone(),
                _ => forecast.why.clone(),
            };
        }
        self.commands.add(forecast.commands);
    }

    /// Letters with this outcome.
    #[cfg(test)]
    pub(crate) fn count(&self, outcome: Fortune) -> usize {
        let reasons = self.outcomes.get(&outcome);
        reasons.map_or(0, |reasons| reasons.values().map(|sum| sum.letters).sum())
    }

    /// One line for each outcome and reason.
    pub(crate) fn print(&self, output: Output) {
        for (outcome, reasons) in &self.outcomes {
            for sum in reasons.values() {
                let Sum { letters, why, .. } = sum;
                output.line(format_args!(
                    "  {letters:>8}  {:<12}  {}",
                    outcome.words(),
                    plain(why)
                ));
            }
        }
        if let Some(owed) = self.commands.words() {
            output.line(format_args!("they would make {owed} owed"));
        }
        let letters: usize = self
            .outcomes
            .values()
            .flat_map(BTreeMap::values)
            .map(|sum| sum.letters)
            .sum();
        if letters > 1 {
            output.line("each is predicted by itself: of several about one device, one may outdate another");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn owes(pause: u64, resume: u64, cancel: u64) -> Owes {
        Owes {
            pause,
            resume,
            cancel,
        }
    }

    #[test]
    fn commands_are_told_in_words() {
        assert_eq!(owes(0, 0, 0).words(), None);
        assert_eq!(owes(1, 0, 0).words().unwrap(), "1 pause");
        assert_eq!(owes(2, 1, 0).words().unwrap(), "2 pauses and 1 resume");
        assert_eq!(owes(1, 2, 3).words().unwrap(), "1 pause, 2 resumes and 3 cancels");
    }

    #[test]
    fn an_outlook_sums_letters_and_commands_by_outcome_and_reason() {
        let mut outlook = Outlook::default();
        let applied = Forecast {
            commands: owes(0, 1, 0),
            ..Forecast::new(Fortune::Applied, "newest", "the newest")
        };
        outlook.add(&applied);
        outlook.add(&applied);
        outlook.add(&Forecast::new(Fortune::Poison, "no_device", "names none"));
        assert_eq!(
            (outlook.count(Fortune::Applied), outlook.count(Fortune::Poison)),
            (2, 1)
        );
        let json = serde_json::to_value(&outlook).unwrap();
        assert_eq!(json["outcomes"]["applied"]["newest"]["letters"], 2);
        assert_eq!(json["outcomes"]["poison"]["no_device"]["letters"], 1);
        assert_eq!(json["commands"]["resume"], 2);
    }

    #[test]
    fn every_word_is_the_one_in_json() {
        for outcome in [Fortune::OwedAgain, Fortune::Later, Fortune::Unknown] {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.code());
        }
    }
}
