//! Where a device and its account meet: crashes half-way and races, run for real.

use crate::support::{Event, apply, news, registration, store, store_on};
use porchlight_device::{Action, Outcome, State, Status};
use porchlight_store::Store;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;

/// Rounds of each race.
const ROUNDS: usize = 300;

fn device_event(event_type: &str, device_id: &str, account_id: &str, at: i64) -> porchlight_device::News {
    Event {
        event_type,
        device_id,
        account_id: Some(account_id),
        at,
        request_id: None,
    }
    .news()
}

async fn status(store: &Store, device_id: &str) -> Status {
    store.device(device_id).await.unwrap().unwrap().status
}

/// Drives a future for a number of polls and drops it, as a crash would: what it has sent by then is on its way.
async fn drop_after(polls: usize, future: impl Future) -> bool {
    let mut future = pin!(future);
    let mut count = 0;
    let finished = std::future::poll_fn(|context| {
        count += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if count > polls => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    for _ in 0..4 {
        // The connection's own task sends; it gives up what nobody waits for any more.
        tokio::task::yield_now().await;
    }
    finished
}

#[tokio::test]
async fn a_removal_that_was_cut_short_anywhere_reaches_every_device_in_the_end() {
    let (_redis, store) = store().await;
    let mut cut_short = 0;
    for polls in 0..24 {
        let account = format!("acct-{polls}");
        let devices: Vec<String> = (0..70).map(|n| format!("dev-{polls}-{n}")).collect();
        for device in &devices {
            apply(&store, &device_event("device_online", device, &account, 10), 0)
                .await
                .unwrap();
        }
        store
            .register(&devices[69], &registration("op"), 0)
            .await
            .unwrap();
        let removal = device_event("app_integration_removed", "", &account, 20);
        cut_short += usize::from(!drop_after(polls, apply(&store, &removal, 100)).await);
        let again = apply(&store, &removal, 200).await.unwrap();
        assert!(matches!(again.outcome, Outcome::Applied | Outcome::Duplicate));
        store.spread_pending(10_000).await.unwrap();
        for device in &devices {
            assert_eq!(
                status(&store, device).await,
                Status::Removed,
                "cut after {polls} polls"
            );
        }
        let owed = store.device(&devices[69]).await.unwrap().unwrap().owed;
        assert_eq!((owed["op"].action, owed["op"].generation), (Action::Cancel, 0));
        assert_eq!(store.backlog().await.unwrap().accounts_to_tell, 0);
    }
    assert!(cut_short > 4, "only {cut_short} calls were cut short");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_appears_while_its_account_is_removed_ends_removed() {
    let (redis, store) = store().await;
    let other = store_on(&redis);
    for round in 0..ROUNDS {
        let (device, account) = (format!("dev-{round}"), format!("acct-{round}"));
        if round % 2 == 0 {
            let elsewhere = device_event("device_online", &device, "elsewhere", 5);
            apply(&store, &elsewhere, 0).await.unwrap();
        }
        let online = device_event("device_online", &device, &account, 10);
        let removal = device_event("app_integration_removed", "", &account, 20);
        let (first, second) = tokio::join!(apply(&store, &online, 0), apply(&other, &removal, 0));
        first.unwrap();
        second.unwrap();
        assert_eq!(status(&store, &device).await, Status::Removed, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_that_names_the_account_while_it_is_removed_ends_cancelled_or_refused() {
    let (redis, store) = store().await;
    let other = store_on(&redis);
    for round in 0..ROUNDS {
        let (device, account) = (format!("dev-{round}"), format!("acct-{round}"));
        let mut wanted = registration("op");
        wanted.account_id = Some(account.clone());
        let removal = device_event("app_integration_removed", "", &account, 20);
        let (registered, removed) =
            tokio::join!(store.register(&device, &wanted, 0), apply(&other, &removal, 0));
        removed.unwrap();
        let known = store.device(&device).await.unwrap();
        match registered {
            Ok(_) => assert_eq!(
                known.unwrap().operations["op"].state,
                State::Cancelled,
                "round {round}"
            ),
            Err(_) => assert_eq!(known, None),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_registered_while_the_device_comes_online_is_never_left_paused() {
    let (redis, store) = store().await;
    let other = store_on(&redis);
    for round in 0..ROUNDS {
        let device = format!("dev-{round}");
        apply(&store, &news("device_offline", &device, 10), 0)
            .await
            .unwrap();
        let (online, wanted) = (news("device_online", &device, 20), registration("op"));
        let (registered, applied) =
            tokio::join!(store.register(&device, &wanted, 0), apply(&other, &online, 0));
        let (registered, applied) = (registered.unwrap(), applied.unwrap());
        let known = store.device(&device).await.unwrap().unwrap();
        let (operation, resumes) = (&known.operations["op"], applied.commands.len());
        match registered {
            None => assert_eq!((operation.state, resumes), (State::Running, 0)),
            Some(_) => assert_eq!((operation.state, resumes), (State::Resuming, 1), "round {round}"),
        }
    }
}

#[tokio::test]
async fn an_unfinished_spread_is_left_to_who_began_it_for_the_head_start() {
    let (_redis, store) = store().await;
    apply(&store, &news("device_online", "dev", 10), 0).await.unwrap();
    for polls in 0.. {
        let at = 20 + i64::try_from(polls).unwrap();
        let finished = drop_after(polls, apply(&store, &news("app_integration_removed", "", at), 0)).await;
        if store.backlog().await.unwrap().accounts_to_tell == 1 {
            break;
        }
        assert!(!finished, "no call was cut short between its two steps");
    }
    assert_eq!(store.spread_pending(1_999).await.unwrap().accounts, 0);
    assert_eq!(store.spread_pending(2_000).await.unwrap().accounts, 1);
    assert_eq!(store.spread_pending(2_000).await.unwrap().accounts, 0);
}
