//! The queue in a journal: putting in events, events that are to wait, and the dead.
//!
//! Taking out is the source's; see [`crate::Source`].

mod carry;
mod charge;
mod dead;
mod depth;
mod retries;
mod rows;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use porchlight_event::Envelope;
use porchlight_event::queue::{DeathNote, Origin, RetryTier};
use rusqlite::Connection;
use tokio::time::Instant;

pub use carry::Waiting;
pub(crate) use charge::{DELIVERY_LIMIT, charge_taken};
pub use dead::{LetterPage, Numbered};
pub use depth::{Depth, Pile};
pub(crate) use retries::{is_due, promote};
pub(crate) use rows::{Event, read_events, remove_through};

use crate::error::{JournalError, WorkError};
use crate::journal::Journal;

/// Where events go in. A cheap handle; clones share everything.
#[derive(Debug, Clone)]
pub struct Queue {
    pub(crate) journal: Journal,
}

/// How long one thing may take to be stored.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// When to stop waiting for a place with the writer.
    pub slot_until: Instant,
    /// When to stop waiting for the commit.
    pub until: Instant,
}

/// A command on its way to the dead letters.
#[derive(Debug, Clone, Copy)]
pub struct Command<'a> {
    /// Its identity.
    pub id: &'a str,
    /// Its action's code and its operation's kind, as `<action>.<kind>`.
    pub key: &'a str,
    /// Its JSON body.
    pub body: &'a [u8],
    /// Where in a trace it was decided.
    pub traceparent: Option<&'a str>,
}

impl Queue {
    /// The queue in this journal.
    #[must_use]
    pub fn new(journal: &Journal) -> Self {
        Self {
            journal: journal.clone(),
        }
    }

    /// The journal it is in.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Stores one event, to be worked on as soon as possible. Refused when the journal is full.
    ///
    /// # Errors
    /// [`JournalError`]
    ///
    /// # Cancel safety
    /// Once dropped the event may or may not be stored; nothing else is harmed. So for all calls here.
    pub async fn accept(&self, envelope: &Envelope, limits: Limits) -> Result<(), JournalError> {
        let (envelope, bytes) = (envelope.clone(), envelope.body.len());
        let work = move |connection: &Connection| rows::insert_event(connection, &envelope, now_ms());
        let Limits { slot_until, until } = limits;
        self.journal.put_in(slot_until, until, bytes, work).await
    }

    /// Stores one event, to be worked on when the tier's time is over; `envelope.attempt` should already count this.
    ///
    /// # Errors
    /// [`JournalError`]
    pub async fn put_off(
        &self,
        envelope: &Envelope,
        tier: RetryTier,
        limits: Limits,
    ) -> Result<(), JournalError> {
        let envelope = envelope.clone();
        let wait = self.wait_of(tier);
        let work = move |connection: &Connection| {
            let now = now_ms();
            rows::insert_retry(connection, &envelope, now, now.saturating_add(millis(wait)))
        };
        self.journal.write(limits.until, work).await
    }

    /// Stores one event among the dead letters.
    ///
    /// # Errors
    /// [`JournalError`]
    pub async fn bury(
        &self,
        envelope: &Envelope,
        note: DeathNote<'_>,
        limits: Limits,
    ) -> Result<(), JournalError> {
        let letter = rows::Letter::of(envelope.clone(), Origin::Event, "", note);
        let work = move |connection: &Connection| rows::insert_letter(connection, &letter);
        self.journal.write(limits.until, work).await
    }

    /// Stores a command that no receiver took among the dead letters.
    ///
    /// # Errors
    /// [`JournalError`]
    pub async fn bury_command(
        &self,
        command: Command<'_>,
        note: DeathNote<'_>,
        limits: Limits,
    ) -> Result<(), JournalError> {
        let envelope = Envelope {
            message_id: command.id.to_owned(),
            content_type: Some("application/json".to_owned()),
            traceparent: command.traceparent.map(str::to_owned),
            ..Envelope::bare(command.body.to_vec().into())
        };
        let letter = rows::Letter::of(envelope, Origin::Callback, command.key, note);
        let work = move |connection: &Connection| rows::insert_letter(connection, &letter);
        self.journal.write(limits.until, work).await
    }

    fn wait_of(&self, tier: RetryTier) -> Duration {
        let config = self.journal.config();
        match tier {
            RetryTier::OneMinute => config.retry_1m,
            RetryTier::TenMinutes => config.retry_10m,
        }
    }
}

impl Limits {
    /// At most 0.3 s for a place, and `total` from now for everything.
    #[must_use]
    pub fn within(total: Duration) -> Self {
        let now = Instant::now();
        Self {
            slot_until: now + Duration::from_millis(300),
            until: now + total,
        }
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, millis)
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn fact(connection: &Connection, name: &str) -> Result<i64, WorkError> {
    let mut asked = connection.prepare_cached("SELECT value FROM facts WHERE name = ?1")?;
    Ok(asked.query_row([name], |row| row.get(0))?)
}

pub(crate) fn set_fact(connection: &Connection, name: &str, value: i64) -> Result<(), WorkError> {
    let mut set = connection.prepare_cached("UPDATE facts SET value = ?2 WHERE name = ?1")?;
    set.execute((name, value))?;
    Ok(())
}
