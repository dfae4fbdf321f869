//! Where a device and its account meet: a step that was cut short between the two partitions.

use crate::support::{Event, apply, news, registration, store};
use porchlight_device::{Action, Outcome, Status};
use porchlight_store::Store;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;

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
