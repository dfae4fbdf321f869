//! Holds what the demo saw against what the story says, and against what Porchlight promises.
//!
//! It looks at nothing but the facts it is given.

use std::collections::BTreeSet;

use serde::Serialize;

use super::facts::{CommandFacts, EndFacts, Facts, RequestFacts, SceneFacts, StepFacts};
use super::story::{Actor, Fate, Scene, Send, Step};

/// The longest that an answer may take, in milliseconds.
const ANSWER_MS_MAX: f64 = 4_500.0;

/// One promise, and whether the facts keep it.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) promise: &'static str,
    pub(super) kept: bool,
    /// What was counted for it.
    pub(super) figure: String,
}

/// Everything in a scene that is not as the story says, in words.
pub(super) fn differences(scene: &Scene, facts: &SceneFacts) -> Vec<String> {
    let mut found = Vec::new();
    for (number, step) in scene.steps.iter().enumerate() {
        match (step, facts.steps.get(number)) {
            (Step::Send(send), Some(StepFacts::Request(request))) => {
                found.extend(request_difference(send, request));
            }
            (Step::BusyReceiver | Step::Restart, Some(StepFacts::Note(_))) => {}
            _ => {
                found.push(format!("step {} did not happen", number + 1));
                break;
            }
        }
    }
    if let Some(actor) = &scene.actor {
        found.extend(end_difference(actor, facts.end.as_ref()));
    }
    found
}

/// The first thing that is wrong with a request; whatever else is follows from it.
fn request_difference(send: &Send, seen: &RequestFacts) -> Option<String> {
    let about = format!("{} at {}", send.label(), send.when());
    let status = seen
        .status
        .map_or("missing".to_owned(), |status| status.to_string());
    let shown_reason = match (send.fate, seen.reason.split_once(':')) {
        (Fate::Dead(_), Some((code, _))) => code,
        _ => seen.reason.as_str(),
    };
    let wanted_reason = match send.fate {
        Fate::Became(_, reason) => reason.text(),
        Fate::Dead(code) => code,
        Fate::NotStored | Fate::Waits => shown_reason,
    };
    let wanted = send.commands.iter();
    let wanted: Vec<_> = wanted
        .map(|(action, generation)| short(action.code(), *generation))
        .collect();
    let shown = seen.commands.iter();
    let shown: Vec<_> = shown
        .map(|command| short(&command.action, command.generation))
        .collect();
    let pairs = [
        ("the answer", send.status().to_string(), status),
        ("the outcome", outcome(send.fate).to_owned(), seen.outcome.clone()),
        ("the reason", wanted_reason.to_owned(), shown_reason.to_owned()),
        ("commands", list(&wanted), list(&shown)),
    ];
    let mut different = pairs.into_iter().filter(|(_, wanted, seen)| wanted != seen);
    if let Some((what, wanted, seen)) = different.next() {
        let seen = if seen.is_empty() { "missing" } else { &seen };
        return Some(format!("{about}: {what} must be {wanted} and is {seen}"));
    }
    let unverified = seen.commands.iter().find(|command| !command.verified)?;
    Some(format!(
        "{about}: the signature of the command to {} is not right",
        unverified.action
    ))
}

fn list(commands: &[String]) -> String {
    if commands.is_empty() {
        "none".to_owned()
    } else {
        commands.join(", ")
    }
}

fn end_difference(actor: &Actor, seen: Option<&EndFacts>) -> Option<String> {
    let wanted = actor.end_facts();
    let show = |end: &EndFacts| {
        format!(
            "{}, {} {} in generation {}",
            end.status, end.operation, end.state, end.generation
        )
    };
    match seen {
        Some(seen) if *seen == wanted => None,
        Some(seen) => Some(format!(
            "at the end it must be {} and is {}",
            show(&wanted),
            show(seen)
        )),
        None => Some(format!(
            "at the end it must be {} and is not known",
            show(&wanted)
        )),
    }
}

fn short(action: &str, generation: u64) -> String {
    format!("{action} {generation}")
}

/// The outcome as facts spell it.
pub(super) fn outcome(fate: Fate) -> &'static str {
    match fate {
        Fate::NotStored => "not_stored",
        Fate::Became(outcome, _) => outcome.code(),
        Fate::Waits => "later",
        Fate::Dead(_) => "dead",
    }
}

/// Holds everything that was seen against the promises.
pub(super) fn verdicts(scenes: &[Scene], facts: &Facts) -> Vec<Verdict> {
    vec![
        one_outcome_each(facts),
        one_identity_each(facts),
        newest_wins(scenes, facts),
        no_4xx_and_in_time(scenes, facts),
        strangers_stay_out(scenes, facts),
    ]
}

fn one_outcome_each(facts: &Facts) -> Verdict {
    let stored = facts.answered(200);
    let told = facts
        .requests()
        .filter(|request| request.status == Some(200) && !request.outcome.is_empty())
        .count();
    Verdict {
        promise: "Every event answered 200 became exactly one thing",
        kept: told == stored && facts.settled == stored as u64 && stored > 0,
        figure: format!("{} of {stored}", facts.settled),
    }
}

fn one_identity_each(facts: &Facts) -> Verdict {
    let all: Vec<&CommandFacts> = facts.commands().collect();
    let ids: BTreeSet<&str> = all.iter().map(|command| command.id.as_str()).collect();
    let meanings: BTreeSet<_> = all
        .iter()
        .map(|command| {
            (
                &command.device_id,
                &command.operation,
                command.generation,
                &command.action,
            )
        })
        .collect();
    let right = all.iter().filter(|command| command.verified).count();
    let alone = facts.strange_commands.is_empty() && ids.len() == all.len() && meanings.len() == all.len();
    Verdict {
        promise: "Every command is signed, under an identity of its own",
        kept: alone && right == all.len() && !all.is_empty(),
        figure: format!("{right} of {}", all.len() + facts.strange_commands.len()),
    }
}

fn newest_wins(scenes: &[Scene], facts: &Facts) -> Verdict {
    let devices = scenes
        .iter()
        .zip(&facts.scenes)
        .filter_map(|(scene, seen)| scene.actor.as_ref().zip(Some(seen)));
    let right = devices
        .filter(|(actor, seen)| end_difference(actor, seen.end.as_ref()).is_none())
        .count();
    let all = scenes.iter().filter(|scene| scene.actor.is_some()).count();
    Verdict {
        promise: "Every device stands where its newest event put it",
        kept: right == all,
        figure: format!("{right} of {all}"),
    }
}

fn no_4xx_and_in_time(scenes: &[Scene], facts: &Facts) -> Verdict {
    let slowest = facts.slowest_ms();
    let mut refused = pairs(scenes, facts).filter(|(send, seen)| {
        send.fate != Fate::NotStored && seen.status.is_none_or(|status| (400..500).contains(&status))
    });
    Verdict {
        promise: "No signed event got a 4xx, and no answer took over 4.5 s",
        kept: refused.next().is_none() && slowest <= ANSWER_MS_MAX,
        figure: format!("slowest {slowest:.0} ms"),
    }
}

fn strangers_stay_out(scenes: &[Scene], facts: &Facts) -> Verdict {
    let forged: Vec<_> = pairs(scenes, facts)
        .filter(|(send, _)| send.fate == Fate::NotStored)
        .collect();
    let out = forged.iter().filter(|(_, seen)| seen.status == Some(401)).count();
    Verdict {
        promise: "What is not signed by Ring is refused and never stored",
        kept: out == forged.len() && facts.settled <= facts.answered(200) as u64,
        figure: format!("{out} of {}", forged.len()),
    }
}

fn pairs<'a>(scenes: &'a [Scene], facts: &'a Facts) -> impl Iterator<Item = (&'a Send, &'a RequestFacts)> {
    let scenes = scenes.iter().zip(&facts.scenes);
    let steps = scenes.flat_map(|(scene, seen)| scene.steps.iter().zip(&seen.steps));
    steps.filter_map(|pair| match pair {
        (Step::Send(send), StepFacts::Request(request)) => Some((send, request)),
        _ => None,
    })
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
#[cfg(test)]
pub(super) use tests::right as right_facts;
