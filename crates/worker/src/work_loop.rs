//! The work loop: one task owns the source, takes batches, has a few pieces at work at once, and acks in order.
//!
//! It decides nothing about an event; [`crate::settle`] does the work on a piece, polled from here, so that no
//! delivery ever hops to another task or thread.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{FuturesOrdered, StreamExt as _};
use porchlight_event::queue::{AckOutcome, Batch, Delivery};
use porchlight_queue::{Source, SourceHandle};
use tokio::sync::watch;

use crate::clerk::Clerk;
use crate::dispatch::Dispatch;
use crate::metrics::{Waits, WorkerMetrics, waits_since};
use crate::now_ms;
use crate::piece::{Piece, cut};
use crate::settings::WorkSettings;
use crate::settle::{Failed, GaveUp, Settled, Settler};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Owns the source and everything in hand.
pub(crate) struct WorkLoop {
    source: Source,
    handle: SourceHandle,
    settler: Arc<Settler>,
    clerk: Arc<Clerk>,
    ledger_takes_work: watch::Receiver<bool>,
    dispatch: Dispatch,
    metrics: Arc<WorkerMetrics>,
    settings: WorkSettings,
    /// Cut and not begun.
    waiting: VecDeque<Piece>,
    /// Begun, in the order of arrival; results come out in that order.
    at_work: FuturesOrdered<Boxed<Result<Settled, GaveUp>>>,
    /// A suspicious piece is at work; nothing else may be.
    alone: bool,
    /// Counts pieces; a ledger with several connections spreads them over those.
    turn: usize,
    /// Deliveries waiting or at work.
    events: usize,
    /// Since when each piece waits, first those at work and then those waiting.
    waits: Waits,
    /// Settled and not acked: incarnation and tag. A later one of the same incarnation covers an earlier one.
    ackable: Option<(u64, u64)>,
    /// At most one ack is on its way, so acks cannot overtake each other and pile up into fewer.
    acking: Option<Boxed<AckOutcome>>,
    /// Everything was given back; this ends when the ledger takes writes again.
    away: Option<Boxed<()>>,
    /// The source has yielded its last.
    ended: bool,
}

/// What happens next. [`WorkLoop::select`] finds out, [`WorkLoop::apply`] acts.
#[derive(Debug)]
enum Step {
    /// Deliveries came, or, after a stop, no more will.
    Taken(Option<Batch>),
    /// The oldest piece at work is settled, or was given up.
    Worked(Result<Settled, GaveUp>),
    /// An ack was written, or its incarnation is over and the queue delivers again: nothing is left to do either way.
    Acked,
    /// The ledger takes writes again.
    LedgerIsBack,
    /// The ledger began or ceased to take events: what may be taken from the queue is to be thought over.
    LedgerTurned,
}

impl WorkLoop {
    /// Begins away from the queue: nothing is taken before the ledger has answered once, so the source must have
    /// been opened paused.
    pub(crate) fn new(
        source: Source,
        settler: Arc<Settler>,
        dispatch: Dispatch,
        settings: WorkSettings,
    ) -> Self {
        let (clerk, metrics) = (Arc::clone(&settler.clerk), Arc::clone(&settler.metrics));
        let mut own = Self {
            handle: source.handle(),
            source,
            settler,
            ledger_takes_work: clerk.takes_work(),
            clerk,
            dispatch,
            metrics,
            settings,
            waiting: VecDeque::new(),
            at_work: FuturesOrdered::new(),
            alone: false,
            turn: 0,
            events: 0,
            waits: Waits::default(),
            ackable: None,
            acking: None,
            away: None,
            ended: false,
        };
        own.stay_away();
        own
    }

    /// Works until the source, told to stop, has yielded its last and everything is settled and acked.
    ///
    /// # Cancel safety
    /// Dropping it gives everything in hand back to the queue, as a crash would.
    pub(crate) async fn run(&mut self) {
        while !self.is_done() {
            let step = self.select().await;
            self.apply(step);
        }
    }

    /// Lets go of the source politely; what is unacked goes back to the queue.
    pub(crate) async fn close(self) {
        self.source.close().await;
    }

    /// Deliveries that are not settled.
    pub(crate) fn events_in_hand(&self) -> usize {
        self.events
    }

    fn is_done(&self) -> bool {
        self.ended && self.events == 0 && self.acking.is_none()
    }

    /// # Cancel safety
    /// Safe: each branch leaves what it did not return where it was.
    async fn select(&mut self) -> Step {
        let may_take = self.may_take();
        tokio::select! {
            // Acks first: they free the prefetch window. Then results, which free a place at work.
            biased;
            _ = optional(self.acking.as_mut()) => Step::Acked,
            Some(worked) = self.at_work.next() => Step::Worked(worked),
            () = optional(self.away.as_mut()) => Step::LedgerIsBack,
            Ok(()) = self.ledger_takes_work.changed() => Step::LedgerTurned,
            batch = self.source.next_batch(self.settings.batch_size), if may_take => Step::Taken(batch),
        }
    }

    /// While the ledger fails nothing new is taken: what is held is retried, and the rest is safe in the queue.
    fn may_take(&self) -> bool {
        // Away from the queue there is nothing to take, but the end must be noticed.
        let free = self.waiting.is_empty() && !self.alone && self.at_work.len() < self.settings.batches_max;
        !self.ended && free && (self.away.is_some() || *self.ledger_takes_work.borrow())
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Taken(Some(batch)) => self.take(batch),
            Step::Taken(None) => self.ended = true,
            Step::Worked(Ok(settled)) => self.finish(settled),
            Step::Worked(Err(gave_up)) => self.give_up(&gave_up),
            Step::Acked => self.acking = None,
            Step::LedgerIsBack => {
                self.away = None;
                self.waits.ledger_is_back();
                self.handle.resume();
            }
            Step::LedgerTurned => {}
        }
        self.begin();
        // What is held asks a failing ledger again and again. With nothing in hand nobody would.
        if self.events == 0 && self.away.is_none() && !*self.ledger_takes_work.borrow() {
            self.stay_away();
        }
        self.ack();
        self.metrics.set_inflight_events(self.events);
        self.metrics.lag.set_waiting_since(self.waits.oldest());
    }

    fn take(&mut self, batch: Batch) {
        let redelivered = batch
            .deliveries
            .iter()
            .filter(|delivery| delivery.redelivered)
            .count();
        self.metrics.taken(batch.deliveries.len(), redelivered);
        self.events += batch.deliveries.len();
        let (mut pieces, now_ms) = (cut(batch), now_ms());
        for piece in &pieces {
            let since = |delivery: &Delivery| waits_since(&delivery.envelope, now_ms);
            self.waits
                .push(piece.deliveries.iter().map(since).min().unwrap_or(now_ms));
        }
        self.waiting.append(&mut pieces);
    }

    /// Puts waiting pieces to work as far as there is room, each suspicious one alone.
    fn begin(&mut self) {
        while let Some(next) = self.waiting.front() {
            let full = self.at_work.len() >= self.settings.batches_max;
            if self.alone || full || (next.alone && !self.at_work.is_empty()) {
                return;
            }
            let Some(piece) = self.waiting.pop_front() else {
                return;
            };
            // It comes again, and would only be done twice.
            if !self.handle.is_live(piece.incarnation) {
                self.events -= piece.deliveries.len();
                self.waits.remove(self.at_work.len());
                continue;
            }
            self.alone = piece.alone;
            self.turn = self.turn.wrapping_add(1);
            let (settler, turn) = (Arc::clone(&self.settler), self.turn);
            self.at_work
                .push_back(Box::pin(async move { settler.settle(turn, piece).await }));
        }
    }

    /// The ledger has answered, so what it owes is durable: the commands may go out while the ack is written.
    fn finish(&mut self, settled: Settled) {
        self.alone = false;
        self.waits.pop();
        self.events -= settled.events;
        self.ackable = Some((settled.incarnation, settled.last_tag));
        for command in settled.commands {
            self.dispatch.offer(command);
        }
    }

    fn ack(&mut self) {
        if self.acking.is_none()
            && let Some((incarnation, tag)) = self.ackable.take()
        {
            let handle = self.handle.clone();
            self.acking = Some(Box::pin(
                async move { handle.ack_through(incarnation, tag).await },
            ));
        }
    }

    fn give_up(&mut self, gave_up: &GaveUp) {
        match gave_up.failed {
            Failed::Ledger => {
                self.waits.give_back(true);
                self.give_back("the ledger", gave_up.incarnation);
                self.stay_away();
            }
            Failed::Queue => {
                self.waits.give_back(false);
                self.give_back("the queue", gave_up.incarnation);
            }
            Failed::Incarnation => {
                self.alone = false;
                self.waits.pop();
                self.events -= gave_up.events;
            }
        }
    }

    /// Forgets everything in hand. The queue delivers it again in another incarnation; abandoning this one comes first,
    /// since an ack of anything that is taken from it later would reach back over what is forgotten here.
    fn give_back(&mut self, failed: &'static str, incarnation: u64) {
        self.handle.abandon(incarnation);
        tracing::warn!(
            deliveries = self.events,
            failed,
            "deliveries given back after holding them in vain"
        );
        self.metrics.gave_back(self.events);
        self.waiting.clear();
        self.at_work = FuturesOrdered::new();
        self.alone = false;
        self.events = 0;
        self.ackable = None;
    }

    /// Leaves the queue until the ledger takes writes again; the prefetch then begins small.
    fn stay_away(&mut self) {
        self.handle.pause();
        let clerk = Arc::clone(&self.clerk);
        self.away = Some(Box::pin(async move { clerk.until_back().await }));
    }
}

async fn optional<T>(future: Option<&mut Boxed<T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
