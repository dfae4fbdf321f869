//! The table of answers, row by row over raw sockets, against an ingress whose broker is there and against a standalone.
//!
//! Rows that need a broken broker are in `outage`.

use std::time::Duration;

use porchlight_event::SigningKey;
use porchlight_testbed::http::{RawConnection, encode};
use porchlight_testbed::{Signal, http, wait_for};

use crate::site::{Form, Site, on_both_forms};
use crate::support::{PATIENCE, WEBHOOK, event, now_ms};

on_both_forms!(
    what_is_not_rings_is_refused_and_never_reaches_the_queue,
    what_is_signed_is_stored_however_odd_it_is,
    a_body_over_the_limit_is_refused_before_it_is_sent_and_one_at_the_limit_is_stored,
    malformed_http_is_answered_400_and_closed,
    slow_heads_and_bodies_end_in_a_close_or_503_and_others_are_served_meanwhile,
    connections_beyond_the_bound_wait_and_bodies_beyond_the_memory_are_answered_503,
    keys_change_on_sighup_and_by_themselves_and_a_bad_file_keeps_the_old_ones,
    the_admin_side_shows_health_and_metrics_and_the_public_side_does_not,
);

fn code(answer: &http::Response) -> String {
    let body: serde_json::Value = answer.json().unwrap_or_default();
    body["error"]["code"].as_str().unwrap_or_default().to_owned()
}

async fn what_is_not_rings_is_refused_and_never_reaches_the_queue(form: Form) {
    let site = Site::start(form, Vec::new()).await;
    let body = event("device_online", "d", "a", now_ms());
    let good = site.key.sign(&body);
    let digits = good.strip_prefix("sha256=").unwrap().to_owned();
    let wrong = SigningKey::new("x", b"another key").sign(&body);

    let answer = site
        .ask("POST", "/webhooks/other", &[("X-Signature", &good)], &body)
        .await;
    assert_eq!((answer.status, code(&answer).as_str()), (404, "not_found"));
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = site.ask(method, WEBHOOK, &[("X-Signature", &good)], &body).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("POST")),
            "{method}"
        );
    }
    let header_sets: Vec<(&str, Vec<(&str, String)>)> = vec![
        ("missing", vec![]),
        ("empty", vec![("X-Signature", String::new())]),
        (
            "repeated",
            vec![("X-Signature", good.clone()), ("X-Signature", good.clone())],
        ),
        (
            "repeated in two cases",
            vec![("X-Signature", good.clone()), ("x-signature", wrong.clone())],
        ),
        ("another key", vec![("X-Signature", wrong.clone())]),
        ("no prefix", vec![("X-Signature", digits.clone())]),
        ("another prefix", vec![("X-Signature", format!("sha1={digits}"))]),
        (
            "upper-case prefix",
            vec![("X-Signature", format!("SHA256={digits}"))],
        ),
        (
            "31 bytes",
            vec![("X-Signature", format!("sha256={}", &digits[2..]))],
        ),
        ("33 bytes", vec![("X-Signature", format!("sha256={digits}00"))]),
        (
            "bad hex",
            vec![("X-Signature", format!("sha256=zz{}", &digits[2..]))],
        ),
        ("two in one", vec![("X-Signature", format!("{good}, {good}"))]),
        (
            "one bit off",
            vec![(
                "X-Signature",
                format!("sha256={}{}", flip(&digits[..1]), &digits[1..]),
            )],
        ),
        ("of another body", vec![("X-Signature", site.key.sign(b"{}"))]),
    ];
    for (name, headers) in header_sets {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let answer = site.ask("POST", WEBHOOK, &headers, &body).await;
        assert_eq!(answer.status, 401, "{name}: {}", answer.text());
        assert!(!answer.text().contains(&digits[..16]), "{name} shows a signature");
    }
    // Accepted last, so that whatever slipped through before it would be on the queue by now.
    site.accept(&body).await;
    site.wait_for_stored(1).await;
    let logs = site.daemon().logs();
    assert!(
        !logs.contains(&digits[..16]) && !logs.contains("whsec"),
        "a secret is in the log:\n{logs}"
    );
}

fn flip(digit: &str) -> &'static str {
    if digit == "0" { "1" } else { "0" }
}

async fn what_is_signed_is_stored_however_odd_it_is(form: Form) {
    let site = Site::start(form, Vec::new()).await;
    let bodies: [&[u8]; 6] = [
        b"",
        b"not json",
        b"\0\xff\xfe",
        b"[]",
        b"{\"data\":{}}",
        br#"{"data":{"type":"new","id":"e"}}"#,
    ];
    for body in bodies {
        site.accept(body).await;
    }
    let odd = b"odd headers";
    let signature = site.key.sign(odd).to_uppercase().replace("SHA256", "sha256");
    let headers = [
        ("Content-Type", "text/html; charset=\"x"),
        ("Content-Encoding", "gzip"),
        ("Accept", "nothing"),
        ("X-Signature", signature.as_str()),
    ];
    let answer = site
        .ask("POST", &format!("{WEBHOOK}?from=ring"), &headers, odd)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let stored: serde_json::Value = answer.json().unwrap();
    assert_eq!(
        (&stored["status"], stored["id"].as_str().unwrap().len()),
        (&"stored".into(), 32)
    );

    let body = b"chunked";
    let signature = site.key.sign(body);
    let head = format!(
        "POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\nX-Signature: {signature}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let (answer, _) = site
        .raw(&[head.as_bytes(), b"3\r\nchu\r\n4\r\nnked\r\n0\r\n\r\n"].concat())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    site.wait_for_stored(bodies.len() as u64 + 2).await;
}

async fn a_body_over_the_limit_is_refused_before_it_is_sent_and_one_at_the_limit_is_stored(form: Form) {
    let site = Site::start(form, Vec::new()).await;
    let limit = 1024 * 1024;
    site.accept(&vec![b'x'; limit]).await;
    let signature = site.key.sign(&vec![b'x'; limit + 1]);
    let declared = format!(
        "POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\nX-Signature: {signature}\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        limit + 1
    );
    // Nothing of the body is sent: an answer shows that none was waited for, and its status that none was asked for.
    let (answer, mut connection) = site.raw(declared.as_bytes()).await;
    assert_eq!((answer.status, code(&answer).as_str()), (413, "body_too_large"));
    connection.closed_within(PATIENCE).await.unwrap();

    let head = format!(
        "POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\nX-Signature: {signature}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", limit + 1, "x".repeat(limit + 1));
    let (answer, _) = site.raw(&[head.as_bytes(), chunk.as_bytes()].concat()).await;
    assert_eq!(answer.status, 413);
    site.wait_for_stored(1).await;
}

async fn malformed_http_is_answered_400_and_closed(form: Form) {
    let site = Site::start(form, Vec::new()).await;
    let signature = site.key.sign(b"{}");
    let with = |lines: &str| {
        format!("POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\nX-Signature: {signature}\r\n{lines}\r\n\r\n{{}}")
    };
    for (name, bytes) in [
        ("no request line", "nonsense\r\n\r\n".to_owned()),
        ("bad version", format!("POST {WEBHOOK} HTTP/9.9\r\n\r\n")),
        ("two lengths", with("Content-Length: 2\r\nContent-Length: 3")),
        ("bad length", with("Content-Length: two")),
        ("space in a name", with("Bad Name: x\r\nContent-Length: 2")),
        (
            "a header too large",
            with(&format!("X: {}\r\nContent-Length: 2", "x".repeat(64 * 1024))),
        ),
    ] {
        let (answer, mut connection) = site.raw(bytes.as_bytes()).await;
        assert!(matches!(answer.status, 400 | 431), "{name}: {}", answer.status);
        connection.closed_within(PATIENCE).await.unwrap();
    }
    site.accept(b"{}").await;
    site.wait_for_stored(1).await;
}

async fn slow_heads_and_bodies_end_in_a_close_or_503_and_others_are_served_meanwhile(form: Form) {
    let site = Site::start(
        form,
        vec![
            ("PORCHLIGHT_HEAD_TIMEOUT", "1s".to_owned()),
            ("PORCHLIGHT_BODY_TIMEOUT", "1s".to_owned()),
        ],
    )
    .await;
    let listen = site.listen;
    let body = event("device_online", "d", "a", now_ms());
    let signature = site.key.sign(&body);
    let bytes = encode("POST", WEBHOOK, &[("X-Signature", &signature)], &body);
    let mut stored = 0;
    // The others' answer comes before the end of the slow ones; where the disk alone takes that long, once more.
    let served = wait_for("an answer while slow ones are open", PATIENCE, async || {
        let mut slow_head = RawConnection::open(listen).await.unwrap();
        slow_head
            .send(b"POST /webhooks/ring HTTP/1.1\r\nHost:")
            .await
            .unwrap();
        let mut slow_body = RawConnection::open(listen).await.unwrap();
        slow_body.send(&bytes[..bytes.len() - 1]).await.unwrap();
        site.accept(&event("device_offline", "d", "a", now_ms())).await;
        stored += 1;
        match slow_body.response_within(Duration::ZERO).await {
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Ok((slow_head, slow_body)),
            other => Err(format!("the slow ones hold up the others: {other:?}")),
        }
    });
    let (mut slow_head, mut slow_body) = served.await.unwrap();
    match slow_body.response().await {
        Ok(answer) => assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1"))),
        Err(error) => assert_ne!(
            error.kind(),
            std::io::ErrorKind::TimedOut,
            "neither answered nor closed"
        ),
    }
    let left = slow_head.closed_within(PATIENCE).await.unwrap();
    assert!(
        !left.starts_with(b"HTTP/1.1 4"),
        "a slow head is never answered 408 or any other 4xx"
    );
    site.wait_for_stored(stored).await;
}

async fn connections_beyond_the_bound_wait_and_bodies_beyond_the_memory_are_answered_503(form: Form) {
    let site = Site::start(
        form,
        vec![
            ("PORCHLIGHT_CONNECTIONS_MAX", "8".to_owned()),
            ("PORCHLIGHT_IDLE_TIMEOUT", "10m".to_owned()),
            ("PORCHLIGHT_BODY_MEMORY_MAX", "1MiB".to_owned()),
        ],
    )
    .await;
    let listen = site.listen;
    let large = vec![b'x'; 900 * 1024];
    let signature = site.key.sign(&large);
    let bytes = encode("POST", WEBHOOK, &[("X-Signature", &signature)], &large);
    wait_for("a body that finds no room", PATIENCE, async || {
        let mut first = RawConnection::open(listen).await.unwrap();
        first.send(&bytes[..bytes.len() - 1]).await.unwrap();
        let answer = site.post(&large).await;
        if answer.status == 503 && code(&answer) == "memory_full" {
            Ok(())
        } else {
            Err(answer.status.to_string())
        }
    })
    .await
    .unwrap();

    // Answered and kept open they stay for as long as the test may take; a first request has to come soon.
    let mut idle = Vec::new();
    for _ in 0..8 {
        let mut connection = RawConnection::open(listen).await.unwrap();
        connection.send(&encode("GET", "/", &[], b"")).await.unwrap();
        let answer = connection.response_within(PATIENCE).await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (404, None));
        idle.push(connection);
    }
    let small = event("device_online", "d", "a", now_ms());
    let request = encode(
        "POST",
        WEBHOOK,
        &[("X-Signature", &site.key.sign(&small))],
        &small,
    );
    let mut beyond = RawConnection::open(listen).await.unwrap();
    beyond.send(&request).await.unwrap();
    assert!(
        beyond.response_within(Duration::from_millis(300)).await.is_err(),
        "a ninth connection was served"
    );
    drop(idle);
    let answer = beyond.response_within(PATIENCE).await.unwrap();
    assert_eq!(
        answer.status,
        200,
        "a place that became free is taken: {}",
        answer.text()
    );
}

async fn keys_change_on_sighup_and_by_themselves_and_a_bad_file_keeps_the_old_ones(form: Form) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    std::fs::write(&path, "old=first-key\n").unwrap();
    let site = Site::start(
        form,
        vec![("PORCHLIGHT_SIGNING_KEYS_FILE", path.display().to_string())],
    )
    .await;
    let status = async |key: &str| {
        let key = SigningKey::new("k", key.as_bytes());
        http::post_signed(site.listen, WEBHOOK, &key, b"{}")
            .await
            .unwrap()
            .status
    };
    assert_eq!(
        (status("first-key").await, status("second-key").await),
        (200, 401)
    );
    std::fs::write(&path, "old=first-key\nnew=second-key\n").unwrap();
    site.daemon().signal(Signal::HangUp);
    let both = async || match (status("first-key").await, status("second-key").await) {
        (200, 200) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    wait_for("both keys", PATIENCE, both).await.unwrap();
    std::fs::write(&path, "new=second-key\n").unwrap();
    wait_for(
        "the old key to go without a signal",
        PATIENCE,
        async || match status("first-key").await {
            401 => Ok(()),
            other => Err(other.to_string()),
        },
    )
    .await
    .unwrap();
    std::fs::write(&path, "no key at all, but a secret\n").unwrap();
    site.daemon().signal(Signal::HangUp);
    wait_for("an error in the log", PATIENCE, async || {
        let logs = site.daemon().logs();
        if logs.contains("ERROR") { Ok(()) } else { Err(logs) }
    })
    .await
    .unwrap();
    assert_eq!(status("second-key").await, 200);
    assert!(!site.daemon().logs().contains("but a secret"));
}

async fn the_admin_side_shows_health_and_metrics_and_the_public_side_does_not(form: Form) {
    let site = Site::start(form, Vec::new()).await;
    site.accept(b"{}").await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(http::get(site.admin, path).await.unwrap().status, 200, "{path}");
        assert_eq!(
            http::get(site.listen, path).await.unwrap().status,
            404,
            "{path} is public"
        );
    }
    let metrics = http::get(site.admin, "/metrics").await.unwrap().text();
    assert!(
        metrics
            .lines()
            .any(|line| line.starts_with("porchlight_ingress_requests_total{")),
        "{metrics}"
    );
    assert!(!metrics.contains("whsec") && !metrics.contains("sha256="));
}
