//! The calls of a standalone's control API that change dead letters: replay, drop, import.
//!
//! Each letter is one commit of its own, decided by the same code as for the operator's tool beside the daemon.

use bytes::Bytes;
use futures_util::stream::{self, FuturesUnordered};
use futures_util::{StreamExt as _, TryStreamExt as _};
use porchlight_event::queue::DeadLetter;
use porchlight_event::replay::{Action, ReplayOptions};
use porchlight_journal::{Limits, Numbered, Queue};
use porchlight_ledger::Ledger;
use porchlight_queue::work::{is_refused, work_on_row};
use porchlight_service::ApiResponse;
use porchlight_service::client::StatusCode;
use tokio::time::Instant;

use super::api::{Refused, bad, deadline, letter, seq_of};
use crate::dead::{Fate, ImportAnswer, ImportRequest, ReplayAnswer, ReplayRequest, Replayed, owe_again};
use crate::place::Directory;

/// Letters that one call changes, at most.
const LETTERS_MAX: usize = 128;
/// Letters in hand at once: they share a commit, and each may be as large as the largest body.
const AT_ONCE: usize = 32;

/// What the calls change.
pub(super) struct Changes {
    queue: Queue,
    ledger: Ledger,
}

/// A letter that was asked for, by its key; nothing when it is gone.
type Asked = (String, Option<Numbered>);

impl Changes {
    pub(super) fn of(directory: &Directory) -> Self {
        Self {
            queue: directory.queue(),
            ledger: directory.ledger(),
        }
    }

    /// Does what the last part of the path says.
    pub(super) async fn answer(&self, change: &str, body: &Bytes) -> Result<ApiResponse, Refused> {
        match change {
            "replay" => self.work(Action::Replay, body).await,
            "drop" => self.work(Action::Drop, body).await,
            _ => self.import(body).await,
        }
    }

    async fn work(&self, action: Action, body: &[u8]) -> Result<ApiResponse, Refused> {
        let request: ReplayRequest =
            serde_json::from_slice(body).map_err(|error| bad("bad_body", error.to_string()))?;
        let count = request.keys.len() + request.ids.len();
        if !(1..=LETTERS_MAX).contains(&count) {
            return Err(bad("bad_body", format!("give 1 to {LETTERS_MAX} keys or ids")));
        }
        let options = ReplayOptions {
            action,
            force: request.force,
            ..ReplayOptions::default()
        };
        let until = deadline();
        let mut seqs = Vec::new();
        for key in &request.keys {
            seqs.push((key.clone(), seq_of(key)?));
        }
        for id in &request.ids {
            let named = self.queue.letters_named(id, LETTERS_MAX, until).await?;
            // A beginning would be a filter, and nobody has seen what it picks.
            let named = named
                .iter()
                .filter(|found| found.letter.envelope.message_id == *id);
            seqs.extend(named.map(|found| (found.seq.to_string(), found.seq)));
        }
        let results = stream::iter(seqs).map(async |(key, seq)| {
            let asked = (key, letter(&self.queue, seq, until).await?);
            Ok::<_, Refused>(self.work_on(asked, &options, until).await)
        });
        let results: Vec<_> = results.buffered(AT_ONCE).try_collect().await?;
        let changed = results.iter().filter(|result| result.fate.is_moved()).count();
        let action = match action {
            Action::Replay => "replay",
            Action::Drop => "drop",
        };
        tell(action, changed, count, request.force);
        Ok(ApiResponse::json(StatusCode::OK, &ReplayAnswer { results }))
    }

    async fn work_on(&self, (key, found): Asked, options: &ReplayOptions, until: Instant) -> Replayed {
        let Some(found) = found else {
            return Replayed::gone(key);
        };
        let before = Replayed::before(&found.letter);
        if is_refused(&found.letter, options) {
            return Replayed::new(key, before, Fate::Refused);
        }
        let owe = async |letter: DeadLetter| owe_again(&self.ledger, &letter).await;
        let fate = work_on_row(&self.queue, found, options.action, &owe, until).await;
        Replayed::new(key, before, fate.into())
    }

    async fn import(&self, body: &[u8]) -> Result<ApiResponse, Refused> {
        let request: ImportRequest =
            serde_json::from_slice(body).map_err(|error| bad("bad_body", error.to_string()))?;
        if !(1..=LETTERS_MAX).contains(&request.letters.len()) {
            return Err(bad("bad_body", format!("give 1 to {LETTERS_MAX} letters")));
        }
        let now_ms = crate::clock::now_ms();
        let mut letters = Vec::with_capacity(request.letters.len());
        for line in request.letters {
            letters.push(
                line.read(now_ms)
                    .map_err(|error| bad("bad_letter", error.to_string()))?,
            );
        }
        let count = letters.len();
        let until = deadline();
        let limits = Limits {
            slot_until: until,
            until,
        };
        let mut is_new = vec![false; letters.len()];
        let mut under_way: FuturesUnordered<_> = letters
            .iter()
            .enumerate()
            .map(async |(place, letter)| (place, self.queue.bring_letter(letter, limits).await))
            .collect();
        while let Some((place, brought)) = under_way.next().await {
            is_new[place] = brought?;
        }
        let changed = is_new.iter().filter(|is_new| **is_new).count();
        tell("import", changed, count, false);
        Ok(ApiResponse::json(StatusCode::OK, &ImportAnswer { is_new }))
    }
}

/// The daemon's own line about each call that changes letters: whoever calls it without our tool leaves no other.
fn tell(action: &'static str, changed: usize, asked: usize, force: bool) {
    tracing::info!(
        action,
        changed,
        asked,
        force,
        "dead letters were changed over the control API"
    );
}
