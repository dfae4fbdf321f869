//! What is shown of the ledger.

use crate::support::{Event, Place, apply, news, registration};
use porchlight_device::Status;
use porchlight_device::ledger::DeviceFilter;
use porchlight_ledger::{Ledger, PageError};
use std::collections::BTreeSet;

for_both! {
    pages_show_each_device_that_fits_exactly_once,
    a_device_that_moved_is_shown_with_its_new_account_only,
    only_a_cursor_of_ours_is_taken,
    a_device_is_shown_with_its_operations_and_the_reason_of_each_decision,
    the_history_is_bounded,
}

async fn walk(ledger: &Ledger, filter: &DeviceFilter, limit: usize) -> Vec<String> {
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = ledger.devices(filter, cursor.as_deref(), limit).await.unwrap();
        assert!(page.devices.len() <= limit);
        seen.extend(page.devices.into_iter().map(|device| device.device_id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return seen;
        }
    }
}

async fn pages_show_each_device_that_fits_exactly_once(place: Place) {
    let ledger = place.ledger();
    let mut wanted = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
    for n in 0..150 {
        let device_id = format!("dev-{n}");
        let account_id = Some(if n % 3 == 0 { "acct-a" } else { "acct-b" });
        let event_type = if n % 5 == 0 {
            "device_offline"
        } else {
            "device_online"
        };
        let event = Event {
            event_type,
            device_id: &device_id,
            account_id,
            at: 10,
            request_id: None,
        };
        apply(&ledger, &event.news(), 0).await.unwrap();
        wanted[0].insert(device_id.clone());
        if n % 3 == 0 {
            wanted[1].insert(device_id.clone());
        }
        if n % 5 == 0 {
            wanted[2].insert(device_id);
        }
    }
    let filters = [
        DeviceFilter::default(),
        DeviceFilter {
            account_id: Some("acct-a".to_owned()),
            status: None,
        },
        DeviceFilter {
            account_id: None,
            status: Some(Status::Offline),
        },
    ];
    for (filter, wanted) in filters.iter().zip(wanted) {
        for limit in [1, 7, 500] {
            let seen = walk(&ledger, filter, limit).await;
            assert_eq!(seen.len(), wanted.len(), "{filter:?} {limit}");
            assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), wanted);
        }
    }
    let both = DeviceFilter {
        account_id: Some("acct-a".to_owned()),
        status: Some(Status::Offline),
    };
    assert_eq!(walk(&ledger, &both, 4).await.len(), 10);
    assert_eq!(ledger.counts().await.unwrap()[&Status::Offline], 30);
}

async fn a_device_that_moved_is_shown_with_its_new_account_only(place: Place) {
    let ledger = place.ledger();
    for (account, at) in [("acct-a", 10), ("acct-b", 20)] {
        let event = Event {
            event_type: "device_online",
            device_id: "dev",
            account_id: Some(account),
            at,
            request_id: None,
        };
        apply(&ledger, &event.news(), 0).await.unwrap();
    }
    let of = |account: &str| DeviceFilter {
        account_id: Some(account.to_owned()),
        status: None,
    };
    assert_eq!(walk(&ledger, &of("acct-a"), 10).await, [""; 0]);
    assert_eq!(walk(&ledger, &of("acct-b"), 10).await, ["dev"]);
}

async fn only_a_cursor_of_ours_is_taken(place: Place) {
    let ledger = place.ledger();
    for cursor in [
        "",
        "x",
        "000",
        "999aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "000(aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ] {
        let page = ledger.devices(&DeviceFilter::default(), Some(cursor), 10).await;
        assert_eq!(page, Err(PageError::BadCursor), "{cursor}");
    }
}

async fn a_device_is_shown_with_its_operations_and_the_reason_of_each_decision(place: Place) {
    let ledger = place.ledger();
    assert_eq!(ledger.device_view("dev").await, Ok(None));
    apply(&ledger, &news("device_online", "dev", 10), 1_000)
        .await
        .unwrap();
    ledger.register("dev", &registration("op"), 1_500).await.unwrap();
    apply(&ledger, &news("device_offline", "dev", 20), 2_000)
        .await
        .unwrap();
    apply(&ledger, &news("device_online", "dev", 15), 3_000)
        .await
        .unwrap();
    let view = serde_json::to_value(ledger.device_view("dev").await.unwrap().unwrap()).unwrap();
    let line = |at: i64, kind: &str, timestamp: i64, outcome: &str, reason: &str| {
        serde_json::json!({
            "at": at, "event_id": format!("dev_{kind}_{timestamp}"), "request_id": null, "type": kind,
            "timestamp": timestamp, "time_source": "timestamp", "outcome": outcome, "reason": reason,
        })
    };
    let wanted = serde_json::json!({
        "device_id": "dev", "account_id": "acct", "status": "offline", "status_since": 20,
        "last_event": {
            "event_id": "dev_device_online_15", "request_id": null, "type": "device_online", "timestamp": 15,
            "outcome": "stale",
        },
        "operations": [
            { "id": "op", "kind": "snapshot", "params": { "every": "night" }, "state": "paused", "generation": 1 },
        ],
        "history": [
            line(3_000, "device_online", 15, "stale", "newer news of its kind is already known"),
            line(2_000, "device_offline", 20, "applied", "the newest news of its kind"),
            line(1_000, "device_online", 10, "applied", "the newest news of its kind"),
        ],
    });
    assert_eq!(view, wanted);
}

async fn the_history_is_bounded(place: Place) {
    let ledger = place.ledger();
    for at in 0..100 {
        apply(&ledger, &news("device_online", "dev", at), 0)
            .await
            .unwrap();
    }
    let history = ledger.device_view("dev").await.unwrap().unwrap().history;
    assert_eq!(
        (history.len(), history[0].timestamp, history[19].timestamp),
        (20, 99, 80)
    );
}
