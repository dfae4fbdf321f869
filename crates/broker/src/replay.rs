//! Replay: sends dead letters round again, each acked only when its fresh copy is confirmed.
//!
//! It does not judge whether that helps; the filter and the caller do. A letter is never in neither place: a crash
//! leaves it in the dead letters, or there and in the work, where the duplicate is dropped.

use std::{pin::pin, time::Duration};

use futures_util::{Stream, StreamExt, stream::FuturesUnordered};
use lapin::BasicProperties;
use porchlight_event::envelope::header;
pub use porchlight_event::replay::{
    Fate, Owing, REPLAY_COUNT_MAX, ReplayOptions, ReplaySummary, Settled, StopReason,
};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::{
    dead_letter::{DEAD_ORIGIN, DeadLetter, DeadLetterError, Desk, HELD_MAX, Held, Origin},
    publisher::{PublishDeadlines, Publisher},
    topology,
    urls::BrokerUrls,
    wire::Outgoing,
};

/// Copies in flight at once: enough to hide the confirm's latency, few enough that a crash repeats little.
const INFLIGHT_MAX: usize = 20;
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

/// Replays the letters that `wanted` picks, oldest first, through `publisher`.
///
/// A command that no receiver took is not published: `owe_again` lets it be owed, and says how that went.
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
#[expect(
    clippy::too_many_arguments,
    reason = "two of them are what an operator watches and decides with"
)]
pub async fn replay<Owed: Future<Output = Owing>>(
    urls: &BrokerUrls,
    role: &str,
    publisher: &Publisher,
    options: &ReplayOptions,
    now_ms: impl Fn() -> i64,
    mut wanted: impl FnMut(&DeadLetter) -> bool,
    owe_again: impl Fn(DeadLetter) -> Owed,
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
            summary.stopped_by = Some(StopReason::HeldMax(HELD_MAX));
            break;
        }
        let next = desk.next();
        let Some((tag, held)) = settling(&desk, &mut copies, &mut summary, &mut progress, next).await??
        else {
            break;
        };
        summary.seen += 1;
        if !wanted(&held.letter) {
            summary.unwanted += 1;
        } else if held.letter.envelope.replay >= REPLAY_COUNT_MAX && !options.force {
            summary.refused += 1;
            progress(&summary, Some(&settled(&held.letter, Fate::Refused)));
        } else {
            if let Some(pace) = pace.as_mut() {
                settling(&desk, &mut copies, &mut summary, &mut progress, pace.tick()).await?;
            }
            copies.push(copying(
                publisher,
                options.confirm_max,
                tag,
                held,
                &owe_again,
                now_ms(),
            ));
        }
        if copies.len() >= INFLIGHT_MAX
            && let Some((tag, settled, stop)) = copies.next().await
        {
            settle_one(&desk, tag, &settled, stop, &mut summary).await?;
            progress(&summary, Some(&settled));
        }
        progress(&summary, None);
    }
    while let Some((tag, settled, stop)) = copies.next().await {
        settle_one(&desk, tag, &settled, stop, &mut summary).await?;
        progress(&summary, Some(&settled));
    }
    desk.close().await;
    Ok(summary)
}

/// Publishes one copy, or lets a command be owed, and says what became of it.
async fn copying<Owed: Future<Output = Owing>>(
    publisher: &Publisher,
    confirm_max: Duration,
    tag: u64,
    held: Held,
    owe_again: &impl Fn(DeadLetter) -> Owed,
    now_ms: i64,
) -> (u64, Settled, Option<StopReason>) {
    let mut settled = settled(&held.letter, Fate::Replayed);
    let mut stop = None;
    if held.letter.origin == Origin::Callback {
        match owe_again(held.letter).await {
            Owing::Owed => {}
            Owing::Overtaken => settled.fate = Fate::Overtaken,
            Owing::Failed(why) => {
                settled.fate = Fate::Kept(why.clone());
                stop = Some(StopReason::Owe(why));
            }
        }
    } else {
        let deadlines = PublishDeadlines::within(confirm_max);
        if let Err(error) = publisher.publish(copy_of(held, now_ms), deadlines).await {
            settled.fate = Fate::Kept(error.to_string());
            stop = Some(StopReason::Copy(error.to_string()));
        }
    }
    (tag, settled, stop)
}

/// Waits for something else, and settles copies meanwhile: they make progress only while somebody polls them.
async fn settling<T>(
    desk: &Desk,
    copies: &mut (impl Stream<Item = (u64, Settled, Option<StopReason>)> + Unpin),
    summary: &mut ReplaySummary,
    progress: &mut impl FnMut(&ReplaySummary, Option<&Settled>),
    waiting: impl Future<Output = T>,
) -> Result<T, DeadLetterError> {
    let mut waiting = pin!(waiting);
    loop {
        tokio::select! {
            done = &mut waiting => return Ok(done),
            Some((tag, settled, stop)) = copies.next() => {
                settle_one(desk, tag, &settled, stop, summary).await?;
                progress(summary, Some(&settled));
            }
        }
    }
}

async fn settle_one(
    desk: &Desk,
    tag: u64,
    settled: &Settled,
    stop: Option<StopReason>,
    summary: &mut ReplaySummary,
) -> Result<(), DeadLetterError> {
    match settled.fate {
        Fate::Replayed => {
            desk.remove(tag).await?;
            summary.replayed += 1;
        }
        Fate::Overtaken => {
            desk.remove(tag).await?;
            summary.overtaken += 1;
        }
        Fate::Kept(_) | Fate::Refused => {}
    }
    if summary.stopped_by.is_none() {
        summary.stopped_by = stop;
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
fn copy_of(held: Held, now_ms: i64) -> Outgoing {
    let letter = held.letter;
    let (exchange, key) = match letter.origin {
        Origin::Event => (topology::EVENTS, String::new()),
        Origin::Command | Origin::Callback => (topology::COMMANDS, letter.routing_key),
    };
    let mut outgoing = Outgoing::to(exchange, key, letter.envelope.body);
    outgoing.headers = held.raw_headers;
    outgoing.headers.retain(|name| {
        let former = STRIPPED.contains(&name) || name == DEAD_ORIGIN;
        !former && !STRIPPED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    });
    outgoing.headers.set_int(
        header::REPLAY,
        i64::from(letter.envelope.replay.saturating_add(1)),
    );
    outgoing.headers.set_int(header::REPLAYED_AT, now_ms);
    outgoing.properties = kept(&held.properties);
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
