//! `simulate` against a small server of the test's own, which checks what arrives as an ingress would.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use porchlight_event::{RingEvent, SigningKeys};
use tokio::net::TcpListener;

use crate::tool::{command, run};

/// Far above what is sent here.
const BODY_BYTES_MAX: usize = 1 << 20;
const KEYS: [(&str, &str); 1] = [("PORCHLIGHT_SIGNING_KEYS", "test=key")];

/// Stores verified bodies; refuses every request whose number `refuse` picks.
struct Receiver {
    address: SocketAddr,
    bodies: Arc<Mutex<Vec<Bytes>>>,
}

impl Receiver {
    async fn start(refuse: fn(usize) -> bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let (stored, count) = (Arc::clone(&bodies), Arc::new(AtomicUsize::new(0)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (stored, count) = (Arc::clone(&stored), Arc::clone(&count));
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (stored, count) = (Arc::clone(&stored), Arc::clone(&count));
                    async move {
                        let signature = request.headers().get("x-signature").unwrap().as_bytes().to_vec();
                        let path = request.uri().path().to_owned();
                        let body = Limited::new(request.into_body(), BODY_BYTES_MAX)
                            .collect()
                            .await
                            .unwrap()
                            .to_bytes();
                        let verified = SigningKeys::parse_list("test=key")
                            .unwrap()
                            .verify(&signature, &body)
                            .is_ok();
                        let status = match (verified, path.as_str()) {
                            (false, _) => StatusCode::UNAUTHORIZED,
                            (true, "/hook") if !refuse(count.fetch_add(1, Ordering::Relaxed)) => {
                                StatusCode::OK
                            }
                            _ => StatusCode::SERVICE_UNAVAILABLE,
                        };
                        if status == StatusCode::OK {
                            stored.lock().unwrap().push(body);
                        }
                        let answer = Response::builder()
                            .status(status)
                            .body(Full::new(Bytes::from_static(b"{}")));
                        Ok::<_, std::convert::Infallible>(answer.unwrap())
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, bodies }
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    fn events(&self) -> Vec<RingEvent> {
        self.bodies
            .lock()
            .unwrap()
            .iter()
            .map(|body| RingEvent::parse(body).unwrap())
            .collect()
    }
}

#[tokio::test]
async fn all_events_arrive_signed_and_are_summed_up() {
    let receiver = Receiver::start(|_| false).await;
    let line =
        "simulate --flaps 2 --devices 5 --duplicates 3 --shuffle --seed 1 --concurrency 4 --json --url";
    let url = receiver.url();
    let arguments: Vec<&str> = line.split(' ').chain([url.as_str()]).collect();
    let summary = run(&arguments, &KEYS).await.expect(0).json();
    assert_eq!((&summary["events"], &summary["stored"]), (&20.into(), &60.into()));
    assert_eq!(summary["answers"]["200"], 60);
    assert!(summary["latency_ms"]["p99"].as_f64().unwrap() > 0.0 && summary["ok"] == true);
    let events = receiver.events();
    let different: std::collections::BTreeSet<_> =
        events.iter().map(|event| event.event_id.clone()).collect();
    assert_eq!((events.len(), different.len()), (60, 20));
    assert!(!events.is_sorted_by_key(|event| event.timestamp_ms));
}

#[tokio::test]
async fn an_answer_that_is_no_success_is_told_and_fails_the_run() {
    let receiver = Receiver::start(|number| number % 3 == 0).await;
    let ran = run(&["simulate", "--count", "9", "--url", &receiver.url()], &KEYS)
        .await
        .expect(1);
    assert!(
        ran.stdout.contains("503") && ran.stderr.contains("3 of 9 requests were not stored"),
        "{ran:?}"
    );
    let other = [("PORCHLIGHT_SIGNING_KEYS", "test=another")];
    let ran = run(&["simulate", "--url", &receiver.url()], &other)
        .await
        .expect(1);
    assert!(
        ran.stderr.contains("401") && ran.stderr.contains("--key-name"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_has_its_own_exit_code() {
    let free = porchlight_testbed::free_port();
    let url = format!("http://127.0.0.1:{free}/hook");
    let ran = run(&["simulate", "--count", "3", "--url", &url], &KEYS)
        .await
        .expect(69);
    assert!(
        ran.stdout.contains("cannot connect") && ran.stderr.contains("nothing answers at"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn a_file_is_sent_as_it_is() {
    let receiver = Receiver::start(|_| false).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bodies");
    let (_, sample) = porchlight_event::sample::SAMPLES[0];
    std::fs::write(&path, sample).unwrap();
    run(
        &[
            "simulate",
            "--from-file",
            path.to_str().unwrap(),
            "--url",
            &receiver.url(),
        ],
        &KEYS,
    )
    .await
    .expect(0);
    assert_eq!(receiver.bodies.lock().unwrap()[0], sample.as_bytes());
}

#[tokio::test]
async fn a_dry_run_prints_bodies_that_verify_and_sends_none() {
    let receiver = Receiver::start(|_| false).await;
    let arguments = ["simulate", "--dry-run", "--count", "4", "--url", &receiver.url()];
    let ran = run(&arguments, &KEYS).await.expect(0);
    let keys = SigningKeys::parse_list("test=key").unwrap();
    assert_eq!(ran.stdout.lines().count(), 4);
    for line in ran.stdout.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| line[name].as_str().unwrap().as_bytes().to_vec();
        assert!(keys.verify(&text("x_signature"), &text("body")).is_ok());
    }
    assert!(receiver.events().is_empty() && !ran.stdout.contains("\"key\""));
}

#[tokio::test]
async fn the_rate_is_kept() {
    let receiver = Receiver::start(|_| false).await;
    let arguments = [
        "simulate",
        "--count",
        "21",
        "--rate",
        "100",
        "--json",
        "--url",
        &receiver.url(),
    ];
    let summary = run(&arguments, &KEYS).await.expect(0).json();
    assert!(summary["seconds"].as_f64().unwrap() >= 0.2, "{summary}");
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_crash() {
    let mut command = command(&["simulate", "--dry-run", "--count", "100000"], &KEYS);
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = tokio::task::spawn_blocking(move || child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
