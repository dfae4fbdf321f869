//! The dead letters wherever they are: in RabbitMQ, in a standalone's file, or behind its control API.
//!
//! Each way keeps the same promises: looking takes nothing away, and a letter is gone only when what it held is safe.

use porchlight_event::queue::DeadLetter;
use porchlight_event::replay::{Action, ReplaySummary, Wish};
use porchlight_ledger::Ledger;
use porchlight_queue::DeadLetters;
use porchlight_queue::dead::Walk;
use tokio_util::sync::CancellationToken;

use super::direct::{self, Direct};
use super::facts::Row;
use super::predict::Form;
use super::remote::{self, Pages};
use super::shown::Shown;
use super::wire::Replayed;
use crate::control_api::ControlApi;
use crate::failure::Failure;
use crate::place::Place;

/// A way to the letters.
pub(super) enum Letters {
    Direct(Box<Direct>),
    Remote(Box<ControlApi>),
}

/// What is wanted of a look.
#[derive(Debug, Clone, Default)]
pub(super) struct Sight {
    /// To be looked for in the bodies.
    pub(super) text: Option<String>,
    /// The letters themselves, and not only what is listed.
    pub(super) full: bool,
}

/// A letter that was looked at.
#[derive(Debug)]
pub(super) struct Peeked {
    pub(super) row: Row,
    /// Its name at a control API.
    pub(super) key: Option<String>,
    /// The letter, where it was wanted in full or came along.
    pub(super) letter: Option<DeadLetter>,
}

/// A look at all letters, page by page, oldest first.
pub(super) enum Look<'a> {
    Direct(Box<Walk>, Sight),
    Remote(Pages<'a>),
}

/// What to do with letters, and how.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    pub(super) action: Action,
    /// Also what was replayed too often.
    pub(super) force: bool,
    /// At most so many letters a second; as fast as they are confirmed where it is `None`.
    pub(super) per_second_max: Option<u32>,
    /// To be looked for in the bodies.
    pub(super) text: Option<String>,
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

    /// Which form they belong to.
    pub(super) fn form(&self) -> Form {
        match self {
            Self::Direct(direct) if matches!(direct.letters, DeadLetters::RabbitMq(_)) => Form::Scaled,
            Self::Direct(_) | Self::Remote(_) => Form::Standalone,
        }
    }

    /// Begins a look. None is taken away.
    pub(super) async fn look(&self, sight: Sight) -> Result<Look<'_>, Failure> {
        Ok(match self {
            Self::Direct(direct) => Look::Direct(Box::new(direct.walk().await?), sight),
            Self::Remote(api) => Look::Remote(Pages::begin(api, sight).await?),
        })
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

    /// Does with the letters that `wish` picks, oldest first, what `pace` says, until `stop`. `progress` is called after
    /// each letter looked at, and with each whose fate is settled.
    pub(super) async fn work_through(
        &self,
        pace: Pace,
        stop: &CancellationToken,
        wish: impl FnMut(&Row) -> Wish,
        progress: impl FnMut(&ReplaySummary, Option<&Replayed>),
    ) -> Result<ReplaySummary, Failure> {
        match self {
            Self::Direct(direct) => direct.work_through(pace, stop, wish, progress).await,
            Self::Remote(api) => remote::work_through(api, pace, stop, wish, progress).await,
        }
    }
}

impl Look<'_> {
    /// Letters there were when it began; it looks at no more.
    pub(super) fn ready(&self) -> usize {
        match self {
            Self::Direct(walk, _) => walk.ready(),
            Self::Remote(pages) => pages.ready(),
        }
    }

    /// Letters that were held when the broker let no more be held; the rest was not looked at.
    pub(super) fn held_max(&self) -> Option<usize> {
        match self {
            Self::Direct(walk, _) => walk.held_max(),
            Self::Remote(_) => None,
        }
    }

    /// The next letters; none at the end.
    pub(super) async fn page(&mut self) -> Result<Vec<Peeked>, Failure> {
        match self {
            Self::Direct(walk, sight) => {
                let page = direct::page_of(walk).await?;
                Ok(page.into_iter().map(|letter| Peeked::of(letter, sight)).collect())
            }
            Self::Remote(pages) => pages.page().await,
        }
    }

    /// Ends it; takes some seconds at most.
    pub(super) async fn close(self) {
        if let Self::Direct(walk, _) = self {
            walk.close().await;
        }
    }
}
