//! The watch where nobody looks at a terminal: one line for each look, for a log or a pipe.
//!
//! With `--json` it is what `status --json` says, on one line.

use super::board::{Board, Name};
use super::paint::{rate, seconds_of};
use crate::output::{date, plain, span};
use std::time::Duration;

/// The last look on one line.
pub(super) fn line(board: &Board) -> Option<String> {
    let look = board.last.as_ref()?;
    let health = match (look.away.first(), look.status.attention.len()) {
        (Some((name, why)), _) => format!("cannot see {name} ({why})"),
        (None, 0) => "healthy".to_owned(),
        (None, 1) => "1 thing needs attention".to_owned(),
        (None, count) => format!("{count} things need attention"),
    };
    let mut parts = vec![health];
    let queues = look.queues.iter().map(|queue| {
        let name = queue.name.strip_prefix("porchlight.").unwrap_or(&queue.name);
        if queue.exists {
            format!("{name} {}", queue.ready)
        } else {
            format!("{name} missing")
        }
    });
    parts.push(queues.collect::<Vec<_>>().join(", "));
    if let Some(lag) = look.lag_seconds() {
        parts.push(format!(
            "lag {}",
            if lag > 0.0 {
                seconds_of(lag)
            } else {
                "0s".to_owned()
            }
        ));
    }
    if let Some(ledger) = look.status.pipeline.ledger() {
        let oldest = ledger
            .oldest_owed_seconds
            .map(|age| format!(" for {}", span(Duration::from_secs(age))));
        parts.push(format!(
            "{} owed{}",
            ledger.commands_owed,
            oldest.unwrap_or_default()
        ));
        let devices = ledger
            .devices
            .iter()
            .map(|(status, count)| format!("{count} {status}"));
        parts.push(devices.collect::<Vec<_>>().join(", "));
    }
    let answered = look.figures.answers.iter().filter(|(_, total)| **total > 0.0);
    let answers = answered.filter_map(|(status, _)| {
        let rate_of = board.rate(&Name::Answers(status.clone()))?;
        Some(format!("{status} {}", rate(rate_of)))
    });
    parts.push(answers.collect::<Vec<_>>().join(", "));
    parts.retain(|part| !part.is_empty());
    Some(format!(
        "{}  {}",
        date(Some(look.at_ms)),
        plain(&parts.join(" | "))
    ))
}
