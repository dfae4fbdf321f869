//! What a crash costs the events that were in hand: one of their returns, and in the end their place in the queue.
//!
//! It runs once, before anything is taken.

use rusqlite::Connection;

use super::fact;
use super::rows::{ENVELOPE, Table, signed};
use crate::error::WorkError;

/// The queue's own word for an event that came back too often, the same as RabbitMQ's.
pub(crate) const DELIVERY_LIMIT: &str = "delivery_limit";
/// Charges everything that had been taken with one return, and buries what came back too often: among the events in
/// hand may be the one that ends the process each time.
pub(crate) fn charge_taken(connection: &Connection, returns_max: u32, now_ms: i64) -> Result<(), WorkError> {
    let taken_through = fact(connection, "taken_through")?;
    connection.execute(
        "UPDATE events SET delivery_count = delivery_count + 1 WHERE seq <= ?1",
        [taken_through],
    )?;
    // The comparison with 0 is what lets SQLite use the small index.
    let (count, bytes): (i64, i64) = connection.query_row(
        "SELECT count(*), coalesce(sum(length(body)), 0) FROM events WHERE delivery_count > 0 AND delivery_count > ?1",
        [returns_max],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if count > 0 {
        let bury = format!(
            "INSERT INTO dead ({ENVELOPE}, origin, routing_key, reason, dead_at_ms, delivery_count) \
             SELECT {ENVELOPE}, 'event', '', ?2, ?3, delivery_count FROM events WHERE delivery_count > 0 AND delivery_count > ?1 ORDER BY seq"
        );
        let buried = connection.execute(&bury, (returns_max, DELIVERY_LIMIT, now_ms))?;
        connection.execute(
            "DELETE FROM events WHERE delivery_count > 0 AND delivery_count > ?1",
            [returns_max],
        )?;
        debug_assert_eq!(signed(buried), count);
        Table::Events.add(connection, -count, -bytes)?;
        Table::Dead.add(connection, count, bytes)?;
    }
    Ok(())
}
