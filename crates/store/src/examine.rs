//! Looking the server over: all that it says of itself, its clock, and how far away it is.
//!
//! It changes nothing and judges nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis::Value;

use crate::script::Call;
use crate::{Store, StoreError, reply};

/// How often the way there and back is measured.
const ROUND_TRIPS: usize = 5;

/// What a server says of itself, by the names that it uses.
#[derive(Debug, Clone, Default)]
pub struct ServerReport {
    facts: BTreeMap<String, String>,
    /// When its append-only file is synced: `always`, `everysec` or `no`; `None` when it does not tell.
    pub fsync: Option<String>,
}

/// One reading of the server's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerClock {
    /// Microseconds since the epoch.
    pub at_us: i64,
    /// How long the question took; it was read somewhere within.
    pub took: Duration,
}

impl ServerReport {
    /// One fact of `INFO` or `CLUSTER INFO`, such as `maxmemory_policy`.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }

    /// One fact that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// The lines of a server's answer, without headings.
    fn read(&mut self, text: &str) {
        let facts = text.lines().filter(|line| !line.starts_with('#'));
        let facts = facts.filter_map(|line| line.split_once(':'));
        self.facts
            .extend(facts.map(|(name, value)| (name.to_owned(), value.trim().to_owned())));
    }
}

impl<const N: usize> From<[(&str, &str); N]> for ServerReport {
    fn from(facts: [(&str, &str); N]) -> Self {
        let owned = facts.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            facts: owned.into(),
            fsync: None,
        }
    }
}

impl Store {
    /// Asks the server for everything it says of itself: `INFO`, and `CLUSTER INFO` where it is part of a cluster.
    ///
    /// # Errors
    /// [`StoreError`]; a server that denies the question is [`StoreError::Denied`].
    ///
    /// # Cancel safety
    /// Safe, as all of these.
    pub async fn report(&self) -> Result<ServerReport, StoreError> {
        let shard = self.any_shard();
        let mut report = ServerReport::default();
        report.read(&text(self.run_one(shard, Call::plain("INFO")).await?)?);
        if report.text("cluster_enabled") == Some("1") {
            let cluster = Call::plain("CLUSTER").arg("INFO");
            report.read(&text(self.run_one(shard, cluster).await?)?);
        }
        // A server that another company runs often denies it.
        let config = Call::plain("CONFIG").arg("GET").arg("appendfsync");
        report.fsync = match self.run_one(shard, config).await {
            Ok(answer) => setting(answer),
            Err(StoreError::Script(_) | StoreError::Denied(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(report)
    }

    /// Reads the server's clock.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn server_clock(&self) -> Result<ServerClock, StoreError> {
        let asked = Instant::now();
        let answer = self.run_one(self.any_shard(), Call::plain("TIME")).await?;
        let took = asked.elapsed();
        let parts = reply::texts(answer)?;
        let number = |index: usize| parts.get(index).and_then(|part| part.parse::<i64>().ok());
        let (Some(seconds), Some(micros)) = (number(0), number(1)) else {
            return Err(StoreError::Unreadable("a time of an unexpected form"));
        };
        let at_us = seconds.saturating_mul(1_000_000).saturating_add(micros);
        Ok(ServerClock { at_us, took })
    }

    /// How long a small question takes there and back: the middle of several.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn round_trip(&self) -> Result<Duration, StoreError> {
        let shard = self.any_shard();
        let mut took = Vec::with_capacity(ROUND_TRIPS);
        for _ in 0..ROUND_TRIPS {
            let asked = Instant::now();
            self.run_one(shard, Call::plain("PING")).await?;
            took.push(asked.elapsed());
        }
        took.sort();
        Ok(took[ROUND_TRIPS / 2])
    }
}

fn text(answer: Value) -> Result<String, StoreError> {
    match answer {
        Value::VerbatimString { text, .. } => Ok(text),
        other => reply::text(other),
    }
}

/// The value out of `CONFIG GET`: a list of name and value, or a map in the newer protocol.
fn setting(answer: Value) -> Option<String> {
    match answer {
        Value::Map(pairs) => reply::text(pairs.into_iter().next()?.1).ok(),
        other => reply::texts(other).ok()?.into_iter().nth(1),
    }
}
