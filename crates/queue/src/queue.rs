//! Putting things into the queue: events, events that are to wait, and the dead.
//!
//! It retries nothing.

use std::time::Duration;

use porchlight_broker::{Outgoing, PublishDeadlines, Publisher};
use porchlight_event::Envelope;
use porchlight_event::envelope::header;
use porchlight_event::queue::{DeadLetter, DeathNote, QueueState, RetryTier};
use porchlight_journal::{JournalError, Limits};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::QueueError;

/// Where events go in. A cheap handle; clones share everything.
#[derive(Debug, Clone)]
pub enum Queue {
    /// RabbitMQ: stored means that a majority of the brokers has it.
    RabbitMq(Publisher),
    /// SQLite: stored means that this machine's disk has it.
    Sqlite(porchlight_journal::Queue),
}

/// How long one thing may take to be stored.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// The longest wait for a place.
    pub slot_wait_max: Duration,
    /// When to stop waiting for the confirm.
    pub until: Instant,
}

/// It is stored.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    /// From handing it over to the confirm.
    pub latency: Duration,
}

/// A command on its way to the dead letters.
#[derive(Debug, Clone, Copy)]
pub struct CommandLetter<'a> {
    /// Its identity.
    pub id: &'a str,
    /// Its action's code.
    pub action: &'a str,
    /// Its operation's kind.
    pub kind: &'a str,
    /// Its JSON body.
    pub body: &'a [u8],
    /// Where in a trace it was decided.
    pub traceparent: Option<&'a str>,
}

/// Numbers for metrics, as of one moment; totals count since the start. What an implementation has not stays 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Being stored now, late ones included.
    pub inflight: usize,
    /// Most that may be.
    pub inflight_max: usize,
    /// Found no queue.
    pub returned_total: u64,
    /// Refused.
    pub refused_total: u64,
    /// Confirmed after their caller had left.
    pub late_total: u64,
    /// Connections made after the first.
    pub reconnects_total: u64,
}

impl Deadlines {
    /// At most 0.3 s for a place, and `total` from now for everything.
    #[must_use]
    pub fn within(total: Duration) -> Self {
        Self {
            slot_wait_max: Duration::from_millis(300),
            until: Instant::now() + total,
        }
    }
}

impl From<Deadlines> for Limits {
    fn from(deadlines: Deadlines) -> Self {
        Self {
            slot_until: Instant::now() + deadlines.slot_wait_max,
            until: deadlines.until,
        }
    }
}

impl From<Deadlines> for PublishDeadlines {
    fn from(deadlines: Deadlines) -> Self {
        Self {
            slot_wait_max: deadlines.slot_wait_max,
            confirm_by: deadlines.until,
        }
    }
}

impl Queue {
    /// Stores one event, to be worked on as soon as possible.
    ///
    /// # Errors
    /// [`QueueError`]
    ///
    /// # Cancel safety
    /// Once dropped the event may or may not be stored; nothing else is harmed. So for all calls here.
    pub async fn accept(&self, envelope: &Envelope, deadlines: Deadlines) -> Result<Stored, QueueError> {
        match self {
            Self::RabbitMq(publisher) => publish(publisher, Outgoing::event(envelope), deadlines).await,
            Self::Sqlite(queue) => store(queue.accept(envelope, deadlines.into())).await,
        }
    }

    /// Stores one event, to be worked on when the tier's time is over; `envelope.attempt` should already count this.
    ///
    /// # Errors
    /// [`QueueError`]
    pub async fn put_off(
        &self,
        envelope: &Envelope,
        tier: RetryTier,
        deadlines: Deadlines,
    ) -> Result<Stored, QueueError> {
        match self {
            Self::RabbitMq(publisher) => publish(publisher, Outgoing::retry(envelope, tier), deadlines).await,
            Self::Sqlite(queue) => store(queue.put_off(envelope, tier, deadlines.into())).await,
        }
    }

    /// Stores one event among the dead letters.
    ///
    /// # Errors
    /// [`QueueError`]
    pub async fn bury(
        &self,
        envelope: &Envelope,
        note: DeathNote<'_>,
        deadlines: Deadlines,
    ) -> Result<Stored, QueueError> {
        match self {
            Self::RabbitMq(publisher) => publish(publisher, Outgoing::dead(envelope, note), deadlines).await,
            Self::Sqlite(queue) => store(queue.bury(envelope, note, deadlines.into())).await,
        }
    }

    /// Stores one command among the dead letters.
    ///
    /// # Errors
    /// [`QueueError`]
    pub async fn bury_command(
        &self,
        letter: CommandLetter<'_>,
        note: DeathNote<'_>,
        deadlines: Deadlines,
    ) -> Result<Stored, QueueError> {
        match self {
            Self::RabbitMq(publisher) => {
                let body = letter.body.to_vec().into();
                let mut outgoing = Outgoing::dead_command(letter.id, letter.action, letter.kind, body, note);
                if let Some(traceparent) = letter.traceparent {
                    outgoing.headers_mut().set_text(header::TRACEPARENT, traceparent);
                }
                publish(publisher, outgoing, deadlines).await
            }
            Self::Sqlite(queue) => {
                let key = format!("{}.{}", letter.action, letter.kind);
                let command = porchlight_journal::Command {
                    id: letter.id,
                    key: &key,
                    body: letter.body,
                    traceparent: letter.traceparent,
                };
                store(queue.bury_command(command, note, deadlines.into())).await
            }
        }
    }

    /// Stores a dead letter as it was elsewhere; whether it is new. SQLite knows a letter by its id, time of death and
    /// reason; RabbitMQ cannot know, and takes it again.
    ///
    /// # Errors
    /// [`QueueError`]
    pub async fn bring_letter(&self, letter: &DeadLetter, deadlines: Deadlines) -> Result<bool, QueueError> {
        match self {
            Self::RabbitMq(publisher) => publish(publisher, Outgoing::letter(letter), deadlines)
                .await
                .map(|_| true),
            Self::Sqlite(queue) => Ok(queue.bring_letter(letter, deadlines.into()).await?),
        }
    }

    /// How the queue stands, and every change of it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<QueueState> {
        match self {
            Self::RabbitMq(publisher) => publisher.state(),
            Self::Sqlite(queue) => queue.journal().state(),
        }
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        match self {
            Self::RabbitMq(publisher) => {
                let stats = publisher.stats();
                QueueStats {
                    inflight: stats.inflight,
                    inflight_max: stats.inflight_max,
                    returned_total: stats.returned_total,
                    refused_total: stats.nacked_total,
                    late_total: stats.late_total,
                    reconnects_total: stats.reconnects_total,
                }
            }
            Self::Sqlite(queue) => {
                let stats = queue.journal().stats();
                QueueStats {
                    inflight: stats.inflight,
                    inflight_max: stats.inflight_max,
                    returned_total: 0,
                    refused_total: stats.refused_total,
                    late_total: stats.late_total,
                    reconnects_total: stats.reconnects_total,
                }
            }
        }
    }

    /// Takes nothing more, waits up to `drain_max` for what is being stored, then lets go of the queue.
    pub async fn close(&self, drain_max: Duration) {
        match self {
            Self::RabbitMq(publisher) => publisher.close(drain_max).await,
            // The whole journal, ledger and all.
            Self::Sqlite(queue) => queue.journal().close(drain_max).await,
        }
    }
}

async fn publish(
    publisher: &Publisher,
    outgoing: Outgoing,
    deadlines: Deadlines,
) -> Result<Stored, QueueError> {
    let confirmed = publisher.publish(outgoing, deadlines.into()).await?;
    Ok(Stored {
        latency: confirmed.latency,
    })
}

async fn store(storing: impl Future<Output = Result<(), JournalError>>) -> Result<Stored, QueueError> {
    let began = Instant::now();
    storing.await?;
    Ok(Stored {
        latency: began.elapsed(),
    })
}
