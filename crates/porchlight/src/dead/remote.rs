//! A standalone's dead letters, through its control API: page by page, and replayed a few in each call.
//!
//! The daemon does each step in one commit of its own; nothing is held here.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::facts::Row;
use super::letters::{Pace, Progress, Seen};
use super::shown::Shown;
use super::wire::{Fate, LettersPage, REPLAY_COUNT_MAX, ReplayAnswer, ReplayRequest, Replayed};
use crate::control_api::{ControlApi, encoded, error_code, read_of_standalone};
use crate::failure::Failure;

/// Letters on one page.
const PAGE_LETTERS: usize = 200;
/// Letters in one call that replays, at most; one call ends within seconds.
const CALL_LETTERS_MAX: u32 = 20;
/// Calls in a second, where letters are paced.
const CALLS_PER_SECOND: u32 = 10;
const WHAT: &str = "the dead letters";

/// Shows every letter's row, oldest first.
pub(super) async fn look(
    api: &ControlApi,
    mut visit: impl FnMut(Row) -> ControlFlow<()>,
) -> Result<Seen, Failure> {
    let mut pages = Pages::new(api);
    let mut seen = Seen::default();
    while let Some(page) = pages.next().await? {
        seen.ready = pages.ready;
        for letter in page.letters {
            seen.seen += 1;
            if visit(letter.row).is_break() {
                return Ok(seen);
            }
        }
    }
    Ok(seen)
}

/// The letters whose message id begins so.
pub(super) async fn show(
    api: &ControlApi,
    prefix: &str,
    count_max: usize,
    with_body: bool,
) -> Result<Vec<Shown>, Failure> {
    let path = format!("/v1/dead/{}?body={with_body}", encoded(prefix));
    let answer = api.call("GET", &path, Bytes::new()).await?;
    if error_code(&answer).as_deref() == Some("unknown_letter") {
        return Ok(Vec::new());
    }
    let found: Vec<Shown> = read_of_standalone(&answer, WHAT)?;
    Ok(found
        .into_iter()
        .take(count_max)
        .map(Shown::out_of_base64)
        .collect())
}

/// Replays the letters that `wanted` picks. A stop lets the call that is out come back, so that its letters are told.
pub(super) async fn replay(
    api: &ControlApi,
    pace: Pace,
    stop: &CancellationToken,
    mut wanted: impl FnMut(&Row) -> bool,
    mut progress: impl FnMut(&Progress, Option<&Replayed>),
) -> Result<Progress, Failure> {
    let mut pages = Pages::new(api);
    let mut done = Progress::default();
    let mut caller = Caller::new(api, pace, stop);
    while let Some(page) = pages.next().await? {
        done.ready = pages.ready;
        for letter in page.letters {
            done.seen += 1;
            if !wanted(&letter.row) {
                done.unwanted += 1;
            } else if letter.row.replays >= REPLAY_COUNT_MAX && !pace.force {
                done.count(&Fate::Refused);
                progress(&done, Some(&refused(letter.key, &letter.row)));
            } else {
                caller.keys.push(letter.key);
                caller.flush(false, &mut done, &mut progress).await?;
            }
            if done.stopped_by.is_some() {
                return Ok(done);
            }
            progress(&done, None);
        }
    }
    caller.flush(true, &mut done, &mut progress).await?;
    Ok(done)
}

/// The pages of one look; what dies after the first is on none of them.
struct Pages<'a> {
    api: &'a ControlApi,
    ready: usize,
    until: Option<String>,
    cursor: Option<String>,
    ended: bool,
}

impl<'a> Pages<'a> {
    fn new(api: &'a ControlApi) -> Self {
        Self {
            api,
            ready: 0,
            until: None,
            cursor: None,
            ended: false,
        }
    }

    async fn next(&mut self) -> Result<Option<LettersPage>, Failure> {
        if self.ended {
            return Ok(None);
        }
        let mut path = format!("/v1/dead?limit={PAGE_LETTERS}");
        for (name, value) in [("cursor", &self.cursor), ("until", &self.until)] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encoded(value)));
            }
        }
        let page: LettersPage = read_of_standalone(&self.api.call("GET", &path, Bytes::new()).await?, WHAT)?;
        if self.until.is_none() {
            self.ready = usize::try_from(page.total).unwrap_or(usize::MAX);
            self.until = Some(page.until.clone());
        }
        self.cursor.clone_from(&page.next_cursor);
        self.ended = page.next_cursor.is_none();
        Ok(Some(page))
    }
}

/// Gathers letters and asks for their replay, not faster than is wanted.
struct Caller<'a> {
    api: &'a ControlApi,
    stop: &'a CancellationToken,
    force: bool,
    keys: Vec<String>,
    call_letters: usize,
    ticks: Option<Interval>,
}

impl<'a> Caller<'a> {
    fn new(api: &'a ControlApi, pace: Pace, stop: &'a CancellationToken) -> Self {
        let letters = pace.per_second_max.map_or(CALL_LETTERS_MAX, |rate| {
            rate.div_ceil(CALLS_PER_SECOND).min(CALL_LETTERS_MAX)
        });
        let ticks = pace.per_second_max.map(|rate| {
            let mut ticks = interval(Duration::from_secs(1) * letters / rate.max(1));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self {
            api,
            stop,
            force: pace.force,
            keys: Vec::new(),
            call_letters: usize::try_from(letters).unwrap_or(1),
            ticks,
        }
    }

    /// Calls when enough are gathered, or with whatever there is at the end.
    async fn flush(
        &mut self,
        at_end: bool,
        done: &mut Progress,
        progress: &mut impl FnMut(&Progress, Option<&Replayed>),
    ) -> Result<(), Failure> {
        if self.keys.is_empty() || (!at_end && self.keys.len() < self.call_letters) {
            return Ok(());
        }
        if let Some(ticks) = self.ticks.as_mut() {
            let _ = self.stop.run_until_cancelled(ticks.tick()).await;
        }
        if self.stop.is_cancelled() {
            done.stopped_by = Some("a signal".to_owned());
            return Ok(());
        }
        let request = ReplayRequest {
            keys: std::mem::take(&mut self.keys),
            ids: Vec::new(),
            force: self.force,
        };
        let body =
            serde_json::to_vec(&request).map_err(|error| Failure::failed("the request").because(&error))?;
        let answer = self.api.call("POST", "/v1/dead/replay", body.into()).await?;
        let answer: ReplayAnswer = read_of_standalone(&answer, WHAT)?;
        for result in &answer.results {
            done.count(&result.fate);
            progress(done, Some(result));
        }
        Ok(())
    }
}

fn refused(key: String, row: &Row) -> Replayed {
    Replayed {
        key,
        message_id: Some(row.message_id.clone()),
        reason: Some(row.reason.clone()),
        replays: row.replays,
        fate: Fate::Refused,
    }
}
