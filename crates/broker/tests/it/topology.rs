//! Declaring: from nothing, by many at once, and against what somebody else has declared differently.

use futures_util::future::join_all;
use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use porchlight_broker::{
    Publisher, QueueState, TopologyConfig, TopologyError,
    topology::{COMMANDS, EVENTS, QUEUES},
};
use tokio_util::sync::CancellationToken;

use crate::support::{declare, fresh, link, plain, publisher_config, reach};

#[tokio::test]
async fn many_may_declare_at_once_and_again() {
    let (node, vhost, url) = fresh().await;
    let one = async || {
        let link = link(&url).await;
        for _ in 0..2 {
            declare(&link, &TopologyConfig::default()).await.unwrap();
        }
    };
    join_all((0..6).map(|_| one())).await;
    let mut names: Vec<String> = node
        .queues(&vhost)
        .await
        .unwrap()
        .into_iter()
        .map(|queue| queue.name)
        .collect();
    names.sort();
    let mut expected = QUEUES.map(str::to_owned);
    expected.sort();
    assert_eq!(names, expected);
}

#[tokio::test]
async fn the_server_names_its_version() {
    let (_node, _vhost, url) = fresh().await;
    let link = link(&url).await;
    assert!(link.server_version().major >= 3, "{}", link.server_version());
    assert!(!link.address().contains("guest:guest"), "{}", link.address());
}

#[tokio::test]
async fn a_queue_with_another_argument_is_named_with_both_values_and_the_way_out() {
    let (_node, _vhost, url) = fresh().await;
    let (_connection, channel) = plain(&url).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(5));
    channel
        .queue_declare(EVENTS.into(), QueueDeclareOptions::durable(), arguments)
        .await
        .unwrap();
    let link = link(&url).await;
    let error = declare(&link, &TopologyConfig::default()).await.unwrap_err();
    let shown = error.to_string();
    let TopologyError::Mismatch { object, remedy, .. } = error else {
        panic!("{shown}");
    };
    assert_eq!(object, "queue 'porchlight.events'");
    // A quorum queue cannot be deleted `--if-empty`, so that is seen before.
    assert!(
        remedy.contains("rabbitmqctl list_queues name messages")
            && remedy.contains("rabbitmqctl delete_queue porchlight.events,"),
        "{remedy}"
    );
    assert!(shown.contains("should be") && shown.contains("but is"), "{shown}");
}

#[tokio::test]
async fn a_delivery_limit_of_another_size_shows_both_sizes() {
    let (_node, _vhost, url) = fresh().await;
    let first = link(&url).await;
    declare(&first, &TopologyConfig::default()).await.unwrap();
    let retry_1m_ttl = std::time::Duration::from_secs(61);
    let error = declare(
        &first,
        &TopologyConfig {
            retry_1m_ttl,
            ..TopologyConfig::default()
        },
    )
    .await
    .unwrap_err();
    let TopologyError::Mismatch {
        object,
        argument,
        wanted,
        found,
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(object, "queue 'porchlight.retry.1m'");
    assert_eq!(
        (argument.as_str(), wanted.as_str(), found.as_str()),
        ("x-message-ttl", "61000", "60000")
    );
    declare(&first, &TopologyConfig::default())
        .await
        .expect("a mismatch must not spoil the connection");
}

#[tokio::test]
async fn an_exchange_of_another_type_is_named_and_the_publisher_shows_it_in_its_state() {
    let (_node, _vhost, url) = fresh().await;
    let (_connection, channel) = plain(&url).await;
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(
            COMMANDS.into(),
            ExchangeKind::Direct,
            options,
            FieldTable::default(),
        )
        .await
        .unwrap();
    let publisher = Publisher::start(publisher_config(&url), CancellationToken::new());
    let mismatch = |state: &QueueState| match state {
        QueueState::Connecting {
            last_error: Some(error),
        } => error.contains("exchange 'porchlight.commands': type should be topic but is direct"),
        _ => false,
    };
    reach(&mut publisher.state(), mismatch).await;
}

#[tokio::test]
async fn a_user_without_permission_learns_what_to_grant() {
    let (node, vhost, url) = fresh().await;
    node.eval(&format!(
        "rabbit_auth_backend_internal:set_permissions(<<\"guest\">>, <<\"{vhost}\">>, <<\"^$\">>, <<\"^$\">>, \
         <<\"^$\">>, <<\"test\">>), []"
    ))
    .await
    .unwrap();
    let error = declare(&link(&url).await, &TopologyConfig::default())
        .await
        .unwrap_err();
    assert!(matches!(error, TopologyError::Access { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("configure and read permission on ^porchlight"),
        "{error}"
    );
}
