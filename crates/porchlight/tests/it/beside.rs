//! The tool beside a running standalone: what it does is seen by the daemon soon, and neither stands in the other's way.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use porchlight_event::SigningKey;
use porchlight_testbed::{Daemon, LoadGenerator, RingSchedule, free_port, http, wait_for};

use crate::site::{Form, KEY, PATIENCE, Site, event, now_ms};
use crate::tool::{json_lines, run};

/// Operations that each of two tools registers.
const EACH: usize = 15;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tool_makes_owed_is_sent_by_the_daemon_soon() {
    let site = Site::start(Form::Beside).await;
    let alone = site.alone.as_ref().unwrap();
    site.apply("device_offline", "d", 1_000).await;
    let add = [
        "operations",
        "add",
        "d",
        "nightly",
        "--kind",
        "snapshot",
        "--json",
    ];
    let added = site.run(&add).await.expect(0).json();
    assert_eq!(added["state"], "paused");
    let sent = async || {
        let commands = json_lines(&alone.daemon.logs());
        if commands.is_empty() {
            Err("no command yet".to_owned())
        } else {
            Ok(commands)
        }
    };
    let commands = wait_for("the pause", PATIENCE, sent).await.unwrap();
    assert_eq!(
        (&commands[0]["action"], &commands[0]["operation"]["id"]),
        (&"pause".into(), &"nightly".into())
    );

    // A letter that is replayed is worked on without anybody's help.
    site.bury(0, "no_device", 0).await;
    site.run(&["dead", "replay", "--yes"]).await.expect(0);
    let applied = async || {
        let ran = site.run(&["devices", "show", "d0", "--json"]).await;
        if ran.code == 0 {
            Ok(ran.json())
        } else {
            Err(ran.stderr)
        }
    };
    let device = wait_for("the event to be applied", PATIENCE, applied)
        .await
        .unwrap();
    assert_eq!(device["status"], "online");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tools_beside_a_daemon_under_load_lose_no_update_and_meet_no_lock() {
    let site = Site::start(Form::Beside).await;
    let alone = site.alone.as_ref().unwrap();
    let (name, key) = KEY.split_once('=').unwrap();
    let begin = now_ms() - 3_600_000;
    let load = LoadGenerator::new(vec![alone.listen], SigningKey::new(name, key.as_bytes()))
        .connections(32)
        .lasting(Duration::from_secs(60))
        .retry(RingSchedule::never());
    let stop = tokio_util::sync::CancellationToken::new();
    let load = load.until(stop.clone());
    let load = tokio::spawn(load.run(move |n| {
        let at = begin + i64::try_from(n).unwrap();
        Bytes::from(event("motion_detected", &format!("busy-{}", n % 64), at))
    }));
    let tool = async |name: &str| {
        for number in 0..EACH {
            let operation = format!("{name}-{number}");
            let ran = site
                .run(&["operations", "add", "shared", &operation, "--kind", "k"])
                .await;
            let shown = format!("{ran:?}");
            assert!(ran.code == 0 && ran.stderr.is_empty(), "{shown}");
            site.run(&["dead", "list"]).await.expect(0);
        }
    };
    tokio::join!(tool("one"), tool("two"));
    stop.cancel();
    let report = load.await.unwrap();
    assert!(report.accepted.len() > 100, "{report}");
    assert_eq!(
        report.accepted.len() as u64,
        report.attempts(),
        "a webhook was refused: {report}"
    );
    let device = site
        .run(&["devices", "show", "shared", "--json"])
        .await
        .expect(0)
        .json();
    let ids: BTreeSet<_> = device["operations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].to_string())
        .collect();
    assert_eq!(ids.len(), 2 * EACH, "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replays_at_once_move_each_letter_once() {
    for form in [Form::Directory, Form::Api] {
        let site = Site::start(form).await;
        for number in 0..40 {
            site.bury(number, "no_device", 0).await;
        }
        let replay = ["dead", "replay", "--yes", "--json"];
        let (one, two) = tokio::join!(site.run(&replay), site.run(&replay));
        let moved = |ran: crate::tool::Ran| ran.expect(0).json()["replayed"].as_u64().unwrap();
        assert_eq!(moved(one) + moved(two), 40, "{form:?}");
        let left = site.run(&["dead", "list", "--json"]).await.expect(0).json();
        assert_eq!(left["ready"], 0, "{form:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_stopped_has_told_of_each_letter_that_it_moved() {
    for form in [Form::Directory, Form::Api] {
        let site = Site::start(form).await;
        for number in 0..60 {
            site.bury(number, "no_device", 0).await;
        }
        let folder = tempfile::tempdir().unwrap();
        let audit = folder.path().join("audit");
        let variables: Vec<_> = site
            .variables
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let arguments = [
            "dead",
            "replay",
            "--yes",
            // Slow enough that it is still at it when some are seen to be moved.
            "--rate",
            "5",
            "--audit-file",
            audit.to_str().unwrap(),
        ];
        let child = crate::tool::command(&arguments, &variables)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = || {
            std::fs::read_to_string(&audit)
                .unwrap_or_default()
                .lines()
                .filter(|line| line.contains("\"fate\""))
                .count()
        };
        let some = async || match lines() {
            count @ 5.. => Ok(count),
            count => Err(format!("{count} lines")),
        };
        wait_for("some letters to be moved", PATIENCE, some)
            .await
            .unwrap();
        let pid = child.id().to_string();
        let stopped = std::process::Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap();
        assert!(stopped.success());
        let output = tokio::task::spawn_blocking(move || child.wait_with_output())
            .await
            .unwrap()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("ended early by a signal"), "{said}");
        let left = site.run(&["dead", "list", "--json"]).await.expect(0).json();
        assert_eq!(left["ready"].as_u64().unwrap() + lines() as u64, 60, "{form:?}");
        assert!(
            (1..60).contains(&left["ready"].as_u64().unwrap()),
            "{form:?} {left}"
        );
        site.run(&["dead", "replay", "--yes"]).await.expect(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_simulate_work_on_a_standalone_as_they_are() {
    let site = Site::start(Form::Beside).await;
    let alone = site.alone.as_ref().unwrap();
    for path in ["", "/livez", "/readyz"] {
        run(&["health", &format!("http://{}{path}", alone.admin)], &[])
            .await
            .expect(0);
    }
    let url = format!("http://{}/webhooks/ring", alone.listen);
    let dir = site.dir();
    let variables = [
        ("PORCHLIGHT_URL", url.as_str()),
        ("PORCHLIGHT_SIGNING_KEYS", KEY),
        ("PORCHLIGHT_DATA_DIR", dir.to_str().unwrap()),
    ];
    let simulate = [
        "simulate",
        "--type",
        "device_online",
        "--device",
        "d",
        "--duplicates",
        "3",
        "--json",
    ];
    let sent = run(&simulate, &variables).await.expect(0).json();
    assert_eq!(sent["stored"], 3);
    let seen = async || {
        let ran = site.run(&["devices", "show", "d", "--json"]).await;
        if ran.code == 0 {
            Ok(ran.json())
        } else {
            Err(ran.stderr)
        }
    };
    let device = wait_for("the device", PATIENCE, seen).await.unwrap();
    assert_eq!(device["status"], "online");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_asks_ingresses_and_says_what_is_wrong_with_them() {
    let site = Site::start(Form::Beside).await;
    let alone = site.alone.as_ref().unwrap();
    let admin = format!("127.0.0.1:{}", free_port());
    let ingress = Daemon::of("porchlight-ingress")
        .env("PORCHLIGHT_LISTEN", format!("127.0.0.1:{}", free_port()))
        .env("PORCHLIGHT_ADMIN_LISTEN", &admin)
        .env("PORCHLIGHT_AMQP_URL", format!("amqp://127.0.0.1:{}", free_port()))
        .env("PORCHLIGHT_SIGNING_KEYS", KEY)
        .start()
        .unwrap();
    let address = admin.parse().unwrap();
    let alive = async || {
        http::get(address, "/livez")
            .await
            .map_err(|error| error.to_string())
    };
    ingress.ready(PATIENCE, alive).await.unwrap();

    // A standalone's public side answers there as an ingress does.
    let (ready, not_ready) = (format!("http://{}", alone.admin), format!("http://{admin}"));
    let away = format!("http://127.0.0.1:{}", free_port());
    let ran = site
        .run(&["status", "--json", "--ingress", &ready])
        .await
        .expect(0)
        .json();
    assert_eq!(
        (&ran["ingresses"][0]["state"]["ready"], &ran["attention"]),
        (&true.into(), &serde_json::json!([]))
    );
    let arguments = ["status", "--check", "--ingress", &not_ready, "--ingress", &away];
    let text = site.run(&arguments).await.expect(1).stdout;
    assert!(
        text.contains(&format!("ingress {not_ready} is not ready: ")),
        "{text}"
    );
    assert!(
        text.contains(&format!("ingress {away} does not answer: ")),
        "{text}"
    );
    let list = format!("{ready},{away}");
    let mut variables: Vec<_> = site
        .variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    variables.push(("PORCHLIGHT_INGRESS_ADMIN_URLS", &list));
    let status = run(&["status", "--json"], &variables).await.expect(0).json();
    assert_eq!(status["ingresses"].as_array().unwrap().len(), 2);
    let wrong = site
        .run(&["status", "--ingress", "localhost:9090"])
        .await
        .expect(64);
    assert!(
        wrong.stderr.contains("PORCHLIGHT_INGRESS_ADMIN_URLS (--ingress)"),
        "{wrong:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_what_an_ingress_keeps_in_its_spool() {
    let site = Site::start(Form::Beside).await;
    let folder = tempfile::tempdir().unwrap();
    let address = || format!("127.0.0.1:{}", free_port());
    let (listen, admin) = (address(), address());
    let ingress = Daemon::of("porchlight-ingress")
        .env("PORCHLIGHT_LISTEN", &listen)
        .env("PORCHLIGHT_ADMIN_LISTEN", &admin)
        .env("PORCHLIGHT_AMQP_URL", format!("amqp://{}", address()))
        .env("PORCHLIGHT_DATA_DIR", folder.path())
        .env("PORCHLIGHT_SIGNING_KEYS", KEY)
        .start()
        .unwrap();
    let admin_address = admin.parse().unwrap();
    let ready = async || match http::get(admin_address, "/readyz").await {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    };
    ingress.ready(PATIENCE, ready).await.unwrap();
    let (name, key) = KEY.split_once('=').unwrap();
    let key = SigningKey::new(name, key.as_bytes());
    let body = event("device_online", "d", 1_000);
    let answer = http::post_signed(listen.parse().unwrap(), "/webhooks/ring", &key, &body).await;
    assert_eq!(answer.unwrap().status, 200);

    let url = format!("http://{admin}");
    let seen = async || {
        let status = site.run(&["status", "--json", "--ingress", &url]).await.json();
        let spool = status["ingresses"][0]["state"]["spool"].clone();
        if spool["events"] == 1 {
            Ok(spool)
        } else {
            Err(status.to_string())
        }
    };
    let spool = wait_for("the spool to be shown", PATIENCE, seen).await.unwrap();
    assert!(spool["bytes_max"].as_u64() > spool["bytes"].as_u64(), "{spool}");
    let check = site
        .run(&["status", "--check", "--ingress", &url])
        .await
        .expect(1)
        .stdout;
    assert!(check.contains("holds 1 events in its spool"), "{check}");
}
