//! `porchlight dead export`: dead letters as lines of JSON in one file, from which they can be imported again.
//!
//! None is taken away.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::audit::AuditArgs;
use super::filter::FilterArgs;
use super::letters::{Letters, Sight};
use super::predict::Form;
use super::tally::Tally;
use crate::clock::now_ms;
use crate::failure::Failure;
use crate::moving::{self, FileError, LetterLine, Line, Writer};
use crate::output::{Output, bar, plain, size};
use crate::place::QueueArgs;

/// Lines of totals that a person reads; `--json` has all.
const TOTALS_SHOWN: usize = 20;

/// Writes dead letters to a file, one line of JSON each, to import them again or elsewhere.
///
/// The file holds what Ring sent about people's homes: only its owner can read it. It has its name only when it is whole.
/// Nothing is taken away: to clear the dead letters, export, then `dead drop` with the same conditions. `porchlight import`
/// reads the file, too.
#[derive(clap::Args)]
pub(crate) struct ExportArgs {
    /// The file; must not exist yet
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Overwrite the file
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    audit: AuditArgs,
    #[command(flatten)]
    place: QueueArgs,
}

/// What was written.
#[derive(Serialize)]
struct Report {
    file: String,
    ready: usize,
    looked_at: usize,
    exported: u64,
    by_reason: Tally,
    bytes: u64,
    sha256: String,
}

/// Exports.
pub(crate) async fn run(args: ExportArgs, output: Output, stop: &CancellationToken) -> Result<(), Failure> {
    moving::check_name(&args.file, args.force)?;
    let letters = Letters::at(args.place.place()?);
    let bar = bar(0, "letters");
    let file = args.file.display().to_string();
    let about = json!({ "form": letters.form().word(), "filter": args.filter.told(), "file": file });
    let audit = args.audit.begin("export", &about, &bar)?;
    let exported = export(&args, &letters, stop, &bar).await;
    bar.finish_and_clear();
    match exported {
        Ok(report) => {
            audit.end(&report);
            report.print(output);
            Ok(())
        }
        Err(failure) => {
            audit.end(&json!({ "failed": true }));
            Err(failure)
        }
    }
}

async fn export(
    args: &ExportArgs,
    letters: &Letters,
    stop: &CancellationToken,
    bar: &indicatif::ProgressBar,
) -> Result<Report, Failure> {
    let unwritten = |error: FileError| unwritten(&args.file, &error);
    let sight = Sight {
        text: args.filter.text().map(str::to_owned),
        full: true,
    };
    let mut look = letters.look(sight).await?;
    let form = match letters.form() {
        Form::Scaled => moving::Form::Scaled,
        Form::Standalone => moving::Form::Standalone,
    };
    let mut writer = Writer::create(&args.file, moving::Header::new(form, now_ms())).map_err(unwritten)?;
    let (now_ms, mut by_reason, mut looked_at) = (now_ms(), Tally::default(), 0);
    bar.set_length(look.ready() as u64);
    while !stop.is_cancelled() {
        let page = look.page().await?;
        if page.is_empty() {
            break;
        }
        looked_at += page.len();
        for peeked in page {
            if !args.filter.wants(&peeked.row, now_ms) {
                continue;
            }
            let letter = peeked.letter.ok_or_else(|| {
                Failure::failed("the daemon gives no letters in full").advise("a daemon of this version")
            })?;
            by_reason.add(&letter.reason);
            writer
                .add(&Line::Letter(LetterLine::from(&letter)), 1)
                .map_err(unwritten)?;
        }
        bar.set_position(looked_at as u64);
    }
    let (ready, full) = (look.ready(), look.held_max());
    look.close().await;
    if let Some(most) = full {
        return Err(Failure::failed(super::list::held_max(most)).advise("porchlight doctor"));
    }
    if stop.is_cancelled() {
        return Err(Failure::failed("stopped by a signal; no file was written"));
    }
    if looked_at < ready {
        return Err(Failure::failed(
            "somebody else takes dead letters meanwhile, so some were not seen; no file was written",
        ));
    }
    let exported = writer.counts().letters;
    let end = writer.finish().map_err(unwritten)?;
    Ok(Report {
        file: args.file.display().to_string(),
        ready,
        looked_at,
        exported,
        by_reason,
        bytes: std::fs::metadata(&args.file).map_or(0, |file| file.len()),
        sha256: end.sha256,
    })
}

fn unwritten(path: &Path, error: &FileError) -> Failure {
    Failure::failed(format_args!("'{}' cannot be written", path.display())).because(error)
}

impl Report {
    fn print(&self, output: Output) {
        if output.is_json() {
            return output.document(self);
        }
        output.line(format_args!(
            "wrote {} of {} dead letters to '{}' ({})",
            self.exported,
            self.ready,
            plain(&self.file),
            size(self.bytes)
        ));
        self.by_reason.print(output, TOTALS_SHOWN);
    }
}
