//! What the tests share: the forms a worker can run in, workers in this process, and looks at what they did.
//!
//! It asserts nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use porchlight_event::sample::Sample;
use porchlight_event::{Envelope, SigningKeys};
use porchlight_ledger::Ledger;
use porchlight_queue::{Deadlines, Queue};
use porchlight_service::{Secret, http};
use porchlight_testbed::http::{Response, request};
use porchlight_testbed::wait_for;
use porchlight_worker::keys::KeysInForce;
use porchlight_worker::{CallbackSettings, RunError, WorkSettings};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const TOKEN: &str = "a-token-for-the-tests";
/// The tiers of putting off, in a time that a test can wait for.
pub(crate) const TIERS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];
/// A ledger that works has answered by then, however busy the machine is.
pub(crate) const LEDGER_PATIENCE: Duration = Duration::from_secs(20);

/// A queue and a ledger of the test's own, and workers on them. The same tests run in every form: what is decided is
/// the same code, and what comes of it must be the same.
pub(crate) trait Form {
    /// Where the test puts events in.
    fn queue(&self) -> Queue;

    /// The ledger, beside the worker.
    fn ledger(&self) -> Ledger;

    /// A worker with an admin listener, until the token.
    fn run(
        &self,
        setup: Setup,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> BoxFuture<'static, Result<(), RunError>>;

    /// Events that are waiting, in a worker's hands, or put off, in words.
    async fn undone(&self) -> Result<Option<String>, String>;

    /// Events that are waiting, and whether a worker has any in its hands.
    async fn waiting(&self) -> Result<u64, String>;

    /// The dead letters.
    async fn letters(&self) -> Result<Vec<Letter>, String>;

    /// Takes commands, as a partner's service would, until `enough` says so.
    async fn commands(&self, enough: impl Fn(&[Received]) -> bool) -> Vec<Received>;

    fn start(&self, setup: Setup) -> Running {
        let listener = http::listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let (admin, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let task = tokio::spawn(self.run(setup, listener, stop.clone()));
        Running { admin, stop, task }
    }

    /// A worker with the usual settings, subscribed and ready.
    async fn worker(&self) -> Running {
        let running = self.start(Setup::default());
        running.ready().await;
        running
    }

    async fn publish(&self, envelope: &Envelope) {
        self.queue()
            .accept(envelope, Deadlines::within(PATIENCE))
            .await
            .unwrap();
    }

    async fn publish_all(&self, bodies: impl IntoIterator<Item = Bytes>) {
        let deadlines = Deadlines {
            slot_wait_max: PATIENCE,
            ..Deadlines::within(PATIENCE)
        };
        let queue = self.queue();
        let envelopes: Vec<_> = bodies
            .into_iter()
            .map(|body| Envelope {
                received_at_ms: Some(now_ms()),
                ..Envelope::bare(body)
            })
            .collect();
        let all = envelopes.iter().map(|envelope| queue.accept(envelope, deadlines));
        for stored in join_all(all).await {
            stored.unwrap();
        }
    }

    /// Waits until nothing of the work is waiting, unacked, or put off.
    async fn drained(&self) {
        let drained = wait_for("the work to be done", PATIENCE, async || {
            self.undone().await?.map_or(Ok(()), Err)
        });
        drained.await.unwrap();
    }

    /// Waits for so many dead letters and gives them.
    async fn dead(&self, count: usize) -> Vec<Letter> {
        self.dead_when(|letters| letters == count).await
    }

    async fn dead_when(&self, enough: impl Fn(usize) -> bool) -> Vec<Letter> {
        let found = wait_for("the dead letters", PATIENCE, async || {
            let letters = self.letters().await?;
            if enough(letters.len()) {
                Ok(letters)
            } else {
                Err(format!("{} letters", letters.len()))
            }
        });
        found.await.unwrap()
    }

    /// Waits until no command is owed.
    async fn nothing_owed(&self) {
        let ledger = self.ledger();
        let settled = wait_for("an empty outbox", PATIENCE, async || {
            match ledger.backlog().await {
                Ok(backlog) if backlog.commands == 0 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        settled.await.unwrap();
    }
}

/// Runs each of these tests in every form.
macro_rules! in_every_form {
    ($($test:ident),+ $(,)?) => {
        mod scaled {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::servers::Bench::start().await).await;
            })+
        }
        mod standalone {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::one_file::OneFile::start().await).await;
            })+
        }
    };
}
pub(crate) use in_every_form;

/// What a test may want otherwise than usual.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) work: WorkSettings,
    /// A broker's alone.
    pub(crate) prefetch_ramp: Duration,
    /// For one answer of Redis.
    pub(crate) ledger_answer_max: Duration,
    /// A file's alone: before a sweeper may take what another sends. With a broker it follows from the callback.
    pub(crate) head_start: Duration,
    pub(crate) keys: KeysInForce,
    pub(crate) token: Option<Secret>,
    pub(crate) callback: Option<CallbackSettings>,
}

/// A worker in this process.
pub(crate) struct Running {
    pub(crate) admin: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), RunError>>,
}

/// A command as a partner's service sees it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) message_id: String,
    pub(crate) body: Value,
}

/// A dead letter as an operator sees it.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) envelope: Envelope,
    pub(crate) reason: String,
    pub(crate) stage: Option<String>,
    pub(crate) detail: Option<String>,
    pub(crate) dead_at_ms: Option<i64>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            work: WorkSettings {
                sweep_interval: Duration::from_millis(100),
                ..WorkSettings::default()
            },
            prefetch_ramp: Duration::from_secs(30),
            ledger_answer_max: LEDGER_PATIENCE,
            head_start: Duration::from_secs(2),
            keys: watch::channel(None).1,
            token: Some(Secret::new(TOKEN)),
            callback: None,
        }
    }
}

impl Setup {
    /// With a ledger that is frozen: it is noticed as soon as it would be in production.
    pub(crate) fn for_frozen_ledger() -> Self {
        Self {
            ledger_answer_max: Duration::from_millis(500),
            ..Self::default()
        }
    }
}

impl Running {
    pub(crate) async fn ready(&self) {
        self.readiness(200).await;
    }

    pub(crate) async fn readiness(&self, wanted: u16) {
        let ready = wait_for("the readiness", PATIENCE, async || {
            let answer = self.call("GET", "/readyz", "").await;
            if answer.status == wanted {
                Ok(())
            } else {
                Err(answer.text())
            }
        });
        ready.await.unwrap();
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: &str) -> Response {
        let token = format!("Bearer {TOKEN}");
        request(
            self.admin,
            method,
            path,
            &[("Authorization", &token)],
            body.as_bytes(),
        )
        .await
        .unwrap()
    }

    pub(crate) async fn register(&self, device: &str, operation: &str) -> Response {
        let path = format!("/v1/devices/{device}/operations/{operation}");
        self.call("PUT", &path, r#"{"kind":"snapshot","params":{"a":1}}"#)
            .await
    }

    pub(crate) async fn device(&self, device: &str) -> Value {
        self.call("GET", &format!("/v1/devices/{device}"), "")
            .await
            .json()
            .unwrap()
    }

    /// Every sample of the metrics page.
    pub(crate) async fn metrics(&self) -> BTreeMap<String, f64> {
        let page = self.call("GET", "/metrics", "").await.text();
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }

    /// The sum of all samples whose name begins so.
    pub(crate) async fn sum(&self, prefix: &str) -> f64 {
        self.metrics()
            .await
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(_, value)| value)
            .sum()
    }

    pub(crate) async fn wait_sum(&self, prefix: &str, at_least: f64) {
        let waited = wait_for(prefix, PATIENCE, async || {
            let sum = self.sum(prefix).await;
            if sum >= at_least {
                Ok(())
            } else {
                Err(sum.to_string())
            }
        });
        waited.await.unwrap();
    }

    /// Stops it and gives how it ended.
    pub(crate) async fn stop(self) -> Result<(), RunError> {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap()
    }
}

pub(crate) fn keys(list: &str) -> SigningKeys {
    SigningKeys::parse_list(list).unwrap()
}

pub(crate) fn body(event_type: &str, device_id: &str, timestamp_ms: i64) -> Bytes {
    let request_id = format!("{event_type}/{device_id}/{timestamp_ms}");
    body_with(event_type, device_id, timestamp_ms, &request_id)
}

pub(crate) fn body_with(event_type: &str, device_id: &str, timestamp_ms: i64, request_id: &str) -> Bytes {
    let sample = Sample {
        event_type,
        device_id,
        account_id: "acct",
        timestamp_ms,
        sent_at_ms: timestamp_ms,
        request_id,
    };
    Bytes::from(sample.body())
}

pub(crate) fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
