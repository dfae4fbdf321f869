//! Owed commands: held back, claimed, confirmed and replaced.

use crate::support::{apply, news, registration, store, store_on};
use porchlight_device::{Action, Command, State};
use porchlight_store::{Store, StoreConfig};
use std::collections::BTreeSet;
use std::time::Duration;

async fn with_operation(store: &Store, device: &str) {
    apply(store, &news("device_online", device, 10), 0).await.unwrap();
    store.register(device, &registration("op"), 0).await.unwrap();
}

async fn claimed(store: &Store, now_ms: i64) -> Vec<(Action, u64)> {
    store
        .claim(now_ms, 100)
        .await
        .unwrap()
        .iter()
        .map(|command| (command.action, command.generation))
        .collect()
}

#[tokio::test]
async fn a_command_is_claimed_after_its_head_start_and_again_after_growing_pauses() {
    let (_redis, store) = store().await;
    with_operation(&store, "dev").await;
    let now = 1_000_000;
    let owed = apply(&store, &news("device_offline", "dev", 20), now)
        .await
        .unwrap()
        .commands;
    assert_eq!(claimed(&store, now + 1_999).await, []);
    let due = now + 2_000;
    let mut at: Vec<i64> = Vec::new();
    for after in (0..1_300_000).step_by(500) {
        if claimed(&store, due + after).await == [(Action::Pause, 1)] {
            at.push(after);
        }
    }
    for pair in at.windows(2) {
        let (overdue, pause) = (pair[0].clamp(5_000, 300_000), pair[1] - pair[0]);
        let (shortest, longest) = ((overdue * 3 / 4).max(5_000), (overdue * 5 / 4).min(300_000));
        assert!((shortest..=longest + 500).contains(&pause), "{at:?}");
    }
    assert!((9..=14).contains(&at.len()), "{at:?}");
    assert_eq!(store.confirm(0, &owed).await, [Ok(true)]);
    assert_eq!(store.confirm(0, &owed).await, [Ok(false)]);
    assert_eq!(claimed(&store, i64::MAX).await, []);
}

#[tokio::test]
async fn a_confirmed_resume_runs_and_a_late_confirm_of_a_replaced_command_changes_nothing() {
    let (_redis, store) = store().await;
    with_operation(&store, "dev").await;
    let mut sent: Vec<Command> = Vec::new();
    for (event, at) in [
        ("device_offline", 20),
        ("device_online", 30),
        ("device_offline", 40),
    ] {
        sent.extend(apply(&store, &news(event, "dev", at), 0).await.unwrap().commands);
    }
    assert_eq!(store.confirm(0, &sent).await, [Ok(false), Ok(false), Ok(true)]);
    let state = async || store.device("dev").await.unwrap().unwrap().operations["op"].clone();
    assert_eq!(
        (state().await.state, state().await.generation),
        (State::Paused, 2)
    );
    let resume = apply(&store, &news("device_online", "dev", 50), 0)
        .await
        .unwrap()
        .commands;
    assert_eq!(state().await.state, State::Resuming);
    assert_eq!(store.confirm(0, &resume).await, [Ok(true)]);
    assert_eq!(
        (state().await.state, state().await.generation),
        (State::Running, 2)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sweepers_never_claim_the_same_command() {
    let (redis, store) = store().await;
    let other = store_on(&redis);
    for n in 0..120 {
        let device = format!("dev-{n}");
        with_operation(&store, &device).await;
        apply(&store, &news("device_offline", &device, 20), 0)
            .await
            .unwrap();
    }
    assert_eq!(store.backlog().await.unwrap().commands, 120);
    let (first, second) = tokio::join!(store.claim(5_000, 1000), other.claim(5_000, 1000));
    let ids: Vec<String> = [first.unwrap(), second.unwrap()]
        .concat()
        .iter()
        .map(Command::id)
        .collect();
    assert_eq!(ids.len(), 120);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 120);
}

#[tokio::test]
async fn a_claim_keeps_about_its_limit_and_serves_every_partition_in_turn() {
    let (_redis, store) = store().await;
    for n in 0..60 {
        let device = format!("dev-{n}");
        with_operation(&store, &device).await;
        apply(&store, &news("device_offline", &device, 20), 0)
            .await
            .unwrap();
    }
    let mut seen = BTreeSet::new();
    for _ in 0..60 {
        let some = store.claim(5_000, 7).await.unwrap();
        assert!(some.len() <= 7);
        seen.extend(some.iter().map(Command::id));
    }
    assert_eq!(seen.len(), 60);
}

#[tokio::test]
async fn with_a_settle_time_a_resume_waits_and_an_offline_meanwhile_takes_its_place() {
    let (redis, _) = store().await;
    let config = StoreConfig {
        settle: Duration::from_secs(30),
        ..StoreConfig::new(redis.url())
    };
    let store = Store::connect(&config).unwrap();
    with_operation(&store, "dev").await;
    assert_eq!(
        apply(&store, &news("device_offline", "dev", 20), 0)
            .await
            .unwrap()
            .commands
            .len(),
        1
    );
    assert_eq!(
        apply(&store, &news("device_online", "dev", 30), 0)
            .await
            .unwrap()
            .commands,
        []
    );
    assert_eq!(claimed(&store, 29_999).await, []);
    assert_eq!(
        apply(&store, &news("device_offline", "dev", 40), 29_999)
            .await
            .unwrap()
            .commands
            .len(),
        1
    );
    assert_eq!(claimed(&store, 31_998).await, []);
    assert_eq!(claimed(&store, 31_999).await, [(Action::Pause, 2)]);
    apply(&store, &news("device_online", "dev", 50), 40_000)
        .await
        .unwrap();
    assert_eq!(claimed(&store, 69_999).await, []);
    assert_eq!(claimed(&store, 70_000).await, [(Action::Resume, 2)]);
}

#[tokio::test]
async fn the_backlog_tells_its_oldest_command_however_often_it_was_claimed() {
    let (_redis, store) = store().await;
    assert_eq!(store.backlog().await.unwrap(), Default::default());
    for (device, at) in [("dev-1", 7_000), ("dev-2", 3_000), ("dev-3", 9_000)] {
        with_operation(&store, device).await;
        apply(&store, &news("device_offline", device, 20), at)
            .await
            .unwrap();
    }
    store.claim(100_000, 100).await.unwrap();
    let backlog = store.backlog().await.unwrap();
    assert_eq!((backlog.commands, backlog.oldest_ms), (3, Some(3_000)));
    assert_eq!(store.forget("dev-2", "op").await, Ok(true));
    let backlog = store.backlog().await.unwrap();
    assert_eq!((backlog.commands, backlog.oldest_ms), (2, Some(7_000)));
}
