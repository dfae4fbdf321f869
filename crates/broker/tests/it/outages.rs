//! The broker dies, freezes, blocks or falls silent: what callers see meanwhile, and that it ends by itself.

use std::{collections::HashSet, time::Duration};

use porchlight_broker::{BrokerUrls, PublishDeadlines, PublishError, Publisher, PublisherConfig, QueueState};
use porchlight_testbed::{Direction, RabbitMq, Relay, wait_for};

use crate::support::{
    EVENTS, PATIENCE, cruel_node, event, fresh, plain, publish, publish_at_once, publisher, publisher_config,
    reach, reconnected, set_alarm, settle_at, started, take, try_link,
};

/// Publishes until one succeeds again. One that seemed to fail may be stored, too.
async fn recovers(publisher: &Publisher) {
    wait_for("a confirmed publish", PATIENCE * 3, async || {
        let deadlines = PublishDeadlines::within(Duration::from_secs(2));
        publisher
            .publish(event("after"), deadlines)
            .await
            .map_err(|error| error.to_string())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_fails_what_is_in_flight_and_is_found_again_with_all_that_was_confirmed() {
    let node = cruel_node().await;
    let vhost = node.vhost().await.unwrap();
    let url = node.url_for_vhost(&vhost);
    let publisher = publisher(&url).await;
    let mut confirmed: HashSet<String> = (0..50).map(|number| number.to_string()).collect();
    for body in &confirmed {
        publish(&publisher, event(body)).await.unwrap();
    }
    node.kill();
    reach(&mut publisher.state(), |state| {
        matches!(state, QueueState::Connecting { .. })
    })
    .await;
    assert_eq!(
        publish_at_once(&publisher, event("x")).unwrap_err(),
        PublishError::Unavailable
    );
    node.start_again().await.unwrap();
    recovers(&publisher).await;
    let (_connection, channel) = plain(&url).await;
    while !confirmed.is_empty() {
        let body = String::from_utf8(take(&channel, EVENTS).await.data).unwrap();
        assert!(confirmed.remove(&body) || body == "after", "{body}");
    }
    assert_eq!(take(&channel, EVENTS).await.data, b"after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_broker_is_a_timeout_then_unavailable_and_works_again_when_thawed() {
    let node = cruel_node().await;
    let vhost = node.vhost().await.unwrap();
    // Well behind the deadline below, so that of the two that comes first.
    let confirm_silence_max = Duration::from_secs(4);
    let config = PublisherConfig {
        confirm_silence_max,
        ..publisher_config(&node.url_for_vhost(&vhost))
    };
    let publisher = started(config).await;
    node.pause();
    let deadlines = PublishDeadlines::within(Duration::from_millis(300));
    assert_eq!(
        publisher.publish(event("frozen"), deadlines).await.unwrap_err(),
        PublishError::TimedOut
    );
    let given_up = |state: &QueueState| matches!(state, QueueState::Connecting { .. });
    reach(&mut publisher.state(), given_up).await;
    let refused = |state: &QueueState| match state {
        QueueState::Connecting {
            last_error: Some(error),
        } => error.contains("greeting"),
        _ => false,
    };
    reach(&mut publisher.state(), refused).await;
    // A thread of lapin's that was left behind would keep its socket.
    wait_for(
        "nothing left of any attempt",
        PATIENCE,
        async || match open_sockets_to(node.address().port()) {
            0 => Ok(()),
            count => Err(format!("{count} sockets")),
        },
    )
    .await
    .unwrap();
    node.resume();
    recovers(&publisher).await;
}

/// How many sockets to this port some process holds; those that only the kernel still has to end are not counted.
fn open_sockets_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let remote = format!(":{port:04X}");
    let is_open = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[2].ends_with(&remote) && fields[9] != "0"
    };
    table.lines().skip(1).filter(is_open).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_alarm_blocks_at_once_without_queueing_and_its_end_unblocks() {
    let node = cruel_node().await;
    let vhost = node.vhost().await.unwrap();
    let publisher = publisher(&node.url_for_vhost(&vhost)).await;
    set_alarm(&node, true).await;
    // The broker tells a connection of an alarm only when it publishes.
    let first = publisher.publish(event("first"), PublishDeadlines::within(PATIENCE));
    let waiting = async {
        reach(&mut publisher.state(), |state| {
            matches!(state, QueueState::Blocked { .. })
        })
        .await;
        for _ in 0..1_000 {
            assert_eq!(
                publish_at_once(&publisher, event("x")).unwrap_err(),
                PublishError::Blocked
            );
        }
        assert!(publisher.stats().inflight <= 1);
        set_alarm(&node, false).await;
    };
    let (first, ()) = tokio::join!(first, waiting);
    first.unwrap();
    reach(&mut publisher.state(), QueueState::is_ready).await;
    publish(&publisher, event("y")).await.unwrap();
    assert_eq!(publisher.stats().reconnects_total, 0);
    settle_at(&node, &vhost, EVENTS, 2, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_blocked_for_too_long_is_given_up() {
    let node = cruel_node().await;
    let vhost = node.vhost().await.unwrap();
    let blocked_max = Duration::from_millis(500);
    let config = PublisherConfig {
        blocked_max,
        ..publisher_config(&node.url_for_vhost(&vhost))
    };
    let publisher = started(config).await;
    set_alarm(&node, true).await;
    let outcome = publisher
        .publish(event("x"), PublishDeadlines::within(PATIENCE))
        .await;
    set_alarm(&node, false).await;
    assert_eq!(outcome.unwrap_err(), PublishError::Disconnected);
    recovers(&publisher).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_confirms_are_timeouts_although_the_events_are_stored() {
    let (node, vhost, _) = fresh().await;
    let relay = Relay::start(node.address()).await.unwrap();
    let publisher = publisher(&RabbitMq::url_at(relay.address(), &vhost)).await;
    relay.drop_bytes(Direction::ToClient);
    let deadlines = PublishDeadlines::within(Duration::from_millis(300));
    assert_eq!(
        publisher.publish(event("stored"), deadlines).await.unwrap_err(),
        PublishError::TimedOut
    );
    settle_at(node, &vhost, EVENTS, 1, 0).await;
    for _ in 0..2 {
        let deadlines = PublishDeadlines::within(Duration::from_millis(300));
        assert_eq!(
            publisher.publish(event("x"), deadlines).await.unwrap_err(),
            PublishError::TimedOut
        );
    }
    reach(&mut publisher.state(), |state| {
        matches!(state, QueueState::Connecting { .. })
    })
    .await;
    relay.pass();
    recovers(&publisher).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_random_cuts_every_success_is_in_the_queue() {
    let (node, vhost, url) = fresh().await;
    let relay = Relay::start(node.address()).await.unwrap();
    let publisher = publisher(&RabbitMq::url_at(relay.address(), &vhost)).await;
    let mut random = fastrand::Rng::with_seed(7);
    let mut confirmed = HashSet::new();
    let mut rounds = 0..;
    // Where cuts come at a bad moment, more rounds are needed for some to be confirmed; not a hundred.
    while rounds.start < 12 || confirmed.len() <= 100 {
        let round = rounds.next().unwrap();
        assert!(round < 100, "only {} confirmed", confirmed.len());
        relay.cut_after(Direction::ToServer, random.usize(500..60_000));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..100 {
            let (publisher, body) = (publisher.clone(), format!("{round}-{number}"));
            tasks.spawn(async move { (body.clone(), publish(&publisher, event(&body)).await.is_ok()) });
        }
        confirmed.extend(
            tasks
                .join_all()
                .await
                .into_iter()
                .filter(|(_, ok)| *ok)
                .map(|(body, _)| body),
        );
        reach(&mut publisher.state(), QueueState::is_ready).await;
    }
    relay.pass();
    let (_connection, channel) = plain(&url).await;
    while !confirmed.is_empty() {
        confirmed.remove(&String::from_utf8(take(&channel, EVENTS).await.data).unwrap());
    }
}

#[tokio::test]
async fn with_several_addresses_the_dead_ones_are_passed_over() {
    let (_node, _vhost, url) = fresh().await;
    let dead = porchlight_testbed::free_port();
    let list = format!("amqp://guest:guest@127.0.0.1:{dead}/%2f,{url}");
    let urls = BrokerUrls::parse(&list).unwrap();
    let publisher = started(PublisherConfig {
        urls,
        ..publisher_config(&url)
    })
    .await;
    publish(&publisher, event("x")).await.unwrap();
}

#[tokio::test]
async fn connections_closed_by_the_operator_come_back() {
    let (node, vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    // RabbitMQ enters a connection into the list of those that it can close a moment after it is made.
    wait_for("the connection in the list", PATIENCE, async || {
        match node.connection_count(&vhost).await.unwrap() {
            1 => Ok(()),
            count => Err(format!("{count} connections")),
        }
    })
    .await
    .unwrap();
    node.close_all_connections(&vhost).await.unwrap();
    reconnected(&publisher).await;
    recovers(&publisher).await;
}

#[tokio::test]
async fn wrong_credentials_and_a_missing_vhost_are_told_apart_without_the_password() {
    let (node, _vhost, url) = fresh().await;
    let wrong = url.replace("guest:guest@", "guest:hunter2@");
    for (url, needle) in [
        (wrong, "ACCESS_REFUSED"),
        (node.url_for_vhost("nowhere"), "vhost"),
    ] {
        let error = try_link(&url).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(needle) && !shown.contains("hunter2"), "{shown}");
    }
}
