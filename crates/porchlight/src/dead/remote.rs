//! A standalone's dead letters, through its control API: page by page, and worked through a few in each call.
//!
//! The daemon does each step in one commit of its own; nothing is held here.

use std::time::Duration;

use bytes::Bytes;
use porchlight_event::replay::{Action, ReplaySummary, StopReason, Wish};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::facts::Row;
use super::letters::{Pace, Peeked, Sight};
use super::shown::Shown;
use super::wire::{Fate, LettersPage, REPLAY_COUNT_MAX, ReplayAnswer, ReplayRequest, Replayed};
use crate::control_api::{ControlApi, encoded, error_code, read_of_standalone};
use crate::failure::Failure;

/// Letters on one page.
const PAGE_LETTERS: usize = 200;
/// Letters in one call that changes something, at most; one call ends within seconds.
const CALL_LETTERS_MAX: u32 = 100;
/// Calls in a second, where letters are paced.
const CALLS_PER_SECOND: u32 = 10;
const WHAT: &str = "the dead letters";

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

/// Works through the letters that `wish` picks. A stop lets the call that is out come back, so that its letters are
/// told.
pub(super) async fn work_through(
    api: &ControlApi,
    pace: Pace,
    stop: &CancellationToken,
    mut wish: impl FnMut(&Row) -> Wish,
    mut progress: impl FnMut(&ReplaySummary, Option<&Replayed>),
) -> Result<ReplaySummary, Failure> {
    let sight = Sight {
        text: pace.text.clone(),
        full: false,
    };
    let mut pages = Pages::begin(api, sight).await?;
    let mut done = ReplaySummary {
        ready: pages.ready(),
        ..ReplaySummary::default()
    };
    let mut caller = Caller::new(api, &pace, stop);
    'pages: loop {
        let page = pages.page().await?;
        if page.is_empty() {
            break;
        }
        for Peeked { row, key, .. } in page {
            if stop.is_cancelled() {
                done.stopped_by.get_or_insert(StopReason::Signal);
                return Ok(done);
            }
            match wish(&row) {
                Wish::Enough => break 'pages,
                Wish::Leave => done.unwanted += 1,
                Wish::Take if caller.is_refused(&row) => {
                    done.count(&porchlight_event::replay::Fate::Refused);
                    progress(&done, Some(&asked(key.unwrap_or_default(), &row, Fate::Refused)));
                }
                Wish::Take => {
                    caller
                        .letters
                        .extend(key.map(|key| asked(key, &row, Fate::Unknown)));
                    caller.flush(false, &mut done, &mut progress).await?;
                }
            }
            done.seen += 1;
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
pub(super) struct Pages<'a> {
    api: &'a ControlApi,
    sight: Sight,
    ready: usize,
    first: Option<LettersPage>,
    until: String,
    cursor: Option<String>,
}

impl<'a> Pages<'a> {
    pub(super) async fn begin(api: &'a ControlApi, sight: Sight) -> Result<Self, Failure> {
        let mut pages = Self {
            api,
            sight,
            ready: 0,
            first: None,
            until: String::new(),
            cursor: None,
        };
        let first = pages.ask("").await?;
        pages.ready = usize::try_from(first.total).unwrap_or(usize::MAX);
        pages.until.clone_from(&first.until);
        pages.first = Some(first);
        Ok(pages)
    }

    pub(super) fn ready(&self) -> usize {
        self.ready
    }

    pub(super) async fn page(&mut self) -> Result<Vec<Peeked>, Failure> {
        let page = match (self.first.take(), self.cursor.take()) {
            (Some(first), _) => first,
            (None, Some(cursor)) => {
                let place = format!("&cursor={}&until={}", encoded(&cursor), encoded(&self.until));
                self.ask(&place).await?
            }
            (None, None) => return Ok(Vec::new()),
        };
        self.cursor = page.next_cursor;
        let peeked = |keyed: super::wire::KeyedRow| {
            let letter = keyed.letter.map(|letter| letter.read(0));
            let letter = letter.transpose().map_err(|error| {
                Failure::failed("the control API's answer cannot be read").because(&error)
            })?;
            Ok(Peeked {
                row: keyed.row,
                key: Some(keyed.key),
                letter,
            })
        };
        page.letters.into_iter().map(peeked).collect()
    }

    async fn ask(&self, place: &str) -> Result<LettersPage, Failure> {
        let mut path = format!("/v1/dead?limit={PAGE_LETTERS}{place}");
        if let Some(text) = &self.sight.text {
            path.push_str(&format!("&text={}", encoded(text)));
        }
        if self.sight.full {
            path.push_str("&full=true");
        }
        read_of_standalone(&self.api.call("GET", &path, Bytes::new()).await?, WHAT)
    }
}

/// Gathers letters and asks for what is wanted of them, not faster than is wanted.
struct Caller<'a> {
    api: &'a ControlApi,
    stop: &'a CancellationToken,
    action: Action,
    force: bool,
    letters: Vec<Replayed>,
    call_letters: usize,
    ticks: Option<Interval>,
}

impl<'a> Caller<'a> {
    fn new(api: &'a ControlApi, pace: &Pace, stop: &'a CancellationToken) -> Self {
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
            action: pace.action,
            force: pace.force,
            letters: Vec::new(),
            call_letters: usize::try_from(letters).unwrap_or(1),
            ticks,
        }
    }

    fn is_refused(&self, row: &Row) -> bool {
        self.action == Action::Replay && row.replays >= REPLAY_COUNT_MAX && !self.force
    }

    /// Calls when enough are gathered, or with whatever there is at the end.
    async fn flush(
        &mut self,
        at_end: bool,
        done: &mut ReplaySummary,
        progress: &mut impl FnMut(&ReplaySummary, Option<&Replayed>),
    ) -> Result<(), Failure> {
        let is_due = at_end && !self.letters.is_empty() || self.letters.len() >= self.call_letters;
        if is_due && let Some(ticks) = self.ticks.as_mut() {
            let _ = self.stop.run_until_cancelled(ticks.tick()).await;
        }
        if self.stop.is_cancelled() && (!at_end || !self.letters.is_empty()) {
            done.stopped_by.get_or_insert(StopReason::Signal);
            return Ok(());
        }
        if !is_due {
            return Ok(());
        }
        let letters = std::mem::take(&mut self.letters);
        let request = ReplayRequest {
            keys: letters.iter().map(|letter| letter.key.clone()).collect(),
            ids: Vec::new(),
            force: self.force,
        };
        let path = match self.action {
            Action::Replay => "/v1/dead/replay",
            Action::Drop => "/v1/dead/drop",
        };
        let body =
            serde_json::to_vec(&request).map_err(|error| Failure::failed("the request").because(&error))?;
        let answer = self.api.call("POST", path, body.into()).await;
        let answer = answer.and_then(|answer| read_of_standalone::<ReplayAnswer>(&answer, WHAT));
        // What was asked for is told either way: some of it may be done though no answer came.
        let results = match &answer {
            Ok(answer) => &answer.results,
            Err(_) => &letters,
        };
        for result in results {
            done.count(&result.fate.to_event());
            progress(done, Some(result));
        }
        answer.map(drop)
    }
}

fn asked(key: String, row: &Row, fate: Fate) -> Replayed {
    Replayed {
        key,
        message_id: Some(row.message_id.clone()),
        reason: Some(row.reason.clone()),
        replays: row.replays,
        fate,
    }
}
