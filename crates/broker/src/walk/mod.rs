//! A walk over the dead letters: each comes by once, and whoever walks says which stay and which are gone.
//!
//! Nothing is published here. What was not removed is in the queue, whatever ends the walk.

mod desk;
mod print;

use std::{collections::BTreeMap, io, time::Duration};

use futures_util::{StreamExt as _, stream::SelectAll};
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::FieldTable,
};
use porchlight_event::queue::DeadLetter;
use tokio::time::{Instant, sleep, timeout};

use desk::sit_down;
use print::Print;

use crate::{
    connection::{CLOSE_STEP_MAX, Link, REQUEST_MAX, within},
    dead_letter::{DeadLetterError, Held, Remains},
    depth, topology,
    urls::BrokerUrls,
    wire::short,
};

/// Letters that the broker hands out ahead: what this process holds at most, each as large as the largest body.
const PREFETCH: u16 = 100;
/// Letters that are gathered before they go back; the other half of the prefetch is on its way meanwhile.
const GIVEN_BACK_AT_ONCE: usize = PREFETCH as usize / 2;
/// Letters that may be undecided while the walk goes on: with those that are gathered they stay below the prefetch.
pub const UNDECIDED_MAX: usize = 40;
/// Letters held until the end, at most, on a broker that puts in front again what it is given back: it remembers each
/// of them for our channel.
pub const HELD_MAX: usize = 10_000;
/// How long the next letter may take to arrive, and how long to wait for it before asking whether there is one.
const NEXT_MAX: Duration = Duration::from_secs(10);
const ASK_AFTER: Duration = Duration::from_secs(1);
/// How long letters that were given back may take to be ready again, and how long to wait before looking again whether
/// they are.
const BACK_MAX: Duration = Duration::from_secs(5);
const BACK_PAUSE: Duration = Duration::from_millis(10);

/// A letter that a walk has come by.
#[derive(Debug)]
pub struct Taken {
    /// The letter.
    pub letter: DeadLetter,
    /// What a copy of it needs besides.
    pub remains: Remains,
    /// Its name within this walk.
    pub tag: u64,
}

/// A walk over the letters that were there when it began, oldest first.
///
/// A queue without a delivery limit puts behind the rest what it is given back. So letters go back while the walk goes
/// on, neither side holds more than a hundred of them, and at the end they stand as they stood. A walk that ends
/// half-way leaves those that it has seen behind the others. A hundred letters or fewer are held until the end, and
/// nothing has moved at all.
///
/// Where the queue has a delivery limit, which it should not have, a letter that is given back comes again at once, and
/// each time counts. The walk finds that out by giving back one, and holds the others until the end: [`HELD_MAX`].
///
/// Two walks at once would each see a part. So one has the desk, and the other is told.
pub struct Walk {
    link: Link,
    channel: Channel,
    feeds: SelectAll<lapin::Consumer>,
    feed_count: usize,
    ready: usize,
    seen: usize,
    /// Deliveries, those that came again included.
    arrived: u64,
    /// Letters done with.
    removed: u64,
    /// Letters given back.
    given_back: u64,
    /// What is held, by tag.
    held: BTreeMap<u64, Mark>,
    /// How many of them stay.
    left: usize,
    /// The first that stays, while it is not known where a letter goes that is given back.
    first_left: Option<(u64, Print)>,
    way: Way,
}

/// What is to become of a letter that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// Not decided.
    Open,
    /// It stays.
    Left,
    /// It is done with.
    Gone,
}

/// Where a letter goes that is given back.
#[derive(Debug)]
enum Way {
    Unknown,
    /// This one was given back; the arrival of that number tells.
    Asked(Print, u64),
    /// Behind the rest. When this one comes by again, the walk has come round.
    Behind(Print),
    /// In front.
    InFront,
}

/// What an arrival is.
enum Arrival {
    New,
    /// The one that was given back, again at once.
    Again,
    /// The first one again: somebody else has taken letters meanwhile, so there are no more that were not seen.
    Round,
}

impl Walk {
    /// Connects, and looks how many letters there are.
    ///
    /// # Errors
    /// [`DeadLetterError`]; `Busy` when another walk does not end within five seconds.
    ///
    /// # Cancel safety
    /// A dropped attempt is cut; nothing stays behind.
    pub async fn open(urls: &BrokerUrls, role: &str) -> Result<Self, DeadLetterError> {
        let link = Link::connect(urls, role).await?;
        sit_down(&link).await?;
        let channel = link.open_channel().await?;
        let counts = match depth::ready_in(&channel, topology::DEAD).await {
            Err(error) if depth::is_not_found(&error) => return Err(DeadLetterError::NoQueue),
            counts => counts?,
        };
        let prefetch = channel.basic_qos(PREFETCH, BasicQosOptions::default());
        within(REQUEST_MAX, prefetch).await?;
        Ok(Self {
            link,
            channel,
            feeds: SelectAll::new(),
            feed_count: 0,
            ready: counts.ready as usize,
            seen: 0,
            arrived: 0,
            removed: 0,
            given_back: 0,
            held: BTreeMap::new(),
            left: 0,
            first_left: None,
            way: Way::Unknown,
        })
    }

    /// Letters there were when it began. What dies later is behind these, and the walk does not come to it.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.ready
    }

    /// Whether it has ended before the last letter, because no more may be held.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.way, Way::InFront) && self.seen >= HELD_MAX && self.seen < self.ready
    }

    /// The next letter; `None` at the end. What becomes of it is said by [`Walk::leave`] or [`Walk::remove`]; no more
    /// than [`UNDECIDED_MAX`] may wait for that.
    ///
    /// # Errors
    /// [`DeadLetterError::Lost`]: what is held is in the queue again.
    ///
    /// # Cancel safety
    /// Not safe: only [`Walk::close`] or [`Walk::finish`] may follow. Nothing is lost either way.
    pub async fn next(&mut self) -> Result<Option<Taken>, DeadLetterError> {
        loop {
            self.settle().await?;
            if self.seen >= self.ready || self.is_full() {
                return Ok(None);
            }
            if self.held.len() >= self.feed_count * usize::from(PREFETCH) {
                self.consume().await?;
            }
            let Some(delivery) = self.arrival().await? else {
                return Ok(None);
            };
            self.arrived += 1;
            let tag = delivery.delivery_tag;
            self.held.insert(tag, Mark::Open);
            let held = Held::from_parts(delivery.routing_key.as_str(), delivery.properties, delivery.data);
            match self.look_again(&held.letter) {
                Arrival::Round => return Ok(None),
                Arrival::Again => self.mark(tag, Mark::Left),
                Arrival::New => {
                    self.seen += 1;
                    let Held { letter, remains } = held;
                    return Ok(Some(Taken { letter, remains, tag }));
                }
            }
        }
    }

    /// Lets a letter stay.
    pub fn leave(&mut self, tag: u64, letter: &DeadLetter) {
        if matches!(self.way, Way::Unknown) && self.first_left.is_none() {
            self.first_left = Some((tag, Print::of(letter)));
        }
        self.mark(tag, Mark::Left);
    }

    /// A letter is done with. The next [`Walk::settle`] tells the broker, and after [`Walk::finish`] it is gone for good.
    pub fn remove(&mut self, tag: u64) {
        self.mark(tag, Mark::Gone);
    }

    /// Tells the broker what is gone, and gives back what stays when enough of that is there.
    ///
    /// # Errors
    /// [`DeadLetterError::Lost`]: what is held is in the queue again.
    pub async fn settle(&mut self) -> Result<(), DeadLetterError> {
        let is_due = matches!(self.way, Way::Behind(_)) && self.left >= GIVEN_BACK_AT_ONCE;
        self.settle_marked(is_due).await?;
        let handed_out = u64::from(PREFETCH) + self.removed;
        if matches!(self.way, Way::Unknown)
            && self.left >= GIVEN_BACK_AT_ONCE
            && self.ready as u64 > handed_out
            && let Some((tag, print)) = self.first_left.take()
        {
            self.send(Mark::Left, tag, false).await?;
            self.held.remove(&tag);
            self.count_settled(Mark::Left, 1);
            self.way = Way::Asked(print, handed_out + 1);
        }
        Ok(())
    }

    /// Ends a walk that only looked: [`Walk::finish`] without its answer.
    pub async fn close(self) {
        // What is not settled is in the queue, and that is where it belongs.
        let _ = self.finish().await;
    }

    /// Gives back what is held, and waits until the queue has every ack of what was removed. Takes some seconds at most.
    ///
    /// # Errors
    /// [`DeadLetterError::Lost`] when it is not known whether the last letters that were removed are gone.
    pub async fn finish(mut self) -> Result<(), DeadLetterError> {
        let mut settled = self.give_back_the_rest().await;
        if settled.is_ok() && self.removed > 0 {
            settled = self.see_acks_in().await;
        }
        let removed = self.removed > 0 || self.held.values().any(|mark| *mark == Mark::Gone);
        if settled.is_ok() {
            let closed = self.channel.close(200, "letters returned".into());
            // Without an answer the cut that follows returns them, too.
            let _ = timeout(CLOSE_STEP_MAX, closed).await;
            // Who looks next is to see them; where somebody else takes letters meanwhile, this wait is in vain.
            let _ = timeout(BACK_MAX, self.see_letters_back()).await;
        }
        self.link.close().await;
        if removed { settled } else { Ok(()) }
    }

    /// Waits until the queue has every ack.
    ///
    /// RabbitMQ passes no more than some thirty commands of a channel on to a quorum queue before the queue has written
    /// them. It keeps further acks in the channel, and when the channel ends it forgets those: the letters stand there
    /// again. The end of a consumer is a command as well, behind those that were passed on, and is answered when it is
    /// written; with one question more to the queue the channel has heard of the others, too, and has passed on what it
    /// had kept. Where the queue's leader changes in this very moment, some may still stand there again.
    ///
    /// Nothing may be on its way to the consumer: what arrives for one that has ended goes behind the rest.
    async fn see_acks_in(&mut self) -> Result<(), DeadLetterError> {
        let first = consumer_tag(0);
        let cancelled = self
            .channel
            .basic_cancel(short(&first), BasicCancelOptions::default());
        within(REQUEST_MAX, cancelled).await?;
        depth::ready_in(&self.channel, topology::DEAD).await?;
        Ok(())
    }

    /// Waits until what was held is ready again: RabbitMQ takes it back a moment after it has answered the close.
    async fn see_letters_back(&self) -> Result<(), lapin::Error> {
        let channel = self.link.open_channel().await?;
        let there = (self.ready as u64).saturating_sub(self.removed);
        while u64::from(depth::ready_in(&channel, topology::DEAD).await?.ready) < there {
            sleep(BACK_PAUSE).await;
        }
        Ok(())
    }

    /// What goes back by the end of the channel stands in front in its old order: right for what the walk has not come
    /// to, and for all of a queue in which nothing has moved. What the walk has seen of a queue that goes round is to go
    /// behind first, and its coming round again is the sign that it has. For each letter that is gone another one comes.
    async fn give_back_the_rest(&mut self) -> Result<(), DeadLetterError> {
        while let Way::Asked(_, at) = self.way
            && self.arrived < at
            && self.come_again().await?
        {}
        let is_moving = matches!(self.way, Way::Behind(_));
        self.settle_marked(is_moving).await?;
        let there = self.ready as u64 - self.removed.min(self.ready as u64);
        let at_once = self.feed_count as u64 * u64::from(PREFETCH);
        let owed = self.removed + self.given_back + there.min(at_once);
        let is_awaited = is_moving || self.removed > 0;
        while is_awaited && self.arrived < owed && self.come_again().await? {}
        Ok(())
    }

    /// Lets one more letter arrive that nobody looks at; false when none comes.
    async fn come_again(&mut self) -> Result<bool, DeadLetterError> {
        let Ok(Some(delivery)) = timeout(ASK_AFTER, self.feeds.next()).await else {
            return Ok(false);
        };
        let delivery = delivery?;
        self.arrived += 1;
        self.held.insert(delivery.delivery_tag, Mark::Open);
        let held = Held::from_parts(delivery.routing_key.as_str(), delivery.properties, delivery.data);
        self.look_again(&held.letter);
        Ok(true)
    }

    fn mark(&mut self, tag: u64, mark: Mark) {
        self.held.insert(tag, mark);
        self.left += usize::from(mark == Mark::Left);
    }

    /// In order, so that what goes back keeps its order; in one frame what lies together at the front.
    async fn settle_marked(&mut self, gives_back: bool) -> Result<(), DeadLetterError> {
        let is_meant = |mark| mark == Mark::Gone || gives_back && mark == Mark::Left;
        while let Some((_, &mark)) = self.held.first_key_value()
            && is_meant(mark)
        {
            let run = self.held.iter().take_while(|(_, other)| **other == mark);
            let last = run.last().map_or(0, |(tag, _)| *tag);
            self.send(mark, last, true).await?;
            let rest = self.held.split_off(&(last + 1));
            let settled = std::mem::replace(&mut self.held, rest).len();
            self.count_settled(mark, settled);
        }
        let behind: Vec<(u64, Mark)> = self.held.iter().map(|(tag, mark)| (*tag, *mark)).collect();
        for (tag, mark) in behind.into_iter().filter(|(_, mark)| is_meant(*mark)) {
            self.send(mark, tag, false).await?;
            self.held.remove(&tag);
            self.count_settled(mark, 1);
        }
        Ok(())
    }

    fn count_settled(&mut self, mark: Mark, count: usize) {
        match mark {
            Mark::Gone => self.removed += count as u64,
            Mark::Left => {
                self.left -= count;
                self.given_back += count as u64;
            }
            Mark::Open => {}
        }
    }

    async fn send(&self, mark: Mark, tag: u64, multiple: bool) -> Result<(), lapin::Error> {
        if mark == Mark::Gone {
            let acked = self.channel.basic_ack(tag, BasicAckOptions { multiple });
            return within(REQUEST_MAX, acked).await;
        }
        let options = BasicNackOptions {
            multiple,
            requeue: true,
        };
        within(REQUEST_MAX, self.channel.basic_nack(tag, options)).await
    }

    /// One consumer more. The first is enough where letters go back meanwhile.
    async fn consume(&mut self) -> Result<(), DeadLetterError> {
        let tag = consumer_tag(self.feed_count);
        let consumer = self.channel.basic_consume(
            short(topology::DEAD),
            short(&tag),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        self.feeds.push(within(REQUEST_MAX, consumer).await?);
        self.feed_count += 1;
        Ok(())
    }

    /// `None` when somebody else has taken the rest.
    async fn arrival(&mut self) -> Result<Option<lapin::message::Delivery>, DeadLetterError> {
        let until = Instant::now() + NEXT_MAX;
        loop {
            match timeout(ASK_AFTER, self.feeds.next()).await {
                Ok(Some(delivery)) => return Ok(Some(delivery?)),
                Ok(None) => return Err(lost("the broker ended the consumer")),
                Err(_) => {
                    let counts = depth::ready_in(&self.channel, topology::DEAD).await?;
                    // We consume: a queue that knows of no consumer has not answered, for want of a leader.
                    if counts.ready == 0 && counts.consumers > 0 {
                        return Ok(None);
                    }
                    if Instant::now() >= until {
                        return Err(lost("the next letter did not arrive in time"));
                    }
                }
            }
        }
    }

    fn look_again(&mut self, letter: &DeadLetter) -> Arrival {
        match &self.way {
            Way::Asked(print, at) if self.arrived == *at => {
                if print.is_of(letter) {
                    self.way = Way::InFront;
                    return Arrival::Again;
                }
                self.way = Way::Behind(print.clone());
                Arrival::New
            }
            Way::Behind(print) if print.is_of(letter) => Arrival::Round,
            _ => Arrival::New,
        }
    }
}

/// RabbitMQ returns what ended consumers held in the order of their tags' text.
fn consumer_tag(number: usize) -> String {
    format!("porchlight-dead-{number:06}")
}

fn lost(what: &'static str) -> DeadLetterError {
    DeadLetterError::Lost(io::Error::new(io::ErrorKind::TimedOut, what).into())
}
