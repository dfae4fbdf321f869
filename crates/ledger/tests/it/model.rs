//! Both ledgers held to the reference model: any calls, in any order, end the same.

use std::collections::{BTreeMap, BTreeSet};

use porchlight_device::carry::{CarriedAccount, CarriedDevice};
use porchlight_device::ledger::DeviceFilter;
use porchlight_device::merge::IMPORT;
use porchlight_device::model::Ledger as Model;
use porchlight_device::view::HISTORY_ENTRIES_MAX;
use porchlight_device::{Command, Device, News, Outcome, Registration, Status};
use porchlight_event::TraceParent;
use porchlight_ledger::{Ledger, RegisterError};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::support::{Event, Place};

/// Cases, unless `PORCHLIGHT_TEST_CASES` says otherwise.
const CASES: u32 = 96;

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Take(News),
    Register(String, Registration),
    Forget(String, String),
    /// The command at this place among the owed ones, counted round, with this much added to its generation.
    Confirm(usize, u64),
    GiveUp(usize, u64),
    /// The command at this place among all that were ever owed, counted round.
    OweAgain(usize),
    Claim,
    /// What another ledger knows, that went through these steps.
    TakeIn(Vec<Step>),
}

fn devices() -> Vec<String> {
    let long = "d".repeat(4096);
    [
        "dev",
        "dev\0",
        "\0",
        " ",
        "{dev}",
        "DEV",
        "d\u{e9}v",
        "de\u{301}v",
        "\u{1f600}:",
        "=dev",
        "1:x-:",
        &long,
    ]
    .map(str::to_owned)
    .to_vec()
}

fn device() -> impl Strategy<Value = String> {
    // Two devices get most of the events, so that much happens to each.
    prop_oneof![6 => select(vec!["dev".to_owned(), "d\u{e9}v".to_owned()]), 1 => select(devices())]
}

fn account() -> impl Strategy<Value = Option<String>> {
    let names = ["acct", "acct\0", "=acct", "\u{e4}ccount"]
        .map(str::to_owned)
        .to_vec();
    prop_oneof![3 => Just(Some("acct".to_owned())), 1 => Just(None), 2 => select(names).prop_map(Some)]
}

fn time() -> impl Strategy<Value = i64> {
    let odd = vec![i64::MIN, -1, (1 << 53) + 1, (1 << 53) + 2, i64::MAX - 1, i64::MAX];
    prop_oneof![8 => 0_i64..16, 1 => select(odd)]
}

fn event() -> impl Strategy<Value = Step> {
    let kinds = vec![
        "device_online",
        "device_offline",
        "device_online",
        "device_offline",
        "device_added",
        "device_removed",
        "motion_detected",
        "app_integration_added",
        "app_integration_removed",
        "something_new",
    ];
    let request = prop_oneof![4 => Just(None), 1 => (0..4).prop_map(|n| Some(format!("request-{n}")))];
    (select(kinds), device(), account(), time(), request).prop_map(
        |(event_type, device_id, account, at, request)| {
            let account_id = account
                .as_deref()
                .or(Some("acct").filter(|_| event_type.starts_with("app_")));
            let request_id = request.as_deref();
            let mut news = Event {
                event_type,
                device_id: &device_id,
                account_id,
                at,
                request_id,
            }
            .news();
            // What is owed keeps it; now and then there is none.
            let trace = at.unsigned_abs() % 5;
            news.traceparent = TraceParent::parse(&format!("00-{:032x}-{trace:016x}-01", 7));
            Step::Take(news)
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let elsewhere = prop::collection::vec(own_step(), 1..30).prop_map(Step::TakeIn);
    prop_oneof![12 => own_step(), 1 => elsewhere]
}

pub(crate) fn own_step() -> impl Strategy<Value = Step> {
    let operation = || select(vec!["op".to_owned(), "op\0".to_owned(), "\u{f6}p:1".to_owned()]);
    let params = select(vec![
        "{}".to_owned(),
        r#"{"a":"\u0000","b":[1.0]}"#.to_owned(),
        "7".to_owned(),
    ]);
    let register = (
        device(),
        operation(),
        account(),
        select(vec!["snap", "rec"]),
        params,
    )
        .prop_map(|(device, operation_id, account_id, kind, params)| {
            Step::Register(
                device,
                Registration {
                    operation_id,
                    account_id,
                    kind: kind.to_owned(),
                    params,
                },
            )
        });
    prop_oneof![
        10 => event(),
        3 => register,
        1 => (device(), operation()).prop_map(|(device, operation)| Step::Forget(device, operation)),
        3 => (0_usize..50, 0_u64..10).prop_map(|(n, off)| Step::Confirm(n, off.saturating_sub(8))),
        2 => (0_usize..50, 0_u64..10).prop_map(|(n, off)| Step::GiveUp(n, off.saturating_sub(8))),
        2 => (0_usize..500).prop_map(Step::OweAgain),
        1 => Just(Step::Claim),
    ]
}

/// What a ledger knows after these steps.
fn elsewhere(steps: Vec<Step>) -> Model {
    let mut ledger = Model::default();
    for (step, now_ms) in steps.into_iter().zip((500_000_i64..).step_by(1000)) {
        let owed = ledger.owed();
        let command = |place: usize| owed.get(place % owed.len().max(1));
        match step {
            Step::Take(news) => drop(ledger.apply(&news, now_ms)),
            Step::Register(device, registration) => {
                // One that is refused changes nothing.
                let _ = ledger.register(&device, &registration, now_ms);
            }
            Step::Forget(device, operation) => drop(ledger.forget(&device, &operation)),
            Step::Confirm(place, _) => drop(command(place).map(|command| ledger.confirm(command))),
            Step::GiveUp(place, _) => drop(command(place).map(|command| ledger.give_up(command))),
            Step::OweAgain(_) | Step::Claim | Step::TakeIn(_) => {}
        }
    }
    ledger
}

/// Takes in everything that another ledger knows on both sides.
async fn take_in(
    store: &Ledger,
    ledger: &mut Model,
    other: &Model,
    now_ms: i64,
) -> Result<(), TestCaseError> {
    for (account_id, registers) in &other.accounts {
        ledger.restore_account(account_id, registers, now_ms);
        let account = CarriedAccount {
            account_id: account_id.clone(),
            registers: registers.clone(),
        };
        prop_assert_eq!(store.restore_account(&account, now_ms).await, Ok(()));
    }
    for device in other.devices.values() {
        let wanted = ledger.restore_device(device, now_ms);
        let carried = CarriedDevice {
            device: device.clone(),
            history: Vec::new(),
        };
        let got = store.restore_device(&carried, now_ms).await;
        prop_assert_eq!(got, Ok(wanted), "{:?}", device);
    }
    Ok(())
}

/// Takes the steps on both sides and compares after each.
async fn walk(store: &Ledger, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut ledger = Model::default();
    let mut ever_owed: Vec<Command> = Vec::new();
    let mut histories: BTreeMap<String, Vec<(String, &str)>> = BTreeMap::new();
    for (step, now_ms) in steps.into_iter().zip((1_000_000_i64..).step_by(1000)) {
        ever_owed.extend(ledger.owed());
        match step {
            Step::Take(news) => {
                let wanted = ledger.apply(&news, now_ms);
                if let (Some(device), false) = (news.device_id(), wanted.outcome == Outcome::Duplicate) {
                    let line = (news.event_id.clone(), wanted.outcome.code());
                    histories.entry(device.to_owned()).or_default().insert(0, line);
                }
                let got = store
                    .apply_batch(0, std::slice::from_ref(&news), now_ms)
                    .await
                    .remove(0);
                prop_assert_eq!(got, Ok(wanted), "{:?}", news);
            }
            Step::Register(device, registration) => {
                let wanted = ledger.register(&device, &registration, now_ms);
                let got = store.register(&device, &registration, now_ms).await;
                prop_assert_eq!(got, wanted.map_err(RegisterError::Refused));
            }
            Step::Forget(device, operation) => {
                let wanted = ledger.forget(&device, &operation);
                prop_assert_eq!(store.forget(&device, &operation).await, Ok(wanted));
            }
            Step::Confirm(place, off) => {
                let owed = ledger.owed();
                let Some(mut command) = owed.get(place % owed.len().max(1)).cloned() else {
                    continue;
                };
                command.generation += off;
                prop_assert_eq!(ledger.confirm(&command), off == 0);
                prop_assert_eq!(store.confirm(0, &[command]).await, vec![Ok(off == 0)]);
            }
            Step::GiveUp(place, off) => {
                let owed = ledger.owed();
                let Some(mut command) = owed.get(place % owed.len().max(1)).cloned() else {
                    continue;
                };
                command.generation += off;
                prop_assert_eq!(ledger.give_up(&command), off == 0);
                prop_assert_eq!(store.give_up(&command).await, Ok(off == 0));
            }
            Step::OweAgain(place) => {
                let Some(command) = ever_owed.get(place % ever_owed.len().max(1)) else {
                    continue;
                };
                let wanted = ledger.owe_again(command, now_ms);
                prop_assert_eq!(store.owe_again(command, now_ms).await, Ok(wanted));
            }
            Step::TakeIn(steps) => {
                let other = elsewhere(steps);
                take_in(store, &mut ledger, &other, now_ms).await?;
                let known = ledger.clone();
                take_in(store, &mut ledger, &other, now_ms + 1).await?;
                prop_assert_eq!(&known.devices, &ledger.devices);
            }
            Step::Claim => {
                let owed = ledger.owed();
                for command in store.claim(now_ms, 1000).await.unwrap() {
                    prop_assert!(owed.contains(&command), "{:?}", command);
                }
            }
        }
    }
    compare(store, ledger, &histories).await
}

async fn compare(
    store: &Ledger,
    ledger: Model,
    histories: &BTreeMap<String, Vec<(String, &str)>>,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(
        store.backlog().await.unwrap().commands,
        ledger.owed().len() as u64
    );
    // The far future: everything that is owed is due.
    let mut owed = store.claim(i64::MAX / 2, 100_000).await.unwrap();
    owed.sort_by(|a, b| (&a.device_id, &a.operation_id).cmp(&(&b.device_id, &b.operation_id)));
    prop_assert_eq!(owed, ledger.owed());
    let mut counts: BTreeMap<Status, u64> = Status::ALL.into_iter().map(|status| (status, 0)).collect();
    let mut known = Vec::new();
    for device_id in devices() {
        let wanted = ledger
            .devices
            .get(&device_id)
            .filter(|device| **device != Device::new(&device_id));
        let got = store.device(&device_id).await.unwrap();
        // A device of which only things without an effect were heard is there, and blank.
        prop_assert_eq!(
            got.as_ref().filter(|device| **device != Device::new(&device_id)),
            wanted
        );
        let Some(device) = got else { continue };
        *counts.entry(device.status).or_default() += 1;
        let lines: Vec<(String, String)> = store
            .device_view(&device_id)
            .await
            .unwrap()
            .unwrap()
            .history
            .into_iter()
            .filter(|line| !line.kind.starts_with("app_") && line.kind != IMPORT)
            .map(|line| (line.event_id, line.outcome))
            .collect();
        let wanted = histories.get(&device_id).cloned().unwrap_or_default().into_iter();
        let wanted: Vec<_> = wanted
            .map(|(id, outcome)| (id, outcome.to_owned()))
            .take(lines.len())
            .collect();
        prop_assert_eq!(&lines, &wanted);
        prop_assert!(lines.len() <= HISTORY_ENTRIES_MAX);
        known.push(device_id);
    }
    prop_assert_eq!(store.counts().await.unwrap(), counts);
    let page = store.devices(&DeviceFilter::default(), None, 500).await.unwrap();
    let mut paged: Vec<_> = page.devices.into_iter().map(|device| device.device_id).collect();
    paged.sort();
    known.sort();
    prop_assert_eq!(paged, known);
    Ok(())
}

/// Runs cases one after the other, each on an empty ledger.
fn run<S: Strategy>(
    mut place: Place,
    runtime: &tokio::runtime::Runtime,
    (cases, strategy): (u32, S),
    test: &impl AsyncFn(&Ledger, S::Value) -> Result<(), TestCaseError>,
) {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..Config::default()
    };
    let place = std::cell::RefCell::new(&mut place);
    TestRunner::new(config)
        .run(&strategy, |case| {
            let ledger = place.borrow_mut().emptied();
            runtime.block_on(test(&ledger, case))
        })
        .unwrap();
}

fn steps() -> (u32, impl Strategy<Value = Vec<Step>>) {
    let cases = std::env::var("PORCHLIGHT_TEST_CASES").ok();
    let cases = cases.and_then(|text| text.parse().ok()).unwrap_or(CASES);
    (cases, prop::collection::vec(step(), 1..60))
}

fn batches() -> (u32, impl Strategy<Value = Vec<News>>) {
    let events = prop::collection::vec(event(), 1..80).prop_map(|steps| {
        let take = |step| match step {
            Step::Take(news) => Some(news),
            _ => None,
        };
        // Of two events with one mark the first to be taken counts, and a batch may take them in either order.
        let mut seen = BTreeSet::new();
        let mut is_new = |news: &News| {
            seen.insert(news.identity_mark) && news.request_mark.is_none_or(|mark| seen.insert(mark))
        };
        let news = steps.into_iter().filter_map(take);
        news.filter(|news| is_new(news)).collect::<Vec<_>>()
    });
    (24, events)
}

async fn whole_batch(store: &Ledger, events: Vec<News>) -> Result<(), TestCaseError> {
    let mut ledger = Model::default();
    for news in &events {
        ledger.apply(news, 5);
    }
    let results = store.apply_batch(0, &events, 5).await;
    prop_assert!(results.iter().all(Result::is_ok));
    for (device_id, wanted) in ledger.devices {
        let got = store.device(&device_id).await.unwrap().unwrap();
        let of = |device: &Device| (device.status, device.account_id.clone(), device.account.clone());
        prop_assert_eq!(of(&got), of(&wanted));
        prop_assert_eq!(
            (got.news, got.added, got.removed),
            (wanted.news, wanted.added, wanted.removed)
        );
    }
    Ok(())
}

mod redis {
    use super::*;

    #[test]
    fn any_calls_in_any_order_end_as_the_reference_model_says() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        run(runtime.block_on(Place::redis()), &runtime, steps(), &walk);
    }

    #[test]
    fn whole_batches_in_any_order_end_in_the_same_status_and_operations() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        run(
            runtime.block_on(Place::redis()),
            &runtime,
            batches(),
            &whole_batch,
        );
    }
}

mod sqlite {
    use super::*;

    #[test]
    fn any_calls_in_any_order_end_as_the_reference_model_says() {
        run(
            Place::sqlite(),
            &tokio::runtime::Runtime::new().unwrap(),
            steps(),
            &walk,
        );
    }

    #[test]
    fn whole_batches_in_any_order_end_in_the_same_status_and_operations() {
        run(
            Place::sqlite(),
            &tokio::runtime::Runtime::new().unwrap(),
            batches(),
            &whole_batch,
        );
    }
}
