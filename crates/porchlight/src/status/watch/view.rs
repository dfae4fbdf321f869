//! The live view as lines of text: what is shown where, and what is left out where there is no room.
//!
//! It draws what the board knows and asks nobody. Readable from 80 columns and 24 rows on.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::board::{Board, Name};
use super::look::{DeadReasons, Look, Queue};
use super::paint::{
    bad, bars, clock, cut, faint, fitted, float, folded, good, rate, seconds_of, strong, warn,
};
use super::queue_rows::{DEAD, queues};
use crate::output::{at_most, plain, size, span};
use crate::status::ingresses::Ingress;
use crate::status::standalone::FileState;

/// Columns of names and figures before a sparkline.
const SPARKLINE_AT: usize = 57;
/// Columns that a sparkline has at least; below that there is none.
const SPARKLINE_MIN: usize = 8;
/// Columns of what stands before each line.
const LABEL: usize = 10;
/// Lines for answers of different statuses, at most.
const ANSWERS_MAX: usize = 4;
/// Lines of one thing that needs attention, at most.
const ATTENTION_LINES_MAX: usize = 3;
/// Lines for ingresses, at most.
const INGRESSES_MAX: usize = 4;
/// What keys do, the most wanted first.
const KEYS: [&str; 4] = [
    " q quit  ",
    " p pause  ",
    " r look now  ",
    " d count the dead by reason",
];
/// Columns below which the name of what is watched is left out.
const NARROW: usize = 40;

/// What the view is of, beside the board.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene {
    pub(super) now_ms: i64,
    pub(super) interval: Duration,
    pub(super) is_paused: bool,
    /// A look is under way.
    pub(super) is_looking: bool,
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame, board: &Board, scene: &Scene) {
    let [body, keys] = Layout::vertical([Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
    let lines = lines(board, scene, body.width.into(), body.height.into());
    frame.render_widget(Paragraph::new(lines), body);
    frame.render_widget(
        Paragraph::new(keys_within(keys.width.into())).style(faint()),
        keys,
    );
}

/// The keys that there is room for.
fn keys_within(width: usize) -> String {
    let mut shown = String::new();
    for key in KEYS {
        if shown.chars().count() + key.chars().count() > width {
            break;
        }
        shown += key;
    }
    shown
}

fn lines(board: &Board, scene: &Scene, width: usize, height: usize) -> Vec<Line<'static>> {
    let Some(look) = &board.last else {
        return vec![Line::styled("Porchlight  looking …", faint())];
    };
    let sparkline = width.saturating_sub(SPARKLINE_AT);
    let columns = if sparkline < SPARKLINE_MIN { 0 } else { sparkline };
    let mut lines = vec![title(look, scene, width), Line::default()];
    lines.extend(queues(board, look, width, columns));
    lines.push(Line::default());
    lines.push(lag(board, look, scene, columns));
    lines.extend(work(board, look, columns));
    lines.extend(ledger(board, look, columns));
    lines.push(dead(look));
    lines.extend(file(look));
    lines.extend(ingresses(board, look, columns));
    lines.extend(outage(look, scene));
    if lines.len() > height {
        lines.retain(|line| line.width() > 0);
    }
    lines.extend(attention(look, width, height.saturating_sub(lines.len())));
    lines.into_iter().map(|line| fitted(line, width)).collect()
}

fn title(look: &Look, scene: &Scene, width: usize) -> Line<'static> {
    let (words, style) = match (look.away.first(), look.status.attention.len()) {
        (Some((name, _)), _) => (format!("CANNOT SEE {}", name.to_uppercase()), bad()),
        (None, 0) => ("HEALTHY".to_owned(), good()),
        (None, count) => (format!("NEEDS ATTENTION ({count})"), warn()),
    };
    let age = Duration::from_millis(scene.now_ms.saturating_sub(look.at_ms).max(0).unsigned_abs());
    let time = clock(look.at_ms);
    let right = match scene {
        Scene { is_paused: true, .. } => format!("paused at {time}"),
        Scene { interval, .. } if age > *interval * 2 + Duration::from_secs(1) => {
            let looking = if scene.is_looking { ", looking" } else { "" };
            format!("last look {} ago{looking}", span(age))
        }
        Scene { interval, .. } => format!("every {}  {time}", span(*interval)),
    };
    let name = if width < NARROW { "" } else { "Porchlight  " };
    let left = name.len() + words.chars().count();
    let fits = left + right.chars().count() < width;
    let right = if fits { right } else { String::new() };
    let gap = width.saturating_sub(left + right.chars().count());
    Line::from(vec![
        Span::styled(name, strong()),
        Span::styled(words, style.add_modifier(Modifier::BOLD)),
        Span::raw(" ".repeat(gap)),
        Span::styled(right, faint()),
    ])
}

fn lag(board: &Board, look: &Look, scene: &Scene, columns: usize) -> Line<'static> {
    let words = match look.lag_seconds() {
        None if look.queues.is_empty() => "not known".to_owned(),
        None if look.status.pipeline.rabbitmq.is_some() => "not known here: see --worker".to_owned(),
        None => "not known".to_owned(),
        Some(seconds) if seconds <= 0.0 => "nothing waits".to_owned(),
        Some(seconds) => format!("oldest waits for {}", seconds_of(seconds)),
    };
    let newest = look.figures.newest_applied_at.map(|at| {
        let age = (float_seconds(scene.now_ms) - at).max(0.0);
        format!("; newest is {} old", seconds_of(age))
    });
    labelled(
        "lag",
        words + &newest.unwrap_or_default(),
        board.sparkline(&Name::Lag, columns),
    )
}

/// What workers do, where they are asked.
fn work(board: &Board, look: &Look, columns: usize) -> Option<Line<'static>> {
    if look.figures.settled.is_empty() {
        return None;
    }
    let rate = board.rate(&Name::Settled).map_or_else(|| "-".to_owned(), rate);
    let outcomes = look.figures.settled.iter().filter(|(_, count)| **count > 0.0);
    let outcomes = outcomes.map(|(outcome, count)| format!("{outcome} {count:.0}"));
    let words = format!("{rate:>8}  {}", outcomes.collect::<Vec<_>>().join(", "));
    // What became of events says more than the bars, which the answers have, too.
    let bars = match words.chars().count() < SPARKLINE_AT - LABEL {
        true => board.sparkline_of_growth(&Name::Settled, columns),
        false => String::new(),
    };
    Some(labelled("work", words, bars))
}

fn ledger(board: &Board, look: &Look, columns: usize) -> Vec<Line<'static>> {
    let Some(ledger) = look.status.pipeline.ledger() else {
        return vec![labelled("devices", "not known".to_owned(), String::new())];
    };
    let devices = ledger
        .devices
        .iter()
        .map(|(status, count)| format!("{count} {}", plain(status)));
    let oldest = ledger
        .oldest_owed_seconds
        .map(|age| format!(", the oldest for {}", span(Duration::from_secs(age))));
    let owed = format!("{} owed{}", ledger.commands_owed, oldest.unwrap_or_default());
    vec![
        labelled("devices", devices.collect::<Vec<_>>().join(", "), String::new()),
        labelled("commands", owed, board.sparkline(&Name::Owed, columns)),
    ]
}

fn dead(look: &Look) -> Line<'static> {
    let died = look.figures.died.iter().filter(|(_, count)| **count > 0.0);
    let died: Vec<_> = died
        .map(|(reason, count)| format!("{count:.0} {}", plain(reason)))
        .collect();
    let is_empty = |queue: &Queue| queue.name == DEAD && queue.exists && queue.ready == 0;
    let words = match &look.dead {
        Some(DeadReasons {
            error: Some(error), ..
        }) => format!("cannot be looked at: {}", plain(error)),
        Some(dead) if dead.ready == 0 => "none".to_owned(),
        Some(dead) => {
            let reasons = dead
                .by_reason
                .iter()
                .map(|(reason, count)| format!("{count} {}", plain(reason)));
            let of = match u64::try_from(dead.looked_at) {
                Ok(looked) if looked < dead.ready => format!("; of the oldest {looked}"),
                _ => String::new(),
            };
            reasons.collect::<Vec<_>>().join(", ") + &of
        }
        None if look.queues.is_empty() => "not known".to_owned(),
        None if look.queues.iter().any(is_empty) => "none".to_owned(),
        None if died.is_empty() => "press d to count them by reason".to_owned(),
        None => format!("since the workers began {}", died.join(", ")),
    };
    labelled("dead", words, String::new())
}

fn file(look: &Look) -> Option<Line<'static>> {
    let state = look.status.pipeline.standalone.as_ref()?.state.as_ref()?;
    let FileState {
        bytes_in_use,
        bytes_max,
        disk_free_bytes,
        ..
    } = state.file;
    let free = disk_free_bytes.map(|free| format!("; {} free on the disk", size(free)));
    let words = format!(
        "{}{}{}",
        size(bytes_in_use),
        at_most(bytes_max),
        free.unwrap_or_default()
    );
    Some(labelled("data", words, String::new()))
}

fn ingresses(board: &Board, look: &Look, columns: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let answered = look.figures.answers.iter().filter(|(_, total)| **total > 0.0);
    for (status, total) in answered.take(ANSWERS_MAX) {
        let name = Name::Answers(status.clone());
        let rate = board.rate(&name).map_or_else(|| "-".to_owned(), rate);
        let words = format!("{:<4}{rate:>9}  {total:.0} so far", plain(status));
        let mut line = labelled("answers", words, board.sparkline_of_growth(&name, columns));
        if status.starts_with('5') && board.rate(&name).is_some_and(|rate| rate > 0.0) {
            line = line.style(bad());
        }
        lines.push(line);
    }
    let all = &look.status.ingresses;
    for ingress in all.iter().take(INGRESSES_MAX) {
        let (words, style) = ingress.in_short();
        let words = format!("{}  {}", plain(&ingress.address), plain(&words));
        lines.push(labelled("ingress", words, String::new()).style(if style {
            Style::default()
        } else {
            bad()
        }));
    }
    if all.len() > INGRESSES_MAX {
        let more = format!("and {} more", all.len() - INGRESSES_MAX);
        lines.push(labelled("", more, String::new()));
    }
    lines
}

/// Since when, in seconds since the epoch, no outage goes on that the ingresses are known by, although one waits for proof
/// that it is over.
fn recovered_at(look: &Look) -> Option<f64> {
    let pages = look.status.ingresses.iter().filter_map(Ingress::outages);
    let on = pages
        .filter(|page| page.is_on)
        .filter_map(|page| page.outages.first());
    let recovered: Option<Vec<i64>> = on.map(|outage| outage.recovered_at_ms).collect();
    recovered?.into_iter().max().map(float_seconds)
}

/// How long it lasts, and what Ring does with events meanwhile.
fn outage(look: &Look, scene: &Scene) -> Vec<Line<'static>> {
    let now = float_seconds(scene.now_ms);
    let figures = &look.figures;
    let mut lines = Vec::new();
    if let (Some(outage), Some(at)) = (figures.outage, recovered_at(look)) {
        let lasted = seconds_of(at - outage.started_at);
        let words = format!("for {lasted}; answered again for {}", seconds_of(now - at));
        lines.push(labelled("OUTAGE", words, String::new()).style(warn()));
    } else if let Some(outage) = figures.outage {
        let lasts = seconds_of(now - outage.started_at);
        let ring = if now < outage.first_loss_at {
            format!(
                "Ring gives up on the first events in {}",
                seconds_of(outage.first_loss_at - now)
            )
        } else if now < outage.forgotten_at {
            format!(
                "Ring has given up on events; it forgets them in {}",
                seconds_of(outage.forgotten_at - now)
            )
        } else {
            "Ring has forgotten the first events".to_owned()
        };
        lines.push(labelled("OUTAGE", format!("for {lasts}; {ring}"), String::new()).style(bad()));
    }
    if figures.key_breaker_open {
        let words = "no signature matches: answers are 503 until the key is right".to_owned();
        lines.push(labelled("KEY", words, String::new()).style(bad()));
    }
    lines
}

fn attention(look: &Look, width: usize, room: usize) -> Vec<Line<'static>> {
    let away = look
        .away
        .iter()
        .map(|(name, why)| format!("{name} does not answer: {why}"));
    let unscraped = look.daemons.iter().filter_map(|(address, figures)| {
        let why = figures.as_ref().err()?;
        Some(format!("no metrics of {address}: {why}"))
    });
    let all: Vec<Vec<String>> = away
        .chain(look.status.attention.iter().cloned())
        .chain(unscraped)
        .map(|text| folded(&text, width.saturating_sub(2), ATTENTION_LINES_MAX))
        .collect();
    let needed: usize = all.iter().map(Vec::len).sum();
    // A blank line and a head stand before them; where it is tight, the head alone.
    let is_tight = needed + 2 > room;
    let Some(room) = room
        .checked_sub(if is_tight { 1 } else { 2 })
        .filter(|room| *room > 0)
    else {
        return Vec::new();
    };
    if all.is_empty() {
        return Vec::new();
    }
    let mut lines = Vec::new();
    if !is_tight {
        lines.push(Line::default());
    }
    lines.push(Line::styled(
        "needs attention",
        warn().add_modifier(Modifier::BOLD),
    ));
    let first = room.saturating_sub(usize::from(needed > room)).max(1);
    let (mut used, mut shown) = (0, 0);
    for text in &all {
        // Of the gravest at least its beginning is told.
        let text = if shown == 0 {
            &text[..text.len().min(first)]
        } else {
            &text[..]
        };
        if used + text.len() > first {
            break;
        }
        (used, shown) = (used + text.len(), shown + 1);
        lines.extend(text.iter().map(|line| Line::raw(format!("  {line}"))));
    }
    if shown < all.len() && used < room {
        lines.push(Line::styled(format!("  and {} more", all.len() - shown), faint()));
    }
    lines
}

fn float_seconds(ms: i64) -> f64 {
    float(ms) / 1000.0
}

/// A line with a label before it, and bars behind it where there is something in them.
fn labelled(label: &str, words: String, sparkline: String) -> Line<'static> {
    let text = if sparkline.trim().is_empty() {
        words
    } else {
        format!(
            "{:<width$} ",
            cut(&words, SPARKLINE_AT - LABEL - 1),
            width = SPARKLINE_AT - LABEL - 1
        )
    };
    Line::from(vec![
        Span::styled(format!("{label:<LABEL$}"), faint()),
        Span::raw(text),
        Span::styled(sparkline, bars()),
    ])
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
