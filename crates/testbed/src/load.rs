//! Many signed events against an ingress, at a fixed rate or as fast as it answers, retried as Ring retries.
//!
//! It does not make events: the caller gives the bytes of event number N, and gets back which numbers were accepted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use porchlight_event::SigningKey;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::http::{RawConnection, encode};
use crate::report::{Answer, Report};

/// Longest wait for one answer, as Ring's.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// The pauses between Ring's seven attempts, in milliseconds.
const RING_PAUSES_MS: [u64; 6] = [1_000, 5_000, 30_000, 120_000, 600_000, 3_600_000];

/// When an event that was not accepted is sent again.
#[derive(Debug, Clone)]
pub struct RingSchedule {
    /// The pause before the second, third, … attempt.
    pub pauses: Vec<Duration>,
}

/// A load run to be. Each connection carries one event at a time, retries included.
#[derive(Debug, Clone)]
pub struct LoadGenerator {
    addresses: Vec<SocketAddr>,
    key: SigningKey,
    path: String,
    connections: usize,
    count: Option<u64>,
    lasting: Option<Duration>,
    rate: Option<f64>,
    schedule: RingSchedule,
    stop: CancellationToken,
}

/// What the connections of one run share.
struct Run<B> {
    plan: LoadGenerator,
    body: B,
    next: AtomicU64,
    begun_at: Instant,
}

impl RingSchedule {
    /// One attempt only.
    pub fn never() -> Self {
        Self { pauses: Vec::new() }
    }

    /// Ring's own ladder with every pause divided by `factor`.
    pub fn ring(factor: u32) -> Self {
        Self {
            pauses: RING_PAUSES_MS
                .iter()
                .map(|ms| Duration::from_millis(*ms) / factor)
                .collect(),
        }
    }

    /// `attempts` in all with the same pause between them.
    pub fn steady(attempts: usize, pause: Duration) -> Self {
        Self {
            pauses: vec![pause; attempts.saturating_sub(1)],
        }
    }
}

impl LoadGenerator {
    /// A run against one or more ingresses; each attempt goes to the next of them in turn, as behind a balancer.
    /// Without further words: one event on one connection, no retry.
    pub fn new(addresses: impl Into<Vec<SocketAddr>>, key: SigningKey) -> Self {
        Self {
            addresses: addresses.into(),
            key,
            path: "/webhooks/ring".to_owned(),
            connections: 1,
            count: None,
            lasting: None,
            rate: None,
            schedule: RingSchedule::never(),
            stop: CancellationToken::new(),
        }
    }

    /// Where events are posted.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// How many connections; the most events under way at once.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// Ends after so many events.
    #[must_use]
    pub fn count(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// Begins no new event after this time.
    #[must_use]
    pub fn lasting(mut self, lasting: Duration) -> Self {
        self.lasting = Some(lasting);
        self
    }

    /// Open loop: so many events a second, however slow the answers. Latency then counts from the moment an event
    /// was due, so that a stalled server cannot hide behind a sender that waits for it.
    #[must_use]
    pub fn rate(mut self, per_second: f64) -> Self {
        self.rate = Some(per_second);
        self
    }

    /// Sends again what was not accepted.
    #[must_use]
    pub fn retry(mut self, schedule: RingSchedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// Begins no new event once this token is cancelled; those under way are brought to their end.
    #[must_use]
    pub fn until(mut self, stop: CancellationToken) -> Self {
        self.stop = stop;
        self
    }

    /// Sends event 0, 1, 2, …, each with the bytes that `body` gives for it, until the run is over.
    pub async fn run(mut self, body: impl Fn(u64) -> Bytes + Send + Sync + 'static) -> Report {
        if self.count.is_none() && self.lasting.is_none() {
            self.count = Some(1);
        }
        let connections = self.connections;
        let run = Arc::new(Run {
            plan: self,
            body,
            next: AtomicU64::new(0),
            begun_at: Instant::now(),
        });
        let mut tasks = tokio::task::JoinSet::new();
        for index in 0..connections {
            tasks.spawn(send_all(Arc::clone(&run), index));
        }
        let mut report = Report::default();
        while let Some(part) = tasks.join_next().await {
            report.merge(part.expect("a connection of the load generator does not panic"));
        }
        report.elapsed = run.begun_at.elapsed();
        report
    }
}

impl<B> Run<B> {
    /// The next event and the moment it is due, or none when the run is over.
    fn next(&self) -> Option<(u64, Instant)> {
        let plan = &self.plan;
        if plan.stop.is_cancelled()
            || plan
                .lasting
                .is_some_and(|lasting| self.begun_at.elapsed() >= lasting)
        {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if plan.count.is_some_and(|count| number >= count) {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "no run sends 2^53 events")]
        let due = match plan.rate {
            Some(rate) => self.begun_at + Duration::from_secs_f64(number as f64 / rate),
            None => Instant::now(),
        };
        let over = plan.lasting.is_some_and(|lasting| due >= self.begun_at + lasting);
        (!over).then_some((number, due))
    }
}

/// One connection's share of the run.
async fn send_all<B: Fn(u64) -> Bytes>(run: Arc<Run<B>>, index: usize) -> Report {
    let plan = &run.plan;
    let mut report = Report::default();
    let mut connection = None;
    let mut turn = index;
    while let Some((number, due)) = run.next() {
        if plan.rate.is_some() && plan.stop.run_until_cancelled(sleep_until(due)).await.is_none() {
            break;
        }
        let body = (run.body)(number);
        let signature = plan.key.sign(&body);
        let headers = [
            ("Content-Type", "application/json"),
            ("X-Signature", signature.as_str()),
        ];
        let request = encode("POST", &plan.path, &headers, &body);
        let mut begun_at = due;
        let mut pauses = plan.schedule.pauses.iter();
        loop {
            let answer = attempt(
                &mut connection,
                plan.addresses[turn % plan.addresses.len()],
                &request,
            )
            .await;
            report.record_attempt(answer, begun_at.elapsed());
            let pause = if answer.is_final() { None } else { pauses.next() };
            let Some(pause) = pause else {
                report.record_end(number, answer);
                break;
            };
            // The next attempt may land anywhere, as behind a balancer.
            turn += 1;
            connection = None;
            sleep(*pause).await;
            begun_at = Instant::now();
        }
    }
    report
}

async fn attempt(connection: &mut Option<RawConnection>, address: SocketAddr, request: &[u8]) -> Answer {
    let exchange = async {
        // A kept connection may have been closed for idleness while we paused; that is no failed attempt.
        if let Some(mut kept) = connection.take()
            && kept.send(request).await.is_ok()
        {
            return kept.response().await.map(|response| (kept, response));
        }
        let mut fresh = RawConnection::open(address).await?;
        fresh.send(request).await?;
        let response = fresh.response().await?;
        Ok((fresh, response))
    };
    match tokio::time::timeout(ANSWER_PATIENCE, exchange).await {
        Ok(Ok((kept, response))) => {
            let close = response
                .header("connection")
                .is_some_and(|value| value.eq_ignore_ascii_case("close"));
            *connection = (!close).then_some(kept);
            Answer::Status(response.status)
        }
        Ok(Err(_)) => Answer::Disconnected,
        Err(_) => Answer::TimedOut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_an_open_loop_is_due_by_its_number_and_none_after_the_time() {
        let plan = LoadGenerator::new(Vec::new(), SigningKey::new("test", b"secret"))
            .rate(200.0)
            .lasting(Duration::from_millis(500));
        // It begins later, so that no time passes however slow the machine is.
        let begun_at = Instant::now() + Duration::from_secs(3_600);
        let run = Run {
            plan,
            body: (),
            next: AtomicU64::new(0),
            begun_at,
        };
        for number in 0..100 {
            assert_eq!(
                run.next(),
                Some((number, begun_at + Duration::from_millis(5 * number)))
            );
        }
        assert_eq!(run.next(), None);
    }
}
