//! Owed commands: held back, claimed, confirmed and replaced.

use std::collections::BTreeSet;
use std::time::Duration;

use porchlight_device::{Action, Command, OweAgain, State};
use porchlight_ledger::Ledger;

use crate::support::{Place, apply, news, with_operation};

for_both! {
    a_command_is_claimed_after_its_head_start_and_again_after_growing_pauses,
    commands_that_failed_together_do_not_come_back_together,
    a_confirmed_resume_runs_and_a_late_confirm_of_a_replaced_command_changes_nothing,
    two_sweepers_never_claim_the_same_command,
    a_claim_keeps_about_its_limit_and_serves_every_partition_in_turn,
    with_a_settle_time_a_resume_waits_and_an_offline_meanwhile_takes_its_place,
    the_backlog_tells_its_oldest_command_however_often_it_was_claimed,
    what_was_given_up_stays_as_it_is_until_it_is_owed_again,
    only_what_is_still_true_is_owed_again,
}
async fn claimed(ledger: &Ledger, now_ms: i64) -> Vec<(Action, u64)> {
    ledger
        .claim(now_ms, 100)
        .await
        .unwrap()
        .iter()
        .map(|command| (command.action, command.generation))
        .collect()
}

async fn a_command_is_claimed_after_its_head_start_and_again_after_growing_pauses(place: Place) {
    let ledger = place.ledger();
    with_operation(&ledger, "dev").await;
    let now = 1_000_000;
    let owed = apply(&ledger, &news("device_offline", "dev", 20), now)
        .await
        .unwrap()
        .commands;
    assert_eq!(claimed(&ledger, now + 1_999).await, []);
    let due = now + 2_000;
    let mut at: Vec<i64> = Vec::new();
    for after in (0..1_300_000).step_by(500) {
        if claimed(&ledger, due + after).await == [(Action::Pause, 1)] {
            at.push(after);
        }
    }
    for pair in at.windows(2) {
        let (overdue, pause) = (pair[0].clamp(5_000, 300_000), pair[1] - pair[0]);
        let (shortest, longest) = ((overdue * 3 / 4).max(5_000), (overdue * 5 / 4).min(300_000));
        assert!((shortest..=longest + 500).contains(&pause), "{at:?}");
    }
    assert!((9..=14).contains(&at.len()), "{at:?}");
    assert_eq!(ledger.confirm(0, &owed).await, [Ok(true)]);
    assert_eq!(ledger.confirm(0, &owed).await, [Ok(false)]);
    assert_eq!(claimed(&ledger, i64::MAX).await, []);
}

async fn commands_that_failed_together_do_not_come_back_together(place: Place) {
    let ledger = place.ledger();
    for n in 0..80 {
        let device = format!("dev-{n}");
        with_operation(&ledger, &device).await;
        apply(&ledger, &news("device_offline", &device, 20), 0)
            .await
            .unwrap();
    }
    // Overdue for 100 s, they are held for 75 s to 125 s.
    let now = 102_000;
    let mut came_back = Vec::new();
    for after in [0, 74_000, 100_000, 125_000] {
        came_back.push(ledger.claim(now + after, 1000).await.unwrap().len());
    }
    assert_eq!(
        (came_back[0], came_back[1], came_back[2] + came_back[3]),
        (80, 0, 80)
    );
    assert!((10..=70).contains(&came_back[2]), "{came_back:?}");
}

async fn a_confirmed_resume_runs_and_a_late_confirm_of_a_replaced_command_changes_nothing(place: Place) {
    let ledger = place.ledger();
    with_operation(&ledger, "dev").await;
    let mut sent: Vec<Command> = Vec::new();
    for (event, at) in [
        ("device_offline", 20),
        ("device_online", 30),
        ("device_offline", 40),
    ] {
        sent.extend(apply(&ledger, &news(event, "dev", at), 0).await.unwrap().commands);
    }
    assert_eq!(ledger.confirm(0, &sent).await, [Ok(false), Ok(false), Ok(true)]);
    let state = async || ledger.device("dev").await.unwrap().unwrap().operations["op"].clone();
    assert_eq!(
        (state().await.state, state().await.generation),
        (State::Paused, 2)
    );
    let resume = apply(&ledger, &news("device_online", "dev", 50), 0)
        .await
        .unwrap()
        .commands;
    assert_eq!(state().await.state, State::Resuming);
    assert_eq!(ledger.confirm(0, &resume).await, [Ok(true)]);
    assert_eq!(
        (state().await.state, state().await.generation),
        (State::Running, 2)
    );
}

async fn two_sweepers_never_claim_the_same_command(place: Place) {
    let ledger = place.ledger();
    let other = place.other();
    for n in 0..120 {
        let device = format!("dev-{n}");
        with_operation(&ledger, &device).await;
        apply(&ledger, &news("device_offline", &device, 20), 0)
            .await
            .unwrap();
    }
    assert_eq!(ledger.backlog().await.unwrap().commands, 120);
    let (first, second) = tokio::join!(ledger.claim(5_000, 1000), other.claim(5_000, 1000));
    let ids: Vec<String> = [first.unwrap(), second.unwrap()]
        .concat()
        .iter()
        .map(Command::id)
        .collect();
    assert_eq!(ids.len(), 120);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 120);
}

async fn a_claim_keeps_about_its_limit_and_serves_every_partition_in_turn(place: Place) {
    let ledger = place.ledger();
    for n in 0..60 {
        let device = format!("dev-{n}");
        with_operation(&ledger, &device).await;
        apply(&ledger, &news("device_offline", &device, 20), 0)
            .await
            .unwrap();
    }
    let mut seen = BTreeSet::new();
    for _ in 0..60 {
        let some = ledger.claim(5_000, 7).await.unwrap();
        assert!(some.len() <= 7);
        seen.extend(some.iter().map(Command::id));
    }
    assert_eq!(seen.len(), 60);
}

async fn with_a_settle_time_a_resume_waits_and_an_offline_meanwhile_takes_its_place(place: Place) {
    let ledger = place.ledger_with(Duration::from_secs(30));
    with_operation(&ledger, "dev").await;
    assert_eq!(
        apply(&ledger, &news("device_offline", "dev", 20), 0)
            .await
            .unwrap()
            .commands
            .len(),
        1
    );
    assert_eq!(
        apply(&ledger, &news("device_online", "dev", 30), 0)
            .await
            .unwrap()
            .commands,
        []
    );
    assert_eq!(claimed(&ledger, 29_999).await, []);
    assert_eq!(
        apply(&ledger, &news("device_offline", "dev", 40), 29_999)
            .await
            .unwrap()
            .commands
            .len(),
        1
    );
    assert_eq!(claimed(&ledger, 31_998).await, []);
    assert_eq!(claimed(&ledger, 31_999).await, [(Action::Pause, 2)]);
    apply(&ledger, &news("device_online", "dev", 50), 40_000)
        .await
        .unwrap();
    assert_eq!(claimed(&ledger, 69_999).await, []);
    assert_eq!(claimed(&ledger, 70_000).await, [(Action::Resume, 2)]);
}

async fn the_backlog_tells_its_oldest_command_however_often_it_was_claimed(place: Place) {
    let ledger = place.ledger();
    assert_eq!(ledger.backlog().await.unwrap(), Default::default());
    for (device, at) in [("dev-1", 7_000), ("dev-2", 3_000), ("dev-3", 9_000)] {
        with_operation(&ledger, device).await;
        apply(&ledger, &news("device_offline", device, 20), at)
            .await
            .unwrap();
    }
    ledger.claim(100_000, 100).await.unwrap();
    let backlog = ledger.backlog().await.unwrap();
    assert_eq!((backlog.commands, backlog.oldest_ms), (3, Some(3_000)));
    assert_eq!(ledger.forget("dev-2", "op").await, Ok(true));
    let backlog = ledger.backlog().await.unwrap();
    assert_eq!((backlog.commands, backlog.oldest_ms), (2, Some(7_000)));
}

async fn what_was_given_up_stays_as_it_is_until_it_is_owed_again(place: Place) {
    let ledger = place.ledger();
    with_operation(&ledger, "dev").await;
    for (event, at) in [("device_offline", 20), ("device_online", 30)] {
        apply(&ledger, &news(event, "dev", at), 1_000).await.unwrap();
    }
    let resume = ledger.claim(10_000, 10).await.unwrap().remove(0);
    let pause = Command {
        action: Action::Pause,
        ..resume.clone()
    };
    assert_eq!(ledger.give_up(&pause).await, Ok(false));
    assert_eq!(ledger.owe_again(&pause, 11_000).await, Ok(OweAgain::Overtaken));
    assert_eq!(ledger.give_up(&resume).await, Ok(true));
    assert_eq!(ledger.give_up(&resume).await, Ok(false));
    assert_eq!(ledger.backlog().await.unwrap(), Default::default());
    assert_eq!(claimed(&ledger, i64::MAX / 2).await, []);
    let state = async || ledger.device("dev").await.unwrap().unwrap().operations["op"].state;
    assert_eq!(state().await, State::Resuming);
    assert_eq!(ledger.owe_again(&resume, 20_000).await, Ok(OweAgain::Owed));
    assert_eq!(ledger.backlog().await.unwrap().oldest_ms, Some(20_000));
    let again = ledger.claim(20_000, 10).await.unwrap().remove(0);
    assert_eq!((again.id(), again.issued_at_ms), (resume.id(), 20_000));
    assert_eq!(
        claimed(&ledger, 20_001).await,
        [],
        "it is held back like any other"
    );
    assert_eq!(ledger.owe_again(&resume, 20_002).await, Ok(OweAgain::Owed));
    assert_eq!(
        claimed(&ledger, 20_002).await,
        [(Action::Resume, 1)],
        "due now, whatever the hold was"
    );
    assert_eq!(ledger.confirm(0, &[again]).await, [Ok(true)]);
    assert_eq!(state().await, State::Running);
    assert_eq!(ledger.owe_again(&resume, 30_000).await, Ok(OweAgain::Overtaken));
    assert_eq!(ledger.backlog().await.unwrap().commands, 0);
}

async fn only_what_is_still_true_is_owed_again(place: Place) {
    let ledger = place.ledger();
    with_operation(&ledger, "dev").await;
    let mut given_up = Vec::new();
    for (event, at) in [
        ("device_offline", 20),
        ("device_online", 30),
        ("device_removed", 40),
    ] {
        let command = apply(&ledger, &news(event, "dev", at), 0)
            .await
            .unwrap()
            .commands
            .remove(0);
        assert_eq!(ledger.give_up(&command).await, Ok(true));
        given_up.push(command);
    }
    let cancel = given_up.pop().unwrap();
    let changed = |change: fn(&mut Command)| {
        let mut command = cancel.clone();
        change(&mut command);
        command
    };
    given_up.extend([
        changed(|command| command.generation += 1),
        changed(|command| command.generation = u64::MAX),
        changed(|command| command.operation_id.push('x')),
        changed(|command| command.device_id.push('x')),
    ]);
    for command in given_up {
        assert_eq!(
            ledger.owe_again(&command, 50).await,
            Ok(OweAgain::Overtaken),
            "{command:?}"
        );
    }
    assert_eq!(ledger.device("devx").await, Ok(None));
    assert_eq!(ledger.owe_again(&cancel, 50).await, Ok(OweAgain::Owed));
    assert_eq!(ledger.forget("dev", "op").await, Ok(true));
    assert_eq!(ledger.owe_again(&cancel, 50).await, Ok(OweAgain::Overtaken));
    assert_eq!(claimed(&ledger, i64::MAX / 2).await, []);
}
