//! Keeps a consumer connected: builds an incarnation, widens its prefetch, and ends it on any doubt.
//!
//! It never looks at a delivery; they go from lapin's stream straight to the caller.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use lapin::{
    Channel, Event,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    ConsumerConfig, Live, PREFETCH_MAX, Wish,
    feed::{Feed, FeedQueue},
};
use crate::{
    connection::{Backoff, CLOSE_STEP_MAX, Dialer, Events, Link, REQUEST_MAX, chain, within},
    topology,
    wire::short,
};
use porchlight_event::queue::QueueState;

const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// A blocked connection writes no acks. A consuming one is never blocked unless something is wrong.
const BLOCKED_MAX: Duration = Duration::from_secs(30);
const GIVEN_BACK: &str = "the deliveries were given back";

pub(super) struct Supervisor {
    pub(super) config: ConsumerConfig,
    pub(super) feeds: Arc<FeedQueue>,
    pub(super) wishes: mpsc::Receiver<Wish>,
    pub(super) state: watch::Sender<QueueState>,
    pub(super) live: Arc<Mutex<Option<Live>>>,
    pub(super) paused: watch::Receiver<bool>,
    pub(super) stop: CancellationToken,
    pub(super) closing: CancellationToken,
    pub(super) feed_number: u64,
}

struct Incarnation {
    link: Link,
    events: Events,
    channel: Channel,
    number: u64,
    /// The feed that runs now, and its tag at the broker.
    feed: u64,
    consumer_tag: String,
    /// The feed ended by ourselves; its end is no fault.
    ended_feed: Option<u64>,
    widen_at: Option<Instant>,
    blocked_since: Option<Instant>,
}

enum End {
    Fault(String),
    Paused,
    Closed,
}

impl Supervisor {
    pub(super) async fn run(mut self) {
        let mut dialer = Dialer::new(self.config.urls.clone(), &self.config.role);
        let mut backoff = Backoff::default();
        let mut number = 0;
        while !self.is_over() {
            if *self.paused.borrow_and_update() {
                self.wait_paused().await;
                continue;
            }
            number += 1;
            let (stop, closing) = (self.stop.clone(), self.closing.clone());
            let built = tokio::select! {
                () = stop.cancelled() => break,
                () = closing.cancelled() => break,
                built = self.build(&mut dialer, number) => built,
            };
            let reason = match built {
                Err(reason) => reason,
                Ok(incarnation) => {
                    let began = Instant::now();
                    let end = self.serve(incarnation).await;
                    backoff.link_lived(began.elapsed());
                    match end {
                        End::Fault(reason) => reason,
                        End::Paused => continue,
                        End::Closed => break,
                    }
                }
            };
            tracing::debug!(reason, "the consumer has no connection");
            dialer.move_on();
            self.state.send_replace(QueueState::Connecting {
                last_error: Some(reason),
            });
            tokio::select! {
                () = stop.cancelled() => {}
                () = closing.cancelled() => {}
                () = tokio::time::sleep(backoff.next_wait()) => {}
            }
        }
        self.feeds.end();
        self.state.send_replace(QueueState::Stopped);
    }

    fn is_over(&self) -> bool {
        self.stop.is_cancelled() || self.closing.is_cancelled()
    }

    async fn wait_paused(&mut self) {
        self.state.send_replace(QueueState::Paused);
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.closing.cancelled() => {}
            _ = self.paused.wait_for(|paused| !paused) => {}
        }
    }

    async fn build(&mut self, dialer: &mut Dialer, number: u64) -> Result<Incarnation, String> {
        let link = dialer.dial().await.map_err(|error| error.to_string())?;
        let events = link.events();
        topology::declare(&link, &self.config.topology)
            .await
            .map_err(|error| chain(&error))?;
        let channel = link.open_channel().await.map_err(|error| error.to_string())?;
        let full = self.config.prefetch_full.clamp(1, PREFETCH_MAX);
        let initial = self.config.prefetch_initial.clamp(1, full);
        let mut incarnation = Incarnation {
            link,
            events,
            channel,
            number,
            feed: 0,
            consumer_tag: String::new(),
            ended_feed: None,
            widen_at: (initial < full).then(|| Instant::now() + self.config.healthy_after),
            blocked_since: None,
        };
        self.set_live(Some(Live {
            incarnation: number,
            channel: incarnation.channel.clone(),
        }));
        let fed = self.feed(&mut incarnation, initial).await;
        if fed.is_err() {
            self.set_live(None);
        }
        fed.map_err(|error| error.to_string()).map(|()| incarnation)
    }

    /// Starts a consumer with this prefetch and hands its stream to the caller.
    async fn feed(&mut self, incarnation: &mut Incarnation, prefetch: u16) -> Result<(), lapin::Error> {
        let channel = &incarnation.channel;
        within(
            REQUEST_MAX,
            channel.basic_qos(prefetch, BasicQosOptions { global: false }),
        )
        .await?;
        self.feed_number += 1;
        let number = self.feed_number;
        let tag = format!("porchlight-{number}");
        let queue = short(&self.config.queue);
        let consumed = channel.basic_consume(
            queue,
            short(&tag),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let stream = within(REQUEST_MAX, consumed).await?;
        incarnation.feed = number;
        incarnation.consumer_tag = tag;
        self.feeds.push(Feed {
            incarnation: incarnation.number,
            number,
            stream,
            ended: None,
        });
        Ok(())
    }

    /// Replaces the consumer by one with the full prefetch, on the same channel: prefetch applies to new consumers.
    ///
    /// The old one is cancelled first and the answer awaited, so every tag of the new one is larger than every tag
    /// of the old, and acks that reach back stay right as long as the caller reads the feeds in order.
    async fn widen(&mut self, incarnation: &mut Incarnation) -> Result<(), lapin::Error> {
        incarnation.widen_at = None;
        incarnation.ended_feed = Some(incarnation.feed);
        cancel(&incarnation.channel, &incarnation.consumer_tag).await?;
        self.feed(incarnation, self.config.prefetch_full.clamp(1, PREFETCH_MAX))
            .await
    }

    async fn serve(&mut self, mut incarnation: Incarnation) -> End {
        self.state.send_replace(QueueState::Ready);
        let end = self.watch(&mut incarnation).await;
        self.set_live(None);
        self.feeds.clear();
        if let End::Closed = end {
            let closed = incarnation.channel.close(200, "closing".into());
            if timeout(CLOSE_STEP_MAX, closed).await.is_err() {
                tracing::debug!("the broker did not answer the channel's close in time");
            }
            incarnation.link.close().await;
        }
        end
    }

    async fn watch(&mut self, incarnation: &mut Incarnation) -> End {
        let mut ticks = interval(WATCH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = false;
        let stop = self.stop.clone();
        loop {
            let widen_at = incarnation.widen_at.unwrap_or_else(Instant::now);
            tokio::select! {
                () = self.closing.cancelled() => return End::Closed,
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    incarnation.widen_at = None;
                    incarnation.ended_feed = Some(incarnation.feed);
                    if let Err(error) = cancel(&incarnation.channel, &incarnation.consumer_tag).await {
                        return End::Fault(error.to_string());
                    }
                    self.feeds.end();
                }
                () = sleep_until(widen_at), if incarnation.widen_at.is_some() => {
                    if let Err(error) = self.widen(incarnation).await {
                        return End::Fault(error.to_string());
                    }
                }
                Ok(()) = self.paused.changed() => {
                    if *self.paused.borrow_and_update() {
                        return End::Paused;
                    }
                }
                Some(wish) = self.wishes.recv() => {
                    if let Some(reason) = fault_in(wish, incarnation) {
                        return End::Fault(reason);
                    }
                }
                event = incarnation.events.next() => {
                    if let Some(reason) = self.notice(event, incarnation) {
                        return End::Fault(reason);
                    }
                }
                _ = ticks.tick() => {
                    // A wish for it may have found no room, or a pause may have been over before it was seen.
                    if self.is_given_back(incarnation) {
                        return End::Fault(GIVEN_BACK.to_owned());
                    }
                    if let Some(reason) = doubt(incarnation) {
                        return End::Fault(reason);
                    }
                }
            }
        }
    }

    fn notice(&self, event: Option<Event>, incarnation: &mut Incarnation) -> Option<String> {
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                incarnation.blocked_since.get_or_insert_with(Instant::now);
                self.state.send_replace(QueueState::Blocked { reason });
                None
            }
            Some(Event::ConnectionUnblocked) => {
                incarnation.blocked_since = None;
                self.state.send_replace(QueueState::Ready);
                None
            }
            Some(Event::Error(error)) => Some(error.to_string()),
            Some(_) => None,
            None => Some("the connection ended".to_owned()),
        }
    }

    fn is_given_back(&self, incarnation: &Incarnation) -> bool {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.as_ref()
            .is_none_or(|live| live.incarnation != incarnation.number)
    }

    fn set_live(&self, live: Option<Live>) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = live;
    }
}

async fn cancel(channel: &Channel, consumer_tag: &str) -> Result<(), lapin::Error> {
    let cancelled = channel.basic_cancel(short(consumer_tag), BasicCancelOptions::default());
    within(CLOSE_STEP_MAX, cancelled).await
}

fn fault_in(wish: Wish, incarnation: &Incarnation) -> Option<String> {
    match wish {
        Wish::Abandon { incarnation: number } => {
            (number == incarnation.number).then(|| GIVEN_BACK.to_owned())
        }
        // Feeds of earlier incarnations report late; the one that was cancelled on purpose is no fault.
        Wish::FeedEnded { number, reason } => {
            (number == incarnation.feed && incarnation.ended_feed != Some(number)).then_some(reason)
        }
    }
}

fn doubt(incarnation: &Incarnation) -> Option<String> {
    if !incarnation.link.is_connected() {
        return Some("the broker closed the connection".to_owned());
    }
    let blocked = incarnation
        .blocked_since
        .is_some_and(|since| since.elapsed() > BLOCKED_MAX);
    blocked.then(|| format!("blocked for more than {BLOCKED_MAX:?}"))
}
