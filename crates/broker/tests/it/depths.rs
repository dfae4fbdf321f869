//! Depths of our queues, with and without them being there.

use porchlight_broker::{BrokerUrls, DepthReader, QueueCounts, topology::QUEUES};

use crate::support::{EVENTS, event, fresh, publish, publisher};

#[tokio::test]
async fn every_queue_is_counted_and_a_missing_one_does_not_hide_the_others() {
    let (node, vhost, url) = fresh().await;
    let mut reader = DepthReader::new(BrokerUrls::parse(&url).unwrap(), "test-depths");
    let nothing = reader.read().await.unwrap();
    assert!(nothing.iter().all(|depth| depth.counts.is_none()), "{nothing:?}");
    let publisher = publisher(&url).await;
    for _ in 0..3 {
        publish(&publisher, event("x")).await.unwrap();
    }
    node.delete_queue(&vhost, QUEUES[1]).await.unwrap();
    let depths = reader.read().await.unwrap();
    assert_eq!(depths.iter().map(|depth| depth.queue).collect::<Vec<_>>(), QUEUES);
    for depth in depths {
        let ready = if depth.queue == EVENTS { 3 } else { 0 };
        let expected = (depth.queue != QUEUES[1]).then_some(QueueCounts { ready, consumers: 0 });
        assert_eq!(depth.counts, expected, "{}", depth.queue);
    }
}
