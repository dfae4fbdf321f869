//! The standalone form: queue and ledger in one SQLite file, with all that a test may do to it.
//!
//! The test works on the file as an operator's tool does, beside the worker that holds the directory.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use porchlight_journal::{Depth, Journal, JournalConfig, LedgerConfig, Role, SourceConfig};
use porchlight_ledger::Ledger;
use porchlight_queue::{Queue, Source};
use porchlight_service::{Admin, AdminLimits, Metrics, admin};
use porchlight_testbed::wait_for;
use porchlight_worker::{Callback, Lines, Outlet, RunError, Worker, WorkerParts};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::harness::{Form, Letter, PATIENCE, Received, Setup, TIERS};

/// A directory of its own, and a look at it.
pub(crate) struct OneFile {
    pub(crate) dir: TempDir,
    pub(crate) beside: Journal,
    /// Pages that a worker's file may have from its start on.
    pub(crate) pages_max: Option<u32>,
    written: Written,
}

/// What workers have written as lines.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl OneFile {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = JournalConfig::new(dir.path());
        // A tool makes no file.
        let first = Journal::open(config.clone(), Role::Daemon).unwrap();
        first.close(PATIENCE).await;
        Self {
            beside: Journal::open(config, Role::Tool).unwrap(),
            dir,
            pages_max: None,
            written: Written::default(),
        }
    }

    pub(crate) fn journal_queue(&self) -> porchlight_journal::Queue {
        porchlight_journal::Queue::new(&self.beside)
    }

    pub(crate) async fn depth(&self) -> Result<Depth, String> {
        let depth = self.journal_queue().depth(soon()).await;
        depth.map_err(|error| error.to_string())
    }
}

impl Form for OneFile {
    fn queue(&self) -> Queue {
        Queue::Sqlite(self.journal_queue())
    }

    fn ledger(&self) -> Ledger {
        let ledger = porchlight_journal::Ledger::new(self.beside.clone(), LedgerConfig::default());
        Ledger::Sqlite(ledger)
    }

    fn run(
        &self,
        setup: Setup,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> BoxFuture<'static, Result<(), RunError>> {
        let config = JournalConfig {
            retry_1m: TIERS[0],
            retry_10m: TIERS[1],
            pages_max: self.pages_max,
            ..JournalConfig::new(self.dir.path())
        };
        let written = self.written.clone();
        Box::pin(async move {
            let journal = Journal::open(config, Role::Daemon).unwrap();
            let parts = parts(&journal, written, &setup, &stop);
            let mut metrics = Metrics::new("0", "test");
            let worker = Worker::prepare(parts, &mut metrics);
            let shown = Admin {
                ready: worker.ready(),
                metrics: Arc::new(metrics),
                pages: Vec::new(),
                api: Some(worker.api()),
                token: setup.token,
                limits: AdminLimits::default(),
            };
            let admin_stop = CancellationToken::new();
            let serving = tokio::spawn(admin::serve(listener, shown, admin_stop.clone()));
            let ended = worker.run(stop).await;
            admin_stop.cancel();
            serving.await.unwrap();
            ended
        })
    }

    async fn undone(&self) -> Result<Option<String>, String> {
        let depth = self.depth().await?;
        let left = depth.ready.count + depth.in_hand.count + depth.put_off.count;
        Ok((left > 0).then(|| format!("{depth:?}")))
    }

    async fn waiting(&self) -> Result<u64, String> {
        match self.depth().await? {
            depth if depth.in_hand.count == 0 => Ok(depth.ready.count),
            depth => Err(format!("{depth:?}")),
        }
    }

    async fn letters(&self) -> Result<Vec<Letter>, String> {
        let page = self.journal_queue().letters(0, 500, soon()).await;
        let letters = page.map_err(|error| error.to_string())?.letters;
        let letters = letters.into_iter().map(|numbered| Letter {
            envelope: numbered.letter.envelope,
            reason: numbered.letter.reason,
            stage: numbered.letter.stage,
            detail: numbered.letter.detail,
            dead_at_ms: numbered.letter.dead_at_ms,
        });
        Ok(letters.collect())
    }

    async fn commands(&self, enough: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let mut received = Vec::new();
        let collected = wait_for("the commands", PATIENCE, async || {
            received.extend(self.written.take());
            if enough(&received) {
                Ok(())
            } else {
                Err(format!("{received:?}"))
            }
        });
        collected.await.unwrap();
        received
    }
}

fn parts(journal: &Journal, written: Written, setup: &Setup, stop: &CancellationToken) -> WorkerParts {
    let source = SourceConfig {
        prefetch: usize::from(setup.work.prefetch),
        begin_paused: true,
        ..SourceConfig::default()
    };
    let ledger = LedgerConfig {
        settle: setup.work.settle,
        head_start: setup.head_start,
    };
    WorkerParts {
        queue: Queue::Sqlite(porchlight_journal::Queue::new(journal)),
        source: Source::Sqlite(porchlight_journal::Source::start(journal, source, stop.clone())),
        ledger: Ledger::Sqlite(porchlight_journal::Ledger::new(journal.clone(), ledger)),
        outlet: match setup.callback.clone() {
            Some(callback) => Outlet::Callback(Callback::new(callback)),
            None => Outlet::Lines(Lines::start(written).unwrap()),
        },
        keys: setup.keys.clone(),
        work: setup.work,
    }
}

impl Written {
    /// All whole lines that were not taken yet.
    fn take(&self) -> Vec<Received> {
        let mut bytes = self.0.lock().unwrap();
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let lines: Vec<u8> = bytes.drain(..whole).collect();
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| {
                let body: Value = serde_json::from_slice(line).unwrap();
                let message_id = body["id"].as_str().unwrap().to_owned();
                Received { message_id, body }
            })
            .collect()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn soon() -> Instant {
    Instant::now() + PATIENCE
}
