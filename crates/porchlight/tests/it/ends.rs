//! Both ends of a move, and a standalone's whole life to move between them.
//!
//! It judges nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use porchlight_broker::BrokerUrls;
use porchlight_device::ledger::DeviceFilter;
use porchlight_device::{Decision, News, Registration};
use porchlight_event::queue::{DeadLetter, Origin, RetryTier};
use porchlight_event::sample::Sample;
use porchlight_event::{Envelope, RingEvent};
use porchlight_journal::{Journal, JournalConfig, LedgerConfig, Role};
use porchlight_ledger::Ledger;
use porchlight_queue::{DeadLetters, Deadlines, Queue};
use porchlight_store::{Store, StoreConfig};
use porchlight_testbed::{RabbitMq, Redis, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tool::{Ran, run};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A standalone's directory that nobody holds.
pub(crate) struct Dir {
    pub(crate) folder: TempDir,
}

/// RabbitMQ and Redis.
pub(crate) struct Servers {
    pub(crate) node: &'static RabbitMq,
    pub(crate) vhost: String,
    pub(crate) amqp: String,
    pub(crate) redis: Redis,
}

impl Dir {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn file(&self) -> String {
        self.folder.path().join("moved.jsonl").display().to_string()
    }

    pub(crate) fn hold(&self) -> Journal {
        Journal::open(JournalConfig::new(self.path()), Role::Daemon).unwrap()
    }

    pub(crate) fn look(&self) -> Ledger {
        ledger_in(&Journal::open(JournalConfig::new(self.path()), Role::Tool).unwrap())
    }

    pub(crate) fn flags(&self) -> Vec<String> {
        vec!["--data-dir".to_owned(), self.path().display().to_string()]
    }

    /// Does something as the daemon would.
    pub(crate) async fn with<T>(&self, work: impl AsyncFnOnce(&Ledger, &Queue) -> T) -> T {
        let journal = self.hold();
        let queue = Queue::Sqlite(porchlight_journal::Queue::new(&journal));
        let done = work(&ledger_in(&journal), &queue).await;
        drop(queue);
        journal.close(PATIENCE).await;
        done
    }
}

impl Servers {
    pub(crate) async fn start() -> Self {
        let node = RabbitMq::shared().await;
        let vhost = node.vhost().await.unwrap();
        Self {
            amqp: node.url_for_vhost(&vhost),
            node,
            vhost,
            redis: Redis::start().await.unwrap(),
        }
    }

    pub(crate) fn flags(&self) -> Vec<String> {
        let flags = ["--amqp-url", &self.amqp, "--redis-url", &self.redis.url()];
        flags.map(str::to_owned).to_vec()
    }

    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::Redis(Store::connect(&StoreConfig::new(self.redis.url())).unwrap())
    }

    pub(crate) fn urls(&self) -> BrokerUrls {
        BrokerUrls::parse(&self.amqp).unwrap()
    }

    pub(crate) async fn ready(&self, queue: &str) -> u64 {
        self.node.queue(&self.vhost, queue).await.unwrap().ready
    }

    pub(crate) async fn wait_for_ready(&self, queue: &str, wanted: u64) {
        let look = async || match self.ready(queue).await {
            ready if ready == wanted => Ok(()),
            ready => Err(format!("{ready} ready")),
        };
        wait_for(&format!("{wanted} in {queue}"), PATIENCE, look)
            .await
            .unwrap();
    }
}

pub(crate) fn ledger_in(journal: &Journal) -> Ledger {
    Ledger::Sqlite(porchlight_journal::Ledger::new(
        journal.clone(),
        LedgerConfig::default(),
    ))
}

pub(crate) async fn export(flags: &[String], file: &str, more: &[&str]) -> Ran {
    let arguments: Vec<&str> = ["export", "--json", "--to", file]
        .into_iter()
        .chain(flags.iter().map(String::as_str))
        .chain(more.iter().copied())
        .collect();
    run(&arguments, &[]).await
}

pub(crate) async fn import(flags: &[String], file: &str, more: &[&str]) -> Ran {
    let arguments: Vec<&str> = ["import", "--json", "--from", file]
        .into_iter()
        .chain(flags.iter().map(String::as_str))
        .chain(more.iter().copied())
        .collect();
    run(&arguments, &[]).await
}

pub(crate) fn body(event_type: &str, device_id: &str, account_id: &str, at: i64) -> String {
    let request_id = format!("{device_id}-{event_type}-{at}");
    let sample = Sample {
        event_type,
        device_id,
        account_id,
        timestamp_ms: at,
        sent_at_ms: at,
        request_id: &request_id,
    };
    String::from_utf8(sample.body()).unwrap()
}

pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

pub(crate) async fn take(
    ledger: &Ledger,
    event_type: &str,
    device: &str,
    account: &str,
    at: i64,
) -> Decision {
    let event = RingEvent::parse(body(event_type, device, account, at).as_bytes()).unwrap();
    let news = News::new(&event, at).unwrap();
    ledger.apply_batch(0, &[news], now_ms()).await.remove(0).unwrap()
}

pub(crate) async fn register(ledger: &Ledger, device: &str, operation: &str) {
    let registration = Registration {
        operation_id: operation.to_owned(),
        account_id: None,
        kind: "snapshot".to_owned(),
        params: r#"{ "every": "night", "exact": 12345678901234567890.0 }"#.to_owned(),
    };
    ledger.register(device, &registration, now_ms()).await.unwrap();
}

pub(crate) fn letter(origin: Origin, number: i64, body: &[u8], stage: Option<&str>) -> DeadLetter {
    let mut envelope = Envelope::bare(Bytes::copy_from_slice(body));
    envelope.received_at_ms = Some(number);
    envelope.key_name = Some("ring".to_owned());
    envelope.signature = Some("sha256=00".to_owned());
    envelope.replay = 2;
    DeadLetter {
        envelope,
        origin,
        routing_key: if origin == Origin::Event {
            ""
        } else {
            "pause.snapshot"
        }
        .to_owned(),
        reason: if stage.is_some() {
            "not_json"
        } else {
            "delivery_limit"
        }
        .to_owned(),
        stage: stage.map(str::to_owned),
        detail: stage.map(|_| "a test wants it so".to_owned()),
        dead_at_ms: Some(1_771_025_567_000 + number),
        deaths: Vec::new(),
        delivery_count: 0,
        headers: Vec::new(),
    }
}

/// Devices in every status and operations in every state, commands owed and delivered, letters, waiting events.
pub(crate) async fn live(ledger: &Ledger, queue: &Queue) {
    for device in [
        "online", "offline", "back", "running", "removed", "moved", "fenced",
    ] {
        take(ledger, "device_online", device, "a", 10).await;
        register(ledger, device, "nightly").await;
    }
    take(ledger, "motion_detected", "unknown\0\u{1f600}", "a", 10).await;
    take(ledger, "device_offline", "offline", "a", 20).await;
    for device in ["back", "running"] {
        let paused = take(ledger, "device_offline", device, "a", 20).await;
        ledger.confirm(0, &paused.commands).await.remove(0).unwrap();
        let resumed = take(ledger, "device_online", device, "a", 30).await;
        if device == "running" {
            ledger.confirm(0, &resumed.commands).await.remove(0).unwrap();
        }
    }
    take(ledger, "device_removed", "removed", "a", 40).await;
    take(ledger, "device_online", "moved", "b", 40).await;
    take(ledger, "device_online", "fenced", "c", 40).await;
    take(ledger, "app_integration_removed", "-", "c", 50).await;
    let deadlines = || Deadlines::within(PATIENCE);
    for letter in [
        letter(Origin::Event, 1, b"\xff\x00 not JSON", Some("read")),
        letter(Origin::Event, 2, b"{}", None),
        letter(Origin::Callback, 3, br#"{"id":"x"}"#, Some("callback")),
        letter(Origin::Command, 4, br#"{"id":"y"}"#, Some("consumer")),
    ] {
        assert!(queue.bring_letter(&letter, deadlines()).await.unwrap());
    }
    let new = Envelope::bare(Bytes::from(body("device_offline", "online", "a", 60)));
    queue.accept(&new, deadlines()).await.unwrap();
    let mut later = Envelope::bare(Bytes::from(body("device_online", "offline", "a", 99)));
    later.attempt = 1;
    queue
        .put_off(&later, RetryTier::TenMinutes, deadlines())
        .await
        .unwrap();
}

/// Everything of the ledger that is shown.
pub(crate) async fn shown(ledger: &Ledger) -> Value {
    let (mut ids, mut cursor) = (BTreeSet::new(), None);
    loop {
        let page = ledger
            .devices(&DeviceFilter::default(), cursor.as_deref(), 500)
            .await
            .unwrap();
        ids.extend(page.devices.into_iter().map(|device| device.device_id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let mut devices = Vec::new();
    for id in ids {
        devices.push(serde_json::to_value(ledger.device_view(&id).await.unwrap().unwrap()).unwrap());
    }
    let counts = format!("{:?}", ledger.counts().await.unwrap());
    json!({ "devices": devices, "counts": counts, "owed": ledger.backlog().await.unwrap().commands })
}

/// Everything of the letters that matters, in no order.
pub(crate) async fn letters(of: &DeadLetters) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let visit = |letter: DeadLetter| {
        let envelope = &letter.envelope;
        let facts = (
            letter.origin,
            letter.routing_key,
            letter.reason,
            letter.stage,
            letter.detail,
        );
        let more = (
            letter.dead_at_ms,
            envelope.replay,
            envelope.received_at_ms,
            &envelope.signature,
        );
        all.insert(format!(
            "{} {:?} {facts:?} {more:?}",
            envelope.message_id, envelope.body
        ));
        std::ops::ControlFlow::Continue(())
    };
    let listed = of.list(usize::MAX, visit).await.unwrap();
    assert_eq!(listed.ready, all.len());
    all
}
