//! What each outcome at the broker is to a caller of the publisher, on a healthy connection.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use porchlight_broker::{
    Outgoing, PublishDeadlines, PublishError, Publisher, PublisherConfig, QueueState, RetryTier,
    TopologyConfig, topology,
};
use porchlight_event::{Envelope, envelope::header};
use porchlight_testbed::wait_for;
use tokio_util::sync::CancellationToken;

use crate::{
    scripted_peer::{ScriptedPeer, ack},
    support::{
        EVENTS, PATIENCE, event, fresh, plain, publish, publisher, publisher_config, reach, reconnected,
        settle_at, started, take,
    },
};

#[tokio::test]
async fn a_confirmed_event_is_in_the_queue_with_its_properties() {
    let (_node, _vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    let envelope = Envelope {
        received_at_ms: Some(5_000),
        ..Envelope::bare(Bytes::from_static(b"{}"))
    };
    publish(&publisher, Outgoing::event(&envelope)).await.unwrap();
    let (_connection, channel) = plain(&url).await;
    let delivery = take(&channel, EVENTS).await;
    assert_eq!(delivery.data, b"{}");
    assert_eq!(delivery.properties.delivery_mode(), &Some(2));
    assert_eq!(
        delivery.properties.message_id().as_ref().unwrap().as_str(),
        envelope.message_id
    );
    assert_eq!(delivery.properties.timestamp(), &Some(5));
    assert!(
        delivery
            .properties
            .headers()
            .as_ref()
            .unwrap()
            .contains_key(header::PUBLISH_ID)
    );
}

#[tokio::test]
async fn a_queue_at_its_limit_makes_nacked() {
    let (node, vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    node.set_policy(&vhost, "short", "^porchlight\\.events$", r#"{"max-length":3}"#)
        .await
        .unwrap();
    let outcome = wait_for("a refusal", PATIENCE, async || {
        match publish(&publisher, event("x")).await {
            Ok(_) => Err("stored".to_owned()),
            Err(error) => Ok(error),
        }
    });
    assert_eq!(outcome.await.unwrap(), PublishError::Nacked);
    assert_eq!(publisher.stats().nacked_total, 1);
}

#[tokio::test]
async fn without_its_binding_an_event_lands_in_unrouted_and_is_a_success() {
    let (node, vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    node.unbind(&vhost, EVENTS, EVENTS).await.unwrap();
    publish(&publisher, event("stray")).await.unwrap();
    let (_connection, channel) = plain(&url).await;
    assert_eq!(take(&channel, topology::UNROUTED).await.data, b"stray");
}

#[tokio::test]
async fn without_binding_and_alternate_an_event_is_returned_and_never_a_success() {
    let (node, vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    node.unbind(&vhost, EVENTS, EVENTS).await.unwrap();
    node.delete_exchange(&vhost, topology::UNROUTED).await.unwrap();
    for _ in 0..20 {
        assert_eq!(
            publish(&publisher, event("lost")).await.unwrap_err(),
            PublishError::Returned
        );
    }
    assert_eq!(publisher.stats().returned_total, 20);
    assert!(
        publisher.state().borrow().is_ready(),
        "a return must not cost the connection"
    );
}

#[tokio::test]
async fn a_missing_exchange_costs_the_connection_and_the_next_one_declares_it_again() {
    let (node, vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    node.delete_exchange(&vhost, EVENTS).await.unwrap();
    assert_eq!(
        publish(&publisher, event("x")).await.unwrap_err(),
        PublishError::Disconnected
    );
    // The state may be the one from before still.
    reconnected(&publisher).await;
    reach(&mut publisher.state(), QueueState::is_ready).await;
    publish(&publisher, event("y")).await.unwrap();
    assert_eq!(publisher.stats().reconnects_total, 1);
}

#[tokio::test]
async fn an_event_put_off_comes_back_to_the_work_queue_with_its_attempt_count() {
    let (_node, _vhost, url) = fresh().await;
    let short = Duration::from_millis(200);
    let topology = TopologyConfig {
        retry_1m_ttl: short,
        retry_10m_ttl: short,
    };
    let publisher = started(PublisherConfig {
        topology,
        ..publisher_config(&url)
    })
    .await;
    let (_connection, channel) = plain(&url).await;
    for (attempt, tier) in [(1, RetryTier::OneMinute), (2, RetryTier::TenMinutes)] {
        let envelope = Envelope {
            attempt,
            ..Envelope::bare(Bytes::from_static(b"later"))
        };
        publish(&publisher, Outgoing::retry(&envelope, tier))
            .await
            .unwrap();
        let back = take(&channel, EVENTS).await;
        let headers = back.properties.headers().as_ref().unwrap().inner();
        assert_eq!(
            headers[header::ATTEMPT].as_long_long_int(),
            Some(i64::from(attempt))
        );
    }
}

#[tokio::test]
async fn a_command_reaches_its_queue_under_its_key() {
    let (_node, _vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    let json = Bytes::from_static(b"{}");
    publish(
        &publisher,
        Outgoing::command("id-1", "resume", "snapshot", json, 1_000),
    )
    .await
    .unwrap();
    let (_connection, channel) = plain(&url).await;
    let command = take(&channel, topology::COMMANDS).await;
    assert_eq!(command.routing_key.as_str(), "resume.snapshot");
    assert_eq!(command.properties.message_id().as_ref().unwrap().as_str(), "id-1");
}

#[tokio::test]
async fn a_full_window_is_an_error_after_the_wait_and_a_late_confirm_frees_it() {
    let mut peer = ScriptedPeer::start().await;
    let config = PublisherConfig {
        inflight_max: 1,
        channel_count: 1,
        ..publisher_config(&peer.url())
    };
    let publisher = started(config).await;
    let mut deadlines = PublishDeadlines::within(Duration::from_millis(100));
    assert_eq!(
        publisher.publish(event("a"), deadlines).await.unwrap_err(),
        PublishError::TimedOut
    );
    deadlines = PublishDeadlines {
        slot_wait_max: Duration::from_millis(50),
        ..PublishDeadlines::within(PATIENCE)
    };
    assert_eq!(
        publisher.publish(event("b"), deadlines).await.unwrap_err(),
        PublishError::WindowFull
    );
    assert_eq!(publisher.stats().inflight, 1);
    let first = peer.next().await;
    peer.answer(&[ack(first.channel, first.tag, false)]).await;
    wait_for("a free window", PATIENCE, async || match publisher.stats() {
        stats if stats.inflight == 0 && stats.late_total == 1 => Ok(()),
        stats => Err(format!("{stats:?}")),
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn dropping_a_publish_half_way_leaves_its_confirm_to_the_background() {
    let mut peer = ScriptedPeer::start().await;
    let publisher = started(PublisherConfig {
        channel_count: 1,
        ..publisher_config(&peer.url())
    })
    .await;
    let dropped = tokio::spawn({
        let publisher = publisher.clone();
        async move { publish(&publisher, event("dropped")).await }
    });
    let first = peer.next().await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    let second = tokio::spawn({
        let publisher = publisher.clone();
        async move { publish(&publisher, event("kept")).await }
    });
    let second_received = peer.next().await;
    peer.answer(&[
        ack(first.channel, first.tag, false),
        ack(second_received.channel, second_received.tag, false),
    ])
    .await;
    second.await.unwrap().unwrap();
    assert_eq!((publisher.stats().inflight, publisher.stats().late_total), (0, 1));
}

#[tokio::test]
async fn three_timeouts_in_a_row_cost_the_connection_and_fail_the_rest_at_once() {
    let peer = ScriptedPeer::start().await;
    let publisher = started(publisher_config(&peer.url())).await;
    let waiting = tokio::spawn({
        let publisher = publisher.clone();
        async move {
            publisher
                .publish(event("patient"), PublishDeadlines::within(PATIENCE))
                .await
        }
    });
    for _ in 0..3 {
        let deadlines = PublishDeadlines::within(Duration::from_millis(50));
        assert_eq!(
            publisher.publish(event("x"), deadlines).await.unwrap_err(),
            PublishError::TimedOut
        );
    }
    assert_eq!(waiting.await.unwrap().unwrap_err(), PublishError::Disconnected);
    reconnected(&publisher).await;
}

#[tokio::test]
async fn silence_of_the_broker_costs_the_connection() {
    let peer = ScriptedPeer::start().await;
    let confirm_silence_max = Duration::from_millis(300);
    let publisher = started(PublisherConfig {
        confirm_silence_max,
        ..publisher_config(&peer.url())
    })
    .await;
    let outcome = publisher
        .publish(event("x"), PublishDeadlines::within(PATIENCE))
        .await;
    assert_eq!(outcome.unwrap_err(), PublishError::Disconnected);
}

#[tokio::test]
async fn closing_takes_nothing_more_but_waits_for_what_is_in_flight() {
    let mut peer = ScriptedPeer::start().await;
    let publisher = started(publisher_config(&peer.url())).await;
    let in_flight = tokio::spawn({
        let publisher = publisher.clone();
        async move { publish(&publisher, event("x")).await }
    });
    let received = peer.next().await;
    let mut closing = pin!(publisher.close(PATIENCE));
    tokio::select! {
        biased;
        () = &mut closing => panic!("closed with a confirm outstanding"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(
        publish(&publisher, event("y")).await.unwrap_err(),
        PublishError::Stopping
    );
    peer.answer(&[ack(received.channel, received.tag, false)]).await;
    in_flight.await.unwrap().unwrap();
    closing.await;
    assert_eq!(*publisher.state().borrow(), QueueState::Stopped);
}

#[tokio::test]
async fn a_closed_publisher_leaves_no_connection_behind() {
    let (node, vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    publish(&publisher, event("x")).await.unwrap();
    publisher.close(PATIENCE).await;
    wait_for("no connection", PATIENCE, async || {
        match node.connection_count(&vhost).await.unwrap() {
            0 => Ok(()),
            count => Err(format!("{count} connections")),
        }
    })
    .await
    .unwrap();
    settle_at(node, &vhost, EVENTS, 1, 0).await;
}

#[tokio::test]
async fn without_a_broker_publishing_is_unavailable_at_once_and_the_reason_is_shown() {
    let port = porchlight_testbed::free_port();
    let config = publisher_config(&format!("amqp://guest:hunter2@127.0.0.1:{port}/%2f"));
    let publisher = Publisher::start(config, CancellationToken::new());
    assert_eq!(
        publish(&publisher, event("x")).await.unwrap_err(),
        PublishError::Unavailable
    );
    let reason = |state: &QueueState| match state {
        QueueState::Connecting {
            last_error: Some(error),
        } => error.contains("refused"),
        _ => false,
    };
    reach(&mut publisher.state(), reason).await;
    let shown = format!("{:?}", *publisher.state().borrow());
    assert!(!shown.contains("hunter2"), "{shown}");
    publisher.close(PATIENCE).await;
}
