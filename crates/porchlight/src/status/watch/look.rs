//! One look at everything, for the live view: the status, the dead by reason, and what the daemons' metrics say.
//!
//! It asks each place with a deadline and goes on without what does not answer; connections are kept between looks.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use porchlight_queue::DeadLetters;
use porchlight_service::client::Target;

use super::board::Name;
use super::scrape::{Daemon, Figures};
use crate::control_api::read_of_standalone;
use crate::dead::LettersPage;
use crate::failure::chain;
use crate::place::Place;
use crate::status::{Asker, Pipeline, Status, ingresses};

/// Letters that are looked at for their reasons, at most. On RabbitMQ so few are held and given back in their places.
const DEAD_LOOKED_AT_MAX: usize = 100;
/// For looking at dead letters.
const DEAD_MAX: Duration = Duration::from_secs(10);
/// What a standalone is named while it does not answer.
const API: &str = "the control API";
const EVENTS: &str = "porchlight.events";
const DEAD: &str = "porchlight.dead";

/// Everything that one look found.
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) at_ms: i64,
    pub(super) status: Status,
    pub(super) queues: Vec<Queue>,
    pub(super) dead: Option<DeadReasons>,
    /// Of each daemon that is scraped, by its address.
    pub(super) daemons: Vec<(String, Result<Figures, String>)>,
    /// Of all daemons together.
    pub(super) figures: Figures,
    /// What did not answer, and why.
    pub(super) away: Vec<(String, String)>,
}

/// One queue, whichever form it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Queue {
    pub(super) name: String,
    pub(super) exists: bool,
    pub(super) ready: u64,
    pub(super) unacked: Option<u64>,
    pub(super) consumers: Option<u32>,
    pub(super) oldest_seconds: Option<u64>,
}

/// Why letters died, of those that were looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DeadReasons {
    /// Letters there were.
    pub(super) ready: u64,
    pub(super) looked_at: usize,
    pub(super) by_reason: BTreeMap<String, usize>,
    pub(super) error: Option<String>,
}

/// Looks again and again.
pub(super) struct Looker {
    asker: Asker,
    ingresses: Vec<Target>,
    daemons: Vec<Daemon>,
    dead: Option<DeadReasons>,
}

impl Looker {
    /// Looks at this place, and at these ingresses and workers besides.
    pub(super) fn new(asker: Asker, ingresses: Vec<Target>, workers: Vec<Target>) -> Self {
        // A standalone's control API is on the listener that shows its metrics.
        let own = match asker.place() {
            Place::Api(api) => Some(api.target().clone()),
            Place::Servers(_) | Place::Directory(_) => None,
        };
        let daemons = ingresses.iter().cloned().chain(workers).chain(own);
        Self {
            daemons: daemons.map(Daemon::at).collect(),
            asker,
            ingresses,
            dead: None,
        }
    }

    /// Looks. With `count_dead` dead letters are looked at also where that is work for the broker.
    pub(super) async fn look(&mut self, count_dead: bool) -> Look {
        let scraping = join_all(self.daemons.iter().map(Daemon::scrape));
        let asking = ingresses::ask(self.ingresses.clone());
        let (pipeline, ingresses, scraped) = tokio::join!(self.asker.ask(), asking, scraping);
        let at = Instant::now();
        let (pipeline, trouble) = match pipeline {
            Ok(pipeline) => (pipeline, None),
            Err(failure) => (Pipeline::default(), Some(without_name(failure.words()))),
        };
        let mut away: Vec<_> = pipeline.away().collect();
        away.extend(trouble.map(|why| (API.to_owned(), why)));
        let queues = queues_of(&pipeline);
        self.look_at_dead(&queues, count_dead).await;
        let mut figures = Figures::default();
        let addresses = self.daemons.iter().map(|daemon| daemon.address.clone());
        let daemons: Vec<_> = addresses.zip(scraped).collect();
        for (_, scraped) in &daemons {
            if let Ok(scraped) = scraped {
                figures.merge(scraped);
            }
        }
        Look {
            at,
            at_ms: crate::clock::now_ms(),
            queues,
            dead: self.dead.clone(),
            status: Status::new(pipeline, ingresses),
            daemons,
            figures,
            away,
        }
    }

    /// Lets go of what it kept.
    pub(super) async fn close(self) {
        self.asker.close().await;
    }

    /// Counts reasons when the number of letters has changed. Of RabbitMQ only when it is wanted: there a look is a
    /// delivery, and a broker may count those.
    async fn look_at_dead(&mut self, queues: &[Queue], wanted: bool) {
        let Some(ready) = queues
            .iter()
            .find(|queue| queue.name == DEAD)
            .map(|queue| queue.ready)
        else {
            self.dead = None;
            return;
        };
        if ready == 0 {
            self.dead = Some(DeadReasons::default());
            return;
        }
        let is_old = self.dead.as_ref().is_none_or(|dead| dead.ready != ready);
        let is_costly = matches!(self.asker.place(), Place::Servers(_));
        if is_costly && is_old && !wanted {
            self.dead = None;
        }
        if wanted || (is_old && !is_costly) {
            let looked = tokio::time::timeout(DEAD_MAX, reasons(self.asker.place())).await;
            let looked = looked.unwrap_or_else(|_| Err("no answer in time".to_owned()));
            let dead = looked.unwrap_or_else(|error| DeadReasons {
                error: Some(error),
                ..DeadReasons::default()
            });
            self.dead = Some(DeadReasons { ready, ..dead });
        }
    }
}

impl Look {
    /// What series are made of.
    pub(super) fn values(&self) -> BTreeMap<Name, f64> {
        let mut values = BTreeMap::new();
        for queue in self.queues.iter().filter(|queue| queue.exists) {
            values.insert(Name::Ready(queue.name.clone()), float(queue.ready));
        }
        if let Some(ledger) = self.status.pipeline.ledger() {
            values.insert(Name::Owed, float(ledger.commands_owed));
        }
        if let Some(lag) = self.lag_seconds() {
            values.insert(Name::Lag, lag);
        }
        for (status, count) in &self.figures.answers {
            values.insert(Name::Answers(status.clone()), *count);
        }
        if !self.figures.settled.is_empty() {
            values.insert(Name::Settled, self.figures.settled.values().sum());
        }
        values
    }

    /// How long the oldest event waits, where somebody knows it: a worker, or the file.
    pub(super) fn lag_seconds(&self) -> Option<f64> {
        let events = self.queues.iter().find(|queue| queue.name == EVENTS)?;
        let in_file = events.oldest_seconds.map(float);
        let is_file = self.status.pipeline.standalone.is_some();
        in_file
            .or(self.figures.oldest_waiting_seconds)
            .or(is_file.then_some(0.0))
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn float(count: u64) -> f64 {
    count as f64
}

/// The words of a failure of the control API, whose name stands before them anyway.
fn without_name(words: &str) -> String {
    words
        .strip_prefix("the control API: ")
        .unwrap_or(words)
        .to_owned()
}

/// The queues of either form.
pub(super) fn queues_of(pipeline: &Pipeline) -> Vec<Queue> {
    let scaled = pipeline
        .rabbitmq
        .iter()
        .filter_map(|part| part.state.as_ref())
        .flatten();
    let scaled = scaled.map(|queue| Queue {
        name: queue.name.clone(),
        exists: queue.exists,
        ready: queue.ready,
        unacked: queue.unacked,
        consumers: Some(queue.consumers),
        oldest_seconds: None,
    });
    let states = pipeline.standalone.iter().filter_map(|part| part.state.as_ref());
    let one = states.flat_map(|state| &state.queues).map(|queue| Queue {
        name: queue.name.clone(),
        exists: queue.exists,
        ready: queue.ready,
        unacked: Some(queue.in_hand),
        consumers: Some(queue.consumers),
        oldest_seconds: queue.oldest_seconds,
    });
    scaled.chain(one).collect()
}

/// The reasons of the oldest letters.
async fn reasons(place: &Place) -> Result<DeadReasons, String> {
    let mut found = DeadReasons::default();
    let mut count = |reason: String| {
        found.looked_at += 1;
        *found.by_reason.entry(reason).or_default() += 1;
    };
    let letters = match place {
        Place::Servers(servers) => DeadLetters::in_rabbitmq(servers.amqp.clone(), "watch"),
        Place::Directory(directory) => DeadLetters::Sqlite(directory.queue()),
        Place::Api(api) => {
            let path = format!("/v1/dead?limit={DEAD_LOOKED_AT_MAX}");
            let page: LettersPage =
                async { read_of_standalone(&api.call("GET", &path, Bytes::new()).await?, "dead letters") }
                    .await
                    .map_err(|failure| failure.words().to_owned())?;
            page.letters
                .into_iter()
                .for_each(|letter| count(letter.row.reason));
            return Ok(found);
        }
    };
    let visit = |letter: porchlight_event::queue::DeadLetter| {
        count(letter.reason);
        ControlFlow::Continue(())
    };
    letters
        .list(DEAD_LOOKED_AT_MAX, visit)
        .await
        .map_err(|error| chain(&error))?;
    Ok(found)
}
