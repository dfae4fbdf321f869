//! Everything at once: events three times each in random order, every process killed, the broker restarted.
//!
//! The short form is the one promised for every run; the long form is `tests/storm`, which hands its numbers down in
//! `PORCHLIGHT_STORM_DEVICES`, `_EVENTS`, `_ROUNDS` (of kills) and `_SEED`.
#![expect(clippy::print_stdout, reason = "the long form shows what it did")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use porchlight_testbed::{LoadGenerator, RingSchedule, wait_for};

use crate::oracle::{Delivered, Lives, OPERATION, account_id, device_id};
use crate::support::{ATTEMPTS, PATIENCE, Pipeline, Plan};

const COPIES: usize = 3;
/// Bodies that are no event; each must end in the dead letters, in as many copies as were accepted or more.
const POISON: usize = 5;

struct Size {
    devices: usize,
    events: usize,
    rounds: usize,
    seed: u64,
}

fn size() -> Size {
    let number = |name: &str, default: usize| {
        std::env::var(name).map_or(default, |text| {
            text.parse().unwrap_or_else(|_| panic!("{name} is no number"))
        })
    };
    Size {
        devices: number("PORCHLIGHT_STORM_DEVICES", 2_000),
        events: number("PORCHLIGHT_STORM_EVENTS", 20_000),
        rounds: number("PORCHLIGHT_STORM_ROUNDS", 1),
        seed: number("PORCHLIGHT_STORM_SEED", 0) as u64,
    }
}

/// Two ingresses and two workers while each is killed with -9 at least once and the broker is restarted once.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_with_every_process_killed_ends_with_each_status_right_and_each_owed_command_sent() {
    let size = size();
    let mut random = fastrand::Rng::with_seed(size.seed);
    let mut pipeline = Pipeline::start(Plan {
        own_broker: true,
        ingresses: 2,
        workers: 2,
        ..Plan::default()
    })
    .await;
    let lives = Lives::new(size.devices, size.events, &mut random);
    for index in 0..size.devices {
        pipeline
            .register(&device_id(index), OPERATION, Some(&account_id(index)))
            .await;
    }

    let mut bodies: Vec<Bytes> = Vec::new();
    for _ in 0..COPIES {
        bodies.extend(lives.events.iter().cloned().map(Bytes::from));
    }
    bodies.extend((0..POISON).map(|n| Bytes::from(format!("{{\"poison\": {n}"))));
    random.shuffle(&mut bodies);
    let total = bodies.len() as u64;
    let sending = LoadGenerator::new(pipeline.ingress_addresses(), pipeline.key.clone())
        .connections(64)
        .count(total)
        .retry(RingSchedule::steady(ATTEMPTS, Duration::from_millis(100)));
    let progress = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let seen = std::sync::Arc::clone(&progress);
    let sender = tokio::spawn(sending.run(move |n| {
        seen.fetch_max(n, std::sync::atomic::Ordering::Relaxed);
        bodies[usize::try_from(n).unwrap()].clone()
    }));

    havoc(&mut pipeline, &size, total, &progress).await;
    let report = sender.await.unwrap();
    assert_eq!(
        report.accepted.len() as u64,
        total,
        "not every event was accepted in the end: {report}"
    );
    for member in pipeline.members() {
        member.wait_until_ready().await;
    }
    pipeline.settle().await;
    check(&pipeline, &lives).await;
    println!("{report}");
}

/// Kills every process once a round, and restarts the broker once, spread over the time of sending.
async fn havoc(pipeline: &mut Pipeline, size: &Size, total: u64, progress: &std::sync::atomic::AtomicU64) {
    let members = pipeline.members().count();
    let steps = (members + 1) * size.rounds;
    for step in 0..steps {
        let at = total * (step as u64 + 1) / (steps as u64 + 2);
        wait_for("the sender to come so far", PATIENCE * 10, async || {
            let sent = progress.load(std::sync::atomic::Ordering::Relaxed);
            if sent >= at {
                Ok(())
            } else {
                Err(format!("{sent} of {at}"))
            }
        })
        .await
        .unwrap();
        match step % (members + 1) {
            victim if victim < members => pipeline
                .members_mut()
                .nth(victim)
                .unwrap()
                .kill9_and_start_again(),
            _ if step <= members => {
                pipeline.broker.node().kill();
                pipeline.broker.node().start_again().await.unwrap();
            }
            _ => {}
        }
    }
}

async fn check(pipeline: &Pipeline, lives: &Lives) {
    let commands = pipeline.commands().await;
    let mut delivered = Delivered::default();
    for (id, (_, sent)) in &commands {
        let action = delivered.note(&sent.body);
        assert_eq!(sent.body["id"], id.as_str());
        assert_eq!(sent.routing_key, format!("{}.snapshot", action.code()));
    }
    let mut shown = BTreeMap::new();
    for id in lives.devices() {
        shown.insert(id.clone(), pipeline.device(&id).await);
    }
    let wrong = lives.wrong(&shown, &delivered);
    assert!(
        wrong.is_empty(),
        "{} devices are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let dead = pipeline.broker.drain("porchlight.dead").await;
    let poison: BTreeSet<_> = dead.iter().map(|letter| letter.message_id.clone()).collect();
    assert_eq!(
        poison.len(),
        POISON,
        "the dead letters hold something else than the poison: {dead:?}"
    );
    println!(
        "{} commands of {} identities",
        commands.values().map(|(count, _)| count).sum::<usize>(),
        commands.len()
    );
}
