//! A whole pipeline of real processes for one test: ingresses and workers as daemons, RabbitMQ and Redis.
//!
//! It asserts nothing about behaviour; it starts, kills, restarts, sends and looks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicGetOptions};
use porchlight_event::SigningKey;
use porchlight_event::sample::Sample;
use porchlight_testbed::{Daemon, RabbitMq, Redis, free_port, http, wait_for};
use serde_json::Value;

/// Long enough for a debug build on a busy machine with a slow disk; a wait that succeeds never takes it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
/// How an event that was not accepted is sent again: for longer than a server may take to start.
pub(crate) const ATTEMPTS: usize = 6_000;
pub(crate) const WEBHOOK: &str = "/webhooks/ring";
pub(crate) const TOKEN: &str = "test-admin-token";
const KEY: &str = "whsec-porch-2f9c1d";
/// The queues that must be empty when all work is done.
pub(crate) const WORK_QUEUES: [&str; 4] = [
    "porchlight.events",
    "porchlight.retry.1m",
    "porchlight.retry.10m",
    "porchlight.unrouted",
];

/// One daemon that can be killed and started again with the same settings on the same ports.
pub(crate) struct Member {
    binary: &'static str,
    settings: Vec<(String, String)>,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    daemon: Option<Daemon>,
}

/// The broker a pipeline runs on: the shared one with a virtual host of its own, or one that may be killed.
pub(crate) enum Broker {
    Shared(&'static RabbitMq, String),
    Own(Box<RabbitMq>),
}

pub(crate) struct Pipeline {
    pub(crate) broker: Broker,
    pub(crate) redis: Redis,
    pub(crate) ingresses: Vec<Member>,
    pub(crate) workers: Vec<Member>,
    pub(crate) key: SigningKey,
}

/// What is asked of a pipeline before it starts.
pub(crate) struct Plan {
    pub(crate) own_broker: bool,
    pub(crate) ingresses: usize,
    pub(crate) workers: usize,
    pub(crate) settings: Vec<(&'static str, String)>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            own_broker: false,
            ingresses: 1,
            workers: 1,
            settings: Vec::new(),
        }
    }
}

/// A command message as it lay on the queue.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) message_id: String,
    pub(crate) routing_key: String,
    pub(crate) body: Value,
    /// The header of that name.
    pub(crate) traceparent: Option<String>,
}

impl Broker {
    pub(crate) fn node(&self) -> &RabbitMq {
        match self {
            Self::Shared(node, _) => node,
            Self::Own(node) => node,
        }
    }

    pub(crate) fn vhost(&self) -> &str {
        match self {
            Self::Shared(_, vhost) => vhost,
            Self::Own(_) => "/",
        }
    }

    pub(crate) fn url(&self) -> String {
        self.node().url_for_vhost(self.vhost())
    }

    pub(crate) async fn ready(&self, queue: &str) -> u64 {
        // A node that cannot tell has not said that there is nothing.
        wait_for(&format!("the depth of {queue}"), PATIENCE, async || {
            let state = self.node().queue(self.vhost(), queue).await;
            state.map(|state| state.ready).map_err(|error| error.to_string())
        })
        .await
        .unwrap()
    }

    /// Waits until the queue holds `count` messages and no consumer holds any of its messages.
    pub(crate) async fn wait_for_depth(&self, queue: &str, count: u64) {
        wait_for(&format!("{count} messages in {queue}"), PATIENCE, async || {
            let state = self
                .node()
                .queue(self.vhost(), queue)
                .await
                .map_err(|error| error.to_string())?;
            if (state.ready, state.unacked) == (count, 0) {
                Ok(())
            } else {
                Err(format!("{state:?}"))
            }
        })
        .await
        .unwrap();
    }

    /// Takes every message off a queue.
    pub(crate) async fn drain(&self, queue: &str) -> Vec<Sent> {
        let connection = lapin::Connection::connect(&self.url(), lapin::ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        let mut sent = Vec::new();
        while let Some(got) = channel
            .basic_get(queue.into(), BasicGetOptions::default())
            .await
            .unwrap()
        {
            got.delivery.ack(BasicAckOptions::default()).await.unwrap();
            sent.push(Sent {
                message_id: got
                    .delivery
                    .properties
                    .message_id()
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                routing_key: got.delivery.routing_key.to_string(),
                body: serde_json::from_slice(&got.delivery.data).unwrap_or(Value::Null),
                traceparent: text_header(&got.delivery.properties, "traceparent"),
            });
        }
        connection.close(200, "done".into()).await.unwrap();
        sent
    }
}

fn text_header(properties: &lapin::BasicProperties, name: &str) -> Option<String> {
    match properties.headers().as_ref()?.inner().get(name)? {
        lapin::types::AMQPValue::LongString(text) => Some(text.to_string()),
        _ => None,
    }
}

impl Member {
    fn new(binary: &'static str, settings: Vec<(String, String)>) -> Self {
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self {
            binary,
            settings,
            listen: address(),
            admin: address(),
            daemon: None,
        }
    }

    /// Another setting for the starts to come.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.settings.push((name.to_owned(), value.into()));
    }

    pub(crate) fn start(&mut self) {
        let settings = self
            .settings
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()));
        let mut builder = Daemon::of(self.binary)
            .env("PORCHLIGHT_ADMIN_LISTEN", self.admin.to_string())
            .env("PORCHLIGHT_ADMIN_TOKEN", TOKEN)
            .envs(settings);
        if self.binary == "porchlight-ingress" {
            builder = builder.env("PORCHLIGHT_LISTEN", self.listen.to_string());
        }
        self.daemon = Some(builder.start().unwrap());
    }

    pub(crate) fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("the member was started")
    }

    pub(crate) async fn wait_until_ready(&self) {
        let ready = self.daemon().ready(PATIENCE, async || {
            let answer = http::get(self.admin, "/readyz")
                .await
                .map_err(|error| error.to_string())?;
            if answer.status == 200 {
                Ok(())
            } else {
                Err(answer.text())
            }
        });
        if let Err(error) = ready.await {
            panic!("{} is not ready: {error}\n{}", self.binary, self.daemon().logs());
        }
    }

    /// SIGKILL, and a fresh process on the same ports.
    pub(crate) fn kill9_and_start_again(&mut self) {
        self.daemon().kill9();
        self.start();
    }
}

impl Pipeline {
    /// Starts everything and waits until each daemon is ready.
    pub(crate) async fn start(plan: Plan) -> Self {
        let mut pipeline = Self::prepare(plan).await;
        for member in pipeline.members_mut() {
            member.start();
        }
        for member in pipeline.members() {
            member.wait_until_ready().await;
        }
        pipeline
    }

    /// Starts the servers and describes the daemons, without starting them.
    pub(crate) async fn prepare(plan: Plan) -> Self {
        let broker = if plan.own_broker {
            Broker::Own(Box::new(RabbitMq::start().await.unwrap()))
        } else {
            let node = RabbitMq::shared().await;
            Broker::Shared(node, node.vhost().await.unwrap())
        };
        let redis = Redis::start().await.unwrap();
        let mut settings = vec![
            ("PORCHLIGHT_AMQP_URL".to_owned(), broker.url()),
            ("PORCHLIGHT_LOG".to_owned(), "info".to_owned()),
        ];
        settings.extend(
            plan.settings
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value)),
        );
        let ingress: Vec<_> = [
            settings.clone(),
            vec![("PORCHLIGHT_SIGNING_KEYS".to_owned(), format!("main={KEY}"))],
        ]
        .concat();
        let worker: Vec<_> = [settings, vec![("PORCHLIGHT_REDIS_URL".to_owned(), redis.url())]].concat();
        Self {
            ingresses: (0..plan.ingresses)
                .map(|_| Member::new("porchlight-ingress", ingress.clone()))
                .collect(),
            workers: (0..plan.workers)
                .map(|_| Member::new("porchlight-worker", worker.clone()))
                .collect(),
            key: SigningKey::new("main", KEY.as_bytes()),
            broker,
            redis,
        }
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.ingresses.iter().chain(&self.workers)
    }

    pub(crate) fn members_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.ingresses.iter_mut().chain(&mut self.workers)
    }

    pub(crate) fn ingress_addresses(&self) -> Vec<SocketAddr> {
        self.ingresses.iter().map(|member| member.listen).collect()
    }

    /// Posts a body, rightly signed, to the first ingress.
    pub(crate) async fn post(&self, body: &[u8]) -> http::Response {
        http::post_signed(self.ingresses[0].listen, WEBHOOK, &self.key, body)
            .await
            .unwrap()
    }

    /// Posts a body and insists on 200.
    pub(crate) async fn accept(&self, body: &[u8]) {
        let answer = unless_slow(async || self.post(body).await).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// A call of the control API of the first worker.
    pub(crate) async fn api(&self, method: &str, path: &str, body: Option<&Value>) -> http::Response {
        let authorization = format!("Bearer {TOKEN}");
        let body = body.map(ToString::to_string).unwrap_or_default();
        let headers = [
            ("Authorization", authorization.as_str()),
            ("Content-Type", "application/json"),
        ];
        http::request(self.workers[0].admin, method, path, &headers, body.as_bytes())
            .await
            .unwrap()
    }

    pub(crate) async fn register(&self, device: &str, operation: &str, account: Option<&str>) {
        let path = format!("/v1/devices/{device}/operations/{operation}");
        let body = serde_json::json!({ "account_id": account, "kind": "snapshot", "params": { "n": 1 } });
        let answer = self.api("PUT", &path, Some(&body)).await;
        assert!(
            matches!(answer.status, 200 | 201),
            "{} {}",
            answer.status,
            answer.text()
        );
    }

    pub(crate) async fn device(&self, device: &str) -> Value {
        let answer = self.api("GET", &format!("/v1/devices/{device}"), None).await;
        if answer.status == 200 {
            answer.json().unwrap()
        } else {
            Value::Null
        }
    }

    /// Waits until every event sent so far has become something and no command is owed.
    pub(crate) async fn settle(&self) {
        // What waits for another try comes back to the first queue; one look that goes from queue to queue may miss it.
        for _ in 0..2 {
            wait_for("empty queues", PATIENCE * 5, async || {
                let states = self.broker.node().queues(self.broker.vhost()).await;
                let states = states.map_err(|error| error.to_string())?;
                let mut work = states
                    .iter()
                    .filter(|state| WORK_QUEUES.contains(&state.name.as_str()));
                let count = work.clone().count();
                if count == WORK_QUEUES.len() && work.all(|state| (state.ready, state.unacked) == (0, 0)) {
                    Ok(())
                } else {
                    Err(format!("{states:?}"))
                }
            })
            .await
            .unwrap();
        }
        wait_for("an empty outbox", PATIENCE, async || {
            match self.outbox_backlog() {
                0 => Ok(()),
                owed => Err(format!("{owed} owed commands")),
            }
        })
        .await
        .unwrap();
    }

    /// Owed commands over all partitions, counted in Redis itself.
    pub(crate) fn outbox_backlog(&self) -> i64 {
        let keys = self.redis.command(&["KEYS", "porchlight:{*}:ob"]).unwrap();
        keys.list()
            .iter()
            .filter_map(|key| self.redis.command(&["HLEN", &key.text()]).unwrap().number())
            .sum()
    }

    /// The commands delivered so far, taken off the queue, with how often each identity came.
    pub(crate) async fn commands(&self) -> BTreeMap<String, (usize, Sent)> {
        let mut by_id: BTreeMap<String, (usize, Sent)> = BTreeMap::new();
        for sent in self.broker.drain("porchlight.commands").await {
            by_id
                .entry(sent.message_id.clone())
                .or_insert_with(|| (0, sent))
                .0 += 1;
        }
        by_id
    }
}

/// Answers of an ingress come within 2 s then: a test that holds it to the time that Ring waits leaves the rest to a busy
/// machine.
pub(crate) fn quick_answers() -> Vec<(&'static str, String)> {
    let times = ["PORCHLIGHT_ANSWER_TIMEOUT", "PORCHLIGHT_HEAD_TIMEOUT"];
    times.map(|name| (name, "2s".to_owned())).to_vec()
}

/// The answer to a request that is repeated, as Ring repeats it, while the disk takes longer than an answer may.
pub(crate) async fn unless_slow(mut ask: impl AsyncFnMut() -> http::Response) -> http::Response {
    const REPETITIONS: usize = 5;
    for _ in 0..REPETITIONS {
        let answer = ask().await;
        let body: Value = answer.json().unwrap_or_default();
        let is_late = ["confirm_timeout", "spool_timeout"].map(|code| body["error"]["code"] == code);
        if is_late == [false; 2] {
            return answer;
        }
    }
    ask().await
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// An event of Ring's form with a request id of its own.
pub(crate) fn event(event_type: &str, device_id: &str, account_id: &str, timestamp_ms: i64) -> Vec<u8> {
    let request_id = format!("request-{event_type}-{device_id}-{timestamp_ms}");
    let sample = Sample {
        event_type,
        device_id,
        account_id,
        timestamp_ms,
        sent_at_ms: timestamp_ms + 40,
        request_id: &request_id,
    };
    sample.body()
}
