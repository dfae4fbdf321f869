//! `dead` on a private RabbitMQ: looking changes nothing, replaying loses nothing, even when it is killed.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use porchlight_broker::{
    BrokerUrls, DeathNote, Outgoing, PublishDeadlines, Publisher, PublisherConfig, QueueState,
};
use porchlight_event::Envelope;
use porchlight_event::sample::Sample;
use porchlight_testbed::{RabbitMq, wait_for};
use tokio_util::sync::CancellationToken;

use crate::tool::{command, run};

const PATIENCE: Duration = Duration::from_secs(60);

/// A virtual host with the topology and a publisher for letters.
struct Broker {
    node: &'static RabbitMq,
    vhost: String,
    url: String,
    publisher: Publisher,
}

impl Broker {
    async fn start() -> Self {
        let node = RabbitMq::shared().await;
        let vhost = node.vhost().await.unwrap();
        let url = node.url_for_vhost(&vhost);
        let config = PublisherConfig::new(BrokerUrls::parse(&url).unwrap(), "test");
        let publisher = Publisher::start(config, CancellationToken::new());
        let mut state = publisher.state();
        tokio::time::timeout(PATIENCE, state.wait_for(QueueState::is_ready))
            .await
            .unwrap()
            .unwrap();
        drop(state);
        Self {
            node,
            vhost,
            url,
            publisher,
        }
    }

    /// Puts a letter about device `d<number>` into the dead letters.
    async fn bury(&self, number: usize, reason: &str, replays: u32) -> String {
        let sample = Sample {
            event_type: if number.is_multiple_of(2) {
                "device_online"
            } else {
                "device_offline"
            },
            device_id: &format!("d{number}"),
            account_id: "acct",
            timestamp_ms: 1_000,
            sent_at_ms: 1_000,
            request_id: "r",
        };
        let mut envelope = Envelope::bare(Bytes::from(sample.body()));
        envelope.replay = replays;
        let note = DeathNote {
            reason,
            stage: "decide",
            detail: "a test wants it so",
            at_ms: 1_771_025_567_000,
        };
        let letter = Outgoing::dead(&envelope, note);
        self.publisher
            .publish(letter, PublishDeadlines::within(PATIENCE))
            .await
            .unwrap();
        envelope.message_id
    }

    async fn ready(&self, queue: &str) -> usize {
        usize::try_from(self.node.queue(&self.vhost, queue).await.unwrap().ready).unwrap()
    }

    async fn wait_for_ready(&self, queue: &str, wanted: usize) {
        let look = async || match self.ready(queue).await {
            ready if ready == wanted => Ok(()),
            ready => Err(format!("{ready} ready")),
        };
        wait_for(&format!("{wanted} in {queue}"), PATIENCE, look)
            .await
            .unwrap();
    }

    fn variables(&self) -> [(&str, &str); 1] {
        [("PORCHLIGHT_AMQP_URL", &self.url)]
    }
}

#[tokio::test]
async fn letters_are_listed_and_shown_and_stay_where_they_are() {
    let broker = Broker::start().await;
    let id = broker.bury(0, "no_device", 0).await;
    broker.bury(1, "not_json", 1).await;
    broker.bury(3, "not_json", 0).await;
    broker.wait_for_ready("porchlight.dead", 3).await;

    let listed = run(&["dead", "list", "--json"], &broker.variables())
        .await
        .expect(0)
        .json();
    assert_eq!((&listed["ready"], &listed["matching"]), (&3.into(), &3.into()));
    assert_eq!(
        listed["by_reason"],
        serde_json::json!({ "no_device": 1, "not_json": 2 })
    );
    let narrow = [
        "dead",
        "list",
        "--reason",
        "not_json",
        "--device",
        "d3",
        "--older-than",
        "1h",
        "--json",
    ];
    let listed = run(&narrow, &broker.variables()).await.expect(0).json();
    assert_eq!(
        (&listed["matching"], &listed["letters"][0]["type"]),
        (&1.into(), &"device_offline".into())
    );
    let text = run(&["dead", "list"], &broker.variables()).await.expect(0).stdout;
    assert!(
        text.contains("3 of 3 dead letters match") && text.lines().all(|line| line.len() <= 80),
        "{text}"
    );

    let shown = run(&["dead", "show", &id[..8]], &broker.variables())
        .await
        .expect(0)
        .stdout;
    assert!(
        shown.contains("a test wants it so") && !shown.contains("relationships"),
        "{shown}"
    );
    let shown = run(
        &["dead", "show", &id[..8], "--body", "--json"],
        &broker.variables(),
    )
    .await
    .expect(0)
    .json();
    assert!(
        shown[0]["body"].as_str().unwrap().contains("relationships"),
        "{shown}"
    );
    run(&["dead", "show", "nothing"], &broker.variables())
        .await
        .expect(1);
    broker.wait_for_ready("porchlight.dead", 3).await;
}

#[tokio::test]
async fn a_replay_without_yes_changes_nothing_and_with_yes_moves_what_is_meant() {
    let broker = Broker::start().await;
    for number in 0..6 {
        broker.bury(number, "no_device", 0).await;
    }
    broker.bury(8, "no_device", 3).await;
    broker.bury(9, "not_json", 0).await;
    broker.wait_for_ready("porchlight.dead", 8).await;

    let arguments = ["dead", "replay", "--reason", "no_device", "--json"];
    let dry = run(&arguments, &broker.variables()).await.expect(0).json();
    assert_eq!(
        (&dry["dry_run"], &dry["matching"], &dry["refused"]),
        (&true.into(), &6.into(), &1.into())
    );
    broker.wait_for_ready("porchlight.dead", 8).await;
    assert_eq!(broker.ready("porchlight.events").await, 0);

    let some = [&arguments[..], &["--yes", "--max", "2"]].concat();
    let report = run(&some, &broker.variables()).await.expect(0).json();
    assert_eq!(report["replayed"], 2);
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit");
    let rest = [
        &arguments[..],
        &["--yes", "--audit-file", audit.to_str().unwrap()],
    ]
    .concat();
    let report = run(&rest, &broker.variables()).await.expect(0).json();
    assert_eq!((&report["replayed"], &report["refused"]), (&4.into(), &1.into()));
    broker.wait_for_ready("porchlight.dead", 2).await;
    broker.wait_for_ready("porchlight.events", 6).await;

    let lines = std::fs::read_to_string(&audit).unwrap();
    let lines: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (begin, end) = (&lines[0], &lines[lines.len() - 1]);
    assert_eq!(
        (&begin["action"], &begin["step"], &end["step"]),
        (&"replay".into(), &"begin".into(), &"end".into())
    );
    assert_eq!(
        begin["about"]["filter"],
        serde_json::json!({ "reason": ["no_device"] })
    );
    assert!(
        begin["by"]["uid"].is_u64() && begin["by"]["host"].is_string(),
        "{begin}"
    );
    assert_eq!(end["outcome"]["replayed"], 4);
    let lines: Vec<_> = lines.iter().filter(|line| line.get("fate").is_some()).collect();
    let fates: Vec<_> = lines.iter().map(|line| line["fate"].as_str().unwrap()).collect();
    assert_eq!(
        fates.iter().filter(|fate| **fate == "replayed").count(),
        4,
        "{lines:?}"
    );
    assert_eq!(
        fates.iter().filter(|fate| **fate == "refused").count(),
        1,
        "{lines:?}"
    );

    let forced = [&arguments[..], &["--yes", "--force"]].concat();
    let ran = run(&forced, &broker.variables()).await.expect(0);
    assert_eq!(ran.json()["replayed"], 1);
    let line = ran.stderr.lines().nth(1).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["fate"], &line["replays"]), (&"replayed".into(), &4.into()));
}

#[tokio::test]
async fn a_replay_that_is_killed_loses_no_letter() {
    let broker = Broker::start().await;
    let mut ids = BTreeSet::new();
    for number in 0..40 {
        ids.insert(broker.bury(number, "no_device", 0).await);
    }
    broker.wait_for_ready("porchlight.dead", 40).await;
    // Slow enough that it is still at it when some are seen to be moved.
    let arguments = ["dead", "replay", "--yes", "--rate", "4"];
    let mut child = command(&arguments, &broker.variables())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let moved = async || match broker.ready("porchlight.events").await {
        moved @ 5.. => Ok(moved),
        moved => Err(format!("{moved} moved")),
    };
    wait_for("some letters to be moved", PATIENCE, moved)
        .await
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();

    // What it held goes back; a copy may stand beside its letter, but each is somewhere.
    let all = async || {
        let (dead, events) = (
            broker.ready("porchlight.dead").await,
            broker.ready("porchlight.events").await,
        );
        if dead + events >= ids.len() {
            Ok((dead, events))
        } else {
            Err(format!("{dead} dead, {events} moved"))
        }
    };
    let (dead, _) = wait_for("every letter to be somewhere", PATIENCE, all)
        .await
        .unwrap();
    assert!((1..40).contains(&dead), "it was killed in the middle");
    run(&["dead", "replay", "--yes"], &broker.variables())
        .await
        .expect(0);
    broker.wait_for_ready("porchlight.dead", 0).await;
    assert!(broker.ready("porchlight.events").await >= ids.len());
}

#[tokio::test]
async fn a_broker_without_our_queues_is_told_as_that() {
    let node = RabbitMq::shared().await;
    let vhost = node.vhost().await.unwrap();
    let url = node.url_for_vhost(&vhost);
    let ran = run(&["dead", "list"], &[("PORCHLIGHT_AMQP_URL", &url)])
        .await
        .expect(69);
    assert!(ran.stderr.contains("no queue 'porchlight.dead'"), "{ran:?}");
}
