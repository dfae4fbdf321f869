//! The spool: what the queue does not take is kept on the disk, answered 200, and handed over later.
//!
//! Whether anything is lost when the process is killed is shown with real processes, in the workspace's own tests.

use std::path::Path;
use std::time::{Duration, Instant};

use porchlight_ingress::settings::SpoolSettings;
use porchlight_ingress::{Settings, Spool};
use porchlight_journal::{Journal, JournalConfig, OpenError, Role};
use porchlight_service::stop::Drained;
use porchlight_testbed::http::{encode, get};
use porchlight_testbed::{RabbitMq, Relay, wait_for};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{BODY, Ingress, PATH, SOON, failed, signed, told};

/// Longer than a broker takes to declare quorum queues on a busy machine.
const BROKER_READY: Duration = Duration::from_secs(60);
/// No answer may take longer, whatever is broken.
const ANSWER_WITHIN: Duration = Duration::from_millis(4_500);
const QUEUE: &str = "porchlight.events";

/// A directory that keeps nobody waiting, where there is such a thing: a disk that is busy would use up the spool's part of
/// the time for an answer.
fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// A broker behind a network that can be broken, and a directory for the spool.
struct Stand {
    node: &'static RabbitMq,
    vhost: String,
    relay: Relay,
    directory: TempDir,
}

impl Stand {
    async fn new() -> Self {
        let node = RabbitMq::shared().await;
        Self {
            vhost: node.vhost().await.unwrap(),
            relay: Relay::start(node.address()).await.unwrap(),
            node,
            directory: in_memory(),
        }
    }

    async fn start(&self) -> Ingress {
        self.start_changed(&[], |_| {}).await
    }

    async fn start_changed(&self, flags: &[&str], change: impl FnOnce(&mut Settings)) -> Ingress {
        let url = RabbitMq::url_at(self.relay.address(), &self.vhost);
        let own = [
            "--signing-keys",
            "test=k1",
            "--amqp-url",
            &url,
            "--data-dir",
            self.directory.path().to_str().unwrap(),
        ];
        Ingress::start_changed(&[&own, flags].concat(), change).await
    }

    /// Nobody can reach the broker.
    fn away(&self) {
        self.relay.refuse(true);
        self.relay.cut();
    }

    async fn depth(&self) -> u64 {
        self.node
            .queue(&self.vhost, QUEUE)
            .await
            .map_or(0, |queue| queue.ready)
    }

    async fn has_depth(&self, count: u64) {
        wait_for("events in the queue", BROKER_READY, async || {
            match self.depth().await {
                depth if depth == count => Ok(()),
                depth => Err(format!("{depth} of {count}")),
            }
        })
        .await
        .unwrap();
    }
}

async fn readyz(ingress: &Ingress) -> (u16, Value) {
    let answer = get(ingress.admin, "/readyz").await.unwrap();
    (answer.status, answer.json().unwrap())
}

/// Waits until `/readyz` is answered so, and gives its body.
async fn is_ready(ingress: &Ingress, status: u16, looks: impl Fn(&Value) -> bool) -> Value {
    wait_for("another readiness", BROKER_READY, async || {
        let (now, body) = readyz(ingress).await;
        if now == status && looks(&body) {
            Ok(body)
        } else {
            Err(format!("{now} {body}"))
        }
    })
    .await
    .unwrap()
}

/// Without a note of the spool. That of an outage stays until an event is stored.
fn quiet(body: &Value) -> bool {
    let notes = body["notes"].as_array().map_or(&[][..], Vec::as_slice);
    notes.iter().all(|note| note["code"] != "spooling")
}

/// Waits until the ingress is connected and its spool is empty.
async fn is_at_rest(ingress: &Ingress) {
    is_ready(ingress, 200, quiet).await;
    ingress.counts("porchlight_ingress_spool_events 0").await;
    ingress
        .counts(r#"porchlight_ingress_spool_state{state="empty"} 1"#)
        .await;
}

fn event(n: u64) -> Vec<u8> {
    signed(format!(r#"{{"n":{n}}}"#).as_bytes())
}

async fn is_stored(ingress: &Ingress, request: &[u8]) {
    let began = Instant::now();
    let answer = ingress.send(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json().unwrap()["status"], "stored");
    assert!(began.elapsed() < ANSWER_WITHIN, "{:?}", began.elapsed());
}

#[tokio::test]
async fn events_are_kept_while_the_broker_is_away_and_handed_over_when_it_is_back() {
    let stand = Stand::new().await;
    let ingress = stand.start().await;
    is_at_rest(&ingress).await;
    is_stored(&ingress, &event(0)).await;
    stand.has_depth(1).await;
    ingress.counts("porchlight_ingress_spool_stored_total 0").await;

    stand.away();
    is_ready(&ingress, 200, |body| !quiet(body)).await;
    for n in 1..=100 {
        is_stored(&ingress, &event(n)).await;
    }
    ingress.counts("porchlight_ingress_spool_stored_total 100").await;
    ingress.counts("porchlight_ingress_spool_events 100").await;
    ingress
        .counts(r#"porchlight_ingress_requests_total{answer="200",cause="spooled"} 100"#)
        .await;
    ingress
        .counts(r#"porchlight_ingress_spool_state{state="holding"} 1"#)
        .await;
    let body = is_ready(&ingress, 200, |body| {
        body["notes"][0]["oldest_age_seconds"].as_u64() > Some(0)
    })
    .await;
    assert_eq!(body["status"], "ready");
    let note = &body["notes"][0];
    assert_eq!(
        (&note["code"], &note["events"]),
        (&"spooling".into(), &100.into())
    );
    assert!(
        note["bytes"].as_u64() > Some(0) && note["bytes_max"] == 1 << 30,
        "{note}"
    );

    stand.relay.pass();
    stand.has_depth(101).await;
    is_at_rest(&ingress).await;
    ingress
        .counts("porchlight_ingress_spool_handed_over_total 100")
        .await;
    is_stored(&ingress, &event(101)).await;
    stand.has_depth(102).await;
    ingress.counts("porchlight_ingress_spool_stored_total 100").await;
}

#[tokio::test]
async fn what_is_not_signed_never_reaches_the_spool() {
    let stand = Stand::new().await;
    stand.away();
    let ingress = stand.start().await;
    let wrong = encode(
        "POST",
        PATH,
        &[("X-Signature", &format!("sha256={}", "0".repeat(64)))],
        BODY,
    );
    assert_eq!(
        told(&ingress.send(&wrong).await),
        failed(401, "signature_mismatch")
    );
    let bare = encode("POST", PATH, &[], BODY);
    assert_eq!(told(&ingress.send(&bare).await), failed(401, "signature_missing"));
    is_stored(&ingress, &signed(BODY)).await;
    ingress.counts("porchlight_ingress_spool_events 1").await;
    ingress.counts("porchlight_ingress_spool_stored_total 1").await;
}

#[tokio::test]
async fn a_full_spool_is_answered_503_and_takes_events_again_once_it_is_handed_over() {
    let stand = Stand::new().await;
    stand.away();
    let ingress = stand
        .start_changed(&[], |settings| {
            settings.spool.as_mut().unwrap().bytes_max = 2 << 20;
        })
        .await;
    let large = |n: u64| signed(format!("{n}{}", "x".repeat(100_000)).as_bytes());
    let mut stored = 0;
    let full = loop {
        let answer = ingress.send(&large(stored)).await;
        if answer.status != 200 {
            break answer;
        }
        stored += 1;
        assert!(stored < 100, "it never is full");
    };
    assert_eq!(told(&full), failed(503, "spool_full"));
    assert_eq!(full.header("retry-after"), Some("1"));
    assert!(stored > 10, "{stored}");
    let body = is_ready(&ingress, 503, |_| true).await;
    assert_eq!(body["reasons"][0]["code"], "spool_full", "{body}");
    ingress
        .counts(r#"porchlight_ingress_spool_state{state="full"} 1"#)
        .await;

    stand.relay.pass();
    stand.has_depth(stored).await;
    is_at_rest(&ingress).await;
    stand.away();
    is_ready(&ingress, 200, |body| !quiet(body)).await;
    is_stored(&ingress, &large(stored)).await;
    ingress.counts("porchlight_ingress_spool_events 1").await;
}

#[tokio::test]
async fn a_broker_that_stops_confirming_costs_time_but_no_event() {
    let stand = Stand::new().await;
    let flags = ["--answer-timeout", "2s", "--head-timeout", "2s"];
    let ingress = stand.start_changed(&flags, |_| {}).await;
    is_at_rest(&ingress).await;
    stand.relay.stall();
    is_stored(&ingress, &event(0)).await;
    ingress.counts("porchlight_ingress_spool_events 1").await;
    // With the time for an answer nearly used up, the spool still gets its part.
    let ingress_of_little_time = {
        let other = in_memory();
        let path = other.path().to_str().unwrap().to_owned();
        let flags = ["--answer-timeout", "1200ms", "--head-timeout", "1200ms"];
        let change = move |settings: &mut Settings| settings.spool.as_mut().unwrap().dir = path.into();
        (stand.start_changed(&flags, change).await, other)
    };
    is_stored(&ingress_of_little_time.0, &event(1)).await;
    stand.relay.pass();
    is_at_rest(&ingress).await;
    is_at_rest(&ingress_of_little_time.0).await;
    // The first copy may have been stored, too.
    wait_for("both events", BROKER_READY, async || match stand.depth().await {
        2..=3 => Ok(()),
        other => Err(other.to_string()),
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn events_that_the_queue_refuses_or_returns_are_kept_and_handed_over() {
    let stand = Stand::new().await;
    let ingress = stand.start_changed(&["--shutdown-grace", "100ms"], |_| {}).await;
    is_at_rest(&ingress).await;
    let limit = r#"{"max-length":1}"#;
    stand
        .node
        .set_policy(&stand.vhost, "small", "^porchlight\\.events$", limit)
        .await
        .unwrap();
    let mut sent = 0;
    wait_for("a refused event", BROKER_READY, async || {
        is_stored(&ingress, &event(sent)).await;
        sent += 1;
        let shown = get(ingress.admin, "/metrics").await.unwrap().text();
        let refused = shown
            .lines()
            .any(|line| line.starts_with("porchlight_ingress_spool_stored_total ") && !line.ends_with(" 0"));
        if refused { Ok(()) } else { Err("stored".to_owned()) }
    })
    .await
    .unwrap();
    assert!(stand.depth().await < sent);
    // A stop in the midst of being refused forgets nothing of what was in hand.
    ingress.stop.cancel();
    assert!(matches!(ingress.ended.await.unwrap(), Drained::Met { .. }));
    let ingress = stand.start().await;
    is_ready(&ingress, 200, |body| {
        body["notes"][0]["events"].as_u64() > Some(0)
    })
    .await;
    stand.node.clear_policy(&stand.vhost, "small").await.unwrap();
    is_at_rest(&ingress).await;
    stand.has_depth(sent).await;
}

#[tokio::test]
async fn what_is_left_at_a_stop_is_handed_over_after_the_next_start() {
    let stand = Stand::new().await;
    stand.away();
    let first = stand.start_changed(&["--shutdown-grace", "60s"], |_| {}).await;
    for n in 0..5 {
        is_stored(&first, &event(n)).await;
    }
    first.stop.cancel();
    let began = Instant::now();
    assert!(matches!(first.ended.await.unwrap(), Drained::Met { .. }));
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "a broker that is away is not waited for"
    );
    stand.relay.pass();
    let second = stand.start().await;
    is_at_rest(&second).await;
    stand.has_depth(5).await;
    second
        .counts("porchlight_ingress_spool_handed_over_total 5")
        .await;
}

#[tokio::test]
async fn a_stop_hands_over_what_there_is_while_the_broker_takes_it() {
    let stand = Stand::new().await;
    stand.away();
    let ingress = stand.start_changed(&["--shutdown-grace", "60s"], |_| {}).await;
    for n in 0..300 {
        is_stored(&ingress, &event(n)).await;
    }
    stand.relay.pass();
    ingress
        .counts(r#"porchlight_ingress_queue_state{state="ready"} 1"#)
        .await;
    ingress.stop.cancel();
    assert!(matches!(ingress.ended.await.unwrap(), Drained::Met { .. }));
    stand.has_depth(300).await;
}

fn open(directory: &Path) -> Result<Spool, String> {
    let settings = SpoolSettings {
        dir: directory.to_owned(),
        bytes_max: 1 << 30,
    };
    let words = |error: &dyn std::error::Error| format!("{error}: {}", error.source().unwrap());
    Spool::open(&settings).map_err(|error| words(&error))
}

#[tokio::test]
async fn events_beyond_a_full_window_are_kept_while_the_broker_confirms_none() {
    let stand = Stand::new().await;
    let flags = [
        "--publish-window",
        "1",
        "--answer-timeout",
        "2s",
        "--head-timeout",
        "2s",
    ];
    let ingress = stand.start_changed(&flags, |_| {}).await;
    is_at_rest(&ingress).await;
    stand.relay.stall();
    let (first, second, third) = (event(0), event(1), event(2));
    tokio::join!(
        is_stored(&ingress, &first),
        is_stored(&ingress, &second),
        is_stored(&ingress, &third)
    );
    ingress.counts("porchlight_ingress_spool_events 3").await;
    stand.relay.pass();
    is_at_rest(&ingress).await;
}

#[tokio::test]
async fn a_directory_of_a_standalone_is_no_spool_and_the_other_way_round() {
    let directory = tempfile::tempdir().unwrap();
    let config = JournalConfig::new(directory.path());
    Journal::open(config, Role::Daemon).unwrap().close(SOON).await;
    let refused = open(directory.path()).unwrap_err();
    assert!(refused.contains("is a standalone's data"), "{refused}");

    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).unwrap());
    for role in [Role::Daemon, Role::Tool] {
        let refused = wait_for("the lock to be let go", SOON, async || {
            match Journal::open(JournalConfig::new(directory.path()), role) {
                Err(OpenError::InUse { .. }) => Err("in use".to_owned()),
                other => Ok(other.unwrap_err().to_string()),
            }
        });
        let refused = refused.await.unwrap();
        assert!(refused.contains("is an ingress's spool"), "{refused}");
    }
}

#[tokio::test]
async fn two_ingresses_do_not_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let _first = open(directory.path()).unwrap();
    let second = open(directory.path()).unwrap_err();
    assert!(second.contains("in use by another porchlight"), "{second}");
    assert!(second.contains(directory.path().to_str().unwrap()), "{second}");
}

#[tokio::test]
async fn a_spool_that_cannot_be_read_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("porchlight.db");
    let nonsense = "nonsense".repeat(1000);
    std::fs::write(&file, &nonsense).unwrap();
    let refused = open(directory.path()).unwrap_err();
    assert!(refused.contains("is not a journal of porchlight"), "{refused}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), nonsense);
}
