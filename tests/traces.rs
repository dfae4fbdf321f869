//! Traces: one leads from Ring's request over queue and ledger to the command, whatever happens in between.
//!
//! What a span is for is told in the code that makes it; here is what a collector receives, and what a receiver of
//! commands is told.

use std::net::SocketAddr;

use porchlight_event::{SigningKey, TraceParent};
use porchlight_testbed::receiver::{Answering, Call};
use porchlight_testbed::{Collector, Daemon, RabbitMq, Receiver, Relay, SeenSpan, free_port, http, wait_for};
use serde_json::json;

use crate::site::{Form, on_both_forms};
use crate::support::{PATIENCE, Pipeline, Plan, TOKEN, WEBHOOK, event, now_ms};

on_both_forms! {
    one_trace_leads_from_the_request_to_the_command,
    a_command_that_is_sent_after_a_crash_goes_on_with_its_trace,
    a_dead_letter_and_its_replay_stay_in_their_trace,
}

const KEY: &str = "whsec-porch-7be01c";
const CALLBACK_SECRET: &str = "whsec_cG9yY2hsaWdodC10cmFjZXMtc2VjcmV0LTEyMzQ1Njc4";
/// A trace of somebody before us.
const FOREIGN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// Numbers of the protocol.
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;
const CONSUMER: i32 = 5;

/// Everything that an event passes, with a receiver of callbacks behind it and a collector beside it.
struct Way {
    collector: Collector,
    receiver: Receiver,
    key: SigningKey,
    processes: Processes,
}

enum Processes {
    Scaled(Box<Pipeline>),
    Standalone(Box<Alone>),
}

struct Alone {
    folder: tempfile::TempDir,
    settings: Vec<(&'static str, String)>,
    listen: SocketAddr,
    admin: SocketAddr,
    daemon: Option<Daemon>,
}

impl Way {
    async fn open(form: Form, more: &[(&'static str, &str)]) -> Self {
        let (collector, receiver) = (
            Collector::start().await.unwrap(),
            Receiver::start().await.unwrap(),
        );
        let mut settings = vec![
            ("PORCHLIGHT_OTLP_URL", collector.url()),
            ("PORCHLIGHT_CALLBACK_URL", receiver.url("/hook")),
            ("PORCHLIGHT_CALLBACK_SECRET", CALLBACK_SECRET.to_owned()),
            ("PORCHLIGHT_SIGNING_KEYS", format!("main={KEY}")),
        ];
        settings.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let processes = match form {
            Form::Scaled => {
                let plan = Plan {
                    settings,
                    ..Plan::default()
                };
                let mut pipeline = Pipeline::prepare(plan).await;
                for ingress in &mut pipeline.ingresses {
                    ingress.set("PORCHLIGHT_SIGNING_KEYS", format!("main={KEY}"));
                }
                for member in pipeline.members_mut() {
                    member.start();
                }
                for member in pipeline.members() {
                    member.wait_until_ready().await;
                }
                Processes::Scaled(Box::new(pipeline))
            }
            Form::Standalone => {
                let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
                let mut alone = Alone {
                    folder: tempfile::tempdir().unwrap(),
                    settings,
                    listen: address(),
                    admin: address(),
                    daemon: None,
                };
                alone.start().await;
                Processes::Standalone(Box::new(alone))
            }
        };
        Self {
            collector,
            receiver,
            key: SigningKey::new("main", KEY.as_bytes()),
            processes,
        }
    }

    /// Posts a body, rightly signed, with a trace of somebody else's, and insists on 200.
    async fn accept(&self, body: &[u8]) {
        let listen = match &self.processes {
            Processes::Scaled(pipeline) => pipeline.ingresses[0].listen,
            Processes::Standalone(alone) => alone.listen,
        };
        let signature = self.key.sign(body);
        let headers = [("X-Signature", signature.as_str()), ("traceparent", FOREIGN)];
        let answer = http::request(listen, "POST", WEBHOOK, &headers, body)
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    fn worker_admin(&self) -> SocketAddr {
        match &self.processes {
            Processes::Scaled(pipeline) => pipeline.workers[0].admin,
            Processes::Standalone(alone) => alone.admin,
        }
    }

    /// Lets an operation run on a device, and the device go offline; the event's body.
    async fn owe_a_pause(&self, device: &str) -> Vec<u8> {
        let path = format!("/v1/devices/{device}/operations/nightly");
        let authorization = format!("Bearer {TOKEN}");
        let headers = [
            ("Authorization", authorization.as_str()),
            ("Content-Type", "application/json"),
        ];
        let body = json!({ "kind": "snapshot" }).to_string();
        let answer = http::request(self.worker_admin(), "PUT", &path, &headers, body.as_bytes()).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text());
        let body = event("device_offline", device, "acct", now_ms());
        self.accept(&body).await;
        body
    }

    /// SIGKILL to whoever works, and a fresh process in its place.
    async fn crash_the_worker(&mut self) {
        match &mut self.processes {
            Processes::Scaled(pipeline) => {
                pipeline.workers[0].kill9_and_start_again();
                pipeline.workers[0].wait_until_ready().await;
            }
            Processes::Standalone(alone) => {
                alone.daemon().kill9();
                alone.start().await;
            }
        }
    }

    async fn replay(&self, reason: &str) {
        let tool = Daemon::of("porchlight").args(["dead", "replay", "--reason", reason, "--yes"]);
        let tool = match &self.processes {
            Processes::Scaled(pipeline) => tool
                .env("PORCHLIGHT_AMQP_URL", pipeline.broker.url())
                .env("PORCHLIGHT_REDIS_URL", pipeline.redis.url()),
            Processes::Standalone(alone) => tool.env("PORCHLIGHT_DATA_DIR", alone.data_dir()),
        };
        let run = tool.start().unwrap();
        let status = run.wait(PATIENCE).await.unwrap();
        assert!(status.success(), "{}", run.logs());
    }

    async fn call(&self, number: usize) -> Call {
        let calls = self.receiver.wait_calls(number, PATIENCE).await.unwrap();
        calls[number - 1].clone()
    }

    /// Waits until the spans of a trace hold every one that `named` names, that often at least.
    async fn trace(&self, trace_id: &str, named: &[&str]) -> Vec<SeenSpan> {
        let of_trace = |spans: &[SeenSpan]| {
            let spans: Vec<SeenSpan> = spans
                .iter()
                .filter(|span| span.trace_id == trace_id)
                .cloned()
                .collect();
            let count = |name: &str| spans.iter().filter(|span| span.name == name).count();
            let wanted = |name: &str| named.iter().filter(|known| **known == name).count();
            named
                .iter()
                .all(|name| count(name) >= wanted(name))
                .then_some(spans)
        };
        self.collector
            .wait_for("the spans of a trace", PATIENCE, of_trace)
            .await
            .unwrap()
    }
}

impl Alone {
    fn data_dir(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    async fn start(&mut self) {
        let daemon = Daemon::of("porchlight")
            .arg("standalone")
            .env("PORCHLIGHT_DATA_DIR", self.data_dir())
            .env("PORCHLIGHT_LISTEN", self.listen.to_string())
            .env("PORCHLIGHT_ADMIN_LISTEN", self.admin.to_string())
            .env("PORCHLIGHT_ADMIN_TOKEN", TOKEN)
            .envs(self.settings.clone())
            .start()
            .unwrap();
        let look = async || match http::get(self.admin, "/readyz").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        };
        if let Err(error) = daemon.ready(PATIENCE, look).await {
            panic!("{error}\n{}", daemon.logs());
        }
        self.daemon = Some(daemon);
    }
}

fn one<'a>(spans: &'a [SeenSpan], name: &str) -> &'a SeenSpan {
    let mut named = spans.iter().filter(|span| span.name == name);
    let only = named.next().unwrap_or_else(|| panic!("no {name} in {spans:#?}"));
    assert!(named.next().is_none(), "more than one {name} in {spans:#?}");
    only
}

fn carried(call: &Call) -> TraceParent {
    let header = call.header("traceparent").expect("a call tells its trace");
    TraceParent::parse(header).expect("and in the standard's form")
}

/// So long no other process sends a command that one which died had in hand.
const HANDED_ON_SOON: [(&str, &str); 1] = [("PORCHLIGHT_CALLBACK_TIMEOUT", "1s")];

async fn one_trace_leads_from_the_request_to_the_command(form: Form) {
    let way = Way::open(form, &[]).await;
    let body = way.owe_a_pause("porch").await;
    let told = carried(&way.call(1).await);
    let names = ["receive", "store", "process", "apply", "send command"];
    let spans = way.trace(told.trace_id(), &names).await;
    assert_eq!(spans.len(), names.len(), "{spans:#?}");
    let [receive, store, process, apply, send] = names.map(|name| one(&spans, name));

    let parents = [receive, store, process, apply, send].map(|span| span.parent_id.as_str());
    let (root, stored, worked) = (&*receive.span_id, &*store.span_id, &*process.span_id);
    assert_eq!(parents, ["", root, stored, worked, worked]);
    let kinds = [receive, store, process, apply, send].map(|span| span.kind);
    assert_eq!(kinds, [SERVER, PRODUCER, CONSUMER, INTERNAL, CLIENT]);
    let (edge, worker) = match form {
        Form::Scaled => ("porchlight-ingress", "porchlight-worker"),
        Form::Standalone => ("porchlight-standalone", "porchlight-standalone"),
    };
    let services = [receive, store, process, apply, send].map(|span| span.service.as_str());
    assert_eq!(services, [edge, edge, worker, worker, worker]);
    assert!(
        spans
            .iter()
            .all(|span| !span.failed && span.time.0 <= span.time.1 && span.time.0 > 0)
    );

    // What the receiver was told is the span of the very call.
    assert_eq!(told.as_str(), format!("00-{}-{}-01", send.trace_id, send.span_id));
    // Whoever was before us is linked to, and does not decide in which trace we are.
    assert_eq!(receive.links, [FOREIGN[3..35].to_owned()]);
    assert_ne!(receive.trace_id, FOREIGN[3..35]);
    assert_eq!(receive.told("http.response.status_code"), "200");
    assert_eq!(
        (
            process.told("porchlight.outcome"),
            process.told("porchlight.reason")
        ),
        ("applied", "newest")
    );
    assert_eq!(
        process.told("messaging.message.id"),
        store.told("messaging.message.id")
    );
    assert_eq!(
        send.told("porchlight.command.id"),
        way.call(1).await.header("webhook-id").unwrap()
    );
    assert_eq!(
        send.told("porchlight.event.id"),
        process.told("porchlight.event.id")
    );
    assert!(!send.told("porchlight.event.id").is_empty());
    holds_no_secret(&way, &body);
}

/// Neither keys, nor signatures, nor anything of a body but ids.
fn holds_no_secret(way: &Way, body: &[u8]) {
    let signature = way.key.sign(body);
    let exports = way.collector.receiver.calls();
    assert!(!exports.is_empty());
    for export in exports {
        let shown = format!("{:?} {}", export.headers, String::from_utf8_lossy(&export.body));
        for secret in [
            KEY,
            CALLBACK_SECRET,
            &signature[7..],
            "acct",
            "\"attributes\"",
            TOKEN,
        ] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }
}

async fn a_command_that_is_sent_after_a_crash_goes_on_with_its_trace(form: Form) {
    let mut way = Way::open(form, &HANDED_ON_SOON).await;
    way.receiver.answer(Answering::Status(500));
    way.owe_a_pause("porch").await;
    let before = carried(&way.call(1).await);
    way.crash_the_worker().await;
    way.receiver.answer(Answering::Status(204));
    // Which call was the first to be answered so is known by its span alone.
    let found = |spans: &[SeenSpan]| {
        let mut sent = spans.iter().filter(|span| span.name == "send command");
        sent.find(|span| span.told("http.response.status_code") == "204")
            .cloned()
    };
    let delivered = way
        .collector
        .wait_for("the last attempt", PATIENCE, found)
        .await
        .unwrap();
    assert!(!delivered.failed, "{delivered:?}");
    assert_eq!(delivered.trace_id, before.trace_id());
    let calls = way.receiver.calls();
    let after = calls
        .iter()
        .map(carried)
        .find(|told| told.as_str().contains(&delivered.span_id));
    let after = after.expect("the receiver was told the span of the call");
    assert_eq!(after.trace_id(), before.trace_id());
    assert_ne!(
        after.as_str(),
        before.as_str(),
        "each attempt has a span of its own"
    );
}

async fn a_dead_letter_and_its_replay_stay_in_their_trace(form: Form) {
    let way = Way::open(form, &[]).await;
    way.accept(b"no JSON at all").await;
    let died = |spans: &[SeenSpan]| spans.iter().find(|span| span.name == "bury").cloned();
    let bury = way.collector.wait_for("a burial", PATIENCE, died).await.unwrap();
    way.replay("not_json").await;
    let names = ["receive", "store", "process", "bury", "process", "bury"];
    let spans = way.trace(&bury.trace_id, &names).await;
    assert_eq!(spans.len(), names.len(), "{spans:#?}");
    let (store, worked): (&SeenSpan, Vec<_>) = (
        one(&spans, "store"),
        spans.iter().filter(|span| span.name == "process").collect(),
    );
    assert!(
        worked
            .iter()
            .all(|span| span.parent_id == store.span_id && span.failed)
    );
    let mut told = [0, 1].map(|n| {
        (
            worked[n].told("porchlight.outcome"),
            worked[n].told("porchlight.replay"),
        )
    });
    told.sort_unstable();
    assert_eq!(told, [("dead", "0"), ("dead", "1")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_waited_in_the_spool_stays_in_its_trace() {
    let collector = Collector::start().await.unwrap();
    let plan = Plan {
        settings: vec![("PORCHLIGHT_OTLP_URL", collector.url())],
        ..Plan::default()
    };
    let mut pipeline = Pipeline::prepare(plan).await;
    let spool = tempfile::tempdir().unwrap();
    let relay = Relay::start(pipeline.broker.node().address()).await.unwrap();
    let url = RabbitMq::url_at(relay.address(), pipeline.broker.vhost());
    pipeline.ingresses[0].set("PORCHLIGHT_AMQP_URL", url);
    pipeline.ingresses[0].set("PORCHLIGHT_DATA_DIR", spool.path().to_str().unwrap());
    for member in pipeline.members_mut() {
        member.start();
    }
    for member in pipeline.members() {
        member.wait_until_ready().await;
    }
    relay.refuse(true);
    relay.cut();
    let body = event("device_offline", "porch", "acct", now_ms());
    pipeline.accept(&body).await;
    relay.pass();
    let found = |spans: &[SeenSpan]| {
        let named = |name: &str| {
            spans
                .iter()
                .rfind(|span| span.name == name && !span.failed)
                .cloned()
        };
        Some(["receive", "store", "hand over", "process"].map(named))
            .filter(|all| all.iter().all(Option::is_some))
    };
    let spans = collector
        .wait_for("the whole way", PATIENCE, found)
        .await
        .unwrap();
    let [receive, store, hand_over, process] = spans.map(Option::unwrap);
    assert_eq!(store.told("porchlight.stored"), "spool");
    let parents = [store, hand_over.clone(), process.clone()].map(|span| (span.trace_id, span.parent_id));
    let (trace, stored) = (&receive.trace_id, &parents[1].1);
    assert!(parents.iter().all(|(of, _)| of == trace), "{parents:?}");
    assert_eq!((&parents[0].1, &parents[2].1), (&receive.span_id, stored));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_what_came_along_is_passed_on_as_it_is() {
    let way = Way::open(Form::Standalone, &[("PORCHLIGHT_OTLP_URL", "")]).await;
    way.owe_a_pause("porch").await;
    assert_eq!(carried(&way.call(1).await).as_str(), FOREIGN);
    assert!(way.collector.spans().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_on_the_broker_carry_the_trace_in_a_header() {
    let pipeline = Pipeline::start(Plan::default()).await;
    pipeline.register("porch", "nightly", None).await;
    let body = event("device_offline", "porch", "acct", now_ms());
    let signature = pipeline.key.sign(&body);
    let headers = [("X-Signature", signature.as_str()), ("traceparent", FOREIGN)];
    let listen = pipeline.ingresses[0].listen;
    let answer = http::request(listen, "POST", WEBHOOK, &headers, &body)
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    pipeline.broker.wait_for_depth("porchlight.commands", 1).await;
    let sent = pipeline.broker.drain("porchlight.commands").await;
    assert_eq!(sent[0].traceparent.as_deref(), Some(FOREIGN));
    assert!(
        !sent[0].body.to_string().contains("traceparent"),
        "{}",
        sent[0].body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_is_not_kept_says_so_to_whoever_goes_on_with_it() {
    let way = Way::open(Form::Standalone, &[("PORCHLIGHT_TRACE_RATIO", "0")]).await;
    way.owe_a_pause("porch").await;
    let told = carried(&way.call(1).await);
    assert!(told.as_str().ends_with("-00"), "{}", told.as_str());
    assert_ne!(told.trace_id(), &FOREIGN[3..35]);
    assert!(way.collector.spans().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let way = Way::open(Form::Standalone, &[("PORCHLIGHT_OTLP_URL", &nobody)]).await;
    way.owe_a_pause("porch").await;
    way.call(1).await;
    let Processes::Standalone(alone) = &way.processes else {
        unreachable!("it was asked for")
    };
    wait_for("dropped spans", PATIENCE, async || {
        let metrics = http::get(alone.admin, "/metrics")
            .await
            .map_err(|error| error.to_string())?;
        let dropped = r#"porchlight_trace_spans_dropped_total{reason="not_delivered"} "#;
        let text = metrics.text();
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix(dropped))
            .ok_or("no such metric")?;
        if count == "0" {
            Err("none".to_owned())
        } else {
            Ok(())
        }
    })
    .await
    .unwrap();
    let status = alone.daemon().terminate(PATIENCE).await.unwrap();
    let logs = alone.daemon().logs();
    assert!(status.success(), "{logs}");
    assert_eq!(logs.matches("traces cannot be exported").count(), 1, "{logs}");
}
