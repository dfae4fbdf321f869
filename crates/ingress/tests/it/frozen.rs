//! A broker that stops confirming: what waits is answered in time, and what was confirmed is answered 200.

use std::time::{Duration, Instant};

use porchlight_service::stop::Drained;
use porchlight_testbed::http::get;
use porchlight_testbed::{RabbitMq, wait_for};

use crate::support::{BODY, Ingress, SOON, failed, signed, told};

/// Longer than a broker takes to declare quorum queues on a busy machine.
const BROKER_READY: Duration = Duration::from_secs(60);

async fn start(broker: &RabbitMq, flags: &[&str]) -> Ingress {
    let url = broker.url();
    let ingress = Ingress::start(&[&["--amqp-url", &url], flags].concat()).await;
    wait_for("ready", BROKER_READY, async || {
        let answer = get(ingress.admin, "/readyz")
            .await
            .map_err(|error| error.to_string())?;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer.text())
        }
    })
    .await
    .unwrap();
    ingress
}

#[tokio::test]
async fn answers_wait_for_the_confirm_but_not_for_ever() {
    let broker = RabbitMq::start().await.unwrap();
    let ingress = start(&broker, &["--shutdown-grace", "60s"]).await;
    let hasty = start(&broker, &["--answer-timeout", "1s", "--head-timeout", "1s"]).await;
    let stored = ingress.send(&signed(BODY)).await;
    assert_eq!(stored.status, 200);
    let id = porchlight_event::ids::message_id(BODY);
    assert_eq!(stored.text(), format!(r#"{{"status":"stored","id":"{id}"}}"#));

    // One client keeps its sending side open, one ends it, one goes away; the first two get their answers.
    broker.pause();
    let mut open = ingress.connect().await;
    let mut half = ingress.connect().await;
    let mut gone = ingress.connect().await;
    for connection in [&mut open, &mut half, &mut gone] {
        connection.send(&signed(BODY)).await.unwrap();
    }
    half.finish_sending().await.unwrap();
    ingress.counts("porchlight_ingress_inflight_publishes 3").await;
    drop(gone);
    broker.resume();
    assert_eq!(open.response().await.unwrap().status, 200);
    assert_eq!(half.response().await.unwrap().status, 200);
    ingress.counts("porchlight_ingress_inflight_publishes 0").await;

    broker.pause();
    let began = Instant::now();
    let late = hasty.send(&signed(BODY)).await;
    assert_eq!(told(&late), failed(503, "confirm_timeout"));
    assert!(
        began.elapsed() < Duration::from_millis(4500),
        "{:?}",
        began.elapsed()
    );
    broker.resume();
    hasty.counts("porchlight_ingress_confirms_late_total 1").await;
    hasty.counts("porchlight_ingress_inflight_publishes 0").await;

    // A stop waits for the confirm that a request waits for.
    broker.pause();
    open.send(&signed(BODY)).await.unwrap();
    ingress.counts("porchlight_ingress_inflight_publishes 1").await;
    ingress.stop.cancel();
    wait_for("not ready", SOON, async || {
        if ingress.not_ready_for("stopping").await {
            Ok(())
        } else {
            Err("ready".to_owned())
        }
    })
    .await
    .unwrap();
    broker.resume();
    assert_eq!(open.response().await.unwrap().status, 200);
    assert!(matches!(ingress.ended.await.unwrap(), Drained::Met { .. }));
}
