//! One place that the tool can stand on, with what a test puts into it: servers, a directory, or a running standalone.
//!
//! It judges nothing; each test asks the tool and compares.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use porchlight_broker::{BrokerUrls, Publisher, PublisherConfig};
use porchlight_device::{Command, News, Registration};
use porchlight_event::queue::{DeathNote, QueueState};
use porchlight_event::sample::Sample;
use porchlight_event::{Envelope, RingEvent, TraceParent};
use porchlight_journal::{Journal, JournalConfig, LedgerConfig, Role};
use porchlight_ledger::Ledger;
use porchlight_queue::{CommandLetter, Deadlines, Queue};
use porchlight_store::{Store, StoreConfig};
use porchlight_testbed::{Daemon, RabbitMq, Redis, free_port, http};
use tokio_util::sync::CancellationToken;

use crate::tool::{Ran, run};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const TOKEN: &str = "test-admin-token";
pub(crate) const KEY: &str = "k=whsec-porch-7c21";
/// A time long gone, so that letters are older than anything.
pub(crate) const DIED_AT_MS: i64 = 1_771_025_567_000;

/// Which kind of place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// RabbitMQ and Redis, without a daemon.
    Scaled,
    /// A directory without a daemon.
    Directory,
    /// A directory beside its running daemon.
    Beside,
    /// The control API of a running standalone.
    Api,
}

/// A place, and the same place from within.
pub(crate) struct Site {
    pub(crate) queue: Queue,
    pub(crate) ledger: Ledger,
    pub(crate) variables: Vec<(&'static str, String)>,
    pub(crate) alone: Option<Alone>,
    _redis: Option<Redis>,
    _folder: Option<tempfile::TempDir>,
}

/// A running standalone.
pub(crate) struct Alone {
    pub(crate) daemon: Daemon,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Form {
    pub(crate) const ALL: [Self; 4] = [Self::Scaled, Self::Directory, Self::Beside, Self::Api];
}

impl Site {
    pub(crate) async fn start(form: Form) -> Self {
        if form == Form::Scaled {
            return Self::scaled().await;
        }
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("data");
        let alone = match form {
            Form::Directory => {
                let journal = Journal::open(JournalConfig::new(&dir), Role::Daemon).unwrap();
                journal.close(PATIENCE).await;
                None
            }
            _ => Some(Alone::start(&dir, &[]).await),
        };
        let journal = Journal::open(JournalConfig::new(&dir), Role::Tool).unwrap();
        let ledger = porchlight_journal::Ledger::new(journal.clone(), LedgerConfig::default());
        let variables = match (form, &alone) {
            (Form::Api, Some(alone)) => vec![
                ("PORCHLIGHT_API_URL", format!("http://{}", alone.admin)),
                ("PORCHLIGHT_ADMIN_TOKEN", TOKEN.to_owned()),
            ],
            _ => vec![("PORCHLIGHT_DATA_DIR", dir.to_str().unwrap().to_owned())],
        };
        Self {
            queue: Queue::Sqlite(porchlight_journal::Queue::new(&journal)),
            ledger: Ledger::Sqlite(ledger),
            variables,
            alone,
            _redis: None,
            _folder: Some(folder),
        }
    }

    async fn scaled() -> Self {
        let node = RabbitMq::shared().await;
        let amqp = node.url_for_vhost(&node.vhost().await.unwrap());
        let redis = Redis::start().await.unwrap();
        let config = PublisherConfig::new(BrokerUrls::parse(&amqp).unwrap(), "test");
        let publisher = Publisher::start(config, CancellationToken::new());
        let mut state = publisher.state();
        let ready = tokio::time::timeout(PATIENCE, state.wait_for(QueueState::is_ready)).await;
        ready.unwrap().unwrap();
        drop(state);
        Self {
            queue: Queue::RabbitMq(publisher),
            ledger: Ledger::Redis(Store::connect(&StoreConfig::new(redis.url())).unwrap()),
            variables: vec![
                ("PORCHLIGHT_AMQP_URL", amqp),
                ("PORCHLIGHT_REDIS_URL", redis.url()),
            ],
            alone: None,
            _redis: Some(redis),
            _folder: None,
        }
    }

    /// The directory, where there is one.
    pub(crate) fn dir(&self) -> PathBuf {
        match &self._folder {
            Some(folder) => folder.path().join("data"),
            None => PathBuf::new(),
        }
    }

    /// Runs the tool on this place.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        let variables: Vec<_> = self
            .variables
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        run(arguments, &variables).await
    }

    /// Puts a letter about device `d<number>` into the dead letters; its message id.
    pub(crate) async fn bury(&self, number: u64, reason: &str, replays: u32) -> String {
        let kind = if number.is_multiple_of(2) {
            "device_online"
        } else {
            "device_offline"
        };
        let mut envelope = Envelope::bare(Bytes::from(event(kind, &format!("d{number}"), 1_000)));
        envelope.replay = replays;
        let note = note(reason);
        self.queue
            .bury(&envelope, note, Deadlines::within(PATIENCE))
            .await
            .unwrap();
        envelope.message_id
    }

    /// Puts a command among the dead letters, as one that no receiver took.
    pub(crate) async fn bury_command(&self, command: &Command) {
        let id = command.id();
        let letter = CommandLetter {
            id: &id,
            action: command.action.code(),
            kind: &command.kind,
            body: &command.body(),
            traceparent: command.cause.traceparent.as_ref().map(TraceParent::as_str),
        };
        let note = note("receiver_failed");
        self.queue
            .bury_command(letter, note, Deadlines::within(PATIENCE))
            .await
            .unwrap();
    }

    /// Tells the ledger of an event, past the queue; the commands that are owed then.
    pub(crate) async fn apply(&self, kind: &str, device: &str, timestamp_ms: i64) -> Vec<Command> {
        let event = RingEvent::parse(&event(kind, device, timestamp_ms)).unwrap();
        let mut news = News::new(&event, timestamp_ms).unwrap();
        news.traceparent = trace();
        let mut decided = self.ledger.apply_batch(0, &[news], now_ms()).await;
        decided.pop().unwrap().unwrap().commands
    }

    /// Registers an operation, past the tool.
    pub(crate) async fn register(&self, device: &str, operation: &str) -> Option<Command> {
        let registration = Registration {
            operation_id: operation.to_owned(),
            account_id: None,
            kind: "snapshot".to_owned(),
            params: "null".to_owned(),
        };
        self.ledger
            .register(device, &registration, now_ms())
            .await
            .unwrap()
    }
}

impl Alone {
    pub(crate) async fn start(dir: &Path, settings: &[(&str, String)]) -> Self {
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (listen, admin) = (address(), address());
        let daemon = Daemon::of("porchlight")
            .arg("standalone")
            .env("PORCHLIGHT_DATA_DIR", dir)
            .env("PORCHLIGHT_LISTEN", listen.to_string())
            .env("PORCHLIGHT_ADMIN_LISTEN", admin.to_string())
            .env("PORCHLIGHT_ADMIN_TOKEN", TOKEN)
            .env("PORCHLIGHT_SIGNING_KEYS", KEY)
            .env("PORCHLIGHT_DRAIN_DELAY", "0s")
            .envs(settings.iter().cloned())
            .start()
            .unwrap();
        let alone = Self {
            daemon,
            listen,
            admin,
        };
        let ready = async || match http::get(admin, "/readyz").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        };
        if let Err(error) = alone.daemon.ready(PATIENCE, ready).await {
            panic!("{error}\n{}", alone.daemon.logs());
        }
        alone
    }
}

fn note(reason: &str) -> DeathNote<'_> {
    DeathNote {
        reason,
        stage: "decide",
        detail: "a test wants it so",
        at_ms: DIED_AT_MS,
    }
}

/// The trace that every event is a part of.
pub(crate) fn trace() -> Option<TraceParent> {
    TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
}

/// The body of an event.
pub(crate) fn event(kind: &str, device: &str, timestamp_ms: i64) -> Vec<u8> {
    let sample = Sample {
        event_type: kind,
        device_id: device,
        account_id: "acct",
        timestamp_ms,
        sent_at_ms: timestamp_ms,
        request_id: &format!("{kind}-{device}-{timestamp_ms}"),
    };
    sample.body()
}

pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_millis()).unwrap()
}
