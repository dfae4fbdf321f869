//! Streams of deliveries on their way to the caller, kept in order; and lapin's deliveries as ours.
//!
//! It neither starts nor ends a stream.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::Notify;

use crate::wire::{self, Arrived};
use porchlight_event::queue::Delivery;

/// Counts how often a quorum queue has taken a delivery back.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// A stream of deliveries. A new one comes with each new connection, and with the full prefetch.
pub(super) struct Feed {
    pub(super) incarnation: u64,
    pub(super) number: u64,
    pub(super) stream: lapin::Consumer,
    /// Set when the stream has ended while deliveries were still to be returned.
    pub(super) ended: Option<String>,
}

/// Feeds the caller has not come to yet: at most two, the small prefetch and the full one of one incarnation.
///
/// They are kept in order. Skipping one would be a loss: acks reach back over every delivery of the channel.
#[derive(Default)]
pub(super) struct FeedQueue {
    inner: Mutex<Feeds>,
    changed: Notify,
}

#[derive(Default)]
struct Feeds {
    waiting: VecDeque<Feed>,
    ended: bool,
}

impl FeedQueue {
    pub(super) fn push(&self, feed: Feed) {
        self.lock().waiting.push_back(feed);
        self.changed.notify_one();
    }

    /// Forgets the feeds of an incarnation that has ended.
    pub(super) fn clear(&self) {
        self.lock().waiting.clear();
    }

    /// What is queued is still handed out, then comes the end.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_one();
    }

    pub(super) async fn next(&self) -> Option<Feed> {
        loop {
            {
                let mut feeds = self.lock();
                if !feeds.waiting.is_empty() || feeds.ended {
                    return feeds.waiting.pop_front();
                }
            }
            self.changed.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Feeds> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed {
    /// Waits for the first delivery, then takes what else is there without waiting. An error is the feed's end.
    pub(super) async fn take_ready(&mut self, count_max: usize) -> Result<Vec<Delivery>, String> {
        let mut deliveries = Vec::new();
        std::future::poll_fn(|cx| {
            while self.ended.is_none() && deliveries.len() < count_max {
                match Pin::new(&mut self.stream).poll_next(cx) {
                    Poll::Ready(Some(Ok(delivery))) => deliveries.push(received(delivery)),
                    Poll::Ready(Some(Err(error))) => self.ended = Some(error.to_string()),
                    Poll::Ready(None) => self.ended = Some("the broker ended the consumer".to_owned()),
                    Poll::Pending => break,
                }
            }
            if deliveries.is_empty() && self.ended.is_none() {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
        match &self.ended {
            Some(reason) if deliveries.is_empty() => Err(reason.clone()),
            _ => Ok(deliveries),
        }
    }
}

fn received(delivery: lapin::message::Delivery) -> Delivery {
    let delivery_count = Arrived::of(&delivery.properties).int(DELIVERY_COUNT);
    Delivery {
        envelope: wire::envelope_from(&delivery.properties, Bytes::from(delivery.data)),
        tag: delivery.delivery_tag,
        delivery_count: delivery_count
            .and_then(|count| u64::try_from(count).ok())
            .unwrap_or(0),
        redelivered: delivery.redelivered,
    }
}
