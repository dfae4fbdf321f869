//! What `status` says of ingresses: whether each is ready, what it keeps in its spool, and its outages.
//!
//! It believes what an ingress says of itself at `/readyz` and `/outages`, and asks for nothing else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use porchlight_ingress::outage::page::OutagesPage;
use porchlight_service::client::{Client, Target, connector};
use serde::{Deserialize, Serialize};

use super::outage_part;
use crate::clock::now_ms;
use crate::failure::{Failure, chain};
use crate::outage;
use crate::output::{Output, plain, size, span};

/// For one ingress, connecting included; all are asked at once.
const ASK_MAX: Duration = Duration::from_secs(3);
/// Most characters of a text of its own that an ingress gets to show.
const TEXT_CHARS_MAX: usize = 300;
/// The note of `/readyz` that tells of a spool in use.
const SPOOL_NOTE: &str = "spooling";

/// One ingress.
#[derive(Debug, Serialize)]
pub(super) struct Ingress {
    pub(super) address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<IngressState>,
}

#[derive(Debug, Serialize)]
pub(super) struct IngressState {
    ready: bool,
    /// Why it is not ready.
    reasons: Vec<String>,
    /// What is in its spool; nothing while it needs none.
    spool: Option<Spool>,
    /// For how long it answered 5xx, and how its keys do; nothing where it does not say.
    outages: Option<OutagesPage>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spool {
    events: u64,
    bytes: u64,
    bytes_max: Option<u64>,
    oldest_age_seconds: Option<u64>,
}

#[derive(Deserialize)]
struct ReadyBody {
    status: String,
    #[serde(default)]
    reasons: Vec<Reason>,
    #[serde(default)]
    notes: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Reason {
    message: String,
}

/// The checked addresses. Each may have a path of its own; without one it is `/readyz`.
pub(super) fn targets(urls: &[String]) -> Result<Vec<Target>, Failure> {
    let advice = "the admin listener of an ingress, for example http://127.0.0.1:9090";
    parsed(urls, "PORCHLIGHT_INGRESS_ADMIN_URLS (--ingress)", advice)
}

/// The same of workers.
pub(super) fn worker_targets(urls: &[String]) -> Result<Vec<Target>, Failure> {
    let advice = "the admin listener of a worker, for example http://127.0.0.1:9091";
    parsed(urls, "PORCHLIGHT_WORKER_ADMIN_URLS (--worker)", advice)
}

fn parsed(urls: &[String], setting: &str, advice: &str) -> Result<Vec<Target>, Failure> {
    let given = urls.iter().map(|url| url.trim()).filter(|url| !url.is_empty());
    let parsed = given.map(|url| {
        Target::parse(url).map_err(|error| Failure::usage(setting).because(&error).advise(advice))
    });
    parsed.collect()
}

/// Asks them all.
pub(super) async fn ask(targets: Vec<Target>) -> Vec<Ingress> {
    join_all(targets.into_iter().map(ask_one)).await
}

async fn ask_one(target: Target) -> Ingress {
    let address = target.to_string().trim_end_matches('/').to_owned();
    let (state, error) = match look(target).await {
        Ok(state) => (Some(state), None),
        Err(error) => (None, Some(error)),
    };
    Ingress {
        address,
        error,
        state,
    }
}

async fn look(target: Target) -> Result<IngressState, String> {
    let tls = connector(&target, None).map_err(|error| chain(&error))?;
    let path = match target.path() {
        "/" => "/readyz".to_owned(),
        path => path.to_owned(),
    };
    let client = Client::new(Arc::new(target), tls, ASK_MAX);
    let clock = outage::sibling(&path);
    let (answer, outages) = tokio::join!(
        client.send("GET", &path, &[], Bytes::new()),
        outage::look_at(&client, &clock)
    );
    let answer = answer.map_err(|error| chain(&error))?;
    let body = serde_json::from_slice::<ReadyBody>(&answer.body).map_err(|_| {
        format!(
            "answers {}, and not as an admin listener does",
            answer.status.as_u16()
        )
    })?;
    Ok(IngressState {
        ready: answer.status.is_success() && body.status == "ready",
        reasons: body
            .reasons
            .into_iter()
            .map(|reason| cut(&reason.message))
            .collect(),
        spool: body.notes.iter().find_map(spool_in),
        // An older one has no such page.
        outages: outages.ok(),
    })
}

fn spool_in(note: &serde_json::Value) -> Option<Spool> {
    let is_spool = note.get("code").and_then(|code| code.as_str()) == Some(SPOOL_NOTE);
    if is_spool {
        serde_json::from_value(note.clone()).ok()
    } else {
        None
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

impl Ingress {
    /// How it stands in a few words, and whether that is well.
    pub(super) fn in_short(&self) -> (String, bool) {
        match (&self.state, &self.error) {
            (Some(state), _) => {
                let spool = state.spool.as_ref().filter(|spool| spool.events > 0);
                let spool = spool.map(|spool| format!(", {} in its spool", spool.events));
                let ready = if state.ready { "ready" } else { "not ready" };
                (format!("{ready}{}", spool.unwrap_or_default()), state.ready)
            }
            (None, Some(error)) => (error.clone(), false),
            (None, None) => ("no answer".to_owned(), false),
        }
    }

    /// Its outages and its keys, where it tells of them.
    pub(super) fn outages(&self) -> Option<&OutagesPage> {
        self.state.as_ref()?.outages.as_ref()
    }

    /// What somebody should look at, in words.
    pub(super) fn attention(&self, found: &mut Vec<String>) {
        let address = &self.address;
        let Some(state) = &self.state else {
            let error = self.error.as_deref().unwrap_or_default();
            found.push(format!("ingress {address} does not answer: {error}"));
            return;
        };
        if !state.ready {
            let reasons = state.reasons.join("; ");
            found.push(format!("ingress {address} is not ready: {reasons}"));
        }
        if let Some(page) = &state.outages {
            outage_part::attention(page, &format!("ingress {address}"), now_ms(), found);
        }
        if let Some(spool) = state.spool.as_ref().filter(|spool| spool.events > 0) {
            found.push(format!(
                "ingress {address} holds {} events in its spool: they are on its disk alone until RabbitMQ has them",
                spool.events
            ));
        }
    }

    pub(super) fn print(&self, output: Output) {
        let state = match &self.state {
            None => "does not answer",
            Some(state) if state.ready => "ready",
            Some(_) => "not ready",
        };
        output.line(format_args!("Ingress  {}  {state}", plain(&self.address)));
        if let Some(page) = self.state.as_ref().and_then(|state| state.outages.as_ref()) {
            outage_part::print(page, now_ms(), output);
        }
        if let Some(spool) = self.state.as_ref().and_then(|state| state.spool.as_ref()) {
            let age = spool
                .oldest_age_seconds
                .filter(|_| spool.events > 0)
                .map(|age| format!(", the oldest for {}", span(Duration::from_secs(age))));
            let bound = spool.bytes_max.map(|bytes| format!(" of {}", size(bytes)));
            output.line(format_args!(
                "  spool              {} events, {}{}{}",
                spool.events,
                size(spool.bytes),
                bound.unwrap_or_default(),
                age.unwrap_or_default()
            ));
        }
    }
}

#[cfg(test)]
impl Ingress {
    /// A ready one that tells this of its outages.
    pub(super) fn telling(outages: OutagesPage) -> Self {
        let state = IngressState {
            ready: true,
            reasons: Vec::new(),
            spool: None,
            outages: Some(outages),
        };
        Self {
            address: "http://h:9090".to_owned(),
            error: None,
            state: Some(state),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn ingress(ready: bool, events: Option<u64>) -> Ingress {
        let spool = events.map(|events| Spool {
            events,
            bytes: 4_096,
            bytes_max: Some(1 << 30),
            oldest_age_seconds: Some(70),
        });
        Ingress {
            address: "http://h:9090".to_owned(),
            error: None,
            state: Some(IngressState {
                ready,
                reasons: vec!["no signing keys are loaded".to_owned()],
                spool,
                outages: None,
            }),
        }
    }

    fn attention(ingress: &Ingress) -> Vec<String> {
        let mut found = Vec::new();
        ingress.attention(&mut found);
        found
    }

    #[test]
    fn a_ready_ingress_without_a_used_spool_needs_nobody() {
        assert_eq!(attention(&ingress(true, None)), Vec::<String>::new());
        assert_eq!(attention(&ingress(true, Some(0))), Vec::<String>::new());
    }

    #[test]
    fn an_ingress_that_spools_or_is_not_ready_or_does_not_answer_is_named() {
        assert!(attention(&ingress(true, Some(3)))[0].contains("holds 3 events in its spool"));
        assert!(attention(&ingress(false, None))[0].contains("not ready: no signing keys"));
        let away = Ingress {
            state: None,
            error: Some("cannot connect".to_owned()),
            ..ingress(true, None)
        };
        assert!(attention(&away)[0].contains("does not answer: cannot connect"));
    }

    #[test]
    fn the_spools_note_is_found_among_others() {
        let note = serde_json::json!({
            "code": "spooling", "message": "m", "events": 2, "bytes": 3, "bytes_max": 4, "oldest_age_seconds": 5
        });
        let expected = Spool {
            events: 2,
            bytes: 3,
            bytes_max: Some(4),
            oldest_age_seconds: Some(5),
        };
        assert_eq!(spool_in(&note), Some(expected));
        assert_eq!(
            spool_in(&serde_json::json!({ "code": "else", "events": 1, "bytes": 1 })),
            None
        );
    }
}
