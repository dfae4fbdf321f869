//! What goes over the control API about dead letters: pages of rows, what is to be replayed, and what became of it.
//!
//! Both sides of the call use these; none of them holds a body.

use porchlight_event::queue::DeadLetter;
pub(crate) use porchlight_event::replay::REPLAY_COUNT_MAX;
use serde::{Deserialize, Serialize};

use super::facts::Row;

/// A row with the letter's key, which names it until it is gone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KeyedRow {
    pub(crate) key: String,
    #[serde(flatten)]
    pub(crate) row: Row,
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

/// The body of `POST /v1/dead/replay`.
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

/// The answer to `POST /v1/dead/replay`, in the order of the letters that were asked for.
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
    /// It was replayed too often; it is still there.
    Refused,
    /// It could not be moved; it is still there. In words.
    Kept(String),
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
            Self::Refused => "refused",
            Self::Kept(_) => "kept",
            Self::Gone => "gone",
        }
    }

    /// Whether this took the letter out of the dead letters.
    pub(crate) fn is_moved(&self) -> bool {
        matches!(self, Self::Replayed | Self::OwedAgain | Self::Overtaken)
    }
}

impl KeyedRow {
    /// The row of a letter.
    pub(crate) fn of(key: String, letter: &DeadLetter) -> Self {
        Self {
            key,
            row: Row::of(letter),
        }
    }
}

impl Replayed {
    /// What became of `letter`.
    pub(crate) fn new(key: String, letter: &DeadLetter, fate: Fate) -> Self {
        Self {
            key,
            message_id: Some(letter.envelope.message_id.clone()),
            reason: Some(letter.reason.clone()),
            replays: letter.envelope.replay + u32::from(fate == Fate::Replayed),
            fate,
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
}
