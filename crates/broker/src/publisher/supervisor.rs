//! Keeps a publisher connected: builds a session, watches it, drops it whole on any doubt, and builds the next.
//!
//! It never looks at a single publish; lanes do.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures_util::{StreamExt, future::join_all};
use lapin::{Event, options::ConfirmSelectOptions};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};

use super::{CHANNEL_COUNT_MAX, PublisherConfig, Session, Shared, breaker::Breaker, lane::Lane};
use crate::{
    connection::{Backoff, CLOSE_STEP_MAX, Dialer, Events, Link, REQUEST_MAX, chain, within},
    topology,
};
use porchlight_event::queue::QueueState;

/// How often silence and blocking are looked at; far below the deadlines they are held to.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// After so long with nothing but refusals the session is renewed. RabbitMQ 3.10 tells the publishers of a full queue to
/// go on when the queue has shrunk, but not when its limit has grown; new channels ask afresh.
const REFUSED_MAX: Duration = Duration::from_secs(10);

struct Built {
    link: Link,
    events: Events,
    session: Arc<Session>,
    /// Dropped with the session; the settlers end with it.
    _settlers: JoinSet<()>,
}

/// Silence counts only from the end of the last blocking: nothing could be confirmed before.
#[derive(Default)]
struct Blocking {
    since: Option<Instant>,
    ended_at: Option<Instant>,
}

pub(super) async fn supervise(shared: Arc<Shared>, config: PublisherConfig) {
    let mut dialer = Dialer::new(config.urls.clone(), &config.role);
    let mut backoff = Backoff::default();
    let closing = shared.closing.clone();
    loop {
        let built = tokio::select! {
            () = closing.cancelled() => break,
            built = build(&mut dialer, &config, &shared) => built,
        };
        let reason = match built {
            Ok(built) => match run(built, &config, &shared, &mut backoff).await {
                Some(reason) => reason,
                None => break,
            },
            Err(reason) => reason,
        };
        tracing::debug!(reason, "the publisher has no connection");
        dialer.move_on();
        shared.state.send_replace(QueueState::Connecting {
            last_error: Some(reason),
        });
        tokio::select! {
            () = closing.cancelled() => break,
            () = tokio::time::sleep(backoff.next_wait()) => {}
        }
    }
    shared.window.close();
    shared.state.send_replace(QueueState::Stopped);
}

async fn build(dialer: &mut Dialer, config: &PublisherConfig, shared: &Shared) -> Result<Built, String> {
    let link = dialer.dial().await.map_err(|error| error.to_string())?;
    let events = link.events();
    topology::declare(&link, &config.topology)
        .await
        .map_err(|error| chain(&error))?;
    let breaker = Arc::new(Breaker::default());
    let mut lanes = Vec::new();
    let mut settlers = JoinSet::new();
    for _ in 0..config.channel_count.clamp(1, CHANNEL_COUNT_MAX) {
        let channel = link.open_channel().await.map_err(|error| error.to_string())?;
        let selected = channel.confirm_select(ConfirmSelectOptions::default());
        within(REQUEST_MAX, selected)
            .await
            .map_err(|error| error.to_string())?;
        let lane = Arc::new(Lane::new(
            channel,
            Arc::clone(&shared.counters),
            Arc::clone(&breaker),
        ));
        settlers.spawn(Arc::clone(&lane).settle_forever());
        lanes.push(lane);
    }
    Ok(Built {
        link,
        events,
        session: Arc::new(Session { lanes, breaker }),
        _settlers: settlers,
    })
}

/// Serves one session to its end. Returns why it ended, or `None` when the publisher is closing.
async fn run(
    mut built: Built,
    config: &PublisherConfig,
    shared: &Shared,
    backoff: &mut Backoff,
) -> Option<String> {
    let began = Instant::now();
    shared.counters.timeouts_in_row.store(0, Relaxed);
    shared.counters.note_refusal(false);
    shared.connections_made.fetch_add(1, Relaxed);
    shared.install(Some(Arc::clone(&built.session)));
    shared.state.send_replace(QueueState::Ready);
    let ended = watch(&mut built, config, shared).await;
    if ended.is_none() {
        drain(&built.session, config, shared).await;
    }
    shared.install(None);
    if let Some(reason) = &ended {
        // Callers that arrive now must see "unavailable", not a session that has just ended.
        shared.state.send_replace(QueueState::Connecting {
            last_error: Some(reason.clone()),
        });
    }
    built.session.close();
    if ended.is_none() {
        built.link.close().await;
    }
    backoff.link_lived(began.elapsed());
    ended
}

async fn watch(built: &mut Built, config: &PublisherConfig, shared: &Shared) -> Option<String> {
    let mut ticks = interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut blocking = Blocking::default();
    loop {
        tokio::select! {
            () = shared.closing.cancelled() => return None,
            reason = built.session.breaker.tripped() => return Some(reason),
            event = built.events.next() => match event {
                Some(Event::ConnectionBlocked(reason)) => {
                    blocking.since.get_or_insert_with(Instant::now);
                    shared.state.send_replace(QueueState::Blocked { reason });
                }
                Some(Event::ConnectionUnblocked) => {
                    blocking = Blocking { since: None, ended_at: Some(Instant::now()) };
                    shared.state.send_replace(QueueState::Ready);
                }
                Some(Event::Error(error)) => return Some(error.to_string()),
                Some(_) => {}
                None => return Some("the connection ended".to_owned()),
            },
            _ = ticks.tick() => {
                if let Some(reason) = doubt(built, &blocking, config) {
                    return Some(reason);
                }
                if shared.counters.refusing_for().is_some_and(|refusing| refusing > REFUSED_MAX) {
                    return Some(format!("the broker refused everything for more than {REFUSED_MAX:?}"));
                }
            }
        }
    }
}

/// What the passing of time alone says against a session.
fn doubt(built: &Built, blocking: &Blocking, config: &PublisherConfig) -> Option<String> {
    if !built.link.is_connected() {
        return Some("the broker closed the connection".to_owned());
    }
    match blocking.since {
        Some(since) if since.elapsed() > config.blocked_max => {
            Some(format!("blocked for more than {:?}", config.blocked_max))
        }
        Some(_) => None,
        None => {
            let silence = built
                .session
                .lanes
                .iter()
                .filter_map(|lane| lane.silence())
                .max()?;
            let silence = blocking.ended_at.map_or(silence, |at| silence.min(at.elapsed()));
            (silence > config.confirm_silence_max)
                .then(|| format!("no confirm for {silence:.1?} although some are outstanding"))
        }
    }
}

async fn drain(session: &Session, config: &PublisherConfig, shared: &Shared) {
    let asked = *shared.drain_by.read().unwrap_or_else(PoisonError::into_inner);
    let by = asked.unwrap_or_else(|| Instant::now() + config.drain_max);
    let all = u32::try_from(shared.inflight_max).unwrap_or(u32::MAX);
    if timeout_at(by, shared.window.acquire_many(all)).await.is_err() {
        tracing::debug!("closing with confirms outstanding");
    }
    let closes = session
        .lanes
        .iter()
        .map(|lane| timeout(CLOSE_STEP_MAX, lane.channel().close(200, "closing".into())));
    join_all(closes).await;
}

impl Shared {
    fn install(&self, session: Option<Arc<Session>>) {
        *self.session.write().unwrap_or_else(PoisonError::into_inner) = session;
    }
}
