//! One confirm channel: publishes in a safe order, and matches confirms to publishes without trusting lapin's match.
//!
//! It does not reconnect and keeps no deadline; the publisher above it does.
//!
//! # Order
//!
//! `Channel::basic_publish` takes the delivery tag and queues the frames under two different locks, so two callers
//! of one channel can take tags 1 and 2 and queue their frames as 2, 1; each then awaits the other's confirm. The
//! broker counts frames. Here the *first poll* of a publish happens under the lane's lock. Up to its first await
//! point (for the frames to be written) `basic_publish` checks the channel's state, registers the tag and queues all
//! frames, so one poll does both, and only one publish at a time is between the two.
//!
//! # Returned messages
//!
//! lapin puts a returned message into a queue and hands it to whichever confirm is resolved next; for an ack of
//! several tags that order is arbitrary. A returned publish can therefore resolve as a clean ack, while an innocent
//! one carries the return. What lapin does keep is this: the confirms of a channel are resolved one by one on one
//! thread; each is first stored, then its waker is called, then the next is resolved; and a publish that resolves
//! clean in spite of having been returned does so after the confirm that carries its return.
//!
//! So when a wrongly clean ack can be seen, the confirm with the return has been stored, and its slot is either on
//! the ready list or was found finished at its first poll, which puts it there too. [`Lane::settle`] therefore polls
//! what is ready, *looks at the ready list again* until it is empty, and only then decides: one return among the
//! results fails every result of that round and everything else in flight on the channel. All of that happens under
//! the lane's lock, so no publish is between being sent and being listed. The same holds when a slot is polled
//! without having been woken (a stale wake of its former occupant): what can be seen then was stored, and whatever
//! was stored before it has been woken.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use lapin::{
    BasicProperties, Channel, Confirmation, message::BasicReturnMessage, options::BasicPublishOptions,
    types::ShortString,
};
use porchlight_event::envelope::header;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};
use tokio_util::sync::ReusableBoxFuture;

use super::breaker::{Breaker, Counters};
use crate::wire::Headers;

/// What became of one publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Stored by the broker.
    Acked,
    /// The broker refused it, as a full queue does.
    Nacked,
    /// Something on the channel was returned, perhaps this.
    Returned,
    /// The channel or connection ended first.
    Lost,
}

/// The final form of a publish, ready for lapin.
pub(super) type Parts = (ShortString, ShortString, BasicProperties, Bytes);

/// A publish of about 2 KB from its first poll to its confirm. The slot keeps the allocation for its next occupant.
type Confirming = ReusableBoxFuture<'static, lapin::Result<Confirmation>>;

pub(super) struct Lane {
    channel: Arc<Channel>,
    ready: Arc<ReadyList>,
    board: Mutex<Board>,
    counters: Arc<Counters>,
    breaker: Arc<Breaker>,
}

/// Slots grow to what the publisher's window lets in, and are reused; never shrunk, at most the window's size.
struct Board {
    slots: Vec<Slot>,
    free: Vec<usize>,
    last_settled_at: Instant,
    closed: bool,
}

struct Slot {
    waker: Waker,
    confirming: Option<Confirming>,
    occupant: Option<Occupant>,
}

struct Occupant {
    progress: Progress,
    /// Taken when the caller is told, which for a return is before the confirm comes.
    reply: Option<oneshot::Sender<Verdict>>,
    published_at: Instant,
    /// Given back only when the slot is free: a caller that left early still fills the window.
    permit: OwnedSemaphorePermit,
}

enum Progress {
    Running,
    /// Finished during the first poll; waits for the settler like any other result.
    Finished(Box<lapin::Result<Confirmation>>),
    Taken,
}

/// Slots whose future was woken, in the order of the wakes; may name a slot twice.
#[derive(Default)]
struct ReadyList {
    marked: Mutex<Vec<usize>>,
    settler: Notify,
}

struct SlotWaker {
    index: usize,
    ready: Arc<ReadyList>,
}

/// Buffers of the settler, kept between rounds.
#[derive(Default)]
pub(super) struct Round {
    marked: Vec<usize>,
    finished: Vec<(usize, lapin::Result<Confirmation>)>,
    verdicts: Vec<(oneshot::Sender<Verdict>, Verdict)>,
    permits: Vec<OwnedSemaphorePermit>,
}

impl Lane {
    pub(super) fn new(channel: Channel, counters: Arc<Counters>, breaker: Arc<Breaker>) -> Self {
        let board = Board {
            slots: Vec::new(),
            free: Vec::new(),
            last_settled_at: Instant::now(),
            closed: false,
        };
        Self {
            channel: Arc::new(channel),
            ready: Arc::new(ReadyList::default()),
            board: Mutex::new(board),
            counters,
            breaker,
        }
    }

    /// Hands one publish to lapin and says where its verdict will come. `None` when the lane has ended.
    pub(super) fn submit(
        &self,
        parts: Parts,
        permit: OwnedSemaphorePermit,
    ) -> Option<oneshot::Receiver<Verdict>> {
        let (reply, verdict) = oneshot::channel();
        let channel = Arc::clone(&self.channel);
        let publish = async move {
            let (exchange, routing_key, properties, body) = parts;
            let options = BasicPublishOptions {
                mandatory: true,
                immediate: false,
            };
            channel
                .basic_publish(exchange, routing_key, options, &body, properties)
                .await?
                .await
        };
        let mut board = self.lock();
        if board.closed {
            return None;
        }
        let index = board.free_slot(&self.ready);
        let slot = &mut board.slots[index];
        let confirming = match slot.confirming.take() {
            Some(mut confirming) => {
                confirming.set(publish);
                confirming
            }
            None => ReusableBoxFuture::new(publish),
        };
        let confirming = slot.confirming.insert(confirming);
        let progress = match confirming.poll(&mut Context::from_waker(&slot.waker)) {
            Poll::Pending => Progress::Running,
            Poll::Ready(result) => {
                self.ready.mark(index);
                Progress::Finished(Box::new(result))
            }
        };
        slot.occupant = Some(Occupant {
            progress,
            reply: Some(reply),
            published_at: Instant::now(),
            permit,
        });
        Some(verdict)
    }

    /// Settles whenever something is ready, until the lane is closed.
    pub(super) async fn settle_forever(self: Arc<Self>) {
        let mut round = Round::default();
        loop {
            self.ready.settler.notified().await;
            if !self.settle(&mut round) {
                return;
            }
        }
    }

    /// One round; see the module's text for why it looks twice. Returns false once the lane is closed.
    fn settle(&self, round: &mut Round) -> bool {
        let mut board = self.lock();
        if board.closed {
            return false;
        }
        loop {
            self.ready.take(&mut round.marked);
            if round.marked.is_empty() {
                break;
            }
            for index in round.marked.drain(..) {
                if let Some(result) = board.slots[index].take_result() {
                    round.finished.push((index, result));
                }
            }
        }
        if !round.finished.is_empty() {
            self.decide(&mut board, round);
        }
        drop(board);
        for (reply, verdict) in round.verdicts.drain(..) {
            if reply.send(verdict).is_err() {
                self.counters.late.fetch_add(1, Relaxed);
                tracing::debug!(?verdict, "a confirm came after its caller had left");
            }
        }
        round.permits.clear();
        true
    }

    fn decide(&self, board: &mut Board, round: &mut Round) {
        let mut any_returned = false;
        for (_, result) in &round.finished {
            if let Some(returned) = returned_by(result) {
                any_returned = true;
                self.counters.returned.fetch_add(1, Relaxed);
                warn_of_return(returned);
            }
        }
        for (index, result) in round.finished.drain(..) {
            let verdict = if any_returned {
                Verdict::Returned
            } else {
                self.verdict_on(result)
            };
            if let Some(occupant) = board.vacate(index) {
                round
                    .verdicts
                    .extend(occupant.reply.map(|reply| (reply, verdict)));
                round.permits.push(occupant.permit);
            }
        }
        if any_returned {
            let in_flight = board.slots.iter_mut().filter_map(|slot| slot.occupant.as_mut());
            let replies = in_flight.filter_map(|occupant| occupant.reply.take());
            round
                .verdicts
                .extend(replies.map(|reply| (reply, Verdict::Returned)));
        }
        board.last_settled_at = Instant::now();
    }

    fn verdict_on(&self, result: lapin::Result<Confirmation>) -> Verdict {
        match result {
            Ok(Confirmation::Ack(None)) => {
                self.counters.timeouts_in_row.store(0, Relaxed);
                self.counters.note_refusal(false);
                Verdict::Acked
            }
            Ok(Confirmation::Nack(None)) => {
                self.counters.timeouts_in_row.store(0, Relaxed);
                self.counters.nacked.fetch_add(1, Relaxed);
                self.counters.note_refusal(true);
                Verdict::Nacked
            }
            Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => Verdict::Returned,
            Ok(Confirmation::NotRequested) => {
                self.breaker
                    .trip(|| "a channel without confirms was published on".to_owned());
                Verdict::Lost
            }
            Err(error) => {
                self.breaker.trip(|| error.to_string());
                Verdict::Lost
            }
        }
    }

    /// Fails everything in flight and lets nothing more in.
    pub(super) fn close(&self) {
        let mut board = self.lock();
        board.closed = true;
        let slots = mem::take(&mut board.slots);
        drop(board);
        self.ready.settler.notify_one();
        for occupant in slots.into_iter().filter_map(|slot| slot.occupant) {
            if let Some(reply) = occupant.reply {
                // A caller that has left learns nothing more; its publish was lost, not late.
                let _ = reply.send(Verdict::Lost);
            }
        }
    }

    /// How long nothing was settled although something is in flight.
    pub(super) fn silence(&self) -> Option<Duration> {
        let board = self.lock();
        let occupants = board.slots.iter().filter_map(|slot| slot.occupant.as_ref());
        let oldest = occupants.map(|occupant| occupant.published_at).min()?;
        Some(oldest.max(board.last_settled_at).elapsed())
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    fn free_slot(&mut self, ready: &Arc<ReadyList>) -> usize {
        if let Some(index) = self.free.pop() {
            return index;
        }
        let index = self.slots.len();
        let waker = Waker::from(Arc::new(SlotWaker {
            index,
            ready: Arc::clone(ready),
        }));
        self.slots.push(Slot {
            waker,
            confirming: None,
            occupant: None,
        });
        index
    }

    fn vacate(&mut self, index: usize) -> Option<Occupant> {
        let occupant = self.slots[index].occupant.take();
        if occupant.is_some() {
            self.free.push(index);
        }
        occupant
    }
}

impl Slot {
    /// The result, the first time it is there. Polling an unfinished or empty slot is harmless.
    fn take_result(&mut self) -> Option<lapin::Result<Confirmation>> {
        let occupant = self.occupant.as_mut()?;
        match mem::replace(&mut occupant.progress, Progress::Taken) {
            Progress::Running => {
                let confirming = self.confirming.as_mut()?;
                match confirming.poll(&mut Context::from_waker(&self.waker)) {
                    Poll::Ready(result) => Some(result),
                    Poll::Pending => {
                        occupant.progress = Progress::Running;
                        None
                    }
                }
            }
            Progress::Finished(result) => Some(*result),
            Progress::Taken => None,
        }
    }
}

impl ReadyList {
    fn mark(&self, index: usize) {
        let mut marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        marked.push(index);
        let first = marked.len() == 1;
        drop(marked);
        if first {
            self.settler.notify_one();
        }
    }

    fn take(&self, into: &mut Vec<usize>) {
        mem::swap(
            &mut *self.marked.lock().unwrap_or_else(PoisonError::into_inner),
            into,
        );
    }
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.ready.mark(self.index);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.mark(self.index);
    }
}

fn returned_by(result: &lapin::Result<Confirmation>) -> Option<&BasicReturnMessage> {
    match result {
        Ok(Confirmation::Ack(returned) | Confirmation::Nack(returned)) => returned.as_ref(),
        _ => None,
    }
}

/// The publish id is the only sound link between a return and its publish; the rest of the message stays unlogged.
fn warn_of_return(returned: &BasicReturnMessage) {
    let headers = Headers::of(&returned.properties);
    tracing::warn!(
        publish_id = headers.text(header::PUBLISH_ID).unwrap_or("absent"),
        exchange = %returned.exchange,
        code = returned.reply_code,
        reason = %returned.reply_text,
        "the broker had no queue for a publish and returned it; all in flight on its channel count as not stored",
    );
}
