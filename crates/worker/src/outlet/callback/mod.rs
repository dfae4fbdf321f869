//! Commands as signed HTTP POSTs to partners' services, each receiver at its own pace.
//!
//! It retries nothing: what fails stays in the outbox, and the newest owed command is read from there.

mod breaker;
mod metrics;
mod settings;

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use porchlight_device::Command;
use porchlight_event::WebhookSecrets;
use porchlight_service::client::{Client, SendError, StatusCode};
use porchlight_service::trace::Kind;
use porchlight_service::{LogGate, Metrics};
use tokio::time::Instant;

use super::{Lane, Undelivered};
use crate::now_ms;
use crate::spans::Sending;

pub use breaker::BreakerBounds;
pub use settings::{CallbackSettings, ReceiverError, ReceiverSettings};

use breaker::{Breaker, Position};
use metrics::{CallbackMetrics, ReceiverMetrics};

/// For a connection, TLS included; the deadline of the whole call bounds it, too.
const CONNECT_MAX: Duration = Duration::from_secs(3);
const USER_AGENT: &str = concat!("porchlight/", env!("CARGO_PKG_VERSION"));

/// Receivers by kind of operation, and what they are called with.
#[derive(Debug)]
pub struct Callback {
    receivers: Vec<Receiver>,
    by_kind: HashMap<String, usize>,
    /// For every other kind.
    default: Option<usize>,
    secrets: WebhookSecrets,
    inflight_max: usize,
    give_up: Duration,
    metrics: CallbackMetrics,
}

#[derive(Debug)]
struct Receiver {
    /// The kind, or `default`.
    label: String,
    path: String,
    address: String,
    client: Client,
    breaker: Breaker,
    log_gate: LogGate,
    metrics: ReceiverMetrics,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error("{}", status_words(*.0))]
    Status(StatusCode),
    #[error("{}", chain(.0))]
    Send(#[from] SendError),
}

impl Callback {
    /// Ready to call; connections are opened when they are needed.
    #[must_use]
    pub fn new(settings: CallbackSettings) -> Self {
        let metrics = CallbackMetrics::default();
        let (mut by_kind, mut default) = (HashMap::new(), None);
        for (index, ReceiverSettings { kind, .. }) in settings.receivers.iter().enumerate() {
            match kind {
                Some(kind) => {
                    by_kind.insert(kind.clone(), index);
                }
                None => default = Some(index),
            }
        }
        let receivers = settings.receivers.iter();
        let receivers = receivers.map(|receiver| Receiver::new(receiver, &settings, &metrics));
        Self {
            receivers: receivers.collect(),
            by_kind,
            default,
            secrets: settings.secrets,
            inflight_max: settings.inflight_max,
            give_up: settings.give_up,
            metrics,
        }
    }

    pub(super) fn register(&self, metrics: &mut Metrics) {
        self.metrics.register(metrics);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.receivers.iter().any(|receiver| receiver.breaker.admits())
    }

    /// One for each receiver, and one for kinds without a receiver.
    pub(super) fn lanes(&self) -> Vec<Lane> {
        let count = self.receivers.len() + usize::from(self.default.is_none());
        let lane = Lane {
            inflight_max: self.inflight_max,
        };
        vec![lane; count]
    }

    pub(super) fn lane_of(&self, kind: &str) -> usize {
        self.index(kind).unwrap_or(self.receivers.len())
    }

    pub(super) fn give_up_after(&self) -> Duration {
        self.give_up
    }

    fn index(&self, kind: &str) -> Option<usize> {
        self.by_kind.get(kind).copied().or(self.default)
    }

    pub(super) async fn send(&self, command: &Command) -> Result<(), Undelivered> {
        let action = command.action.code();
        let Some(index) = self.index(&command.kind) else {
            self.metrics.attempt("none", action, "no_receiver");
            let words = "no receiver is set for operations of this kind";
            return Err(Undelivered::Failed(words.to_owned()));
        };
        let receiver = &self.receivers[index];
        let Some(pass) = receiver.breaker.admit().await else {
            self.metrics.attempt(&receiver.label, action, "held_back");
            return Err(Undelivered::HeldBack);
        };
        let begun = Instant::now();
        let mut sending = Sending::begin(command, Kind::Client);
        let attempt = {
            let _inflight = receiver.metrics.count_inflight();
            receiver.post(command, &self.secrets, &mut sending).await
        };
        receiver.metrics.seconds.observe(begun.elapsed().as_secs_f64());
        let result = attempt.as_ref().err().map_or("delivered", AttemptError::code);
        self.metrics.attempt(&receiver.label, action, result);
        let undelivered = match &attempt {
            Ok(()) => {
                if pass.succeeded() {
                    receiver.say_it_is_back();
                }
                None
            }
            Err(error) => {
                sending.failed(error.code());
                let opened = pass.failed();
                receiver.complain(error, opened);
                Some(Undelivered::Failed(error.to_string()))
            }
        };
        receiver.show_breaker();
        undelivered.map_or(Ok(()), Err)
    }
}

impl Receiver {
    fn new(receiver: &ReceiverSettings, settings: &CallbackSettings, metrics: &CallbackMetrics) -> Self {
        let target = &receiver.target;
        let tls = target.is_https().then(|| settings.tls.connector()).flatten();
        let client = Client::new(target.clone(), tls, settings.timeout);
        let label = receiver.label().to_owned();
        Self {
            path: target.path().to_owned(),
            address: target.address(),
            client: client.with_pool(CONNECT_MAX, settings.inflight_max),
            breaker: Breaker::new(settings.breaker),
            log_gate: LogGate::default(),
            metrics: metrics.receiver(&label),
            label,
        }
    }

    async fn post(
        &self,
        command: &Command,
        secrets: &WebhookSecrets,
        sending: &mut Sending,
    ) -> Result<(), AttemptError> {
        let (id, body) = (command.id(), Bytes::from(command.body()));
        let timestamp_s = now_ms() / 1000;
        let (timestamp, signature) = (timestamp_s.to_string(), secrets.sign(&id, timestamp_s, &body));
        let traceparent = sending.traceparent(command);
        let mut headers = vec![
            ("content-type", "application/json"),
            ("user-agent", USER_AGENT),
            ("webhook-id", id.as_str()),
            ("webhook-timestamp", &timestamp),
            ("webhook-signature", &signature),
        ];
        headers.extend(traceparent.as_deref().map(|place| ("traceparent", place)));
        let status = self.client.deliver("POST", &self.path, &headers, body).await?;
        sending.answered(status.as_u16());
        if status.is_success() {
            Ok(())
        } else {
            Err(AttemptError::Status(status))
        }
    }

    fn show_breaker(&self) {
        self.metrics.breaker.set(match self.breaker.position() {
            Position::Closed => 0,
            Position::Probing => 1,
            Position::Open => 2,
        });
    }

    fn say_it_is_back(&self) {
        tracing::info!(
            receiver = self.label,
            address = self.address,
            "callbacks are delivered again"
        );
    }

    /// Says that it fails. Neither path nor query is shown: either may hold a secret.
    fn complain(&self, error: &AttemptError, opened: bool) {
        if let Some(suppressed) = self.log_gate.admit(error.code()) {
            tracing::warn!(receiver = self.label, address = self.address, %error, suppressed, "a callback failed; the command stays owed");
        }
        if opened {
            tracing::warn!(
                receiver = self.label,
                address = self.address,
                "callbacks fail one after the other; the receiver is left alone but for a try now and then"
            );
        }
    }
}

impl AttemptError {
    /// A short code, for counting.
    fn code(&self) -> &'static str {
        match self {
            Self::Send(error) => error.code(),
            Self::Status(status) => match status.as_u16() / 100 {
                3 => "status_3xx",
                4 => "status_4xx",
                5 => "status_5xx",
                _ => "status_other",
            },
        }
    }
}

fn status_words(status: StatusCode) -> String {
    let code = status.as_u16();
    match code {
        300..400 => format!("the answer was {code}, a redirect, and none is followed"),
        410 => "the answer was 410: the receiver says that it is gone for good".to_owned(),
        _ => format!("the answer was {code}"),
    }
}

fn chain(error: &SendError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |words, cause| format!("{words}: {cause}"))
}
