//! A server that is away, frozen, full, read-only, forgetful or killed.

use crate::support::{PATIENCE, apply, news, registration, store, store_on};
use porchlight_device::{Action, Decision, News, Outcome};
use porchlight_store::{Store, StoreConfig, StoreError};
use porchlight_testbed::redis::{Fsync, Reply};
use porchlight_testbed::{Redis, wait_for};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

async fn apply_in_the_end(store: &Store, news: &News) -> Decision {
    wait_for("the event to be taken", PATIENCE, async || {
        apply(store, news, 0).await.map_err(|error| error.to_string())
    })
    .await
    .unwrap()
}

fn everything(redis: &Redis) -> Reply {
    let script = "local all = redis.call('KEYS', '*')
        table.sort(all)
        for i, key in ipairs(all) do all[i] = key .. ' ' .. redis.sha1hex(redis.call('DUMP', key)) end
        return all";
    redis.command(&["EVAL_RO", script, "0"]).unwrap()
}

#[tokio::test]
async fn a_store_starts_before_its_server_and_heals_when_that_comes_and_goes() {
    let redis = Redis::prepare(Fsync::Always, None).unwrap();
    let store = store_on(&redis);
    let error = apply(&store, &news("device_online", "dev", 1), 0)
        .await
        .unwrap_err();
    assert!(
        matches!(error, StoreError::Unavailable(_)) && error.is_fault(),
        "{error:?}"
    );
    assert!(store.probe(0).await.is_err());
    redis.start_again().await.unwrap();
    assert_eq!(
        apply_in_the_end(&store, &news("device_online", "dev", 1))
            .await
            .outcome,
        Outcome::Applied
    );
    redis.kill();
    let error = apply(&store, &news("device_online", "dev", 2), 0)
        .await
        .unwrap_err();
    assert!(error.is_fault(), "{error:?}");
    redis.start_again().await.unwrap();
    assert_eq!(
        apply_in_the_end(&store, &news("device_online", "dev", 2))
            .await
            .outcome,
        Outcome::Applied
    );
    assert_eq!(store.probe(0).await, Ok(()));
}

#[tokio::test]
async fn a_full_server_refuses_each_call_whole_and_lets_the_outbox_drain() {
    let (redis, store) = store().await;
    apply(&store, &news("device_online", "dev", 1), 0).await.unwrap();
    store.register("dev", &registration("op"), 0).await.unwrap();
    apply(&store, &news("device_offline", "dev", 2), 0).await.unwrap();
    redis.command(&["CONFIG", "SET", "maxmemory", "1000"]).unwrap();
    let before = everything(&redis);
    let events = [
        news("device_online", "dev", 3),
        news("app_integration_removed", "", 4),
    ];
    for result in store.apply_batch(0, &events, 0).await {
        assert_eq!(result, Err(StoreError::Full));
    }
    assert!(store.register("dev", &registration("op-2"), 0).await.is_err());
    assert_eq!(store.probe(0).await, Err(StoreError::Full));
    assert_eq!(everything(&redis), before);
    let owed = store.claim(5_000, 10).await.unwrap();
    assert_eq!(store.confirm(0, &owed).await, [Ok(true)]);
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    for result in store.apply_batch(0, &events, 0).await {
        assert_eq!(result.unwrap().outcome, Outcome::Applied);
    }
}

#[tokio::test]
async fn a_replica_refuses_events_and_takes_them_once_promoted() {
    let (redis, store) = store().await;
    apply(&store, &news("device_online", "dev", 1), 0).await.unwrap();
    redis.command(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
    let before = everything(&redis);
    let error = apply(&store, &news("device_offline", "dev", 2), 0)
        .await
        .unwrap_err();
    assert!(
        matches!(error, StoreError::ReadOnly(_)) && error.is_fault(),
        "{error:?}"
    );
    assert_eq!(everything(&redis), before);
    assert_eq!(
        store.server_facts().await.unwrap().warnings(),
        ["the store is a replica and takes no writes"]
    );
    redis.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    assert_eq!(
        apply_in_the_end(&store, &news("device_offline", "dev", 2))
            .await
            .outcome,
        Outcome::Applied
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_the_scripts_under_load_is_not_noticed() {
    let (redis, store) = store().await;
    let redis = Arc::new(redis);
    let stop = Arc::new(AtomicBool::new(false));
    let flushes = Arc::new(AtomicUsize::new(0));
    let flusher = std::thread::spawn({
        let (redis, stop, flushes) = (redis.clone(), stop.clone(), flushes.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                redis.command(&["SCRIPT", "FLUSH"]).unwrap();
                flushes.fetch_add(1, Ordering::Relaxed);
                std::thread::yield_now();
            }
        }
    });
    let (mut applied, mut rounds) = (0, 0);
    while rounds < 100 || flushes.load(Ordering::Relaxed) <= 10 {
        assert!(!flusher.is_finished(), "a flush failed");
        let at = i64::try_from(rounds).unwrap();
        rounds += 1;
        let events: Vec<News> = (0..64)
            .map(|n| news("device_online", &format!("dev-{n}"), at))
            .collect();
        for (event, result) in events.iter().zip(store.apply_batch(0, &events, 0).await) {
            match result {
                Ok(decision) => applied += usize::from(decision.outcome == Outcome::Applied),
                // It forgot them twice within one call: then this is one more fault to be repeated.
                Err(error) => {
                    assert!(error.is_fault(), "{error:?}");
                    applied += usize::from(apply_in_the_end(&store, event).await.outcome == Outcome::Applied);
                }
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    flusher.join().unwrap();
    assert_eq!(applied, 64 * rounds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_before_a_kill_is_there_after_it() {
    let redis = Redis::start().await.unwrap();
    let store = store_on(&redis);
    let (taken, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let loader = tokio::spawn({
        let (store, taken, stop) = (store.clone(), taken.clone(), stop.clone());
        async move {
            let mut answered: Vec<News> = Vec::new();
            for at in (0_i64..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                let event = |n: usize| news("device_online", &format!("dev-{n}"), at);
                let events: Vec<News> = (0..32).map(event).collect();
                let results = store.apply_batch(answered.len() / 32, &events, 0).await;
                let taken_now = events
                    .into_iter()
                    .zip(results)
                    .filter(|(_, result)| result.is_ok());
                answered.extend(taken_now.map(|(event, _)| event));
                taken.store(answered.len(), Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
            answered
        }
    });
    for round in 1..=4 {
        wait_for("some load", PATIENCE, async || {
            match taken.load(Ordering::Relaxed) {
                enough if enough > 1000 * round => Ok(()),
                few => Err(format!("{few} events")),
            }
        })
        .await
        .unwrap();
        redis.restart().await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let answered = loader.await.unwrap();
    assert!(answered.len() > 3000);
    apply_in_the_end(&store, &answered[0]).await;
    for events in answered.chunks(64) {
        for result in store.apply_batch(0, events, 0).await {
            assert_eq!(result.unwrap().outcome, Outcome::Duplicate);
        }
    }
}

#[tokio::test]
async fn a_frozen_server_times_out_and_the_same_call_again_has_no_second_effect() {
    let (redis, patient) = store().await;
    apply(&patient, &news("device_online", "dev", 1), 0)
        .await
        .unwrap();
    patient.register("dev", &registration("op"), 0).await.unwrap();
    let store = Store::connect(&StoreConfig::new(redis.url())).unwrap();
    // So that it has a connection, however long that takes.
    apply_in_the_end(&store, &news("device_online", "dev", 1)).await;
    let offline = news("device_offline", "dev", 2);
    redis.pause();
    assert_eq!(apply(&store, &offline, 0).await, Err(StoreError::TimedOut));
    let again = apply(&store, &offline, 0).await.unwrap_err();
    assert!(again.is_fault());
    redis.resume();
    let decision = apply_in_the_end(&store, &offline).await;
    assert!(matches!(decision.outcome, Outcome::Applied | Outcome::Duplicate));
    let device = patient.device("dev").await.unwrap().unwrap();
    assert_eq!((device.operations["op"].generation, device.owed.len()), (1, 1));
    assert_eq!(device.owed["op"].action, Action::Pause);
    assert_eq!(
        patient.device_view("dev").await.unwrap().unwrap().history.len(),
        2
    );
}

#[tokio::test]
async fn marks_are_written_last_and_the_outbox_first() {
    let redis = Redis::start().await.unwrap();
    let store = store_on(&redis);
    apply(&store, &news("device_online", "dev", 1), 0).await.unwrap();
    store.register("dev", &registration("op"), 0).await.unwrap();
    let log = || {
        let folder = redis.directory().join("appendonlydir");
        let files = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().path());
        let grown = files
            .into_iter()
            .find(|path| path.to_string_lossy().ends_with(".incr.aof"))
            .unwrap();
        String::from_utf8_lossy(&std::fs::read(grown).unwrap()).into_owned()
    };
    let keys = |written: &str| -> Vec<String> {
        let kind = |line: &str| {
            Some(
                line.strip_prefix("porchlight:{")?
                    .get(5..)?
                    .split(':')
                    .next()?
                    .to_owned(),
            )
        };
        written.lines().filter_map(kind).collect()
    };
    let before = log().len();
    apply(&store, &news("device_offline", "dev", 2), 0).await.unwrap();
    assert_eq!(
        keys(&log()[before..]),
        ["ob", "due", "ow", "o", "d", "n", "n", "h", "dd"]
    );
    let before = log().len();
    apply(&store, &news("app_integration_removed", "", 3), 0)
        .await
        .unwrap();
    let written = keys(&log()[before..]);
    let of_account: Vec<&str> = written
        .iter()
        .map(String::as_str)
        .filter(|key| *key != "dl")
        .collect();
    assert_eq!(of_account[..4], ["fan", "ac", "dd", "dd"], "{written:?}");
}

#[tokio::test]
async fn the_server_tells_what_an_operator_should_know() {
    let (redis, store) = store().await;
    let facts = store.server_facts().await.unwrap();
    assert_eq!(
        (facts.maxmemory_policy.as_deref(), facts.append_only),
        (Some("noeviction"), Some(true))
    );
    assert!(
        facts.version.is_some() && facts.run_id.is_some() && facts.warnings().is_empty(),
        "{facts:?}"
    );
    redis
        .command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .unwrap();
    redis.command(&["CONFIG", "SET", "appendonly", "no"]).unwrap();
    assert_eq!(store.server_facts().await.unwrap().warnings().len(), 2);
}

#[tokio::test]
async fn a_server_that_refuses_the_connection_itself_is_a_fault_and_buries_no_event() {
    let redis = Redis::start().await.unwrap();
    let unexpected_password = format!("redis://:a-password@{}", redis.address());
    let store = Store::connect(&StoreConfig::new(unexpected_password)).unwrap();
    let error = apply(&store, &news("device_online", "dev", 1), 0)
        .await
        .unwrap_err();
    assert!(error.is_fault(), "{error:?}");
    assert!(!error.to_string().contains("a-password"), "{error}");
}
