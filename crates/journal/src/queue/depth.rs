//! How much waits, is in hand, is put off and is dead; cheap however much it is.
//!
//! Who consumes is not seen here.

use rusqlite::{Connection, OptionalExtension as _};
use tokio::time::Instant;

use super::rows::Table;
use super::{Queue, fact};
use crate::error::{JournalError, WorkError};

/// How much there is, as of one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Waiting to be taken.
    pub ready: Pile,
    /// Taken and not acked.
    pub in_hand: Pile,
    /// Put off until their time has come.
    pub put_off: Pile,
    /// Dead letters.
    pub dead: Pile,
}

/// Some rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pile {
    /// How many.
    pub count: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// When the oldest was stored, in milliseconds since the epoch; `None` when there is none.
    pub oldest_at_ms: Option<i64>,
}

impl Queue {
    /// How much there is.
    ///
    /// # Errors
    /// [`JournalError`]
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn depth(&self, until: Instant) -> Result<Depth, JournalError> {
        self.journal.read(until, measure).await
    }
}

fn measure(connection: &Connection) -> Result<Depth, WorkError> {
    // Few rows at most: what one source may have in hand.
    let taken_through = fact(connection, "taken_through")?;
    let (count, bytes) = connection
        .prepare_cached("SELECT count(*), coalesce(sum(length(body)), 0) FROM events WHERE seq <= ?1")?
        .query_row([taken_through], |row| {
            Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?))
        })?;
    let in_hand = Pile {
        count,
        bytes,
        oldest_at_ms: oldest(
            connection,
            "SELECT stored_at_ms FROM events WHERE seq <= ?1 ORDER BY seq LIMIT 1",
            taken_through,
        )?,
    };
    let (count, bytes) = Table::Events.totals(connection)?;
    let ready = Pile {
        count: count.saturating_sub(in_hand.count),
        bytes: bytes.saturating_sub(in_hand.bytes),
        oldest_at_ms: oldest(
            connection,
            "SELECT stored_at_ms FROM events WHERE seq > ?1 ORDER BY seq LIMIT 1",
            taken_through,
        )?,
    };
    let pile = |table: Table, sql: &str| {
        let (count, bytes) = table.totals(connection)?;
        Ok::<_, WorkError>(Pile {
            count,
            bytes,
            oldest_at_ms: oldest(connection, sql, 0)?,
        })
    };
    Ok(Depth {
        ready,
        in_hand,
        put_off: pile(
            Table::Retries,
            "SELECT stored_at_ms FROM retries WHERE seq > ?1 ORDER BY seq LIMIT 1",
        )?,
        dead: pile(
            Table::Dead,
            "SELECT dead_at_ms FROM dead WHERE seq > ?1 ORDER BY seq LIMIT 1",
        )?,
    })
}

fn oldest(connection: &Connection, sql: &str, after: i64) -> Result<Option<i64>, WorkError> {
    let mut asked = connection.prepare_cached(sql)?;
    Ok(asked.query_row([after], |row| row.get(0)).optional()?)
}
