//! The binary as a person runs it: signals, exit codes, keys that change, and what it says of its ledger.

use std::process::Command;
use std::time::Instant;

use bytes::Bytes;
use porchlight_broker::{BrokerUrls, Publisher, PublisherConfig};
use porchlight_event::Envelope;

use porchlight_testbed::{Daemon, Signal, free_port, wait_for};
use tokio_util::sync::CancellationToken;

use crate::harness::{Form, PATIENCE, body, keys, now_ms};
use crate::servers::Bench;

const TOKEN: &str = "quite-a-secret-token";

struct Run {
    daemon: Daemon,
    port: u16,
}

impl Run {
    /// The topology that a bench declares has other times for its tiers than the binary wants, so it gets a virtual
    /// host of its own, and the bench's publisher is moved there.
    async fn start(bench: &mut Bench, variables: &[(&str, &str)]) -> Self {
        bench.vhost = bench.broker.vhost().await.unwrap();
        let (url, port) = (bench.broker.url_for_vhost(&bench.vhost), free_port());
        let daemon = Daemon::of("porchlight-worker")
            .env("PORCHLIGHT_AMQP_URL", &url)
            .env("PORCHLIGHT_REDIS_URL", bench.redis.url())
            .env("PORCHLIGHT_ADMIN_LISTEN", format!("127.0.0.1:{port}"))
            .env("PORCHLIGHT_ADMIN_TOKEN", TOKEN)
            .envs(variables.iter().copied())
            .start()
            .unwrap();
        let run = Self { daemon, port };
        let ready = run
            .daemon
            .ready(PATIENCE, async || match run.get("/readyz").await {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            });
        ready.await.unwrap();
        let config = PublisherConfig::new(BrokerUrls::parse(&url).unwrap(), "test");
        bench.publisher = Publisher::start(config, CancellationToken::new());
        bench
            .publisher
            .state()
            .wait_for(|state| state.is_ready())
            .await
            .unwrap();
        run
    }

    async fn get(&self, path: &str) -> Result<(u16, String), String> {
        let answer = porchlight_testbed::http::get(([127, 0, 0, 1], self.port).into(), path).await;
        answer
            .map(|answer| (answer.status, answer.text()))
            .map_err(|error| error.to_string())
    }

    async fn shows(&self, line: &str) {
        let shown = wait_for(line, PATIENCE, async || {
            let (_, page) = self.get("/metrics").await?;
            if page.lines().any(|shown| shown == line) {
                Ok(())
            } else {
                Err(page)
            }
        });
        shown.await.unwrap();
    }

    async fn logs(&self, words: &str) {
        let logged = wait_for(words, PATIENCE, async || {
            let log = self.daemon.logs();
            if log.contains(words) { Ok(()) } else { Err(log) }
        });
        logged.await.unwrap();
    }
}

#[tokio::test]
async fn it_ends_with_success_on_sigterm_and_never_shows_its_token() {
    let mut bench = Bench::start().await;
    let run = Run::start(&mut bench, &[]).await;
    let status = run.daemon.terminate(PATIENCE).await.unwrap();
    let log = run.daemon.logs();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("stopped cleanly") && !log.contains(TOKEN), "{log}");
}

#[test]
fn it_refuses_wrong_settings_with_code_64() {
    let output = Command::new(env!("CARGO_BIN_EXE_porchlight-worker"))
        .args(["--prefetch=1", "--settle=5"])
        .env("PORCHLIGHT_REDIS_URL", "http://user:hush@host")
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{shown}");
    assert!(
        shown.contains("3 settings are wrong") && !shown.contains("hush"),
        "{shown}"
    );
}

#[tokio::test]
async fn keys_are_read_again_on_sighup_and_when_their_file_changes() {
    let mut bench = Bench::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    std::fs::write(&file, "old=first-secret\n").unwrap();
    let variables = [("PORCHLIGHT_SIGNING_KEYS_FILE", file.to_str().unwrap())];
    let run = Run::start(&mut bench, &variables).await;
    let signed = |key: &str, device: &str| {
        let body = body("device_online", device, now_ms());
        Envelope {
            signature: Some(keys(key).iter().next().unwrap().sign(&body)),
            ..Envelope::bare(body)
        }
    };
    let applied = |count: usize| {
        format!("porchlight_worker_events_total{{type=\"device_online\",outcome=\"applied\"}} {count}")
    };
    bench.publish(&signed("old=first-secret", "d1")).await;
    run.shows(&applied(1)).await;
    bench.publish(&signed("new=second-secret", "d2")).await;
    run.shows("porchlight_worker_dead_letters_total{reason=\"bad_signature\"} 1")
        .await;

    std::fs::write(&file, "old=first-secret\nnew=second-secret\n").unwrap();
    run.daemon.signal(Signal::HangUp);
    run.logs("keys=\"old,new\"").await;
    bench.publish(&signed("new=second-secret", "d3")).await;
    run.shows(&applied(2)).await;

    // What cannot be used changes nothing, and says so without a word of its content.
    std::fs::write(&file, "only-a-secret\n").unwrap();
    run.logs("signing keys are unchanged").await;
    bench.publish(&signed("new=second-secret", "d4")).await;
    run.shows(&applied(3)).await;

    // Without a signal the change is noticed by itself.
    std::fs::write(&file, "new=second-secret\n").unwrap();
    run.logs("keys=\"new\"").await;
    bench.publish(&signed("old=first-secret", "d5")).await;
    run.shows("porchlight_worker_dead_letters_total{reason=\"bad_signature\"} 2")
        .await;
    assert!(run.daemon.terminate(PATIENCE).await.unwrap().success());
    assert!(!run.daemon.logs().contains("secret"), "{}", run.daemon.logs());
}

#[tokio::test]
async fn a_flood_of_poison_is_counted_whole_and_logged_in_part() {
    let mut bench = Bench::start().await;
    let run = Run::start(&mut bench, &[("PORCHLIGHT_PREFETCH_RAMP", "0s")]).await;
    let (began, count) = (Instant::now(), 400);
    bench
        .publish_all((0..count).map(|n| Bytes::from(format!("no event {n}"))))
        .await;
    run.shows(&format!(
        "porchlight_worker_dead_letters_total{{reason=\"not_json\"}} {count}"
    ))
    .await;
    let lines = run.daemon.logs().matches("event dead-lettered").count();
    let windows = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    assert!(
        lines <= 5 * windows && lines < count,
        "{lines} lines in {windows} s"
    );
    assert!(run.daemon.terminate(PATIENCE).await.unwrap().success());
}

#[tokio::test]
async fn it_warns_of_a_ledger_that_evicts_or_forgets() {
    let mut bench = Bench::start().await;
    for (name, value) in [("maxmemory-policy", "allkeys-lru"), ("appendonly", "no")] {
        bench.redis.command(&["CONFIG", "SET", name, value]).unwrap();
    }
    let run = Run::start(&mut bench, &[]).await;
    run.logs("evicts keys when its memory is full").await;
    run.logs("forgets all with a restart").await;
    assert!(run.daemon.terminate(PATIENCE).await.unwrap().success());
}
