//! Sends a plan over a fixed number of connections and tallies the answers.
//!
//! It decides neither what is sent nor what is shown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use porchlight_event::SigningKey;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::latency::Latencies;
use super::plan::Plan;
use crate::failure::chain;
use porchlight_service::client::Client;

/// Different error texts that are kept to be shown.
const TEXTS_MAX: usize = 3;

/// What came back.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Answers by status.
    pub(crate) answers: BTreeMap<u16, u64>,
    /// Requests without an answer, by kind of error.
    pub(crate) errors: BTreeMap<&'static str, u64>,
    /// Some of those errors in words.
    pub(crate) texts: Vec<String>,
    /// Of requests with an answer.
    pub(crate) latencies: Latencies,
    /// From the first request to the last answer.
    pub(crate) took: Duration,
}

/// What every connection shares.
pub(crate) struct Sending {
    pub(crate) plan: Plan,
    pub(crate) key: SigningKey,
    pub(crate) path: String,
    /// Requests per second, when the load is open.
    pub(crate) rate: Option<u32>,
    pub(crate) bar: ProgressBar,
    pub(crate) stop: CancellationToken,
}

/// Sends all of the plan, or as much as is sent when `stop` comes; requests that are out are waited for.
pub(crate) async fn send_all(sending: Sending, clients: Vec<Client>) -> Tally {
    let begun = Instant::now();
    let sending = Arc::new(sending);
    let next = Arc::new(AtomicU64::new(0));
    let mut connections = JoinSet::new();
    for client in clients {
        connections.spawn(connection(Arc::clone(&sending), Arc::clone(&next), client, begun));
    }
    let mut tally = Tally::new();
    for part in connections.join_all().await {
        tally.merge(part);
    }
    tally.took = begun.elapsed();
    sending.bar.finish_and_clear();
    tally
}

async fn connection(sending: Arc<Sending>, next: Arc<AtomicU64>, client: Client, begun: Instant) -> Tally {
    let mut tally = Tally::new();
    while !sending.stop.is_cancelled() {
        let position = next.fetch_add(1, Ordering::Relaxed);
        if position >= sending.plan.len() {
            break;
        }
        let mut due = Instant::now();
        if let Some(rate) = sending.rate {
            due = begun + due_after(position, rate);
            let waiting = tokio::time::sleep_until(due.into());
            if sending.stop.run_until_cancelled(waiting).await.is_none() {
                break;
            }
        }
        let body = sending.plan.body(position);
        let signature = sending.key.sign(&body);
        let headers = [
            ("content-type", "application/json"),
            ("x-signature", signature.as_str()),
        ];
        match client.send("POST", &sending.path, &headers, body).await {
            Ok(answer) => {
                *tally.answers.entry(answer.status.as_u16()).or_default() += 1;
                tally.latencies.add(due.elapsed());
            }
            Err(error) => tally.failed(error.code(), chain(&error)),
        }
        sending.bar.inc(1);
    }
    tally
}

fn due_after(position: u64, rate: u32) -> Duration {
    let nanoseconds = u128::from(position) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

impl Tally {
    fn new() -> Self {
        Self {
            answers: BTreeMap::new(),
            errors: BTreeMap::new(),
            texts: Vec::new(),
            latencies: Latencies::new(),
            took: Duration::ZERO,
        }
    }

    fn failed(&mut self, code: &'static str, text: String) {
        *self.errors.entry(code).or_default() += 1;
        if self.texts.len() < TEXTS_MAX && !self.texts.contains(&text) {
            self.texts.push(text);
        }
    }

    fn merge(&mut self, other: Self) {
        for (status, count) in other.answers {
            *self.answers.entry(status).or_default() += count;
        }
        for (code, count) in other.errors {
            *self.errors.entry(code).or_default() += count;
        }
        for text in other.texts {
            if self.texts.len() < TEXTS_MAX && !self.texts.contains(&text) {
                self.texts.push(text);
            }
        }
        self.latencies.merge(&other.latencies);
    }

    /// How many requests were answered 2xx.
    pub(crate) fn stored(&self) -> u64 {
        self.answers
            .iter()
            .filter(|(status, _)| (200..300).contains(*status))
            .map(|(_, count)| count)
            .sum()
    }

    /// How many requests were answered at all, or failed.
    pub(crate) fn sent(&self) -> u64 {
        self.answers.values().sum::<u64>() + self.errors.values().sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_evenly() {
        assert_eq!(due_after(0, 1_000), Duration::ZERO);
        assert_eq!(due_after(1_500, 1_000), Duration::from_millis(1_500));
        assert_eq!(due_after(u64::MAX, 1), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn tallies_add_up_and_keep_few_texts() {
        let mut tally = Tally::new();
        tally.answers.insert(200, 2);
        for number in 0..9 {
            tally.failed("connect", format!("error {}", number % 5));
        }
        let mut other = Tally::new();
        other.answers.insert(202, 1);
        other.answers.insert(503, 4);
        other.merge(tally);
        assert_eq!(
            (other.stored(), other.sent(), other.texts.len()),
            (3, 16, TEXTS_MAX)
        );
    }
}
