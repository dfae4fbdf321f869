//! One process out of the parts of both daemons: the public side and the worker over one journal, with one admin
//! listener, and the order in which they begin and end.
//!
//! It decides nothing about an event; what the parts do is theirs.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use porchlight_ingress::{Edge, Storage};
use porchlight_journal::{Journal, JournalConfig, LedgerConfig, OpenError, Role, SourceConfig};
use porchlight_ledger::Ledger;
use porchlight_monitor::QueueWatch;
use porchlight_queue::{DepthReader, Queue, Source};
use porchlight_service::stop::{Drained, Hangups};
use porchlight_service::trace::Traces;
use porchlight_service::{Admin, AdminLimits, Metrics, admin, http};
use porchlight_worker::{Callback, Lines, Outlet, RunError, WorkSettings, Worker, WorkerParts};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::metrics::JournalCollector;
use super::settings::Settings;

/// Longest wait of an event for a place among those being stored, then 503.
const SLOT_WAIT_MAX: Duration = Duration::from_millis(300);
/// For the journal to finish what was asked of it and to put its log away. What takes longer is done at the next start.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// Everything opened and bound, and nothing begun.
pub(crate) struct Standalone {
    public: TcpListener,
    admin_listener: TcpListener,
    admin: Admin,
    edge: Edge,
    worker: Worker,
    watch: QueueWatch,
    journal: Journal,
    traces: Traces,
    tokens: Tokens,
}

/// What tells the parts to end, in this order.
#[derive(Default)]
struct Tokens {
    edge: CancellationToken,
    worker: CancellationToken,
    admin: CancellationToken,
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("{setting} {address} cannot be listened on")]
    Listen {
        setting: &'static str,
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the data directory cannot be used")]
    Data(#[from] OpenError),
    #[error("the system refuses")]
    System(#[source] io::Error),
}

/// Why it ended other than cleanly. Nothing that was answered is lost by any of them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndError {
    #[error("{0} connections were open when the grace ran out")]
    Connections(usize),
    #[error("the worker did not end as it should")]
    Worker(#[from] RunError),
    #[error("a part panicked")]
    Panicked(#[from] tokio::task::JoinError),
}

impl Standalone {
    /// Binds both addresses, opens the data directory and puts the parts together. Nothing is accepted yet.
    ///
    /// # Errors
    /// [`StartError`]; a directory that is refused is left as it is.
    pub(crate) async fn open(settings: Settings, hangups: Hangups) -> Result<Self, StartError> {
        let Settings {
            data_dir,
            data_bytes_max,
            mut edge,
            work,
            callback,
            admin_listen,
            admin_token,
            trace,
        } = settings;
        edge.fit_to_open_files();
        let public = listen("PORCHLIGHT_LISTEN", edge.listen)?;
        let admin_listener = listen("PORCHLIGHT_ADMIN_LISTEN", admin_listen)?;
        let journal = open_journal(data_dir, data_bytes_max).await?;
        let tokens = Tokens::default();
        let traces = Traces::start(trace, "porchlight-standalone", env!("CARGO_PKG_VERSION"));
        let mut metrics = Metrics::new(env!("CARGO_PKG_VERSION"), "standalone");
        JournalCollector::register(&journal, &mut metrics);
        let queue = Queue::Sqlite(porchlight_journal::Queue::new(&journal));
        let storage = Storage::new(queue.clone(), SLOT_WAIT_MAX);
        edge.keep_outages_in(&journal.config().dir);
        let edge = Edge::prepare(edge, storage, hangups, &mut metrics);
        let source = Source::Sqlite(source(&journal, &work, tokens.worker.clone()));
        let watch = QueueWatch::new(
            DepthReader::Sqlite(porchlight_journal::Queue::new(&journal)),
            work.watch_interval,
        )
        .consumed_by(source.state());
        watch.register(&mut metrics);
        let parts = WorkerParts {
            source,
            queue,
            ledger: Ledger::Sqlite(ledger(&journal, &work)),
            outlet: match callback {
                Some(callback) => Outlet::Callback(Callback::new(callback)),
                None => Outlet::Lines(Lines::stdout().map_err(StartError::System)?),
            },
            // What is in the journal was verified by this very process.
            keys: watch::channel(None).1,
            work,
        };
        let worker = Worker::prepare(parts, &mut metrics);
        let (public_ready, worker_ready) = (edge.ready(tokens.edge.clone()), worker.ready());
        let admin = Admin {
            ready: Arc::new(move || public_ready().merge(worker_ready())),
            metrics: Arc::new(metrics),
            pages: vec![edge.outages()],
            api: Some(super::api::with_own_calls(&journal, worker.api())),
            token: admin_token,
            limits: AdminLimits {
                body_bytes_max: super::api::BODY_BYTES_MAX,
                ..AdminLimits::default()
            },
        };
        Ok(Self {
            public,
            admin_listener,
            admin,
            edge,
            worker,
            watch,
            journal,
            traces,
            tokens,
        })
    }

    /// Where webhooks arrive.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.public.local_addr()
    }

    /// Where health, metrics and the control API are.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin_listener.local_addr()
    }

    /// Where the data lies.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.journal.config().dir
    }

    /// Whether the process before ended as it should, or there was none.
    pub(crate) fn ended_cleanly(&self) -> bool {
        self.journal.ended_cleanly()
    }

    /// Works until `stop`, then ends in order: not ready but still serving, no new connections, the answers that are
    /// owed, the events and commands in hand, the journal, and the admin listener last. Commands that are still owed
    /// stay in the outbox.
    ///
    /// # Errors
    /// [`EndError`]
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<Duration, EndError> {
        let Tokens {
            edge: edge_stop,
            worker: worker_stop,
            admin: admin_stop,
        } = self.tokens;
        let mut watched = tokio::spawn(admin::serve(self.admin_listener, self.admin, admin_stop.clone()));
        // It only looks, and has nothing to finish.
        tokio::spawn(self.watch.run(worker_stop.clone()));
        // Also when it panics: an edge that goes on answering 200 while nobody works would only hide that.
        let ended = worker_stop.clone().drop_guard();
        let worker = self.worker.run(worker_stop.clone());
        let working = tokio::spawn(async move {
            let _ended = ended;
            worker.await
        });
        let mut serving = std::pin::pin!(self.edge.serve(self.public, edge_stop.clone()));
        let drained = tokio::select! {
            // Whoever ends first takes the rest with it.
            drained = &mut serving => drained,
            () = stop.cancelled() => { edge_stop.cancel(); serving.await }
            () = worker_stop.cancelled() => { edge_stop.cancel(); serving.await }
            _ = &mut watched => { edge_stop.cancel(); serving.await }
        };
        worker_stop.cancel();
        let worked = working.await;
        self.journal.close(CLOSE_MAX).await;
        self.traces.close().await;
        admin_stop.cancel();
        if !watched.is_finished() {
            watched.await?;
        }
        worked??;
        match drained {
            Drained::Met { took } => Ok(took),
            Drained::Missed { left } => Err(EndError::Connections(left)),
        }
    }
}

fn listen(setting: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    http::listen(address).map_err(|source| StartError::Listen {
        setting,
        address,
        source,
    })
}

/// Opening reads the whole file once, off the threads that serve.
async fn open_journal(dir: PathBuf, bytes_max: u64) -> Result<Journal, StartError> {
    let config = JournalConfig {
        bytes_max,
        ..JournalConfig::new(dir)
    };
    let opening = tokio::task::spawn_blocking(move || Journal::open(config, Role::Daemon));
    let opened = opening.await.map_err(|error| StartError::System(error.into()))?;
    Ok(opened?)
}

/// Everything that was not worked on comes out again, also what the process before had in hand.
fn source(journal: &Journal, work: &WorkSettings, stop: CancellationToken) -> porchlight_journal::Source {
    let config = SourceConfig {
        prefetch: usize::from(work.prefetch),
        // The worker resumes it when the ledger has answered.
        begin_paused: true,
        ..SourceConfig::default()
    };
    porchlight_journal::Source::start(journal, config, stop)
}

fn ledger(journal: &Journal, work: &WorkSettings) -> porchlight_journal::Ledger {
    let config = LedgerConfig {
        settle: work.settle,
        ..LedgerConfig::default()
    };
    porchlight_journal::Ledger::new(journal.clone(), config)
}
