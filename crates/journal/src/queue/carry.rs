//! Carrying the queue out and in: the events that still wait, and letters as they were elsewhere.
//!
//! Nothing is taken out by looking. Events come in as any others do; see [`Queue::accept`] and [`Queue::put_off`].

use porchlight_event::Envelope;
use porchlight_event::queue::DeadLetter;
use rusqlite::Connection;
use tokio::time::Instant;

use super::rows::{self, ENVELOPE, Letter, envelope_in};
use super::{Limits, Queue, now_ms};
use crate::error::{JournalError, WorkError};

/// Bytes of bodies that one page holds, at most; a single larger event is a page of its own.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// An event that waits.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Its number within its table.
    pub seq: i64,
    /// The event.
    pub envelope: Envelope,
    /// When its time has come, in milliseconds since the epoch; `None` for one that may be worked on now.
    pub due_at_ms: Option<i64>,
}

impl Queue {
    /// Up to `count_max` events after that number, 0 for the oldest, in their order; those that are put off, or the
    /// others. Fewer when they are large, none only at the end.
    ///
    /// # Errors
    /// [`JournalError`]
    pub async fn waiting(
        &self,
        is_put_off: bool,
        after_seq: i64,
        count_max: usize,
        until: Instant,
    ) -> Result<Vec<Waiting>, JournalError> {
        let look = move |connection: &Connection| match is_put_off {
            true => put_off(connection, after_seq, count_max),
            false => {
                let events = rows::read_events(connection, after_seq, count_max, PAGE_BYTES_MAX)?;
                let waiting = events.into_iter().map(|event| Waiting {
                    seq: event.seq,
                    envelope: event.envelope,
                    due_at_ms: None,
                });
                Ok(waiting.collect())
            }
        };
        self.journal.read(until, look).await
    }

    /// Stores a letter as it was elsewhere, as the newest. False when it is here already: one of the same id that died at
    /// the same time for the same reason.
    ///
    /// # Errors
    /// [`JournalError`]; `Full` when the journal is full.
    pub async fn bring_letter(&self, letter: &DeadLetter, limits: Limits) -> Result<bool, JournalError> {
        let bytes = letter.envelope.body.len();
        let letter = Letter {
            dead_at_ms: letter.dead_at_ms.unwrap_or_else(now_ms),
            envelope: letter.envelope.clone(),
            replayed_at_ms: None,
            origin: letter.origin,
            routing_key: letter.routing_key.clone(),
            reason: letter.reason.clone(),
            stage: letter.stage.clone(),
            detail: letter.detail.clone(),
            delivery_count: letter.delivery_count,
        };
        let work = move |connection: &Connection| {
            let mut find = connection.prepare_cached(
                "SELECT 1 FROM dead WHERE message_id = ?1 AND dead_at_ms = ?2 AND reason = ?3",
            )?;
            if find.exists((&letter.envelope.message_id, letter.dead_at_ms, &letter.reason))? {
                return Ok(false);
            }
            rows::insert_letter(connection, &letter)?;
            Ok(true)
        };
        let Limits { slot_until, until } = limits;
        self.journal.put_in(slot_until, until, bytes, work).await
    }
}

fn put_off(connection: &Connection, after_seq: i64, count_max: usize) -> Result<Vec<Waiting>, WorkError> {
    let sql = format!("SELECT {ENVELOPE}, seq, due_at_ms FROM retries WHERE seq > ?1 ORDER BY seq LIMIT ?2");
    let mut asked = connection.prepare_cached(&sql)?;
    let mut rows = asked.query((after_seq, count_max))?;
    let (mut waiting, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let envelope = envelope_in(row)?;
        bytes += envelope.body.len();
        if bytes > PAGE_BYTES_MAX && !waiting.is_empty() {
            break;
        }
        waiting.push(Waiting {
            seq: row.get("seq")?,
            envelope,
            due_at_ms: Some(row.get("due_at_ms")?),
        });
    }
    Ok(waiting)
}
