//! What follows from the outages: whether Ring has given up on events, which, and until when it can be asked for them.
//!
//! Pure; the words of the letter stand elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use porchlight_event::ring_schedule::{KEPT_MS, LADDER_MS, Span, first_loss_ms, given_up, joined};
use porchlight_ingress::outage::page::RejectedFacts;
use serde::Serialize;

use super::facts::{Counted, Facts};
use super::letter;
use super::times::{iso, shown};
use crate::output::span as words;

/// What is asked for begins so much earlier and ends so much later than what is known, in milliseconds: clocks differ, and
/// an event that comes twice is a duplicate.
const MARGIN_MS: i64 = 300_000;
/// Outages that are listed for a person; `--json` has all.
const LISTED_MAX: usize = 8;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// Nothing was lost, or Ring still brings it.
    Nothing,
    /// An outage is on; nothing is lost so far.
    Wait,
    /// Ring is to be asked.
    Ask,
}

/// Everything that the command says. Times are ISO 8601 in UTC.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    verdict: Verdict,
    now: String,
    endpoint: String,
    /// Since when an outage is on.
    on_since: Option<String>,
    /// When Ring gives up on the first event of it.
    gives_up_at: Option<String>,
    /// The newest first.
    outages: Vec<Told>,
    /// When the events that Ring has given up on were first sent.
    lost: Vec<Window>,
    /// What to ask Ring for: the whole time in which they were tried, with margins.
    ask_for: Vec<Window>,
    /// Until when Ring keeps the first and the last of them.
    kept_until: Option<Window>,
    /// Answered 401 before the keys were known to be in doubt; Ring does not repeat these.
    refused: Vec<RefusedTold>,
    notes: Vec<String>,
    letter: Option<String>,
    #[serde(skip)]
    first_lines: Vec<String>,
}

/// One outage.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    from: String,
    until: Option<String>,
    seconds: i64,
    answers_5xx: u64,
    answers_200: u64,
    causes: BTreeMap<String, u64>,
    /// Who tells of it; nobody of one that was named by hand.
    address: Option<String>,
    #[serde(skip)]
    line: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Window {
    from: String,
    until: String,
}

#[derive(Debug, Serialize)]
struct RefusedTold {
    from: String,
    until: String,
    /// `null` of a time that was named by hand.
    requests: Option<u64>,
}

/// What Ring has given up on and can still be asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Loss {
    /// By the time of the first attempt.
    pub(super) lost: Vec<Span>,
    /// What to ask for.
    pub(super) ask_for: Vec<Span>,
    /// Whether the outage is on.
    pub(super) is_on: bool,
}

impl Loss {
    fn of(facts: &Facts) -> Self {
        let now = facts.now_ms;
        let mut lost = given_up(&facts.spans(now));
        // What Ring has forgotten by now cannot be asked for.
        lost.retain(|span| span.until_ms + LADDER_MS + KEPT_MS > now);
        let tried = lost.iter().map(|span| Span {
            from_ms: span.from_ms - MARGIN_MS,
            until_ms: span.until_ms + LADDER_MS + MARGIN_MS,
        });
        let refused = facts.refused.iter().map(|refused| Span {
            from_ms: refused.first_at_ms - MARGIN_MS,
            until_ms: refused.last_at_ms + MARGIN_MS,
        });
        Self {
            ask_for: joined(&tried.chain(refused).collect::<Vec<_>>()),
            lost,
            is_on: facts.on_since_ms().is_some(),
        }
    }

    /// Until when Ring keeps the first and the last of them, in milliseconds since the epoch.
    pub(super) fn kept_until_ms(&self) -> Option<(i64, i64)> {
        let (first, last) = (self.lost.first()?, self.lost.last()?);
        let kept = |first_sent_ms: i64| first_sent_ms + LADDER_MS + KEPT_MS;
        Some((kept(first.from_ms), kept(last.until_ms)))
    }
}

impl Report {
    pub(super) fn new(facts: &Facts) -> Self {
        let loss = Loss::of(facts);
        let on_since = facts.on_since_ms();
        let verdict = if !loss.ask_for.is_empty() {
            Verdict::Ask
        } else if on_since.is_some() {
            Verdict::Wait
        } else {
            Verdict::Nothing
        };
        let gives_up_ms = on_since
            .filter(|_| loss.lost.is_empty())
            .map(|since| first_loss_ms(since, &facts.spans(since)));
        let mut outages: Vec<&Counted> = facts.outages.iter().collect();
        outages.sort_by_key(|outage| std::cmp::Reverse(outage.span.from_ms));
        Self {
            verdict,
            now: iso(facts.now_ms),
            endpoint: facts.endpoint.clone(),
            on_since: on_since.map(iso),
            gives_up_at: gives_up_ms.map(iso),
            outages: outages
                .iter()
                .map(|outage| Told::new(outage, facts.now_ms))
                .collect(),
            lost: loss.lost.iter().map(Window::new).collect(),
            ask_for: loss.ask_for.iter().map(Window::new).collect(),
            kept_until: loss.kept_until_ms().map(|(first, last)| Window {
                from: iso(first),
                until: iso(last),
            }),
            refused: facts.refused.iter().map(RefusedTold::new).collect(),
            notes: notes(facts),
            letter: (verdict == Verdict::Ask).then(|| letter::draft(facts, &loss)),
            first_lines: first_lines(facts, &loss, verdict, gives_up_ms),
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// All of it for a person.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = self.first_lines.clone();
        if !self.outages.is_empty() {
            lines.push(String::new());
        }
        lines.extend(
            self.outages
                .iter()
                .take(LISTED_MAX)
                .map(|outage| outage.line.clone()),
        );
        if let Some(more) = self.outages.len().checked_sub(LISTED_MAX + 1) {
            lines.push(format!("  and {} before", more + 1));
        }
        if !self.notes.is_empty() {
            lines.push(String::new());
        }
        lines.extend(self.notes.iter().cloned());
        if let Some(letter) = &self.letter {
            lines.extend([String::new(), "-".repeat(72)]);
            lines.extend(letter.lines().map(str::to_owned));
            lines.push("-".repeat(72));
        }
        lines
    }
}

impl Told {
    fn new(outage: &Counted, now_ms: i64) -> Self {
        let Span { from_ms, until_ms } = outage.span;
        let is_on = until_ms > now_ms;
        let lasted_ms = until_ms.min(now_ms) - from_ms;
        let lasted = span_of(lasted_ms);
        let lasts = if is_on { "so far" } else { "long" };
        let counts = match outage.answers_5xx {
            0 => "named by hand".to_owned(),
            count => format!("{count} answered 5xx{}", causes(&outage.causes)),
        };
        let partly = match outage.answers_200 {
            0 => String::new(),
            count => format!("; {count} answered 200 meanwhile"),
        };
        let who = outage.address.as_ref();
        let who = who.map(|address| format!("  {address}")).unwrap_or_default();
        Self {
            from: iso(from_ms),
            until: (!is_on).then(|| iso(until_ms)),
            seconds: lasted_ms / 1_000,
            answers_5xx: outage.answers_5xx,
            answers_200: outage.answers_200,
            causes: outage.causes.clone(),
            address: outage.address.clone(),
            line: format!("  {}  {lasted} {lasts}  {counts}{partly}{who}", shown(from_ms)),
        }
    }
}

impl Window {
    fn new(span: &Span) -> Self {
        Self {
            from: iso(span.from_ms),
            until: iso(span.until_ms),
        }
    }
}

impl RefusedTold {
    fn new(refused: &RejectedFacts) -> Self {
        Self {
            from: iso(refused.first_at_ms),
            until: iso(refused.last_at_ms),
            requests: Some(refused.answers_401).filter(|count| *count > 0),
        }
    }
}

/// What there is to know first.
fn first_lines(facts: &Facts, loss: &Loss, verdict: Verdict, gives_up_ms: Option<i64>) -> Vec<String> {
    let now = facts.now_ms;
    let mut lines = Vec::new();
    if let Some(since) = facts.on_since_ms() {
        lines.push(format!(
            "An outage has been on since {}, for {}.",
            shown(since),
            span_of(now - since)
        ));
    }
    match (verdict, gives_up_ms) {
        (Verdict::Wait, Some(at)) => {
            lines.push(format!(
                "Ring repeats what it could not deliver and gives up on the first event at {}, in {}.",
                shown(at),
                span_of(at - now)
            ));
            lines.push(format!(
                "Nothing is lost if it ends before. Until {} Ring can then be asked.",
                shown(at + KEPT_MS)
            ));
        }
        (Verdict::Ask, _) => {
            if let Some((first, last)) = loss.kept_until_ms() {
                lines.push(
                    "Ring has given up on events, and keeps them for 72 h after their last attempt:"
                        .to_owned(),
                );
                lines.push(kept_line("the first", first, now));
                if !loss.is_on {
                    lines.push(kept_line("the last", last, now));
                }
            }
            lines.extend(facts.refused.iter().map(refused_line));
            let next = match (loss.is_on, facts.refuses_still) {
                (true, _) => {
                    "Mend the outage first, since what Ring sends meanwhile fails again. Then send this:"
                }
                (false, true) => {
                    "Put the right key in force first: what Ring sends meanwhile is refused again, for good. Then send this:"
                }
                (false, false) => "Send this to your contact at Ring:",
            };
            lines.push(next.to_owned());
        }
        _ if facts.outages.is_empty() => {
            lines.push("No outage is remembered: nothing needs asking.".to_owned());
        }
        _ => lines.extend(nothing_lost(facts)),
    }
    lines
}

fn refused_line(refused: &RejectedFacts) -> String {
    let requests = match refused.answers_401 {
        0 => "Events".to_owned(),
        count => format!("{count} requests that looked like Ring's"),
    };
    let from = shown(refused.first_at_ms);
    format!("{requests} were answered 401 from {from} on: Ring does not repeat those.")
}

fn kept_line(which: &str, at_ms: i64, now_ms: i64) -> String {
    let left = if at_ms > now_ms {
        format!("in {}", span_of(at_ms - now_ms))
    } else {
        "which is over; ask all the same".to_owned()
    };
    format!("  {which} until {}, {left}", shown(at_ms))
}

fn nothing_lost(facts: &Facts) -> Vec<String> {
    let forgotten = !given_up(&facts.spans(facts.now_ms)).is_empty();
    let first = if forgotten {
        "Nothing needs asking: what Ring gave up on, it has forgotten by now (72 h after the last attempt)."
    } else {
        "Nothing needs asking: no outage outlasted Ring's repetitions (72 min 36 s), which bring every event."
    };
    let last_end = facts.outages.iter().map(|outage| outage.span.until_ms).max();
    let still = last_end
        .map(|end| end + LADDER_MS)
        .filter(|until| *until > facts.now_ms);
    let still = still.map(|until| format!("Some may still be on their way, until {}.", shown(until)));
    std::iter::once(first.to_owned()).chain(still).collect()
}

fn notes(facts: &Facts) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(since) = facts.young_since_ms {
        notes.push(format!(
            "Of what was before {}, when the youngest of these processes began, or while none ran, not all is known: name such a time with --since TIME.",
            shown(since)
        ));
    }
    if facts.outages.iter().any(|outage| outage.answers_200 > 0) {
        notes.push(
            "Where some were answered 200 meanwhile, Ring's repetitions may have brought the others; the times are the worst case."
                .to_owned(),
        );
    }
    notes
}

/// ` (queue_unavailable 3, confirm_timeout 1)`, the commonest first.
pub(super) fn causes(counts: &BTreeMap<String, u64>) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let parts: Vec<String> = counts
        .iter()
        .map(|(cause, count)| format!("{cause} {count}"))
        .collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!(" ({})", parts.join(", ")),
    }
}

/// Milliseconds in words.
pub(super) fn span_of(ms: i64) -> String {
    words(Duration::from_millis(ms.max(0).unsigned_abs()))
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
