//! Working through dead letters: which are meant, what is written down of it, and what is told at the end.
//!
//! How a letter is replayed or dropped safely is not known here; see [`super::letters`].

use porchlight_event::replay::{Action, REPLAY_COUNT_MAX, ReplaySummary, Wish};
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::audit::AuditArgs;
use super::facts::Row;
use super::filter::FilterArgs;
use super::letters::{Letters, Pace};
use super::tally::Tally;
use super::wire::Replayed;
use crate::clock::now_ms;
use crate::confirm::Consent;
use crate::failure::Failure;
use crate::output::{Output, bar, plain};

/// Lines of totals that a person reads; `--json` has all.
const TOTALS_SHOWN: usize = 20;

/// How letters are worked through, whatever is done with them.
#[derive(clap::Args)]
pub(super) struct DoingArgs {
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// Letters per second, at most [default: as fast as it can be done safely]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) rate: Option<u32>,
    /// Most letters that it is done to
    #[arg(long, value_name = "N")]
    pub(super) max: Option<usize>,
    #[command(flatten)]
    pub(super) audit: AuditArgs,
}

/// Picks letters: what the filter wants, up to a number.
pub(super) struct Picker<'a> {
    args: &'a DoingArgs,
    now_ms: i64,
    /// Whether what was replayed too often is left alone.
    refuses: bool,
    picked: usize,
}

/// What was done, or would be.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    #[serde(skip)]
    pub(super) action: Action,
    pub(super) dry_run: bool,
    pub(super) ready: usize,
    pub(super) looked_at: usize,
    pub(super) replayed: usize,
    /// Commands that are owed again.
    pub(super) owed_again: usize,
    /// Commands that something newer has overtaken.
    pub(super) overtaken: usize,
    pub(super) dropped: usize,
    /// What is meant; in a dry run what it would be done to.
    pub(super) matching: usize,
    pub(super) refused: usize,
    /// Letters that hold no command which could be owed again.
    pub(super) unusable: usize,
    pub(super) unwanted: usize,
    pub(super) by_reason: Tally,
    pub(super) stopped_by: Option<String>,
}

impl<'a> Picker<'a> {
    pub(super) fn new(args: &'a DoingArgs, action: Action, force: bool) -> Self {
        Self {
            args,
            now_ms: now_ms(),
            refuses: action == Action::Replay && !force,
            picked: 0,
        }
    }

    pub(super) fn wish(&mut self, row: &Row) -> Wish {
        if self.picked >= self.args.max.unwrap_or(usize::MAX) {
            return Wish::Enough;
        }
        if !self.args.filter.wants(row, self.now_ms) {
            return Wish::Leave;
        }
        if !self.would_be_refused(row) {
            self.picked += 1;
        }
        Wish::Take
    }

    pub(super) fn would_be_refused(&self, row: &Row) -> bool {
        self.refuses && row.replays >= REPLAY_COUNT_MAX
    }
}

/// Does it, and writes it down.
pub(super) async fn do_it(
    args: &DoingArgs,
    action: Action,
    force: bool,
    letters: &Letters,
    stop: &CancellationToken,
    _consent: Consent,
) -> Result<Report, Failure> {
    let word = match action {
        Action::Replay => "replay",
        Action::Drop => "drop",
    };
    let bar = bar(0, "letters");
    let about = json!({
        "form": letters.form().word(), "filter": args.filter.told(), "force": force, "max": args.max,
        "rate": args.rate,
    });
    let mut audit = args.audit.begin(word, &about, &bar)?;
    let pace = Pace {
        action,
        force,
        per_second_max: args.rate,
        text: args.filter.text().map(str::to_owned),
    };
    let mut picker = Picker::new(args, action, force);
    let mut by_reason = Tally::default();
    let progress = |done: &ReplaySummary, settled: Option<&Replayed>| {
        bar.set_length(done.ready as u64);
        bar.set_position(done.seen as u64);
        if let Some(settled) = settled {
            if settled.fate.is_moved() {
                by_reason.add(settled.reason.as_deref().unwrap_or_default());
            }
            audit.letter(settled);
        }
    };
    let done = letters
        .work_through(pace, stop, |row| picker.wish(row), progress)
        .await;
    bar.finish_and_clear();
    match done {
        Ok(done) => {
            let report = Report::new(action, &done, by_reason);
            audit.end(&report);
            Ok(report)
        }
        Err(failure) => {
            audit.end(&json!({ "failed": true }));
            Err(failure)
        }
    }
}

impl Report {
    pub(super) fn dry(action: Action) -> Self {
        Self {
            dry_run: true,
            ..Self::new(action, &ReplaySummary::default(), Tally::default())
        }
    }

    fn new(action: Action, done: &ReplaySummary, by_reason: Tally) -> Self {
        Self {
            action,
            dry_run: false,
            ready: done.ready,
            looked_at: done.seen,
            replayed: done.replayed,
            owed_again: done.owed_again,
            overtaken: done.overtaken,
            dropped: done.dropped,
            matching: done.seen - done.unwanted - done.refused,
            refused: done.refused,
            unusable: done.unusable,
            unwanted: done.unwanted,
            by_reason,
            stopped_by: done.stopped_by.as_ref().map(ToString::to_string),
        }
    }

    /// As its numbers, or for a person; then what would have to be told of a failure.
    pub(super) fn tell(&self, output: Output) -> Result<(), Failure> {
        if output.is_json() {
            output.document(self);
        } else {
            self.print(output);
        }
        if self.stopped_by.is_some() || self.unusable > 0 {
            Err(Failure::told())
        } else {
            Ok(())
        }
    }

    pub(super) fn print(&self, output: Output) {
        let Self { ready, matching, .. } = self;
        let moved = self.replayed + self.owed_again + self.overtaken + self.dropped;
        let (would_be, were) = match self.action {
            Action::Replay => ("would be replayed", "were replayed"),
            Action::Drop => ("would be dropped for good", "were dropped"),
        };
        if self.dry_run {
            output.line(format_args!("{matching} of {ready} dead letters {would_be}"));
        } else {
            output.line(format_args!("{moved} of {ready} dead letters {were}"));
        }
        if self.owed_again > 0 {
            let count = self.owed_again;
            output.line(format_args!("{count} of them are commands that are owed again"));
        }
        if self.overtaken > 0 {
            output.line(format_args!(
                "{} of them were commands that newer ones have overtaken; nothing is sent for these",
                self.overtaken
            ));
        }
        self.by_reason.print(output, TOTALS_SHOWN);
        if self.refused > 0 {
            let count = self.refused;
            output.line(format_args!(
                "{count} were replayed {REPLAY_COUNT_MAX} times already; see --force"
            ));
        }
        if self.unusable > 0 {
            output.line(format_args!(
                "{} hold no command that could be sent, and stay: see dead show and dead drop",
                self.unusable
            ));
        }
        if let Some(reason) = &self.stopped_by {
            output.line(format_args!(
                "ended early by {}; what was not done is still there: the same command again goes on",
                plain(reason)
            ));
        }
    }
}
