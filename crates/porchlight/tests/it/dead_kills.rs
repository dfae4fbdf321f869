//! The tool killed at any moment while it replays, drops, exports and imports: every letter is accounted for.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use porchlight_broker::{BrokerUrls, Consumer, ConsumerConfig};
use porchlight_journal::{Journal, JournalConfig, Role};
use porchlight_queue::Queue;
use porchlight_testbed::{RabbitMq, wait_for};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::site::{Form, PATIENCE, Site};
use crate::tool::command;

const LETTERS: u64 = 600;
/// Letters that die of this may be dropped, others may not.
const DROPPABLE: &str = "not_json";
/// Within this time a killed one is killed: longer than any of the actions takes.
const ALIVE_MAX_MS: u64 = 700;

/// Runs it and kills it at a moment that differs from round to round.
async fn run_and_kill(site: &Site, arguments: &[&str], after: Duration) {
    let variables: Vec<_> = site
        .variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let mut child = command(arguments, &variables)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + after;
    tokio::time::timeout_at(until, std::future::pending::<()>())
        .await
        .unwrap_err();
    // It may have ended by itself.
    let _ = child.kill();
    child.wait().unwrap();
}

async fn dead(site: &Site) -> BTreeSet<String> {
    let look = async || {
        let ran = site.run(&["dead", "list", "--json", "--limit", "10000"]).await;
        if ran.code == 0 {
            Ok(ran.json())
        } else {
            Err(ran.stderr)
        }
    };
    let listed = wait_for("a look at the letters", PATIENCE, look).await.unwrap();
    let letters = listed["letters"].as_array().unwrap();
    let id = |letter: &Value| letter["message_id"].as_str().unwrap().to_owned();
    letters.iter().map(id).collect()
}

/// RabbitMQ takes back what a killed tool held a moment after it is gone; until then it is in no list.
async fn settled(site: &Site) {
    let amqp = site
        .variables
        .iter()
        .find(|(name, _)| *name == "PORCHLIGHT_AMQP_URL");
    let Some((_, url)) = amqp else {
        return;
    };
    let (node, vhost) = (RabbitMq::shared().await, url.rsplit('/').next().unwrap());
    wait_for("every letter back in the queue", PATIENCE, async || {
        let dead = node.queue(vhost, "porchlight.dead").await;
        let dead = dead.map_err(|error| error.to_string())?;
        let is_at_rest = dead.unacked == 0 && dead.consumers == 0;
        is_at_rest.then_some(()).ok_or_else(|| format!("{dead:?}"))
    })
    .await
    .unwrap();
}

/// The ids of the events that wait; of a broker's at least those that are wanted, if they are there. A letter that was
/// replayed and imported again waits as an event, too, so their number says nothing.
async fn events(site: &Site, wanted: &BTreeSet<String>) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    if let Queue::Sqlite(_) = &site.queue {
        let journal = Journal::open(JournalConfig::new(site.dir()), Role::Tool).unwrap();
        let rows = porchlight_journal::Queue::new(&journal);
        let mut after = 0;
        loop {
            let page = rows
                .waiting(false, after, 500, Instant::now() + PATIENCE)
                .await
                .unwrap();
            let Some(last) = page.last() else { return ids };
            after = last.seq;
            ids.extend(page.iter().map(|waiting| waiting.envelope.message_id.clone()));
        }
    }
    let (_, url) = site
        .variables
        .iter()
        .find(|(name, _)| *name == "PORCHLIGHT_AMQP_URL")
        .unwrap();
    let config = ConsumerConfig {
        prefetch_initial: 2000,
        ..ConsumerConfig::new(BrokerUrls::parse(url).unwrap(), "test")
    };
    let mut consumer = Consumer::start(config, CancellationToken::new());
    while !wanted.is_subset(&ids)
        && let Ok(Some(batch)) = tokio::time::timeout(PATIENCE, consumer.next_batch(500)).await
    {
        ids.extend(
            batch
                .deliveries
                .iter()
                .map(|delivery| delivery.envelope.message_id.clone()),
        );
    }
    consumer.close().await;
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_tool_does_when_it_is_killed_every_letter_is_accounted_for() {
    for form in [Form::Scaled, Form::Directory] {
        let site = Site::start(form).await;
        let (mut kept, mut all) = (BTreeSet::new(), BTreeSet::new());
        for number in 0..LETTERS {
            let reason = if number % 3 == 0 { DROPPABLE } else { "no_device" };
            let id = site.bury(number, reason, 0).await;
            if reason != DROPPABLE {
                kept.insert(id.clone());
            }
            all.insert(id);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (file, other) = (path("letters"), path("other"));
        site.run(&["dead", "export", &file]).await.expect(0);
        let actions: [&[&str]; 4] = [
            &["dead", "replay", "--reason", "no_device", "--max", "60", "--yes"],
            &["dead", "drop", "--reason", DROPPABLE, "--max", "60", "--yes"],
            &["dead", "export", &other, "--force"],
            &["dead", "import", &file, "--yes"],
        ];
        for round in 0..12_u64 {
            let action = actions[usize::try_from(round % 4).unwrap()];
            let after = Duration::from_millis(fastrand::u64(20..ALIVE_MAX_MS));
            run_and_kill(&site, action, after).await;
        }
        settled(&site).await;
        let dead = dead(&site).await;
        let moved: BTreeSet<_> = kept.difference(&dead).cloned().collect();
        let events = events(&site, &moved).await;
        let lost: Vec<_> = moved.difference(&events).collect();
        assert!(lost.is_empty(), "{form:?}: {} are nowhere", lost.len());
        assert!(dead.is_subset(&all) && events.is_subset(&all), "{form:?}");
        // An export that was killed left no file, or a whole one.
        if folder.path().join("other").exists() {
            site.run(&["dead", "import", &other]).await.expect(0);
        }
        // What was dropped comes back from the file that was made first.
        site.run(&["dead", "import", &file, "--yes"]).await.expect(0);
        settled(&site).await;
        let back = self::dead(&site).await;
        assert_eq!(back, all, "{form:?}");
    }
}
