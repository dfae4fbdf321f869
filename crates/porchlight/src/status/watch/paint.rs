//! How the live view writes numbers, times and texts, and its colours.
//!
//! Where something is drawn is the view's. A terminal that wants no colours (`NO_COLOR`) gets none.

use std::time::Duration;

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

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

/// A line in at most so many columns, with a sign at its end where it is cut: half a number would be another one.
pub(super) fn fitted(line: Line<'static>, columns: usize) -> Line<'static> {
    let text = line.to_string();
    let needed = text.trim_end().chars().count();
    let is_cut = needed > columns;
    let mut left = columns.saturating_sub(usize::from(is_cut));
    let style = line.style;
    let mut spans = Vec::new();
    for span in line.spans {
        let shown: String = span.content.chars().take(left).collect();
        left -= shown.chars().count();
        spans.push(Span::styled(shown, span.style));
    }
    if is_cut && columns > 0 {
        spans.push(Span::raw("…"));
    }
    Line::from(spans).style(style)
}

/// A text folded between words into lines of at most so many columns; what goes beyond the last line is cut.
pub(super) fn folded(text: &str, columns: usize, lines_max: usize) -> Vec<String> {
    let text = plain(text);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let full = lines.len() == lines_max;
        let Some(line) = lines.last_mut() else { break };
        let fits = line.is_empty() || line.chars().count() + 1 + word.chars().count() <= columns;
        if fits || full {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.iter().map(|line| cut(line, columns)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_folded_between_words_and_cut_at_the_end() {
        assert_eq!(folded("a bc def", 80, 3), ["a bc def"]);
        assert_eq!(folded("a bc def", 4, 3), ["a bc", "def"]);
        assert_eq!(folded("a bc defghijk", 4, 3), ["a bc", "def…"]);
        assert_eq!(folded("a bc def gh", 4, 2), ["a bc", "def…"]);
        assert_eq!(folded("", 4, 2), [""]);
        assert_eq!(folded("ab c", 0, 2).len(), 2);
    }

    #[test]
    fn a_line_that_is_too_long_says_so_and_blanks_at_its_end_do_not_count() {
        let line = || Line::from(vec![Span::raw("lag  "), Span::raw("12345   ")]);
        let shown = |columns| fitted(line(), columns).to_string();
        assert_eq!([shown(10), shown(9), shown(1)], ["lag  12345", "lag  123…", "…"]);
        assert_eq!(shown(80), "lag  12345   ");
        assert_eq!(shown(0), "");
    }

    #[test]
    fn rates_have_as_many_digits_as_they_are_worth() {
        assert_eq!(
            [rate(0.0), rate(0.26), rate(999.0), rate(12_345.6)],
            ["0/s", "0.3/s", "999.0/s", "12346/s"]
        );
        assert_eq!(
            [signed(0.01), signed(-3.0), signed(2_000.0)],
            ["0", "-3.0/s", "+2000/s"]
        );
    }
}
