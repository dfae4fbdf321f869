//! The table of answers, row by row, as far as it goes without a broker.

use porchlight_testbed::http::{encode, get};

use crate::support::{BODY, Ingress, PATH, SOON, failed, key, passed, signed, signed_with, told};

#[tokio::test]
async fn another_path_is_not_found_and_a_query_is_ignored() {
    let ingress = Ingress::start(&[]).await;
    for path in [
        "/",
        "/webhooks",
        "/webhooks/ring/",
        "/webhooks/Ring",
        "//webhooks/ring",
        "/webhooks/%72ing",
    ] {
        let answer = ingress.send(&encode("POST", path, &[], b"")).await;
        assert_eq!(told(&answer), failed(404, "not_found"), "{path}");
    }
    let signature = key().sign(BODY);
    let asked = encode("POST", "/webhooks/ring?x=1", &[("X-Signature", &signature)], BODY);
    assert_eq!(told(&ingress.send(&asked).await), passed());
    assert_eq!(
        told(&ingress.send(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").await),
        failed(404, "not_found")
    );
}

#[tokio::test]
async fn another_method_is_not_allowed_and_told_which_is() {
    let ingress = Ingress::start(&[]).await;
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
        let answer = ingress.send(&encode(method, PATH, &[], b"")).await;
        assert_eq!(told(&answer), failed(405, "method_not_allowed"), "{method}");
        assert_eq!(answer.header("allow"), Some("POST"));
    }
    let mut connection = ingress.connect().await;
    connection
        .send(&encode("HEAD", PATH, &[("Connection", "close")], b""))
        .await
        .unwrap();
    let shown = connection.closed_within(SOON).await.unwrap();
    assert!(shown.starts_with(b"HTTP/1.1 405 ") && shown.ends_with(b"\r\n\r\n"));
}

#[tokio::test]
async fn a_request_that_is_not_rings_is_unauthorised() {
    let ingress = Ingress::start(&[]).await;
    let good = key().sign(BODY);
    let other = porchlight_event::SigningKey::new("other", b"k2").sign(BODY);
    let bare = good.trim_start_matches("sha256=").to_owned();
    for (headers, code) in [
        (vec![], "signature_missing"),
        (
            vec![("X-Signature", good.as_str()), ("x-signature", good.as_str())],
            "signature_repeated",
        ),
        (vec![("X-Signature", bare.as_str())], "signature_malformed"),
        (vec![("X-Signature", "")], "signature_malformed"),
        (vec![("X-Signature", &good[..70])], "signature_malformed"),
        (vec![("X-Signature", other.as_str())], "signature_mismatch"),
    ] {
        let answer = ingress.send(&encode("POST", PATH, &headers, BODY)).await;
        assert_eq!(told(&answer), failed(401, code));
    }
    let changed = ingress
        .send(&encode("POST", PATH, &[("X-Signature", &good)], b"{}"))
        .await;
    assert_eq!(told(&changed), failed(401, "signature_mismatch"));
    ingress
        .counts(r#"porchlight_ingress_requests_total{answer="401",cause="signature_mismatch"} 2"#)
        .await;
}

#[tokio::test]
async fn a_signed_event_is_never_refused_however_odd() {
    let ingress = Ingress::start(&[]).await;
    let upper = key().sign(BODY).to_uppercase().replace("SHA256", "sha256");
    let empty = signed(b"");
    let odd = [
        signed(BODY),
        encode("POST", PATH, &[("X-Signature", &upper)], BODY),
        empty,
        signed(b"not json \xff\0"),
        signed_with(&[], BODY),
        signed_with(
            &[
                ("Content-Type", "text/plain; charset=\"x"),
                ("Content-Encoding", "gzip"),
            ],
            BODY,
        ),
        signed_with(
            &[("Content-Type", "a"), ("Content-Type", "b"), ("Cookie", "x")],
            BODY,
        ),
        signed_with(
            &[
                ("traceparent", "nonsense"),
                ("Upgrade", "h2c"),
                ("Connection", "Upgrade"),
            ],
            BODY,
        ),
        signed_with(&[("Expect", "200-maybe")], BODY),
    ];
    for request in odd {
        let answer = ingress.send(&request).await;
        assert_eq!(told(&answer), passed(), "{}", String::from_utf8_lossy(&request));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    ingress
        .counts(r#"porchlight_ingress_signatures_total{key="test"} 9"#)
        .await;
}

#[tokio::test]
async fn a_chunked_body_is_read_whole_and_its_trailers_are_dropped() {
    let ingress = Ingress::start(&[]).await;
    let signature = key().sign(b"one two");
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: h\r\nX-Signature: {signature}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    for chunks in [
        "4;x=y\r\none \r\n3\r\ntwo\r\n0\r\n\r\n",
        "7\r\none two\r\n0\r\nX-Signature: z\r\n\r\n",
    ] {
        assert_eq!(
            told(&ingress.send(format!("{head}{chunks}").as_bytes()).await),
            passed()
        );
    }
}

#[tokio::test]
async fn a_declared_length_over_the_limit_is_refused_before_the_body_is_asked_for() {
    let ingress = Ingress::start(&[]).await;
    let mut connection = ingress.connect().await;
    let headers = [("Content-Length", "1048577"), ("Expect", "100-continue")];
    connection
        .send(&encode("POST", PATH, &headers, b""))
        .await
        .unwrap();
    let shown = connection.closed_within(SOON).await.unwrap();
    assert!(
        shown.starts_with(b"HTTP/1.1 413 "),
        "{}",
        String::from_utf8_lossy(&shown)
    );
}

#[tokio::test]
async fn a_client_that_sends_on_regardless_still_reads_its_413() {
    let ingress = Ingress::start(&[]).await;
    let mut connection = ingress.connect().await;
    let mut request = signed(&vec![b'x'; 4 << 20]);
    let answer = tokio::join!(connection.send(&request), ingress.send(&request[..1000])).1;
    assert_eq!(told(&answer), failed(413, "body_too_large"));
    let answer = connection.response().await.unwrap();
    assert_eq!(told(&answer), failed(413, "body_too_large"));
    assert_eq!(answer.header("connection"), Some("close"));
    request = signed(&vec![b'x'; 1 << 20]);
    assert_eq!(
        told(&ingress.send(&request).await),
        passed(),
        "exactly the limit is taken"
    );
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused_when_it_gets_there() {
    let ingress = Ingress::start(&["--body-bytes-max", "1KiB"]).await;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: h\r\nX-Signature: {}\r\n",
        key().sign(b"")
    );
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let request = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}1\r\nx\r\n");
    let mut connection = ingress.connect().await;
    connection.send(request.as_bytes()).await.unwrap();
    assert_eq!(
        told(&connection.response().await.unwrap()),
        failed(413, "body_too_large")
    );
    connection.closed_within(SOON).await.unwrap();
}

#[tokio::test]
async fn malformed_http_is_answered_400_and_closed() {
    let ingress = Ingress::start(&[]).await;
    let signature = key().sign(b"x");
    let post = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nX-Signature: {signature}\r\n");
    let requests = [
        "NONSENSE\r\n\r\n".to_owned(),
        format!("{post}No colon\r\n\r\n"),
        format!("{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\nx"),
        format!("{post}Content-Length: -1\r\n\r\nx"),
        format!("{post}Transfer-Encoding: chunked, gzip\r\n\r\nx"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n"),
    ];
    for request in requests {
        let mut connection = ingress.connect().await;
        connection.send(request.as_bytes()).await.unwrap();
        let shown = connection.closed_within(SOON).await.unwrap();
        assert!(
            shown.starts_with(b"HTTP/1.1 400 "),
            "{request}: {}",
            String::from_utf8_lossy(&shown)
        );
    }
    ingress
        .counts(r#"porchlight_ingress_requests_total{answer="400",cause="malformed_http"} 6"#)
        .await;
}

#[tokio::test]
async fn health_tells_life_from_readiness() {
    let ingress = Ingress::start(&[]).await;
    assert_eq!(get(ingress.admin, "/livez").await.unwrap().status, 200);
    let ready = get(ingress.admin, "/readyz").await.unwrap();
    assert_eq!(
        (ready.status, ready.text().contains("queue_unavailable")),
        (503, true),
        "{}",
        ready.text()
    );
    assert_eq!(get(ingress.admin, "/v1/devices").await.unwrap().status, 404);
    ingress
        .counts(r#"porchlight_ingress_queue_state{state="connecting"} 1"#)
        .await;
    ingress.counts("porchlight_ingress_body_memory_bytes 0").await;
    ingress.counts("process_open_fds").await;
}
