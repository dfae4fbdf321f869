//! What a ledger predicts is what it then answers, and predicting leaves everything as it is.

use std::time::Duration;

use porchlight_device::marks::GENERATION_MS;
use porchlight_device::{
    Action, ActionCounts, Command, Decision, News, Outcome, OweAgain, Prediction, Reason,
};
use porchlight_ledger::Ledger;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::model::{Step, own_step};
use crate::support::{Place, apply, news, news_of, registration, with_operation};

for_both! {
    each_outcome_is_foretold_and_nothing_changes,
    a_batch_is_predicted_one_by_one_as_if_each_were_the_only_one,
    news_of_an_account_counts_what_all_its_devices_would_owe,
    a_device_that_would_move_is_told_of_an_account_that_it_does_not_enter,
    an_empty_ledger_stays_empty,
    a_new_generation_of_marks_is_not_begun,
    a_resume_that_waits_for_its_device_to_settle_is_counted,
    a_command_that_was_given_up_is_predicted_to_be_owed_again_or_overtaken,
}

/// Cases, each with dozens of predictions.
const CASES: u32 = 24;
/// Events that are predicted at once in a case.
const BATCH: usize = 8;

/// Predicts, and sees that nothing has changed.
async fn predict(place: &Place, ledger: &Ledger, events: &[News], now_ms: i64) -> Vec<Prediction> {
    let before = place.dump();
    let predicted = ledger.predict(events, now_ms).await;
    assert_eq!(place.dump(), before);
    predicted.into_iter().map(Result::unwrap).collect()
}

async fn predict_one(place: &Place, ledger: &Ledger, event: &News, now_ms: i64) -> Prediction {
    predict(place, ledger, std::slice::from_ref(event), now_ms)
        .await
        .remove(0)
}

/// Predicts, takes the event, and sees that it became true.
async fn foretold(place: &Place, ledger: &Ledger, event: &News, now_ms: i64) -> Decision {
    let predicted = predict_one(place, ledger, event, now_ms).await;
    let decision = apply(ledger, event, now_ms).await.unwrap();
    assert_eq!(predicted, Prediction::of(&decision), "{event:?}");
    decision
}

fn owes(pause: u64, resume: u64, cancel: u64) -> ActionCounts {
    ActionCounts {
        pause,
        resume,
        cancel,
    }
}

async fn each_outcome_is_foretold_and_nothing_changes(place: Place) {
    let ledger = place.ledger();
    with_operation(&ledger, "dev").await;
    let wanted = [
        (
            news("device_offline", "dev", 20),
            Outcome::Applied,
            Reason::Newest,
        ),
        (
            news("device_offline", "dev", 20),
            Outcome::Duplicate,
            Reason::Seen,
        ),
        (
            news("device_online", "dev", 15),
            Outcome::Stale,
            Reason::OlderThanKnown,
        ),
        (news("device_online", "dev", 30), Outcome::Applied, Reason::Newest),
        (
            news("motion_detected", "dev", 31),
            Outcome::Recorded,
            Reason::NoEffect,
        ),
        (
            news("device_removed", "dev", 40),
            Outcome::Applied,
            Reason::Newest,
        ),
        (
            news("device_offline", "dev", 50),
            Outcome::Refused,
            Reason::DeviceRemoved,
        ),
        (news("device_added", "dev", 60), Outcome::Applied, Reason::Newest),
        (news("something_new", "", 60), Outcome::Recorded, Reason::NoEffect),
        (
            news_of("app_integration_removed", "", "acct", 70),
            Outcome::Applied,
            Reason::Newest,
        ),
        (
            news_of("app_integration_added", "", "acct", 65),
            Outcome::Refused,
            Reason::RemovedLater,
        ),
    ];
    for (now_ms, (event, outcome, reason)) in (5_i64..).zip(wanted) {
        let decision = foretold(&place, &ledger, &event, now_ms).await;
        assert_eq!(
            (decision.outcome, decision.reason),
            (outcome, reason),
            "{event:?}"
        );
    }
}

async fn a_batch_is_predicted_one_by_one_as_if_each_were_the_only_one(place: Place) {
    let ledger = place.ledger();
    with_operation(&ledger, "dev").await;
    let events: Vec<_> = (0..200)
        .map(|n| news("device_offline", "dev", 1000 - n))
        .chain([news("device_online", "dev", 10)])
        .collect();
    let mut predicted = predict(&place, &ledger, &events, 5).await;
    assert_eq!(predicted.pop().unwrap().outcome, Outcome::Duplicate);
    let pauses = Prediction {
        outcome: Outcome::Applied,
        reason: Reason::Newest,
        owes: owes(1, 0, 0),
    };
    assert!(predicted.iter().all(|prediction| *prediction == pauses));
    assert!(predict(&place, &ledger, &[], 5).await.is_empty());
}

async fn news_of_an_account_counts_what_all_its_devices_would_owe(place: Place) {
    let ledger = place.ledger();
    let devices: Vec<String> = (0..150).map(|n| format!("dev-{n}")).collect();
    for device in &devices {
        with_operation(&ledger, device).await;
    }
    // One has left: it is still entered at the account, and owes nothing because of it.
    apply(&ledger, &news_of("device_online", "dev-7", "other", 50), 0)
        .await
        .unwrap();
    ledger.register("dev-7", &registration("op"), 0).await.unwrap();
    let removal = news_of("app_integration_removed", "", "acct", 60);
    let predicted = predict_one(&place, &ledger, &removal, 5).await;
    assert_eq!(
        (predicted.outcome, predicted.owes),
        (Outcome::Applied, owes(0, 0, 149))
    );
    assert_eq!(foretold(&place, &ledger, &removal, 5).await.commands.len(), 149);
}

async fn a_device_that_would_move_is_told_of_an_account_that_it_does_not_enter(place: Place) {
    let ledger = place.ledger();
    with_operation(&ledger, "dev").await;
    apply(&ledger, &news_of("app_integration_removed", "", "gone", 90), 0)
        .await
        .unwrap();
    let registered = porchlight_device::Registration {
        account_id: Some("acct".to_owned()),
        ..registration("of acct")
    };
    ledger.register("dev", &registered, 0).await.unwrap();
    let event = news_of("device_offline", "dev", "gone", 50);
    let decision = foretold(&place, &ledger, &event, 5).await;
    assert_eq!(
        (decision.outcome, decision.reason),
        (Outcome::Refused, Reason::AccountRemoved)
    );
    assert_eq!(decision.commands.len(), 2);
    let blank = news_of("device_online", "never heard of", "gone", 95);
    let decision = foretold(&place, &ledger, &blank, 6).await;
    assert_eq!(decision.outcome, Outcome::Refused);
}

async fn an_empty_ledger_stays_empty(place: Place) {
    let ledger = place.ledger();
    let before = place.dump();
    let event = news("device_online", "dev", 10);
    let predicted = predict_one(&place, &ledger, &event, 5).await;
    assert_eq!(
        (predicted.outcome, predicted.owes),
        (Outcome::Applied, owes(0, 0, 0))
    );
    predict_one(
        &place,
        &ledger,
        &news_of("app_integration_removed", "", "acct", 1),
        5,
    )
    .await;
    assert_eq!(place.dump(), before);
    assert_eq!(ledger.device("dev").await, Ok(None));
    foretold(&place, &ledger, &event, 5).await;
}

async fn a_new_generation_of_marks_is_not_begun(place: Place) {
    let ledger = place.ledger();
    let event = news("device_online", "dev", 10);
    apply(&ledger, &event, 0).await.unwrap();
    for (now_ms, outcome) in [
        (GENERATION_MS + 1, Outcome::Duplicate),
        // Nobody looks that far back; by then it is older news, and so it is foretold.
        (3 * GENERATION_MS, Outcome::Stale),
    ] {
        // One that knows the marks from before, and one that does not.
        for ledger in [&ledger, &place.other()] {
            assert_eq!(predict_one(&place, ledger, &event, now_ms).await.outcome, outcome);
        }
    }
    assert_eq!(
        foretold(&place, &ledger, &event, 3 * GENERATION_MS).await.outcome,
        Outcome::Stale
    );
}

async fn a_resume_that_waits_for_its_device_to_settle_is_counted(place: Place) {
    let ledger = place.ledger_with(Duration::from_secs(60));
    with_operation(&ledger, "dev").await;
    apply(&ledger, &news("device_offline", "dev", 20), 0)
        .await
        .unwrap();
    let online = news("device_online", "dev", 30);
    assert_eq!(predict_one(&place, &ledger, &online, 5).await.owes, owes(0, 1, 0));
    assert_eq!(apply(&ledger, &online, 5).await.unwrap().commands, []);
}

async fn a_command_that_was_given_up_is_predicted_to_be_owed_again_or_overtaken(place: Place) {
    let ledger = place.ledger();
    with_operation(&ledger, "dev").await;
    let pause = apply(&ledger, &news("device_offline", "dev", 20), 0)
        .await
        .unwrap()
        .commands
        .remove(0);
    let again = async |command: &Command| {
        let before = place.dump();
        let predicted = ledger
            .predict_owe_again(std::slice::from_ref(command), 7)
            .await
            .remove(0)
            .unwrap();
        assert_eq!(place.dump(), before);
        predicted
    };
    // Still owed; given up; owed again; overtaken; and of a device that nobody knows.
    assert_eq!(again(&pause).await, OweAgain::Owed);
    assert_eq!(ledger.give_up(&pause).await, Ok(true));
    assert_eq!(again(&pause).await, OweAgain::Owed);
    assert_eq!(ledger.backlog().await.unwrap().commands, 0);
    assert_eq!(ledger.owe_again(&pause, 8).await, Ok(OweAgain::Owed));
    apply(&ledger, &news("device_online", "dev", 30), 9)
        .await
        .unwrap();
    assert_eq!(again(&pause).await, OweAgain::Overtaken);
    let foreign = Command {
        device_id: "nobody".to_owned(),
        ..pause.clone()
    };
    assert_eq!(again(&foreign).await, OweAgain::Overtaken);
    let resume = Command {
        action: Action::Resume,
        ..pause
    };
    assert_eq!(again(&resume).await, OweAgain::Owed);
}

/// Takes the steps, and before each event predicts it together with some of those that follow.
async fn walk(place: &Place, ledger: &Ledger, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let news: Vec<News> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Take(news) => Some(news.clone()),
            _ => None,
        })
        .collect();
    let mut ahead = news.as_slice();
    for (step, now_ms) in steps.into_iter().zip((1_000_000_i64..).step_by(1000)) {
        match step {
            Step::Take(news) => {
                let before = place.dump();
                let predicted = ledger.predict(&ahead[..ahead.len().min(BATCH)], now_ms).await;
                prop_assert_eq!(place.dump(), before);
                prop_assert!(predicted.iter().all(Result::is_ok));
                let answer = apply(ledger, &news, now_ms).await.unwrap();
                prop_assert_eq!(&predicted[0], &Ok(Prediction::of(&answer)), "{:?}", news);
                ahead = &ahead[1..];
            }
            Step::Register(device, registration) => {
                drop(ledger.register(&device, &registration, now_ms).await)
            }
            Step::Forget(device, operation) => drop(ledger.forget(&device, &operation).await),
            Step::GiveUp(..) => {
                for command in ledger.claim(now_ms, 8).await.unwrap() {
                    ledger.give_up(&command).await.unwrap();
                    let before = place.dump();
                    let predicted = ledger
                        .predict_owe_again(std::slice::from_ref(&command), now_ms)
                        .await;
                    prop_assert_eq!(place.dump(), before);
                    prop_assert_eq!(&predicted[0], &ledger.owe_again(&command, now_ms).await);
                }
            }
            Step::Confirm(..) => {
                let owed = ledger.claim(now_ms, 8).await.unwrap();
                ledger.confirm(0, &owed).await;
            }
            Step::OweAgain(_) | Step::Claim | Step::TakeIn(_) => {}
        }
    }
    Ok(())
}

fn run(mut place: Place, runtime: &tokio::runtime::Runtime) {
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    let place = std::cell::RefCell::new(&mut place);
    TestRunner::new(config)
        .run(&prop::collection::vec(own_step(), 1..40), |steps| {
            let mut place = place.borrow_mut();
            let ledger = place.emptied();
            runtime.block_on(walk(&place, &ledger, steps))
        })
        .unwrap();
}

#[test]
fn whatever_happened_redis_predicts_what_it_then_answers() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    run(runtime.block_on(Place::redis()), &runtime);
}

#[test]
fn whatever_happened_sqlite_predicts_what_it_then_answers() {
    run(Place::sqlite(), &tokio::runtime::Runtime::new().unwrap());
}
