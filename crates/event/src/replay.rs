//! The nouns of working through dead letters: what to do with them, how far it is, and what became of each letter.
//!
//! Pure values that every queue shares; how one does it is its own crate's.

use std::time::Duration;

/// A letter that came back this often is refused unless forced: it would come back again.
pub const REPLAY_COUNT_MAX: u32 = 3;

/// What is done with the letters that are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Action {
    /// Each is sent round again, and gone when that is safe.
    #[default]
    Replay,
    /// Each is gone for good.
    Drop,
}

/// What is wanted of one letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Do it.
    Take,
    /// Let it stay.
    Leave,
    /// Let it stay, and end here.
    Enough,
}

/// How to work through the letters.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// What to do.
    pub action: Action,
    /// Replay letters that were replayed [`REPLAY_COUNT_MAX`] times already.
    pub force: bool,
    /// At most so many letters a second; `None` is as fast as it can be done safely.
    pub per_second_max: Option<u32>,
    /// At most so many letters looked at; the queue's length at the start bounds it anyway.
    pub count_max: usize,
    /// How long one letter may take.
    pub confirm_max: Duration,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self {
            action: Action::Replay,
            force: false,
            per_second_max: None,
            count_max: usize::MAX,
            confirm_max: Duration::from_secs(10),
        }
    }
}

/// How far the work is, and at the end what it did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplaySummary {
    /// Letters in the queue when it began; it looks at no more, so what dies again is not met again.
    pub ready: usize,
    /// Letters looked at.
    pub seen: usize,
    /// Letters whose copy is stored, and which are gone from the dead letters.
    pub replayed: usize,
    /// Letters whose command is owed again, and which are gone from the dead letters.
    pub owed_again: usize,
    /// Commands that something newer had overtaken, and which are gone from the dead letters.
    pub overtaken: usize,
    /// Letters that were dropped.
    pub dropped: usize,
    /// Letters the filter did not want.
    pub unwanted: usize,
    /// Letters refused because they were replayed too often.
    pub refused: usize,
    /// Letters that hold no command which could be owed again; they are still there, and the others went on.
    pub unusable: usize,
    /// Why it ended early; the letters not done are all still there.
    pub stopped_by: Option<StopReason>,
}

/// What became of one wanted letter; for an audit, so it names the letter and shows nothing of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The letter's message id, which its copy carries, too.
    pub message_id: String,
    /// Why the letter had died.
    pub reason: String,
    /// How often it had been replayed before.
    pub replayed_before: u32,
    /// What became of it.
    pub fate: Fate,
}

/// What became of one wanted letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Its copy is stored, and the letter is gone.
    Replayed,
    /// Its command is owed again, and the letter is gone.
    OwedAgain,
    /// A command that something newer had overtaken; the letter is gone.
    Overtaken,
    /// It was dropped; the letter is gone.
    Dropped,
    /// It was replayed too often; it is still there.
    Refused,
    /// What it holds is no command that could be owed again, for this reason; it is still there, whoever tries.
    Unusable(String),
    /// It is not known to be done, for this reason; it is still there.
    Kept(StopReason),
    /// Somebody else has dealt with the letter meanwhile.
    Gone,
}

/// Why the work ended before the last letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// A copy is not known to be stored.
    #[error("a copy could not be stored: {0}")]
    Copy(String),
    /// A command could not be owed again.
    #[error("a command could not be owed again: {0}")]
    Owe(String),
    /// A letter could not be removed.
    #[error("a letter could not be removed: {0}")]
    Remove(String),
    /// The last letters are done with, but the broker has not said that it has let them go.
    #[error("RabbitMQ did not say in time that the last letters are gone: look whether they are still there")]
    Unsettled,
    /// So many letters are held that no more may be.
    #[error("holding {0} letters: 'porchlight.dead' has a delivery limit, which it should not have")]
    HeldMax(usize),
    /// Whoever does it stopped half-way.
    #[error("{0}")]
    Lost(String),
    /// It was told to.
    #[error("a signal")]
    Signal,
}

/// What became of a command that is to be owed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owing {
    /// It is owed, durably.
    Owed,
    /// Something newer has overtaken it; it must not be sent any more.
    Overtaken,
    /// It is no command; the letter stays, and another try ends the same.
    Unusable(String),
    /// It could not be said or stored; the letter stays.
    Failed(String),
}

impl ReplaySummary {
    /// Counts one letter that is settled.
    pub fn count(&mut self, fate: &Fate) {
        match fate {
            Fate::Replayed => self.replayed += 1,
            Fate::OwedAgain => self.owed_again += 1,
            Fate::Overtaken => self.overtaken += 1,
            Fate::Dropped => self.dropped += 1,
            Fate::Refused => self.refused += 1,
            Fate::Unusable(_) => self.unusable += 1,
            Fate::Kept(why) => drop(self.stopped_by.get_or_insert_with(|| why.clone())),
            Fate::Gone => {}
        }
    }
}

impl Fate {
    /// Whether this took the letter out of the dead letters.
    #[must_use]
    pub fn is_moved(&self) -> bool {
        matches!(
            self,
            Self::Replayed | Self::OwedAgain | Self::Overtaken | Self::Dropped
        )
    }
}
