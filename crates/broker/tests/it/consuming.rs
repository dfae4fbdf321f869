//! Batches, acks that cannot reach the wrong channel, the prefetch ramp, giving back, and the graceful end.

use std::time::Duration;

use porchlight_broker::{AckOutcome, Consumer, ConsumerConfig, Publisher, QueueState, topology::DEAD};
use porchlight_testbed::wait_for;
use tokio_util::sync::CancellationToken;

use crate::support::{
    EVENTS, PATIENCE, consumer_config, cruel_node, event, exhaust, fresh, gather, plain, publish, publisher,
    reach, settle_at,
};

async fn fill(publisher: &Publisher, count: usize) {
    for number in 0..count {
        publish(publisher, event(&number.to_string())).await.unwrap();
    }
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn start(config: ConsumerConfig) -> (Consumer, CancellationToken) {
    let stop = CancellationToken::new();
    (Consumer::start(config, stop.clone()), stop)
}

#[tokio::test]
async fn deliveries_come_in_order_and_one_ack_settles_all_before_it() {
    let (node, vhost, url) = fresh().await;
    fill(&publisher(&url).await, 20).await;
    let (mut consumer, _stop) = start(consumer_config(&url));
    let (bodies, incarnation, tag) = gather(&mut consumer, 8).await;
    assert_eq!(bodies, numbers(0..8));
    settle_at(node, &vhost, EVENTS, 12, 8).await;
    assert_eq!(consumer.ack_through(incarnation, tag).await, AckOutcome::Sent);
    let (bodies, incarnation, tag) = gather(&mut consumer, 12 - 4).await;
    assert_eq!(bodies, numbers(8..16));
    assert_eq!(consumer.ack_through(incarnation, tag).await, AckOutcome::Sent);
    settle_at(node, &vhost, EVENTS, 0, 4).await;
}

#[tokio::test]
async fn a_delivery_says_how_often_it_was_taken_back() {
    let (_node, _vhost, url) = fresh().await;
    fill(&publisher(&url).await, 1).await;
    let (mut consumer, _stop) = start(consumer_config(&url));
    for count in 0..4 {
        let batch = consumer.next_batch(8).await.unwrap();
        let delivery = &batch.deliveries[0];
        assert_eq!(
            (delivery.delivery_count, delivery.redelivered),
            (count, count > 0)
        );
        consumer.handle().abandon(batch.incarnation);
    }
}

#[tokio::test]
async fn the_prefetch_widens_on_the_same_channel_without_loss_or_repetition() {
    let (node, vhost, url) = fresh().await;
    fill(&publisher(&url).await, 100).await;
    // Long enough to be looked at before.
    let healthy_after = Duration::from_secs(10);
    let (mut consumer, _stop) = start(ConsumerConfig {
        healthy_after,
        prefetch_full: 50,
        ..consumer_config(&url)
    });
    let (mut bodies, first_incarnation, tag) = gather(&mut consumer, 8).await;
    settle_at(node, &vhost, EVENTS, 92, 8).await;
    // Nothing is acked: what the wider consumer holds comes on top.
    let (more, incarnation, last_tag) = gather(&mut consumer, 50).await;
    bodies.extend(more);
    assert_eq!(bodies, numbers(0..58));
    assert_eq!((first_incarnation, tag, last_tag), (incarnation, 8, 58));
    settle_at(node, &vhost, EVENTS, 42, 58).await;
    assert_eq!(
        consumer.ack_through(incarnation, last_tag).await,
        AckOutcome::Sent
    );
    let (bodies, _, _) = gather(&mut consumer, 42).await;
    assert_eq!(bodies, numbers(58..100));
}

#[tokio::test]
async fn what_the_narrow_consumer_left_unread_is_read_before_the_wide_ones() {
    let (node, vhost, url) = fresh().await;
    fill(&publisher(&url).await, 30).await;
    let healthy_after = Duration::from_millis(200);
    let (mut consumer, _stop) = start(ConsumerConfig {
        healthy_after,
        prefetch_full: 20,
        ..consumer_config(&url)
    });
    // Not one delivery is read until both consumers have theirs.
    settle_at(node, &vhost, EVENTS, 2, 28).await;
    let (bodies, incarnation, tag) = gather(&mut consumer, 28).await;
    assert_eq!((bodies, tag), (numbers(0..28), 28));
    assert_eq!(consumer.ack_through(incarnation, tag).await, AckOutcome::Sent);
    settle_at(node, &vhost, EVENTS, 0, 2).await;
}

#[tokio::test]
async fn an_ack_of_an_ended_incarnation_is_reported_and_harms_nothing() {
    let (node, vhost, url) = fresh().await;
    fill(&publisher(&url).await, 5).await;
    let (mut consumer, _stop) = start(consumer_config(&url));
    let (_, old_incarnation, old_tag) = gather(&mut consumer, 5).await;
    consumer.handle().abandon(old_incarnation);
    let (_, incarnation, tag) = gather(&mut consumer, 5).await;
    assert_ne!(incarnation, old_incarnation);
    assert_eq!(tag, old_tag, "the same tag means other deliveries now");
    assert_eq!(
        consumer.ack_through(old_incarnation, old_tag).await,
        AckOutcome::Stale
    );
    consumer.close().await;
    settle_at(node, &vhost, EVENTS, 5, 0).await;
}

/// The supervisor needs a moment to close the connection. An ack in that moment would reach back over what was given
/// back, and the broker would forget it.
#[tokio::test]
async fn from_the_moment_of_giving_back_nothing_of_the_incarnation_is_yielded_or_acked() {
    for pausing in [false, true] {
        let (node, vhost, url) = fresh().await;
        fill(&publisher(&url).await, 8).await;
        let (mut consumer, _stop) = start(consumer_config(&url));
        settle_at(node, &vhost, EVENTS, 0, 8).await;
        let (_, given_back, _) = gather(&mut consumer, 3).await;
        // No await in between: the supervisor has not run, and of a pause that is over at once it sees nothing.
        if pausing {
            consumer.handle().pause();
            consumer.handle().resume();
        } else {
            consumer.handle().abandon(given_back);
        }
        assert_eq!(consumer.ack_through(given_back, 8).await, AckOutcome::Stale);
        let (bodies, incarnation, tag) = gather(&mut consumer, 8).await;
        assert_ne!(incarnation, given_back);
        let mut sorted = bodies;
        sorted.sort();
        assert_eq!(sorted, numbers(0..8), "all come again");
        assert_eq!(consumer.ack_through(incarnation, tag).await, AckOutcome::Sent);
        settle_at(node, &vhost, EVENTS, 0, 0).await;
    }
}

#[tokio::test]
async fn a_paused_consumer_gives_everything_back_and_stays_away_until_resumed() {
    let (node, vhost, url) = fresh().await;
    fill(&publisher(&url).await, 5).await;
    let (mut consumer, _stop) = start(consumer_config(&url));
    gather(&mut consumer, 5).await;
    consumer.handle().pause();
    reach(&mut consumer.state(), |state| *state == QueueState::Paused).await;
    settle_at(node, &vhost, EVENTS, 5, 0).await;
    assert_eq!(node.queue(&vhost, EVENTS).await.unwrap().consumers, 0);
    consumer.handle().resume();
    gather(&mut consumer, 5).await;
}

#[tokio::test]
async fn a_deleted_queue_ends_the_stream_and_is_declared_and_consumed_anew() {
    let (node, vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    let (mut consumer, _stop) = start(consumer_config(&url));
    fill(&publisher, 1).await;
    gather(&mut consumer, 1).await;
    node.delete_queue(&vhost, EVENTS).await.unwrap();
    let refill = async {
        // Consumed means declared and bound; until then an event goes to the unrouted ones.
        wait_for("the new queue to be consumed", PATIENCE, async || {
            match node.queue(&vhost, EVENTS).await {
                Ok(queue) if queue.consumers == 1 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap();
        publish(&publisher, event("again")).await.unwrap();
    };
    let ((bodies, _, _), ()) = tokio::join!(gather(&mut consumer, 1), refill);
    assert_eq!(bodies, ["again"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_broker_is_consumed_again() {
    let node = cruel_node().await;
    let vhost = node.vhost().await.unwrap();
    let url = node.url_for_vhost(&vhost);
    let publisher = publisher(&url).await;
    fill(&publisher, 3).await;
    let (mut consumer, _stop) = start(consumer_config(&url));
    let (_, incarnation, tag) = gather(&mut consumer, 3).await;
    node.kill();
    let lost = |state: &QueueState| matches!(state, QueueState::Connecting { .. });
    let gone = async {
        let mut state = consumer.state();
        reach(&mut state, lost).await;
        consumer.ack_through(incarnation, tag).await
    };
    assert_eq!(gone.await, AckOutcome::Stale);
    node.start_again().await.unwrap();
    let (bodies, _, _) = gather(&mut consumer, 3).await;
    assert_eq!(bodies, numbers(0..3));
}

#[tokio::test]
async fn a_graceful_stop_yields_what_has_come_takes_the_ack_and_ends() {
    let (node, vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    fill(&publisher, 8).await;
    let (mut consumer, stop) = start(consumer_config(&url));
    settle_at(node, &vhost, EVENTS, 0, 8).await;
    stop.cancel();
    wait_for("no consumer", PATIENCE, async || {
        match node.queue(&vhost, EVENTS).await.unwrap().consumers {
            0 => Ok(()),
            count => Err(format!("{count} consumers")),
        }
    })
    .await
    .unwrap();
    fill(&publisher, 1).await;
    let (bodies, incarnation, tag) = gather(&mut consumer, 8).await;
    assert_eq!(bodies, numbers(0..8));
    assert!(consumer.next_batch(8).await.is_none());
    assert_eq!(consumer.ack_through(incarnation, tag).await, AckOutcome::Sent);
    consumer.close().await;
    settle_at(node, &vhost, EVENTS, 1, 0).await;
}

#[tokio::test]
async fn a_stop_without_a_broker_ends_the_consumer() {
    let port = porchlight_testbed::free_port();
    let (mut consumer, stop) = start(consumer_config(&format!("amqp://127.0.0.1:{port}/%2f")));
    stop.cancel();
    assert!(consumer.next_batch(1).await.is_none());
    consumer.close().await;
}

#[tokio::test]
async fn a_dropped_consumer_gives_everything_back() {
    let (node, vhost, url) = fresh().await;
    fill(&publisher(&url).await, 3).await;
    let (mut consumer, _stop) = start(consumer_config(&url));
    gather(&mut consumer, 3).await;
    drop(consumer);
    settle_at(node, &vhost, EVENTS, 3, 0).await;
}

#[tokio::test]
async fn the_twenty_first_return_sends_a_delivery_to_the_dead_letters() {
    let (node, vhost, url) = fresh().await;
    fill(&publisher(&url).await, 1).await;
    let (_connection, channel) = plain(&url).await;
    assert_eq!(exhaust(&channel, EVENTS).await, 21);
    settle_at(node, &vhost, DEAD, 1, 0).await;
    settle_at(node, &vhost, EVENTS, 0, 0).await;
}
