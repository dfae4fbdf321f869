//! Standalone killed with -9 at random moments under load, again and again, and then held to every promise.
//!
//! The long form is `tests/crash`, which hands its numbers down in `PORCHLIGHT_CRASH_KILLS`, `_DEVICES`, `_EVENTS` and
//! `_SEED`.
#![expect(clippy::print_stdout, reason = "the long form shows what it did")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use porchlight_event::SigningKey;
use porchlight_testbed::receiver::Receiver;
use porchlight_testbed::{Daemon, LoadGenerator, RingSchedule, binary, free_port, http, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::oracle::{Delivered, Lives, OPERATION, account_id, device_id};
use crate::support::{ATTEMPTS, PATIENCE, TOKEN, WEBHOOK};

const KEY: &str = "whsec-porch-2f9c1d";
const CALLBACK_SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// Copies of every event, in random order.
const COPIES: usize = 3;
/// Bodies that are no event; each must end among the dead letters.
const POISON: usize = 5;
/// Registrations at once.
const CALLS: usize = 64;

struct Size {
    kills: u64,
    devices: usize,
    events: usize,
    seed: u64,
}

fn size() -> Size {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| {
            text.parse().unwrap_or_else(|_| panic!("{name} is no number"))
        })
    };
    let count = |name, default| usize::try_from(number(name, default)).unwrap();
    Size {
        kills: number("PORCHLIGHT_CRASH_KILLS", 50),
        devices: count("PORCHLIGHT_CRASH_DEVICES", 300),
        events: count("PORCHLIGHT_CRASH_EVENTS", 9_000),
        seed: number("PORCHLIGHT_CRASH_SEED", fastrand::u64(..)),
    }
}

/// One standalone that can be killed and started again on the same ports and the same directory.
struct Standalone {
    directory: TempDir,
    listen: SocketAddr,
    admin: SocketAddr,
    callback: String,
    daemon: Option<Daemon>,
}

impl Standalone {
    fn prepare(callback: String) -> Self {
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self {
            directory: tempfile::tempdir().unwrap(),
            listen: address(),
            admin: address(),
            callback,
            daemon: None,
        }
    }

    fn start(&mut self) {
        let builder = Daemon::of("porchlight")
            .arg("standalone")
            .env("PORCHLIGHT_DATA_DIR", self.directory.path())
            .env("PORCHLIGHT_LISTEN", self.listen.to_string())
            .env("PORCHLIGHT_ADMIN_LISTEN", self.admin.to_string())
            .env("PORCHLIGHT_ADMIN_TOKEN", TOKEN)
            .env("PORCHLIGHT_SIGNING_KEYS", format!("main={KEY}"))
            .env("PORCHLIGHT_CALLBACK_URL", &self.callback)
            .env("PORCHLIGHT_CALLBACK_SECRET", CALLBACK_SECRET)
            .env("PORCHLIGHT_SWEEP_INTERVAL", "200ms");
        self.daemon = Some(builder.start().unwrap());
    }

    async fn wait_until_ready(&self) {
        let daemon = self.daemon.as_ref().unwrap();
        let ready = daemon.ready(PATIENCE, async || {
            let answer = http::get(self.admin, "/readyz")
                .await
                .map_err(|error| error.to_string())?;
            (answer.status == 200).then_some(()).ok_or_else(|| answer.text())
        });
        if let Err(error) = ready.await {
            panic!("standalone is not ready: {error}\n{}", daemon.logs());
        }
    }

    /// Waits until no event waits, is in hand or will come back; each has been counted then.
    async fn wait_until_settled(&self) {
        wait_for("every event to be settled", PATIENCE, async || {
            let status = tool(self.directory.path(), &["status"]);
            let queues = status["standalone"]["state"]["queues"]
                .as_array()
                .unwrap()
                .clone();
            let is_done = |queue: &Value| queue["ready"] == 0 && queue["in_hand"] == 0;
            let mut work = queues.iter().filter(|queue| queue["name"] != "porchlight.dead");
            (queues.len() > 1 && work.all(is_done))
                .then_some(())
                .ok_or_else(|| format!("{queues:?}"))
        })
        .await
        .unwrap();
    }

    fn kill9(&self) {
        self.daemon.as_ref().unwrap().kill9();
    }

    async fn api(&self, method: &str, path: &str, body: &str) -> http::Response {
        let authorization = format!("Bearer {TOKEN}");
        let headers = [("Authorization", authorization.as_str())];
        http::request(self.admin, method, path, &headers, body.as_bytes())
            .await
            .unwrap()
    }

    async fn register(&self, index: usize) {
        let path = format!("/v1/devices/{}/operations/{OPERATION}", device_id(index));
        let body = json!({ "account_id": account_id(index), "kind": "snapshot", "params": {} });
        let answer = self.api("PUT", &path, &body.to_string()).await;
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
    }

    async fn shown(&self, lives: &Lives) -> BTreeMap<String, Value> {
        let mut shown = BTreeMap::new();
        for id in lives.devices() {
            let answer = self.api("GET", &format!("/v1/devices/{id}"), "").await;
            shown.insert(id, answer.json().unwrap());
        }
        shown
    }

    /// How many events this process has settled, by outcome.
    async fn outcomes(&self) -> BTreeMap<String, u64> {
        let page = http::get(self.admin, "/metrics").await.unwrap().text();
        let mut outcomes = BTreeMap::new();
        for line in page
            .lines()
            .filter(|line| line.starts_with("porchlight_worker_events_total{"))
        {
            let outcome = line
                .split("outcome=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            *outcomes.entry(outcome.unwrap().to_owned()).or_default() += count;
        }
        outcomes
    }
}

/// What the operator's tool says of the directory, in JSON.
fn tool(directory: &Path, command: &[&str]) -> Value {
    let output = Command::new(binary("porchlight").unwrap())
        .args(command)
        .arg("--json")
        .env_clear()
        .env("PORCHLIGHT_DATA_DIR", directory)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)))
}

fn bodies(lives: &Lives, random: &mut fastrand::Rng) -> Vec<Bytes> {
    let mut bodies: Vec<Bytes> = Vec::new();
    for _ in 0..COPIES {
        bodies.extend(lives.events.iter().cloned().map(Bytes::from));
    }
    bodies.extend((0..POISON).map(|n| Bytes::from(format!("{{\"poison\": {n}"))));
    random.shuffle(&mut bodies);
    bodies
}

/// Kills and restarts at random points of the sending, without waiting for the new process to be ready in half of the
/// cases, so that starts are cut short as well.
async fn havoc(
    standalone: &mut Standalone,
    size: &Size,
    random: &mut fastrand::Rng,
    total: u64,
    sent: &AtomicU64,
) {
    let step = total * 9 / 10 / size.kills;
    for kill in 0..size.kills {
        let at = kill * step + random.u64(0..step);
        wait_for("the sender to come so far", PATIENCE * 10, async || {
            let now = sent.load(Ordering::Relaxed);
            (now >= at).then_some(()).ok_or_else(|| format!("{now} of {at}"))
        })
        .await
        .unwrap();
        standalone.kill9();
        standalone.start();
        if random.bool() {
            standalone.wait_until_ready().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn standalone_killed_fifty_times_under_load_keeps_every_promise() {
    let size = size();
    println!("seed {}", size.seed);
    let mut random = fastrand::Rng::with_seed(size.seed);
    let receiver = Receiver::start().await.unwrap();
    let mut standalone = Standalone::prepare(receiver.url("/commands"));
    standalone.start();
    standalone.wait_until_ready().await;
    let lives = Lives::new(size.devices, size.events, &mut random);
    let devices: Vec<usize> = (0..size.devices).collect();
    for some in devices.chunks(CALLS) {
        for index in some {
            standalone.register(*index).await;
        }
    }

    let bodies = bodies(&lives, &mut random);
    let total = bodies.len() as u64;
    let sent = Arc::new(AtomicU64::new(0));
    let progress = Arc::clone(&sent);
    let sending = LoadGenerator::new(vec![standalone.listen], SigningKey::new("main", KEY.as_bytes()))
        .path(WEBHOOK)
        .connections(32)
        .count(total)
        .retry(RingSchedule::steady(ATTEMPTS, Duration::from_millis(50)));
    let sender = tokio::spawn(sending.run(move |n| {
        progress.fetch_max(n, Ordering::Relaxed);
        bodies[usize::try_from(n).unwrap()].clone()
    }));
    havoc(&mut standalone, &size, &mut random, total, &sent).await;
    let report = sender.await.unwrap();
    assert_eq!(
        report.accepted.len() as u64,
        total,
        "seed {}: {report}",
        size.seed
    );
    standalone.wait_until_ready().await;

    every_status_and_command_is_right(&standalone, &lives, &receiver, &size).await;
    every_event_is_known(&mut standalone, &lives, &size).await;
    println!(
        "{} commands, {} kills\n{report}",
        receiver.calls().len(),
        size.kills
    );
}

/// The end is the reference's, and what came out is what led there, each command under its one identity (G2, G3).
async fn every_status_and_command_is_right(
    standalone: &Standalone,
    lives: &Lives,
    receiver: &Receiver,
    size: &Size,
) {
    wait_for("the end that the reference has", PATIENCE, async || {
        let mut delivered = Delivered::default();
        for call in receiver.calls() {
            let body = call.json().unwrap();
            delivered.note(&body);
            assert_eq!(call.header("webhook-id"), body["id"].as_str());
        }
        let wrong = lives.wrong(&standalone.shown(lives).await, &delivered);
        match wrong.len() {
            0 => Ok(()),
            count => Err(format!(
                "seed {}: {count} devices: {}",
                size.seed,
                wrong[..count.min(5)].join("; ")
            )),
        }
    })
    .await
    .unwrap();
}

/// Nothing that was answered 200 has vanished: sent once more, every single event is a duplicate (G1).
async fn every_event_is_known(standalone: &mut Standalone, lives: &Lives, size: &Size) {
    // Copies that change nothing may still wait when every device is where it must be.
    standalone.wait_until_settled().await;
    let before = standalone.outcomes().await;
    let events: Vec<Bytes> = lives.events.iter().cloned().map(Bytes::from).collect();
    let total = events.len() as u64;
    let again = LoadGenerator::new(vec![standalone.listen], SigningKey::new("main", KEY.as_bytes()))
        .path(WEBHOOK)
        .connections(32)
        .count(total)
        .retry(RingSchedule::steady(ATTEMPTS, Duration::from_millis(50)));
    let report = again
        .run(move |n| events[usize::try_from(n).unwrap()].clone())
        .await;
    assert_eq!(report.accepted.len() as u64, total, "{report}");
    wait_for("every event to be known", PATIENCE, async || {
        let now = standalone.outcomes().await;
        let more = |outcome: &str| {
            now.get(outcome).copied().unwrap_or_default() - before.get(outcome).copied().unwrap_or_default()
        };
        let new: Vec<_> = now
            .keys()
            .filter(|outcome| *outcome != "duplicate" && more(outcome) > 0)
            .collect();
        assert!(
            new.is_empty(),
            "seed {}: events had vanished: {before:?} became {now:?}",
            size.seed
        );
        (more("duplicate") == total)
            .then_some(())
            .ok_or_else(|| format!("{now:?}"))
    })
    .await
    .unwrap();
    let ended = standalone
        .daemon
        .as_ref()
        .unwrap()
        .terminate(PATIENCE)
        .await
        .unwrap();
    assert!(ended.success(), "{}", standalone.daemon.as_ref().unwrap().logs());
    let dead = tool(standalone.directory.path(), &["dead", "list"]);
    let ids: std::collections::BTreeSet<_> = dead["letters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| letter["message_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), POISON, "{dead}");
}
