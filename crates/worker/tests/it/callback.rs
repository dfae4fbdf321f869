//! Commands as signed callbacks: what a partner's service gets, and what becomes of it while that service fails.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use porchlight_broker::{BrokerUrls, Publisher, PublisherConfig, dead_letter};
use porchlight_device::Action;
use porchlight_device::command::command_id;
use porchlight_event::WebhookSecrets;
use porchlight_testbed::receiver::{Answering, Call};
use porchlight_testbed::{Daemon, Direction, Receiver, Redis, Relay, free_port, wait_for};
use porchlight_worker::{BreakerBounds, CallbackSettings, ReceiverSettings, RunError};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::harness::{Form, PATIENCE, Running, Setup, body, in_every_form, now_ms};
use crate::servers::Bench;

/// The bytes 0 to 31, and 100 to 123.
const SECRETS: [&str; 2] = [
    "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "whsec_ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7",
];
/// Longer than any test is patient: who runs into it shows that it waited for a receiver.
const FOREVER: Duration = Duration::from_secs(180);

in_every_form!(
    a_command_comes_once_whole_and_signed_with_every_secret,
    what_a_receiver_fails_comes_again_under_the_same_identity,
    a_receiver_that_hangs_does_not_hold_up_another,
    a_receiver_that_fails_is_left_alone_until_a_try_succeeds,
    a_command_that_was_overtaken_is_not_tried_again,
    a_kind_without_a_receiver_stays_owed_and_holds_up_nobody,
    a_stop_does_not_wait_for_a_receiver_that_hangs,
);

fn secrets(text: &str) -> WebhookSecrets {
    WebhookSecrets::parse(text).unwrap()
}

/// Callbacks to these URLs, in the form of the setting.
fn callback(urls: &str) -> CallbackSettings {
    CallbackSettings::new(
        ReceiverSettings::parse_list(urls).unwrap(),
        secrets(&SECRETS.join(",")),
    )
}

async fn start(bench: &impl Form, callback: CallbackSettings) -> Running {
    let worker = bench.start(Setup {
        // What failed comes again no sooner than with a broker.
        head_start: callback.timeout + Duration::from_secs(2),
        callback: Some(callback),
        ..Setup::default()
    });
    worker.ready().await;
    worker
}

async fn register(worker: &Running, operation: &str, kind: &str) {
    let path = format!("/v1/devices/d/operations/{operation}");
    let body = format!("{{\"kind\":\"{kind}\",\"params\":{{\"a\":1}}}}");
    // Whoever is answered 503 asks again, and may find it registered.
    let registered = wait_for("the registration", PATIENCE, async || {
        match worker.call("PUT", &path, &body).await {
            answer if matches!(answer.status, 200 | 201) => Ok(()),
            other => Err(other.text()),
        }
    });
    registered.await.unwrap();
}

/// The device goes offline: every operation of it owes a pause.
async fn offline(bench: &impl Form) {
    bench
        .publish_all([body("device_offline", "d", now_ms() - 60_000)])
        .await;
}

async fn online(bench: &impl Form) {
    bench
        .publish_all([body("device_online", "d", now_ms() - 30_000)])
        .await;
}

fn actions(calls: &[Call]) -> Vec<String> {
    let action = |call: &Call| call.json().unwrap()["action"].as_str().unwrap().to_owned();
    calls.iter().map(action).collect()
}

fn ids(calls: &[Call]) -> BTreeSet<&str> {
    calls
        .iter()
        .map(|call| call.header("webhook-id").unwrap())
        .collect()
}

fn timestamp(call: &Call) -> i64 {
    call.header("webhook-timestamp").unwrap().parse().unwrap()
}

async fn a_command_comes_once_whole_and_signed_with_every_secret(bench: impl Form) {
    let receiver = Receiver::start().await.unwrap();
    let worker = start(&bench, callback(&receiver.url("/commands?token=hush"))).await;
    register(&worker, "o", "snapshot").await;
    offline(&bench).await;
    receiver.wait_calls(1, PATIENCE).await.unwrap();
    online(&bench).await;
    receiver.wait_calls(2, PATIENCE).await.unwrap();
    bench.nothing_owed().await;
    assert_eq!(worker.device("d").await["operations"][0]["state"], "running");

    let calls = receiver.calls();
    assert_eq!(actions(&calls), ["pause", "resume"]);
    for (call, action) in calls.iter().zip([Action::Pause, Action::Resume]) {
        let (id, sent) = (command_id("d", "o", 1, action), call.json().unwrap());
        assert_eq!(
            (call.header("webhook-id"), &sent["id"]),
            (Some(id.as_str()), &json!(id))
        );
        assert_eq!(
            sent["operation"],
            json!({"id": "o", "kind": "snapshot", "params": {"a": 1}})
        );
        assert_eq!(call.path, "/commands?token=hush");
        assert_eq!(call.header("content-type"), Some("application/json"));
        assert!(call.header("user-agent").unwrap().starts_with("porchlight/"));
        assert!((now_ms() / 1000 - timestamp(call)).abs() < 60);
        for secret in SECRETS {
            assert!(call.is_signed_by(&secrets(secret)), "{call:?}");
        }
    }
    assert_eq!(receiver.connections(), 1, "it was kept");
    let delivered =
        r#"porchlight_worker_callback_attempts_total{receiver="default",action="pause",result="delivered"}"#;
    assert_eq!(worker.sum(delivered).await, 1.0);
    assert_eq!(worker.sum("porchlight_worker_callback_seconds_count").await, 2.0);
    worker.stop().await.unwrap();
}

async fn what_a_receiver_fails_comes_again_under_the_same_identity(bench: impl Form) {
    let failures = [
        ("error", Answering::Status(500), "status_5xx"),
        ("gone", Answering::Status(410), "status_4xx"),
        ("hang", Answering::Hang, "timeout"),
        ("drop", Answering::Drop, "broken"),
        (
            "redirect",
            Answering::Redirect("/elsewhere".to_owned()),
            "status_3xx",
        ),
    ];
    let (mut receivers, mut urls) = (Vec::new(), Vec::new());
    for (kind, answering, _) in &failures {
        let receiver = Receiver::start().await.unwrap();
        receiver.answer(answering.clone());
        urls.push(format!("{kind}={}", receiver.url("/")));
        receivers.push(receiver);
    }
    let mut settings = callback(&urls.join(","));
    settings.timeout = Duration::from_millis(500);
    let worker = start(&bench, settings).await;
    for (kind, ..) in &failures {
        register(&worker, kind, kind).await;
    }
    offline(&bench).await;
    for (receiver, (kind, _, result)) in receivers.iter().zip(&failures) {
        let attempts = format!(
            "porchlight_worker_callback_attempts_total{{receiver=\"{kind}\",action=\"pause\",result=\"{result}\"}}"
        );
        worker.wait_sum(&attempts, 1.0).await;
        receiver.answer(Answering::Status(204));
    }
    bench.nothing_owed().await;
    for receiver in &receivers {
        let calls = receiver.calls();
        let [first, .., last] = &calls[..] else {
            panic!("{calls:?}")
        };
        assert_eq!(ids(&calls).len(), 1, "{calls:?}");
        assert!(timestamp(last) > timestamp(first), "{calls:?}");
        assert!(last.is_signed_by(&secrets(SECRETS[0])));
        assert_eq!(first.body, last.body);
        assert!(calls.iter().all(|call| call.path == "/"), "{calls:?}");
    }
    // It failed as often as it was told to, and was not called once it had not.
    for (kind, ..) in &failures {
        let delivered = format!(
            "porchlight_worker_callback_attempts_total{{receiver=\"{kind}\",action=\"pause\",result=\"delivered\"}}"
        );
        assert_eq!(worker.sum(&delivered).await, 1.0, "{kind}");
    }
    worker.stop().await.unwrap();
}

async fn a_receiver_that_hangs_does_not_hold_up_another(bench: impl Form) {
    let (dead, alive) = (Receiver::start().await.unwrap(), Receiver::start().await.unwrap());
    dead.answer(Answering::Hang);
    let mut callback = callback(&format!("dead={},*={}", dead.url("/"), alive.url("/")));
    callback.timeout = FOREVER;
    let mut setup = Setup {
        callback: Some(callback),
        ..Setup::default()
    };
    setup.work.commands_inflight_max = 4;
    setup.work.stop_grace = Duration::from_secs(1);
    let worker = bench.start(setup);
    worker.ready().await;
    for n in 0..20 {
        register(&worker, &format!("a{n}"), "dead").await;
        register(&worker, &format!("b{n}"), "snapshot").await;
    }
    offline(&bench).await;
    let all = wait_for("all others", PATIENCE, async || match ids(&alive.calls()).len() {
        20 => Ok(()),
        other => Err(other.to_string()),
    });
    all.await.unwrap();
    // Half of what may be in flight is its share.
    dead.wait_calls(2, PATIENCE).await.unwrap();
    assert_eq!(dead.calls().len(), 2);
    let inflight = r#"porchlight_worker_callback_inflight{receiver="dead"}"#;
    assert_eq!(worker.sum(inflight).await, 2.0);
    let _ = worker.stop().await;
}

async fn a_receiver_that_fails_is_left_alone_until_a_try_succeeds(bench: impl Form) {
    let receiver = Receiver::start().await.unwrap();
    receiver.answer(Answering::Status(503));
    let mut settings = callback(&receiver.url("/"));
    settings.inflight_max = 1;
    settings.breaker = BreakerBounds {
        wait_min: Duration::from_secs(1),
        wait_max: Duration::from_secs(1),
        ..BreakerBounds::default()
    };
    let worker = start(&bench, settings).await;
    for n in 0..8 {
        register(&worker, &format!("o{n}"), "snapshot").await;
    }
    offline(&bench).await;
    let attempts = "porchlight_worker_callback_attempts_total";
    worker.wait_sum(attempts, 8.0).await;
    let calls = receiver.calls();
    assert_eq!(calls.len(), 5, "three were held back");
    let breaker = r#"porchlight_worker_callback_breaker{receiver="default"}"#;
    assert_eq!(worker.sum(breaker).await, 2.0);

    receiver.answer(Answering::Status(200));
    bench.nothing_owed().await;
    assert_eq!(worker.sum(breaker).await, 0.0);
    assert_eq!(ids(&receiver.calls()).len(), 8);
    worker.stop().await.unwrap();
}

async fn a_command_that_was_overtaken_is_not_tried_again(bench: impl Form) {
    let receiver = Receiver::start().await.unwrap();
    receiver.answer(Answering::Status(500));
    let worker = start(&bench, callback(&receiver.url("/"))).await;
    register(&worker, "o", "snapshot").await;
    offline(&bench).await;
    receiver.wait_calls(1, PATIENCE).await.unwrap();
    worker.wait_sum("porchlight_worker_commands_total", 1.0).await;
    // The resume fails as well, so that both had a reason to be tried again.
    online(&bench).await;
    worker.wait_sum("porchlight_worker_commands_total", 2.0).await;
    receiver.answer(Answering::Status(200));
    bench.nothing_owed().await;
    assert_eq!(actions(&receiver.calls()), ["pause", "resume", "resume"]);
    worker.stop().await.unwrap();
}

async fn a_kind_without_a_receiver_stays_owed_and_holds_up_nobody(bench: impl Form) {
    let receiver = Receiver::start().await.unwrap();
    let worker = start(&bench, callback(&format!("snapshot={}", receiver.url("/")))).await;
    register(&worker, "a", "other").await;
    register(&worker, "b", "snapshot").await;
    offline(&bench).await;
    receiver.wait_calls(1, PATIENCE).await.unwrap();
    let none =
        r#"porchlight_worker_callback_attempts_total{receiver="none",action="pause",result="no_receiver"}"#;
    worker.wait_sum(none, 1.0).await;
    let ledger = bench.ledger();
    let owed = wait_for("one command to be owed", PATIENCE, async || {
        match ledger.backlog().await.unwrap().commands {
            1 => Ok(()),
            count => Err(count.to_string()),
        }
    });
    owed.await.unwrap();
    worker.stop().await.unwrap();
}

async fn a_stop_does_not_wait_for_a_receiver_that_hangs(bench: impl Form) {
    let receiver = Receiver::start().await.unwrap();
    receiver.answer(Answering::Hang);
    let mut callback = callback(&receiver.url("/"));
    callback.timeout = FOREVER;
    let mut setup = Setup {
        callback: Some(callback),
        ..Setup::default()
    };
    setup.work.stop_grace = Duration::from_secs(5);
    let worker = bench.start(setup);
    worker.ready().await;
    register(&worker, "o", "snapshot").await;
    offline(&bench).await;
    receiver.wait_calls(1, PATIENCE).await.unwrap();
    let begun = Instant::now();
    let error = worker.stop().await.unwrap_err();
    assert!(
        matches!(
            error,
            RunError::Grace {
                events: 0,
                commands: 1
            }
        ),
        "{error}"
    );
    assert!(begun.elapsed() < FOREVER / 2, "it took {:?}", begun.elapsed());
}

/// Where the letter is, and that it can be told from an event's, is the broker's.
#[tokio::test]
async fn a_command_that_fails_for_too_long_is_a_dead_letter_and_its_operation_stays_where_it_was() {
    let bench = Bench::start().await;
    let receiver = Receiver::start().await.unwrap();
    let mut settings = callback(&receiver.url("/?token=hush"));
    settings.give_up = Duration::ZERO;
    let worker = start(&bench, settings).await;
    register(&worker, "o", "snapshot").await;
    offline(&bench).await;
    receiver.wait_calls(1, PATIENCE).await.unwrap();
    bench.nothing_owed().await;
    receiver.answer(Answering::Status(500));
    online(&bench).await;
    let letters = bench.dead(1).await;
    let letter = &letters[0];
    assert_eq!(
        (
            letter.reason.as_str(),
            letter.stage.as_deref(),
            letter.detail.as_deref()
        ),
        ("callback_gave_up", Some("callback"), Some("the answer was 500"))
    );
    let resume = command_id("d", "o", 1, Action::Resume);
    assert_eq!(letter.envelope.message_id, resume);
    assert_eq!(letter.envelope.body, receiver.calls()[1].body);
    let mut origins = Vec::new();
    let visit = |letter: dead_letter::DeadLetter| {
        origins.push(format!("{:?} {}", letter.origin, letter.routing_key));
        std::ops::ControlFlow::Continue(())
    };
    dead_letter::list(&bench.urls(), "test", 10, visit).await.unwrap();
    assert_eq!(origins, ["Callback resume.snapshot"]);
    bench.nothing_owed().await;
    assert_eq!(worker.device("d").await["operations"][0]["state"], "resuming");
    assert_eq!(receiver.calls().len(), 2);
    let given_up = r#"porchlight_worker_commands_total{action="resume",result="given_up"}"#;
    assert_eq!(worker.sum(given_up).await, 1.0);
    worker.stop().await.unwrap();
}

/// Longer than a command is another worker's business after it was made owed, or claimed, where calls are short.
#[tokio::test]
async fn a_receiver_that_takes_its_time_is_not_called_by_another_worker_meanwhile() {
    let bench = Bench::start().await;
    let receiver = Receiver::start().await.unwrap();
    receiver.answer(Answering::Slowly(Duration::from_secs(8)));
    let mut settings = callback(&receiver.url("/"));
    settings.timeout = Duration::from_secs(30);
    let mut setup = Setup {
        callback: Some(settings.clone()),
        ..Setup::default()
    };
    // What is due is claimed by the other one alone.
    setup.work.sweep_interval = FOREVER;
    let first = bench.start(setup);
    first.ready().await;
    register(&first, "o", "snapshot").await;
    offline(&bench).await;
    receiver.wait_calls(1, PATIENCE).await.unwrap();
    let second = start(&bench, settings).await;
    bench.nothing_owed().await;
    assert_eq!(receiver.calls().len(), 1);
    first.stop().await.unwrap();
    second.stop().await.unwrap();
}

/// The receiver has said yes, and the ledger never hears of it.
#[tokio::test]
async fn a_worker_killed_between_call_and_confirmation_calls_again_under_the_same_identity() {
    let mut bench = Bench::start().await;
    let receiver = Receiver::start().await.unwrap();
    // The binary declares tiers of another length than the bench, so it gets a virtual host of its own.
    bench.vhost = bench.broker.vhost().await.unwrap();
    let url = bench.broker.url_for_vhost(&bench.vhost);
    let relay = Relay::start(bench.redis.address()).await.unwrap();
    let (first, admin) = binary(&url, &Redis::url_at(relay.address()), &receiver).await;
    let config = PublisherConfig::new(BrokerUrls::parse(&url).unwrap(), "test");
    bench.publisher = Publisher::start(config, CancellationToken::new());
    bench
        .publisher
        .state()
        .wait_for(|state| state.is_ready())
        .await
        .unwrap();
    let worker = Running {
        admin,
        stop: CancellationToken::new(),
        task: tokio::spawn(async { Ok(()) }),
    };
    register(&worker, "o", "snapshot").await;
    receiver.answer(Answering::Slowly(Duration::from_secs(1)));
    offline(&bench).await;
    receiver.wait_calls(1, PATIENCE).await.unwrap();
    relay.drop_bytes(Direction::ToServer);
    let delivered =
        r#"porchlight_worker_callback_attempts_total{receiver="default",action="pause",result="delivered"}"#;
    worker.wait_sum(delivered, 1.0).await;
    first.kill9();
    receiver.answer(Answering::Status(204));
    let (second, _) = binary(&url, &bench.redis.url(), &receiver).await;
    bench.nothing_owed().await;
    let calls = receiver.calls();
    assert!(calls.len() >= 2 && ids(&calls).len() == 1, "{calls:?}");
    assert!(second.terminate(PATIENCE).await.unwrap().success());
    for daemon in [first, second] {
        let log = daemon.logs();
        assert!(!log.contains("hush") && !log.contains("whsec_"), "{log}");
    }
}

async fn binary(amqp_url: &str, redis_url: &str, receiver: &Receiver) -> (Daemon, std::net::SocketAddr) {
    let admin = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let daemon = Daemon::of("porchlight-worker")
        .env("PORCHLIGHT_AMQP_URL", amqp_url)
        .env("PORCHLIGHT_REDIS_URL", redis_url)
        .env("PORCHLIGHT_ADMIN_LISTEN", admin.to_string())
        .env("PORCHLIGHT_ADMIN_TOKEN", "a-token-for-the-tests")
        .env("PORCHLIGHT_CALLBACK_URL", receiver.url("/?token=hush"))
        .env("PORCHLIGHT_CALLBACK_SECRET", SECRETS[0])
        // Who is killed has no longer than a call to be waited for.
        .env("PORCHLIGHT_CALLBACK_TIMEOUT", "3s")
        .start()
        .unwrap();
    let ready = daemon.ready(PATIENCE, async || {
        match porchlight_testbed::http::get(admin, "/readyz").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    ready.await.unwrap();
    (daemon, admin)
}
