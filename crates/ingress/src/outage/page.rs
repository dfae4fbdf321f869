//! What the page `/outages` shows, and what is kept of it over a restart: numbers for programs, times in milliseconds
//! since the epoch.
//!
//! It explains nothing; `porchlight outage` does. A field that an older process does not show is empty.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything on the page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutagesPage {
    /// When this was written.
    pub now_ms: i64,
    /// What was before this, the process knows only if it keeps it in a directory.
    pub process_started_at_ms: i64,
    /// Where webhooks arrive.
    pub webhook_path: String,
    /// Whether the first of the outages is on.
    pub is_on: bool,
    /// The one that is on first, then those that are over, the newest first.
    pub outages: Vec<OutageFacts>,
    /// Whether signatures match.
    pub keys: KeyFacts,
}

/// One outage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutageFacts {
    /// The first 5xx.
    pub started_at_ms: i64,
    /// The last 5xx.
    pub last_failed_at_ms: i64,
    /// The first 200 after the last 5xx, which may prove to be the end.
    pub recovered_at_ms: Option<i64>,
    /// The same once it has proved to be the end.
    pub ended_at_ms: Option<i64>,
    /// From the first 5xx to the recovery, or until now.
    pub lasted_ms: i64,
    /// When Ring gives up on the first event, if the outage goes on until then.
    pub first_loss_at_ms: i64,
    /// When Ring forgets that event.
    pub forgotten_at_ms: i64,
    /// Answers 5xx to requests that may be Ring's.
    pub answers_5xx: u64,
    /// Answers 200 between the first of these and the last.
    pub answers_200: u64,
    /// Answers 5xx by cause.
    pub causes: BTreeMap<String, u64>,
}

/// How the signing keys do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyFacts {
    /// `closed`, `open` while 503 takes the place of 401, or `off`.
    pub breaker: String,
    /// Since when it is open.
    pub open_since_ms: Option<i64>,
    /// When a signature last matched, to the second.
    pub last_match_at_ms: Option<i64>,
    /// What no key matched since then.
    pub rejected: Option<RejectedFacts>,
    /// Why one of these was refused although its digest is right.
    pub diagnosis: Option<DiagnosisFacts>,
    /// What was rejected each time that the breaker opened and a signature then matched again; the newest first.
    pub restored: Vec<RejectedFacts>,
}

/// Requests with a well-formed signature that no key matched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RejectedFacts {
    /// All of them.
    pub count: u64,
    /// Of these, answered 401, which Ring does not repeat.
    pub answers_401: u64,
    /// The first.
    pub first_at_ms: i64,
    /// The last.
    pub last_at_ms: i64,
}

/// What is wrong with a signature whose digest is right.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiagnosisFacts {
    /// For programs.
    pub code: String,
    /// The name of the key that gives the digest.
    pub key: String,
    /// For people.
    pub text: String,
    /// When it was last seen.
    pub at_ms: i64,
}
