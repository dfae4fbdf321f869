//! Hostile input from all sides: bytes at the public listener, bodies behind a right signature, and what of them an
//! operator gets to see.
//!
//! The plain table of answers is in `answers`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use porchlight_testbed::http::{RawConnection, encode};
use porchlight_testbed::{Daemon, http, wait_for};
use serde_json::{Value, json};

use crate::support::{PATIENCE, Pipeline, Plan, WEBHOOK, event, now_ms};

const EVENTS: &str = "porchlight.events";
/// What a terminal would obey: colours and a cleared screen, in both kinds of control characters, and a turned line.
const STEERING: &str = "\u{1b}[2J\u{9b}31m\u{7}\r\n\u{7f}\u{202e}\u{2028}";

/// An ingress alone, so that what it stored stays on the queue to be counted.
async fn ingress_alone() -> Pipeline {
    let mut pipeline = Pipeline::prepare(Plan {
        workers: 0,
        ..Plan::default()
    })
    .await;
    pipeline.ingresses[0].start();
    pipeline.ingresses[0].wait_until_ready().await;
    pipeline
}

/// Sends bytes, ends the sending side, and returns the status of every answer until the server closes.
async fn statuses(pipeline: &Pipeline, bytes: &[u8]) -> Vec<u16> {
    let mut connection = RawConnection::open(pipeline.ingresses[0].listen).await.unwrap();
    // A server that has seen enough may close while we still send.
    let _ = connection.send(bytes).await;
    let _ = connection.finish_sending().await;
    let answers = connection.closed_within(PATIENCE).await.unwrap();
    String::from_utf8_lossy(&answers)
        .split("HTTP/1.")
        .skip(1)
        .map(|answer| answer[2..5].parse().unwrap())
        .collect()
}

/// Runs the operator's tool on the pipeline's servers, insists on success, and returns what it printed.
async fn tool(pipeline: &Pipeline, arguments: &[&str]) -> String {
    let run = Daemon::of("porchlight")
        .args(arguments)
        .env("PORCHLIGHT_AMQP_URL", pipeline.broker.url())
        .env("PORCHLIGHT_REDIS_URL", pipeline.redis.url())
        .start()
        .unwrap();
    let status = run.wait(PATIENCE).await.unwrap();
    assert!(status.success(), "{arguments:?}: {}", run.logs());
    run.logs()
}

/// A post of `{}`, rightly signed, with these lines in its head and these bytes after it.
fn post(pipeline: &Pipeline, lines: &str, rest: &[u8]) -> Vec<u8> {
    let signature = pipeline.key.sign(b"{}");
    let head = format!("POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\nX-Signature: {signature}\r\n{lines}\r\n\r\n");
    [head.as_bytes(), rest].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_form_of_smuggling_brings_a_second_request_past_the_first() {
    let pipeline = ingress_alone().await;
    let signature = pipeline.key.sign(b"[]");
    let hidden = encode("POST", WEBHOOK, &[("X-Signature", &signature)], b"[]");
    let chunked = |size: &str| [size.as_bytes(), b"\r\n{}\r\n0\r\n\r\n"].concat();
    let good = chunked("2");
    let many = (0..5_000).fold(String::new(), |mut lines, number| {
        let _ = write!(lines, "X{number}: \r\n");
        lines
    }) + "Content-Length: 2";
    // Two ways to tell the length: the chunks count, and nothing after them is believed.
    let mut forms: Vec<(&str, Vec<u8>, u16)> = [
        "Transfer-Encoding: chunked\r\nContent-Length: 2",
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
    ]
    .map(|lines| ("both lengths", post(&pipeline, lines, &good), 200))
    .to_vec();
    for lines in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding : chunked",
    ] {
        forms.push((lines, post(&pipeline, lines, &good), 400));
    }
    for lines in [
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 2, 2",
        "Content-Length: +2",
        "Content-Length: -2",
        "Content-Length: 0x2",
        "Content-Length:\r\n 2",
        "Content-Length: 2\r\nX-A: b\r\n c",
        "Content-Length: 2\r\nX-A: b\rX-B: c",
        "Content-Length: 2\r\nX-A: b\0c",
    ] {
        forms.push((lines, post(&pipeline, lines, b"{}"), 400));
    }
    for size in ["+2", "0x2", "-1", "10000000000000002", "2;a=\"b\nc\"", "2\n"] {
        forms.push((
            size,
            post(&pipeline, "Transfer-Encoding: chunked", &chunked(size)),
            400,
        ));
    }
    let unended = post(&pipeline, "Transfer-Encoding: chunked", b"2\r\n{}XX0\r\n\r\n");
    forms.push(("a chunk that goes on", unended, 400));
    forms.push(("many headers", post(&pipeline, &many, b"{}"), 431));
    let old = String::from_utf8(post(&pipeline, "Transfer-Encoding: chunked", &good)).unwrap();
    forms.push((
        "chunks in HTTP/1.0",
        old.replace("HTTP/1.1", "HTTP/1.0").into(),
        400,
    ));
    let trailer = format!(
        "2\r\n{{}}\r\n0\r\nX-Signature: {}\r\n\r\n",
        pipeline.key.sign(b"{}")
    );
    let unsigned =
        format!("POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{trailer}");
    forms.push(("a signature behind the body", unsigned.into(), 401));

    let mut stored = 0;
    for (name, bytes, wanted) in forms {
        let got = statuses(&pipeline, &[&bytes[..], &hidden].concat()).await;
        assert_eq!(got, [wanted], "{name:?}");
        stored += u64::from(wanted == 200);
    }
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let got = statuses(&pipeline, &[&preface[..], &hidden].concat()).await;
    assert!(!got.contains(&200), "HTTP/2: {got:?}");
    // What follows a whole request in good form is the next request, in its order.
    assert_eq!(statuses(&pipeline, &hidden.repeat(50)).await, [200; 50]);
    pipeline.broker.wait_for_depth(EVENTS, stored + 50).await;
    let logs = pipeline.ingresses[0].daemon().logs();
    assert!(!logs.contains(|c: char| c.is_control() && c != '\n'), "{logs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_one_path_is_served_in_its_one_spelling() {
    let pipeline = ingress_alone().await;
    let signature = pipeline.key.sign(b"{}");
    let at = |path: &str, version: &str| {
        let request = encode("POST", path, &[("X-Signature", &signature)], b"{}");
        String::from_utf8(request).unwrap().replace("HTTP/1.1", version)
    };
    for path in [
        "//webhooks/ring",
        "/webhooks//ring",
        "/webhooks/ring/",
        "/webhooks/./ring",
        "/x/../webhooks/ring",
        "/webhooks/%2e/ring",
        "/webhooks/%72ing",
        "/Webhooks/Ring",
        "/webhooks/ring;x",
        "/",
        "*",
        "http://elsewhere.example/x",
        &format!("/{}", "x".repeat(8_000)),
    ] {
        assert_eq!(
            statuses(&pipeline, at(path, "HTTP/1.1").as_bytes()).await,
            [404],
            "{path}"
        );
    }
    for (path, version) in [
        ("/webhooks/ring?x=%00", "HTTP/1.1"),
        ("http://elsewhere.example/webhooks/ring", "HTTP/1.1"),
        (WEBHOOK, "HTTP/1.0"),
    ] {
        assert_eq!(
            statuses(&pipeline, at(path, version).as_bytes()).await,
            [200],
            "{path} {version}"
        );
    }
    pipeline.broker.wait_for_depth(EVENTS, 3).await;
}

/// Bodies that a right signature may carry, each with the reason it dies for, or none when it lives.
fn hostile_bodies(now: i64) -> Vec<(String, Option<&'static str>)> {
    let deep = "[".repeat(200_000);
    let about = |device: &str, rest: &str| {
        format!(
            r#"{{"data":{{"id":"e-{device}","type":"device_online","attributes":{{"source":"{device}",{rest}}}}}}}"#
        )
    };
    let loose = |id: &str, kind: &str, device: &str| {
        json!({ "data": { "id": id, "type": kind, "attributes": { "source": device, "source_type": "devices" } } })
            .to_string()
    };
    let mut bodies = vec![
        (deep.clone(), Some("not_json")),
        (deep + &"]".repeat(200_000), Some("wrong_shape")),
        (r#"{"data":"#.repeat(100_000), Some("not_json")),
        ("\u{feff}{}".to_owned(), Some("not_json")),
        ("null".to_owned(), Some("wrong_shape")),
        (
            r#"{"data":{"id":"e","type":"device_online"}}"#.to_owned(),
            Some("no_device"),
        ),
        (
            r#"{"data":{"id":"e","attributes":{"source":"d"}}}"#.to_owned(),
            Some("no_type"),
        ),
        (
            about(
                "nested",
                &format!(r#""x":{}{}"#, "[".repeat(3_000), "]".repeat(3_000)),
            ),
            None,
        ),
        (about(&"long".repeat(100_000), r#""timestamp":1"#), None),
        (about("nul\\u0000", r#""timestamp":1"#), None),
        (loose(STEERING, "device_online", STEERING), None),
        (loose(&"i".repeat(300_000), &"t".repeat(300_000), "big"), None),
    ];
    for (number, timestamp) in [
        "1e999",
        "-1e999",
        "1.5",
        "-1",
        "\"x\"",
        "\"1771025567000\"",
        "null",
        "true",
        "[]",
        "{}",
        "-9223372036854775808",
    ]
    .iter()
    .enumerate()
    {
        bodies.push((
            about(&format!("time-{number}"), &format!(r#""timestamp":{timestamp}"#)),
            None,
        ));
    }
    bodies.push((
        String::from_utf8(event("device_online", "moves", "first", now - 2_000)).unwrap(),
        None,
    ));
    bodies.push((
        String::from_utf8(event("device_online", "moves", "second", now - 1_000)).unwrap(),
        None,
    ));
    bodies
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bodies_come_to_a_clear_end_and_steer_no_terminal() {
    let pipeline = Pipeline::start(Plan::default()).await;
    let pid = pipeline.workers[0].daemon().pid();
    let mut wanted: BTreeMap<&str, u64> = BTreeMap::new();
    for (body, reason) in hostile_bodies(now_ms()) {
        pipeline.accept(body.as_bytes()).await;
        if let Some(reason) = reason {
            *wanted.entry(reason).or_default() += 1;
        }
    }
    let steering =
        json!({ "data": { "id": STEERING, "type": "device_online", "attributes": {} } }).to_string();
    pipeline.accept(steering.as_bytes()).await;
    *wanted.entry("no_device").or_default() += 1;
    pipeline
        .accept(&event("device_online", "after", "a", now_ms()))
        .await;
    pipeline.settle().await;
    assert_eq!(pipeline.device("after").await["status"], "online");
    assert_eq!(pipeline.device("moves").await["account_id"], "second");
    assert_eq!(pipeline.device("nul%00").await["status"], "online");
    let worker = pipeline.workers[0].daemon();
    assert!(worker.exit_status().is_none() && worker.pid() == pid);

    let listed: Value = serde_json::from_str(&tool(&pipeline, &["dead", "list", "--json"]).await).unwrap();
    assert_eq!(listed["by_reason"], json!(wanted));
    for arguments in [
        &["dead", "list"][..],
        &["dead", "list", "--json"],
        &["dead", "show", "", "--body"],
        &["dead", "show", "", "--body", "--json"],
        &["dead", "replay"],
        &["devices", "list"],
        &["devices", "list", "--json"],
        &["devices", "show", STEERING],
        &["devices", "show", STEERING, "--json"],
        &["devices", "show", "big"],
        &["status"],
    ] {
        let shown = tool(&pipeline, arguments).await;
        let steers =
            |c: char| STEERING.contains(c) && c.is_control() && c != '\n' || "\u{202e}\u{2028}".contains(c);
        assert!(!shown.contains(steers), "{arguments:?}");
    }
    for daemon in pipeline.members() {
        let logs = daemon.daemon().logs();
        assert!(!logs.contains(|c: char| c.is_control() && c != '\n') && !logs.contains('\u{202e}'));
        assert!(
            logs.lines().all(|line| line.len() < 4_096),
            "a stranger's text fills the log"
        );
    }
}

/// One value of the ingress's metrics.
async fn metric(pipeline: &Pipeline, name: &str) -> Result<f64, String> {
    let answer = http::get(pipeline.ingresses[0].admin, "/metrics")
        .await
        .map_err(|error| error.to_string())?;
    let text = answer.text();
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
        .ok_or_else(|| format!("no {name} in\n{text}"))
}

/// Heads that do not end, and large bodies that nobody signed and that stay without their last byte; then all at once
/// go away.
async fn flood(pipeline: &Pipeline) {
    const HEADS: usize = 400;
    const BODIES: usize = 80;
    let head = format!("POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\nX-A: {}", "a".repeat(7_000));
    let signature = format!("sha256={}", "0".repeat(64));
    let body = encode(
        "POST",
        WEBHOOK,
        &[("X-Signature", &signature)],
        &vec![b'x'; 1 << 20],
    );
    let mut held = Vec::new();
    for _ in 0..HEADS {
        let mut connection = RawConnection::open(pipeline.ingresses[0].listen).await.unwrap();
        connection.send(head.as_bytes()).await.unwrap();
        held.push(connection);
    }
    for _ in 0..BODIES {
        let mut connection = RawConnection::open(pipeline.ingresses[0].listen).await.unwrap();
        // Beyond the memory for bodies the answer comes before the end, and a close with it.
        let _ = connection.send(&body[..body.len() - 1]).await;
        held.push(connection);
    }
    pipeline.accept(b"{}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_takes_bounded_memory_and_leaves_nothing_open() {
    const MIB: f64 = 1024.0 * 1024.0;
    let pipeline = ingress_alone().await;
    pipeline.accept(b"{}").await;
    // The watch over the queues has a connection of its own, which comes about by itself.
    wait_for("depths to be watched", PATIENCE, async || {
        match metric(&pipeline, "porchlight_queue_watch_up").await? {
            1.0 => Ok(()),
            other => Err(format!("watch_up is {other}")),
        }
    })
    .await
    .unwrap();
    let files_at_rest = metric(&pipeline, "process_open_fds").await.unwrap();
    let mut after = Vec::new();
    for _ in 0..3 {
        flood(&pipeline).await;
        wait_for("everything let go", PATIENCE, async || {
            let connections = metric(&pipeline, "porchlight_ingress_connections").await?;
            let bodies = metric(&pipeline, "porchlight_ingress_body_memory_bytes").await?;
            let files = metric(&pipeline, "process_open_fds").await?;
            if connections == 0.0 && bodies == 0.0 && files <= files_at_rest + 1.0 {
                Ok(())
            } else {
                Err(format!(
                    "{connections} connections, {bodies} bytes, {files} files"
                ))
            }
        })
        .await
        .unwrap();
        after.push(metric(&pipeline, "process_resident_memory_bytes").await.unwrap() / MIB);
    }
    // The allocator keeps some of what was free in between, up to one flood's worth; three that leaked would show.
    assert!(
        after.iter().all(|mib| *mib < 200.0),
        "resident MiB after each flood: {after:?}"
    );
}
