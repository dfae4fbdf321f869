//! The directory, and connections with the settings that durability and bounds rest on.
//!
//! What is in the file is the schema's; see [`crate::schema`].

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::config::{JournalConfig, Role};
use crate::error::OpenError;
use crate::lock::Lock;

/// The one file of a journal; SQLite keeps `-wal` and `-shm` beside it.
pub(crate) const FILE: &str = "porchlight.db";
/// How long a connection waits for another process's write. The operator's tool keeps its transactions far shorter.
pub(crate) const BUSY_MAX: Duration = Duration::from_secs(5);
/// Pages in the log at which a commit also checkpoints: 16 MiB. Fewer would copy hot pages more often; more would make
/// the pause of a checkpoint longer, and reading, which looks the log through, slower.
const CHECKPOINT_PAGES: u32 = 4000;
/// What the log's file is cut down to when it starts again. Kept at its normal size: growing it costs metadata writes at
/// each commit, and while the disk is full the space in hand lets work be finished.
pub(crate) const LOG_BYTES_KEPT: u64 = 24 << 20;
/// Page cache of one connection, in KiB. All connections together stay far below the process's 150 MiB.
const CACHE_KIB: u32 = 16 << 10;
/// SQLite's number for giving free pages back when told to.
const AUTO_VACUUM_INCREMENTAL: i64 = 2;
/// Prepared statements kept by a connection.
const STATEMENTS_MAX: usize = 128;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// The one that writes and checkpoints.
    Write(Role),
    /// One that only reads.
    Read,
}

/// Opens connections to one file, the first one and those that follow after a fault.
#[derive(Debug, Clone)]
pub(crate) struct Opener {
    pub(crate) path: PathBuf,
    pages_max: Option<u32>,
}

/// Makes the directory and the file where they do not exist, and takes the daemon's lock.
pub(crate) fn prepare(config: &JournalConfig, role: Role) -> Result<(Opener, Option<Lock>), OpenError> {
    let path = config.dir.join(FILE);
    let lock = match role {
        Role::Tool => {
            if !path.is_file() {
                return Err(OpenError::Missing { path });
            }
            None
        }
        Role::Daemon => {
            make_dir(&config.dir)?;
            let lock = Lock::take(&config.dir)?;
            make_file(&config.dir, &path)?;
            Some(lock)
        }
    };
    let opener = Opener {
        path,
        pages_max: config.pages_max,
    };
    Ok((opener, lock))
}

fn make_dir(dir: &Path) -> Result<(), OpenError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(at(dir))
}

/// The write-ahead log; what cannot be seen counts as nothing.
pub(crate) fn log_bytes(dir: &Path) -> u64 {
    std::fs::metadata(dir.join(format!("{FILE}-wal"))).map_or(0, |file| file.len())
}

/// The file and its write-ahead log; what cannot be seen counts as nothing.
pub(crate) fn bytes_on_disk(dir: &Path) -> u64 {
    std::fs::metadata(dir.join(FILE)).map_or(0, |file| file.len()) + log_bytes(dir)
}

/// An empty file is an empty database to SQLite, which would make it readable for others.
fn make_file(dir: &Path, path: &Path) -> Result<(), OpenError> {
    match OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
    {
        // A name survives a power cut only when its directory was synced, too.
        Ok(_) => File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(at(path)(error)),
    }
}

pub(crate) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> OpenError {
    let path = path.to_owned();
    |source| OpenError::Path { path, source }
}

impl Opener {
    /// Where the file lies.
    pub(crate) fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// A connection with everything set.
    pub(crate) fn connect(&self, access: Access) -> Result<Connection, OpenError> {
        self.try_connect(access).map_err(|error| self.explain(error))
    }

    /// A connection to a file that is known to be ours.
    pub(crate) fn try_connect(&self, access: Access) -> rusqlite::Result<Connection> {
        let connection = self.try_begin(access)?;
        if let Access::Write(role) = access {
            set_writing(&connection, self, role)?;
        }
        Ok(connection)
    }

    /// A connection that has not changed the file in any way yet.
    pub(crate) fn begin(&self, access: Access) -> Result<Connection, OpenError> {
        self.try_begin(access).map_err(|error| self.explain(error))
    }

    fn try_begin(&self, access: Access) -> rusqlite::Result<Connection> {
        // Each connection stays with one thread, so SQLite's own mutexes are of no use.
        let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX
            | match access {
                Access::Write(_) => OpenFlags::SQLITE_OPEN_READ_WRITE,
                Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
            };
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY_MAX)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "cache_size", -i64::from(CACHE_KIB))?;
        // A disk fault under a memory map is a signal that kills the process instead of an error.
        connection.pragma_update(None, "mmap_size", 0)?;
        // So far, because a refused file is left as it is; see `set_writing`.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        Ok(connection)
    }

    pub(crate) fn explain(&self, error: rusqlite::Error) -> OpenError {
        let path = self.path.clone();
        let extended = error.sqlite_error().map(|error| error.extended_code);
        match error.sqlite_error_code() {
            // Something points to a page that the file has not.
            _ if extended == Some(rusqlite::ffi::SQLITE_IOERR_SHORT_READ) => OpenError::Damaged {
                path,
                detail: "it ends too early".to_owned(),
            },
            Some(ErrorCode::NotADatabase) => OpenError::Foreign {
                path,
                found: "it is not an SQLite database",
            },
            Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged {
                path,
                detail: error.to_string(),
            },
            _ => OpenError::Sqlite { path, source: error },
        }
    }
}

/// The settings of a connection that writes.
pub(crate) fn set_writing(connection: &Connection, opener: &Opener, role: Role) -> rusqlite::Result<()> {
    // Takes effect in an empty file only; in any other it would be a write, which a full disk refuses. Without it, free
    // pages could not be given back a few at a time.
    let vacuum: i64 = connection.pragma_query_value(None, "auto_vacuum", |row| row.get(0))?;
    if vacuum != AUTO_VACUUM_INCREMENTAL {
        connection.pragma_update(None, "auto_vacuum", AUTO_VACUUM_INCREMENTAL)?;
    }
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
        let detail = "the file system has no shared memory, as some network file systems";
        return Err(rusqlite::Error::SqliteFailure(code, Some(detail.to_owned())));
    }
    // A commit is on the disk before it is answered; NORMAL would sync at checkpoints only.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // On Apple's systems a plain sync may stay in the drive's own cache. Elsewhere these two mean nothing.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // One process checkpoints. A tool leaves the log to the daemon, unless it grows long and there is none.
    let checkpoint_pages = match role {
        Role::Daemon => {
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
            CHECKPOINT_PAGES
        }
        Role::Tool => 0,
    };
    connection.pragma_update(None, "wal_autocheckpoint", checkpoint_pages)?;
    if let Some(pages_max) = opener.pages_max {
        connection.pragma_update(None, "max_page_count", pages_max)?;
    }
    Ok(())
}
