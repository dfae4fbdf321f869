//! What the admin listener answers, and to whom it gives its places.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

/// Longer than any test waits.
const LONG: Duration = Duration::from_secs(3600);

fn authorised(values: &[&str]) -> bool {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
    }
    is_authorised(&headers, &Secret::new("s3cret"))
}

#[test]
fn one_right_bearer_token_is_required() {
    assert!(authorised(&["Bearer s3cret"]) && authorised(&["bearer s3cret"]));
    for wrong in [
        &[][..],
        &[""],
        &["Bearer"],
        &["Bearer "],
        &["Bearer s3cre"],
        &["Basic s3cret"],
        &["s3cret"],
    ] {
        assert!(!authorised(wrong), "{wrong:?}");
    }
    assert!(!authorised(&["Bearer s3cret", "Bearer s3cret"]));
}

#[tokio::test]
async fn readiness_tells_every_reason_and_every_note() {
    let one = Readiness::from(vec![NotReady::new("broker", "no connection")]);
    let other = Readiness {
        reasons: Vec::new(),
        notes: vec![Note {
            code: "spooling",
            message: "2 wait".to_owned(),
            figures: [("events", 2)].into(),
        }],
    };
    assert_eq!(readiness(other.clone()).status(), 200);
    let answer = readiness(one.merge(other));
    assert_eq!(answer.status(), 503);
    let body = Limited::new(answer.into_body(), 4096)
        .collect()
        .await
        .unwrap()
        .to_bytes();
    assert_eq!(
        body,
        &br#"{"status":"not_ready","reasons":[{"code":"broker","message":"no connection"}],"notes":[{"code":"spooling","message":"2 wait","events":2}]}"#[..]
    );
}

/// A listener with four places.
fn serving(
    limits: AdminLimits,
) -> (
    std::net::SocketAddr,
    CancellationToken,
    tokio::task::JoinHandle<()>,
) {
    let listener = http::listen(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let admin = Admin {
        ready: Arc::new(Readiness::default),
        metrics: Arc::new(Metrics::new("0", "test")),
        pages: Vec::new(),
        api: None,
        token: None,
        limits: AdminLimits {
            connections_max: 4,
            ..limits
        },
    };
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(listener, admin, stop.clone()));
    (address, stop, served)
}

/// Asks on a connection of its own, which is given back open, and gives up before [`LONG`] is over.
async fn ask(address: std::net::SocketAddr, head: &str) -> (TcpStream, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("{head}\r\nHost: x\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(LONG / 60, stream.read(&mut answer)).await;
    let length = read.expect("an answer in time").unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    (stream, answer)
}

#[tokio::test]
async fn idle_connections_leave_places_for_health_checks() {
    // Without being asked to leave they would stay for longer than anybody waits.
    let (address, stop, served) = serving(AdminLimits {
        idle_timeout: LONG,
        ..AdminLimits::default()
    });
    let mut idle = Vec::new();
    // Each is answered and stays open on its side; without spare places the fifth would wait for the others' end.
    for _ in 0..8 {
        let (stream, answer) = ask(address, "GET /livez HTTP/1.1").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        idle.push(stream);
    }
    stop.cancel();
    served.await.unwrap();
}

#[tokio::test]
async fn connections_that_say_nothing_make_room_for_who_asks() {
    // Without being asked to leave they would stay for longer than anybody waits.
    let (address, stop, served) = serving(AdminLimits {
        head_timeout: LONG,
        ..AdminLimits::default()
    });
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    for _ in 0..8 {
        let (_, answer) = ask(address, "GET /livez HTTP/1.1").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
    drop(silent);
    stop.cancel();
    served.await.unwrap();
}

#[tokio::test]
async fn metrics_are_prometheus_text_unless_open_metrics_is_asked_for() {
    let (address, stop, served) = serving(AdminLimits::default());
    let (_, plain) = ask(address, "GET /metrics HTTP/1.1\r\nAccept: */*").await;
    assert!(
        plain.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{plain}"
    );
    assert!(
        plain.contains("# TYPE process_cpu_seconds_total counter\n"),
        "{plain}"
    );
    let asking = "GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text";
    let (_, open) = ask(address, asking).await;
    assert!(
        open.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{open}"
    );
    assert!(open.contains("# TYPE process_cpu_seconds counter\n"), "{open}");
    stop.cancel();
    served.await.unwrap();
}
