//! Limits and deadlines of connections, and what HTTP/1.1 allows on one.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use porchlight_testbed::http::encode;

use crate::support::{BODY, Ingress, PATH, SOON, failed, key, passed, signed, told};

#[tokio::test]
async fn a_head_that_does_not_end_is_cut_off_without_an_answer() {
    let ingress = Ingress::start(&["--head-timeout", "300ms"]).await;
    for begun in [
        &b""[..],
        b"POST /webh",
        b"POST /webhooks/ring HTTP/1.1\r\nHost: h\r\n",
    ] {
        let began = Instant::now();
        let mut connection = ingress.connect().await;
        connection.send(begun).await.unwrap();
        assert_eq!(connection.closed_within(SOON).await.unwrap(), b""[..]);
        assert!(
            began.elapsed() > Duration::from_millis(200),
            "{:?}",
            began.elapsed()
        );
    }
    ingress
        .counts(r#"porchlight_ingress_connections_failed_total{cause="too_slow"} 2"#)
        .await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_503_and_closed() {
    let ingress = Ingress::start(&["--body-timeout", "200ms"]).await;
    let mut connection = ingress.connect().await;
    let request = signed(BODY);
    connection.send(&request[..request.len() - 1]).await.unwrap();
    let answer = connection.response().await.unwrap();
    assert_eq!(told(&answer), failed(503, "body_slow"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    connection.closed_within(SOON).await.unwrap();
}

#[tokio::test]
async fn head_and_body_share_one_budget() {
    let flags = [
        "--answer-timeout",
        "1500ms",
        "--head-timeout",
        "1500ms",
        "--body-timeout",
        "4s",
    ];
    let ingress = Ingress::start(&flags).await;
    let mut connection = ingress.connect().await;
    let request = signed(BODY);
    let began = Instant::now();
    connection.send(&request[..10]).await.unwrap();
    connection.send(&request[10..request.len() - 1]).await.unwrap();
    assert_eq!(
        told(&connection.response().await.unwrap()),
        failed(503, "body_slow")
    );
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_idle_connection_is_closed_later_than_a_slow_head() {
    let ingress = Ingress::start(&["--head-timeout", "1s", "--idle-timeout", "3s"]).await;
    let mut connection = ingress.connect().await;
    let began = Instant::now();
    connection.send(&signed(BODY)).await.unwrap();
    connection.response().await.unwrap();
    assert_eq!(connection.closed_within(SOON).await.unwrap(), b""[..]);
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn requests_follow_each_other_on_one_connection_even_after_a_refusal() {
    let ingress = Ingress::start(&[]).await;
    let mut connection = ingress.connect().await;
    let wrong = encode("POST", PATH, &[("X-Signature", &key().sign(b"other"))], BODY);
    let all = [signed(BODY), wrong, signed(b""), signed(BODY)].concat();
    connection.send(&all).await.unwrap();
    for expected in [passed(), failed(401, "signature_mismatch"), passed(), passed()] {
        assert_eq!(told(&connection.response().await.unwrap()), expected);
    }
    connection.send(&signed(BODY)).await.unwrap();
    assert_eq!(told(&connection.response().await.unwrap()), passed());
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let ingress = Ingress::start(&[]).await;
    let mut connection = ingress.connect().await;
    let request = crate::support::signed_with(&[("Expect", "100-continue")], BODY);
    let head = request.len() - BODY.len();
    connection.send(&request[..head]).await.unwrap();
    // Nothing but the interim answer can come before the body.
    let early = connection
        .response_within(Duration::from_millis(300))
        .await
        .unwrap_err();
    assert_eq!(early.kind(), ErrorKind::TimedOut);
    connection.send(&request[head..]).await.unwrap();
    assert_eq!(told(&connection.response().await.unwrap()), passed());
}

#[tokio::test]
async fn a_connection_over_the_limit_waits_for_a_place() {
    let ingress = Ingress::start(&["--connections-max", "1"]).await;
    let mut first = ingress.connect().await;
    first.send(&signed(BODY)).await.unwrap();
    first.response().await.unwrap();
    let mut second = ingress.connect().await;
    second.send(&signed(BODY)).await.unwrap();
    let waiting = second
        .response_within(Duration::from_millis(300))
        .await
        .unwrap_err();
    assert_eq!(waiting.kind(), ErrorKind::TimedOut);
    drop(first);
    assert_eq!(told(&second.response().await.unwrap()), passed());
}

#[tokio::test]
async fn bodies_over_the_shared_memory_are_answered_503_and_the_memory_comes_back() {
    let ingress = Ingress::start(&["--body-bytes-max", "1KiB", "--body-memory-max", "1KiB"]).await;
    let large = signed(&[b'x'; 1000]);
    let mut holder = ingress.connect().await;
    holder.send(&large[..large.len() - 1]).await.unwrap();
    ingress.counts("porchlight_ingress_body_memory_bytes 1000").await;
    let full = ingress.send(&signed(&[b'y'; 100])).await;
    assert_eq!(told(&full), failed(503, "memory_full"));
    holder.send(&large[large.len() - 1..]).await.unwrap();
    assert_eq!(told(&holder.response().await.unwrap()), passed());
    ingress.counts("porchlight_ingress_body_memory_bytes 0").await;
    assert_eq!(told(&ingress.send(&large).await), passed());
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused() {
    let ingress = Ingress::start(&["--head-bytes-max", "8KiB"]).await;
    let long = "x".repeat(9000);
    let answer = ingress
        .send(&encode("POST", PATH, &[("X-Long", &long)], b""))
        .await;
    assert_eq!(answer.status, 431);
    let fits = "x".repeat(7000);
    assert_eq!(
        told(
            &ingress
                .send(&crate::support::signed_with(&[("X-Long", &fits)], BODY))
                .await
        ),
        passed()
    );
}
