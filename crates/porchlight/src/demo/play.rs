//! Plays the story on the stage: sends what it says, waits for what becomes of it, and writes down what was seen.
//!
//! It waits for states, never for a time, and leaves the judgement to others.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use porchlight_device::Reason;
use porchlight_event::SigningKey;
use porchlight_service::client::Client;
use serde::Deserialize;
use tokio::time::Instant;

use super::control::{Control, Counted, client};
use super::facts::{CommandFacts, EndFacts, Facts, RequestFacts, SceneFacts, StepFacts};
use super::stage::{Stage, until};
use super::story::{Actor, Scene, Send, Step, What};
use crate::failure::Failure;

/// For the whole story. Long enough for a slow machine; what is not there by then is missing.
const STORY_MAX: Duration = Duration::from_secs(24);
/// For one thing to happen.
const PATIENCE: Duration = Duration::from_secs(6);

/// Whoever plays. It keeps what one step must know of those before.
pub(super) struct Player<'s> {
    stage: &'s mut Stage,
    key: SigningKey,
    stranger: SigningKey,
    client: Client,
    path: String,
    control: Control,
    start_ms: i64,
    deadline: Instant,
    /// Events that processes before the present one settled.
    settled_before: u64,
    /// Commands that belong to a request.
    known: BTreeSet<String>,
}

/// What an answer may say of itself.
#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorText,
}

#[derive(Deserialize)]
struct ErrorText {
    message: String,
}

impl<'s> Player<'s> {
    /// A player on a stage that is set. `start_ms` is the time that the story is told from.
    pub(super) fn new(stage: &'s mut Stage, start_ms: i64) -> Result<Self, Failure> {
        let (path, client) = client(&stage.webhook_url())?;
        Ok(Self {
            key: stage.secrets.signing_key(),
            stranger: SigningKey::new("stranger", b"a key that nobody gave out"),
            client,
            path,
            control: stage.control()?,
            stage,
            start_ms,
            deadline: Instant::now() + STORY_MAX,
            settled_before: 0,
            known: BTreeSet::new(),
        })
    }

    /// Registers the operation of each device.
    pub(super) async fn register(&self, scenes: &[Scene]) -> Result<(), Failure> {
        for scene in scenes {
            if let Some(actor) = &scene.actor {
                self.control.register(scene, actor).await?;
            }
        }
        Ok(())
    }

    /// Plays one scene.
    pub(super) async fn scene(&mut self, scene: &Scene) -> Result<SceneFacts, Failure> {
        let mut seen = SceneFacts {
            name: scene.name,
            device_id: scene.actor.as_ref().map(|_| scene.device_id()),
            ..SceneFacts::default()
        };
        for (number, step) in scene.steps.iter().enumerate() {
            seen.steps.push(match step {
                Step::Send(send) => StepFacts::Request(self.send(scene, number, send).await?),
                Step::BusyReceiver => {
                    self.stage.receiver.refuse_next();
                    StepFacts::Note("the receiver is busy: it refuses the next command once")
                }
                Step::Restart => {
                    self.restart().await?;
                    StepFacts::Note("the process stops, and starts again on what it stored")
                }
            });
        }
        if let Some(actor) = &scene.actor {
            seen.end = self.end(scene, actor).await;
        }
        Ok(seen)
    }

    /// Adds what can only be said when everything is over.
    pub(super) async fn finish(&self, facts: &mut Facts) -> Result<(), Failure> {
        facts.settled = self.settled_before + self.control.counted().await?.settled();
        let commands = self.stage.receiver.commands().into_iter();
        facts.strange_commands = commands
            .filter(|command| !self.known.contains(&command.id))
            .collect();
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), Failure> {
        self.settled_before += self.control.counted().await?.settled();
        self.stage.restart().await?;
        self.control = self.stage.control()?;
        Ok(())
    }

    fn patience(&self) -> Duration {
        PATIENCE.min(self.deadline.saturating_duration_since(Instant::now()))
    }

    async fn send(&mut self, scene: &Scene, number: usize, send: &Send) -> Result<RequestFacts, Failure> {
        let before = self.control.counted().await?;
        let body = scene.body(number, self.start_ms);
        let key = if matches!(send.what, What::Forged(_)) {
            &self.stranger
        } else {
            &self.key
        };
        let signature = key.sign(&body);
        let headers = [
            ("content-type", "application/json"),
            ("x-signature", signature.as_str()),
        ];
        let begun = Instant::now();
        let answer = self
            .client
            .send("POST", &self.path, &headers, Bytes::from(body))
            .await;
        let mut seen = RequestFacts {
            happened: send.when(),
            sent: send.label(),
            latency_ms: begun.elapsed().as_secs_f64() * 1e3,
            ..RequestFacts::default()
        };
        match answer {
            Ok(answer) => {
                seen.status = Some(answer.status.as_u16());
                if answer.status.is_success() {
                    (seen.outcome, seen.reason) = self.became(scene, number, &before).await;
                } else {
                    let said = serde_json::from_slice::<ErrorBody>(&answer.body);
                    seen.outcome = "not_stored".to_owned();
                    seen.reason = said.map(|body| body.error.message).unwrap_or_default();
                }
            }
            Err(error) => seen.reason = error.to_string(),
        }
        // Nothing comes of what was not taken.
        let wanted = if seen.status == Some(200) {
            send.commands.len()
        } else {
            0
        };
        seen.commands = self.commands(wanted).await;
        Ok(seen)
    }

    /// What became of the event that was just stored, and why.
    async fn became(&self, scene: &Scene, number: usize, before: &Counted) -> (String, String) {
        let look = async || {
            let now = self.control.counted().await.ok()?;
            (now.settled() > before.settled()).then_some(now)
        };
        let Some(now) = until(self.patience(), look).await else {
            return (String::new(), String::new());
        };
        let outcome = now.outcomes_since(before).join(", ");
        let reason = match outcome.as_str() {
            // A duplicate leaves no line in the history; this is what a duplicate is.
            "duplicate" => Reason::Seen.text().to_owned(),
            "later" => "too far ahead; it is tried again in a minute".to_owned(),
            "dead" => self.control.newest_death().await.unwrap_or_default(),
            _ => self.reason(scene, number).await.unwrap_or_default(),
        };
        (outcome, reason)
    }

    /// What the device's history says of the event.
    async fn reason(&self, scene: &Scene, number: usize) -> Option<String> {
        let (device_id, request_id) = (scene.device_id(), scene.request_id(number));
        until(self.patience(), async || {
            let device = self.control.device(&device_id).await?;
            let mut lines = device.history.into_iter();
            let line = lines.find(|line| line.request_id.as_deref() == Some(&request_id))?;
            Some(line.reason)
        })
        .await
    }

    /// The commands that came since the request before, when there are as many as there must be.
    async fn commands(&mut self, wanted: usize) -> Vec<CommandFacts> {
        let fresh = |known: &BTreeSet<String>| -> Vec<CommandFacts> {
            let all = self.stage.receiver.commands().into_iter();
            all.filter(|command| !known.contains(&command.id)).collect()
        };
        let look = async || {
            let fresh = fresh(&self.known);
            let taken = fresh.iter().filter(|command| command.taken > 0).count();
            (taken >= wanted).then_some(fresh)
        };
        let found = match until(self.patience(), look).await {
            Some(found) => found,
            None => fresh(&self.known),
        };
        self.known.extend(found.iter().map(|command| command.id.clone()));
        found
    }

    /// How a device stands when it stands as it must, or else when patience is over.
    async fn end(&self, scene: &Scene, actor: &Actor) -> Option<EndFacts> {
        let device_id = scene.device_id();
        let mut last = None;
        until(self.patience(), async || {
            let device = self.control.device(&device_id).await?;
            let operation = device
                .operations
                .iter()
                .find(|operation| operation.id == actor.operation)?;
            let seen = EndFacts {
                status: device.status.clone(),
                operation: operation.id.clone(),
                state: operation.state.clone(),
                generation: operation.generation,
            };
            let right = seen == actor.end_facts();
            last = Some(seen);
            right.then_some(())
        })
        .await;
        last
    }
}
