//! What an operator sees of the file itself: how much of it is in use, how large it may become, and who holds it.
//!
//! What is in it is the queue's and the ledger's.

use rusqlite::{Connection, OptionalExtension as _};
use tokio::time::Instant;

use crate::error::{JournalError, WorkError};
use crate::journal::Journal;
use crate::{file, lock};

/// The file at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Whether a daemon holds the directory.
    pub is_held: bool,
    /// Bytes of the pages in use; the file may be larger, for what was freed is kept for a while.
    pub bytes_in_use: u64,
    /// Bytes in use at which the daemon that opened it last accepts no more.
    pub bytes_max: u64,
    /// Bytes on the disk, the write-ahead log included.
    pub bytes_on_disk: u64,
}

impl Journal {
    /// Looks at the file, from the daemon's process or from another one.
    ///
    /// # Errors
    /// [`JournalError`]
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn look(&self, until: Instant) -> Result<Look, JournalError> {
        let dir = self.config().dir.clone();
        let measure = |connection: &Connection| {
            let bytes_max = "SELECT value FROM facts WHERE name = 'bytes_max'";
            let bytes_max: Option<i64> = connection.query_row(bytes_max, [], |row| row.get(0)).optional()?;
            Ok((bytes_in_use(connection)?, bytes_max))
        };
        let (bytes_in_use, bytes_max) = self.read(until, measure).await?;
        let failed = |error: std::io::Error| JournalError::Failed(error.to_string());
        Ok(Look {
            is_held: lock::is_held(&dir).map_err(failed)?,
            bytes_in_use,
            bytes_max: bytes_max
                .and_then(|bytes| u64::try_from(bytes).ok())
                .unwrap_or(self.config().bytes_max),
            bytes_on_disk: file::bytes_on_disk(&dir),
        })
    }
}

fn bytes_in_use(connection: &Connection) -> Result<u64, WorkError> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    let in_use = number("page_count")?.saturating_sub(number("freelist_count")?);
    Ok(in_use * number("page_size")?)
}
