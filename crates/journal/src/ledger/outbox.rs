//! Owed commands: taken by a sweeper for a while, counted, and made due at once.
//!
//! It does not send them, and they are not struck off here; that is a step of their device.

use porchlight_device::Command;
use porchlight_device::ledger::{Backlog, HOLD_MS_MAX, hold_ms};
use rusqlite::{Connection, params};

use super::records::{FIND_DEVICE, find};
use super::rows;
use crate::error::WorkError;

/// Most commands that one call claims; bounds what it holds in memory.
pub(super) const CLAIM_MAX: usize = 1024;

/// Whether [`claim`] would take anything, without writing.
pub(super) fn is_due(connection: &Connection, now_ms: i64, horizon_ms: i64) -> Result<bool, WorkError> {
    let mut asked = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM operations WHERE due <= ?1) \
         OR EXISTS (SELECT 1 FROM operations WHERE due > ?2)",
    )?;
    Ok(asked.query_row([now_ms, horizon_ms], |row| row.get(0))?)
}

/// Takes commands that are due and puts each off. One that cannot be read is put off, too, and does not stand in the way
/// of the others. Also due is what lies beyond the horizon, further ahead than anything is ever put off: the clock was
/// set back since.
pub(super) fn claim(
    connection: &Connection,
    now_ms: i64,
    horizon_ms: i64,
    limit: usize,
) -> Result<Vec<Command>, WorkError> {
    connection
        .prepare_cached(
            "UPDATE operations SET due = ?1, first_due = ?1 WHERE (place, id) IN
                (SELECT place, id FROM operations WHERE due > ?2 LIMIT ?3)",
        )?
        .execute(params![now_ms, horizon_ms, CLAIM_MAX])?;
    let mut find = connection.prepare_cached(
        "SELECT place, id, owed, first_due FROM operations WHERE due <= ?1 ORDER BY due LIMIT ?2",
    )?;
    let mut held = Vec::new();
    let mut claimed = Vec::new();
    let mut due = find.query(params![now_ms, limit.min(CLAIM_MAX)])?;
    while let Some(row) = due.next()? {
        let (place, id): (i64, String) = (row.get(0)?, row.get(1)?);
        let command = row.get_ref(2)?.as_blob_or_null().ok().flatten();
        let hold = match command.and_then(rows::unpack_command) {
            Some(command) => {
                let first_due: i64 = row.get::<_, Option<i64>>(3)?.unwrap_or(now_ms);
                claimed.push(command);
                hold_ms(now_ms.saturating_sub(first_due), fastrand::f64())
            }
            None => {
                tracing::warn!("an owed command cannot be read and is left where it is");
                HOLD_MS_MAX
            }
        };
        held.push((place, id, now_ms.saturating_add(hold)));
    }
    drop(due);
    let mut hold =
        connection.prepare_cached("UPDATE operations SET due = ?3 WHERE place = ?1 AND id = ?2")?;
    for held in held {
        hold.execute(held)?;
    }
    Ok(claimed)
}

/// Makes due again what a claim holds back, each at the time at which it was due first: who claimed it is gone, and a
/// resume that its device has to settle for was not claimed yet.
pub(crate) fn release_claimed(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE operations SET due = first_due WHERE due > first_due", [])?;
    Ok(())
}

/// Makes what an operation owes due now.
pub(super) fn hasten(connection: &Connection, command: &Command, now_ms: i64) -> Result<(), WorkError> {
    let mut find_device = connection.prepare_cached(FIND_DEVICE)?;
    let (place, _) = find(&mut find_device, &command.device_id)?;
    connection
        .prepare_cached("UPDATE operations SET due = ?3 WHERE place = ?1 AND id = ?2 AND due > ?3")?
        .execute(params![place, command.operation_id, now_ms])?;
    Ok(())
}

/// How much is owed.
pub(super) fn backlog(connection: &Connection) -> Result<Backlog, WorkError> {
    let mut count =
        connection.prepare_cached("SELECT count(*), min(since) FROM operations WHERE due IS NOT NULL")?;
    let (commands, oldest_ms) = count.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Backlog {
        commands,
        oldest_ms,
        accounts_to_tell: 0,
    })
}
