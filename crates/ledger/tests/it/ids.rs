//! Ids of every length and alphabet, in every role.

use porchlight_device::ledger::DeviceFilter;
use porchlight_device::{Action, News, Outcome, Registration};
use porchlight_event::RingEvent;
use serde_json::json;

use crate::support::{Place, apply};

for_both! {
    an_id_of_any_alphabet_works_in_every_role,
}

fn odd_ids() -> Vec<String> {
    let long = "\u{1f600}".repeat(1024);
    [
        "\0",
        "a\0b",
        "a\0c",
        " ",
        "'; DROP TABLE devices; --",
        "%00",
        "{a}:*",
        "d\u{e9}",
        "de\u{301}",
        "\u{10ffff}",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([long.clone(), format!("{long}x")])
    .collect()
}

fn event(event_type: &str, id: &str, at: i64) -> News {
    let body = json!({
        "meta": { "request_id": format!("{id}{event_type}"), "account_id": format!("acct{id}") },
        "data": {
            "id": format!("{event_type}{id}"), "type": event_type,
            "attributes": { "source": id, "source_type": "devices", "timestamp": at },
        },
    });
    News::new(&RingEvent::parse(body.to_string().as_bytes()).unwrap(), 0).unwrap()
}

async fn an_id_of_any_alphabet_works_in_every_role(place: Place) {
    let ledger = place.ledger();
    for id in odd_ids() {
        let online = event("device_online", &id, 10);
        assert_eq!(
            apply(&ledger, &online, 0).await.unwrap().outcome,
            Outcome::Applied,
            "{id}"
        );
        assert_eq!(
            apply(&ledger, &online, 0).await.unwrap().outcome,
            Outcome::Duplicate,
            "{id}"
        );
        let operation_id: String = id.chars().take(60).collect();
        let wanted = Registration {
            operation_id: operation_id.clone(),
            account_id: Some(format!("acct{id}")),
            kind: "snapshot".to_owned(),
            params: json!({ "id": id.chars().take(1000).collect::<String>() }).to_string(),
        };
        assert_eq!(ledger.register(&id, &wanted, 0).await, Ok(None), "{id}");
        let offline = event("device_offline", &id, 20);
        let owed = apply(&ledger, &offline, 0).await.unwrap().commands;
        assert_eq!((owed[0].action, &owed[0].params), (Action::Pause, &wanted.params));
        assert_eq!(ledger.confirm(0, &owed).await, [Ok(true)]);
        let view = ledger.device_view(&id).await.unwrap().unwrap();
        assert_eq!((&view.device_id, &view.operations[0].id), (&id, &operation_id));
        assert_eq!(view.history[0].event_id, format!("device_offline{id}"));
        let request_id = format!("{id}device_offline");
        assert_eq!(view.history[0].request_id.as_ref(), Some(&request_id));
        let filter = DeviceFilter {
            account_id: Some(format!("acct{id}")),
            status: None,
        };
        let page = ledger.devices(&filter, None, 10).await.unwrap();
        assert_eq!((page.devices.len(), &page.devices[0].device_id), (1, &id));
        assert_eq!(ledger.forget(&id, &operation_id).await, Ok(true));
        assert_eq!(ledger.forget(&id, &operation_id).await, Ok(false));
    }
    assert_eq!(ledger.device("never heard of").await, Ok(None));
    assert_eq!(ledger.forget("never heard of", "op").await, Ok(false));
    assert_eq!(ledger.device("never heard of").await, Ok(None));
    let page = ledger.devices(&DeviceFilter::default(), None, 500).await.unwrap();
    assert_eq!(page.devices.len(), odd_ids().len());
}
