//! What goes over the control API about dead letters: pages of rows, what is to be replayed, and what became of it.
//!
//! Both sides of the call use these; a body is in none of them but in letters that are asked for in full.

use porchlight_event::queue::DeadLetter;
pub(crate) use porchlight_event::replay::REPLAY_COUNT_MAX;
use porchlight_event::replay::{self, Settled, StopReason};
use serde::{Deserialize, Serialize};

use super::facts::Row;
use crate::moving::LetterLine;

/// A row with the letter's key, which names it until it is gone.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeyedRow {
    pub(crate) key: String,
    #[serde(flatten)]
    pub(crate) row: Row,
    /// The whole letter, as an export has it, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) letter: Option<Box<LetterLine>>,
}

/// The answer to `GET /v1/dead`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LettersPage {
    pub(crate) letters: Vec<KeyedRow>,
    /// Letters there are.
    pub(crate) total: u64,
    /// Where this look ends: given back as `until`, later pages leave out what died since.
    pub(crate) until: String,
    pub(crate) next_cursor: Option<String>,
}

/// The body of `POST /v1/dead/replay` and of `POST /v1/dead/drop`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with keys or ids, and force")]
pub(crate) struct ReplayRequest {
    /// Letters by the keys that a page gave.
    #[serde(default)]
    pub(crate) keys: Vec<String>,
    /// Letters by their whole message ids.
    #[serde(default)]
    pub(crate) ids: Vec<String>,
    /// Also what was replayed too often.
    #[serde(default)]
    pub(crate) force: bool,
}

/// The body of `POST /v1/dead/import`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with letters")]
pub(crate) struct ImportRequest {
    /// Letters as an export has them.
    pub(crate) letters: Vec<LetterLine>,
}

/// The answer to `POST /v1/dead/import`, in the order of the letters.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ImportAnswer {
    /// Whether each was new; one that was there already was left as it is.
    pub(crate) is_new: Vec<bool>,
}

/// The answer to `POST /v1/dead/replay` and `/v1/dead/drop`, in the order of the letters that were asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ReplayAnswer {
    pub(crate) results: Vec<Replayed>,
}

/// What became of one letter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Replayed {
    pub(crate) key: String,
    pub(crate) message_id: Option<String>,
    pub(crate) reason: Option<String>,
    /// How often it was replayed, this time included.
    pub(crate) replays: u32,
    #[serde(flatten)]
    pub(crate) fate: Fate,
}

/// What became of one wanted letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fate", content = "error", rename_all = "snake_case")]
pub(crate) enum Fate {
    /// It is with the events again, and no letter any more.
    Replayed,
    /// A command that no receiver took is owed again, and its letter gone.
    OwedAgain,
    /// A command that something newer has overtaken: there is nothing to send, and its letter is gone.
    Overtaken,
    /// It is gone for good, as was wanted.
    Dropped,
    /// It was replayed too often; it is still there.
    Refused,
    /// It holds no command that could be owed again; it is still there. In words.
    Unusable(String),
    /// It could not be moved; it is still there. In words.
    Kept(String),
    /// The call that it was part of broke off: it may be done, or still be there.
    Unknown,
    /// Somebody else has taken it away.
    Gone,
}

impl Fate {
    /// The word for it.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::OwedAgain => "owed_again",
            Self::Overtaken => "overtaken",
            Self::Dropped => "dropped",
            Self::Refused => "refused",
            Self::Unusable(_) => "unusable",
            Self::Kept(_) => "kept",
            Self::Unknown => "unknown",
            Self::Gone => "gone",
        }
    }

    /// The same as the queue tells it.
    pub(super) fn to_event(&self) -> replay::Fate {
        match self {
            Self::Replayed => replay::Fate::Replayed,
            Self::OwedAgain => replay::Fate::OwedAgain,
            Self::Overtaken => replay::Fate::Overtaken,
            Self::Dropped => replay::Fate::Dropped,
            Self::Refused => replay::Fate::Refused,
            Self::Unusable(why) => replay::Fate::Unusable(why.clone()),
            Self::Kept(why) => replay::Fate::Kept(StopReason::Lost(why.clone())),
            Self::Unknown => replay::Fate::Kept(StopReason::Lost("a call that broke off".to_owned())),
            Self::Gone => replay::Fate::Gone,
        }
    }

    /// Whether this took the letter out of the dead letters.
    pub(crate) fn is_moved(&self) -> bool {
        self.to_event().is_moved()
    }
}

impl From<replay::Fate> for Fate {
    fn from(fate: replay::Fate) -> Self {
        match fate {
            replay::Fate::Replayed => Self::Replayed,
            replay::Fate::OwedAgain => Self::OwedAgain,
            replay::Fate::Overtaken => Self::Overtaken,
            replay::Fate::Dropped => Self::Dropped,
            replay::Fate::Refused => Self::Refused,
            replay::Fate::Unusable(why) => Self::Unusable(why),
            replay::Fate::Kept(why) => Self::Kept(why.to_string()),
            replay::Fate::Gone => Self::Gone,
        }
    }
}

impl KeyedRow {
    /// The row of a letter; `text` is looked for in its body.
    pub(crate) fn of(key: String, letter: &DeadLetter, text: Option<&str>, full: bool) -> Self {
        Self {
            key,
            row: Row::looked_at(letter, text),
            letter: full.then(|| Box::new(LetterLine::from(letter))),
        }
    }
}

impl Replayed {
    /// What a queue tells of a letter.
    pub(super) fn of(settled: &Settled) -> Self {
        let fate = Fate::from(settled.fate.clone());
        Self {
            key: settled.message_id.clone(),
            message_id: Some(settled.message_id.clone()),
            reason: Some(settled.reason.clone()),
            replays: settled
                .replayed_before
                .saturating_add(u32::from(fate == Fate::Replayed)),
            fate,
        }
    }

    /// What became of the letter of this key, which was `before`.
    pub(crate) fn new(key: String, before: Self, fate: Fate) -> Self {
        Self {
            key,
            replays: before.replays.saturating_add(u32::from(fate == Fate::Replayed)),
            fate,
            ..before
        }
    }

    /// A letter that nothing has become of yet.
    pub(crate) fn before(letter: &DeadLetter) -> Self {
        Self {
            message_id: Some(letter.envelope.message_id.clone()),
            reason: Some(letter.reason.clone()),
            replays: letter.envelope.replay,
            ..Self::gone(String::new())
        }
    }

    /// A key that no letter has any more.
    pub(crate) fn gone(key: String) -> Self {
        Self {
            key,
            message_id: None,
            reason: None,
            replays: 0,
            fate: Fate::Gone,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_fate_is_a_word_with_an_error_where_it_has_one() {
        let kept = Replayed {
            fate: Fate::Kept("full".to_owned()),
            ..Replayed::gone("7".to_owned())
        };
        let json = serde_json::to_value(&kept).unwrap();
        assert_eq!((&json["fate"], &json["error"]), (&"kept".into(), &"full".into()));
        assert_eq!(serde_json::from_value::<Replayed>(json).unwrap().fate, kept.fate);
        let gone = serde_json::to_value(Replayed::gone("7".to_owned())).unwrap();
        assert_eq!((&gone["fate"], gone.get("error")), (&"gone".into(), None));
    }

    #[test]
    fn a_letter_that_says_it_was_replayed_as_often_as_can_be_counted_is_told_as_any_other() {
        let settled = Settled {
            message_id: "7".to_owned(),
            reason: "not_json".to_owned(),
            replayed_before: u32::MAX,
            fate: replay::Fate::Replayed,
        };
        let told = Replayed::of(&settled);
        assert_eq!(told.replays, u32::MAX);
        let again = Replayed::new("7".to_owned(), told, Fate::Replayed);
        assert_eq!(again.replays, u32::MAX);
    }
}
