//! Replay: sends dead letters round again, each acked only when its fresh copy is confirmed.
//!
//! It does not judge whether that helps; the filter and the caller do. A letter is never in neither place: a crash
//! leaves it in the dead letters, or there and in the work, where the duplicate is dropped.

use std::{pin::pin, time::Duration};

use futures_util::{Stream, StreamExt, stream::FuturesUnordered};
use lapin::BasicProperties;
use porchlight_event::envelope::header;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::{
    dead_letter::{DEAD_ORIGIN, DeadLetter, DeadLetterError, Desk, HELD_MAX, Origin},
    publisher::{PublishDeadlines, PublishError, Publisher},
    topology,
    urls::BrokerUrls,
    wire::Outgoing,
};

/// Copies in flight at once: enough to hide the confirm's latency, few enough that a crash repeats little.
const INFLIGHT_MAX: usize = 20;
/// A letter that came back this often is refused unless forced: it would come back again.
pub const REPLAY_COUNT_MAX: u32 = 3;

/// Headers of a former life. RabbitMQ up to 3.13 counts a republished `x-death` on; CC and BCC would route copies.
const STRIPPED: [&str; 8] = [
    "x-delivery-count",
    "x-acquired-count",
    "CC",
    "BCC",
    header::DEAD_REASON,
    header::DEAD_STAGE,
    header::DEAD_DETAIL,
    header::DEAD_AT,
];
const STRIPPED_PREFIXES: [&str; 3] = ["x-death", "x-first-death-", "x-last-death-"];

/// How to replay.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// Replay letters that were replayed [`REPLAY_COUNT_MAX`] times already.
    pub force: bool,
    /// At most so many copies a second; `None` is as fast as confirms come.
    pub per_second_max: Option<u32>,
    /// At most so many letters looked at; the queue's length at the start bounds it anyway.
    pub count_max: usize,
    /// How long one copy may take to be confirmed.
    pub confirm_max: Duration,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self {
            force: false,
            per_second_max: None,
            count_max: usize::MAX,
            confirm_max: Duration::from_secs(10),
        }
    }
}

/// How far a replay is, and at the end what it did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplaySummary {
    /// Letters in the queue when it began; it looks at no more, so what dies again is not met again.
    pub ready: usize,
    /// Letters looked at.
    pub seen: usize,
    /// Letters whose copy is confirmed and which are gone from the dead letters.
    pub replayed: usize,
    /// Letters the filter did not want.
    pub unwanted: usize,
    /// Letters refused because they were replayed too often.
    pub refused: usize,
    /// Why it ended early; the letters not replayed are all still there.
    pub stopped_by: Option<StopReason>,
}

/// What became of one wanted letter; for an audit, so it names the letter and shows nothing of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The letter's message id, which its copy carries, too.
    pub message_id: String,
    /// Why the letter had died.
    pub reason: String,
    /// How often it had been replayed before.
    pub replayed_before: u32,
    /// What became of it.
    pub fate: Fate,
}

/// What became of one wanted letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its copy is confirmed and the letter is acked.
    Replayed,
    /// It was replayed too often; it is still there.
    Refused,
    /// Its copy was not confirmed; it is still there.
    Kept(PublishError),
}

/// Why a replay ended before the last letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// A copy was not confirmed.
    #[error("a copy could not be published: {0}")]
    Publish(#[from] PublishError),
    /// So many unwanted letters lie before the rest that no more may be held.
    #[error("holding {HELD_MAX} letters that are not wanted; narrow the queue down first")]
    HeldMax,
}

/// Replays the letters that `wanted` picks, oldest first, through `publisher`.
///
/// Unwanted letters are held until the end and then returned; [`HELD_MAX`] bounds them. `now_ms` is asked for each
/// letter's replayed-at. `progress` is called after every letter looked at, and with each wanted letter whose fate is
/// settled.
///
/// # Errors
/// [`DeadLetterError`] when the dead letters cannot be read; copies already confirmed may then still be among them.
///
/// # Cancel safety
/// Dropping the future loses nothing; copies that were in flight may exist beside their letters.
pub async fn replay(
    urls: &BrokerUrls,
    role: &str,
    publisher: &Publisher,
    options: &ReplayOptions,
    now_ms: impl Fn() -> i64,
    mut wanted: impl FnMut(&DeadLetter) -> bool,
    mut progress: impl FnMut(&ReplaySummary, Option<&Settled>),
) -> Result<ReplaySummary, DeadLetterError> {
    let desk = Desk::open(urls, role).await?;
    let mut summary = ReplaySummary {
        ready: desk.ready,
        ..ReplaySummary::default()
    };
    let mut pace = options.per_second_max.map(pace);
    let mut copies = FuturesUnordered::new();
    let limit = desk.ready.min(options.count_max);
    while summary.seen < limit && summary.stopped_by.is_none() {
        if summary.unwanted + summary.refused >= HELD_MAX {
            summary.stopped_by = Some(StopReason::HeldMax);
            break;
        }
        let next = desk.next();
        let Some((tag, letter)) = settling(&desk, &mut copies, &mut summary, &mut progress, next).await??
        else {
            break;
        };
        summary.seen += 1;
        if !wanted(&letter) {
            summary.unwanted += 1;
        } else if letter.envelope.replay >= REPLAY_COUNT_MAX && !options.force {
            summary.refused += 1;
            progress(&summary, Some(&settled(&letter, Fate::Refused)));
        } else {
            if let Some(pace) = pace.as_mut() {
                settling(&desk, &mut copies, &mut summary, &mut progress, pace.tick()).await?;
            }
            copies.push(copying(publisher, options.confirm_max, tag, letter, now_ms()));
        }
        if copies.len() >= INFLIGHT_MAX
            && let Some((tag, settled)) = copies.next().await
        {
            settle_one(&desk, tag, &settled, &mut summary).await?;
            progress(&summary, Some(&settled));
        }
        progress(&summary, None);
    }
    while let Some((tag, settled)) = copies.next().await {
        settle_one(&desk, tag, &settled, &mut summary).await?;
        progress(&summary, Some(&settled));
    }
    desk.close().await;
    Ok(summary)
}

/// Publishes one copy and says what became of it.
async fn copying(
    publisher: &Publisher,
    confirm_max: Duration,
    tag: u64,
    letter: DeadLetter,
    now_ms: i64,
) -> (u64, Settled) {
    let mut settled = settled(&letter, Fate::Replayed);
    let deadlines = PublishDeadlines::within(confirm_max);
    if let Err(error) = publisher.publish(copy_of(letter, now_ms), deadlines).await {
        settled.fate = Fate::Kept(error);
    }
    (tag, settled)
}

/// Waits for something else, and settles copies meanwhile: they make progress only while somebody polls them.
async fn settling<T>(
    desk: &Desk,
    copies: &mut (impl Stream<Item = (u64, Settled)> + Unpin),
    summary: &mut ReplaySummary,
    progress: &mut impl FnMut(&ReplaySummary, Option<&Settled>),
    waiting: impl Future<Output = T>,
) -> Result<T, DeadLetterError> {
    let mut waiting = pin!(waiting);
    loop {
        tokio::select! {
            done = &mut waiting => return Ok(done),
            Some((tag, settled)) = copies.next() => {
                settle_one(desk, tag, &settled, summary).await?;
                progress(summary, Some(&settled));
            }
        }
    }
}

async fn settle_one(
    desk: &Desk,
    tag: u64,
    settled: &Settled,
    summary: &mut ReplaySummary,
) -> Result<(), DeadLetterError> {
    match settled.fate {
        Fate::Replayed => {
            desk.remove(tag).await?;
            summary.replayed += 1;
        }
        Fate::Kept(error) => summary.stopped_by = summary.stopped_by.or(Some(error.into())),
        Fate::Refused => {}
    }
    Ok(())
}

fn settled(letter: &DeadLetter, fate: Fate) -> Settled {
    Settled {
        message_id: letter.envelope.message_id.clone(),
        reason: letter.reason.clone(),
        replayed_before: letter.envelope.replay,
        fate,
    }
}

fn pace(per_second_max: u32) -> Interval {
    let mut ticks = interval(Duration::from_secs(1) / per_second_max.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// A fresh message: same body and id, nothing of its deaths, one replay more.
fn copy_of(letter: DeadLetter, now_ms: i64) -> Outgoing {
    let (exchange, key) = match letter.origin {
        Origin::Event => (topology::EVENTS, String::new()),
        Origin::Command => (topology::COMMANDS, letter.routing_key),
    };
    let mut outgoing = Outgoing::to(exchange, key, letter.envelope.body);
    outgoing.headers = letter.raw_headers;
    outgoing.headers.retain(|name| {
        let former = STRIPPED.contains(&name) || name == DEAD_ORIGIN;
        !former && !STRIPPED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    });
    outgoing.headers.set_int(
        header::REPLAY,
        i64::from(letter.envelope.replay.saturating_add(1)),
    );
    outgoing.headers.set_int(header::REPLAYED_AT, now_ms);
    outgoing.properties = kept(&letter.properties);
    outgoing.with_message_id(&letter.envelope.message_id)
}

/// Not kept: expiration, user id (the broker refuses another user's), reply-to, priority.
fn kept(old: &BasicProperties) -> BasicProperties {
    let mut new = BasicProperties::default();
    if let Some(content_type) = old.content_type() {
        new = new.with_content_type(content_type.clone());
    }
    if let Some(encoding) = old.content_encoding() {
        new = new.with_content_encoding(encoding.clone());
    }
    if let Some(timestamp) = old.timestamp() {
        new = new.with_timestamp(*timestamp);
    }
    if let Some(correlation) = old.correlation_id() {
        new = new.with_correlation_id(correlation.clone());
    }
    new
}
