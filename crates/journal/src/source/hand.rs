//! What has been taken and is not acked, and which incarnation it belongs to.
//!
//! It knows no disk; the feeder puts in, the caller takes out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use porchlight_event::queue::{Batch, Delivery};
use tokio::sync::{Notify, watch};

use crate::queue::Event;

/// Shared by the source, its handles and the feeder.
#[derive(Debug)]
pub(super) struct Hand {
    inner: Mutex<Inner>,
    /// The incarnation whose deliveries may be acked.
    live: watch::Sender<Option<u64>>,
    paused: watch::Sender<bool>,
    /// Something can be yielded, or the end has come.
    filled: Notify,
    /// There is room again, or the incarnation has ended.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Not yielded yet.
    waiting: VecDeque<Delivery>,
    /// Taken and not acked, yielded or not: number and bytes.
    unacked: VecDeque<(i64, usize)>,
    unacked_bytes: usize,
    /// How often what this source has held before was given back: at most as many as it may hold.
    returns: BTreeMap<i64, u64>,
    /// What waits is still yielded, then comes the end.
    ended: bool,
}

/// How much is in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) count: usize,
    pub(super) bytes: usize,
}

impl Hand {
    pub(super) fn new(paused: bool) -> Self {
        Self {
            inner: Mutex::default(),
            live: watch::Sender::new(None),
            paused: watch::Sender::new(paused),
            filled: Notify::new(),
            changed: Notify::new(),
        }
    }

    pub(super) fn live(&self) -> Option<u64> {
        *self.live.borrow()
    }

    pub(super) fn live_receiver(&self) -> watch::Receiver<Option<u64>> {
        self.live.subscribe()
    }

    pub(super) fn paused(&self) -> watch::Receiver<bool> {
        self.paused.subscribe()
    }

    pub(super) fn pause(&self) {
        self.paused.send_replace(true);
        self.end_live(|_| true);
    }

    pub(super) fn resume(&self) {
        self.paused.send_replace(false);
    }

    /// Begins an incarnation, unless a pause came first.
    pub(super) fn begin(&self, incarnation: u64) -> bool {
        let _inner = self.lock();
        if *self.paused.borrow() {
            return false;
        }
        self.live.send_replace(Some(incarnation));
        true
    }

    /// At once, and not when the feeder comes to it: until then more could be yielded and acked, and an ack reaches back
    /// over everything.
    pub(super) fn end_live(&self, which: impl FnOnce(u64) -> bool) {
        let mut inner = self.lock();
        if !self.live().is_some_and(which) {
            return;
        }
        self.live.send_replace(None);
        inner.waiting.clear();
        inner.unacked_bytes = 0;
        let given_back: Vec<_> = inner.unacked.drain(..).collect();
        for (seq, _) in given_back {
            *inner.returns.entry(seq).or_default() += 1;
        }
        self.changed.notify_one();
        self.filled.notify_one();
    }

    /// Takes events in. False when their incarnation is over; then they come again.
    pub(super) fn put(&self, incarnation: u64, events: Vec<Event>) -> bool {
        let mut inner = self.lock();
        if self.live() != Some(incarnation) {
            return false;
        }
        for event in events {
            let returns = inner.returns.get(&event.seq).copied().unwrap_or(0);
            let delivery_count = event.delivery_count + returns;
            let bytes = event.envelope.body.len();
            inner.unacked.push_back((event.seq, bytes));
            inner.unacked_bytes += bytes;
            inner.waiting.push_back(Delivery {
                envelope: event.envelope,
                tag: event.seq.unsigned_abs(),
                delivery_count,
                redelivered: delivery_count > 0,
            });
        }
        self.filled.notify_one();
        true
    }

    pub(super) fn held(&self) -> Held {
        let inner = self.lock();
        Held {
            count: inner.unacked.len(),
            bytes: inner.unacked_bytes,
        }
    }

    /// The number to remove up to: never beyond what was taken. `None` when the incarnation is over.
    pub(super) fn ackable(&self, incarnation: u64, tag: u64) -> Option<i64> {
        let inner = self.lock();
        if self.live() != Some(incarnation) {
            return None;
        }
        let last_taken = inner.unacked.back().map_or(0, |(seq, _)| *seq);
        Some(i64::try_from(tag).unwrap_or(i64::MAX).min(last_taken))
    }

    /// They are removed.
    pub(super) fn acked(&self, incarnation: u64, through: i64) {
        let mut inner = self.lock();
        inner.returns = inner.returns.split_off(&through.saturating_add(1));
        if self.live() != Some(incarnation) {
            return;
        }
        while let Some((seq, bytes)) = inner.unacked.front().copied() {
            if seq > through {
                break;
            }
            inner.unacked.pop_front();
            inner.unacked_bytes -= bytes;
        }
        self.changed.notify_one();
    }

    /// Returns when there may be room, or when the incarnation may have ended.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What waits is still yielded, then comes the end.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.filled.notify_one();
    }

    pub(super) async fn next_batch(&self, count_max: usize) -> Option<Batch> {
        loop {
            {
                let mut inner = self.lock();
                if let Some(incarnation) = self.live()
                    && !inner.waiting.is_empty()
                {
                    let count = inner.waiting.len().min(count_max);
                    return Some(Batch {
                        incarnation,
                        deliveries: inner.waiting.drain(..count).collect(),
                    });
                }
                if inner.ended {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
