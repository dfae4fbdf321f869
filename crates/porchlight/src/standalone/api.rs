//! What a standalone's control API has beyond a worker's: its status, and its dead letters in bounded pages.
//!
//! What changes letters stands in [`super::changes`]; whatever else is asked goes to the worker's API.

use std::sync::Arc;
use std::time::Duration;

use porchlight_journal::{Journal, JournalError, Numbered, Queue};
use porchlight_ledger::Ledger;
use porchlight_service::client::StatusCode;
use porchlight_service::{ApiFn, ApiRequest, ApiResponse};
use tokio::time::Instant;

use super::changes::Changes;
use crate::dead::{
    BATCH_LETTERS, Form, KeyedRow, LettersPage, PredictAnswer, PredictRequest, Predicted, Predictor, Shown,
};
use crate::place::Directory;
use crate::status;

/// For one call, with everything that it asks; the admin listener allows 10 s.
const CALL_MAX: Duration = Duration::from_secs(8);
/// Largest body of a call, in bytes: letters that are imported are as large as the largest event, in Base64, and only
/// somebody with the token may send them.
pub(super) const BODY_BYTES_MAX: usize = 8 << 20;
/// Letters of a page that asks for no other number, and at most.
const PAGE_LETTERS: usize = 100;
const PAGE_LETTERS_MAX: usize = 500;
/// Texts of a page together, in bytes, at most; ids come from strangers. A single larger letter is a page of its own.
const PAGE_TEXT_BYTES_MAX: usize = 1 << 20;
/// Texts and bodies of a page of whole letters together; in Base64, and with what else there is, half as much again.
const PAGE_FULL_BYTES_MAX: usize = 4 << 20;
/// Letters that one id shows at most: without bodies, and with them.
const SHOWN_MAX: usize = 50;
const SHOWN_WITH_BODY_MAX: usize = 4;

/// The calls of the standalone itself.
struct Desk {
    directory: Directory,
    queue: Queue,
    ledger: Ledger,
    changes: Changes,
    worker: ApiFn,
}

/// Why there is no answer of the wanted kind.
pub(super) enum Refused {
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
    text: Option<String>,
    body: bool,
    full: bool,
}

/// The worker's API with the standalone's own calls before it.
pub(crate) fn with_own_calls(journal: &Journal, worker: ApiFn) -> ApiFn {
    let directory = Directory::of(journal);
    let desk = Arc::new(Desk {
        queue: directory.queue(),
        changes: Changes::of(&directory),
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
        let (get, post) = (
            request.method.as_str() == "GET",
            request.method.as_str() == "POST",
        );
        let answered = match segments.as_slice() {
            ["v1", "status"] if get => self.status().await,
            ["v1", "dead"] if get => self.page(request.query.as_deref()).await,
            ["v1", "dead", change @ ("replay" | "drop" | "import")] if post => {
                self.changes.answer(change, &request.body).await
            }
            ["v1", "dead", "predict"] if post => self.predict(&request.body).await,
            ["v1", "dead", id] if get && !id.is_empty() => self.show(id, request.query.as_deref()).await,
            ["v1", "dead", "replay" | "drop" | "import" | "predict"] => Err(Refused::Method("GET, POST")),
            ["v1", "status" | "dead"] => Err(Refused::Method("GET")),
            // No id is no letter; whoever knows no such path says so.
            ["v1", "dead", id] if !id.is_empty() => Err(Refused::Method("GET")),
            _ => return (self.worker)(request).await,
        };
        answered.unwrap_or_else(Refused::into_response)
    }

    async fn status(&self) -> Result<ApiResponse, Refused> {
        let status = status::of_directory(&self.directory).await;
        Ok(ApiResponse::json(StatusCode::OK, &status))
    }

    async fn page(&self, query: Option<&str>) -> Result<ApiResponse, Refused> {
        let query = Query::read(query, &["limit", "cursor", "until", "text", "full"])?;
        let limit = query.limit_within(PAGE_LETTERS, PAGE_LETTERS_MAX)?;
        let after = query.cursor.unwrap_or(0);
        let found = self.queue.letters(after, limit, deadline()).await?;
        let until = query.until.unwrap_or(found.last_seq).min(found.last_seq);
        let bytes_max = if query.full {
            PAGE_FULL_BYTES_MAX
        } else {
            PAGE_TEXT_BYTES_MAX
        };
        let (mut letters, mut bytes, mut last) = (Vec::new(), 0, until);
        for Numbered { seq, letter } in found.letters.iter().take_while(|letter| letter.seq <= until) {
            let keyed = KeyedRow::of(seq.to_string(), letter, query.text.as_deref(), query.full);
            bytes += keyed.row.text_bytes();
            if query.full {
                bytes += letter.envelope.body.len();
            }
            if bytes > bytes_max && !letters.is_empty() {
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

    /// Changes nothing.
    async fn predict(&self, body: &[u8]) -> Result<ApiResponse, Refused> {
        let request: PredictRequest =
            serde_json::from_slice(body).map_err(|error| bad("bad_body", error.to_string()))?;
        if !(1..=BATCH_LETTERS).contains(&request.keys.len()) {
            return Err(bad("bad_body", format!("give 1 to {BATCH_LETTERS} keys")));
        }
        let until = deadline();
        let mut results = Vec::with_capacity(request.keys.len());
        let mut predictor = Predictor::new(&self.ledger, Form::Standalone, None);
        for key in request.keys {
            // One letter after the other: each may be as large as the largest body.
            if let Some(found) = letter(&self.queue, seq_of(&key)?, until).await? {
                predictor.push(results.len(), &found.letter);
            }
            results.push(Predicted {
                key,
                prediction: None,
            });
        }
        for (place, forecast) in predictor.flush().await {
            results[place].prediction = Some(forecast);
        }
        Ok(ApiResponse::json(StatusCode::OK, &PredictAnswer { results }))
    }
}

/// The letter of that number; nothing when it is gone.
pub(super) async fn letter(
    queue: &Queue,
    seq: i64,
    until: Instant,
) -> Result<Option<Numbered>, JournalError> {
    let page = queue.letters(seq.saturating_sub(1), 1, until).await?;
    Ok(page.letters.into_iter().next().filter(|found| found.seq == seq))
}

pub(super) fn seq_of(key: &str) -> Result<i64, Refused> {
    let read = key.parse();
    read.map_err(|_| bad("bad_body", "a key is none that a page gave".to_owned()))
}

pub(super) fn deadline() -> Instant {
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
                "text" => read.text = Some(decoded(value)?),
                "full" => read.full = matches!(value, "true" | "1"),
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

pub(super) fn bad(code: &'static str, text: String) -> Refused {
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
