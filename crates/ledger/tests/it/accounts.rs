//! An account and its devices: its news reaches all of them, and none that left.

use porchlight_device::{Action, Outcome, Reason, RegistrationError, State, Status};
use porchlight_ledger::{Ledger, RegisterError};

use crate::support::{Place, apply, news_of, registration};

for_both! {
    news_of_an_account_reaches_each_of_its_many_devices_and_their_operations,
    a_device_that_moved_follows_its_new_account_only,
    a_removed_account_takes_no_operations_until_it_is_added_again,
}

async fn status(ledger: &Ledger, device_id: &str) -> Status {
    ledger.device(device_id).await.unwrap().unwrap().status
}

async fn news_of_an_account_reaches_each_of_its_many_devices_and_their_operations(place: Place) {
    let ledger = place.ledger();
    let devices: Vec<String> = (0..150).map(|n| format!("dev-{n}")).collect();
    let online: Vec<_> = devices
        .iter()
        .map(|device| news_of("device_online", device, "acct", 10))
        .collect();
    assert!(ledger.apply_batch(0, &online, 0).await.iter().all(Result::is_ok));
    for device in &devices {
        ledger.register(device, &registration("op"), 0).await.unwrap();
    }
    let removal = apply(&ledger, &news_of("app_integration_removed", "", "acct", 20), 5)
        .await
        .unwrap();
    assert_eq!(
        (removal.outcome, removal.reason),
        (Outcome::Applied, Reason::Newest)
    );
    let told: Vec<_> = removal
        .commands
        .iter()
        .map(|command| command.device_id.clone())
        .collect();
    let mut wanted = devices.clone();
    wanted.sort();
    assert_eq!(told, wanted);
    for device in &devices {
        let known = ledger.device(device).await.unwrap().unwrap();
        assert_eq!(
            (known.status, known.owed["op"].action),
            (Status::Removed, Action::Cancel)
        );
    }
    let history = ledger.device_view("dev-0").await.unwrap().unwrap().history;
    assert_eq!(
        (history[0].kind.as_str(), history[0].at),
        ("app_integration_removed", 5)
    );
    assert_eq!(ledger.backlog().await.unwrap().accounts_to_tell, 0);
    assert_eq!(ledger.spread_pending(100_000).await.unwrap(), Default::default());
    let added = apply(&ledger, &news_of("app_integration_added", "", "acct", 30), 6)
        .await
        .unwrap();
    assert_eq!((added.outcome, added.commands), (Outcome::Applied, vec![]));
    // What was heard before the removal is not known to be true still.
    assert_eq!(status(&ledger, "dev-7").await, Status::Unknown);
    assert_eq!(ledger.counts().await.unwrap()[&Status::Unknown], 150);
}

async fn a_device_that_moved_follows_its_new_account_only(place: Place) {
    let ledger = place.ledger();
    apply(&ledger, &news_of("device_online", "dev", "one", 10), 0)
        .await
        .unwrap();
    ledger.register("dev", &registration("op"), 0).await.unwrap();
    let moved = apply(&ledger, &news_of("device_online", "dev", "two", 20), 0)
        .await
        .unwrap();
    let actions: Vec<_> = moved.commands.iter().map(|command| command.action).collect();
    assert_eq!(actions, [Action::Cancel]);
    apply(&ledger, &news_of("app_integration_removed", "", "one", 30), 0)
        .await
        .unwrap();
    assert_eq!(status(&ledger, "dev").await, Status::Online);
    // One whose account was removed before it came.
    let back = apply(&ledger, &news_of("device_online", "dev", "one", 25), 0)
        .await
        .unwrap();
    assert_eq!(
        (back.outcome, back.reason),
        (Outcome::Refused, Reason::AccountRemoved)
    );
    assert_eq!(status(&ledger, "dev").await, Status::Removed);
    apply(&ledger, &news_of("device_online", "dev", "two", 40), 0)
        .await
        .unwrap();
    assert_eq!(status(&ledger, "dev").await, Status::Online);
}

async fn a_removed_account_takes_no_operations_until_it_is_added_again(place: Place) {
    let ledger = place.ledger();
    apply(&ledger, &news_of("app_integration_removed", "", "acct", 20), 0)
        .await
        .unwrap();
    let mut wanted = registration("op");
    wanted.account_id = Some("acct".to_owned());
    let refused = ledger.register("dev", &wanted, 0).await;
    assert_eq!(
        refused,
        Err(RegisterError::Refused(RegistrationError::DeviceRemoved))
    );
    assert_eq!(ledger.device("dev").await, Ok(None));
    apply(&ledger, &news_of("app_integration_added", "", "acct", 30), 0)
        .await
        .unwrap();
    assert_eq!(ledger.register("dev", &wanted, 0).await, Ok(None));
    apply(&ledger, &news_of("app_integration_removed", "", "acct", 40), 0)
        .await
        .unwrap();
    let device = ledger.device("dev").await.unwrap().unwrap();
    assert_eq!(
        (device.status, device.operations["op"].state),
        (Status::Removed, State::Cancelled)
    );
    wanted.account_id = Some("other".to_owned());
    let refused = ledger.register("dev", &wanted, 0).await;
    assert_eq!(
        refused,
        Err(RegisterError::Refused(RegistrationError::DeviceRemoved))
    );
}
