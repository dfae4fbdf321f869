//! The load generator against a server that answers by script.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use porchlight_event::SigningKey;
use porchlight_testbed::http::{self, RawConnection};
use porchlight_testbed::{LoadGenerator, RingSchedule};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers each request of up to 4 KiB with what `answer` gives for its number; none closes the connection.
async fn server(answer: fn(u64) -> Option<u16>) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while let Ok(1..) = stream.read(&mut request).await {
                    let Some(status) = answer(count.fetch_add(1, Ordering::SeqCst)) else {
                        return;
                    };
                    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (address, count)
}

fn key() -> SigningKey {
    SigningKey::new("test", b"secret")
}

#[tokio::test]
async fn every_event_is_sent_once_when_all_are_accepted() {
    let (address, count) = server(|_| Some(200)).await;
    let run = LoadGenerator::new([address], key()).connections(8).count(500);
    let report = run.run(|number| Bytes::from(format!("{{\"n\":{number}}}"))).await;
    assert_eq!(
        (report.count(200), report.accepted.len(), report.attempts()),
        (500, 500, 500)
    );
    assert_eq!(count.load(Ordering::SeqCst), 500);
    assert!(report.percentile(50) > Duration::ZERO && report.percentile(100) >= report.percentile(50));
}

#[tokio::test]
async fn faults_are_retried_and_refusals_are_not() {
    let script = |number| match number {
        0 => Some(503),
        1 => None,
        2 => Some(200),
        3 => Some(401),
        _ => Some(500),
    };
    let (address, count) = server(script).await;
    let run = LoadGenerator::new([address], key())
        .count(3)
        .retry(RingSchedule::steady(3, Duration::from_millis(5)));
    let report = run.run(|_| Bytes::from_static(b"{}")).await;
    assert_eq!(report.accepted.iter().copied().collect::<Vec<_>>(), [0]);
    assert_eq!(report.given_up.keys().copied().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(
        (report.count(503), report.count(401), report.count(500)),
        (1, 1, 3)
    );
    assert_eq!(count.load(Ordering::SeqCst), 7);
}

#[tokio::test]
async fn an_open_loop_is_not_ahead_of_its_rate_and_begins_nothing_after_its_time() {
    let (address, _) = server(|_| Some(200)).await;
    let run = || LoadGenerator::new([address], key()).connections(4).rate(200.0);
    let report = run().count(100).run(|_| Bytes::from_static(b"{}")).await;
    assert_eq!(report.accepted.len(), 100);
    assert!(report.elapsed >= Duration::from_millis(495), "{report}");
    let lasting = run().lasting(Duration::from_millis(500));
    let report = lasting.run(|_| Bytes::from_static(b"{}")).await;
    // A machine that stands still at the end begins fewer.
    assert!((1..=100).contains(&report.accepted.len()), "{report}");
}

#[tokio::test]
async fn a_raw_connection_sees_an_answer_and_then_the_close() {
    let (address, _) = server(|number| (number == 0).then_some(204)).await;
    let mut connection = RawConnection::open(address).await.unwrap();
    connection
        .send(&http::encode("GET", "/", &[], b""))
        .await
        .unwrap();
    assert_eq!(connection.response().await.unwrap().status, 204);
    connection.send(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    // The body that a 204 must not have was left unread.
    assert_eq!(
        connection.closed_within(Duration::from_secs(60)).await.unwrap(),
        "ok"
    );
}
