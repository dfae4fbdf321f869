//! lapin's two traps on a channel shared by several publishers, shown to exist, and our publisher beside them.
//!
//! Trap A: a publish awaits the confirm of another. Trap B: a returned publish resolves as cleanly acked.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use lapin::{
    BasicProperties, Channel, Confirmation, ExchangeKind,
    options::{
        BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::FieldTable,
};
use porchlight_broker::{Outgoing, PublishError, Publisher, PublisherConfig};
use porchlight_testbed::wait_for;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    scripted_peer::{Received, ScriptedPeer, ack, nack, returned},
    support::{PATIENCE, event, fresh, plain, publish, publisher, publisher_config, started},
};

/// Publishers that work at once; more than the machine has cores, so that they interrupt each other anywhere.
const PUBLISHERS: usize = 8;
/// How long to try to provoke what must not happen.
const STRESS: Duration = Duration::from_secs(3);
/// How long a race may take to happen.
const RACE_PATIENCE: Duration = Duration::from_secs(300);

async fn publish_plainly(channel: &Channel, exchange: &str, key: &str, body: &str) -> Confirmation {
    let options = BasicPublishOptions {
        mandatory: true,
        immediate: false,
    };
    let sent = channel.basic_publish(
        exchange.into(),
        key.into(),
        options,
        body.as_bytes(),
        BasicProperties::default(),
    );
    sent.await.unwrap().await.unwrap()
}

fn text(received: &Received) -> String {
    String::from_utf8(received.body.clone()).unwrap()
}

/// Takes a round of publishes from the peer, then acks them one by one and compares who hears of each.
async fn swapped_in_round(
    peer: &mut ScriptedPeer,
    done: &mut tokio::sync::mpsc::Receiver<String>,
    count: usize,
) -> Vec<(String, String)> {
    let mut in_order = Vec::new();
    for _ in 0..count {
        in_order.push(peer.next().await);
    }
    let mut swapped = Vec::new();
    for received in in_order {
        peer.answer(&[ack(received.channel, received.tag, false)]).await;
        let told = tokio::time::timeout(PATIENCE, done.recv())
            .await
            .expect("nobody heard of an ack")
            .unwrap();
        if told != text(&received) {
            swapped.push((text(&received), told));
        }
    }
    swapped
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn on_a_shared_channel_a_publish_hears_the_confirm_of_another() {
    let mut peer = ScriptedPeer::start().await;
    let (_connection, channel) = plain(&peer.url()).await;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    let (report, mut done) = tokio::sync::mpsc::channel(1024);
    let began = Instant::now();
    let mut rounds = 0;
    loop {
        rounds += 1;
        let mut tasks = JoinSet::new();
        for publisher in 0..PUBLISHERS {
            for number in 0..16 {
                let (channel, report) = (channel.clone(), report.clone());
                tasks.spawn(async move {
                    let body = format!("{publisher}-{number}");
                    publish_plainly(&channel, "e", "", &body).await;
                    report.send(body).await.unwrap();
                });
            }
        }
        if !swapped_in_round(&mut peer, &mut done, PUBLISHERS * 16)
            .await
            .is_empty()
        {
            return;
        }
        assert!(
            began.elapsed() < RACE_PATIENCE,
            "no swap in {rounds} rounds; lapin may have closed the gap"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn our_publishes_each_hear_their_own_confirm() {
    let mut peer = ScriptedPeer::start().await;
    let config = PublisherConfig {
        channel_count: 1,
        ..publisher_config(&peer.url())
    };
    let publisher = started(config).await;
    let (report, mut done) = tokio::sync::mpsc::channel(1024);
    for round in 0..40 {
        let mut tasks = JoinSet::new();
        for publishing in 0..PUBLISHERS * 16 {
            let (publisher, report) = (publisher.clone(), report.clone());
            tasks.spawn(async move {
                let body = format!("{round}-{publishing}");
                publish(&publisher, event(&body)).await.unwrap();
                report.send(body).await.unwrap();
            });
        }
        let swapped = swapped_in_round(&mut peer, &mut done, PUBLISHERS * 16).await;
        assert!(swapped.is_empty(), "acked and told: {swapped:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_a_shared_channel_a_returned_publish_can_pass_for_stored() {
    let (_node, _vhost, url) = fresh().await;
    let (_connection, channel) = plain(&url).await;
    half_routable(&channel).await;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    let channel = Arc::new(channel);
    let began = Instant::now();
    let mut published = 0;
    loop {
        let mut tasks = JoinSet::new();
        for number in 0..128 {
            let channel = Arc::clone(&channel);
            tasks.spawn(async move {
                let routable = number % 7 != 0;
                let confirmation =
                    publish_plainly(&channel, "half", if routable { "yes" } else { "no" }, "body").await;
                !routable && confirmation == Confirmation::Ack(None)
            });
        }
        published += 128;
        if tasks
            .join_all()
            .await
            .into_iter()
            .any(|passed_for_stored| passed_for_stored)
        {
            return;
        }
        assert!(
            began.elapsed() < RACE_PATIENCE,
            "never in {published} publishes; lapin may have closed the gap"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_unroutable_publish_of_ours_passes_for_stored() {
    let (_node, _vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    let (_connection, channel) = plain(&url).await;
    half_routable(&channel).await;
    let mut stored = 0;
    for _ in 0..40 {
        let mut tasks = JoinSet::new();
        for number in 0..128 {
            let publisher = publisher.clone();
            tasks.spawn(async move {
                let routable = number % 61 != 0;
                let outgoing = Outgoing::to(
                    "half",
                    if routable { "yes" } else { "no" },
                    Bytes::from_static(b"body"),
                );
                (routable, publish(&publisher, outgoing).await)
            });
        }
        for (routable, outcome) in tasks.join_all().await {
            match outcome {
                Ok(_) => {
                    assert!(routable, "an unroutable publish passed for stored");
                    stored += 1;
                }
                Err(error) => assert_eq!(error, PublishError::Returned),
            }
        }
    }
    assert!(stored > 0, "every routable publish was failed, too");
    // Who is told of another one's return does not wait for the confirm of its own.
    wait_for("every return", PATIENCE, async || match publisher.stats() {
        stats if stats.returned_total >= 40 * 3 => Ok(()),
        stats => Err(format!("{stats:?}")),
    })
    .await
    .unwrap();
}

/// A direct exchange without an alternate, with a queue under `yes` and nothing under any other key.
async fn half_routable(channel: &Channel) {
    let kind = ExchangeKind::Direct;
    channel
        .exchange_declare(
            "half".into(),
            kind,
            ExchangeDeclareOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    channel
        .queue_declare(
            "half".into(),
            QueueDeclareOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    channel
        .queue_bind(
            "half".into(),
            "half".into(),
            "yes".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
}

/// Every interleaving of returns and confirms that a broker may send, at random, against one lane.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_order_confirms_and_returns_come_in_no_returned_publish_is_a_success() {
    let mut peer = ScriptedPeer::start().await;
    let config = PublisherConfig {
        channel_count: 1,
        ..publisher_config(&peer.url())
    };
    let publisher = started(config).await;
    let mut random = fastrand::Rng::with_seed(0x9e37_79b9);
    let mut stored = 0;
    for round in 0..400 {
        let count = random.usize(1..24);
        let tasks = publish_all(&publisher, round, count);
        let mut in_order = Vec::new();
        for _ in 0..count {
            in_order.push(peer.next().await);
        }
        let fates = answer_at_random(&mut random, &peer, &in_order).await;
        for (body, outcome) in tasks.join_all().await {
            match outcome {
                Ok(_) => {
                    assert_eq!(
                        fates[&body],
                        Fate::Stored,
                        "round {round}: {body} passed for stored"
                    );
                    stored += 1;
                }
                Err(PublishError::Returned) => {}
                Err(PublishError::Nacked) => assert_eq!(fates[&body], Fate::Refused, "round {round}: {body}"),
                Err(other) => panic!("round {round}: {body}: {other}"),
            }
        }
    }
    assert!(
        stored > 500,
        "only {stored} were stored: the publisher fails too much"
    );
}

/// Answers come while publishes are still being sent, so that slots are woken and resolved all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn under_answers_without_pause_no_returned_publish_is_a_success() {
    let mut peer = ScriptedPeer::start().await;
    let config = PublisherConfig {
        channel_count: 1,
        ..publisher_config(&peer.url())
    };
    let publisher = started(config).await;
    let stop = CancellationToken::new();
    let stored = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for publishing in 0..200 {
        let (publisher, stop, stored) = (publisher.clone(), stop.clone(), stored.clone());
        tasks.spawn(async move {
            for number in 0.. {
                if stop.is_cancelled() {
                    break;
                }
                let returned = (publishing + number) % 150 == 0;
                let kind = if returned { "returned" } else { "stored" };
                match publish(&publisher, event(kind)).await {
                    Ok(_) if returned => return Err(format!("{publishing}-{number} passed for stored")),
                    Ok(_) => drop(stored.fetch_add(1, Ordering::Relaxed)),
                    Err(_) => {}
                }
            }
            Ok(())
        });
    }
    let began = Instant::now();
    // On a slow machine it takes longer until some are stored in spite of all that are returned beside them.
    while began.elapsed() < STRESS || stored.load(Ordering::Relaxed) <= 1_000 {
        assert!(began.elapsed() < RACE_PATIENCE, "{stored:?} stored");
        let burst = peer.next_burst().await;
        let mut frames: Vec<Vec<u8>> = burst
            .iter()
            .filter(|received| received.body == b"returned")
            .map(returned)
            .collect();
        let last = &burst[burst.len() - 1];
        frames.push(ack(last.channel, last.tag, true));
        peer.answer(&frames).await;
    }
    stop.cancel();
    // The last ones are answered by the end of the connection.
    drop(peer);
    for heard in tasks.join_all().await {
        heard.unwrap();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stored,
    Refused,
    Returned,
}

fn publish_all(
    publisher: &Publisher,
    round: usize,
    count: usize,
) -> JoinSet<(String, Result<porchlight_broker::Confirmed, PublishError>)> {
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let (publisher, body) = (publisher.clone(), format!("{round}-{number}"));
        tasks.spawn(async move { (body.clone(), publish(&publisher, event(&body)).await) });
    }
    tasks
}

/// Confirms every publish once, in frames of one or several tags, each return somewhere before its own confirm.
async fn answer_at_random(
    random: &mut fastrand::Rng,
    peer: &ScriptedPeer,
    in_order: &[Received],
) -> HashMap<String, Fate> {
    let any_returned = random.bool();
    let fate = |random: &mut fastrand::Rng| match random.u8(0..10) {
        0 | 1 if any_returned => Fate::Returned,
        2 => Fate::Refused,
        _ => Fate::Stored,
    };
    let fates: Vec<Fate> = in_order.iter().map(|_| fate(random)).collect();
    let mut frames = Vec::new();
    let mut returned_so_far: HashSet<usize> = HashSet::new();
    let mut next = 0;
    while next < in_order.len() {
        let ahead = random.usize(next..in_order.len());
        for index in 0..=ahead {
            if fates[index] == Fate::Returned && index >= next && returned_so_far.insert(index) {
                frames.push(returned(&in_order[index]));
            }
        }
        // A confirm of several tags covers one kind only: a returned publish is acked.
        let refused = fates[next] == Fate::Refused;
        let same = |index: usize| (fates[index] == Fate::Refused) == refused;
        let mut last = next;
        while last < ahead && same(last + 1) && random.u8(0..4) > 0 {
            last += 1;
        }
        let (channel, tag) = (in_order[last].channel, in_order[last].tag);
        frames.push(if refused {
            nack(channel, tag, last > next)
        } else {
            ack(channel, tag, last > next)
        });
        next = last + 1;
        if random.u8(0..3) == 0 {
            peer.answer(&frames).await;
            frames.clear();
        }
    }
    peer.answer(&frames).await;
    in_order.iter().map(text).zip(fates).collect()
}
