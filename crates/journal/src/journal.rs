//! A journal: opening it, handing work to its threads, and closing it.
//!
//! What the work is stands elsewhere; here is when it may be asked for and how long one waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use porchlight_event::queue::QueueState;
use rusqlite::Connection;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::{JournalConfig, Role};
use crate::error::{JournalError, OpenError, WorkError};
use crate::file::{self, Access};
use crate::reader::Reader;
use crate::schema;
use crate::work::{self, Piece, Shape};
use crate::writer::{Counters, Order, Parts, States, Writer};

/// Reading threads: a long look by one operator must not keep everybody else from looking.
const READERS: usize = 2;
/// Questions that may wait for a reader, at most.
const READ_WINDOW: usize = 64;
/// What a request without a body counts for when a group is bounded in bytes.
const SMALL_BYTES: usize = 1024;

/// One SQLite file with its threads. A cheap handle; clones share everything.
///
/// When the last handle is dropped without [`Journal::close`], nothing is lost, but the end counts as a crash.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    config: JournalConfig,
    orders: SyncSender<Order>,
    window: Arc<Semaphore>,
    /// Gone once the journal is closed, which ends the readers.
    questions: Mutex<Option<SyncSender<Box<dyn Piece>>>>,
    read_window: Arc<Semaphore>,
    states: Arc<States>,
    counters: Arc<Counters>,
    late: AtomicU64,
    ended_cleanly: bool,
}

/// Numbers for metrics, as of one moment; totals count since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalStats {
    /// Requests with the writer now.
    pub inflight: usize,
    /// Most that may be.
    pub inflight_max: usize,
    /// Requests that the writer has seen.
    pub requests_total: u64,
    /// Commits that succeeded; requests over commits is how many share one sync.
    pub commits_total: u64,
    /// Commits that failed, with everything in them.
    pub failed_commits_total: u64,
    /// Events refused at the limit or while writing fails.
    pub refused_total: u64,
    /// Answers that came after their caller's deadline.
    pub late_total: u64,
    /// Connections made again after a fault.
    pub reconnects_total: u64,
    /// Bytes of the pages in use, as of the writer's last look.
    pub bytes_in_use: u64,
}

impl Journal {
    /// Opens the journal, or makes it, and starts its threads. Reads the whole file once to be sure that it is sound.
    ///
    /// # Errors
    /// [`OpenError`]; a file that is not a sound journal of a known schema is refused and left as it is.
    pub fn open(config: JournalConfig, role: Role) -> Result<Self, OpenError> {
        let (opener, lock) = file::prepare(&config, role)?;
        let mut connection = opener.begin(Access::Write(role))?;
        let empty = schema::recognise(&connection, &opener, config.purpose, role)?;
        if role == Role::Daemon {
            schema::check(&connection, &opener)?;
            if let (true, Some(lock)) = (empty, &lock) {
                lock.expect_new(&opener)?;
            }
        }
        // Nothing is written before this point: a file that is refused stays as it is.
        let explain = |error| opener.explain(error);
        file::set_writing(&connection, &opener, role).map_err(explain)?;
        let mut ended_cleanly = true;
        if role == Role::Daemon {
            if empty {
                schema::create(&mut connection, config.purpose).map_err(explain)?;
            }
            if let Some(lock) = &lock {
                lock.mark(&opener)?;
            }
            ended_cleanly = schema::begin_life(&mut connection, &config).map_err(|error| match error {
                WorkError::Sql(error) => opener.explain(error),
                WorkError::Unreadable(what) => OpenError::Damaged {
                    path: opener.path.clone(),
                    detail: what.to_owned(),
                },
            })?;
        }
        let window = config.window.max(1);
        // One more than the window, for the order to close.
        let (orders, writer_orders) = sync_channel(window + 1);
        let (questions, reader_questions) = sync_channel(READ_WINDOW);
        let states = Arc::new(States {
            accepting: watch::Sender::new(QueueState::Ready),
            working: watch::Sender::new(QueueState::Ready),
            arrivals: Notify::new(),
        });
        let counters = Arc::new(Counters::default());
        let reader_questions = Arc::new(Mutex::new(reader_questions));
        for number in 0..READERS {
            let reader = Reader {
                opener: opener.clone(),
                connection: Some(opener.connect(Access::Read)?),
                requests: Arc::clone(&reader_questions),
            };
            spawn(format!("journal-read-{number}"), move || reader.run())?;
        }
        let writer = Writer::new(Parts {
            opener,
            role,
            bytes_max: config.bytes_max,
            gather_max: config.gather_max,
            orders: writer_orders,
            states: Arc::clone(&states),
            counters: Arc::clone(&counters),
            connection,
            lock,
        });
        spawn("journal-write".to_owned(), move || writer.run())?;
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                orders,
                window: Arc::new(Semaphore::new(window)),
                questions: Mutex::new(Some(questions)),
                read_window: Arc::new(Semaphore::new(READ_WINDOW)),
                states,
                counters,
                late: AtomicU64::new(0),
                ended_cleanly,
            }),
        })
    }

    /// What it was opened with.
    #[must_use]
    pub fn config(&self) -> &JournalConfig {
        &self.inner.config
    }

    /// Whether the daemon before closed the journal, or never ran; always true for a tool.
    #[must_use]
    pub fn ended_cleanly(&self) -> bool {
        self.inner.ended_cleanly
    }

    /// Whether events can be put in, and every change of it. `Blocked` when writing fails or the limit is reached; the
    /// writer tries by itself, and `Ready` comes without anybody's help.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<QueueState> {
        self.inner.states.accepting.subscribe()
    }

    /// Whether what is in can be worked on: as [`Journal::state`], but the limit does not matter.
    #[must_use]
    pub fn working_state(&self) -> watch::Receiver<QueueState> {
        self.inner.states.working.subscribe()
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn stats(&self) -> JournalStats {
        let counters = &self.inner.counters;
        let window = self.inner.config.window.max(1);
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        JournalStats {
            inflight: window.saturating_sub(self.inner.window.available_permits()),
            inflight_max: window,
            requests_total: read(&counters.requests),
            commits_total: read(&counters.commits),
            failed_commits_total: read(&counters.failed_commits),
            refused_total: read(&counters.refused),
            late_total: read(&self.inner.late),
            reconnects_total: read(&counters.reconnects),
            bytes_in_use: read(&counters.bytes_in_use),
        }
    }

    /// Takes nothing more, finishes what was asked for, empties the log, and lets go of the directory. Waits up to
    /// `drain_max` for that; what takes longer goes on by itself.
    pub async fn close(&self, drain_max: Duration) {
        if !self.inner.window.is_closed() {
            self.inner.window.close();
            self.inner.read_window.close();
            drop(
                self.inner
                    .questions
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take(),
            );
            // There is a place for exactly this one; an error means that the writer is gone.
            let _ = self.inner.orders.try_send(Order::Close);
        }
        let mut state = self.inner.states.working.subscribe();
        let stopped = state.wait_for(|state| *state == QueueState::Stopped);
        // Neither a late nor a lost writer changes what is stored.
        let _ = timeout(drain_max, stopped).await;
    }

    /// Tells the source that there may be something to take.
    pub(crate) fn wake_source(&self) {
        self.inner.states.arrivals.notify_one();
    }

    /// Returns when something may have been put in since it last returned.
    pub(crate) async fn arrival(&self) {
        self.inner.states.arrivals.notified().await;
    }

    /// Runs `work` in the writer's next transaction and answers when that is on the disk. An error of its own undoes
    /// this work alone.
    ///
    /// # Errors
    /// [`JournalError`]; after `TimedOut` the work may be done all the same.
    ///
    /// # Cancel safety
    /// Dropped, the work is done or not, as a whole.
    pub(crate) async fn write<T, F>(&self, until: Instant, work: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, WorkError> + Send + 'static,
    {
        let shape = Shape {
            until,
            grows: false,
            bytes: SMALL_BYTES,
        };
        self.ask(&self.inner.window, until, shape, work, |piece| {
            self.inner.orders.try_send(Order::Piece(piece)).is_ok()
        })
        .await
    }

    /// As [`Journal::write`], for work that puts `bytes` in from outside: refused when the journal is full.
    pub(crate) async fn put_in<T, F>(
        &self,
        slot_until: Instant,
        until: Instant,
        bytes: usize,
        work: F,
    ) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, WorkError> + Send + 'static,
    {
        let shape = Shape {
            until,
            grows: true,
            bytes: SMALL_BYTES + bytes,
        };
        self.ask(&self.inner.window, slot_until, shape, work, |piece| {
            self.inner.orders.try_send(Order::Piece(piece)).is_ok()
        })
        .await
    }

    /// Runs `look` on a connection that cannot write, on one consistent state of everything.
    ///
    /// # Errors
    /// [`JournalError`]
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn read<T, F>(&self, until: Instant, look: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, WorkError> + Send + 'static,
    {
        let shape = Shape {
            until,
            grows: false,
            bytes: SMALL_BYTES,
        };
        self.ask(&self.inner.read_window, until, shape, look, |piece| {
            let questions = self
                .inner
                .questions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            questions
                .as_ref()
                .is_some_and(|questions| questions.try_send(piece).is_ok())
        })
        .await
    }

    async fn ask<T, F>(
        &self,
        window: &Arc<Semaphore>,
        slot_until: Instant,
        shape: Shape,
        work: F,
        send: impl FnOnce(Box<dyn Piece>) -> bool,
    ) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, WorkError> + Send + 'static,
    {
        let slot = timeout_at(slot_until.min(shape.until), Arc::clone(window).acquire_owned());
        let place = match slot.await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(JournalError::Stopping),
            Err(_) => return Err(JournalError::WindowFull),
        };
        let (piece, answer) = work::request(work, shape, place);
        // The channel has as many places as the window, so only an end of the thread is in the way.
        if !send(piece) {
            return Err(JournalError::Stopping);
        }
        match timeout_at(shape.until, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(JournalError::Stopping),
            Err(_) => {
                self.inner.late.fetch_add(1, Ordering::Relaxed);
                Err(JournalError::TimedOut)
            }
        }
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("dir", &self.inner.config.dir)
            .finish_non_exhaustive()
    }
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
    let spawned = thread::Builder::new().name(name).spawn(work);
    spawned.map(|_| ()).map_err(OpenError::Thread)
}
