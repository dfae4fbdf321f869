//! `status` with both servers, with one, and with none.

use porchlight_testbed::{RabbitMq, Redis, free_port};

use crate::tool::run;

#[tokio::test]
async fn a_fresh_broker_and_ledger_are_shown_with_what_is_missing() {
    let node = RabbitMq::shared().await;
    let vhost = node.vhost().await.unwrap();
    let amqp = node.url_for_vhost(&vhost);
    let redis = Redis::start().await.unwrap();
    let url = redis.url();
    let servers = [
        ("PORCHLIGHT_AMQP_URL", amqp.as_str()),
        ("PORCHLIGHT_REDIS_URL", url.as_str()),
    ];
    let status = run(&["status", "--json"], &servers).await.expect(0).json();
    assert_eq!(status["rabbitmq"]["state"][0]["name"], "porchlight.events");
    assert_eq!(status["rabbitmq"]["state"][0]["exists"], false);
    assert_eq!(status["redis"]["state"]["devices"]["online"], 0);
    let text = run(&["status"], &servers).await.expect(0).stdout;
    assert!(
        text.contains("needs attention:") && text.lines().all(|line| line.len() <= 80),
        "{text}"
    );
    run(&["status", "--check"], &servers).await.expect(1);
}

#[tokio::test]
async fn one_server_down_is_named_and_the_other_is_still_shown() {
    let redis = Redis::start().await.unwrap();
    let url = redis.url();
    let away = format!("amqp://guest:hunter2@127.0.0.1:{}/%2f", free_port());
    let servers = [
        ("PORCHLIGHT_AMQP_URL", away.as_str()),
        ("PORCHLIGHT_REDIS_URL", url.as_str()),
    ];
    let ran = run(&["status"], &servers).await.expect(69);
    assert!(ran.stdout.contains("commands owed      0"), "{ran:?}");
    assert!(
        ran.stderr.contains("RabbitMQ: ") && !format!("{ran:?}").contains("hunter2"),
        "{ran:?}"
    );
    let status = run(&["status", "--json"], &servers).await.expect(69).json();
    assert!(
        status["rabbitmq"]["error"].is_string() && status["redis"]["error"].is_null(),
        "{status}"
    );
}
