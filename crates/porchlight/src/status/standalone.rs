//! What `status` says of a standalone: its queues, its ledger, its file and the disk under it, and whether it runs.
//!
//! It looks from outside or from within the daemon, and shows the same.

use std::time::Duration;

use porchlight_ingress::outage::FILE_NAME;
use porchlight_ingress::outage::page::{KeyFacts, OutagesPage};
use porchlight_ledger::Ledger;
use porchlight_queue::{DepthReader, QueueDepth};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::ledger_part::{LedgerState, age_seconds};
use super::outage_part;
use crate::clock::now_ms;
use crate::failure::chain;
use crate::output::{Output, Table, at_most, size, span};
use crate::place::Directory;

/// For each question; all are small.
const ASK_MAX: Duration = Duration::from_secs(8);
/// Events are taken within a second; when the oldest waits for longer than this, somebody should look.
const WAITS_MAX: Duration = Duration::from_secs(60);
/// From so many percent of its bound on, a file is nearly full.
const NEARLY_FULL_PERCENT: u64 = 90;
/// Free space below this is little, in bytes: a log of a busy hour and the journal's own log fit.
const FREE_BYTES_MIN: u64 = 512 << 20;

const EVENTS: &str = "porchlight.events";
const DEAD: &str = "porchlight.dead";

/// Everything about one directory.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct StandaloneState {
    /// Whether a daemon holds the directory.
    pub(super) running: bool,
    pub(super) queues: Vec<Queue>,
    pub(super) ledger: LedgerState,
    pub(super) file: FileState,
    /// Why nothing can be written now.
    pub(super) blocked: Option<String>,
    /// The outages that it has written down, or those that it knows if it was asked itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) outages: Option<OutagesPage>,
}

/// One queue: the keys of the scaled form, and what only a file shows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Queue {
    pub(super) name: String,
    pub(super) exists: bool,
    pub(super) ready: u64,
    pub(super) in_hand: u64,
    pub(super) consumers: u32,
    pub(super) bytes: u64,
    pub(super) oldest_seconds: Option<u64>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct FileState {
    /// On the disk, with the write-ahead log.
    pub(super) bytes: u64,
    /// Of these, in use.
    pub(super) bytes_in_use: u64,
    /// In use at which no event is accepted any more.
    pub(super) bytes_max: u64,
    /// Free on the disk, for this user.
    pub(super) disk_free_bytes: Option<u64>,
}

impl StandaloneState {
    /// Looks. The error is one line for a person.
    pub(super) async fn ask(directory: &Directory) -> Result<Self, String> {
        let until = Instant::now() + ASK_MAX;
        let look = directory
            .journal
            .look(until)
            .await
            .map_err(|error| chain(&error))?;
        let depths = DepthReader::Sqlite(directory.queue()).read().await;
        let depths = depths.map_err(|error| chain(&error))?;
        let ledger = directory.ledger();
        let state = Self {
            running: look.is_held,
            queues: depths
                .iter()
                .map(|depth| Queue::new(depth, look.is_held))
                .collect(),
            ledger: LedgerState::ask(&ledger).await?,
            file: FileState {
                bytes: look.bytes_on_disk,
                bytes_in_use: look.bytes_in_use,
                bytes_max: look.bytes_max,
                disk_free_bytes: free_bytes(&directory.path),
            },
            // Without a daemon nobody tidies up after a write, however often somebody looks.
            blocked: if look.is_held {
                blocked(&ledger).await
            } else {
                None
            },
            outages: outages_in(&directory.path),
        };
        Ok(state)
    }

    /// What somebody should look at, in words.
    pub(super) fn attention(&self, found: &mut Vec<String>) {
        if !self.running {
            found.push(
                "no standalone runs on this directory: nothing is received and nothing is sent".to_owned(),
            );
        }
        if let Some(reason) = &self.blocked {
            found.push(format!("nothing can be written now: {reason}"));
        }
        let FileState {
            bytes_in_use,
            bytes_max,
            disk_free_bytes,
            ..
        } = self.file;
        if bytes_in_use >= bytes_max {
            found.push(format!(
                "the data is at its bound of {}: events are answered 503",
                size(bytes_max)
            ));
        } else if bytes_in_use / NEARLY_FULL_PERCENT >= bytes_max / 100 {
            found.push(format!(
                "the data is nearly at its bound: {} of {}",
                size(bytes_in_use),
                size(bytes_max)
            ));
        }
        if let Some(free) = disk_free_bytes.filter(|free| *free < FREE_BYTES_MIN) {
            found.push(format!("the disk has only {} left", size(free)));
        }
        for queue in &self.queues {
            let waits = queue
                .oldest_seconds
                .map(Duration::from_secs)
                .filter(|age| *age > WAITS_MAX);
            match (queue.name.as_str(), waits) {
                (DEAD, _) if queue.ready > 0 => {
                    found.push(format!("{DEAD} holds {}: porchlight dead list", queue.ready));
                }
                (EVENTS, Some(age)) if self.running => {
                    found.push(format!(
                        "an event waits for {}: the work does not keep up, or stands",
                        span(age)
                    ));
                }
                _ => {}
            }
        }
        if let Some(page) = &self.outages {
            outage_part::attention(page, "the standalone", now_ms(), found);
        }
        self.ledger.attention("the receiver does not take it", found);
    }

    pub(super) fn print(&self, output: Output) {
        let mut table = Table::new(["  QUEUE", "READY", "IN HAND"]);
        for queue in &self.queues {
            table.row(&[
                format!("  {}", queue.name),
                queue.ready.to_string(),
                queue.in_hand.to_string(),
            ]);
        }
        table.print(output);
        output.line("");
        self.ledger.print(output);
        let FileState {
            bytes,
            bytes_in_use,
            bytes_max,
            disk_free_bytes,
        } = self.file;
        output.line(format_args!(
            "  data               {}{}; {} on the disk",
            size(bytes_in_use),
            at_most(bytes_max),
            size(bytes)
        ));
        if let Some(free) = disk_free_bytes {
            output.line(format_args!("  disk               {} free", size(free)));
        }
        if let Some(page) = &self.outages {
            outage_part::print(page, now_ms(), output);
        }
        let running = if self.running { "running" } else { "not running" };
        output.line(format_args!("  daemon             {running}"));
    }
}

impl Queue {
    fn new(depth: &QueueDepth, is_running: bool) -> Self {
        let counts = depth.counts.unwrap_or_default();
        Self {
            name: depth.queue.to_owned(),
            exists: depth.counts.is_some(),
            ready: counts.ready,
            in_hand: counts.in_hand.unwrap_or(0),
            // The daemon is the one that takes; nobody takes dead letters.
            consumers: u32::from(is_running && depth.queue != DEAD),
            bytes: counts.bytes.unwrap_or(0),
            oldest_seconds: counts.oldest_at_ms.map(age_seconds),
        }
    }
}

/// What the daemon wrote down of outages; of its keys that may be long ago. It writes nothing until there was one.
fn outages_in(path: &std::path::Path) -> Option<OutagesPage> {
    let page: OutagesPage = match std::fs::read(path.join(FILE_NAME)) {
        Ok(text) => serde_json::from_slice(&text).ok()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => OutagesPage::default(),
        Err(_) => return None,
    };
    let keys = KeyFacts {
        restored: page.keys.restored,
        ..KeyFacts::default()
    };
    Some(OutagesPage { keys, ..page })
}

/// A write that changes nothing else; a disk that is full shows in no other way from outside.
async fn blocked(ledger: &Ledger) -> Option<String> {
    ledger.probe(now_ms()).await.err().map(|error| chain(&error))
}

/// What the file system has left for this user.
fn free_bytes(path: &std::path::Path) -> Option<u64> {
    let system = rustix::fs::statvfs(path).ok()?;
    Some(system.f_bavail.saturating_mul(system.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use porchlight_queue::QueueCounts;

    type Change<'a> = &'a dyn Fn(&mut StandaloneState);

    fn healthy() -> StandaloneState {
        let queue = |name: &'static str, ready| {
            let counts = QueueCounts {
                ready,
                oldest_at_ms: Some(now_ms()),
                ..QueueCounts::default()
            };
            let depth = QueueDepth {
                queue: name,
                counts: Some(counts),
            };
            Queue::new(&depth, true)
        };
        StandaloneState {
            running: true,
            queues: vec![queue(EVENTS, 5), queue("porchlight.retry", 1), queue(DEAD, 0)],
            file: FileState {
                bytes: 2 << 20,
                bytes_in_use: 1 << 20,
                bytes_max: 4 << 30,
                disk_free_bytes: Some(10 << 30),
            },
            ..StandaloneState::default()
        }
    }

    fn attention(state: &StandaloneState) -> Vec<String> {
        let mut found = Vec::new();
        state.attention(&mut found);
        found
    }

    #[test]
    fn a_healthy_standalone_needs_nobody() {
        assert_eq!(attention(&healthy()), Vec::<String>::new());
    }

    #[test]
    fn each_trouble_of_a_standalone_is_named() {
        let healthy = healthy();
        let with = |change: Change<'_>| {
            let mut state = healthy.clone();
            change(&mut state);
            attention(&state).join(" | ")
        };
        let cases: [(Change<'_>, &str); 7] = [
            (&|state| state.running = false, "no standalone runs"),
            (
                &|state| state.blocked = Some("x".to_owned()),
                "nothing can be written now: x",
            ),
            (
                &|state| state.file.bytes_in_use = 4 << 30,
                "at its bound of 4.0 GiB",
            ),
            (
                &|state| state.file.bytes_in_use = 3_900 << 20,
                "nearly at its bound",
            ),
            (
                &|state| state.file.disk_free_bytes = Some(1 << 20),
                "the disk has only 1.0 MiB",
            ),
            (&|state| state.queues[2].ready = 1, "porchlight.dead holds 1"),
            (
                &|state| state.queues[0].oldest_seconds = Some(61),
                "an event waits for 1m 1s",
            ),
        ];
        for (change, words) in cases {
            let found = with(change);
            assert!(
                found.contains(words) && !found.contains(" | "),
                "{words}: {found}"
            );
        }
    }
}
