//! Everything at once: events three times each in random order, every process killed, the broker restarted.
//!
//! The short form is the one promised for every run; the long form is `tests/storm`, which hands its numbers down in
//! `PORCHLIGHT_STORM_DEVICES`, `_EVENTS`, `_ROUNDS` (of kills) and `_SEED`.
#![expect(clippy::print_stdout, reason = "the long form shows what it did")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use porchlight_device::command::command_id;
use porchlight_device::model::Ledger;
use porchlight_device::{Action, News, Registration, State, Status};
use porchlight_event::RingEvent;
use porchlight_testbed::{LoadGenerator, RingSchedule, wait_for};

use crate::support::{PATIENCE, Pipeline, Plan, Sent, event, now_ms};

const COPIES: usize = 3;
/// Bodies that are no event; each must end in the dead letters, in as many copies as were accepted or more.
const POISON: usize = 5;
const OPERATION: &str = "nightly";

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

fn device_id(index: usize) -> String {
    format!("ava1.ring.device.{index:05}")
}

fn account_id(index: usize) -> String {
    format!("ava1.ring.account.{:03}", index % 100)
}

/// The distinct events, each device's own life in order: mostly offline and online, some removed and added again.
fn events(size: &Size, random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let begin = now_ms() - 86_400_000;
    (0..size.events)
        .map(|n| {
            let device = n % size.devices;
            let step = n / size.devices;
            let kind = match random.u8(0..100) {
                0 if device.is_multiple_of(10) => "device_removed",
                1..3 if device.is_multiple_of(10) => "device_added",
                3..10 => "motion_detected",
                pick if pick % 2 == 0 => "device_offline",
                _ => "device_online",
            };
            let at = begin + i64::try_from(step).unwrap() * 60_000 + random.i64(0..30_000);
            event(kind, &device_id(device), &account_id(device), at)
        })
        .collect()
}

/// Where the reference ends with the same events; operations are registered first, as in the pipeline.
fn reference(size: &Size, events: &[Vec<u8>]) -> Ledger {
    let mut ledger = Ledger::default();
    for index in 0..size.devices {
        let registration = Registration {
            operation_id: OPERATION.to_owned(),
            account_id: Some(account_id(index)),
            kind: "snapshot".to_owned(),
            params: "{}".to_owned(),
        };
        ledger
            .device(&device_id(index))
            .register(&registration, 0)
            .unwrap();
    }
    for body in events {
        ledger.apply(&News::new(&RingEvent::parse(body).unwrap(), 0).unwrap(), 0);
    }
    ledger
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
    let events = events(&size, &mut random);
    for index in 0..size.devices {
        pipeline
            .register(&device_id(index), OPERATION, Some(&account_id(index)))
            .await;
    }

    let mut bodies: Vec<Bytes> = Vec::new();
    for _ in 0..COPIES {
        bodies.extend(events.iter().cloned().map(Bytes::from));
    }
    bodies.extend((0..POISON).map(|n| Bytes::from(format!("{{\"poison\": {n}"))));
    random.shuffle(&mut bodies);
    let total = bodies.len() as u64;
    let sending = LoadGenerator::new(pipeline.ingress_addresses(), pipeline.key.clone())
        .connections(64)
        .count(total)
        .retry(RingSchedule::steady(600, Duration::from_millis(100)));
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
    check(&pipeline, &size, &reference(&size, &events)).await;
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

async fn check(pipeline: &Pipeline, size: &Size, reference: &Ledger) {
    let commands = pipeline.commands().await;
    let mut delivered: BTreeMap<String, BTreeSet<(u64, Action)>> = BTreeMap::new();
    for (id, (_, sent)) in &commands {
        let (device, generation, action) = read(sent);
        assert_eq!(
            *id,
            command_id(&device, OPERATION, generation, action),
            "a command under a second identity"
        );
        delivered.entry(device).or_default().insert((generation, action));
    }
    let mut wrong = Vec::new();
    for index in 0..size.devices {
        let id = device_id(index);
        let shown = pipeline.device(&id).await;
        let wanted = reference.devices[&id].status;
        if shown["status"] != wanted.code() {
            wrong.push(format!(
                "{id} is {} and should be {}",
                shown["status"],
                wanted.code()
            ));
        }
        let operation = &shown["operations"][0];
        let generation = operation["generation"].as_u64().unwrap();
        let state = State::from_code(operation["state"].as_str().unwrap()).unwrap();
        let of_device = delivered.get(&id).cloned().unwrap_or_default();
        let newest = of_device.last().copied();
        let owed = match state {
            State::Paused => Some((generation, Action::Pause)),
            State::Running if generation > 0 => Some((generation, Action::Resume)),
            State::Running => None,
            State::Cancelled => Some((generation, Action::Cancel)),
            State::Resuming => panic!("{id} still owes a resume after the outbox was empty"),
        };
        if newest != owed {
            wrong.push(format!(
                "{id} ended {state:?} in generation {generation} and the last command was {newest:?}"
            ));
        }
        let agrees = match wanted {
            Status::Online => matches!(state, State::Running | State::Cancelled),
            Status::Offline => matches!(state, State::Paused | State::Cancelled),
            Status::Removed => state == State::Cancelled,
            Status::Unknown => true,
        };
        if !agrees {
            wrong.push(format!(
                "{id} is {} with an operation that is {state:?}",
                wanted.code()
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} devices are wrong:\n{}",
        wrong.len(),
        size.devices,
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

fn read(sent: &Sent) -> (String, u64, Action) {
    assert_eq!(sent.body["id"], sent.message_id.as_str());
    assert_eq!(sent.body["operation"]["id"], OPERATION);
    let action = Action::from_code(sent.body["action"].as_str().unwrap()).unwrap();
    assert_eq!(sent.routing_key, format!("{}.snapshot", action.code()));
    (
        sent.body["device_id"].as_str().unwrap().to_owned(),
        sent.body["generation"].as_u64().unwrap(),
        action,
    )
}
