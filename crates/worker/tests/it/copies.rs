//! Copies that the broker does not take: the original stays unacked until one is confirmed.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use porchlight_broker::topology;
use porchlight_device::Status;
use porchlight_testbed::redis::Fsync;
use porchlight_testbed::{RabbitMq, Redis, wait_for};
use porchlight_worker::WorkSettings;

use crate::harness::{Form, PATIENCE, Setup, body, now_ms};
use crate::servers::Bench;

/// A quorum queue looks at its length now and then, so it takes a few more than it should.
const POISON: usize = 40;

fn poison() -> impl Iterator<Item = Bytes> {
    (0..POISON).map(|n| Bytes::from(format!("no event {n}")))
}

async fn shut_the_dead_letters(bench: &Bench) {
    let definition = r#"{"max-length":1,"overflow":"reject-publish"}"#;
    let dead = "^porchlight[.]dead$";
    bench
        .broker
        .set_policy(&bench.vhost, "shut", dead, definition)
        .await
        .unwrap();
}

/// Takes dead letters out, as a person would, until each poison was among them.
async fn take_letters(bench: &Bench) -> BTreeSet<Bytes> {
    let mut consumer = bench.consumer(topology::DEAD);
    let mut found = BTreeSet::new();
    let collect = async {
        while found.len() < POISON {
            let batch = consumer.next_batch(8).await.unwrap();
            let last = batch.deliveries.last().unwrap().tag;
            found.extend(
                batch
                    .deliveries
                    .into_iter()
                    .map(|delivery| delivery.envelope.body),
            );
            consumer.ack_through(batch.incarnation, last).await;
        }
    };
    let _ = tokio::time::timeout(PATIENCE, collect).await;
    consumer.close().await;
    found
}

#[tokio::test]
async fn poison_that_the_dead_letters_refuse_is_held_until_they_take_it() {
    let bench = Bench::start().await;
    shut_the_dead_letters(&bench).await;
    let worker = bench.worker().await;
    bench.publish_all(poison()).await;
    worker.wait_sum("porchlight_worker_held_tries_total", 3.0).await;
    let dead = bench.queue_of(topology::DEAD).await.unwrap().ready;
    let work = bench.queue_of(topology::EVENTS).await.unwrap();
    assert!(dead < POISON as u64, "{dead} were taken");
    assert!(
        dead + work.ready + work.unacked >= POISON as u64,
        "{dead} dead and {work:?} are not all"
    );
    assert_eq!(take_letters(&bench).await, poison().collect());
    bench.drained().await;
    worker.stop().await.unwrap();
}

/// What is given back comes again, poison and good alike, and an ack of the next connection must not reach it.
#[tokio::test]
async fn after_holding_poison_in_vain_nothing_is_lost() {
    let bench = Bench::start().await;
    shut_the_dead_letters(&bench).await;
    let mut setup = Setup::default();
    setup.prefetch_ramp = Duration::ZERO;
    setup.work = WorkSettings {
        hold_max: Duration::from_secs(1),
        batch_size: 4,
        ..setup.work
    };
    let worker = bench.start(setup);
    let at = now_ms() - 60_000;
    let good = (0..POISON).map(|n| body("device_online", &format!("d{n}"), at));
    bench
        .publish_all(poison().zip(good).flat_map(|(poison, good)| [poison, good]))
        .await;
    worker.wait_sum("porchlight_worker_given_back_total", 50.0).await;
    // A copy whose confirm was not awaited may be there twice; each is there.
    let letters = take_letters(&bench).await;
    bench.drained().await;
    // One that was given back while the ledger took it counts as a duplicate when it comes again.
    let ledger = bench.ledger();
    assert_eq!(ledger.counts().await.unwrap()[&Status::Online], POISON as u64);
    assert_eq!(letters, poison().collect());
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn poison_waits_for_a_broker_that_has_blocked_publishing() {
    let node: &'static RabbitMq = Box::leak(Box::new(RabbitMq::start().await.unwrap()));
    let redis = Redis::start_with(Fsync::EverySecond, None).await.unwrap();
    let bench = Bench::at(node, redis).await;
    bench.publish_all(poison().take(5)).await;
    node.set_memory_alarm(true).await.unwrap();
    let worker = bench.worker().await;
    worker.wait_sum("porchlight_worker_held_tries_total", 1.0).await;
    let in_hand = wait_for("all of them in hand", PATIENCE, async || {
        let queue = bench.queue_of(topology::EVENTS).await?;
        if queue.unacked == 5 {
            Ok(())
        } else {
            Err(format!("{queue:?}"))
        }
    });
    in_hand.await.unwrap();
    assert_eq!(bench.queue_of(topology::DEAD).await.unwrap().ready, 0);
    node.set_memory_alarm(false).await.unwrap();
    assert!(
        bench
            .dead_at_least(5)
            .await
            .iter()
            .all(|letter| letter.reason == "not_json")
    );
    bench.drained().await;
    worker.stop().await.unwrap();
    node.kill();
}
