//! A demo must fail when the outcome is wrong: facts as they should be, and each of them bent once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::demo::story::scenes;

/// Facts that are all as the story says.
pub(in crate::demo) fn right() -> (Vec<Scene>, Facts) {
    let scenes = scenes();
    let mut facts = Facts::default();
    for scene in &scenes {
        let steps = scene.steps.iter().map(|step| match step {
            Step::Send(send) => StepFacts::Request(request(scene, send)),
            Step::BusyReceiver => StepFacts::Note("busy"),
            Step::Restart => StepFacts::Note("restart"),
        });
        facts.scenes.push(SceneFacts {
            name: scene.name,
            device_id: scene.actor.as_ref().map(|_| scene.device_id()),
            steps: steps.collect(),
            end: scene.actor.as_ref().map(Actor::end_facts),
            differences: Vec::new(),
        });
    }
    facts.settled = facts.answered(200) as u64;
    (scenes, facts)
}

fn request(scene: &Scene, send: &Send) -> RequestFacts {
    let operation = scene.actor.as_ref().map_or("", |actor| actor.operation);
    let command = |(action, generation): &(porchlight_device::Action, u64)| CommandFacts {
        id: porchlight_device::command::command_id(&scene.device_id(), operation, *generation, *action),
        action: action.code().to_owned(),
        device_id: scene.device_id(),
        operation: operation.to_owned(),
        generation: *generation,
        refused: 0,
        taken: 1,
        verified: true,
    };
    RequestFacts {
        happened: send.when(),
        sent: send.label(),
        status: Some(send.status()),
        latency_ms: 1.5,
        outcome: outcome(send.fate).to_owned(),
        reason: match send.fate {
            Fate::Became(_, reason) => reason.text().to_owned(),
            Fate::Dead(code) => format!("{code}: the body is not JSON"),
            Fate::NotStored => "no signing key matches".to_owned(),
            Fate::Waits => "it is tried again when its time has come".to_owned(),
        },
        commands: send.commands.iter().map(command).collect(),
    }
}

/// One way to make facts wrong, and words of what must be said of it then.
type Bend<T> = (fn(&mut T), &'static str);

fn request_mut(facts: &mut Facts, scene: usize, step: usize) -> &mut RequestFacts {
    match &mut facts.scenes[scene].steps[step] {
        StepFacts::Request(request) => request,
        StepFacts::Note(note) => panic!("{note}"),
    }
}

fn all_differences(scenes: &[Scene], facts: &Facts) -> Vec<String> {
    let pairs = scenes.iter().zip(&facts.scenes);
    pairs.flat_map(|(scene, seen)| differences(scene, seen)).collect()
}

fn broken(scenes: &[Scene], facts: &Facts) -> Vec<&'static str> {
    let broken = verdicts(scenes, facts)
        .into_iter()
        .filter(|verdict| !verdict.kept);
    broken.map(|verdict| verdict.promise).collect()
}

#[test]
fn facts_as_the_story_says_have_no_difference_and_keep_every_promise() {
    let (scenes, facts) = right();
    assert_eq!(all_differences(&scenes, &facts), Vec::<String>::new());
    assert_eq!(broken(&scenes, &facts), Vec::<&str>::new());
}

#[test]
fn each_thing_that_is_wrong_with_a_request_is_named() {
    let bends: [Bend<RequestFacts>; 6] = [
        (
            |request| request.status = Some(503),
            "the answer must be 200 and is 503",
        ),
        (
            |request| request.status = None,
            "the answer must be 200 and is missing",
        ),
        (
            |request| request.outcome = "stale".to_owned(),
            "the outcome must be applied and is stale",
        ),
        (
            |request| request.reason = "mood".to_owned(),
            "the newest news of its kind and is mood",
        ),
        (
            |request| request.commands.clear(),
            "commands must be pause 1 and is none",
        ),
        (
            |request| request.commands[0].verified = false,
            "the signature of the command to pause is not right",
        ),
    ];
    for (bend, words) in bends {
        let (scenes, mut facts) = right();
        bend(request_mut(&mut facts, 0, 0));
        let found = all_differences(&scenes, &facts);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("device_offline at -9:00: ") && found[0].contains(words),
            "{found:?}"
        );
    }
}

#[test]
fn a_device_that_stands_wrong_and_a_step_that_is_missing_are_named() {
    let (scenes, mut facts) = right();
    facts.scenes[0].end.as_mut().unwrap().state = "paused".to_owned();
    facts.scenes[1].end = None;
    facts.scenes[2].steps.pop();
    let found = all_differences(&scenes, &facts);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found[0].ends_with("running in generation 1 and is online, nightly-snapshot paused in generation 1")
    );
    assert_eq!(found[2], "step 4 did not happen");
}

#[test]
fn each_promise_can_be_broken() {
    let bends: [Bend<Facts>; 7] = [
        (|facts| facts.settled -= 1, "exactly one thing"),
        (
            |facts| request_mut(facts, 0, 0).outcome.clear(),
            "exactly one thing",
        ),
        (
            |facts| facts.strange_commands.push(CommandFacts::default()),
            "an identity of its own",
        ),
        (
            |facts| request_mut(facts, 0, 1).commands[0].action = "pause".to_owned(),
            "an identity of its own",
        ),
        (|facts| facts.scenes[0].end = None, "its newest event"),
        (|facts| request_mut(facts, 0, 0).latency_ms = 4_501.0, "4.5 s"),
        (
            |facts| request_mut(facts, 7, 0).status = Some(200),
            "never stored",
        ),
    ];
    for (bend, words) in bends {
        let (scenes, mut facts) = right();
        bend(&mut facts);
        let broken = broken(&scenes, &facts);
        assert!(
            broken.iter().any(|promise| promise.contains(words)),
            "{words}: {broken:?}"
        );
    }
}
