//! `porchlight dead drop`: removes dead letters for good.
//!
//! Without `--yes` it only counts.

use porchlight_event::replay::{Action, Wish};
use tokio_util::sync::CancellationToken;

use super::doing::{DoingArgs, Picker, Report, do_it};
use super::letters::{Letters, Sight};
use super::list::held_max;
use crate::confirm::YesArgs;
use crate::failure::Failure;
use crate::output::{Output, bar};
use crate::place::QueueArgs;

/// Removes dead letters for good; without --yes it only says how many.
///
/// What they held is lost then: export them first. It wants to be told which letters, or --all. A stop or a kill leaves
/// the rest as it is. For each letter one line of JSON goes to --audit-file, or to standard error.
#[derive(clap::Args)]
pub(crate) struct DropArgs {
    #[command(flatten)]
    doing: DoingArgs,
    #[command(flatten)]
    yes: YesArgs,
    /// All of them
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    place: QueueArgs,
}

/// Drops, or says what would be dropped.
pub(crate) async fn run(args: DropArgs, output: Output, stop: &CancellationToken) -> Result<(), Failure> {
    if args.doing.filter.is_empty() != args.all {
        return Err(if args.all {
            Failure::usage("--all and a condition contradict each other").advise("one of them")
        } else {
            Failure::usage("which letters?").advise("a condition, such as --reason no_device; or --all")
        });
    }
    let letters = Letters::at(args.place.place()?);
    let report = match args.yes.given() {
        Some(consent) => do_it(&args.doing, Action::Drop, false, &letters, stop, consent).await?,
        None => dry_run(&args.doing, &letters, stop).await?,
    };
    let told = report.tell(output);
    if report.dry_run && report.matching > 0 && !output.is_json() {
        output.line(
            "nothing was changed; add --yes to drop them. What they hold is lost then: `dead export` first",
        );
    }
    told
}

async fn dry_run(args: &DoingArgs, letters: &Letters, stop: &CancellationToken) -> Result<Report, Failure> {
    let mut report = Report::dry(Action::Drop);
    let mut picker = Picker::new(args, Action::Drop, false);
    let sight = Sight {
        text: args.filter.text().map(str::to_owned),
        full: false,
    };
    let mut look = letters.look(sight).await?;
    report.ready = look.ready();
    let bar = bar(report.ready as u64, "letters");
    'look: while !stop.is_cancelled() {
        let page = look.page().await?;
        if page.is_empty() {
            break;
        }
        for peeked in page {
            match picker.wish(&peeked.row) {
                Wish::Enough => break 'look,
                Wish::Leave => report.unwanted += 1,
                Wish::Take => {
                    report.matching += 1;
                    report.by_reason.add(&peeked.row.reason);
                }
            }
            report.looked_at += 1;
        }
        bar.set_position(report.looked_at as u64);
    }
    report.stopped_by = look.held_max().map(held_max);
    look.close().await;
    bar.finish_and_clear();
    if stop.is_cancelled() {
        report.stopped_by.get_or_insert_with(|| "a signal".to_owned());
    }
    Ok(report)
}
