//! What bringing two ledgers together promises, whatever each of them went through before.

use std::collections::BTreeSet;

use porchlight_event::RingEvent;
use porchlight_event::sample::Sample;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::model::Ledger;
use crate::{Action, Registration, Status};

const DEVICE: &str = "dev";

#[derive(Debug, Clone)]
enum Step {
    Take(News),
    Register(Registration),
    Forget(&'static str),
    Confirm,
    GiveUp,
}

/// A ledger, and every pause that it ever made owed.
#[derive(Debug, Clone, Default)]
struct Life {
    ledger: Ledger,
    pauses: BTreeSet<(String, u64)>,
}

impl Life {
    fn walk(&mut self, steps: &[Step]) -> Vec<(String, u64)> {
        let mut new = Vec::new();
        for (step, now_ms) in steps.iter().zip(1_000..) {
            let commands = match step {
                Step::Take(news) => self.ledger.apply(news, now_ms).commands,
                Step::Register(registration) => {
                    let registered = self.ledger.register(DEVICE, registration, now_ms);
                    registered.ok().flatten().into_iter().collect()
                }
                Step::Forget(id) => {
                    self.ledger.forget(DEVICE, id);
                    Vec::new()
                }
                Step::Confirm => {
                    let owed = self.ledger.owed();
                    owed.first().map(|command| self.ledger.confirm(command));
                    Vec::new()
                }
                Step::GiveUp => {
                    let owed = self.ledger.owed();
                    owed.first().map(|command| self.ledger.give_up(command));
                    Vec::new()
                }
            };
            new.extend(pauses(&commands));
        }
        self.pauses.extend(new.iter().cloned());
        new
    }

    /// Takes in everything that the other knows.
    fn take_in(&mut self, other: &Ledger, now_ms: i64) -> Vec<Command> {
        let mut commands = Vec::new();
        for (id, registers) in &other.accounts {
            commands.extend(self.ledger.restore_account(id, registers, now_ms));
        }
        for device in other.devices.values() {
            commands.extend(self.ledger.restore_device(device, now_ms));
        }
        commands
    }
}

fn pauses(commands: &[Command]) -> Vec<(String, u64)> {
    let pauses = commands.iter().filter(|command| command.action == Action::Pause);
    pauses
        .map(|command| (command.operation_id.clone(), command.generation))
        .collect()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let accounts = || select(vec!["a", "a", "a", "b"]);
    let kinds = vec![
        "device_online",
        "device_offline",
        "device_online",
        "device_offline",
        "device_added",
        "device_removed",
        "app_integration_added",
        "app_integration_removed",
    ];
    let event = (select(kinds), accounts(), 0_i64..40).prop_map(|(event_type, account_id, at)| {
        let request_id = format!("{event_type}-{account_id}-{at}");
        let sample = Sample {
            event_type,
            device_id: DEVICE,
            account_id,
            timestamp_ms: at,
            // Two different events never share an order.
            sent_at_ms: at + i64::from(account_id == "b"),
            request_id: &request_id,
        };
        Step::Take(News::new(&RingEvent::parse(&sample.body()).unwrap(), at).unwrap())
    });
    let register = (select(vec!["x", "y"]), accounts()).prop_map(|(id, account)| {
        Step::Register(Registration {
            operation_id: id.to_owned(),
            account_id: Some(account.to_owned()),
            kind: "snap".to_owned(),
            params: "{}".to_owned(),
        })
    });
    let step = prop_oneof![
        8 => event,
        3 => register,
        1 => select(vec!["x", "y"]).prop_map(Step::Forget),
        2 => Just(Step::Confirm),
        1 => Just(Step::GiveUp),
    ];
    prop::collection::vec(step, 0..40)
}

/// Two ledgers that began as one and then went their own ways.
fn lives() -> impl Strategy<Value = (Life, Life)> {
    (steps(), steps(), steps()).prop_map(|(common, first, second)| {
        let mut one = Life::default();
        one.walk(&common);
        let mut other = one.clone();
        one.walk(&first);
        other.walk(&second);
        (one, other)
    })
}

fn registers(ledger: &Ledger) -> impl PartialEq + std::fmt::Debug {
    let device = ledger
        .devices
        .get(DEVICE)
        .cloned()
        .unwrap_or_else(|| Device::new(DEVICE));
    let of_device = (device.news, device.added, device.removed, device.account_order);
    (of_device, device.generation_floor, ledger.accounts.clone())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn taking_in_the_same_again_changes_nothing((mut one, other) in lives()) {
        one.take_in(&other.ledger, 5_000);
        let (devices, accounts) = (one.ledger.devices.clone(), one.ledger.accounts.clone());
        prop_assert_eq!(one.take_in(&other.ledger, 6_000), vec![]);
        prop_assert_eq!(one.ledger.devices, devices);
        prop_assert_eq!(one.ledger.accounts, accounts);
    }

    #[test]
    fn taken_into_an_empty_ledger_everything_is_as_it_was((one, _) in lives()) {
        let mut empty = Life::default();
        prop_assert_eq!(empty.take_in(&one.ledger, 5_000), vec![]);
        let blank = |device: &Device| *device == Device::new(DEVICE);
        let known = |ledger: &Ledger| {
            let devices = ledger.devices.values().filter(|device| !blank(device));
            devices.cloned().collect::<Vec<_>>()
        };
        prop_assert_eq!(known(&empty.ledger), known(&one.ledger));
        let moved = |ledger: &Ledger| {
            let mut accounts = ledger.accounts.clone();
            accounts.retain(|_, registers| *registers != AccountRegisters::default());
            accounts
        };
        prop_assert_eq!(moved(&empty.ledger), moved(&one.ledger));
    }

    #[test]
    fn both_sides_end_with_the_same_registers((mut one, mut other) in lives()) {
        let before = one.clone();
        one.take_in(&other.ledger, 5_000);
        other.take_in(&before.ledger, 5_000);
        prop_assert_eq!(registers(&one.ledger), registers(&other.ledger));
        let device = |life: &Life| life.ledger.devices.get(DEVICE).cloned();
        let (one, other) = (device(&one), device(&other));
        // Where only registrations named the accounts, each side keeps its own.
        if one.as_ref().is_some_and(|device| device.account_order.is_some()) {
            let of = |device: Option<Device>| device.map(|device| (device.account_id, device.account, device.status));
            prop_assert_eq!(of(one), of(other));
        }
    }

    #[test]
    fn no_pause_of_either_side_ever_comes_again((mut one, other) in lives(), later in steps()) {
        let before = one.pauses.union(&other.pauses).cloned().collect::<BTreeSet<_>>();
        let mut new = pauses(&one.take_in(&other.ledger, 5_000));
        new.extend(one.walk(&later));
        for pause in new {
            prop_assert!(!before.contains(&pause), "{pause:?}");
        }
    }

    #[test]
    fn what_is_owed_afterwards_says_what_its_operation_is_in((mut one, other) in lives()) {
        one.take_in(&other.ledger, 5_000);
        for device in one.ledger.devices.values() {
            let status = device.derived_status();
            prop_assert_eq!(device.status, status);
            for (id, command) in &device.owed {
                let operation = &device.operations[id];
                let said = (command.action.state(), command.generation);
                prop_assert_eq!(said, (operation.state, operation.generation));
            }
            for operation in device.operations.values() {
                let is_right = match status {
                    Status::Offline => !matches!(operation.state, State::Running | State::Resuming),
                    Status::Online => operation.state != State::Paused,
                    Status::Removed => operation.state == State::Cancelled,
                    Status::Unknown => true,
                };
                prop_assert!(is_right, "{:?} {:?}", status, operation);
                let is_stranger = operation.account_id.is_some() && operation.account_id != device.account_id;
                prop_assert!(!is_stranger || operation.state == State::Cancelled, "{:?}", operation);
            }
        }
    }
}

fn with_pause(confirmed: bool) -> Ledger {
    let mut ledger = Ledger::default();
    let register = Registration {
        operation_id: "x".to_owned(),
        account_id: None,
        kind: "snap".to_owned(),
        params: "{}".to_owned(),
    };
    ledger.register(DEVICE, &register, 0).unwrap();
    let device = ledger.devices.get_mut(DEVICE).unwrap();
    device.news = Some((Order::new(9, None, "e", "device_offline"), Status::Offline));
    let pause = device.settle(9, &Cause::of_import("test", 0), 0).remove(0);
    if confirmed {
        assert!(ledger.confirm(&pause));
    }
    ledger
}

#[test]
fn what_one_of_two_equals_has_delivered_is_owed_by_none() {
    for (here, there, owed) in [
        (true, true, 0),
        (true, false, 0),
        (false, true, 0),
        (false, false, 1),
    ] {
        let mut ledger = with_pause(here);
        ledger.restore_device(&with_pause(there).devices[DEVICE], 5);
        assert_eq!(ledger.owed().len(), owed, "{here} {there}");
    }
}

#[test]
fn an_operation_that_comes_where_it_was_forgotten_begins_above_its_former_life() {
    let from = with_pause(false);
    let mut ledger = Ledger::default();
    ledger.device(DEVICE).generation_floor = 7;
    ledger.restore_device(&from.devices[DEVICE], 5);
    let device = &ledger.devices[DEVICE];
    let operation = &device.operations["x"];
    assert_eq!((operation.state, operation.generation), (State::Paused, 7));
    assert_eq!(device.owed["x"].generation, 7);
    // The side that knew it already is lifted just as well.
    let mut back = from.clone();
    let mut other = Device::new(DEVICE);
    other.generation_floor = 9;
    back.restore_device(&other, 5);
    assert_eq!(back.devices[DEVICE].operations["x"].generation, 9);
    assert_eq!(back.devices[DEVICE].owed["x"].generation, 9);
}
