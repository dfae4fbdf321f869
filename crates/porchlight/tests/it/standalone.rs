//! `standalone` as a process: what it answers, what it keeps over a stop, and what it says when it cannot run.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use porchlight_event::SigningKey;
use porchlight_event::sample::Sample;
use porchlight_testbed::http::{self, Response};
use porchlight_testbed::{Daemon, LoadGenerator, RingSchedule, Signal, free_port, wait_for};
use serde_json::{Value, json};

use crate::tool::json_lines;

const PATIENCE: Duration = Duration::from_secs(60);
const WEBHOOK: &str = "/webhooks/ring";
const KEY: &str = "whsec-porch-7c21";
const TOKEN: &str = "test-admin-token";

/// A standalone that can be stopped and started again on the same directory and ports.
struct Alone {
    folder: tempfile::TempDir,
    listen: SocketAddr,
    admin: SocketAddr,
    settings: Vec<(&'static str, String)>,
    daemon: Daemon,
    /// What earlier processes wrote.
    written: String,
}

impl Alone {
    async fn start(settings: Vec<(&'static str, String)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (listen, admin) = (address(), address());
        let daemon = begin(folder.path(), listen, admin, &settings);
        let alone = Self {
            folder,
            listen,
            admin,
            settings,
            daemon,
            written: String::new(),
        };
        alone.wait_until_ready().await;
        alone
    }

    async fn wait_until_ready(&self) {
        let look = async || match http::get(self.admin, "/readyz").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        };
        if let Err(error) = self.daemon.ready(PATIENCE, look).await {
            panic!("{error}\n{}", self.daemon.logs());
        }
    }

    /// SIGTERM, and a new process when that has ended cleanly.
    async fn restart(&mut self) {
        let status = self.daemon.terminate(PATIENCE).await.unwrap();
        assert!(status.success(), "{status}\n{}", self.daemon.logs());
        self.written.push_str(&self.daemon.logs());
        self.daemon = begin(self.folder.path(), self.listen, self.admin, &self.settings);
        self.wait_until_ready().await;
    }

    async fn accept(&self, body: &[u8]) {
        let key = SigningKey::new("k", KEY.as_bytes());
        let answer = http::post_signed(self.listen, WEBHOOK, &key, body).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    async fn api(&self, method: &str, path: &str, body: &Value) -> Response {
        let authorization = format!("Bearer {TOKEN}");
        let headers = [("Authorization", authorization.as_str())];
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        http::request(self.admin, method, path, &headers, body.as_bytes())
            .await
            .unwrap()
    }

    async fn register(&self, device: &str, operation: &str) -> Response {
        let path = format!("/v1/devices/{device}/operations/{operation}");
        let body = json!({ "account_id": "acct", "kind": "snapshot", "params": { "hour": 3 } });
        self.api("PUT", &path, &body).await
    }

    async fn device(&self, device: &str) -> Value {
        let answer = self
            .api("GET", &format!("/v1/devices/{device}"), &Value::Null)
            .await;
        answer.json().unwrap()
    }

    /// Every command on standard output so far, of all processes.
    fn commands(&self) -> Vec<Value> {
        json_lines(&format!("{}{}", self.written, self.daemon.logs()))
    }

    /// Waits until there are commands under so many identities.
    async fn wait_for_commands(&self, count: usize) -> Vec<Value> {
        let look = async || {
            let commands = self.commands();
            let ids: BTreeSet<_> = commands.iter().map(|command| command["id"].to_string()).collect();
            if ids.len() == count {
                Ok(commands)
            } else {
                Err(format!("{ids:?}"))
            }
        };
        wait_for(&format!("{count} commands"), PATIENCE, look)
            .await
            .unwrap()
    }
}

fn begin(
    folder: &Path,
    listen: SocketAddr,
    admin: SocketAddr,
    settings: &[(&'static str, String)],
) -> Daemon {
    Daemon::of("porchlight")
        .arg("standalone")
        .env("PORCHLIGHT_DATA_DIR", folder.join("data"))
        .env("PORCHLIGHT_LISTEN", listen.to_string())
        .env("PORCHLIGHT_ADMIN_LISTEN", admin.to_string())
        .env("PORCHLIGHT_ADMIN_TOKEN", TOKEN)
        .env("PORCHLIGHT_SIGNING_KEYS", format!("k={KEY}"))
        .env("PORCHLIGHT_DRAIN_DELAY", "100ms")
        .env("PORCHLIGHT_SWEEP_INTERVAL", "100ms")
        .envs(settings.iter().cloned())
        .start()
        .unwrap()
}

fn event(event_type: &str, device_id: &str, timestamp_ms: i64) -> Vec<u8> {
    let sample = Sample {
        event_type,
        device_id,
        account_id: "acct",
        timestamp_ms,
        sent_at_ms: timestamp_ms + 40,
        request_id: &format!("{event_type}-{device_id}-{timestamp_ms}"),
    };
    sample.body()
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_millis()).unwrap()
}

/// What a standalone says that ends by itself, with this code.
async fn refused(variables: &[(&str, &str)], code: i32) -> String {
    let address = || format!("127.0.0.1:{}", free_port());
    let daemon = Daemon::of("porchlight")
        .arg("standalone")
        .env("PORCHLIGHT_LISTEN", address())
        .env("PORCHLIGHT_ADMIN_LISTEN", address())
        .env("PORCHLIGHT_SIGNING_KEYS", "k=v")
        .envs(variables.iter().copied())
        .start()
        .unwrap();
    let status = daemon.wait(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(code), "{}", daemon.logs());
    daemon.logs()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_come_as_json_lines_and_the_control_api_is_there() {
    let alone = Alone::start(Vec::new()).await;
    assert_eq!(alone.register("d", "nightly").await.status, 201);
    assert_eq!(alone.register("d", "nightly").await.status, 200);
    let now = now_ms();
    alone.accept(&event("device_offline", "d", now - 2_000)).await;
    alone.wait_for_commands(1).await;
    alone.accept(&event("device_online", "d", now - 1_000)).await;
    alone.accept(&event("device_online", "d", now - 1_000)).await;
    let commands = alone.wait_for_commands(2).await;
    let told: Vec<_> = commands
        .iter()
        .map(|command| command["action"].as_str().unwrap())
        .collect();
    assert_eq!(told, ["pause", "resume"]);
    assert_eq!(commands[1]["operation"]["params"], json!({ "hour": 3 }));
    assert_eq!(commands[1]["cause"]["type"], "device_online");

    let running = async || {
        let device = alone.device("d").await;
        if device["operations"][0]["state"] == "running" {
            Ok(device)
        } else {
            Err(device.to_string())
        }
    };
    let device = wait_for("the operation to run", PATIENCE, running).await.unwrap();
    assert_eq!(
        (&device["status"], &device["operations"][0]["generation"]),
        (&"online".into(), &1.into())
    );
    assert_eq!(device["history"][0]["reason"], "the newest news of its kind");
    let page: Value = alone
        .api("GET", "/v1/devices?status=online", &Value::Null)
        .await
        .json()
        .unwrap();
    assert_eq!(page["devices"][0]["device_id"], "d");
    let forget = "/v1/devices/d/operations/nightly";
    assert_eq!(alone.api("DELETE", forget, &Value::Null).await.status, 204);
    assert_eq!(alone.api("DELETE", forget, &Value::Null).await.status, 404);
    assert_eq!(alone.api("GET", "/v1/dead", &Value::Null).await.status, 200);
    assert_eq!(alone.api("GET", "/v1/dead/", &Value::Null).await.status, 404);
    assert_eq!(http::get(alone.admin, "/v1/devices/d").await.unwrap().status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_listener_shows_health_and_the_metrics_of_every_part() {
    let alone = Alone::start(Vec::new()).await;
    alone.accept(b"not json").await;
    let dead = async || {
        let metrics = http::get(alone.admin, "/metrics").await.unwrap().text();
        let wanted = [
            "porchlight_ingress_requests_total{",
            "porchlight_worker_dead_letters_total{reason=\"not_json\"} 1",
            "porchlight_journal_commits_total ",
            "porchlight_journal_bytes_max 4294967296",
            "role=\"standalone\"",
        ];
        match wanted.iter().find(|name| !metrics.contains(**name)) {
            None => Ok(()),
            Some(missing) => Err(format!("{missing} is not in\n{metrics}")),
        }
    };
    wait_for("the metrics", PATIENCE, dead).await.unwrap();
    assert_eq!(http::get(alone.admin, "/livez").await.unwrap().status, 200);
    assert_eq!(http::get(alone.listen, "/metrics").await.unwrap().status, 404);
    let logs = alone.daemon.logs();
    let first = logs.lines().find(|line| line.contains("ready")).unwrap();
    let addresses = [alone.listen.to_string(), alone.admin.to_string()];
    let words = ["data", "lines on standard output", "control_api=true"];
    for wanted in addresses.iter().map(String::as_str).chain(words) {
        assert!(first.contains(wanted), "{wanted} is not in {first}");
    }
    assert!(!logs.contains(KEY) && !logs.contains(TOKEN), "{logs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_the_process_before_was() {
    // Nobody listens there, so commands stay owed.
    let nobody = format!("http://127.0.0.1:{}/", free_port());
    let secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned();
    let callback = vec![
        ("PORCHLIGHT_CALLBACK_URL", nobody),
        ("PORCHLIGHT_CALLBACK_SECRET", secret),
    ];
    let mut alone = Alone::start(callback).await;
    assert_eq!(alone.register("d", "nightly").await.status, 201);
    let now = now_ms();
    alone.accept(&event("device_offline", "d", now - 2_000)).await;
    let offline = async || match &alone.device("d").await["status"] {
        status if status == "offline" => Ok(()),
        status => Err(status.to_string()),
    };
    wait_for("the device to be offline", PATIENCE, offline)
        .await
        .unwrap();
    assert_eq!(alone.commands(), Vec::<Value>::new());
    // From now on to standard output.
    alone.settings.clear();
    alone.restart().await;
    let commands = alone.wait_for_commands(1).await;
    assert_eq!(
        (&commands[0]["action"], &commands[0]["generation"]),
        (&"pause".into(), &1.into())
    );
    alone.accept(&event("device_offline", "d", now - 2_000)).await;
    alone.accept(&event("device_online", "d", now - 1_000)).await;
    let commands = alone.wait_for_commands(2).await;
    assert_eq!(commands[1]["action"], "resume");
    // Its batch may be counted after the other's.
    let counted = async || {
        let metrics = http::get(alone.admin, "/metrics").await.unwrap().text();
        let is_known = metrics.contains("outcome=\"duplicate\"} 1");
        is_known.then_some(()).ok_or(metrics)
    };
    wait_for("the mark, which outlives the restart", PATIENCE, counted)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_under_load_lose_nothing_and_send_no_command_under_two_identities() {
    const DEVICES: u64 = 50;
    let mut alone = Alone::start(Vec::new()).await;
    for n in 0..DEVICES {
        assert_eq!(alone.register(&format!("d-{n}"), "op").await.status, 201);
    }
    let (begin, count) = (now_ms() - 3_600_000, 3_000);
    let load = LoadGenerator::new(vec![alone.listen], SigningKey::new("k", KEY.as_bytes()))
        .connections(16)
        .count(count)
        .rate(800.0)
        .retry(RingSchedule::steady(600, Duration::from_millis(50)));
    let load = tokio::spawn(load.run(move |n| {
        let round = n / DEVICES;
        let kind = if round.is_multiple_of(2) {
            "device_offline"
        } else {
            "device_online"
        };
        let at = begin + i64::try_from(round).unwrap() * 1_000;
        Bytes::from(event(kind, &format!("d-{}", n % DEVICES), at))
    }));
    for _ in 0..3 {
        alone.restart().await;
    }
    let report = load.await.unwrap();
    assert_eq!(report.accepted.len() as u64, count, "{report}");
    for n in 0..DEVICES {
        let name = format!("d-{n}");
        let settled = async || {
            let device = alone.device(&name).await;
            let operation = &device["operations"][0];
            match (device["status"].as_str(), operation["state"].as_str()) {
                (Some("online"), Some("running")) => Ok(()),
                _ => Err(device.to_string()),
            }
        };
        wait_for(&format!("{name} to be online"), PATIENCE, settled)
            .await
            .unwrap();
    }
    let mut meanings: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for command in alone.commands() {
        let meaning = format!(
            "{} {} {}",
            command["device_id"], command["generation"], command["action"]
        );
        meanings
            .entry(meaning)
            .or_default()
            .insert(command["id"].to_string());
    }
    assert!(meanings.len() as u64 >= 2 * DEVICES, "{}", meanings.len());
    assert!(meanings.values().all(|ids| ids.len() == 1), "{meanings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_withdraws_readiness_first_and_ends_cleanly() {
    // Within this time it is seen to be not ready, and an event comes.
    let alone = Alone::start(vec![("PORCHLIGHT_DRAIN_DELAY", "10s".to_owned())]).await;
    alone.daemon.signal(Signal::Terminate);
    let withdrawn = async || match http::get(alone.admin, "/readyz").await {
        Ok(answer) if answer.status == 503 => Ok(()),
        other => Err(format!("{other:?}")),
    };
    wait_for("readiness to be withdrawn", PATIENCE, withdrawn)
        .await
        .unwrap();
    alone.accept(&event("device_online", "d", now_ms())).await;
    let status = alone.daemon.wait(PATIENCE).await.unwrap();
    assert!(status.success(), "{status}\n{}", alone.daemon.logs());
    assert!(alone.daemon.logs().contains("stopped"), "{}", alone.daemon.logs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_belongs_to_one_process_at_a_time() {
    let alone = Alone::start(Vec::new()).await;
    let data = alone.folder.path().join("data");
    let said = refused(&[("PORCHLIGHT_DATA_DIR", data.to_str().unwrap())], 1).await;
    assert!(said.contains("is in use by another porchlight"), "{said}");
    alone.accept(&event("device_online", "d", now_ms())).await;
}

#[tokio::test]
async fn a_directory_that_is_no_good_is_named_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "something else").unwrap();
    let data = file.to_str().unwrap();
    let said = refused(&[("PORCHLIGHT_DATA_DIR", data)], 1).await;
    assert!(said.contains(data) && said.contains("cannot be used"), "{said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "something else");

    std::fs::write(
        folder.path().join("porchlight.db"),
        "no database, but long enough to be read as one".repeat(99),
    )
    .unwrap();
    let said = refused(&[("PORCHLIGHT_DATA_DIR", folder.path().to_str().unwrap())], 1).await;
    assert!(said.contains("is not a journal of porchlight"), "{said}");
}

#[tokio::test]
async fn every_setting_that_is_wrong_is_named_at_once_and_nothing_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let said = refused(
        &[
            ("PORCHLIGHT_DATA_DIR", data.to_str().unwrap()),
            ("PORCHLIGHT_DATA_BYTES_MAX", "1"),
            ("PORCHLIGHT_SIGNING_KEYS", "hunter2"),
            ("PORCHLIGHT_SETTLE", "never"),
            ("PORCHLIGHT_CALLBACK_URL", "ftp://host/"),
            ("PORCHLIGHT_LOG", "inof"),
        ],
        64,
    )
    .await;
    for name in ["DATA_BYTES_MAX", "SIGNING_KEYS", "SETTLE", "CALLBACK_URL", "LOG"] {
        assert!(said.contains(&format!("PORCHLIGHT_{name} (")), "{name}: {said}");
    }
    assert!(!said.contains("hunter2") && !data.exists(), "{said}");
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let listen = taken.local_addr().unwrap().to_string();
    let said = refused(
        &[
            ("PORCHLIGHT_LISTEN", listen.as_str()),
            ("PORCHLIGHT_DATA_DIR", data.to_str().unwrap()),
        ],
        1,
    )
    .await;
    assert!(
        said.contains("PORCHLIGHT_LISTEN") && said.contains(&listen) && !data.exists(),
        "{said}"
    );
}

/// What is at the other end of `porchlight standalone | program` may end before it.
#[tokio::test]
async fn an_output_that_nobody_reads_is_told_in_the_log_and_what_is_owed_stays_owed() {
    struct Ended(std::process::Child);
    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (listen, admin, log) = (address(), address(), folder.path().join("log"));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_porchlight"));
    command
        .arg("standalone")
        .env("PORCHLIGHT_DATA_DIR", folder.path().join("data"))
        .env("PORCHLIGHT_LISTEN", listen.to_string())
        .env("PORCHLIGHT_ADMIN_LISTEN", admin.to_string())
        .env("PORCHLIGHT_ADMIN_TOKEN", TOKEN)
        .env("PORCHLIGHT_SIGNING_KEYS", format!("k={KEY}"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap());
    let mut process = Ended(command.spawn().unwrap());
    drop(process.0.stdout.take());
    let ready = async || match http::get(admin, "/readyz").await {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    };
    wait_for("a ready standalone", PATIENCE, ready).await.unwrap();
    let authorization = format!("Bearer {TOKEN}");
    let headers = [("Authorization", authorization.as_str())];
    let body = json!({ "kind": "snapshot", "params": null }).to_string();
    http::request(
        admin,
        "PUT",
        "/v1/devices/d/operations/o",
        &headers,
        body.as_bytes(),
    )
    .await
    .unwrap();
    let body = event("device_offline", "d", now_ms());
    let key = SigningKey::new("k", KEY.as_bytes());
    let answer = http::post_signed(listen, WEBHOOK, &key, &body).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = async || match std::fs::read_to_string(&log).unwrap() {
        log if log.contains("broken pipe") && log.contains("stays owed") => Ok(()),
        log => Err(log),
    };
    wait_for("a line about it", PATIENCE, told).await.unwrap();
}
