//! The nouns of a replay, which sends dead letters round again: how, how far it is, and what became of each letter.
//!
//! Pure values that every queue shares; how one replays is its own crate's.

use std::time::Duration;

/// A letter that came back this often is refused unless forced: it would come back again.
pub const REPLAY_COUNT_MAX: u32 = 3;

/// How to replay.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// Replay letters that were replayed [`REPLAY_COUNT_MAX`] times already.
    pub force: bool,
    /// At most so many copies a second; `None` is as fast as they are stored.
    pub per_second_max: Option<u32>,
    /// At most so many letters looked at; the queue's length at the start bounds it anyway.
    pub count_max: usize,
    /// How long one copy may take to be stored.
    pub confirm_max: Duration,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self {
            force: false,
            per_second_max: None,
            count_max: usize::MAX,
            confirm_max: Duration::from_secs(10),
        }
    }
}

/// How far a replay is, and at the end what it did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplaySummary {
    /// Letters in the queue when it began; it looks at no more, so what dies again is not met again.
    pub ready: usize,
    /// Letters looked at.
    pub seen: usize,
    /// Letters whose copy is stored, or whose command is owed again, and which are gone from the dead letters.
    pub replayed: usize,
    /// Commands that something newer had overtaken, and which are gone from the dead letters.
    pub overtaken: usize,
    /// Letters the filter did not want.
    pub unwanted: usize,
    /// Letters refused because they were replayed too often.
    pub refused: usize,
    /// Why it ended early; the letters not replayed are all still there.
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
    /// Its copy is stored, or its command is owed again, and the letter is gone.
    Replayed,
    /// A command that something newer had overtaken; the letter is gone.
    Overtaken,
    /// It was replayed too often; it is still there.
    Refused,
    /// Its copy is not known to be stored, for this reason; it is still there.
    Kept(String),
}

/// Why a replay ended before the last letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// A copy is not known to be stored.
    #[error("a copy could not be stored: {0}")]
    Copy(String),
    /// A command could not be owed again.
    #[error("a command could not be owed again: {0}")]
    Owe(String),
    /// So many unwanted letters lie before the rest that no more may be held.
    #[error("holding {0} letters that are not wanted; narrow the queue down first")]
    HeldMax(usize),
}

/// What became of a command that is to be owed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owing {
    /// It is owed, durably.
    Owed,
    /// Something newer has overtaken it; it must not be sent any more.
    Overtaken,
    /// It could not be said or stored; the letter stays.
    Failed(String),
}
