//! What a standalone's control API has beyond a worker's: its status, and its dead letters in bounded pages.
//!
//! It changes one letter at a time and decides nothing about it; whatever else is asked goes to the worker's API.

use std::sync::Arc;
use std::time::Duration;

use porchlight_event::queue::Origin;
use porchlight_journal::{Journal, JournalError, Numbered, Queue};
use porchlight_ledger::Ledger;
use porchlight_service::client::StatusCode;
use porchlight_service::{ApiFn, ApiRequest, ApiResponse};
use tokio::time::Instant;

use crate::dead::{
    Fate, KeyedRow, LettersPage, REPLAY_COUNT_MAX, ReplayAnswer, ReplayRequest, Replayed, Shown, owe_again,
};
use crate::failure::chain;
use crate::place::Directory;
use crate::status;

/// For one call, with everything that it asks; the admin listener allows 10 s.
const CALL_MAX: Duration = Duration::from_secs(8);
/// Letters of a page that asks for no other number, and at most.
const PAGE_LETTERS: usize = 100;
const PAGE_LETTERS_MAX: usize = 500;
/// Texts of a page together, in bytes, at most; ids come from strangers. A single larger letter is a page of its own.
const PAGE_TEXT_BYTES_MAX: usize = 1 << 20;
/// Letters that one id shows at most: without bodies, and with them.
const SHOWN_MAX: usize = 50;
const SHOWN_WITH_BODY_MAX: usize = 4;
/// Letters that one call replays, at most.
const REPLAYS_MAX: usize = 100;

/// The calls of the standalone itself.
struct Desk {
    directory: Directory,
    queue: Queue,
    ledger: Ledger,
    worker: ApiFn,
}

/// Why there is no answer of the wanted kind.
enum Refused {
    Request(StatusCode, &'static str, String),
    Method(&'static str),
    Journal(JournalError),
}

/// The query of a call; what is not given stays empty.
#[derive(Default)]
struct Query {
    limit: Option<usize>,
    cursor: Option<i64>,
    until: Option<i64>,
    body: bool,
}

/// The worker's API with the standalone's own calls before it.
pub(crate) fn with_own_calls(journal: &Journal, worker: ApiFn) -> ApiFn {
    let directory = Directory::of(journal);
    let desk = Arc::new(Desk {
        queue: directory.queue(),
        ledger: directory.ledger(),
        directory,
        worker,
    });
    Arc::new(move |request| {
        let desk = Arc::clone(&desk);
        Box::pin(async move { desk.answer(request).await })
    })
}

impl Desk {
    async fn answer(&self, request: ApiRequest) -> ApiResponse {
        let segments: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        let get = request.method.as_str() == "GET";
        let answered = match segments.as_slice() {
            ["v1", "status"] if get => self.status().await,
            ["v1", "dead"] if get => self.page(request.query.as_deref()).await,
            ["v1", "dead", "replay"] if request.method.as_str() == "POST" => self.replay(&request.body).await,
            ["v1", "dead", id] if get && !id.is_empty() => self.show(id, request.query.as_deref()).await,
            ["v1", "dead", "replay"] => Err(Refused::Method("GET, POST")),
            ["v1", "status" | "dead"] | ["v1", "dead", _] => Err(Refused::Method("GET")),
            _ => return (self.worker)(request).await,
        };
        answered.unwrap_or_else(Refused::into_response)
    }

    async fn status(&self) -> Result<ApiResponse, Refused> {
        let status = status::of_directory(&self.directory).await;
        Ok(ApiResponse::json(StatusCode::OK, &status))
    }

    async fn page(&self, query: Option<&str>) -> Result<ApiResponse, Refused> {
        let query = Query::read(query, &["limit", "cursor", "until"])?;
        let limit = query.limit_within(PAGE_LETTERS, PAGE_LETTERS_MAX)?;
        let after = query.cursor.unwrap_or(0);
        let found = self.queue.letters(after, limit, deadline()).await?;
        let until = query.until.unwrap_or(found.last_seq).min(found.last_seq);
        let (mut letters, mut bytes, mut last) = (Vec::new(), 0, until);
        for Numbered { seq, letter } in found.letters.iter().take_while(|letter| letter.seq <= until) {
            let keyed = KeyedRow::of(seq.to_string(), letter);
            bytes += keyed.row.text_bytes();
            if bytes > PAGE_TEXT_BYTES_MAX && !letters.is_empty() {
                break;
            }
            letters.push(keyed);
            last = *seq;
        }
        let page = LettersPage {
            letters,
            total: found.total,
            until: until.to_string(),
            next_cursor: (last < until).then(|| last.to_string()),
        };
        Ok(ApiResponse::json(StatusCode::OK, &page))
    }

    async fn show(&self, id: &str, query: Option<&str>) -> Result<ApiResponse, Refused> {
        let query = Query::read(query, &["limit", "body"])?;
        let id = decoded(id)?;
        let most = if query.body {
            SHOWN_WITH_BODY_MAX
        } else {
            SHOWN_MAX
        };
        let limit = query.limit_within(most, most)?;
        let found = self.queue.letters_named(&id, limit, deadline()).await?;
        if found.is_empty() {
            let text = "no dead letter begins with this id".to_owned();
            return Err(Refused::Request(StatusCode::NOT_FOUND, "unknown_letter", text));
        }
        let shown = |Numbered { letter, .. }: &Numbered| Shown::in_base64(letter, query.body);
        let shown: Vec<Shown> = found.iter().map(shown).collect();
        Ok(ApiResponse::json(StatusCode::OK, &shown))
    }

    async fn replay(&self, body: &[u8]) -> Result<ApiResponse, Refused> {
        let request: ReplayRequest =
            serde_json::from_slice(body).map_err(|error| bad("bad_body", error.to_string()))?;
        let count = request.keys.len() + request.ids.len();
        if !(1..=REPLAYS_MAX).contains(&count) {
            return Err(bad("bad_body", format!("give 1 to {REPLAYS_MAX} keys or ids")));
        }
        let until = deadline();
        let mut letters = Vec::new();
        for key in &request.keys {
            let seq: i64 = key
                .parse()
                .map_err(|_| bad("bad_body", "a key is none that a page gave".to_owned()))?;
            letters.push((key.clone(), self.letter(seq, until).await?));
        }
        for id in &request.ids {
            let named = self.queue.letters_named(id, REPLAYS_MAX, until).await?;
            // A beginning would be a filter, and nobody has seen what it picks.
            let named = named
                .into_iter()
                .filter(|found| found.letter.envelope.message_id == *id);
            letters.extend(named.map(|found| (found.seq.to_string(), Some(found))));
        }
        let mut results = Vec::with_capacity(letters.len());
        for (key, letter) in letters {
            results.push(match letter {
                None => Replayed::gone(key),
                Some(found) => {
                    let fate = self.replay_one(&found, request.force, until).await;
                    Replayed::new(key, &found.letter, fate)
                }
            });
        }
        Ok(ApiResponse::json(StatusCode::OK, &ReplayAnswer { results }))
    }

    async fn letter(&self, seq: i64, until: Instant) -> Result<Option<Numbered>, JournalError> {
        let page = self.queue.letters(seq.saturating_sub(1), 1, until).await?;
        Ok(page.letters.into_iter().next().filter(|found| found.seq == seq))
    }
}

impl Desk {
    async fn replay_one(&self, found: &Numbered, force: bool, until: Instant) -> Fate {
        let Numbered { seq, letter } = found;
        if letter.envelope.replay >= REPLAY_COUNT_MAX && !force {
            return Fate::Refused;
        }
        let moved = match letter.origin {
            Origin::Event => {
                let moved = self.queue.replay_letter(*seq, until).await;
                moved.map(|moved| (moved, Fate::Replayed))
            }
            // There is no queue of commands here: one that died in such a queue elsewhere is owed, too.
            Origin::Command | Origin::Callback => match owe_again(&self.ledger, letter).await {
                // The letter goes last: cut off in between, the command is owed twice, under one identity.
                Ok(fate) => {
                    let dropped = self.queue.drop_letter(*seq, until).await;
                    dropped.map(|dropped| (dropped, fate))
                }
                Err(why) => return Fate::Kept(why),
            },
        };
        match moved {
            Ok((true, fate)) => fate,
            Ok((false, _)) => Fate::Gone,
            Err(error) => Fate::Kept(chain(&error)),
        }
    }
}

fn deadline() -> Instant {
    Instant::now() + CALL_MAX
}

impl Query {
    fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Refused> {
        let mut read = Self::default();
        let pairs = query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        for pair in pairs {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = || {
                value
                    .parse()
                    .map_err(|_| bad("bad_query", format!("{name} is no number")))
            };
            match name {
                _ if !known.contains(&name) => {
                    let text = format!("there is no such parameter; there are {}", known.join(", "));
                    return Err(bad("bad_query", text));
                }
                "limit" => read.limit = Some(usize::try_from(number()?).unwrap_or(0)),
                "cursor" => read.cursor = Some(number()?),
                "until" => read.until = Some(number()?),
                _ => read.body = matches!(value, "true" | "1"),
            }
        }
        Ok(read)
    }

    fn limit_within(&self, usual: usize, most: usize) -> Result<usize, Refused> {
        let limit = self.limit.unwrap_or(usual);
        if (1..=most).contains(&limit) {
            Ok(limit)
        } else {
            Err(bad("bad_query", format!("limit must be 1 to {most}")))
        }
    }
}

fn decoded(text: &str) -> Result<String, Refused> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded
        .map(Into::into)
        .map_err(|_| bad("bad_encoding", "what is percent-encoded is not UTF-8".to_owned()))
}

fn bad(code: &'static str, text: String) -> Refused {
    Refused::Request(StatusCode::BAD_REQUEST, code, text)
}

impl From<JournalError> for Refused {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

impl Refused {
    fn into_response(self) -> ApiResponse {
        match self {
            Self::Request(status, code, text) => ApiResponse::error(status, code, &text),
            Self::Method(allow) => ApiResponse::method_not_allowed(allow),
            Self::Journal(error) => {
                tracing::debug!(%error, "a call of the control API failed");
                let text = "the data cannot be read or written now; try again";
                ApiResponse::error(StatusCode::SERVICE_UNAVAILABLE, "data_unavailable", text)
            }
        }
    }
}
