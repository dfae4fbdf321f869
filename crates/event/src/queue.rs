//! The nouns of a queue: what it hands out, what became of an ack, dead letters, and how the queue stands.
//!
//! Pure values that every queue shares; how one keeps them is its own crate's.

use crate::Envelope;

/// How a queue stands with whoever uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueState {
    /// Not reachable; an attempt is being made or waited for.
    Connecting {
        /// Why the last attempt or connection ended; `None` before the first.
        last_error: Option<String>,
    },
    /// Takes and hands out.
    Ready,
    /// Reachable, but it takes nothing now: a memory or disk alarm, or a full disk.
    Blocked {
        /// The queue's own words.
        reason: String,
    },
    /// A consumer that was told to stay away from its queue until it is resumed.
    Paused,
    /// Closed for good.
    Stopped,
}

/// One thing from the queue, unacked until an ack reaches its tag.
#[derive(Debug)]
pub struct Delivery {
    /// What arrived.
    pub envelope: Envelope,
    /// Its number within its incarnation; means nothing in another one.
    pub tag: u64,
    /// How often the queue has taken it back so far; 0 the first time.
    pub delivery_count: u64,
    /// Whether the queue knows that it was delivered before.
    pub redelivered: bool,
}

/// Deliveries of one incarnation, at least one, in the order of their tags.
#[derive(Debug)]
pub struct Batch {
    /// Which stretch of consuming they belong to; to be given back with the ack.
    pub incarnation: u64,
    /// The deliveries.
    pub deliveries: Vec<Delivery>,
}

/// What became of an ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckOutcome {
    /// Sent. The queue may still deliver again if it or the connection ends now.
    Sent,
    /// The incarnation is over; nothing was sent, and the queue delivers again.
    Stale,
}

/// How long an event waits before it is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetryTier {
    /// A minute.
    OneMinute,
    /// Ten minutes.
    TenMinutes,
}

/// Why something goes to the dead letters; kept with it.
#[derive(Debug, Clone, Copy)]
pub struct DeathNote<'a> {
    /// A short code, such as `not_json`.
    pub reason: &'a str,
    /// Which step gave up: a short code.
    pub stage: &'a str,
    /// One sentence for a person, without any of the body.
    pub detail: &'a str,
    /// Milliseconds since the epoch.
    pub at_ms: i64,
}

/// What a dead letter was before it died; decides where a replay brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// An event; goes back to the events.
    Event,
    /// A command that died in a queue of commands; goes back to that queue under its own key.
    Command,
    /// A command that no receiver took in time; is owed again, if nothing newer has overtaken it.
    Callback,
}

/// One entry of the queue's own record of deaths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The queue it died in.
    pub queue: String,
    /// The queue's word: `delivery_limit`, `expired`, `rejected`, `maxlen`.
    pub reason: String,
    /// How often it died there for that reason.
    pub count: u64,
    /// When it did so first, in milliseconds since the epoch.
    pub at_ms: Option<i64>,
}

/// One dead letter.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// What it carries.
    pub envelope: Envelope,
    /// What it was.
    pub origin: Origin,
    /// The key it was published under; empty for events.
    pub routing_key: String,
    /// Why it died: the code of whoever gave up, or else the queue's word, or else `unknown`.
    pub reason: String,
    /// Which step gave up, where it said so.
    pub stage: Option<String>,
    /// A sentence for a person, where one was left.
    pub detail: Option<String>,
    /// When, in milliseconds since the epoch.
    pub dead_at_ms: Option<i64>,
    /// The queue's record, newest first.
    pub deaths: Vec<Death>,
    /// How often the queue has taken it back.
    pub delivery_count: u64,
    /// Everything that is known beside the body, as named texts, without the signature.
    pub headers: Vec<(String, String)>,
}

impl QueueState {
    /// Whether work can be done now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }
}

impl Origin {
    /// The word for it, in letters that are kept and for operators.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Command => "command",
            Self::Callback => "callback",
        }
    }

    /// The origin behind a word of [`Origin::as_str`].
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Event, Self::Command, Self::Callback]
            .into_iter()
            .find(|origin| origin.as_str() == word)
    }
}
