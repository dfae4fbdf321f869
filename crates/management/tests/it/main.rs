//! The API of a real broker, private to the test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, SystemTime};

use porchlight_management::{AskError, Management, ManagementUrl};
use porchlight_testbed::{RabbitMq, free_port, wait_for};

const TIMEOUT: Duration = Duration::from_secs(60);
/// How far apart two readings of one machine's clock may seem that were taken one after the other; the API rounds to
/// seconds.
const CLOCK_STEP: Duration = Duration::from_secs(5);

async fn management() -> (&'static RabbitMq, Management) {
    let broker = RabbitMq::shared().await;
    let url = broker.management_url().await.unwrap();
    (
        broker,
        Management::new(ManagementUrl::parse(&url).unwrap(), TIMEOUT).unwrap(),
    )
}

/// Declares a queue and puts one message of three bytes into it.
async fn fill(broker: &RabbitMq, vhost: &str, queue: &str) {
    let expression = format!(
        "{{ok, C}} = amqp_connection:start({{amqp_params_direct, <<\"guest\">>, none, <<\"{vhost}\">>, node(), none, []}}), \
         {{ok, Ch}} = amqp_connection:open_channel(C), \
         Args = [{{<<\"x-queue-type\">>, longstr, <<\"quorum\">>}}, {{<<\"x-delivery-limit\">>, signedint, 20}}], \
         amqp_channel:call(Ch, {{'queue.declare', 0, <<\"{queue}\">>, false, true, false, false, false, Args}}), \
         amqp_channel:call(Ch, {{'confirm.select', false}}), \
         Props = {{'P_basic', undefined, undefined, undefined, 2, undefined, undefined, undefined, undefined, \
           undefined, undefined, undefined, undefined, undefined, undefined}}, \
         amqp_channel:call(Ch, {{'basic.publish', 0, <<>>, <<\"{queue}\">>, false, false}}, {{amqp_msg, Props, <<\"abc\">>}}), \
         true = amqp_channel:wait_for_confirms(Ch, 25), amqp_connection:close(C), []"
    );
    broker.eval(&expression).await.unwrap();
}

fn bind(vhost: &str, exchange: &str, queue: &str) -> String {
    let name = |kind: &str, name: &str| format!("rabbit_misc:r(<<\"{vhost}\">>, {kind}, <<\"{name}\">>)");
    format!(
        "ok = rabbit_binding:add({{binding, {}, <<>>, {}, []}}, <<\"test\">>), []",
        name("exchange", exchange),
        name("queue", queue)
    )
}

#[tokio::test]
async fn queues_are_told_with_figures_arguments_and_the_policy_in_force() {
    let (broker, management) = management().await;
    let vhost = broker.vhost().await.unwrap();
    broker
        .set_policy(&vhost, "short", "^ours", r#"{"max-length": 5}"#)
        .await
        .unwrap();
    for queue in ["ours.a", "ours.b", "oursXa"] {
        fill(broker, &vhost, queue).await;
    }
    let figures = wait_for("the figures of both queues", TIMEOUT, async || {
        let queues = management
            .queues(&vhost, "ours.")
            .await
            .map_err(|error| error.to_string())?;
        // Figures and policy come with the first gathering, which may have been before the message.
        let complete = queues.iter().all(|queue| {
            let figures = (queue.ready, queue.unacked, queue.consumers, queue.bytes);
            figures == (Some(1), Some(0), Some(0), Some(3)) && queue.policy.is_some()
        });
        if complete && queues.len() == 2 {
            Ok(queues)
        } else {
            Err(format!("{queues:?}"))
        }
    });
    let queues = figures.await.unwrap();
    let queue = queues.iter().find(|queue| queue.name == "ours.a").unwrap();
    assert_eq!(
        (queue.kind.as_str(), queue.policy.as_deref()),
        ("quorum", Some("short"))
    );
    assert_eq!(queue.arguments["x-delivery-limit"], 20);
    assert_eq!(queue.effective_policy["max-length"], 5);
    assert_eq!((queue.members.len(), queue.online.len()), (1, 1));
    assert_eq!(queue.leader.as_ref(), queue.members.first());
    assert_eq!(management.queues(&vhost, "").await.unwrap().len(), 3);
    let policies = management.policies(&vhost).await.unwrap();
    assert_eq!((policies.len(), policies[0].pattern.as_str()), (1, "^ours"));
    let bindings = management.bindings_from(&vhost, "amq.fanout").await.unwrap();
    assert!(bindings.is_empty(), "{bindings:?}");
    broker.eval(&bind(&vhost, "amq.fanout", "ours.a")).await.unwrap();
    let bindings = management.bindings_from(&vhost, "amq.fanout").await.unwrap();
    assert_eq!((bindings.len(), bindings[0].destination.as_str()), (1, "ours.a"));
    let permissions = management.permissions(&vhost).await.unwrap();
    assert_eq!(
        (permissions[0].user.as_str(), permissions[0].write.as_str()),
        ("guest", ".*")
    );
}

#[tokio::test]
async fn the_broker_and_its_nodes_are_told_with_version_clock_and_alarms() {
    let (_, management) = management().await;
    let before = SystemTime::now() - CLOCK_STEP;
    let overview = management.overview().await.unwrap();
    let after = SystemTime::now() + CLOCK_STEP;
    assert!(
        overview
            .rabbitmq_version
            .starts_with(|first: char| first.is_ascii_digit())
    );
    let clock = overview.clock.unwrap();
    assert!((before..=after).contains(&clock), "{clock:?}");
    let node = wait_for("the node's figures", TIMEOUT, async || {
        let nodes = management.nodes().await.map_err(|error| error.to_string())?;
        nodes
            .into_iter()
            .next()
            .filter(|node| node.memory_used.is_some())
            .ok_or_else(|| "no figures yet".to_owned())
    });
    let node = node.await.unwrap();
    assert_eq!(node.name, overview.node);
    assert!(node.running && !node.memory_alarm && !node.disk_alarm);
    assert!(node.disk_free.unwrap() > 0 && node.partitions.is_empty());
    assert_eq!(management.whoami().await.unwrap().tags, ["administrator"]);
}

#[tokio::test]
async fn a_refusal_says_what_is_missing_and_no_password() {
    let (broker, management) = management().await;
    let missing = management.queues("nowhere", "").await.unwrap_err();
    assert!(matches!(missing, AskError::Missing { .. }), "{missing}");

    let url = broker.management_url().await.unwrap();
    let ask = async |credentials: &str| {
        let url = ManagementUrl::parse(&url.replace("guest:guest", credentials)).unwrap();
        Management::new(url, TIMEOUT).unwrap().nodes().await.unwrap_err()
    };
    let stranger = ask("guest:hunter2").await;
    assert!(matches!(stranger, AskError::Login { .. }), "{stranger}");
    assert!(!format!("{stranger} {stranger:?}").contains("hunter2"));
    broker
        .eval(
            "rabbit_auth_backend_internal:add_user(<<\"viewer\">>, <<\"viewer-pw\">>, <<\"test\">>), \
             rabbit_auth_backend_internal:set_tags(<<\"viewer\">>, [management], <<\"test\">>), []",
        )
        .await
        .unwrap();
    let viewer = ask("viewer:viewer-pw").await;
    assert!(matches!(viewer, AskError::Forbidden { .. }), "{viewer}");

    let nobody = format!("http://u:hunter2@127.0.0.1:{}", free_port());
    let away = Management::new(ManagementUrl::parse(&nobody).unwrap(), TIMEOUT).unwrap();
    let away = away.overview().await.unwrap_err();
    assert!(matches!(away, AskError::Send { .. }) && !format!("{away:?}").contains("hunter2"));
}
