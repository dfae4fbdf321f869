//! The dead letters wherever they are: in RabbitMQ, in a standalone's file, or behind its control API.
//!
//! Each way keeps the same promises: looking takes nothing away, and a letter is gone only when what it held is safe.

use std::ops::ControlFlow;

use porchlight_ledger::Ledger;
use porchlight_queue::DeadLetters;
use tokio_util::sync::CancellationToken;

use super::direct::Direct;
use super::facts::Row;
use super::remote;
use super::shown::Shown;
use super::wire::{Fate, Replayed};
use crate::control_api::ControlApi;
use crate::failure::Failure;
use crate::place::Place;

/// A way to the letters.
pub(super) enum Letters {
    Direct(Box<Direct>),
    Remote(Box<ControlApi>),
}

/// What a look found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    /// Letters there were when it began.
    pub(super) ready: usize,
    /// Letters visited.
    pub(super) seen: usize,
}

/// How to replay.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Also what was replayed too often.
    pub(super) force: bool,
    /// At most so many letters a second; as fast as they are confirmed where it is `None`.
    pub(super) per_second_max: Option<u32>,
}

/// How far a replay is, and at the end what it did.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// Letters there were when it began; it looks at no more.
    pub(super) ready: usize,
    pub(super) seen: usize,
    pub(super) replayed: usize,
    pub(super) owed_again: usize,
    pub(super) overtaken: usize,
    pub(super) unwanted: usize,
    pub(super) refused: usize,
    /// Why it ended early, in words; what was not moved is still there.
    pub(super) stopped_by: Option<String>,
}

impl Progress {
    /// Counts one wanted letter.
    pub(super) fn count(&mut self, fate: &Fate) {
        match fate {
            Fate::Replayed => self.replayed += 1,
            Fate::OwedAgain => self.owed_again += 1,
            Fate::Overtaken => self.overtaken += 1,
            Fate::Refused => self.refused += 1,
            Fate::Gone => {}
            Fate::Kept(why) => {
                let why = || format!("a letter that could not be moved: {why}");
                self.stopped_by.get_or_insert_with(why);
            }
        }
    }
}

impl Letters {
    /// The letters of a place.
    pub(super) fn at(place: Place) -> Self {
        let direct = |letters, ledger| Self::Direct(Box::new(Direct { letters, ledger }));
        match place {
            Place::Servers(servers) => direct(
                DeadLetters::in_rabbitmq(servers.amqp, "tool"),
                Ledger::Redis(servers.store),
            ),
            Place::Directory(directory) => direct(DeadLetters::Sqlite(directory.queue()), directory.ledger()),
            Place::Api(api) => Self::Remote(api),
        }
    }

    /// Shows the letters, oldest first; on RabbitMQ no more than can be held at once. None is taken away.
    pub(super) async fn look(&self, visit: impl FnMut(Row) -> ControlFlow<()>) -> Result<Seen, Failure> {
        match self {
            Self::Direct(direct) => direct.look(visit).await,
            Self::Remote(api) => remote::look(api, visit).await,
        }
    }

    /// Up to `count_max` letters whose message id begins so, in full.
    pub(super) async fn show(
        &self,
        prefix: &str,
        count_max: usize,
        with_body: bool,
    ) -> Result<Vec<Shown>, Failure> {
        match self {
            Self::Direct(direct) => direct.show(prefix, count_max, with_body).await,
            Self::Remote(api) => remote::show(api, prefix, count_max, with_body).await,
        }
    }

    /// Replays the letters that `wanted` picks, oldest first, until `stop`. `progress` is called after each letter
    /// looked at, and with each whose fate is settled.
    pub(super) async fn replay(
        &self,
        pace: Pace,
        stop: &CancellationToken,
        wanted: impl FnMut(&Row) -> bool,
        progress: impl FnMut(&Progress, Option<&Replayed>),
    ) -> Result<Progress, Failure> {
        match self {
            Self::Direct(direct) => direct.replay(pace, stop, wanted, progress).await,
            Self::Remote(api) => remote::replay(api, pace, stop, wanted, progress).await,
        }
    }
}
