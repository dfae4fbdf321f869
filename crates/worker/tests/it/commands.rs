//! Commands as a partner's service receives them: each owed one, under one identity.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use porchlight_broker::topology;
use porchlight_device::command::command_id;
use porchlight_device::{Action, News, Registration};
use porchlight_event::RingEvent;
use porchlight_testbed::redis::Reply;
use porchlight_testbed::wait_for;
use serde_json::json;

use crate::harness::{Form, PATIENCE, Received, Setup, body, body_with, in_every_form, now_ms};
use crate::servers::Bench;

fn identities(received: &[Received]) -> BTreeSet<String> {
    received
        .iter()
        .map(|command| command.message_id.clone())
        .collect()
}

fn offline(devices: &[impl AsRef<str>], at: i64) -> Vec<News> {
    let bodies = devices
        .iter()
        .map(|device| body("device_offline", device.as_ref(), at));
    bodies
        .map(|body| News::new(&RingEvent::parse(&body).unwrap(), at).unwrap())
        .collect()
}

in_every_form!(
    offline_pauses_and_online_resumes_once_however_often_they_come,
    an_operation_registered_on_an_offline_device_is_paused_at_once,
    the_sweeper_sends_what_the_fast_path_lost,
    a_removed_account_cancels_the_operations_of_all_its_devices,
    a_resume_waits_until_the_device_has_settled,
);

async fn offline_pauses_and_online_resumes_once_however_often_they_come(bench: impl Form) {
    let worker = bench.worker().await;
    assert_eq!(worker.register("d", "o").await.status, 201);
    let at = now_ms() - 60_000;
    for _ in 0..3 {
        bench.publish_all([body("device_offline", "d", at)]).await;
    }
    bench.drained().await;
    for n in 0..3 {
        bench
            .publish_all([body_with("device_online", "d", at + 1, &format!("again-{n}"))])
            .await;
        bench.publish_all([body("device_offline", "d", at - 1)]).await;
    }
    bench.drained().await;
    let received = bench.commands(|all| identities(all).len() == 2).await;
    assert_eq!(received.len(), 2, "{received:?}");
    let [pause, resume] = &received[..] else {
        panic!("two commands")
    };
    assert_eq!(
        (pause.body["action"].as_str(), resume.body["action"].as_str()),
        (Some("pause"), Some("resume"))
    );
    for command in [pause, resume] {
        let action = Action::from_code(command.body["action"].as_str().unwrap()).unwrap();
        assert_eq!(command.message_id, command_id("d", "o", 1, action));
        assert_eq!(command.body["id"].as_str(), Some(command.message_id.as_str()));
        assert_eq!(
            command.body["operation"],
            json!({"id": "o", "kind": "snapshot", "params": {"a": 1}})
        );
        assert_eq!(
            (&command.body["device_id"], &command.body["generation"]),
            (&json!("d"), &json!(1))
        );
    }
    assert_eq!(resume.body["cause"]["type"], "device_online");
    bench.nothing_owed().await;
    assert_eq!(worker.device("d").await["operations"][0]["state"], "running");
    worker.stop().await.unwrap();
}

async fn an_operation_registered_on_an_offline_device_is_paused_at_once(bench: impl Form) {
    let worker = bench.worker().await;
    bench
        .publish_all([body("device_offline", "d", now_ms() - 1000)])
        .await;
    bench.drained().await;
    assert_eq!(worker.register("d", "o").await.json().unwrap()["state"], "paused");
    let received = bench.commands(|all| !all.is_empty()).await;
    assert_eq!(received[0].body["action"], "pause");
    assert_eq!(received[0].body["cause"]["type"], "registration");
    worker.stop().await.unwrap();
}

async fn the_sweeper_sends_what_the_fast_path_lost(bench: impl Form) {
    let worker = bench.worker().await;
    for n in 0..20 {
        worker.register(&format!("d{n}"), "o").await;
    }
    // A worker that dies right after the ledger has answered: its commands are owed, and nobody sends them.
    let at = now_ms() - 1000;
    let devices: Vec<_> = (0..20).map(|n| format!("d{n}")).collect();
    let events = offline(&devices, at);
    let decisions = bench.ledger().apply_batch(0, &events, now_ms()).await;
    assert!(
        decisions
            .iter()
            .all(|decision| decision.as_ref().unwrap().commands.len() == 1)
    );
    let received = bench.commands(|all| identities(all).len() == 20).await;
    assert!(received.iter().all(|command| command.body["action"] == "pause"));
    bench.nothing_owed().await;
    worker.stop().await.unwrap();
}

async fn a_removed_account_cancels_the_operations_of_all_its_devices(bench: impl Form) {
    let worker = bench.worker().await;
    let at = now_ms() - 60_000;
    bench
        .publish_all((0..150).map(|n| body("device_online", &format!("d{n}"), at)))
        .await;
    bench.drained().await;
    for n in 0..150 {
        assert_eq!(worker.register(&format!("d{n}"), "o").await.status, 201);
    }
    bench
        .publish_all([body("app_integration_removed", "unused", at + 10)])
        .await;
    let received = bench.commands(|all| identities(all).len() == 150).await;
    assert!(received.iter().all(|command| command.body["action"] == "cancel"));
    bench.nothing_owed().await;
    let device = worker.device("d7").await;
    assert_eq!(
        (&device["status"], &device["operations"][0]["state"]),
        (&json!("removed"), &json!("cancelled"))
    );
    worker.stop().await.unwrap();
}

async fn a_resume_waits_until_the_device_has_settled(bench: impl Form) {
    let mut setup = Setup::default();
    setup.work.settle = Duration::from_secs(3600);
    let worker = bench.start(setup);
    worker.ready().await;
    worker.register("d", "o").await;
    let at = now_ms() - 60_000;
    // One after the other: batches are applied side by side, and an offline that comes second is old news.
    for (kind, at, wanted) in [
        ("device_offline", at, "paused"),
        ("device_online", at + 1, "resuming"),
    ] {
        bench.publish_all([body(kind, "d", at)]).await;
        let moved = wait_for(wanted, PATIENCE, async || {
            let device = worker.device("d").await;
            let state = device["operations"][0]["state"].as_str().unwrap();
            (state == wanted).then_some(()).ok_or_else(|| state.to_owned())
        });
        moved.await.unwrap();
    }
    bench.drained().await;
    // A full look of the sweeper later there is still no resume.
    let swept = worker.sum("porchlight_worker_owed_oldest_seconds").await;
    worker
        .wait_sum("porchlight_worker_owed_oldest_seconds", swept + 1.0)
        .await;
    assert_eq!(
        worker
            .sum("porchlight_worker_commands_total{action=\"resume\"")
            .await,
        0.0
    );
    worker.stop().await.unwrap();
}

/// An entry that nobody can read stays where it is and holds up nothing but itself, not even in its own partition.
#[tokio::test]
async fn an_owed_command_that_cannot_be_read_holds_up_no_other() {
    let bench = Bench::start().await;
    let (ledger, at) = (bench.ledger(), now_ms() - 1000);
    let operations = [("d1", "o1"), ("d1", "o2"), ("d2", "o1"), ("d3", "o1")];
    for (device, operation) in operations {
        let registration = Registration {
            operation_id: operation.to_owned(),
            account_id: None,
            kind: "snapshot".to_owned(),
            params: "null".to_owned(),
        };
        ledger.register(device, &registration, at).await.unwrap();
    }
    let events = offline(&["d1", "d2", "d3"], at);
    for applied in ledger.apply_batch(0, &events, at).await {
        applied.unwrap();
    }
    let command = |words: &[&str]| match bench.redis.command(words).unwrap() {
        Reply::List(found) => found,
        other => panic!("{other:?}"),
    };
    let text = |reply: &Reply| match reply {
        Reply::Bytes(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        other => panic!("{other:?}"),
    };
    let outboxes: Vec<_> = command(&["KEYS", "porchlight:*:ob"]).iter().map(text).collect();
    let of_two = outboxes
        .iter()
        .find(|key| command(&["HKEYS", key]).len() == 2)
        .unwrap();
    let spoilt = text(&command(&["HKEYS", of_two])[0]);
    bench
        .redis
        .command(&["HSET", of_two, &spoilt, "no command"])
        .unwrap();
    let worker = bench.worker().await;
    let received = bench.commands(|all| identities(all).len() == 3).await;
    assert!(received.iter().all(|command| command.body["action"] == "pause"));
    assert_eq!(worker.call("GET", "/readyz", "").await.status, 200);
    worker.stop().await.unwrap();
}

/// Events of many devices, each sent three times in random order, over two workers: the final status of each device
/// is that of its newest event, and each owed command came under one identity.
#[tokio::test]
async fn two_workers_at_once_agree() {
    let bench = Bench::start().await;
    let workers = [bench.worker().await, bench.worker().await];
    let (devices, flaps) = (60, 6);
    for n in 0..devices {
        workers[n % 2].register(&format!("d{n}"), "o").await;
    }
    let at = now_ms() - 600_000;
    let kind = |flap: i64| {
        if flap % 2 == 0 {
            "device_offline"
        } else {
            "device_online"
        }
    };
    // The last flap of the even devices is left out, so that they end offline.
    let last = |device: usize| {
        if device.is_multiple_of(2) {
            flaps - 1
        } else {
            flaps
        }
    };
    let mut bodies: Vec<_> = (0..devices)
        .flat_map(|n| (0..last(n)).map(move |flap| body(kind(flap), &format!("d{n}"), at + flap)))
        .flat_map(|body| [body.clone(), body.clone(), body])
        .collect();
    fastrand::shuffle(&mut bodies);
    bench.publish_all(bodies).await;
    bench.drained().await;
    bench.nothing_owed().await;
    let mut newest: BTreeMap<String, (u64, Action)> = BTreeMap::new();
    let queued = bench.queue_of(topology::COMMANDS).await.unwrap().ready;
    // One that was overtaken on its way may still arrive.
    let received = bench.commands(|all| all.len() as u64 >= queued).await;
    for command in &received {
        let [device, generation] = ["device_id", "generation"].map(|field| command.body[field].clone());
        let (device, generation) = (device.as_str().unwrap(), generation.as_u64().unwrap());
        let action = Action::from_code(command.body["action"].as_str().unwrap()).unwrap();
        assert_eq!(command.message_id, command_id(device, "o", generation, action));
        let known = newest.entry(device.to_owned()).or_insert((generation, action));
        *known = (*known).max((generation, action));
    }
    for n in 0..devices {
        let (shown, offline) = (workers[0].device(&format!("d{n}")).await, n.is_multiple_of(2));
        let (status, state, action) = if offline {
            ("offline", "paused", Action::Pause)
        } else {
            ("online", "running", Action::Resume)
        };
        let operation = &shown["operations"][0];
        assert_eq!(
            (&shown["status"], &operation["state"]),
            (&json!(status), &json!(state)),
            "d{n}"
        );
        // Whoever follows the commands in order of (generation, action) ends where the ledger ended. A device that
        // was never offline, because its last event came first, owes nothing.
        let generation = operation["generation"].as_u64().unwrap();
        let wanted = (generation > 0).then_some((generation, action));
        assert_eq!(newest.remove(&format!("d{n}")), wanted, "d{n}");
    }
    assert_eq!(newest, BTreeMap::new(), "commands for others");
    for worker in workers {
        worker.stop().await.unwrap();
    }
}
