//! The ingress's spool with real processes: killed at random moments, it loses no event that was answered 200.
//!
//! How the spool behaves while nobody is killed is tested beside the ingress.
#![expect(
    clippy::print_stdout,
    reason = "a run that fails is repeated with the seed it shows"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use porchlight_event::ids::message_id;
use porchlight_testbed::{LoadGenerator, RabbitMq, Relay, Report, RingSchedule, Signal, http, wait_for};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, Pipeline, Plan, event, now_ms, quick_answers};

const ANSWER_WITHIN: Duration = Duration::from_millis(4_500);
const QUEUE: &str = "porchlight.events";
/// Events under way at once.
const CONNECTIONS: u64 = 16;
/// Events a second; enough for a kill to meet many in each step, and few enough to be counted one by one in the end.
const RATE: f64 = 300.0;

/// One ingress with a spool, and a network between it and the broker that can be broken.
struct Stand {
    pipeline: Pipeline,
    relay: Relay,
    directory: TempDir,
}

/// Events being sent until told otherwise.
struct Load {
    begin: i64,
    /// Number of the newest event that was begun.
    begun: Arc<AtomicU64>,
    stop: CancellationToken,
    report: JoinHandle<Report>,
}

impl Stand {
    async fn prepare(own_broker: bool) -> Self {
        let plan = Plan {
            own_broker,
            workers: 0,
            ..Plan::default()
        };
        let mut pipeline = Pipeline::prepare(plan).await;
        let directory = tempfile::tempdir().unwrap();
        let relay = Relay::start(pipeline.broker.node().address()).await.unwrap();
        let url = RabbitMq::url_at(relay.address(), pipeline.broker.vhost());
        let ingress = &mut pipeline.ingresses[0];
        ingress.set("PORCHLIGHT_AMQP_URL", url);
        ingress.set("PORCHLIGHT_DATA_DIR", directory.path().to_str().unwrap());
        Self {
            pipeline,
            relay,
            directory,
        }
    }

    /// Nobody can reach the broker.
    fn away(&self) {
        self.relay.refuse(true);
        self.relay.cut();
    }

    fn load(&self) -> Load {
        let begin = now_ms() - 3_600_000;
        let (begun, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let seen = Arc::clone(&begun);
        let load = LoadGenerator::new(self.pipeline.ingress_addresses(), self.pipeline.key.clone())
            .connections(usize::try_from(CONNECTIONS).unwrap())
            .lasting(PATIENCE * 10)
            .rate(RATE)
            .retry(RingSchedule::steady(6_000, Duration::from_millis(20)))
            .until(stop.clone());
        let run = load.run(move |n| {
            seen.fetch_max(n, Relaxed);
            body(begin, n)
        });
        Load {
            begin,
            begun,
            stop,
            report: tokio::spawn(run),
        }
    }

    /// The value of one of the ingress's metrics, once it is up.
    async fn metric(&self, name: &str) -> Result<u64, String> {
        let shown = http::get(self.pipeline.ingresses[0].admin, "/metrics").await;
        let shown = shown.map_err(|error| error.to_string())?.text();
        let line = shown
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).ok_or(shown)
    }

    async fn wait_until(&self, what: &str, name: &str, looks: impl Fn(u64) -> bool) {
        wait_for(what, PATIENCE, async || match self.metric(name).await? {
            value if looks(value) => Ok(()),
            value => Err(value.to_string()),
        })
        .await
        .unwrap();
    }

    /// Ends the load and the outage, waits for an empty spool, and looks for every event that was answered 200.
    async fn check(&self, load: Load) {
        load.stop.cancel();
        let report = load.report.await.unwrap();
        assert!(report.given_up.is_empty(), "{report}");
        self.relay.pass();
        self.pipeline.ingresses[0].wait_until_ready().await;
        self.wait_until("an empty spool", "porchlight_ingress_spool_events", |events| {
            events == 0
        })
        .await;
        let mut copies: BTreeMap<String, usize> = BTreeMap::new();
        for sent in self.pipeline.broker.drain(QUEUE).await {
            *copies.entry(sent.message_id).or_default() += 1;
        }
        let accepted: BTreeSet<String> = report
            .accepted
            .iter()
            .map(|n| message_id(&body(load.begin, *n)))
            .collect();
        let missing = accepted.iter().filter(|id| !copies.contains_key(*id)).count();
        println!(
            "{} answered 200, {} different in the queue in {} copies\n{report}",
            accepted.len(),
            copies.len(),
            copies.values().sum::<usize>()
        );
        assert_eq!(missing, 0, "of {} events answered 200", accepted.len());
        assert!(accepted.len() as u64 > CONNECTIONS, "the test sent too little");
    }
}

impl Load {
    /// Waits until `count` more events were begun; all but those under way were then answered 200.
    async fn advances(&self, count: u64) {
        let aim = self.begun.load(Relaxed) + count;
        wait_for("the sender to come further", PATIENCE, async || {
            match self.begun.load(Relaxed) {
                begun if begun >= aim => Ok(()),
                begun => Err(format!("{begun} of {aim}")),
            }
        })
        .await
        .unwrap();
    }
}

fn body(begin: i64, n: u64) -> Bytes {
    let at = begin + i64::try_from(n).unwrap();
    Bytes::from(event("motion_detected", &format!("d-{}", n % 40), "acct", at))
}

fn random(name: &str) -> fastrand::Rng {
    let seed = std::env::var("PORCHLIGHT_SPOOL_SEED")
        .map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    println!("{name}: PORCHLIGHT_SPOOL_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_killed_fifty_times_while_the_broker_is_away_keeps_every_event() {
    let mut random = random("away");
    let mut stand = Stand::prepare(false).await;
    stand.away();
    stand.pipeline.ingresses[0].start();
    let load = stand.load();
    for _ in 0..50 {
        load.advances(random.u64(1..2 * CONNECTIONS)).await;
        stand.pipeline.ingresses[0].kill9_and_start_again();
    }
    load.advances(CONNECTIONS).await;
    stand.check(load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_killed_while_the_broker_comes_and_goes_keeps_every_event() {
    let mut random = random("coming and going");
    let mut stand = Stand::prepare(false).await;
    stand.pipeline.ingresses[0].start();
    let load = stand.load();
    for _ in 0..12 {
        stand.away();
        load.advances(random.u64(100..300)).await;
        stand.pipeline.ingresses[0].kill9_and_start_again();
        load.advances(random.u64(1..100)).await;
        stand.relay.pass();
        // While it hands over: some is gone, some is left.
        let some = random.u64(1..100);
        stand
            .wait_until(
                "handing over",
                "porchlight_ingress_spool_handed_over_total",
                |count| count >= some,
            )
            .await;
        stand.pipeline.ingresses[0].kill9_and_start_again();
        load.advances(random.u64(1..4 * CONNECTIONS)).await;
        stand.pipeline.ingresses[0].kill9_and_start_again();
        load.advances(random.u64(1..4 * CONNECTIONS)).await;
    }
    stand.check(load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_for_a_blocked_or_frozen_broker_are_answered_200_in_time() {
    let mut stand = Stand::prepare(true).await;
    for (name, value) in quick_answers() {
        stand.pipeline.ingresses[0].set(name, value);
    }
    stand.pipeline.ingresses[0].start();
    stand.pipeline.ingresses[0].wait_until_ready().await;
    let mut count = 0;
    let mut send = async |stand: &Stand| {
        let began = Instant::now();
        stand.pipeline.accept(&body(0, count)).await;
        count += 1;
        assert!(began.elapsed() < ANSWER_WITHIN, "{:?}", began.elapsed());
    };
    let node = stand.pipeline.broker.node();
    node.set_memory_alarm(true).await.unwrap();
    for _ in 0..10 {
        send(&stand).await;
    }
    stand
        .wait_until(
            "events in the spool",
            "porchlight_ingress_spool_events",
            |events| events > 0,
        )
        .await;
    node.set_memory_alarm(false).await.unwrap();
    stand
        .wait_until("an empty spool", "porchlight_ingress_spool_events", |events| {
            events == 0
        })
        .await;
    node.pause();
    for _ in 0..3 {
        send(&stand).await;
    }
    node.resume();
    stand
        .wait_until("an empty spool", "porchlight_ingress_spool_events", |events| {
            events == 0
        })
        .await;
    let ids: BTreeSet<String> = (0..13).map(|n| message_id(&body(0, n))).collect();
    let queued = stand.pipeline.broker.drain(QUEUE).await;
    assert_eq!(
        queued
            .into_iter()
            .map(|sent| sent.message_id)
            .collect::<BTreeSet<_>>(),
        ids
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_tells_what_is_left_and_a_second_process_is_told_whose_the_directory_is() {
    let mut stand = Stand::prepare(false).await;
    stand.away();
    let ingress = &mut stand.pipeline.ingresses[0];
    ingress.set("PORCHLIGHT_DRAIN_DELAY", "0s");
    ingress.start();
    ingress.wait_until_ready().await;
    stand.pipeline.accept(&body(0, 0)).await;
    wait_for("the log to say so", PATIENCE, async || {
        let told = stand.pipeline.ingresses[0].daemon().logs();
        let said = told.contains("events are in the spool");
        if said { Ok(()) } else { Err(told) }
    })
    .await
    .unwrap();

    let ingress = &mut stand.pipeline.ingresses[0];
    let mut second = Pipeline::prepare(Plan::default()).await.ingresses.remove(0);
    second.set("PORCHLIGHT_DATA_DIR", stand.directory.path().to_str().unwrap());
    second.start();
    let ended = second.daemon().wait(PATIENCE).await.unwrap();
    let told = second.daemon().logs();
    assert_eq!(ended.code(), Some(1), "{told}");
    assert!(told.contains("is in use by another porchlight"), "{told}");

    ingress.daemon().signal(Signal::Terminate);
    let ended = ingress.daemon().wait(PATIENCE).await.unwrap();
    let told = ingress.daemon().logs();
    assert_eq!(ended.code(), Some(0), "{told}");
    for line in ["events go to the spool", "events are left in the spool"] {
        assert!(told.contains(line), "{line}: {told}");
    }
}
