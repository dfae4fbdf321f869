//! A broker that goes away, hangs and comes back, while somebody watches.

use porchlight_broker::topology::EVENTS;
use porchlight_testbed::{RabbitMq, Relay};

use crate::bench::{Watched, fill};

#[tokio::test]
async fn while_the_broker_is_away_or_hangs_depths_are_absent_and_they_come_back_by_themselves() {
    let node = RabbitMq::shared().await;
    let vhost = node.vhost().await.unwrap();
    fill(&node.url_for_vhost(&vhost), 2).await;
    let relay = Relay::start(node.address()).await.unwrap();
    let mut watched = Watched::rabbit(&RabbitMq::url_at(relay.address(), &vhost), None);
    let ready = format!("ready{{queue=\"{EVENTS}\"}}");
    watched.wait(&ready, Some(2.0)).await;

    relay.refuse(true);
    relay.cut();
    watched.wait("watch_up", Some(0.0)).await;
    assert_eq!(watched.value(&ready), None, "away is not empty");
    relay.refuse(false);
    watched.wait(&ready, Some(2.0)).await;

    relay.stall();
    watched.wait("watch_up", Some(0.0)).await;
    assert_eq!(watched.value(&ready), None);
    relay.pass();
    watched.wait(&ready, Some(2.0)).await;
    assert_eq!(relay.open_count(), 1, "one connection at a time");
    watched.stop().await;
}
