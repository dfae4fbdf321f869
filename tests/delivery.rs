//! Events that arrive as they should, twice, late, out of order, and after a removal: what they come to.

use porchlight_event::sample::SAMPLES;
use porchlight_testbed::{http, wait_for};
use serde_json::{Value, json};

use crate::support::{PATIENCE, Pipeline, Plan, WEBHOOK, event, now_ms};

const DEVICE: &str = "ava1.ring.device.GPBGLFYKSWL2MZQ7N4VTX3RDHA";
const ACCOUNT: &str = "ava1.ring.account.K7Q2MZ4VYH3LTB5NWXDE6RFA";

fn sample(name: &str) -> &'static [u8] {
    SAMPLES
        .iter()
        .find(|(file, _)| *file == format!("{name}.json"))
        .unwrap()
        .1
        .as_bytes()
}

/// The outcomes in the device's history, oldest first.
fn outcomes(device: &Value) -> Vec<(String, String)> {
    let entries = device["history"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    entries
        .iter()
        .rev()
        .map(|entry| (text(&entry["type"]), text(&entry["outcome"])))
        .collect()
}

async fn wait_for_history(pipeline: &Pipeline, device: &str, wanted: &[(&str, &str)]) {
    wait_for("the device's history", PATIENCE, async || {
        let seen = outcomes(&pipeline.device(device).await);
        let same = seen
            .iter()
            .map(|(kind, outcome)| (kind.as_str(), outcome.as_str()))
            .eq(wanted.iter().copied());
        if same { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_of_rings_is_accepted_and_comes_to_what_its_type_says() {
    let pipeline = Pipeline::start(Plan::default()).await;
    let vectors: Value = serde_json::from_str(include_str!("../crates/event/fixtures/vectors.json")).unwrap();
    let mut history = Vec::new();
    // One after the other, so that the history shows them in this order. The removal among the samples is older
    // than their offline and online news, yet newer than the addition, so it still fences the device.
    for (name, outcome) in [
        ("device_added", "applied"),
        ("motion_detected", "recorded"),
        ("device_offline", "applied"),
        ("device_online", "applied"),
        ("button_press", "recorded"),
        ("device_removed", "applied"),
    ] {
        let row = vectors["vectors"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["file"] == format!("{name}.json"));
        let headers = [("X-Signature", row.unwrap()["x_signature"].as_str().unwrap())];
        let listen = pipeline.ingresses[0].listen;
        let answer = http::request(listen, "POST", WEBHOOK, &headers, sample(name))
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        history.push((name, outcome));
        wait_for_history(&pipeline, DEVICE, &history).await;
    }
    for name in [
        "subscription_activated",
        "subscription_deactivated",
        "app_integration_added",
    ] {
        pipeline.accept(sample(name)).await;
    }
    pipeline.accept(sample("app_integration_removed")).await;
    pipeline.settle().await;
    let device = pipeline.device(DEVICE).await;
    assert_eq!(
        (&device["status"], &device["account_id"]),
        (&json!("removed"), &json!(ACCOUNT))
    );
    assert_eq!(pipeline.broker.ready("porchlight.dead").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_and_online_pause_and_resume_a_registered_operation_under_one_identity_each() {
    let pipeline = Pipeline::start(Plan {
        ingresses: 2,
        workers: 2,
        ..Plan::default()
    })
    .await;
    pipeline.register(DEVICE, "nightly", Some(ACCOUNT)).await;
    for _ in 0..4 {
        for name in [
            "device_online",
            "device_offline",
            "device_offline",
            "device_online",
        ] {
            pipeline.accept(sample(name)).await;
        }
    }
    pipeline.settle().await;
    let device = pipeline.device(DEVICE).await;
    assert_eq!(device["status"], "online");
    let operation = &device["operations"][0];
    assert_eq!(operation["state"], "running", "{device}");
    let resumes: Vec<_> = pipeline
        .commands()
        .await
        .into_values()
        .filter(|(_, sent)| sent.body["action"] == "resume")
        .collect();
    let generation = operation["generation"].as_u64().unwrap();
    assert_eq!(
        resumes.len() as u64,
        generation,
        "one resume for each pause period and none without one"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_resume_command_arrives_however_often_the_events_come() {
    let pipeline = Pipeline::start(Plan::default()).await;
    pipeline.register(DEVICE, "nightly", Some(ACCOUNT)).await;
    pipeline.accept(sample("device_offline")).await;
    pipeline.settle().await;
    assert_eq!(pipeline.device(DEVICE).await["operations"][0]["state"], "paused");
    for _ in 0..10 {
        pipeline.accept(sample("device_online")).await;
        pipeline.accept(sample("device_offline")).await;
    }
    pipeline.settle().await;
    let commands = pipeline.commands().await;
    let mut actions: Vec<_> = commands
        .values()
        .map(|(_, sent)| sent.routing_key.clone())
        .collect();
    actions.sort();
    assert_eq!(actions, ["pause.snapshot", "resume.snapshot"]);
    let (times, resume) = commands
        .values()
        .find(|(_, sent)| sent.body["action"] == "resume")
        .unwrap();
    assert_eq!(*times, 1, "nothing failed, so nothing was sent twice");
    assert_eq!(resume.body["cause"]["type"], "device_online");
    assert_eq!(resume.body["operation"]["params"], json!({ "n": 1 }));
    assert_eq!(resume.body["account_id"], ACCOUNT);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_news_is_stale_and_the_same_id_with_another_type_is_another_event() {
    let pipeline = Pipeline::start(Plan::default()).await;
    let now = now_ms();
    pipeline.accept(&event("device_online", "d-late", "a", now)).await;
    wait_for_history(&pipeline, "d-late", &[("device_online", "applied")]).await;
    pipeline
        .accept(&event("device_offline", "d-late", "a", now - 1000))
        .await;
    wait_for_history(
        &pipeline,
        "d-late",
        &[("device_online", "applied"), ("device_offline", "stale")],
    )
    .await;
    assert_eq!(pipeline.device("d-late").await["status"], "online");

    let twin = |kind: &str| {
        json!({
            "meta": { "time": "2026-02-13T23:32:51Z", "request_id": format!("r-{kind}") },
            "data": { "id": "one-id", "type": kind, "attributes": {
                "source": "d-twin", "source_type": "devices", "timestamp": "1771025567000" } },
        })
        .to_string()
    };
    pipeline.accept(twin("device_offline").as_bytes()).await;
    wait_for_history(&pipeline, "d-twin", &[("device_offline", "applied")]).await;
    pipeline.accept(twin("device_online").as_bytes()).await;
    wait_for_history(
        &pipeline,
        "d-twin",
        &[("device_offline", "applied"), ("device_online", "applied")],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_device_refuses_news_until_it_is_added_and_its_operations_are_cancelled() {
    let pipeline = Pipeline::start(Plan::default()).await;
    let now = now_ms();
    pipeline.register("d-gone", "live", Some("a")).await;
    let mut history = Vec::new();
    for (kind, at, outcome) in [
        ("device_online", -90_000, "applied"),
        ("device_removed", -60_000, "applied"),
        ("device_offline", -70_000, "refused"),
        ("device_offline", -50_000, "refused"),
        ("device_added", -40_000, "applied"),
        ("device_online", -30_000, "applied"),
    ] {
        pipeline.accept(&event(kind, "d-gone", "a", now + at)).await;
        history.push((kind, outcome));
        wait_for_history(&pipeline, "d-gone", &history).await;
    }
    pipeline.settle().await;
    let device = pipeline.device("d-gone").await;
    assert_eq!(
        (&device["status"], &device["operations"][0]["state"]),
        (&json!("online"), &json!("cancelled"))
    );
    let actions: Vec<_> = pipeline
        .commands()
        .await
        .into_values()
        .map(|(_, sent)| sent.routing_key)
        .collect();
    assert_eq!(actions, ["cancel.snapshot"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_account_takes_all_its_devices_with_it_and_comes_back_with_its_addition() {
    let pipeline = Pipeline::start(Plan {
        workers: 2,
        ..Plan::default()
    })
    .await;
    let now = now_ms();
    let devices: Vec<_> = (0..30).map(|n| format!("d-acct-{n}")).collect();
    for device in &devices {
        pipeline.register(device, "live", Some("acct-gone")).await;
        pipeline
            .accept(&event("device_online", device, "acct-gone", now - 90_000))
            .await;
    }
    pipeline
        .accept(&event("device_online", "d-other", "acct-stays", now - 90_000))
        .await;
    pipeline.settle().await;
    pipeline
        .accept(&event("app_integration_removed", "", "acct-gone", now - 60_000))
        .await;
    wait_for("every device removed", PATIENCE, async || {
        let page = pipeline
            .api("GET", "/v1/devices?account=acct-gone&status=removed", None)
            .await
            .json()
            .unwrap();
        let count = page["devices"].as_array().map_or(0, Vec::len);
        if count == devices.len() {
            Ok(())
        } else {
            Err(page.to_string())
        }
    })
    .await
    .unwrap();
    assert_eq!(pipeline.device("d-other").await["status"], "online");
    pipeline.settle().await;
    let commands = pipeline.commands().await;
    assert_eq!(commands.len(), devices.len());
    assert!(
        commands
            .values()
            .all(|(_, sent)| sent.routing_key == "cancel.snapshot")
    );

    pipeline
        .accept(&event("app_integration_added", "", "acct-gone", now - 50_000))
        .await;
    // Two workers take them side by side, and news of a device of a removed account is refused.
    pipeline.settle().await;
    pipeline
        .accept(&event("device_offline", &devices[0], "acct-gone", now - 40_000))
        .await;
    wait_for("the device's news to count again", PATIENCE, async || {
        let device = pipeline.device(&devices[0]).await;
        if device["status"] == "offline" {
            Ok(())
        } else {
            Err(device.to_string())
        }
    })
    .await
    .unwrap();
}
