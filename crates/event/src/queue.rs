//! The nouns of a queue: what it hands out, what became of an ack, why something is dead, and how the queue stands.
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

impl QueueState {
    /// Whether work can be done now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }
}
