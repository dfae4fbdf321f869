//! Many devices' lives, where they must end by the reference ledger, and what disagrees with it.
//!
//! It sends nothing and asks nobody; whoever ran the events shows what came of them.

use std::collections::{BTreeMap, BTreeSet};

use porchlight_device::command::command_id;
use porchlight_device::model::Ledger;
use porchlight_device::{Action, News, Registration, State, Status};
use porchlight_event::RingEvent;
use serde_json::Value;

use crate::support::{event, now_ms};

/// The operation that every device has.
pub(crate) const OPERATION: &str = "nightly";

/// Distinct events of some devices, and what they must lead to.
pub(crate) struct Lives {
    devices: usize,
    /// The body of each event, each device's own life in order.
    pub(crate) events: Vec<Vec<u8>>,
}

/// Commands that came out, by device: generation and action.
#[derive(Default)]
pub(crate) struct Delivered(BTreeMap<String, BTreeSet<(u64, Action)>>);

pub(crate) fn device_id(index: usize) -> String {
    format!("ava1.ring.device.{index:05}")
}

pub(crate) fn account_id(index: usize) -> String {
    format!("ava1.ring.account.{:03}", index % 100)
}

impl Lives {
    /// Mostly offline and online, some removed and added again.
    pub(crate) fn new(devices: usize, events: usize, random: &mut fastrand::Rng) -> Self {
        let begin = now_ms() - 86_400_000;
        let life = |n: usize| {
            let (device, step) = (n % devices, n / devices);
            let kind = match random.u8(0..100) {
                0 if device.is_multiple_of(10) => "device_removed",
                1..3 if device.is_multiple_of(10) => "device_added",
                3..10 => "motion_detected",
                pick if pick % 2 == 0 => "device_offline",
                _ => "device_online",
            };
            let at = begin + i64::try_from(step).unwrap() * 60_000 + random.i64(0..30_000);
            event(kind, &device_id(device), &account_id(device), at)
        };
        let events = (0..events).map(life).collect();
        Self { devices, events }
    }

    /// The devices' ids.
    pub(crate) fn devices(&self) -> impl Iterator<Item = String> {
        (0..self.devices).map(device_id)
    }

    /// Where the reference ends with the same events; operations are registered first.
    fn reference(&self) -> Ledger {
        let mut ledger = Ledger::default();
        for index in 0..self.devices {
            let registration = Registration {
                operation_id: OPERATION.to_owned(),
                account_id: Some(account_id(index)),
                kind: "snapshot".to_owned(),
                params: "{}".to_owned(),
            };
            ledger
                .device(&device_id(index))
                .register(&registration, 0)
                .unwrap();
        }
        for body in &self.events {
            ledger.apply(&News::new(&RingEvent::parse(body).unwrap(), 0).unwrap(), 0);
        }
        ledger
    }

    /// What is wrong with the end, a line for each device: its status, its operation, or the last command that it led to.
    /// `shown` are the devices as the control API shows them when nothing is owed any more.
    pub(crate) fn wrong(&self, shown: &BTreeMap<String, Value>, delivered: &Delivered) -> Vec<String> {
        let reference = self.reference();
        let mut wrong = Vec::new();
        for id in self.devices() {
            let (shown, wanted) = (&shown[&id], reference.devices[&id].status);
            if shown["status"] != wanted.code() {
                wrong.push(format!(
                    "{id} is {} and should be {}",
                    shown["status"],
                    wanted.code()
                ));
                continue;
            }
            let operation = &shown["operations"][0];
            let generation = operation["generation"].as_u64().unwrap();
            let state = State::from_code(operation["state"].as_str().unwrap()).unwrap();
            let newest = delivered
                .0
                .get(&id)
                .and_then(|of_device| of_device.last().copied());
            let owed = match state {
                State::Paused => Some((generation, Action::Pause)),
                State::Running if generation > 0 => Some((generation, Action::Resume)),
                State::Running => None,
                State::Cancelled => Some((generation, Action::Cancel)),
                State::Resuming => {
                    wrong.push(format!("{id} still owes a resume after the outbox was empty"));
                    continue;
                }
            };
            if newest != owed {
                wrong.push(format!(
                    "{id} ended {state:?} in generation {generation} and the last command was {newest:?}"
                ));
            }
            let agrees = match wanted {
                Status::Online => matches!(state, State::Running | State::Cancelled),
                Status::Offline => matches!(state, State::Paused | State::Cancelled),
                Status::Removed => state == State::Cancelled,
                Status::Unknown => true,
            };
            if !agrees {
                wrong.push(format!(
                    "{id} is {} with an operation that is {state:?}",
                    wanted.code()
                ));
            }
        }
        wrong
    }
}

impl Delivered {
    /// Notes one command by its body, which must bear the one identity that it can have.
    pub(crate) fn note(&mut self, body: &Value) -> Action {
        let device = body["device_id"].as_str().unwrap().to_owned();
        let generation = body["generation"].as_u64().unwrap();
        let action = Action::from_code(body["action"].as_str().unwrap()).unwrap();
        assert_eq!(body["operation"]["id"], OPERATION);
        assert_eq!(
            body["id"],
            command_id(&device, OPERATION, generation, action),
            "a command under a second identity"
        );
        self.0.entry(device).or_default().insert((generation, action));
        action
    }
}
