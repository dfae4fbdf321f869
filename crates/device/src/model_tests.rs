//! What the reference ledger promises, and that no order of arrival changes where it ends.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::Ledger;
use crate::operation::OPERATIONS_MAX;
use crate::{
    Action, Command, Decision, News, Outcome, OweAgain, Reason, Registration, RegistrationError, State,
    Status,
};
use porchlight_event::RingEvent;
use porchlight_event::sample::Sample;
use proptest::prelude::*;

fn event(event_type: &str, at: i64) -> News {
    event_of(event_type, at, "acct-1")
}

fn event_of(event_type: &str, at: i64, account_id: &str) -> News {
    let request_id = format!("{event_type}-{at}-{account_id}");
    let sample = Sample {
        event_type,
        device_id: "dev-1",
        account_id,
        timestamp_ms: at,
        sent_at_ms: at + 5,
        request_id: &request_id,
    };
    News::new(&RingEvent::parse(&sample.body()).unwrap(), at).unwrap()
}

fn registration(id: &str) -> Registration {
    Registration {
        operation_id: id.to_owned(),
        account_id: Some("acct-1".to_owned()),
        kind: "snapshot".to_owned(),
        params: "{}".to_owned(),
    }
}

fn with_operation() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.device("dev-1").register(&registration("op"), 0).unwrap();
    ledger
}

fn actions(decision: &Decision) -> Vec<(Action, u64)> {
    decision
        .commands
        .iter()
        .map(|command| (command.action, command.generation))
        .collect()
}

fn status(ledger: &Ledger) -> Status {
    ledger.devices["dev-1"].status
}

#[test]
fn offline_pauses_and_online_resumes_once_each() {
    let mut ledger = with_operation();
    assert_eq!(
        actions(&ledger.apply(&event("device_offline", 10), 0)),
        [(Action::Pause, 1)]
    );
    assert_eq!(
        ledger.apply(&event("device_offline", 10), 0).outcome,
        Outcome::Duplicate
    );
    assert_eq!(actions(&ledger.apply(&event("device_offline", 11), 0)), []);
    assert_eq!(
        actions(&ledger.apply(&event("device_online", 20), 0)),
        [(Action::Resume, 1)]
    );
    assert_eq!(actions(&ledger.apply(&event("device_online", 21), 0)), []);
    let resume = ledger.owed().remove(0);
    let pause = Command {
        action: Action::Pause,
        ..resume.clone()
    };
    assert!(!ledger.confirm(&pause));
    assert_eq!(ledger.devices["dev-1"].operations["op"].state, State::Resuming);
    assert!(ledger.confirm(&resume));
    let device = ledger.device("dev-1");
    assert_eq!(
        (device.operations["op"].state, device.owed.len()),
        (State::Running, 0)
    );
}

#[test]
fn a_late_offline_is_stale_and_changes_nothing() {
    let mut ledger = with_operation();
    ledger.apply(&event("device_online", 20), 0);
    let late = ledger.apply(&event("device_offline", 10), 0);
    assert_eq!(
        (late.outcome, late.reason, actions(&late)),
        (Outcome::Stale, Reason::OlderThanKnown, vec![])
    );
    assert_eq!(status(&ledger), Status::Online);
}

#[test]
fn a_request_id_seen_for_the_device_is_a_duplicate_whatever_else_differs() {
    let mut ledger = Ledger::default();
    let first = event("device_offline", 10);
    let mut second = event("device_online", 20);
    second.request_mark = first.request_mark;
    ledger.apply(&first, 0);
    assert_eq!(ledger.apply(&second, 0).outcome, Outcome::Duplicate);
    assert_eq!(status(&ledger), Status::Offline);
}

#[test]
fn removal_cancels_and_refuses_until_added_again() {
    let mut ledger = with_operation();
    ledger.apply(&event("device_offline", 10), 0);
    assert_eq!(
        actions(&ledger.apply(&event("device_removed", 20), 0)),
        [(Action::Cancel, 1)]
    );
    for at in [15, 25] {
        let refused = ledger.apply(&event("device_online", at), 0);
        assert_eq!(
            (refused.outcome, refused.reason),
            (Outcome::Refused, Reason::DeviceRemoved)
        );
    }
    assert_eq!(
        ledger.device("dev-1").register(&registration("new"), 0),
        Err(RegistrationError::DeviceRemoved)
    );
    assert_eq!(
        ledger.apply(&event("device_added", 30), 0).outcome,
        Outcome::Applied
    );
    assert_eq!(
        status(&ledger),
        Status::Online,
        "the refused news at 25 is newer than the removal"
    );
    let late = ledger.apply(&event("device_offline", 16), 0);
    assert_eq!(
        (late.outcome, late.reason),
        (Outcome::Refused, Reason::RemovedLater)
    );
}

#[test]
fn an_account_removal_reaches_each_device_and_is_lifted_by_an_addition() {
    let mut ledger = with_operation();
    ledger.apply(&event("device_online", 10), 0);
    assert_eq!(
        actions(&ledger.apply(&event("app_integration_removed", 20), 0)),
        [(Action::Cancel, 0)]
    );
    let refused = ledger.apply(&event("device_online", 25), 0);
    assert_eq!(
        (refused.outcome, refused.reason),
        (Outcome::Refused, Reason::AccountRemoved)
    );
    assert_eq!(status(&ledger), Status::Removed);
    ledger.apply(&event("app_integration_added", 22), 0);
    assert_eq!(status(&ledger), Status::Online);
    let late = ledger.apply(&event("app_integration_removed", 21), 0);
    assert_eq!((late.outcome, late.reason), (Outcome::Stale, Reason::AddedSince));
}

#[test]
fn a_device_first_heard_of_after_its_account_was_removed_is_refused() {
    let mut ledger = Ledger::default();
    ledger.apply(&event("app_integration_removed", 20), 0);
    assert_eq!(
        ledger.apply(&event("device_online", 10), 0).outcome,
        Outcome::Refused
    );
    assert_eq!(status(&ledger), Status::Removed);
}

#[test]
fn a_removed_account_takes_no_operations_even_for_a_device_not_heard_of_yet() {
    let mut ledger = Ledger::default();
    ledger.apply(&event("app_integration_removed", 20), 0);
    assert_eq!(
        ledger.register("dev-1", &registration("op"), 0),
        Err(RegistrationError::DeviceRemoved)
    );
    assert!(
        ledger.devices.is_empty(),
        "a refused registration leaves nothing behind"
    );
    ledger.apply(&event("app_integration_added", 30), 0);
    assert_eq!(ledger.register("dev-1", &registration("op"), 0), Ok(None));
}

#[test]
fn a_newer_account_takes_the_device_and_cancels_the_operations_of_the_other() {
    let mut ledger = with_operation();
    ledger.apply(&event("device_online", 10), 0);
    let older = ledger.apply(&event_of("motion_detected", 5, "acct-2"), 0);
    assert_eq!((older.outcome, actions(&older)), (Outcome::Recorded, vec![]));
    let moved = ledger.apply(&event_of("device_online", 20, "acct-2"), 0);
    assert_eq!(
        (moved.outcome, actions(&moved)),
        (Outcome::Applied, vec![(Action::Cancel, 0)])
    );
    assert_eq!(ledger.devices["dev-1"].account_id.as_deref(), Some("acct-2"));
    assert_eq!(
        ledger.device("dev-1").register(&registration("x"), 0),
        Err(RegistrationError::AccountMismatch)
    );
}

#[test]
fn an_operation_registered_while_offline_is_paused_at_once_and_registering_again_changes_no_state() {
    let mut ledger = Ledger::default();
    ledger.apply(&event("device_offline", 10), 0);
    let owed = ledger
        .device("dev-1")
        .register(&registration("op"), 7)
        .unwrap()
        .unwrap();
    assert_eq!(
        (owed.action, owed.generation, owed.cause.kind.as_str()),
        (Action::Pause, 1, "registration")
    );
    assert_eq!(ledger.device("dev-1").register(&registration("op"), 8), Ok(None));
    assert_eq!(
        actions(&ledger.apply(&event("device_online", 20), 0)),
        [(Action::Resume, 1)]
    );
}

#[test]
fn no_identity_is_used_twice_by_a_forgotten_or_cancelled_operation() {
    let mut ledger = with_operation();
    let mut ids = Vec::new();
    let mut at = 10;
    for round in 0..4 {
        ids.extend(
            ledger
                .apply(&event("device_offline", at), 0)
                .commands
                .iter()
                .map(crate::Command::id),
        );
        ids.extend(
            ledger
                .apply(&event("device_online", at + 1), 0)
                .commands
                .iter()
                .map(crate::Command::id),
        );
        if round % 2 == 0 {
            assert!(ledger.device("dev-1").forget("op"));
            assert!(ledger.owed().is_empty());
        } else {
            ids.extend(
                ledger
                    .apply(&event("device_removed", at + 2), 0)
                    .commands
                    .iter()
                    .map(crate::Command::id),
            );
            ledger.apply(&event("device_added", at + 3), 0);
        }
        ids.extend(
            ledger
                .device("dev-1")
                .register(&registration("op"), 0)
                .unwrap()
                .map(|command| command.id()),
        );
        at += 10;
    }
    assert!(ids.len() >= 10);
    assert_eq!(
        ids.iter().collect::<std::collections::BTreeSet<_>>().len(),
        ids.len(),
        "{ids:?}"
    );
}

#[test]
fn a_late_confirm_of_a_replaced_command_changes_nothing() {
    let mut ledger = with_operation();
    ledger.apply(&event("device_offline", 10), 0);
    let resume = ledger.apply(&event("device_online", 20), 0).commands.remove(0);
    ledger.apply(&event("device_offline", 30), 0);
    assert!(!ledger.confirm(&resume));
    let device = ledger.device("dev-1");
    assert_eq!(
        (device.operations["op"].state, device.operations["op"].generation),
        (State::Paused, 2)
    );
    assert_eq!(device.owed["op"].action, Action::Pause);
}

#[test]
fn a_command_that_was_given_up_is_owed_again_while_it_is_still_true() {
    let mut ledger = with_operation();
    let pause = ledger.apply(&event("device_offline", 10), 0).commands.remove(0);
    let resume = ledger.apply(&event("device_online", 20), 0).commands.remove(0);
    assert!(!ledger.give_up(&pause), "a newer one took its place");
    assert_eq!(ledger.owe_again(&pause, 5), OweAgain::Overtaken);
    assert_eq!(ledger.owe_again(&resume, 5), OweAgain::Owed);
    assert_eq!(
        ledger.owed(),
        std::slice::from_ref(&resume),
        "it was owed all the time"
    );
    assert!(ledger.give_up(&resume));
    assert!(!ledger.give_up(&resume));
    assert_eq!(
        (ledger.owed(), ledger.devices["dev-1"].operations["op"].state),
        (vec![], State::Resuming)
    );
    assert_eq!(ledger.owe_again(&resume, 7), OweAgain::Owed);
    assert_eq!(ledger.owe_again(&resume, 8), OweAgain::Owed);
    assert_eq!(ledger.owed()[0].issued_at_ms, 7, "its time begins anew, once");
    assert!(ledger.confirm(&resume));
    assert_eq!(
        ledger.owe_again(&resume, 9),
        OweAgain::Overtaken,
        "it was delivered: the operation runs"
    );
}

#[test]
fn what_is_no_longer_true_is_not_owed_again() {
    let mut ledger = with_operation();
    let pause = ledger.apply(&event("device_offline", 10), 0).commands.remove(0);
    ledger.give_up(&pause);
    for other in [
        Command {
            generation: 2,
            ..pause.clone()
        },
        Command {
            action: Action::Cancel,
            ..pause.clone()
        },
        Command {
            operation_id: "other".to_owned(),
            ..pause.clone()
        },
        Command {
            device_id: "dev-2".to_owned(),
            ..pause.clone()
        },
    ] {
        assert_eq!(ledger.owe_again(&other, 0), OweAgain::Overtaken, "{other:?}");
    }
    assert!(!ledger.devices.contains_key("dev-2"));
    let cancel = ledger.apply(&event("device_removed", 20), 0).commands.remove(0);
    ledger.give_up(&cancel);
    assert_eq!(ledger.owe_again(&pause, 0), OweAgain::Overtaken);
    assert_eq!(ledger.owe_again(&cancel, 0), OweAgain::Owed);
    ledger.forget("dev-1", "op");
    assert_eq!(ledger.owe_again(&cancel, 0), OweAgain::Overtaken);
    assert_eq!(ledger.owed(), []);
}

#[test]
fn a_device_takes_a_bounded_number_of_operations() {
    let mut ledger = Ledger::default();
    let device = ledger.device("dev-1");
    for n in 0..OPERATIONS_MAX {
        device.register(&registration(&n.to_string()), 0).unwrap();
    }
    assert_eq!(
        device.register(&registration("more"), 0),
        Err(RegistrationError::TooMany)
    );
    assert_eq!(device.register(&registration("0"), 0), Ok(None));
}

fn any_event() -> impl Strategy<Value = News> {
    let kinds = prop::sample::select(vec![
        "device_online",
        "device_offline",
        "device_added",
        "device_removed",
        "motion_detected",
        "app_integration_added",
        "app_integration_removed",
    ]);
    (kinds, 0_i64..12).prop_map(|(kind, at)| event(kind, at))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_final_status_is_the_same_for_every_order_of_arrival(
        (sent, arrived) in prop::collection::vec(any_event(), 1..14)
            .prop_flat_map(|events| (Just(events.clone()), Just([events.clone(), events].concat()).prop_shuffle()))
    ) {
        let run = |events: &[News]| {
            let mut ledger = with_operation();
            for event in events {
                ledger.apply(event, 0);
            }
            ledger.devices.remove("dev-1").unwrap()
        };
        let (first, second) = (run(&sent), run(&arrived));
        prop_assert_eq!(first.status, second.status);
        prop_assert_eq!((first.news, first.added, first.removed), (second.news, second.added, second.removed));
    }

    #[test]
    fn operations_always_agree_with_the_status(events in prop::collection::vec(any_event(), 1..30)) {
        let mut ledger = with_operation();
        for event in events {
            ledger.apply(&event, 0);
            let device = ledger.device("dev-1");
            prop_assert_eq!(device.status, device.derived_status());
            let state = device.operations["op"].state;
            let agree = match device.status {
                Status::Online => !matches!(state, State::Paused),
                Status::Offline => !matches!(state, State::Running | State::Resuming),
                Status::Removed => state == State::Cancelled,
                Status::Unknown => true,
            };
            prop_assert!(agree, "{:?} {:?}", device.status, state);
        }
    }
}
