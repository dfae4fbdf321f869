//! Totals by a word that strangers choose: as many words as fit, and the rest together.
//!
//! It only counts.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::output::{Output, short};

/// Different words that are counted apart: what a queue of a million letters may make of this is bounded by it.
const WORDS_MAX: usize = 500;
/// What the rest is counted under.
const OTHERS: &str = "(others)";
/// Longest word in bytes; longer ones are the rest, too.
const WORD_BYTES_MAX: usize = 1024;

/// Counts by word.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Tally(BTreeMap<String, usize>);

impl Tally {
    /// Counts one.
    pub(super) fn add(&mut self, word: &str) {
        if let Some(count) = self.0.get_mut(word) {
            *count += 1;
            return;
        }
        let fits = self.0.len() < WORDS_MAX && word.len() <= WORD_BYTES_MAX;
        *self
            .0
            .entry(if fits { word } else { OTHERS }.to_owned())
            .or_default() += 1;
    }

    /// One line for each, largest first; `rows_max` of them.
    pub(super) fn print(&self, output: Output, rows_max: usize) {
        let mut rows: Vec<_> = self.0.iter().collect();
        rows.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (word, count) in rows.iter().take(rows_max) {
            output.line(format_args!("  {count:>8}  {}", short(word)));
        }
        if rows.len() > rows_max {
            output.line(format_args!("  {:>8}  more of these", rows.len() - rows_max));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_without_end_are_counted_together() {
        let mut tally = Tally::default();
        for number in 0..10_000 {
            tally.add(&number.to_string());
            tally.add("0");
        }
        tally.add(&"x".repeat(1 << 20));
        assert_eq!(tally.0.len(), WORDS_MAX + 1);
        assert_eq!(tally.0["0"], 10_001);
        assert_eq!(tally.0.values().sum::<usize>(), 20_001);
    }
}
