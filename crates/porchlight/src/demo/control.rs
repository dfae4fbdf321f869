//! What the demo asks of the admin listener, over HTTP like everybody: readiness, metrics, the control API.
//!
//! It waits for nothing; whoever asks does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use porchlight_device::view::DeviceView;
use porchlight_service::Secret;
use porchlight_service::client::{Answer, Client, SendError, Target};
use serde_json::json;

use super::story::{Actor, Scene};
use crate::dead::LettersPage;
use crate::failure::{Failure, chain};

/// For one call; the control API gives itself 8 s.
const CALL_MAX: Duration = Duration::from_secs(10);
const EVENTS: &str = "porchlight_worker_events_total";

/// The admin listener.
pub(super) struct Control {
    client: Client,
    authorization: Secret,
}

/// Events settled, by what became of them; one process's since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counted {
    outcomes: BTreeMap<String, u64>,
}

impl Control {
    /// Calls the listener at `address`.
    pub(super) fn new(address: SocketAddr, token: &Secret) -> Result<Self, Failure> {
        Ok(Self {
            client: client(&format!("http://{address}"))?.1,
            authorization: Secret::new(format!("Bearer {}", token.expose())),
        })
    }

    /// Whether the process says that it can do its work.
    pub(super) async fn is_ready(&self) -> bool {
        let asked = self.client.send("GET", "/readyz", &[], Bytes::new()).await;
        asked.is_ok_and(|answer| answer.status.is_success())
    }

    /// Registers the operation of a scene's device.
    pub(super) async fn register(&self, scene: &Scene, actor: &Actor) -> Result<(), Failure> {
        let path = format!("/v1/devices/{}/operations/{}", scene.device_id(), actor.operation);
        let body =
            json!({ "account_id": scene.account_id(), "kind": actor.kind, "params": { "demo": true } });
        let answer = self
            .call("PUT", &path, body.to_string())
            .await
            .map_err(|error| failed(&error))?;
        if answer.status.is_success() {
            return Ok(());
        }
        Err(Failure::failed(format_args!(
            "operation {} is not registered: the control API answers {}",
            actor.operation,
            answer.status.as_u16()
        )))
    }

    /// A device as it stands, when it is known.
    pub(super) async fn device(&self, device_id: &str) -> Option<DeviceView> {
        let path = format!("/v1/devices/{device_id}");
        let answer = self.call("GET", &path, String::new()).await.ok()?;
        serde_json::from_slice(&answer.body).ok()
    }

    /// The newest dead letter: why it is one, as a code with a sentence.
    pub(super) async fn newest_death(&self) -> Option<String> {
        let answer = self.call("GET", "/v1/dead", String::new()).await.ok()?;
        let page: LettersPage = serde_json::from_slice(&answer.body).ok()?;
        let letter = page
            .letters
            .into_iter()
            .max_by_key(|letter| letter.row.dead_at)?
            .row;
        Some(format!(
            "{}: {}",
            letter.reason,
            letter.detail.unwrap_or_default()
        ))
    }

    /// What was counted so far.
    pub(super) async fn counted(&self) -> Result<Counted, Failure> {
        let asked = self.client.send("GET", "/metrics", &[], Bytes::new()).await;
        let answer = asked.map_err(|error| failed(&error))?;
        Ok(Counted::read(&String::from_utf8_lossy(&answer.body)))
    }

    async fn call(&self, method: &str, path: &str, body: String) -> Result<Answer, SendError> {
        let headers = [
            ("authorization", self.authorization.expose()),
            ("content-type", "application/json"),
        ];
        self.client.send(method, path, &headers, body.into()).await
    }
}

fn failed(error: &SendError) -> Failure {
    Failure::failed(format_args!("the admin listener: {}", chain(error)))
}

/// A client for a URL that the demo made itself, and the URL's path.
pub(super) fn client(url: &str) -> Result<(String, Client), Failure> {
    let target = Target::parse(url).map_err(|error| Failure::failed(url).because(&error))?;
    let path = target.path().to_owned();
    Ok((path, Client::new(Arc::new(target), None, CALL_MAX)))
}

impl Counted {
    fn read(text: &str) -> Self {
        let mut counted = Self::default();
        for line in text.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Some((name, labels)) = series.split_once('{') else {
                continue;
            };
            if name != EVENTS {
                continue;
            }
            if let (Some(outcome), Ok(value)) = (label_of(labels, "outcome"), value.parse::<u64>()) {
                *counted.outcomes.entry(outcome).or_default() += value;
            }
        }
        counted
    }

    /// Events settled, whatever became of them.
    pub(super) fn settled(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// The outcomes that were counted since `before`, once for each event.
    pub(super) fn outcomes_since(&self, before: &Self) -> Vec<String> {
        let since = |outcome: &String, count: u64| {
            let before = before.outcomes.get(outcome).copied().unwrap_or_default();
            count.saturating_sub(before)
        };
        let counts = self.outcomes.iter();
        counts
            .flat_map(|(outcome, count)| (0..since(outcome, *count)).map(|_| outcome.clone()))
            .collect()
    }
}

/// The value of one label; ours are plain words without escapes.
fn label_of(labels: &str, name: &str) -> Option<String> {
    let parts = labels.trim_end_matches('}').split(',');
    let mut found = parts.filter_map(|part| part.split_once('='));
    let (_, value) = found.find(|(label, _)| *label == name)?;
    Some(value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_what_became_of_events() {
        let before = Counted::read(
            "porchlight_worker_events_total{type=\"device_online\",outcome=\"applied\"} 2\n# EOF\n",
        );
        let now = Counted::read(
            "# TYPE porchlight_worker_events counter\n\
             porchlight_worker_events_total{type=\"device_online\",outcome=\"applied\"} 2\n\
             porchlight_worker_events_total{type=\"device_offline\",outcome=\"applied\"} 1\n\
             porchlight_worker_events_total{type=\"none\",outcome=\"dead\"} 1\n\
             porchlight_worker_lag_seconds 0.5\n",
        );
        assert_eq!((before.settled(), now.settled()), (2, 4));
        assert_eq!(now.outcomes_since(&before), ["applied", "dead"]);
    }
}
