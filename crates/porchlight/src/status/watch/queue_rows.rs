//! The queues of the live view: a row each, with as many columns as there is room for.
//!
//! A column is whole or not there: half a number would be another one.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::board::{Board, Name};
use super::look::{Look, Queue};
use super::paint::{bad, bars, cut, faint, signed, warn};

/// The queue of what is dead, in both forms.
pub(super) const DEAD: &str = "porchlight.dead";
const EVENTS: &str = "porchlight.events";
const UNROUTED: &str = "porchlight.unrouted";
/// What every name begins with, which is left out where room is scarce.
const PREFIX: &str = "porchlight.";
const NAME: usize = 21;
const NAME_NARROW: usize = 11;
/// What a queue has beside its name: heads, with the columns of each.
const FIGURES: [(&str, usize); 4] = [("READY", 9), ("CHANGE", 10), ("UNACKED", 9), ("CONS", 6)];
/// The columns of all of it.
const WIDE: usize = NAME + 9 + 10 + 9 + 6;

/// The head and the rows, in `width` columns, with bars of `columns` of them.
pub(super) fn queues(board: &Board, look: &Look, width: usize, columns: usize) -> Vec<Line<'static>> {
    let head = row("QUEUE", &FIGURES.map(|(head, _)| head.to_owned()), width);
    let mut lines = vec![Line::styled(head, faint())];
    if look.queues.is_empty() {
        lines.push(Line::styled("not known", faint()));
    }
    for queue in &look.queues {
        let name = Name::Ready(queue.name.clone());
        let known = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let figures = [
            known(queue.exists.then(|| queue.ready.to_string())),
            known(board.change(&name).map(signed)),
            known(queue.unacked.map(|count| count.to_string())),
            known(queue.consumers.map(|count| count.to_string())),
        ];
        lines.push(Line::from(vec![
            Span::styled(row(&queue.name, &figures, width) + "  ", style(queue)),
            Span::styled(board.sparkline(&name, columns), bars()),
        ]));
    }
    lines
}

fn row(name: &str, figures: &[String; 4], width: usize) -> String {
    let (name, mut used) = if width < WIDE {
        (name.strip_prefix(PREFIX).unwrap_or(name), NAME_NARROW)
    } else {
        (name, NAME)
    };
    let mut row = format!("{:<used$}", cut(name, used));
    for (figure, (_, columns)) in figures.iter().zip(FIGURES) {
        used += columns;
        if used > width {
            break;
        }
        row += &format!("{figure:>columns$}");
    }
    row
}

fn style(queue: &Queue) -> Style {
    match queue.name.as_str() {
        _ if !queue.exists => warn(),
        UNROUTED if queue.ready > 0 => bad(),
        DEAD if queue.ready > 0 => warn(),
        EVENTS if queue.consumers == Some(0) => bad(),
        _ => Style::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_whole_or_not_there() {
        let of = |width| {
            let figures = ["1234567", "+12.5/s", "70", "2"].map(str::to_owned);
            row("porchlight.retry.10m", &figures, width)
        };
        assert_eq!(of(55), "porchlight.retry.10m   1234567   +12.5/s       70     2");
        assert_eq!(of(54), "retry.10m    1234567   +12.5/s       70     2");
        assert_eq!(of(44), "retry.10m    1234567   +12.5/s       70");
        assert_eq!(of(20), "retry.10m    1234567");
        assert_eq!(of(19), "retry.10m  ");
    }
}
