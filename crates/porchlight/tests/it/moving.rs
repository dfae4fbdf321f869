//! `export` and `import` between a directory and private servers: up, back, twice, cut off and changed.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use porchlight_broker::{BrokerUrls, Consumer, ConsumerConfig, Publisher, PublisherConfig, QueueState};
use porchlight_device::command::command_id;
use porchlight_device::ledger::DeviceFilter;
use porchlight_device::{Action, Decision, News, Outcome, Registration};
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
use tokio_util::sync::CancellationToken;

use crate::tool::{Ran, command, run};

const PATIENCE: Duration = Duration::from_secs(60);

/// A standalone's directory that nobody holds.
struct Dir {
    folder: TempDir,
}

/// RabbitMQ and Redis.
struct Servers {
    node: &'static RabbitMq,
    vhost: String,
    amqp: String,
    redis: Redis,
}

impl Dir {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn file(&self) -> String {
        self.folder.path().join("moved.jsonl").display().to_string()
    }

    fn hold(&self) -> Journal {
        Journal::open(JournalConfig::new(self.path()), Role::Daemon).unwrap()
    }

    fn look(&self) -> Ledger {
        ledger_in(&Journal::open(JournalConfig::new(self.path()), Role::Tool).unwrap())
    }

    fn flags(&self) -> Vec<String> {
        vec!["--data-dir".to_owned(), self.path().display().to_string()]
    }

    /// Does something as the daemon would.
    async fn with<T>(&self, work: impl AsyncFnOnce(&Ledger, &Queue) -> T) -> T {
        let journal = self.hold();
        let queue = Queue::Sqlite(porchlight_journal::Queue::new(&journal));
        let done = work(&ledger_in(&journal), &queue).await;
        drop(queue);
        journal.close(PATIENCE).await;
        done
    }
}

impl Servers {
    async fn start() -> Self {
        let node = RabbitMq::shared().await;
        let vhost = node.vhost().await.unwrap();
        Self {
            amqp: node.url_for_vhost(&vhost),
            node,
            vhost,
            redis: Redis::start().await.unwrap(),
        }
    }

    fn flags(&self) -> Vec<String> {
        let flags = ["--amqp-url", &self.amqp, "--redis-url", &self.redis.url()];
        flags.map(str::to_owned).to_vec()
    }

    fn ledger(&self) -> Ledger {
        Ledger::Redis(Store::connect(&StoreConfig::new(self.redis.url())).unwrap())
    }

    fn urls(&self) -> BrokerUrls {
        BrokerUrls::parse(&self.amqp).unwrap()
    }

    async fn ready(&self, queue: &str) -> u64 {
        self.node.queue(&self.vhost, queue).await.unwrap().ready
    }
}

fn ledger_in(journal: &Journal) -> Ledger {
    Ledger::Sqlite(porchlight_journal::Ledger::new(
        journal.clone(),
        LedgerConfig::default(),
    ))
}

async fn export(flags: &[String], file: &str, more: &[&str]) -> Ran {
    let arguments: Vec<&str> = ["export", "--json", "--to", file]
        .into_iter()
        .chain(flags.iter().map(String::as_str))
        .chain(more.iter().copied())
        .collect();
    run(&arguments, &[]).await
}

async fn import(flags: &[String], file: &str, more: &[&str]) -> Ran {
    let arguments: Vec<&str> = ["import", "--json", "--from", file]
        .into_iter()
        .chain(flags.iter().map(String::as_str))
        .chain(more.iter().copied())
        .collect();
    run(&arguments, &[]).await
}

fn body(event_type: &str, device_id: &str, account_id: &str, at: i64) -> String {
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

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

async fn take(ledger: &Ledger, event_type: &str, device: &str, account: &str, at: i64) -> Decision {
    let event = RingEvent::parse(body(event_type, device, account, at).as_bytes()).unwrap();
    let news = News::new(&event, at).unwrap();
    ledger.apply_batch(0, &[news], now_ms()).await.remove(0).unwrap()
}

async fn register(ledger: &Ledger, device: &str, operation: &str) {
    let registration = Registration {
        operation_id: operation.to_owned(),
        account_id: None,
        kind: "snapshot".to_owned(),
        params: r#"{ "every": "night", "exact": 12345678901234567890.0 }"#.to_owned(),
    };
    ledger.register(device, &registration, now_ms()).await.unwrap();
}

fn letter(origin: Origin, number: i64, body: &[u8], stage: Option<&str>) -> DeadLetter {
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
async fn live(ledger: &Ledger, queue: &Queue) {
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
async fn shown(ledger: &Ledger) -> Value {
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
async fn letters(of: &DeadLetters) -> BTreeSet<String> {
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

#[tokio::test]
async fn everything_moves_up_and_back_and_stays_the_same() {
    let (below, servers, back) = (Dir::new(), Servers::start().await, Dir::new());
    below.with(live).await;
    let (devices, dead) = below
        .with(async |ledger, queue| {
            let Queue::Sqlite(rows) = queue else {
                panic!("no rows")
            };
            (
                shown(ledger).await,
                letters(&DeadLetters::Sqlite(rows.clone())).await,
            )
        })
        .await;
    assert_eq!((devices["devices"].as_array().unwrap().len(), dead.len()), (8, 4));

    let written = export(&below.flags(), &below.file(), &[]).await.expect(0).json();
    for (what, count) in [("accounts", 1), ("devices", 8), ("letters", 4), ("events", 2)] {
        assert_eq!(written[what], count, "{what} {written}");
    }
    assert!(written["marks"].as_u64().unwrap() > 20, "{written}");
    let mode = std::fs::metadata(below.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let planned = import(&servers.flags(), &below.file(), &[])
        .await
        .expect(0)
        .json();
    assert_eq!(
        (&planned["dry_run"], &planned["devices_known"]),
        (&true.into(), &0.into())
    );
    assert_eq!(shown(&servers.ledger()).await["devices"], json!([]));

    let up = import(&servers.flags(), &below.file(), &["--yes"])
        .await
        .expect(0)
        .json();
    assert_eq!((&up["dry_run"], &up["letters_known"]), (&false.into(), &0.into()));
    assert_eq!(shown(&servers.ledger()).await, devices);
    let in_rabbitmq = DeadLetters::in_rabbitmq(servers.urls(), "test");
    assert_eq!(letters(&in_rabbitmq).await, dead);
    assert_eq!(
        (
            servers.ready("porchlight.events").await,
            servers.ready("porchlight.retry.10m").await
        ),
        (1, 1)
    );

    // Again: nothing of it changes, but that the events wait twice.
    let again = import(&servers.flags(), &below.file(), &["--yes"])
        .await
        .expect(0)
        .json();
    assert_eq!(
        (&again["letters_known"], &again["commands_newly_owed"]),
        (&4.into(), &0.into())
    );
    assert_eq!(shown(&servers.ledger()).await, devices);
    assert_eq!(letters(&in_rabbitmq).await, dead);
    let planned = import(&servers.flags(), &below.file(), &[])
        .await
        .expect(0)
        .json();
    assert_eq!(planned["devices_known"], 8);

    // Waiting events cannot be looked at in RabbitMQ.
    let waiting = export(&servers.flags(), &back.file(), &[]).await.expect(1);
    assert!(waiting.stderr.contains("events wait"), "{waiting:?}");
    assert!(!Path::new(&back.file()).exists());
    let without = ["--without-waiting-events"];
    let written = export(&servers.flags(), &back.file(), &without)
        .await
        .expect(0)
        .json();
    assert!(
        written["warnings"][0].as_str().unwrap().contains("stay there"),
        "{written}"
    );
    for queue in ["porchlight.events", "porchlight.retry.10m"] {
        servers.node.purge(&servers.vhost, queue).await.unwrap();
    }
    let written = export(&servers.flags(), &back.file(), &["--force"])
        .await
        .expect(0)
        .json();
    assert_eq!(written["warnings"], json!([]));

    for known in [0, 4] {
        let down = import(&back.flags(), &back.file(), &["--yes"])
            .await
            .expect(0)
            .json();
        assert_eq!(down["letters_known"], known);
    }
    back.with(async |ledger, queue| {
        assert_eq!(shown(ledger).await, devices);
        let Queue::Sqlite(rows) = queue else {
            panic!("no rows")
        };
        assert_eq!(letters(&DeadLetters::Sqlite(rows.clone())).await, dead);
        goes_on(ledger).await;
    })
    .await;
    goes_on(&servers.ledger()).await;
}

/// What was seen before is a duplicate, and the device that comes back is resumed once, under the right identity.
async fn goes_on(ledger: &Ledger) {
    let seen = take(ledger, "device_offline", "offline", "a", 20).await;
    assert_eq!(seen.outcome, Outcome::Duplicate);
    let back = take(ledger, "device_online", "offline", "a", 70).await;
    let ids: Vec<String> = back.commands.iter().map(porchlight_device::Command::id).collect();
    assert_eq!(ids, [command_id("offline", "nightly", 1, Action::Resume)]);
    assert!(
        take(ledger, "device_online", "offline", "a", 71)
            .await
            .commands
            .is_empty()
    );
    let fenced = take(ledger, "device_online", "of-c", "c", 45).await;
    assert_eq!(fenced.outcome, Outcome::Refused);
}

#[tokio::test]
async fn a_file_that_was_cut_or_changed_is_refused_and_nothing_happens() {
    let (from, to) = (Dir::new(), Dir::new());
    from.with(live).await;
    export(&from.flags(), &from.file(), &[]).await.expect(0);
    let whole = std::fs::read(from.file()).unwrap();
    let text = String::from_utf8(whole.clone()).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let without = |line: usize| {
        let kept = lines.iter().enumerate().filter(|(number, _)| *number != line);
        kept.map(|(_, line)| *line).collect::<String>().into_bytes()
    };
    let last = lines.len() - 1;
    let strange = format!("{}{{\"line\":\"spaceship\"}}\n{}", lines[0], lines[1..].concat());
    let newer = text.replacen("\"version\":\"1.0\"", "\"version\":\"2.0\"", 1);
    let more = text.replacen("\"generation_floor\":", "\"colour\":1,\"generation_floor\":", 1);
    let bad = [
        (whole[..whole.len() / 2].to_vec(), ""),
        (without(last), "ends too early"),
        (whole[..whole.len() - 1].to_vec(), "ends too early"),
        (without(2), "sum"),
        (flipped(whole.len() / 3), ""),
        (flipped(whole.len() - 20), ""),
        ([&whole[..], b"\n"].concat(), "follows"),
        (strange.into_bytes(), "spaceship"),
        (newer.into_bytes(), "version 2.0"),
        (more.into_bytes(), "cannot be read"),
        (b"hello\n".to_vec(), "not an export"),
        (Vec::new(), "not an export"),
    ];
    for (number, (bytes, word)) in bad.into_iter().enumerate() {
        std::fs::write(to.file(), bytes).unwrap();
        let refused = import(&to.flags(), &to.file(), &["--yes"]).await.expect(64);
        let told = refused.stderr.contains("nothing was changed") && refused.stderr.contains(word);
        assert!(told, "{number} {word} {refused:?}");
        assert!(!to.path().exists(), "{number}");
    }
    std::fs::write(to.file(), whole).unwrap();
    import(&to.flags(), &to.file(), &["--yes"]).await.expect(0);
}

#[tokio::test]
async fn a_directory_whose_daemon_runs_is_left_alone() {
    let dir = Dir::new();
    dir.with(live).await;
    export(&dir.flags(), &dir.file(), &[]).await.expect(0);
    let journal = dir.hold();
    let other = dir.folder.path().join("other.jsonl").display().to_string();
    for ran in [
        export(&dir.flags(), &other, &[]).await,
        import(&dir.flags(), &dir.file(), &["--yes"]).await,
    ] {
        let ran = ran.expect(69);
        assert!(
            ran.stderr.contains("in use") && ran.stderr.contains("stop its standalone"),
            "{ran:?}"
        );
    }
    assert!(!Path::new(&other).exists());
    // A look is no harm.
    let planned = import(&dir.flags(), &dir.file(), &[]).await.expect(0).json();
    assert_eq!(planned["devices_known"], 8);
    journal.close(PATIENCE).await;
}

#[tokio::test]
async fn a_file_that_is_there_is_not_overwritten_and_none_is_left_half_written() {
    let dir = Dir::new();
    let none = export(&dir.flags(), &dir.file(), &[]).await.expect(64);
    assert!(none.stderr.contains("--data-dir"), "{none:?}");
    dir.with(async |ledger, _| register(ledger, "d", "o").await).await;
    std::fs::write(dir.file(), "mine").unwrap();
    let refused = export(&dir.flags(), &dir.file(), &[]).await.expect(64);
    assert!(refused.stderr.contains("--force"), "{refused:?}");
    assert_eq!(std::fs::read(dir.file()).unwrap(), b"mine");
    let nowhere = dir.folder.path().join("no/such/file").display().to_string();
    export(&dir.flags(), &nowhere, &[]).await.expect(1);
    export(&dir.flags(), &dir.file(), &["--force"]).await.expect(0);
    let names: BTreeSet<String> = std::fs::read_dir(dir.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, BTreeSet::from(["data", "moved.jsonl"].map(str::to_owned)));
}

#[tokio::test]
async fn workers_that_run_are_told_of() {
    let (servers, dir) = (Servers::start().await, Dir::new());
    let consumer = Consumer::start(
        ConsumerConfig::new(servers.urls(), "test"),
        CancellationToken::new(),
    );
    let mut state = consumer.state();
    tokio::time::timeout(PATIENCE, state.wait_for(QueueState::is_ready))
        .await
        .unwrap()
        .unwrap();
    let refused = export(&servers.flags(), &dir.file(), &[]).await.expect(1);
    assert!(
        refused.stderr.contains("workers") && refused.stderr.contains("--live"),
        "{refused:?}"
    );
    let written = export(&servers.flags(), &dir.file(), &["--live"])
        .await
        .expect(0)
        .json();
    assert!(
        written["warnings"][0]
            .as_str()
            .unwrap()
            .contains("may be missing"),
        "{written}"
    );
    consumer.close().await;
}

#[tokio::test]
async fn more_letters_than_can_be_looked_at_are_not_exported_in_part() {
    const LETTERS: usize = 10_001;
    let (servers, dir) = (Servers::start().await, Dir::new());
    let publisher = Publisher::start(
        PublisherConfig::new(servers.urls(), "test"),
        CancellationToken::new(),
    );
    let mut state = publisher.state();
    tokio::time::timeout(PATIENCE, state.wait_for(QueueState::is_ready))
        .await
        .unwrap()
        .unwrap();
    let queue = Queue::RabbitMq(publisher.clone());
    let bury = async |number: i64| {
        let letter = letter(Origin::Event, number, number.to_string().as_bytes(), Some("read"));
        queue
            .bring_letter(&letter, Deadlines::within(PATIENCE))
            .await
            .unwrap();
    };
    for from in (0..i64::try_from(LETTERS).unwrap()).step_by(100) {
        let some = (from..from + 100).take_while(|number| *number < LETTERS as i64);
        futures_util::future::join_all(some.map(bury)).await;
    }
    let refused = export(&servers.flags(), &dir.file(), &[]).await.expect(1);
    assert!(refused.stderr.contains("10001 dead letters"), "{refused:?}");
    assert_eq!(std::fs::read_dir(dir.folder.path()).unwrap().count(), 0);

    // Nor are letters brought where it cannot be seen which of them are there.
    let from = Dir::new();
    from.with(live).await;
    export(&from.flags(), &from.file(), &[]).await.expect(0);
    let refused = import(&servers.flags(), &from.file(), &["--yes"]).await.expect(1);
    assert!(refused.stderr.contains("--without-letters"), "{refused:?}");
    assert_eq!(shown(&servers.ledger()).await["devices"], json!([]));
    import(&servers.flags(), &from.file(), &["--yes", "--without-letters"])
        .await
        .expect(0);
    assert_eq!(servers.ready("porchlight.dead").await, LETTERS as u64);
    publisher.close(PATIENCE).await;
}

#[tokio::test]
async fn an_import_that_is_killed_is_mended_by_another() {
    const DEVICES: usize = 1_500;
    let (from, to) = (Dir::new(), Dir::new());
    let wanted = from
        .with(async |ledger, queue| {
            live(ledger, queue).await;
            for number in 0..DEVICES {
                let device = format!("d{number}");
                register(ledger, &device, "nightly").await;
                take(ledger, "device_offline", &device, "a", 20).await;
            }
            shown(ledger).await
        })
        .await;
    export(&from.flags(), &from.file(), &[]).await.expect(0);
    let file = from.file();
    let flags = to.flags();
    let arguments = ["import", "--from", &file, &flags[0], &flags[1], "--yes"];
    let mut cut = 0;
    for _ in 0..3 {
        let before = to.path().join("porchlight.db").is_file().then(|| to.look());
        let known = match &before {
            Some(ledger) => ledger.counts().await.unwrap().values().sum(),
            None => 0_u64,
        };
        let mut child = command(&arguments, &[]).spawn().unwrap();
        let look = async || {
            if child.try_wait().unwrap().is_some() {
                return Ok(());
            }
            match Journal::open(JournalConfig::new(to.path()), Role::Tool) {
                Ok(journal)
                    if ledger_in(&journal)
                        .counts()
                        .await
                        .is_ok_and(|counts| counts.values().sum::<u64>() > known + 50) =>
                {
                    Ok(())
                }
                _ => Err("nothing yet".to_owned()),
            }
        };
        wait_for("some devices", PATIENCE, look).await.unwrap();
        child.kill().unwrap();
        cut += usize::from(!child.wait().unwrap().success());
    }
    assert!(cut > 0, "each import had ended before it could be killed");
    import(&to.flags(), &file, &["--yes"]).await.expect(0);
    to.with(async |ledger, _| assert_eq!(shown(ledger).await, wanted))
        .await;
}
