//! The one thread that writes: gathers requests into groups, commits each group, and only then answers.
//!
//! It does not know what the requests are about. A daemon's owns every checkpoint, and gives free pages back when there
//! is time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use porchlight_event::queue::QueueState;
use rusqlite::Connection;
use tokio::sync::{Notify, watch};

use crate::config::Role;
use crate::error::{JournalError, spoils_connection};
use crate::file::{Access, LOG_BYTES_KEPT, Opener, log_bytes};
use crate::lock::Lock;
use crate::work::{Piece, Ran};

/// Requests in one group. A commit's cost is its sync, which 256 share well; more would only make answers later.
const GROUP_MAX: usize = 256;
/// What the requests of one group may hold: bounds what one commit writes, and with it the time that it takes.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// While writing fails: how often it is tried.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// What a probe writes: room for the largest event, so that the journal does not take events that it cannot keep.
const PROBE_BYTES: i32 = 1 << 20;
/// Without a request for so long there is time to tidy.
const IDLE_AFTER: Duration = Duration::from_millis(100);
/// How often a busy writer tidies, too.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);
/// Free pages given back in one step, 2 MiB; bounds what a request may have to wait for.
const VACUUM_PAGES: u32 = 512;
/// Free pages that are kept, 4 MiB: giving back what the next events need would only cost.
const FREE_PAGES_KEPT: u64 = 1024;
/// Idle for so long, the log is emptied into the file.
const LOG_IDLE_AFTER: Duration = Duration::from_secs(2);
/// A log that is longer is emptied by a tool where there is no daemon, and by an idle daemon whoever wrote it: nothing else
/// would, and a million letters that are taken in would stand in it several times over.
const LOG_BYTES_LONG: u64 = 2 * LOG_BYTES_KEPT;
/// What emptying the log may wait for a reader; it is tried again later.
const LOG_BUSY_MAX: Duration = Duration::from_millis(50);

/// What the writer is sent.
pub(crate) enum Order {
    Piece(Box<dyn Piece>),
    /// Finish what came before, mark a clean end, and go.
    Close,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) failed_commits: AtomicU64,
    pub(crate) reconnects: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) bytes_in_use: AtomicU64,
}

/// How the journal stands, for those who put in and for those who work on what is in.
#[derive(Debug)]
pub(crate) struct States {
    /// Blocked also while the journal holds as much as it may.
    pub(crate) accepting: watch::Sender<QueueState>,
    /// Blocked only while writing fails.
    pub(crate) working: watch::Sender<QueueState>,
    /// Something was put in.
    pub(crate) arrivals: Notify,
}

/// The writing thread.
pub(crate) struct Writer {
    opener: Opener,
    role: Role,
    bytes_max: u64,
    gather_max: Duration,
    orders: Receiver<Order>,
    states: Arc<States>,
    counters: Arc<Counters>,
    connection: Option<Connection>,
    /// The size of the group before: so many are likely to come again.
    expected: usize,
    /// Why nothing is accepted: writing failed, and no probe has succeeded since.
    trouble: Option<JournalError>,
    /// The journal holds as much as it may.
    at_limit: bool,
    last_probe: Instant,
    last_commit: Instant,
    last_tidy: Instant,
    /// Something was committed since the log was last emptied.
    log_used: bool,
    /// For a tool: the log's length at which it is emptied.
    log_bytes_long: u64,
    /// Released after the connection is closed, when this is dropped.
    _lock: Option<Lock>,
}

/// What the writer begins with.
pub(crate) struct Parts {
    pub(crate) opener: Opener,
    pub(crate) role: Role,
    pub(crate) bytes_max: u64,
    pub(crate) gather_max: Duration,
    pub(crate) orders: Receiver<Order>,
    pub(crate) states: Arc<States>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) connection: Connection,
    pub(crate) lock: Option<Lock>,
}

impl Writer {
    pub(crate) fn new(parts: Parts) -> Self {
        let now = Instant::now();
        Self {
            opener: parts.opener,
            role: parts.role,
            bytes_max: parts.bytes_max,
            gather_max: parts.gather_max,
            orders: parts.orders,
            states: parts.states,
            counters: parts.counters,
            connection: Some(parts.connection),
            expected: 1,
            trouble: None,
            at_limit: false,
            last_probe: now,
            last_commit: now,
            last_tidy: now,
            log_used: true,
            log_bytes_long: LOG_BYTES_LONG,
            _lock: parts.lock,
        }
    }

    /// Ends when it is told to, or when nobody can ask any more; the latter is no clean end.
    pub(crate) fn run(mut self) {
        self.look_at_limit();
        let mut closing = false;
        while !closing {
            match self.orders.recv_timeout(IDLE_AFTER) {
                Ok(Order::Piece(first)) => closing = self.serve(first),
                Ok(Order::Close) => closing = true,
                Err(RecvTimeoutError::Timeout) => self.tidy(true),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.trouble.is_some() && self.last_probe.elapsed() >= PROBE_INTERVAL {
                self.probe();
            }
            if self.last_tidy.elapsed() >= TIDY_INTERVAL {
                self.tidy(false);
            }
        }
        self.end(closing);
    }

    /// Gathers a group around the first request and commits it. Whether the end was asked for meanwhile.
    fn serve(&mut self, first: Box<dyn Piece>) -> bool {
        let (group, closing) = self.gather(first);
        self.expected = group.len();
        self.counters
            .requests
            .fetch_add(group.len() as u64, Ordering::Relaxed);
        self.commit(group);
        closing
    }

    /// What waits already is taken at once: it queued up during the last sync. Only when the group before was larger is
    /// it worth waiting, for those who were answered then and come again.
    fn gather(&self, first: Box<dyn Piece>) -> (Vec<Box<dyn Piece>>, bool) {
        let deadline = Instant::now() + self.gather_max;
        let mut bytes = first.bytes();
        let mut group = vec![first];
        while group.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX {
            let next = match self.orders.try_recv() {
                Err(TryRecvError::Empty) if group.len() < self.expected => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    self.orders.recv_timeout(left).ok()
                }
                next => next.ok(),
            };
            match next {
                Some(Order::Piece(piece)) => {
                    bytes += piece.bytes();
                    group.push(piece);
                }
                Some(Order::Close) => return (group, true),
                None => break,
            }
        }
        (group, false)
    }

    fn commit(&mut self, mut group: Vec<Box<dyn Piece>>) {
        let overall = self.run_group(&mut group).err();
        if let Some(error) = &overall {
            self.counters.failed_commits.fetch_add(1, Ordering::Relaxed);
            self.fall_into(error.clone());
        }
        if overall.is_none() && group.iter().any(|piece| piece.grows()) {
            self.states.arrivals.notify_one();
        }
        for piece in group {
            piece.answer(overall.clone());
        }
        self.last_commit = Instant::now();
        self.log_used = true;
        if self.role == Role::Tool && self.trouble.is_none() {
            self.empty_long_log();
        }
    }

    /// For a tool: as a daemon would, as long as none is there.
    fn empty_long_log(&mut self) {
        let bytes = log_bytes(self.opener.dir());
        if bytes < self.log_bytes_long {
            return;
        }
        // Where somebody reads for long, each try costs a wait: the next one comes when there is as much again.
        self.log_bytes_long = bytes + LOG_BYTES_LONG;
        let Ok(Some(_away)) = Lock::keep_daemons_away(self.opener.dir()) else {
            return;
        };
        self.with_connection(|writer, connection| {
            if empty_log_soon(connection)? {
                writer.log_bytes_long = LOG_BYTES_LONG;
            }
            Ok(())
        });
    }

    /// Runs everything in one transaction, each request apart. An error is everybody's: nothing is stored.
    fn run_group(&mut self, group: &mut [Box<dyn Piece>]) -> Result<(), JournalError> {
        let connection = self.connected()?;
        let ran = self.in_transaction(&connection, group);
        match ran {
            Ok(()) => self.connection = Some(connection),
            Err((error, spoiled)) => {
                // SQLite may have rolled back by itself already.
                let undone = connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok();
                if undone && !spoiled {
                    self.connection = Some(connection);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn in_transaction(
        &mut self,
        connection: &Connection,
        group: &mut [Box<dyn Piece>],
    ) -> Result<(), (JournalError, bool)> {
        let ours = |error: rusqlite::Error| (JournalError::from(&error), spoils_connection(&error));
        let execute = |sql: &str| {
            let executed = connection.prepare_cached(sql).and_then(|mut s| s.execute([]));
            executed.map(|_| ()).map_err(ours)
        };
        execute("BEGIN IMMEDIATE")?;
        if group.iter().any(|piece| piece.grows()) {
            self.measure(connection).map_err(ours)?;
        }
        for piece in group {
            if let Some(refusal) = self.refusal(piece.as_ref()) {
                piece.refuse(refusal);
                continue;
            }
            execute("SAVEPOINT piece")?;
            let ran = piece.run(connection);
            if let Ran::Spoiled(error) = ran {
                return Err((error, true));
            }
            if connection.is_autocommit() {
                // A full disk in the midst of it: SQLite undid the whole transaction.
                return Err((JournalError::Full, false));
            }
            if ran != Ran::Done {
                execute("ROLLBACK TO piece")?;
            }
            execute("RELEASE piece")?;
            if ran == Ran::Full {
                self.fall_into(JournalError::Full);
            }
        }
        execute("COMMIT")?;
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn refusal(&self, piece: &dyn Piece) -> Option<JournalError> {
        if piece.is_left() {
            return Some(JournalError::TimedOut);
        }
        if !piece.grows() {
            return None;
        }
        let refusal = match &self.trouble {
            Some(trouble) => Some(trouble.clone()),
            None => self.at_limit.then_some(JournalError::Full),
        };
        if refusal.is_some() {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        refusal
    }

    fn connected(&mut self) -> Result<Connection, JournalError> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let connection = self.opener.try_connect(Access::Write(self.role));
        let connection = connection.map_err(|error| JournalError::from(&error))?;
        self.counters.reconnects.fetch_add(1, Ordering::Relaxed);
        Ok(connection)
    }

    /// Pages in use, against the limit. What was freed is room again at once, also before it goes back to the disk.
    fn measure(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let in_use = pages(connection, "page_count")?.saturating_sub(pages(connection, "freelist_count")?);
        let bytes = in_use * pages(connection, "page_size")?;
        self.counters.bytes_in_use.store(bytes, Ordering::Relaxed);
        let at_limit = bytes >= self.bytes_max;
        if at_limit != self.at_limit {
            self.at_limit = at_limit;
            self.show();
        }
        Ok(())
    }

    fn look_at_limit(&mut self) {
        self.with_connection(Self::measure);
    }

    /// Nothing is accepted from here on, until a probe succeeds.
    fn fall_into(&mut self, trouble: JournalError) {
        if self.trouble.is_none() {
            tracing::warn!(error = %trouble, "the journal cannot write");
            self.last_probe = Instant::now();
        }
        if self.trouble.as_ref() != Some(&trouble) {
            self.trouble = Some(trouble);
            self.show();
        }
    }

    fn show(&self) {
        let blocked = |reason: String| QueueState::Blocked { reason };
        let working = match &self.trouble {
            Some(trouble) => blocked(trouble.to_string()),
            None => QueueState::Ready,
        };
        let accepting = match &self.trouble {
            None if self.at_limit => {
                blocked(format!("the journal holds its limit of {} bytes", self.bytes_max))
            }
            _ => working.clone(),
        };
        set(&self.states.working, working);
        set(&self.states.accepting, accepting);
    }

    /// Writes as an event would, so that being well again needs nobody who risks an event.
    fn probe(&mut self) {
        self.last_probe = Instant::now();
        let probed = self.connected().and_then(|connection| {
            let written = try_writing(&connection);
            match &written {
                Err(error) if spoils_connection(error) => {}
                _ => self.connection = Some(connection),
            }
            written.map_err(|error| JournalError::from(&error))
        });
        self.last_commit = Instant::now();
        self.log_used = true;
        match probed {
            Ok(()) => {
                tracing::info!("the journal can write again");
                self.trouble = None;
                self.show();
            }
            Err(error) => self.fall_into(error),
        }
    }

    /// Gives free pages back in small steps, and empties the log after a while without work.
    fn tidy(&mut self, idle: bool) {
        self.last_tidy = Instant::now();
        if self.role == Role::Tool || self.trouble.is_some() {
            return;
        }
        self.with_connection(|writer, connection| {
            writer.measure(connection)?;
            let free = pages(connection, "freelist_count")?;
            // A busy writer needs its free pages soon again; only when they are most of the file is it worth its time.
            let many = free > 4 * FREE_PAGES_KEPT && free > pages(connection, "page_count")? / 2;
            if free > FREE_PAGES_KEPT && (idle || many) {
                give_back(connection)?;
                writer.log_used = true;
            } else if idle && writer.is_log_due() {
                writer.log_used = !empty_log_soon(connection)?;
            }
            Ok(())
        });
    }

    /// A tool writes as well, and leaves the log to us.
    fn is_log_due(&self) -> bool {
        let at_rest = self.last_commit.elapsed() >= LOG_IDLE_AFTER;
        at_rest && (self.log_used || log_bytes(self.opener.dir()) >= LOG_BYTES_LONG)
    }

    /// For work of our own that nobody waits for: a fault of it shows at the next commit, too.
    fn with_connection(&mut self, work: impl FnOnce(&mut Self, &Connection) -> rusqlite::Result<()>) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        match work(self, &connection) {
            Err(error) if spoils_connection(&error) => {
                tracing::debug!(%error, "tidying the journal failed");
            }
            _ => self.connection = Some(connection),
        }
    }

    fn end(mut self, closed: bool) {
        if closed && self.role == Role::Daemon {
            self.with_connection(|_, connection| {
                connection.execute("UPDATE facts SET value = 1 WHERE name = 'clean_end'", [])?;
                empty_log(connection).map(|_| ())
            });
        }
        let states = Arc::clone(&self.states);
        // Connection and lock go before anybody is told, who might open the directory anew.
        drop(self);
        set(&states.accepting, QueueState::Stopped);
        set(&states.working, QueueState::Stopped);
    }
}

fn set(state: &watch::Sender<QueueState>, wanted: QueueState) {
    state.send_if_modified(|state| {
        let differs = *state != wanted;
        *state = wanted;
        differs
    });
}

fn pages(connection: &Connection, pragma: &str) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached(&format!("PRAGMA {pragma}"))?;
    statement.query_row([], |row| row.get(0))
}

fn try_writing(connection: &Connection) -> rusqlite::Result<()> {
    // Written, and then cut down again: two commits, since what is removed within one is never written.
    connection.execute("REPLACE INTO probe VALUES (1, zeroblob(?1))", [PROBE_BYTES])?;
    connection.execute("REPLACE INTO probe VALUES (1, x'')", [])?;
    Ok(())
}

fn give_back(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// [`empty_log`], without a long wait for whoever reads or writes.
fn empty_log_soon(connection: &Connection) -> rusqlite::Result<bool> {
    connection.busy_timeout(LOG_BUSY_MAX)?;
    let emptied = empty_log(connection);
    connection.busy_timeout(crate::file::BUSY_MAX)?;
    emptied
}

/// Copies the whole log into the file and cuts it to nothing. False when a reader was in the way.
fn empty_log(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        row.get::<_, i64>(0).map(|busy| busy == 0)
    })
}
