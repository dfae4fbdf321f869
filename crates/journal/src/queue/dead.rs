//! Dead letters: looking at them without consuming any, sending one round again, and removing one.
//!
//! Which of them is worth it is the caller's.

use porchlight_event::queue::{DeadLetter, Origin};
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::time::Instant;

use super::rows::{ENVELOPE, LETTER, Table, letter_in};
use super::{Queue, now_ms};
use crate::error::{JournalError, WorkError};

/// Bytes of bodies that one page holds, at most; a single larger letter is a page of its own.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// A letter and its number: its place in the order of deaths, never used again.
#[derive(Debug, Clone)]
pub struct Numbered {
    /// The number.
    pub seq: i64,
    /// The letter.
    pub letter: DeadLetter,
}

/// Letters in the order of their deaths.
#[derive(Debug, Clone, Default)]
pub struct LetterPage {
    /// The letters.
    pub letters: Vec<Numbered>,
    /// Letters in the queue at that moment.
    pub total: u64,
    /// The newest letter's number at that moment; 0 when there is none. What dies later has a larger one.
    pub last_seq: i64,
}

impl Queue {
    /// Up to `count_max` letters after that number, 0 for the oldest; fewer when they are large.
    ///
    /// # Errors
    /// [`JournalError`]
    pub async fn letters(
        &self,
        after_seq: i64,
        count_max: usize,
        until: Instant,
    ) -> Result<LetterPage, JournalError> {
        let look = move |connection: &Connection| {
            let sql = format!("SELECT {ENVELOPE}, {LETTER} FROM dead WHERE seq > ?1 ORDER BY seq LIMIT ?2");
            Ok(LetterPage {
                letters: collect(connection, &sql, params![after_seq, count_max])?,
                total: Table::Dead.totals(connection)?.0,
                last_seq: last_seq(connection)?,
            })
        };
        self.journal.read(until, look).await
    }

    /// Up to `count_max` letters whose message id begins so, oldest first.
    ///
    /// # Errors
    /// [`JournalError`]
    pub async fn letters_named(
        &self,
        id_prefix: &str,
        count_max: usize,
        until: Instant,
    ) -> Result<Vec<Numbered>, JournalError> {
        let prefix = id_prefix.to_owned();
        let look = move |connection: &Connection| {
            // No text is larger than one that continues with the last character there is.
            let end = format!("{prefix}\u{10ffff}");
            let sql = format!(
                "SELECT {ENVELOPE}, {LETTER} FROM dead WHERE message_id >= ?1 AND message_id < ?2 ORDER BY seq LIMIT ?3"
            );
            collect(connection, &sql, params![prefix, end, count_max])
        };
        self.journal.read(until, look).await
    }

    /// Moves one letter that was an event back to the events, with one replay more: it is in one of both places at any
    /// moment. False when the letter is gone or was no event.
    ///
    /// # Errors
    /// [`JournalError`]
    pub async fn replay_letter(&self, seq: i64, until: Instant) -> Result<bool, JournalError> {
        let work = move |connection: &Connection| {
            let copy = format!(
                "INSERT INTO events (message_id, body, received_at_ms, key_name, signature, content_type, \
                 content_encoding, traceparent, attempt, replay, replayed_at_ms, stored_at_ms) \
                 SELECT message_id, body, received_at_ms, key_name, signature, content_type, content_encoding, \
                 traceparent, attempt, min(replay + 1, {}), ?2, ?2 FROM dead WHERE seq = ?1 AND origin = ?3",
                u32::MAX
            );
            let mut copy = connection.prepare_cached(&copy)?;
            if copy.execute(params![seq, now_ms(), Origin::Event.as_str()])? == 0 {
                return Ok(false);
            }
            let bytes = remove(connection, seq)?.unwrap_or(0);
            Table::Events.add(connection, 1, bytes)?;
            Ok(true)
        };
        let moved = self.journal.write(until, work).await?;
        self.journal.wake_source();
        Ok(moved)
    }

    /// Removes one letter for good. False when it is gone already.
    ///
    /// # Errors
    /// [`JournalError`]
    pub async fn drop_letter(&self, seq: i64, until: Instant) -> Result<bool, JournalError> {
        let work = move |connection: &Connection| Ok(remove(connection, seq)?.is_some());
        self.journal.write(until, work).await
    }
}

fn collect(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<Numbered>, WorkError> {
    let mut asked = connection.prepare_cached(sql)?;
    let mut rows = asked.query(params)?;
    let (mut letters, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let letter = letter_in(row)?;
        bytes += letter.envelope.body.len();
        if bytes > PAGE_BYTES_MAX && !letters.is_empty() {
            break;
        }
        letters.push(Numbered {
            seq: row.get("seq")?,
            letter,
        });
    }
    Ok(letters)
}

fn last_seq(connection: &Connection) -> Result<i64, WorkError> {
    let mut asked = connection.prepare_cached("SELECT coalesce(max(seq), 0) FROM dead")?;
    Ok(asked.query_row([], |row| row.get(0))?)
}

/// Bytes of the removed letter's body; `None` when there was none.
fn remove(connection: &Connection, seq: i64) -> Result<Option<i64>, WorkError> {
    let mut delete = connection.prepare_cached("DELETE FROM dead WHERE seq = ?1 RETURNING length(body)")?;
    let bytes: Option<i64> = delete.query_row([seq], |row| row.get(0)).optional()?;
    if let Some(bytes) = bytes {
        Table::Dead.add(connection, -1, -bytes)?;
    }
    Ok(bytes)
}
