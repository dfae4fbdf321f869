//! How long until Ring gives up, what it has given up on, and what to write to it: from real daemons to the tool.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use porchlight_device::command::iso_milliseconds;
use porchlight_event::SigningKey;
use porchlight_testbed::{Daemon, binary, free_port, http, wait_for};
use serde_json::{Value, json};

use crate::support::{PATIENCE, TOKEN, WEBHOOK, event, now_ms};

const KEY: &str = "whsec-porch-91c0de";
const HOUR: i64 = 3_600_000;
/// From the first attempt to the last one, and until Ring forgets, in milliseconds.
const LADDER_MS: i64 = 4_356_000;
const KEPT_MS: i64 = 72 * HOUR;

/// A daemon that receives, and where it does.
struct Receiving {
    daemon: Daemon,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Receiving {
    async fn start(program: &str, arguments: &[&str], settings: Vec<(&str, String)>) -> Self {
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (listen, admin) = (address(), address());
        let mut builder = Daemon::of(program);
        for argument in arguments {
            builder = builder.arg(*argument);
        }
        let daemon = builder
            .env("PORCHLIGHT_LISTEN", listen.to_string())
            .env("PORCHLIGHT_ADMIN_LISTEN", admin.to_string())
            .env("PORCHLIGHT_ADMIN_TOKEN", TOKEN)
            .env("PORCHLIGHT_SIGNING_KEYS", format!("main={KEY}"))
            .envs(settings)
            .start()
            .unwrap();
        let alive = async || match http::get(admin, "/livez").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        };
        if let Err(error) = daemon.ready(PATIENCE, alive).await {
            panic!("{error}\n{}", daemon.logs());
        }
        Self {
            daemon,
            listen,
            admin,
        }
    }

    async fn post(&self) -> u16 {
        let key = SigningKey::new("main", KEY.as_bytes());
        let body = event("device_online", "d", "a", now_ms());
        let answer = http::post_signed(self.listen, WEBHOOK, &key, &body).await;
        answer.unwrap().status
    }

    fn url(&self) -> String {
        format!("http://{}", self.admin)
    }
}

/// Runs the tool; its exit code and what it printed.
async fn tool(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(binary("porchlight").unwrap());
    command
        .args(arguments)
        .env_clear()
        .env("PORCHLIGHT_ADMIN_TOKEN", TOKEN);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(output.stdout).unwrap(),
    )
}

async fn asked(arguments: &[&str]) -> Value {
    let (code, out) = tool(&[&["outage", "--json"], arguments].concat()).await;
    assert_eq!(code, 0, "{out}");
    serde_json::from_str(&out).unwrap()
}

#[tokio::test]
async fn an_ingress_without_a_broker_tells_how_long_ring_will_wait() {
    let nowhere = format!("amqp://guest:guest@127.0.0.1:{}/%2f", free_port());
    let settings = vec![("PORCHLIGHT_AMQP_URL", nowhere)];
    let ingress = Receiving::start("porchlight-ingress", &[], settings).await;
    let url = ingress.url();
    assert_eq!(asked(&["--ingress", &url]).await["verdict"], "nothing");

    let before = now_ms();
    assert_eq!(ingress.post().await, 503);
    let report = asked(&["--ingress", &url]).await;
    assert_eq!(
        (&report["verdict"], &report["letter"]),
        (&"wait".into(), &Value::Null)
    );
    assert_eq!(report["outages"][0]["causes"]["queue_unavailable"], 1);
    let gives_up = report["gives_up_at"].as_str().unwrap();
    let (early, late) = (
        iso_milliseconds(before + LADDER_MS),
        iso_milliseconds(now_ms() + LADDER_MS),
    );
    assert!((early.as_str()..=late.as_str()).contains(&gives_up), "{gives_up}");
    assert_eq!(tool(&["outage", "--check", "--ingress", &url]).await.0, 1);

    // The servers are away, too; what the ingress says is shown all the same.
    let (code, out) = tool(&["status", "--ingress", &url]).await;
    assert_eq!(code, 69, "{out}");
    // As much of the time as the steps since the first failure took is gone.
    let gone_ms = now_ms() - before;
    let left = (LADDER_MS - gone_ms) / 60_000..=LADDER_MS / 60_000;
    let told = |minutes: i64| {
        format!(
            "Ring gives up on the first event in {}h {}m",
            minutes / 60,
            minutes % 60
        )
    };
    assert!(
        out.contains("  outage             on for ") && left.map(told).any(|words| out.contains(&words)),
        "{out}"
    );
    wait_for("the log to say so", PATIENCE, async || {
        let logs = ingress.daemon.logs();
        let said = logs.contains("outage: events are answered 5xx");
        if said { Ok(()) } else { Err(logs) }
    })
    .await
    .unwrap();
    assert_eq!(
        tool(&[
            "outage",
            "--ingress",
            &format!("http://127.0.0.1:{}", free_port())
        ])
        .await
        .0,
        69
    );
}

/// Writes down, as an earlier process, one outage of three hours that ended an hour ago.
fn write_down(dir: &Path, ended: i64) {
    let started = ended - 3 * HOUR;
    let outage = json!({
        "started_at_ms": started, "last_failed_at_ms": ended - 1, "recovered_at_ms": ended, "ended_at_ms": ended,
        "first_loss_at_ms": started + LADDER_MS, "forgotten_at_ms": started + LADDER_MS + KEPT_MS,
        "answers_5xx": 321, "causes": { "queue_full": 321 }
    });
    std::fs::create_dir(dir).unwrap();
    std::fs::write(
        dir.join("outages.json"),
        json!({ "outages": [outage] }).to_string(),
    )
    .unwrap();
}

#[tokio::test]
async fn a_standalone_remembers_a_long_outage_over_a_restart_and_the_letter_asks_for_what_ring_gave_up_on() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, ended) = (folder.path().join("data"), now_ms() - HOUR);
    write_down(&dir, ended);
    let data_dir = dir.to_str().unwrap();
    let settings = vec![("PORCHLIGHT_DATA_DIR", data_dir.to_owned())];
    let standalone = Receiving::start("porchlight", &["standalone"], settings).await;
    let url = standalone.url();
    wait_for("an event that is stored", PATIENCE, async || {
        match standalone.post().await {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await
    .unwrap();

    let report = asked(&["--ingress", &url, "--endpoint", "https://hooks.example/ring"]).await;
    assert_eq!(report["verdict"], "ask", "{report}");
    let letter = report["letter"].as_str().unwrap();
    assert!(
        letter.contains("endpoint:  https://hooks.example/ring")
            && letter.contains("321 requests (queue_full 321)"),
        "{letter}"
    );
    let started = ended - 3 * HOUR;
    let window = |from, until| json!([{ "from": iso_milliseconds(from), "until": iso_milliseconds(until) }]);
    assert_eq!(report["lost"], window(started, ended - LADDER_MS));
    let margin = 300_000;
    assert_eq!(report["ask_for"], window(started - margin, ended + margin));

    for place in [["--data-dir", data_dir], ["--api", url.as_str()]] {
        let (code, out) = tool(&[&["status", "--check"], &place[..]].concat()).await;
        assert_eq!(code, 1, "{out}");
        assert!(
            out.contains("the standalone: Ring gave up on events of the outage that ended 1h "),
            "{out}"
        );
    }
}

#[tokio::test]
async fn an_outage_that_nobody_remembers_is_named_by_hand() {
    let since = iso_milliseconds(now_ms() - 5 * HOUR);
    let (until, short) = (
        iso_milliseconds(now_ms() - HOUR),
        iso_milliseconds(now_ms() - 4 * HOUR),
    );
    let report = asked(&["--since", &since, "--until", &until]).await;
    assert_eq!(
        (&report["verdict"], &report["lost"][0]["from"]),
        (&"ask".into(), &since.as_str().into())
    );
    let report = asked(&["--since", &since, "--until", &short]).await;
    assert_eq!(
        report["verdict"], "nothing",
        "an hour is shorter than Ring's repetitions"
    );
    assert_eq!(
        tool(&["outage", "--since", &until, "--until", &since]).await.0,
        64
    );
}
