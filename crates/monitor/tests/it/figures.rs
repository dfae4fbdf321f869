//! The figures themselves, of each kind of queue, with and without the management API.

use bytes::Bytes;
use porchlight_broker::topology::{COMMANDS, EVENTS, QUEUES};
use porchlight_event::Envelope;
use porchlight_event::queue::DeathNote;
use porchlight_journal::{Journal, JournalConfig, Role};
use porchlight_monitor::{Management, QueueWatch};
use porchlight_queue::{Deadlines, DepthReader, Queue, Source};
use porchlight_testbed::RabbitMq;
use tokio_util::sync::CancellationToken;

use crate::bench::{INTERVAL, PATIENCE, Watched, fill};

fn of(figure: &str, queue: &str) -> String {
    format!("{figure}{{queue=\"{queue}\"}}")
}

#[tokio::test]
async fn every_queue_of_rabbitmq_is_shown_and_what_amqp_does_not_tell_is_absent() {
    let node = RabbitMq::shared().await;
    let vhost = node.vhost().await.unwrap();
    let url = node.url_for_vhost(&vhost);
    let mut watched = Watched::rabbit(&url, None);
    watched.wait("watch_up", Some(1.0)).await;
    assert_eq!(
        watched.value(&of("exists", EVENTS)),
        Some(0.0),
        "nobody declared it yet"
    );
    fill(&url, 3).await;
    watched.wait(&of("ready", EVENTS), Some(3.0)).await;
    for queue in QUEUES {
        assert_eq!(watched.value(&of("exists", queue)), Some(1.0), "{queue}");
        assert_eq!(watched.value(&of("consumers", queue)), Some(0.0), "{queue}");
        for unknown in ["unacked", "bytes", "oldest_age_seconds"] {
            assert_eq!(watched.value(&of(unknown, queue)), None, "{unknown} of {queue}");
        }
    }
    assert_eq!(watched.value("management_up"), None);
    node.delete_queue(&vhost, COMMANDS).await.unwrap();
    watched.wait(&of("exists", COMMANDS), Some(0.0)).await;
    assert_eq!(
        watched.value(&of("ready", COMMANDS)),
        None,
        "not zero: it is not there"
    );
    watched.stop().await;
    assert_eq!(watched.series(), 0, "nobody reads any more");
}

#[tokio::test]
async fn with_the_management_api_messages_in_hand_and_bytes_are_shown_and_without_it_the_rest_goes_on() {
    let node = RabbitMq::shared().await;
    let vhost = node.vhost().await.unwrap();
    let url = node.url_for_vhost(&vhost);
    let management = node.management_url().await.unwrap();
    fill(&url, 3).await;
    let api = |url: &str| {
        Management::new(
            porchlight_management::ManagementUrl::parse(url).unwrap(),
            PATIENCE,
        )
    };
    let watched = Watched::rabbit(&url, Some(api(&management).unwrap()));
    watched.wait(&of("unacked", EVENTS), Some(0.0)).await;
    watched.wait(&of("bytes", EVENTS), Some(18.0)).await;
    assert_eq!(watched.value("management_up"), Some(1.0));
    let (holding, _channel) = hold_all(&url).await;
    watched.wait(&of("unacked", EVENTS), Some(3.0)).await;
    watched.wait(&of("ready", EVENTS), Some(0.0)).await;
    holding.close(200, "done".into()).await.unwrap();

    let wrong = management.replace("guest:guest", "guest:wrong");
    let watched = Watched::rabbit(&url, Some(api(&wrong).unwrap()));
    watched.wait(&of("ready", EVENTS), Some(3.0)).await;
    assert_eq!(watched.value("management_up"), Some(0.0));
    assert_eq!(watched.value(&of("unacked", EVENTS)), None);
}

/// Takes every event and acks none, until both are dropped.
async fn hold_all(url: &str) -> (lapin::Connection, lapin::Channel) {
    let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    while let Some(got) = channel
        .basic_get(EVENTS.into(), lapin::options::BasicGetOptions::default())
        .await
        .unwrap()
    {
        drop(got);
    }
    (connection, channel)
}

#[tokio::test]
async fn of_a_file_everything_is_known_ages_and_consumers_included() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(JournalConfig::new(folder.path().join("data")), Role::Daemon).unwrap();
    let rows = porchlight_journal::Queue::new(&journal);
    let queue = Queue::Sqlite(rows.clone());
    let source = porchlight_journal::Source::start(&journal, Default::default(), CancellationToken::new());
    let mut source = Source::Sqlite(source);
    let watch = QueueWatch::new(DepthReader::Sqlite(rows), INTERVAL).consumed_by(source.state());
    let mut watched = Watched::start(watch);
    watched.wait(&of("oldest_age_seconds", EVENTS), Some(0.0)).await;
    watched.wait(&of("consumers", EVENTS), Some(1.0)).await;
    let envelope = Envelope::bare(Bytes::from_static(b"body"));
    queue
        .accept(&envelope, Deadlines::within(PATIENCE))
        .await
        .unwrap();
    let batch = source.next_batch(8).await.unwrap();
    assert_eq!(batch.deliveries.len(), 1);
    watched.wait(&of("unacked", EVENTS), Some(1.0)).await;
    assert_eq!(watched.value(&of("bytes", EVENTS)), Some(4.0));
    assert!(watched.value(&of("oldest_age_seconds", EVENTS)).unwrap() > 0.0);
    let note = DeathNote {
        reason: "not_json",
        stage: "parse",
        detail: "a test",
        at_ms: 1,
    };
    queue
        .bury(&envelope, note, Deadlines::within(PATIENCE))
        .await
        .unwrap();
    watched.wait(&of("ready", "porchlight.dead"), Some(1.0)).await;
    watched.stop().await;
    journal.close(PATIENCE).await;
}
