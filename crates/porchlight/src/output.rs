//! What a command prints: plain text for a person, JSON for a program, a progress bar where someone looks.
//!
//! Ids and details come from strangers: whatever goes to a terminal passes through [`plain`] or [`short`] first, and
//! JSON carries nothing that steers a terminal either.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde::Serialize;

/// Most characters of one text that a table or a line shows; `--json` shows all. Ring's ids are far shorter.
const SHOWN_CHARS_MAX: usize = 200;
/// The years 1 to 9999, in milliseconds since 1970.
const DATES_MS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;
/// How often a bar is drawn again although nothing moved.
const TICK: Duration = Duration::from_millis(200);

/// Where answers go. A reader that has gone away (`| head`) is no error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

/// Rows of text under a head, each column as wide as its widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Output {
    /// Plain text, or JSON.
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether a program reads.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Prints one line of plain text.
    pub(crate) fn line(self, text: impl std::fmt::Display) {
        put(&format!("{text}\n"));
    }

    /// Prints one line of what never ends by itself; whether somebody still reads.
    pub(crate) fn line_of_many(self, text: impl std::fmt::Display) -> bool {
        try_put(&format!("{text}\n")).is_ok()
    }

    /// One JSON document on one line, for who prints it.
    pub(crate) fn json_text(self, value: &impl Serialize) -> String {
        serde_json::to_string(value).map_or_else(|error| format!("null // {error}"), |text| steerless(&text))
    }

    /// Prints one JSON document over several lines.
    pub(crate) fn document(self, value: &impl Serialize) {
        match serde_json::to_string_pretty(value) {
            Ok(text) => self.line(steerless(&text)),
            Err(error) => self.line(format_args!("null // {error}")),
        }
    }

    /// Prints one JSON document on one line.
    pub(crate) fn json_line(self, value: &impl Serialize) {
        self.line(self.json_text(value));
    }
}

fn put(text: &str) {
    // Nobody is left to tell when standard output is closed.
    let _ = try_put(text);
}

fn try_put(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

impl Table {
    /// A table with a head.
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self {
            rows: vec![head.map(str::to_owned).to_vec()],
        }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: &[String; N]) {
        self.rows.push(cells.iter().map(|cell| short(cell)).collect());
    }

    /// The rows as lines, columns two spaces apart; no line ends with spaces.
    pub(crate) fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
        };
        let widths: Vec<usize> = (0..columns)
            .map(|column| width(column).unwrap_or_default())
            .collect();
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:<width$}  ");
            }
            line.trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }

    /// Prints it.
    pub(crate) fn print(&self, output: Output) {
        for line in self.lines() {
            output.line(line);
        }
    }
}

/// Text without control characters and direction marks, so that an id cannot steer a terminal.
pub(crate) fn plain(text: &str) -> String {
    escaped(text, |c, shown| shown.extend(c.escape_unicode()))
}

/// As [`plain`], and no longer than a person reads.
pub(crate) fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => plain(&text[..end]) + "…",
        None => plain(text),
    }
}

/// JSON text whose strings are escaped as [`plain`] would, in JSON's own way: it stays the same document.
pub(crate) fn steerless(json: &str) -> String {
    let escape = |c: char, shown: &mut String| match c {
        // Between values, as JSON's own layout; within a string it is escaped already.
        '\n' => shown.push(c),
        // Whatever steers lies in the plane that four digits reach.
        _ => drop(write!(shown, "\\u{:04x}", u32::from(c))),
    };
    escaped(json, escape)
}

fn escaped(text: &str, escape: impl Fn(char, &mut String)) -> String {
    if !text.contains(steers) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if steers(c) {
            escape(c, &mut shown);
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Control characters of both kinds, separators of lines, and marks that turn the direction of what follows.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// An epoch time in milliseconds as a date, or `-`; one that no calendar has stays a number.
pub(crate) fn date(ms: Option<i64>) -> String {
    match ms {
        None => "-".to_owned(),
        Some(ms) if DATES_MS.contains(&ms) => porchlight_device::command::iso_milliseconds(ms),
        Some(ms) => format!("{ms}ms"),
    }
}

/// A span of time for a person: `850ms`, `12s`, `3m 20s`, `5h 10m`, `2d 3h`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Bytes that no disk has: a file with such a bound was given none so far, because no daemon has opened it yet.
const UNBOUNDED: u64 = 1 << 60;

/// Whether somebody has given it a bound.
pub(crate) fn is_bounded(bytes_max: u64) -> bool {
    bytes_max < UNBOUNDED
}

/// ` of at most 4.0 GiB`, or nothing where there is no bound yet.
pub(crate) fn at_most(bytes_max: u64) -> String {
    match is_bounded(bytes_max) {
        true => format!(" of at most {}", size(bytes_max)),
        false => String::new(),
    }
}

/// A number of bytes for a person: `17 B`, `1.5 KiB`, `4.0 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1 << 10 {
        return format!("{bytes} B");
    }
    // Tenths of the largest unit that is not more than the whole.
    let power = (u64::from(bytes.ilog2()) / 10).min(4);
    let tenths = (u128::from(bytes) * 10) >> (10 * power);
    let unit = usize::try_from(power - 1).map_or("TiB", |index| UNITS[index]);
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// A progress bar on standard error when that is a terminal, else nothing.
pub(crate) fn bar(total: u64, unit: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let form = format!("{{bar:30}} {{pos}}/{{len}} {unit}  {{rate}}  {{elapsed}}, {{eta}} to go");
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template(&form) {
        let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = write!(out, "{:.0}/s", state.per_sec());
        };
        bar.set_style(style.with_key("rate", rate));
    }
    bar.enable_steady_tick(TICK);
    bar
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\n\u{202e}ä"), "a\\u{1b}[2Jb\\u{a}\\u{202e}ä");
        assert_eq!(plain("ava1.ring.device.X"), "ava1.ring.device.X");
    }

    #[test]
    fn json_steers_no_terminal_and_stays_the_same_document() {
        let value = serde_json::json!({ "a\u{9b}31m": ["\u{1b}[2J\n\u{7f}", "\u{202e}\u{2028}ä😀"] });
        let shown = steerless(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!shown.contains(|c: char| c != '\n' && steers(c)), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn a_text_without_end_is_cut_for_a_person() {
        let long = "ä".repeat(1 << 20);
        assert_eq!(short(&long).chars().count(), SHOWN_CHARS_MAX + 1);
        let mut table = Table::new(["ID"]);
        table.row(&[long]);
        assert!(
            table
                .lines()
                .iter()
                .all(|line| line.chars().count() <= SHOWN_CHARS_MAX + 1)
        );
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["QUEUE", "READY"]);
        table.row(&["porchlight.events".to_owned(), "3".to_owned()]);
        assert_eq!(
            table.lines(),
            ["QUEUE              READY", "porchlight.events  3"]
        );
    }

    #[test]
    fn a_time_beyond_the_calendar_stays_a_number() {
        assert_eq!(date(Some(253_402_300_799_999)), "9999-12-31T23:59:59.999Z");
        assert_eq!(date(Some(-62_135_596_800_000)), "0001-01-01T00:00:00.000Z");
        assert_eq!(date(Some(i64::MIN)), "-9223372036854775808ms");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!([size(0), size(1_023), size(1_024)], ["0 B", "1023 B", "1.0 KiB"]);
        assert_eq!([size(1_536 << 10), size(4 << 30)], ["1.5 MiB", "4.0 GiB"]);
        assert_eq!(size(u64::MAX), "16777215.9 TiB");
    }

    #[test]
    fn spans_read_well() {
        let shown = |seconds| span(Duration::from_secs(seconds));
        assert_eq!(span(Duration::from_millis(85)), "85ms");
        assert_eq!(
            [shown(59), shown(200), shown(18_600)],
            ["59s", "3m 20s", "5h 10m"]
        );
        assert_eq!(shown(2 * 86_400 + 3 * 3_600), "2d 3h");
    }
}
