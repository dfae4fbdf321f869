//! Both ends of a move: a standalone's directory, which nobody else may hold meanwhile, or servers.
//!
//! What is moved is not decided here.

use std::path::Path;
use std::time::Duration;

use porchlight_broker::{BrokerUrls, DepthReader, Publisher, PublisherConfig, QueueState};
use porchlight_journal::{Journal, JournalConfig, LedgerConfig, OpenError, Role};
use porchlight_ledger::Ledger;
use porchlight_queue::{DeadLetters, Queue, depth};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::lines::Form;
use crate::failure::Failure;
use crate::place::{Directory, Servers, Site, refused};

/// The one file of a journal.
const JOURNAL_FILE: &str = "porchlight.db";
/// For a connection to publish on.
const READY_MAX: Duration = Duration::from_secs(15);
/// For SQLite to answer one question.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// For what is under way at the end; nothing, normally.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Queues whose events are not taken yet.
const WAITING: [&str; 4] = [
    "porchlight.events",
    "porchlight.retry.1m",
    "porchlight.retry.10m",
    "porchlight.unrouted",
];
const EVENTS: &str = "porchlight.events";
const COMMANDS: &str = "porchlight.commands";

/// One end.
pub(super) struct End {
    pub(super) form: Form,
    pub(super) ledger: Ledger,
    side: Side,
}

enum Side {
    /// With the daemon's lock, or beside a daemon for a look.
    Directory(Journal),
    Servers(BrokerUrls),
}

/// What there is on servers that an export cannot take along.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LeftBehind {
    /// Workers.
    pub(super) workers: u32,
    /// Events that no worker has taken.
    pub(super) waiting: u64,
    /// Commands that no receiver has taken.
    pub(super) commands: u64,
}

impl End {
    /// To take everything from. A directory is locked against its daemon.
    pub(super) async fn from(site: Site) -> Result<Self, Failure> {
        match site {
            Site::Directory(path) if !path.join(JOURNAL_FILE).is_file() => {
                let path = path.join(JOURNAL_FILE);
                Err(refused(
                    path.parent().unwrap_or(&path),
                    &OpenError::Missing { path: path.clone() },
                ))
            }
            Site::Directory(path) => {
                let before = Directory::open(&path)?;
                let look = before.journal.look(Instant::now() + LOOK_MAX).await;
                before.journal.close(DRAIN_MAX).await;
                let look =
                    look.map_err(|error| Failure::unavailable("the data directory").because(&error))?;
                Self::directory(&path, look.bytes_max)
            }
            site => Self::to(site),
        }
    }

    /// To bring everything to. A directory is made where there is none, and locked against its daemon.
    pub(super) fn to(site: Site) -> Result<Self, Failure> {
        match site {
            Site::Servers(servers) => Ok(Self::servers(*servers)),
            // What was accepted once is not refused for its size; the daemon's own limit counts again when it starts.
            Site::Directory(path) => Self::directory(&path, u64::MAX / 2),
            Site::Api => Err(Failure::usage(
                "export and import stand on a directory or on servers, not on an API",
            )
            .advise("--data-dir DIR, or --amqp-url and --redis-url")),
        }
    }

    /// To look at only; `None` for a directory in which no standalone has run.
    pub(super) fn to_look_at(site: Site) -> Result<Option<Self>, Failure> {
        match site {
            Site::Directory(path) if !path.join(JOURNAL_FILE).is_file() => Ok(None),
            Site::Directory(path) => {
                let directory = Directory::open(&path)?;
                Ok(Some(Self::of(directory.journal)))
            }
            site => Self::to(site).map(Some),
        }
    }

    fn servers(servers: Servers) -> Self {
        Self {
            form: Form::Scaled,
            ledger: Ledger::Redis(servers.store),
            side: Side::Servers(servers.amqp),
        }
    }

    fn directory(path: &Path, bytes_max: u64) -> Result<Self, Failure> {
        let config = JournalConfig {
            bytes_max,
            ..JournalConfig::new(path)
        };
        match Journal::open(config, Role::Daemon) {
            Ok(journal) => Ok(Self::of(journal)),
            Err(error @ OpenError::InUse { .. }) => {
                Err(Failure::unavailable("the data directory").because(&error).advise(
                    "stop its standalone; Ring sends again for 73 minutes what it cannot deliver meanwhile",
                ))
            }
            Err(error) => Err(refused(path, &error)),
        }
    }

    fn of(journal: Journal) -> Self {
        Self {
            form: Form::Standalone,
            ledger: Ledger::Sqlite(porchlight_journal::Ledger::new(
                journal.clone(),
                LedgerConfig::default(),
            )),
            side: Side::Directory(journal),
        }
    }

    /// The queue in the directory; `None` on servers.
    pub(super) fn rows(&self) -> Option<porchlight_journal::Queue> {
        match &self.side {
            Side::Directory(journal) => Some(porchlight_journal::Queue::new(journal)),
            Side::Servers(_) => None,
        }
    }

    /// The dead letters.
    pub(super) fn dead_letters(&self) -> DeadLetters {
        match &self.side {
            Side::Directory(journal) => DeadLetters::Sqlite(porchlight_journal::Queue::new(journal)),
            Side::Servers(urls) => DeadLetters::in_rabbitmq(urls.clone(), "tool"),
        }
    }

    /// Where events and letters go in, once it takes them.
    pub(super) async fn queue(&self) -> Result<Queue, Failure> {
        let urls = match &self.side {
            Side::Directory(journal) => return Ok(Queue::Sqlite(porchlight_journal::Queue::new(journal))),
            Side::Servers(urls) => urls,
        };
        let config = PublisherConfig::new(urls.clone(), "tool");
        let publisher = Publisher::start(config, CancellationToken::new());
        let mut state = publisher.state();
        let is_ready = {
            let ready = timeout(READY_MAX, state.wait_for(QueueState::is_ready)).await;
            matches!(ready, Ok(Ok(_)))
        };
        if is_ready {
            return Ok(Queue::RabbitMq(publisher));
        }
        let why = match &*state.borrow() {
            QueueState::Connecting {
                last_error: Some(why),
            }
            | QueueState::Blocked { reason: why } => why.clone(),
            _ => "no answer".to_owned(),
        };
        publisher.close(Duration::ZERO).await;
        Err(Failure::unavailable(format_args!(
            "RabbitMQ takes nothing: {why}"
        )))
    }

    /// What an export could not take along; nothing of a directory.
    pub(super) async fn left_behind(&self) -> Result<LeftBehind, Failure> {
        let mut left = LeftBehind::default();
        let Side::Servers(urls) = &self.side else {
            return Ok(left);
        };
        let mut reader = depth::DepthReader::RabbitMq(DepthReader::new(urls.clone(), "tool"));
        let depths = reader.read().await;
        for depth in depths.map_err(|error| Failure::unavailable("RabbitMQ").because(&error))? {
            let counts = depth.counts.unwrap_or_default();
            if WAITING.contains(&depth.queue) {
                left.waiting += counts.ready;
            }
            if depth.queue == EVENTS {
                left.workers = counts.consumers.unwrap_or_default();
            }
            if depth.queue == COMMANDS {
                left.commands = counts.ready;
            }
        }
        Ok(left)
    }

    /// Lets go of a directory, with everything on the disk.
    pub(super) async fn close(self) {
        if let Side::Directory(journal) = self.side {
            journal.close(DRAIN_MAX).await;
        }
    }
}
