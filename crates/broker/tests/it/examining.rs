//! Looking a broker over: it finds what is wrong and leaves everything as it was.

use lapin::{options::QueueDeclareOptions, types::FieldTable};
use porchlight_broker::examine::{self, Deed, ObjectState};
use porchlight_broker::topology::{self, DEAD, EVENTS};
use porchlight_broker::{TopologyConfig, TopologyError};

use crate::support::{declare, event, fresh, link, plain, publish, publisher};

#[tokio::test]
async fn a_broker_that_daemons_have_used_is_as_declared_and_one_that_none_has_used_stays_empty() {
    let (node, vhost, url) = fresh().await;
    let link = link(&url).await;
    let config = TopologyConfig::default();
    let missing = examine::objects(&link, &config).await.unwrap();
    let all_missing = missing
        .iter()
        .all(|object| matches!(object.state, ObjectState::Missing));
    assert!(all_missing && missing.len() == 10, "{missing:?}");
    assert!(node.queues(&vhost).await.unwrap().is_empty());
    // Nothing is there to have a right to, but for the exchange that is always there.
    let rights = examine::rights(&link).await.unwrap();
    assert_eq!(rights.len(), 1, "{rights:?}");

    declare(&link, &config).await.unwrap();
    let found = examine::objects(&link, &config).await.unwrap();
    let sound = found
        .iter()
        .all(|object| matches!(object.state, ObjectState::AsDeclared));
    assert!(sound, "{found:?}");
    examine::round_trip(&link).await.unwrap();
}

#[tokio::test]
async fn what_differs_is_told_with_both_values() {
    let (_node, _vhost, url) = fresh().await;
    let (_connection, channel) = plain(&url).await;
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(EVENTS.into(), durable, FieldTable::default())
        .await
        .unwrap();
    let link = link(&url).await;
    let found = examine::objects(&link, &TopologyConfig::default()).await.unwrap();
    let queue = found
        .iter()
        .find(|object| object.object == "queue 'porchlight.events'")
        .unwrap();
    let ObjectState::Faulty(TopologyError::Mismatch { argument, found, .. }) = &queue.state else {
        panic!("{queue:?}")
    };
    assert!(!argument.is_empty() && found == "none", "{argument} {found}");
}

#[tokio::test]
async fn what_a_user_may_do_is_tried_without_any_effect() {
    let (node, vhost, url) = fresh().await;
    let owner = link(&url).await;
    declare(&owner, &TopologyConfig::default()).await.unwrap();
    let sender = publisher(&url).await;
    for text in ["one", "two"] {
        publish(&sender, event(text)).await.unwrap();
    }
    let rights = examine::rights(&owner).await.unwrap();
    assert!(
        rights.iter().all(|right| right.refusal.is_none()) && rights.len() == 6,
        "{rights:?}"
    );

    node.eval(&format!(
        "rabbit_auth_backend_internal:add_user(<<\"narrow\">>, <<\"narrow-pw\">>, <<\"t\">>), \
         ok = rabbit_auth_backend_internal:set_permissions(<<\"narrow\">>, <<\"{vhost}\">>, <<\"^porchlight\\\\.\">>, \
         <<\"^porchlight\\\\.\">>, <<\"^porchlight\\\\.events$\">>, <<\"t\">>), []"
    ))
    .await
    .unwrap();
    let narrow = link(&url.replace("guest:guest", "narrow:narrow-pw")).await;
    let rights = examine::rights(&narrow).await.unwrap();
    let refused: Vec<_> = rights
        .iter()
        .filter(|right| right.refusal.is_some())
        .map(|right| (right.deed, right.name))
        .collect();
    assert_eq!(refused, [(Deed::Publish, "amq.default"), (Deed::Consume, DEAD)]);
    let queue = node.queue(&vhost, EVENTS).await.unwrap();
    assert_eq!((queue.ready, queue.unacked, queue.consumers), (2, 0, 0));
    for name in topology::QUEUES.iter().filter(|name| **name != EVENTS) {
        assert_eq!(node.queue(&vhost, name).await.unwrap().ready, 0, "{name}");
    }
}
