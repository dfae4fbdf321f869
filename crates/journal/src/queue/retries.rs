//! Events whose time has come go to the back of the queue.
//!
//! When to look is the source's.

use std::time::Duration;

use rusqlite::Connection;

use super::millis;
use super::rows::{ENVELOPE, Table, signed};
use crate::error::WorkError;

/// Whether [`promote`] would move anything.
pub(crate) fn is_due(connection: &Connection, now_ms: i64, longest: Duration) -> Result<bool, WorkError> {
    let horizon = now_ms.saturating_add(millis(longest));
    let mut asked = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM retries WHERE due_at_ms <= ?1) \
         OR EXISTS (SELECT 1 FROM retries WHERE due_at_ms > ?2)",
    )?;
    Ok(asked.query_row((now_ms, horizon), |row| row.get(0))?)
}

/// Moves up to `count_max` events that are due; how many that were. Also due is what lies further ahead than any tier:
/// the clock was set back since.
pub(crate) fn promote(
    connection: &Connection,
    now_ms: i64,
    longest: Duration,
    count_max: usize,
) -> Result<usize, WorkError> {
    let mut due = connection.prepare_cached(
        "SELECT seq, length(body) FROM retries WHERE due_at_ms <= ?1 OR due_at_ms > ?2 ORDER BY due_at_ms, seq LIMIT ?3",
    )?;
    let horizon = now_ms.saturating_add(millis(longest));
    let rows = due.query_map((now_ms, horizon, count_max), |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
    })?;
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    let copy = format!(
        "INSERT INTO events ({ENVELOPE}, stored_at_ms) SELECT {ENVELOPE}, ?2 FROM retries WHERE seq = ?1"
    );
    for (seq, _) in &rows {
        connection.prepare_cached(&copy)?.execute((seq, now_ms))?;
        connection
            .prepare_cached("DELETE FROM retries WHERE seq = ?1")?
            .execute([seq])?;
    }
    let bytes = rows.iter().map(|(_, bytes)| bytes).sum::<i64>();
    let count = signed(rows.len());
    if count > 0 {
        Table::Events.add(connection, count, bytes)?;
        Table::Retries.add(connection, -count, -bytes)?;
    }
    Ok(rows.len())
}
