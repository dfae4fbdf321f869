//! The outage clock over a real broker that goes away and comes back, and over a restart.

use std::time::Duration;

use porchlight_ingress::Settings;
use porchlight_testbed::http::get;
use porchlight_testbed::{RabbitMq, Relay, wait_for};
use serde_json::Value;

use crate::support::{BODY, Ingress, signed};

/// Longer than a broker takes to declare quorum queues on a busy machine.
const BROKER_READY: Duration = Duration::from_secs(60);
/// From the first attempt to the last one, and until Ring forgets, in milliseconds.
const LADDER_MS: i64 = 4_356_000;
const KEPT_MS: i64 = 259_200_000;

fn hastened(settings: &mut Settings) {
    let quiet = Duration::from_millis(500);
    settings.edge.hasten(quiet, Duration::ZERO, Duration::ZERO);
}

async fn page(ingress: &Ingress) -> Value {
    get(ingress.admin, "/outages").await.unwrap().json().unwrap()
}

/// Sends signed events until one is answered so.
async fn is_answered(ingress: &Ingress, status: u16) {
    wait_for(&format!("an answer {status}"), BROKER_READY, async || {
        let answer = ingress.send(&signed(BODY)).await;
        if answer.status == status {
            Ok(())
        } else {
            Err(answer.text())
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_outage_of_the_broker_is_told_in_rings_terms_and_ends_with_the_first_event_that_is_stored() {
    let node = RabbitMq::shared().await;
    let vhost = node.vhost().await.unwrap();
    let relay = Relay::start(node.address()).await.unwrap();
    let url = RabbitMq::url_at(relay.address(), &vhost);
    let flags = ["--signing-keys", "test=k1", "--amqp-url", &url];
    let ingress = Ingress::start_changed(&flags, hastened).await;
    // An event that came before the connection to the broker would be an outage of its own.
    wait_for("ready", BROKER_READY, async || {
        match get(ingress.admin, "/readyz").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    is_answered(&ingress, 200).await;
    let none = page(&ingress).await;
    assert_eq!(
        (&none["is_on"], none["outages"].as_array().map(Vec::len)),
        (&false.into(), Some(0))
    );

    relay.refuse(true);
    relay.cut();
    is_answered(&ingress, 503).await;
    is_answered(&ingress, 503).await;
    ingress.counts("porchlight_ingress_outage 1").await;
    assert!(ingress.not_ready_for(r#""code":"outage""#).await);
    let shown = page(&ingress).await;
    let outage = &shown["outages"][0];
    let started = outage["started_at_ms"].as_i64().unwrap();
    assert_eq!(shown["is_on"], true);
    assert_eq!(shown["webhook_path"], "/webhooks/ring");
    assert_eq!(outage["first_loss_at_ms"].as_i64(), Some(started + LADDER_MS));
    assert_eq!(
        outage["forgotten_at_ms"].as_i64(),
        Some(started + LADDER_MS + KEPT_MS)
    );
    assert!(
        outage["answers_5xx"].as_u64() >= Some(2) && outage["ended_at_ms"].is_null(),
        "{outage}"
    );
    let first_loss = format!(
        "porchlight_ingress_outage_first_loss_timestamp_seconds {}",
        (started + LADDER_MS) / 1_000
    );
    ingress.counts(&first_loss).await;

    relay.pass();
    is_answered(&ingress, 200).await;
    ingress.counts("porchlight_ingress_outage 0").await;
    ingress
        .counts("porchlight_ingress_outage_started_timestamp_seconds 0")
        .await;
    let shown = page(&ingress).await;
    let outages = shown["outages"].as_array().unwrap();
    assert_eq!((outages.len(), &shown["is_on"]), (1, &false.into()));
    assert!(outages[0]["ended_at_ms"].as_i64() > Some(started), "{shown}");
    assert!(!ingress.not_ready_for(r#""code":"outage""#).await);
}

#[tokio::test]
async fn an_outage_goes_on_over_a_restart_where_there_is_a_directory_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let flags = [
        "--signing-keys",
        "test=k1",
        "--data-dir",
        directory.path().to_str().unwrap(),
    ];
    // A spool that takes nothing, so that a broker that is away is an outage.
    let start = || {
        Ingress::start_changed(&flags, |settings| {
            settings.spool.as_mut().unwrap().bytes_max = 1;
        })
    };
    let first = start().await;
    is_answered(&first, 503).await;
    let written = directory.path().join(porchlight_ingress::outage::FILE_NAME);
    wait_for("the outage in a file", BROKER_READY, async || {
        std::fs::metadata(&written)
            .map(drop)
            .map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    let started = page(&first).await["outages"][0]["started_at_ms"].clone();
    first.stop.cancel();
    let _ = first.ended.await.unwrap();

    let second = start().await;
    second.counts("porchlight_ingress_outage 1").await;
    let shown = page(&second).await;
    assert_eq!(
        (&shown["is_on"], &shown["outages"][0]["started_at_ms"]),
        (&true.into(), &started)
    );
}
