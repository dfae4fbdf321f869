//! A worker: its parts, put together over one queue and one ledger, and the order in which they end.
//!
//! It opens neither queue nor ledger and serves nothing: what it says of itself is handed out as functions, so that
//! one admin listener can speak for a process that has more in it.

use std::sync::Arc;
use std::time::Duration;

use porchlight_ledger::Ledger;
use porchlight_queue::{Queue, Source};
use porchlight_service::{ApiFn, LogGate, Metrics, ReadyFn};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::clerk::Clerk;
use crate::dispatch::{Dispatch, Dispatcher};
use crate::keys::KeysInForce;
use crate::ledger_watch::LedgerWatch;
use crate::metrics::WorkerMetrics;
use crate::outlet::Outlet;
use crate::ready::Observer;
use crate::settings::WorkSettings;
use crate::settle::Settler;
use crate::sweep::Sweeper;
use crate::work_loop::WorkLoop;

/// For what is being stored when all work is done: nobody waits for it any more.
const QUEUE_DRAIN_MAX: Duration = Duration::from_secs(1);
/// For the parts to end that only watch, and for one that missed its deadline to be dropped.
const REST_MAX: Duration = Duration::from_secs(3);

/// What a worker works with, opened by whoever composes the process.
pub struct WorkerParts {
    /// Where copies go: events that wait, and the dead. The worker closes it at its end, for every clone.
    pub queue: Queue,
    /// Where events come from. To be opened paused, and with the token that [`Worker::run`] is given: that it has
    /// yielded its last is what ends the work.
    pub source: Source,
    /// Where events are applied.
    pub ledger: Ledger,
    /// Where commands go.
    pub outlet: Outlet,
    /// Keys to verify each event with once more, if any.
    pub keys: KeysInForce,
    /// Bounds and spans.
    pub work: WorkSettings,
}

/// A worker that is put together and not yet at work.
pub struct Worker {
    source: Source,
    settler: Settler,
    dispatcher: Dispatcher,
    dispatch: Dispatch,
    observer: Observer,
    ledger_watch: LedgerWatch,
    work: WorkSettings,
}

/// Why a worker ended other than cleanly.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The ledger's address is not usable. That it does not answer is no error; the worker waits for it.
    #[error("the ledger's address is not usable")]
    Ledger(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A part ended although nobody asked it to.
    #[error("the {0} ended by itself")]
    Part(&'static str),
    /// A part panicked.
    #[error("a part of the worker panicked")]
    Panicked(#[source] JoinError),
    /// The stop took too long. Events in hand went back to the queue; commands stay in the outbox.
    #[error("not everything was finished in time: {events} events and {commands} commands were in hand")]
    Grace {
        /// Events that were not settled.
        events: usize,
        /// Commands that were not confirmed.
        commands: usize,
    },
}

impl Worker {
    /// Puts the parts together and registers what they count, under `porchlight_worker_` and `porchlight_ledger_`. Nothing
    /// begins yet.
    pub fn prepare(parts: WorkerParts, metrics: &mut Metrics) -> Self {
        let WorkerParts {
            queue,
            source,
            ledger,
            outlet,
            keys,
            work,
        } = parts;
        outlet.register(metrics);
        let ledger_watch = LedgerWatch::new(ledger.clone(), work.watch_interval, metrics);
        let metrics = Arc::new(WorkerMetrics::register(metrics));
        let clerk = Arc::new(Clerk::new(ledger, Arc::clone(&metrics)));
        let (dispatcher, dispatch) = Dispatcher::new(
            outlet,
            queue.clone(),
            Arc::clone(&clerk),
            Arc::clone(&metrics),
            work.commands_inflight_max,
        );
        let observer = Observer::new(source.state(), queue.state(), clerk.up());
        let settler = Settler {
            clerk,
            queue,
            source: source.handle(),
            keys,
            metrics,
            log_gate: LogGate::default(),
            hold_max: work.hold_max,
        };
        Self {
            source,
            settler,
            dispatcher,
            dispatch,
            observer,
            ledger_watch,
            work,
        }
    }

    /// Whether it can work now, for `/readyz`.
    pub fn ready(&self) -> ReadyFn {
        self.observer.clone().into_fn()
    }

    /// The control API, for the admin listener to mount.
    pub fn api(&self) -> ApiFn {
        let api = Api {
            clerk: Arc::clone(&self.settler.clerk),
            dispatch: self.dispatch.clone(),
            metrics: Arc::clone(&self.settler.metrics),
        };
        api.into_fn()
    }

    /// Works until `stop`, then finishes what is in hand: events first, with the sweeper ending beside them, then the
    /// commands that are handed in, and last the queue. An end of its own accord cancels `stop`, so that whatever is
    /// composed around it ends, too.
    ///
    /// # Errors
    /// [`RunError`]; nothing that was acked is lost by any of them.
    ///
    /// # Cancel safety
    /// Dropping it is like a crash: what is in hand goes back to the queue, and what is owed stays in the outbox.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RunError> {
        let grace = self.work.stop_grace;
        let queue = self.settler.queue.clone();
        let metrics = Arc::clone(&self.settler.metrics);
        let sweeper = Sweeper {
            clerk: Arc::clone(&self.settler.clerk),
            dispatch: self.dispatch.clone(),
            metrics: Arc::clone(&metrics),
            interval: self.work.sweep_interval,
        };
        self.observer.stop_with(&stop);
        let mut tasks = Tasks::default();
        tasks.spawn("observer", self.observer.follow(metrics, tasks.end.clone()));
        tasks.spawn("ledger watch", self.ledger_watch.run(stop.clone()));
        tasks.spawn("sweeper", sweeper.run(stop.clone()));
        tasks.spawn("dispatcher", self.dispatcher.run(tasks.send_stop.clone()));
        let work_loop = WorkLoop::new(
            self.source,
            Arc::new(self.settler),
            self.dispatch.clone(),
            self.work,
        );
        let worked = tasks.work(work_loop, &stop, grace).await;
        // Whatever happened, no part may wait for a stop that never comes.
        stop.cancel();
        let sent = tasks.finish_sending(&self.dispatch, grace).await;
        queue.close(QUEUE_DRAIN_MAX).await;
        tasks.finish().await;
        worked.and(sent)
    }
}

/// The tasks beside the work loop. All end only when told to.
#[derive(Default)]
struct Tasks {
    running: JoinSet<&'static str>,
    /// Tells the dispatcher that nothing more is handed in.
    send_stop: CancellationToken,
    /// Tells those that serve until the very end.
    end: CancellationToken,
}

impl Tasks {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(async move {
            task.await;
            name
        });
    }

    /// Runs the work loop to its end, with a deadline once `stop` has come.
    async fn work(
        &mut self,
        work_loop: WorkLoop,
        stop: &CancellationToken,
        grace: Duration,
    ) -> Result<(), RunError> {
        let mut working = tokio::spawn(work_in_time(work_loop, stop.clone(), grace));
        loop {
            tokio::select! {
                worked = &mut working => {
                    return match worked {
                        Ok(Ok(())) if !stop.is_cancelled() => Err(RunError::Part("source")),
                        Ok(ended) => ended,
                        Err(panic) => Err(RunError::Panicked(panic)),
                    };
                }
                Some(ended) = self.running.join_next() => {
                    let error = match ended {
                        Err(panic) => RunError::Panicked(panic),
                        Ok(name) if !stop.is_cancelled() => RunError::Part(name),
                        Ok(_) => continue,
                    };
                    working.abort();
                    return Err(error);
                }
            }
        }
    }

    /// Lets the dispatcher send what it was handed.
    async fn finish_sending(&mut self, dispatch: &Dispatch, grace: Duration) -> Result<(), RunError> {
        self.send_stop.cancel();
        let sent = async {
            // The one that watches until the very end stays.
            while self.running.len() > 1 {
                match self.running.join_next().await {
                    Some(Err(panic)) => return Err(RunError::Panicked(panic)),
                    Some(Ok(_)) => {}
                    None => break,
                }
            }
            Ok(())
        };
        match tokio::time::timeout(grace, sent).await {
            Ok(sent) => sent,
            Err(_) => Err(RunError::Grace {
                events: 0,
                commands: dispatch.left(),
            }),
        }
    }

    /// A dispatcher that missed its deadline is aborted with the set.
    async fn finish(mut self) {
        self.end.cancel();
        let ended = async { while self.running.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(REST_MAX, ended).await;
    }
}

async fn work_in_time(
    mut work_loop: WorkLoop,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), RunError> {
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    let in_time = tokio::select! {
        () = work_loop.run() => true,
        () = late => false,
    };
    let events = work_loop.events_in_hand();
    work_loop.close().await;
    if in_time {
        Ok(())
    } else {
        Err(RunError::Grace { events, commands: 0 })
    }
}
