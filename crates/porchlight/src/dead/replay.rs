//! `porchlight dead replay`: sends dead letters round again, each gone only when its copy is confirmed.
//!
//! Without `--yes` it only counts. It never shows or writes a body.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::audit::Audit;
use super::facts::Row;
use super::filter::FilterArgs;
use super::letters::{Letters, Pace, Progress};
use super::wire::{REPLAY_COUNT_MAX, Replayed};
use crate::clock::now_ms;
use crate::confirm::{Consent, YesArgs};
use crate::failure::Failure;
use crate::output::{Output, bar, plain};
use crate::place::QueueArgs;

/// Sends dead letters back to the queue that they came from; without --yes it only says which.
///
/// Repair the cause first, or they come back. A letter is gone from the dead letters only when its copy is confirmed,
/// so a run that is cut off loses nothing; on RabbitMQ it may leave a copy of up to 20 letters beside them, which the
/// workers take for what it is, a duplicate. Letters that die while it runs are not touched.
/// A command that no receiver took is owed again under its own id, or dropped when a newer one has overtaken it.
/// For each letter one line of JSON goes to standard error, or to --audit-file.
#[derive(clap::Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    yes: YesArgs,
    /// Letters per second, at most [default: as fast as they are confirmed]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// Most letters that are replayed
    #[arg(long, value_name = "N")]
    max: Option<usize>,
    /// Also letters that were replayed 3 times already
    #[arg(long)]
    force: bool,
    /// Append the audit lines to this file instead
    #[arg(long, value_name = "FILE")]
    audit_file: Option<PathBuf>,
    #[command(flatten)]
    place: QueueArgs,
}

/// What was done, or would be.
#[derive(Debug, Default, Serialize)]
struct Report {
    dry_run: bool,
    ready: usize,
    looked_at: usize,
    replayed: usize,
    /// Commands that are owed again.
    owed_again: usize,
    /// Commands that something newer has overtaken.
    overtaken: usize,
    /// In a dry run: what would be replayed.
    matching: usize,
    refused: usize,
    unwanted: usize,
    by_reason: BTreeMap<String, usize>,
    stopped_by: Option<String>,
}

/// Picks letters: what the filter wants, up to a number.
struct Picker<'a> {
    filter: &'a FilterArgs,
    max: usize,
    now_ms: i64,
    force: bool,
    picked: usize,
}

/// Replays, or says what would be replayed.
pub(crate) async fn run(args: ReplayArgs, output: Output, stop: CancellationToken) -> Result<(), Failure> {
    let letters = Letters::at(args.place.place()?);
    let report = match args.yes.given() {
        Some(consent) => replay_really(&args, &letters, &stop, consent).await?,
        None => crate::until(&stop, dry_run(&args, &letters)).await?,
    };
    report.print(output);
    if report.stopped_by.is_some() {
        Err(Failure::told())
    } else {
        Ok(())
    }
}

async fn dry_run(args: &ReplayArgs, letters: &Letters) -> Result<Report, Failure> {
    let mut report = Report {
        dry_run: true,
        ..Report::default()
    };
    let mut picker = Picker::new(args);
    let visit = |row: Row| {
        let meant = picker.wants(&row);
        if !meant {
            report.unwanted += 1;
        } else if picker.would_be_refused(&row) {
            report.refused += 1;
        } else {
            report.matching += 1;
            *report.by_reason.entry(row.reason).or_default() += 1;
        }
        ControlFlow::Continue(())
    };
    let seen = letters.look(visit).await?;
    (report.ready, report.looked_at) = (seen.ready, seen.seen);
    Ok(report)
}

async fn replay_really(
    args: &ReplayArgs,
    letters: &Letters,
    stop: &CancellationToken,
    _consent: Consent,
) -> Result<Report, Failure> {
    let mut audit = Audit::open(args.audit_file.as_deref())?;
    let pace = Pace {
        force: args.force,
        per_second_max: args.rate,
    };
    let mut picker = Picker::new(args);
    let mut by_reason = BTreeMap::new();
    let bar = bar(0, "letters");
    let progress = |done: &Progress, settled: Option<&Replayed>| {
        bar.set_length(done.ready as u64);
        bar.set_position(done.seen as u64);
        if let Some(settled) = settled {
            if settled.fate.is_moved() {
                let reason = settled.reason.clone().unwrap_or_default();
                *by_reason.entry(reason).or_default() += 1;
            }
            audit.write(&bar, settled);
        }
    };
    let done = letters
        .replay(pace, stop, |row| picker.wants(row), progress)
        .await;
    bar.finish_and_clear();
    Ok(Report::new(&done?, by_reason))
}

impl<'a> Picker<'a> {
    fn new(args: &'a ReplayArgs) -> Self {
        let max = args.max.unwrap_or(usize::MAX);
        Self {
            filter: &args.filter,
            max,
            now_ms: now_ms(),
            force: args.force,
            picked: 0,
        }
    }

    fn wants(&mut self, row: &Row) -> bool {
        let wanted = self.picked < self.max && self.filter.wants(row, self.now_ms);
        if wanted && !self.would_be_refused(row) {
            self.picked += 1;
        }
        wanted
    }

    fn would_be_refused(&self, row: &Row) -> bool {
        !self.force && row.replays >= REPLAY_COUNT_MAX
    }
}

impl Report {
    fn new(done: &Progress, by_reason: BTreeMap<String, usize>) -> Self {
        Self {
            dry_run: false,
            ready: done.ready,
            looked_at: done.seen,
            replayed: done.replayed,
            owed_again: done.owed_again,
            overtaken: done.overtaken,
            matching: done.seen - done.unwanted - done.refused,
            refused: done.refused,
            unwanted: done.unwanted,
            by_reason,
            stopped_by: done.stopped_by.clone(),
        }
    }

    fn print(&self, output: Output) {
        if output.is_json() {
            return output.document(self);
        }
        let Self {
            ready,
            looked_at,
            replayed,
            owed_again,
            overtaken,
            matching,
            refused,
            ..
        } = self;
        if self.dry_run {
            output.line(format_args!(
                "{matching} of {ready} dead letters would be replayed"
            ));
        } else {
            let moved = replayed + owed_again + overtaken;
            output.line(format_args!("{moved} of {ready} dead letters were replayed"));
        }
        if *owed_again > 0 {
            output.line(format_args!(
                "{owed_again} of them are commands that are owed again"
            ));
        }
        if *overtaken > 0 {
            output.line(format_args!(
                "{overtaken} of them were commands that newer ones have overtaken; nothing is sent for these"
            ));
        }
        for (reason, count) in &self.by_reason {
            output.line(format_args!("  {count:>8}  {}", plain(reason)));
        }
        if *refused > 0 {
            output.line(format_args!(
                "{refused} were replayed {REPLAY_COUNT_MAX} times already; see --force"
            ));
        }
        if looked_at < ready && self.dry_run {
            output.line(format_args!("only the first {looked_at} were looked at"));
        }
        if let Some(reason) = &self.stopped_by {
            output.line(format_args!(
                "ended early by {}; what was not replayed is still there",
                plain(reason)
            ));
        }
        if self.dry_run && *matching > 0 {
            output.line("nothing was changed; add --yes to replay them");
        }
    }
}
