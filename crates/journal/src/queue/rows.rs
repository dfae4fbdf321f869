//! Envelopes as rows, both ways, and the totals that are kept beside them.
//!
//! Which rows are due, in hand or dead is decided elsewhere.

use bytes::Bytes;
use porchlight_event::Envelope;
use porchlight_event::envelope::header;
use porchlight_event::queue::{DeadLetter, Death, DeathNote, Origin};
use rusqlite::{Connection, Row, named_params};

use super::DELIVERY_LIMIT;
use crate::error::WorkError;

/// The columns of an envelope, in every table alike.
pub(super) const ENVELOPE: &str = "message_id, body, received_at_ms, key_name, signature, content_type, \
     content_encoding, traceparent, attempt, replay, replayed_at_ms";

/// A table that the totals are kept of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Events,
    Retries,
    Dead,
}

/// A row of `events`.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) seq: i64,
    pub(crate) delivery_count: u64,
    pub(crate) envelope: Envelope,
}

/// A row of `dead` on its way in.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) envelope: Envelope,
    pub(super) replayed_at_ms: Option<i64>,
    pub(super) origin: Origin,
    pub(super) routing_key: String,
    pub(super) reason: String,
    pub(super) stage: Option<String>,
    pub(super) detail: Option<String>,
    pub(super) dead_at_ms: i64,
    pub(super) delivery_count: u64,
}

impl Table {
    fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Retries => "retries",
            Self::Dead => "dead",
        }
    }

    /// Every change of a table's rows goes through here in the same transaction.
    pub(super) fn add(self, connection: &Connection, count: i64, bytes: i64) -> Result<(), WorkError> {
        let mut update = connection
            .prepare_cached("UPDATE totals SET count = count + ?2, bytes = bytes + ?3 WHERE name = ?1")?;
        update.execute((self.name(), count, bytes))?;
        Ok(())
    }

    pub(super) fn totals(self, connection: &Connection) -> Result<(u64, u64), WorkError> {
        let mut asked = connection.prepare_cached("SELECT count, bytes FROM totals WHERE name = ?1")?;
        Ok(asked.query_row([self.name()], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }
}

pub(super) fn insert_event(
    connection: &Connection,
    envelope: &Envelope,
    now_ms: i64,
) -> Result<(), WorkError> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO events (stored_at_ms, message_id, body, received_at_ms, key_name, signature, content_type, \
         content_encoding, traceparent, attempt, replay) VALUES (:now, :id, :body, :received, :key, :signature, \
         :type, :encoding, :trace, :attempt, :replay)",
    )?;
    insert.execute(named_params! {
        ":now": now_ms,
        ":id": envelope.message_id,
        ":body": &envelope.body[..],
        ":received": envelope.received_at_ms,
        ":key": envelope.key_name,
        ":signature": envelope.signature,
        ":type": envelope.content_type,
        ":encoding": envelope.content_encoding,
        ":trace": envelope.traceparent,
        ":attempt": envelope.attempt,
        ":replay": envelope.replay,
    })?;
    Table::Events.add(connection, 1, length(&envelope.body))
}

pub(super) fn insert_retry(
    connection: &Connection,
    envelope: &Envelope,
    now_ms: i64,
    due_at_ms: i64,
) -> Result<(), WorkError> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO retries (stored_at_ms, due_at_ms, message_id, body, received_at_ms, key_name, signature, \
         content_type, content_encoding, traceparent, attempt, replay) VALUES (:now, :due, :id, :body, :received, \
         :key, :signature, :type, :encoding, :trace, :attempt, :replay)",
    )?;
    insert.execute(named_params! {
        ":now": now_ms,
        ":due": due_at_ms,
        ":id": envelope.message_id,
        ":body": &envelope.body[..],
        ":received": envelope.received_at_ms,
        ":key": envelope.key_name,
        ":signature": envelope.signature,
        ":type": envelope.content_type,
        ":encoding": envelope.content_encoding,
        ":trace": envelope.traceparent,
        ":attempt": envelope.attempt,
        ":replay": envelope.replay,
    })?;
    Table::Retries.add(connection, 1, length(&envelope.body))
}

pub(super) fn insert_letter(connection: &Connection, letter: &Letter) -> Result<(), WorkError> {
    let envelope = &letter.envelope;
    let mut insert = connection.prepare_cached(
        "INSERT INTO dead (origin, routing_key, reason, stage, detail, dead_at_ms, delivery_count, message_id, body, \
         received_at_ms, key_name, signature, content_type, content_encoding, traceparent, attempt, replay, \
         replayed_at_ms) VALUES (:origin, :routing, :reason, :stage, :detail, :at, :count, :id, :body, :received, \
         :key, :signature, :type, :encoding, :trace, :attempt, :replay, :replayed)",
    )?;
    insert.execute(named_params! {
        ":origin": letter.origin.as_str(),
        ":routing": letter.routing_key,
        ":reason": letter.reason,
        ":stage": letter.stage,
        ":detail": letter.detail,
        ":at": letter.dead_at_ms,
        ":count": letter.delivery_count,
        ":id": envelope.message_id,
        ":body": &envelope.body[..],
        ":received": envelope.received_at_ms,
        ":key": envelope.key_name,
        ":signature": envelope.signature,
        ":type": envelope.content_type,
        ":encoding": envelope.content_encoding,
        ":trace": envelope.traceparent,
        ":attempt": envelope.attempt,
        ":replay": envelope.replay,
        ":replayed": letter.replayed_at_ms,
    })?;
    Table::Dead.add(connection, 1, length(&envelope.body))
}

/// Events behind `after`, in order: at most `count_max`, and no more than fit `bytes_max`, but at least one.
pub(crate) fn read_events(
    connection: &Connection,
    after: i64,
    count_max: usize,
    bytes_max: usize,
) -> Result<Vec<Event>, WorkError> {
    let sql =
        format!("SELECT {ENVELOPE}, seq, delivery_count FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2");
    let mut asked = connection.prepare_cached(&sql)?;
    let mut rows = asked.query((after, count_max))?;
    let (mut events, mut bytes) = (Vec::new(), 0_usize);
    while let Some(row) = rows.next()? {
        let length = row.get_ref(1)?.as_bytes().map_or(0, <[u8]>::len);
        bytes = bytes.saturating_add(length);
        if bytes > bytes_max && !events.is_empty() {
            break;
        }
        events.push(Event {
            seq: row.get("seq")?,
            delivery_count: row.get("delivery_count")?,
            envelope: envelope_in(row)?,
        });
    }
    Ok(events)
}

/// Removes every event up to and including `seq`; how many that were.
pub(crate) fn remove_through(connection: &Connection, seq: i64) -> Result<usize, WorkError> {
    let mut sum =
        connection.prepare_cached("SELECT coalesce(sum(length(body)), 0) FROM events WHERE seq <= ?1")?;
    let bytes: i64 = sum.query_row([seq], |row| row.get(0))?;
    let mut delete = connection.prepare_cached("DELETE FROM events WHERE seq <= ?1")?;
    let count = delete.execute([seq])?;
    Table::Events.add(connection, -signed(count), -bytes)?;
    Ok(count)
}

/// The envelope in a row that begins with the columns of [`ENVELOPE`].
pub(super) fn envelope_in(row: &Row<'_>) -> rusqlite::Result<Envelope> {
    Ok(Envelope {
        message_id: row.get(0)?,
        body: Bytes::from(row.get::<_, Vec<u8>>(1)?),
        received_at_ms: row.get(2)?,
        key_name: row.get(3)?,
        signature: row.get(4)?,
        content_type: row.get(5)?,
        content_encoding: row.get(6)?,
        traceparent: row.get(7)?,
        attempt: row.get(8)?,
        replay: row.get(9)?,
    })
}

/// The letter in a row of [`ENVELOPE`] and [`LETTER`].
pub(super) fn letter_in(row: &Row<'_>) -> Result<DeadLetter, WorkError> {
    let envelope = envelope_in(row)?;
    let replayed_at_ms: Option<i64> = row.get(10)?;
    let word: String = row.get("origin")?;
    let origin = Origin::from_word(&word).ok_or(WorkError::Unreadable("a dead letter"))?;
    let (reason, stage): (String, Option<String>) = (row.get("reason")?, row.get("stage")?);
    let (detail, dead_at_ms): (Option<String>, i64) = (row.get("detail")?, row.get("dead_at_ms")?);
    // The queue itself leaves no stage.
    let deaths = match stage {
        None if reason == DELIVERY_LIMIT => vec![Death {
            queue: "porchlight.events".to_owned(),
            reason: reason.clone(),
            count: 1,
            at_ms: Some(dead_at_ms),
        }],
        _ => Vec::new(),
    };
    let mut letter = DeadLetter {
        envelope,
        origin,
        routing_key: row.get("routing_key")?,
        reason,
        stage,
        detail,
        dead_at_ms: Some(dead_at_ms),
        deaths,
        delivery_count: row.get("delivery_count")?,
        headers: Vec::new(),
    };
    letter.headers = headers_of(&letter, replayed_at_ms);
    Ok(letter)
}

/// The columns of a letter beside its envelope.
pub(super) const LETTER: &str = "origin, routing_key, reason, stage, detail, dead_at_ms, delivery_count, seq";

fn headers_of(letter: &DeadLetter, replayed_at_ms: Option<i64>) -> Vec<(String, String)> {
    let envelope = &letter.envelope;
    let count = |count: u32| (count > 0).then(|| count.to_string());
    let by_us = letter.stage.is_some();
    let all = [
        (header::ATTEMPT, count(envelope.attempt)),
        (header::CONTENT_ENCODING, envelope.content_encoding.clone()),
        (header::DEAD_AT, letter.dead_at_ms.map(|at| at.to_string())),
        (header::DEAD_DETAIL, letter.detail.clone()),
        (header::DEAD_REASON, by_us.then(|| letter.reason.clone())),
        (header::DEAD_STAGE, letter.stage.clone()),
        (header::KEY_NAME, envelope.key_name.clone()),
        (
            header::RECEIVED_AT,
            envelope.received_at_ms.map(|at| at.to_string()),
        ),
        (header::REPLAY, count(envelope.replay)),
        (header::REPLAYED_AT, replayed_at_ms.map(|at| at.to_string())),
        (header::TRACEPARENT, envelope.traceparent.clone()),
    ];
    let known = all
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    known.collect()
}

impl Letter {
    pub(super) fn of(envelope: Envelope, origin: Origin, routing_key: &str, note: DeathNote<'_>) -> Self {
        Self {
            envelope,
            replayed_at_ms: None,
            origin,
            routing_key: routing_key.to_owned(),
            reason: note.reason.to_owned(),
            stage: Some(note.stage.to_owned()),
            detail: Some(note.detail.to_owned()),
            dead_at_ms: note.at_ms,
            delivery_count: 0,
        }
    }
}

pub(super) fn length(body: &[u8]) -> i64 {
    signed(body.len())
}

pub(super) fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
