//! How the live view writes numbers, times and texts, and its colours.
//!
//! Where something is drawn is the view's. A terminal that wants no colours (`NO_COLOR`) gets none.

use std::time::Duration;

use ratatui::style::{Color, Modifier, Style};

use crate::output::{plain, span};

/// A text in at most so many columns, cut where it is longer.
pub(super) fn cut(text: &str, columns: usize) -> String {
    let text = plain(text);
    if text.chars().count() <= columns {
        return text;
    }
    text.chars()
        .take(columns.saturating_sub(1))
        .chain(['…'])
        .collect()
}

pub(super) fn signed(rate: f64) -> String {
    match rate {
        rate if rate.abs() < 0.05 => "0".to_owned(),
        rate if rate.abs() < 1000.0 => format!("{rate:+.1}/s"),
        rate => format!("{rate:+.0}/s"),
    }
}

/// A rate with as many digits as it is worth.
pub(super) fn rate(rate: f64) -> String {
    match rate {
        rate if rate < 0.05 => "0/s".to_owned(),
        rate if rate < 1000.0 => format!("{rate:.1}/s"),
        rate => format!("{rate:.0}/s"),
    }
}

/// A span in seconds, for a person.
pub(super) fn seconds_of(seconds: f64) -> String {
    span(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}

/// `14:03:22Z`
pub(super) fn clock(ms: i64) -> String {
    let date = crate::output::date(Some(ms));
    date.get(11..19)
        .map_or_else(|| date.clone(), |time| format!("{time}Z"))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds of this millennium are exact"
)]
pub(super) fn float(ms: i64) -> f64 {
    ms as f64
}

pub(super) fn faint() -> Style {
    Style::new().fg(Color::DarkGray)
}

pub(super) fn strong() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

pub(super) fn good() -> Style {
    Style::new().fg(Color::Green)
}

pub(super) fn warn() -> Style {
    Style::new().fg(Color::Yellow)
}

pub(super) fn bad() -> Style {
    Style::new().fg(Color::Red)
}

pub(super) fn bars() -> Style {
    Style::new().fg(Color::Cyan)
}
