//! Calls that meet: events, registrations and sweeps at the same time, from two processes.

use std::collections::BTreeSet;

use porchlight_device::{Command, News, Outcome, State, Status};
use porchlight_ledger::Ledger;

use crate::support::{Place, apply, news, news_of, registration, with_operation};

/// Rounds of each race.
const ROUNDS: usize = 200;

for_both! {
    a_device_that_appears_while_its_account_is_removed_ends_removed,
    a_registration_that_names_the_account_while_it_is_removed_ends_cancelled_or_refused,
    an_operation_registered_while_the_device_comes_online_is_never_left_paused,
    of_several_who_take_the_same_events_one_takes_each,
    forgetting_while_events_pause_and_resume_uses_no_identity_twice,
    what_is_confirmed_given_up_or_replaced_at_the_same_time_is_struck_off_once,
}

async fn status(ledger: &Ledger, device_id: &str) -> Status {
    ledger.device(device_id).await.unwrap().unwrap().status
}

async fn a_device_that_appears_while_its_account_is_removed_ends_removed(place: Place) {
    let (ledger, other) = (place.ledger(), place.other());
    for round in 0..ROUNDS {
        let (device, account) = (format!("dev-{round}"), format!("acct-{round}"));
        if round % 2 == 0 {
            let elsewhere = news_of("device_online", &device, "elsewhere", 5);
            apply(&ledger, &elsewhere, 0).await.unwrap();
        }
        let online = news_of("device_online", &device, &account, 10);
        let removal = news_of("app_integration_removed", "", &account, 20);
        let (first, second) = tokio::join!(apply(&ledger, &online, 0), apply(&other, &removal, 0));
        first.unwrap();
        second.unwrap();
        assert_eq!(status(&ledger, &device).await, Status::Removed, "round {round}");
    }
}

async fn a_registration_that_names_the_account_while_it_is_removed_ends_cancelled_or_refused(place: Place) {
    let (ledger, other) = (place.ledger(), place.other());
    for round in 0..ROUNDS {
        let (device, account) = (format!("dev-{round}"), format!("acct-{round}"));
        let mut wanted = registration("op");
        wanted.account_id = Some(account.clone());
        let removal = news_of("app_integration_removed", "", &account, 20);
        let (registered, removed) =
            tokio::join!(ledger.register(&device, &wanted, 0), apply(&other, &removal, 0));
        removed.unwrap();
        let known = ledger.device(&device).await.unwrap();
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

async fn an_operation_registered_while_the_device_comes_online_is_never_left_paused(place: Place) {
    let (ledger, other) = (place.ledger(), place.other());
    for round in 0..ROUNDS {
        let device = format!("dev-{round}");
        apply(&ledger, &news("device_offline", &device, 10), 0)
            .await
            .unwrap();
        let (online, wanted) = (news("device_online", &device, 20), registration("op"));
        let (registered, applied) =
            tokio::join!(ledger.register(&device, &wanted, 0), apply(&other, &online, 0));
        let (registered, applied) = (registered.unwrap(), applied.unwrap());
        let known = ledger.device(&device).await.unwrap().unwrap();
        let (operation, resumes) = (&known.operations["op"], applied.commands.len());
        match registered {
            None => assert_eq!((operation.state, resumes), (State::Running, 0)),
            Some(_) => assert_eq!((operation.state, resumes), (State::Resuming, 1), "round {round}"),
        }
    }
}

async fn of_several_who_take_the_same_events_one_takes_each(place: Place) {
    let (ledger, other) = (place.ledger(), place.other());
    for round in 0..8 {
        let events: Vec<News> = (0..64)
            .map(|n| news("device_online", &format!("dev-{}", n % 20), 1000 * round + n))
            .collect();
        let (a, b, c, d) = tokio::join!(
            ledger.apply_batch(0, &events, 0),
            other.apply_batch(1, &events, 0),
            ledger.apply_batch(2, &events, 0),
            other.apply_batch(3, &events, 0),
        );
        for n in 0..events.len() {
            let outcomes = [&a, &b, &c, &d].map(|results| results[n].clone().unwrap().outcome);
            let new = outcomes.iter().filter(|outcome| **outcome != Outcome::Duplicate);
            assert_eq!(new.count(), 1, "{outcomes:?}");
        }
    }
}

async fn forgetting_while_events_pause_and_resume_uses_no_identity_twice(place: Place) {
    let (ledger, other) = (place.ledger(), place.other());
    with_operation(&ledger, "dev").await;
    let mut ids = BTreeSet::new();
    for round in 0..60 {
        let at = 100 + 10 * round;
        let events = [
            news("device_offline", "dev", at),
            news("device_online", "dev", at + 1),
        ];
        let wanted = registration("op");
        let (results, forgotten, registered) = tokio::join!(
            ledger.apply_batch(0, &events, 0),
            other.forget("dev", "op"),
            other.register("dev", &wanted, 0),
        );
        forgotten.unwrap();
        let commands = results.into_iter().flat_map(|result| result.unwrap().commands);
        for command in commands.chain(registered.unwrap()) {
            assert!(ids.insert(command.id()), "{command:?}");
        }
        let device = ledger.device("dev").await.unwrap().unwrap();
        if let Some(operation) = device.operations.get("op") {
            assert_ne!(operation.state, State::Paused, "round {round}");
        }
        ledger.register("dev", &wanted, 0).await.unwrap();
    }
}

async fn what_is_confirmed_given_up_or_replaced_at_the_same_time_is_struck_off_once(place: Place) {
    let (ledger, other) = (place.ledger(), place.other());
    for round in 0..60 {
        let device = format!("dev-{round}");
        with_operation(&ledger, &device).await;
        let owed = apply(&ledger, &news("device_offline", &device, 20), 0)
            .await
            .unwrap()
            .commands;
        let online = news("device_online", &device, 30);
        let (confirmed, given_up, online) = tokio::join!(
            ledger.confirm(0, &owed),
            other.give_up(&owed[0]),
            apply(&ledger, &online, 0),
        );
        let struck = usize::from(confirmed[0].clone().unwrap()) + usize::from(given_up.unwrap());
        assert!(struck <= 1);
        let resume: Vec<Command> = online.unwrap().commands;
        assert_eq!(ledger.confirm(0, &resume).await, [Ok(true)]);
        let device = ledger.device(&device).await.unwrap().unwrap();
        assert_eq!(
            (device.operations["op"].state, device.owed.len()),
            (State::Running, 0)
        );
    }
    assert_eq!(ledger.backlog().await.unwrap().commands, 0);
}
