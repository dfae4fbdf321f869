//! `porchlight dead import`: takes dead letters in from a file that an export wrote.
//!
//! The file is read twice, once to be sure of it and once to use it; without `--yes` it is only read once.

use std::path::PathBuf;

use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::audit::{Audit, AuditArgs};
use super::letter_file::{FileLook, LetterReader, Step};
use super::letters::Letters;
use super::taking_in::Taker;
use crate::confirm::YesArgs;
use crate::failure::Failure;
use crate::moving::{FileError, Form};
use crate::output::{Output, bar, date, plain};
use crate::place::{Place, QueueArgs};

/// Takes dead letters in from a file that `dead export` or `export` wrote; without --yes it only says which.
///
/// The whole file is checked first: when any line cannot be read, all such lines are told with their numbers and nothing is
/// changed, unless --skip-bad leaves them out. Of an `export` it takes the dead letters and nothing else.
///
/// Letters that are there already are left out: those of the same id that died at the same time for the same reason. So
/// it can be stopped and run again, and a second import brings nothing. A letter that was replayed or dropped since is
/// not there any more, and comes again. In RabbitMQ all letters are looked at first to know them.
#[derive(clap::Args)]
pub(crate) struct ImportArgs {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Leave out lines that cannot be read
    #[arg(long)]
    skip_bad: bool,
    #[command(flatten)]
    yes: YesArgs,
    #[command(flatten)]
    audit: AuditArgs,
    #[command(flatten)]
    place: QueueArgs,
}

/// What was done, or would be.
#[derive(Serialize)]
struct Report {
    dry_run: bool,
    file: String,
    from: Form,
    /// When it was exported.
    at: i64,
    /// What the file holds.
    letters: u64,
    /// Lines about anything else, which are not imported.
    others: u64,
    bad_lines: u64,
    #[serde(flatten)]
    done: Done,
    stopped_by: Option<String>,
}

/// What became of the letters.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Done {
    imported: u64,
    /// Letters that were there already.
    known: u64,
}

/// Imports, or says what would be imported.
pub(crate) async fn run(args: ImportArgs, output: Output, stop: &CancellationToken) -> Result<(), Failure> {
    let place = match args.place.place()? {
        Place::Directory(directory) => Place::Directory(directory.with_its_bound().await?),
        place => place,
    };
    let look = FileLook::at(&args.file).map_err(|error| args.refused(&error))?;
    args.check(&look)?;
    let consent = args.yes.given();
    let mut report = Report {
        dry_run: consent.is_none(),
        file: args.file.display().to_string(),
        from: look.header.from,
        at: look.header.at,
        letters: look.letters,
        others: look.others,
        bad_lines: look.bad_count,
        done: Done::default(),
        stopped_by: None,
    };
    if consent.is_some() {
        let letters = Letters::at(place);
        let bar = bar(look.letters, "letters");
        let about = json!({
            "form": letters.form().word(), "file": report.file, "file_sha256": look.sum, "skip_bad": args.skip_bad,
        });
        let audit = args.audit.begin("import", &about, &bar)?;
        let (done, ended) = args.import(&look, &letters, stop, &bar).await;
        bar.finish_and_clear();
        report.done = done;
        end(audit, &mut report, ended, stop)?;
    }
    report.print(output);
    if report.stopped_by.is_some() {
        Err(Failure::told())
    } else {
        Ok(())
    }
}

fn end(
    audit: Audit,
    report: &mut Report,
    ended: Result<(), Failure>,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let is_done = report.done.imported + report.done.known >= report.letters;
    if stop.is_cancelled() && !is_done {
        report.stopped_by = Some("a signal".to_owned());
    }
    audit.end(&json!({ "done": report.done, "stopped_by": report.stopped_by, "failed": ended.is_err() }));
    ended
}

impl ImportArgs {
    fn refused(&self, error: &FileError) -> Failure {
        let file = self.file.display();
        Failure::usage(format_args!("'{file}' was not imported, and nothing was changed")).because(error)
    }

    /// Tells of every line that cannot be read, up to a number that a person reads.
    fn check(&self, look: &FileLook) -> Result<(), Failure> {
        if look.bad_count == 0 || self.skip_bad {
            return Ok(());
        }
        let more = look.bad_count - look.bad.len() as u64;
        let more = if more > 0 {
            format!("; and {more} more")
        } else {
            String::new()
        };
        let file = self.file.display();
        Err(Failure::usage(format_args!(
            "'{file}' was not imported, and nothing was changed: {}{more}",
            look.bad.join("; ")
        ))
        .advise("--skip-bad imports the lines that can be read"))
    }

    async fn import(
        &self,
        look: &FileLook,
        letters: &Letters,
        stop: &CancellationToken,
        bar: &ProgressBar,
    ) -> (Done, Result<(), Failure>) {
        let mut done = Done::default();
        let taker = match Taker::open(letters).await {
            Ok(taker) => taker,
            Err(failure) => return (done, Err(failure)),
        };
        let ended = self.take_all(look, &taker, stop, bar, &mut done).await;
        taker.close().await;
        (done, ended)
    }

    async fn take_all(
        &self,
        look: &FileLook,
        taker: &Taker<'_>,
        stop: &CancellationToken,
        bar: &ProgressBar,
        done: &mut Done,
    ) -> Result<(), Failure> {
        let mut reader = LetterReader::open(&self.file).map_err(|error| self.refused(&error))?;
        let mut batch = Vec::new();
        let mut bytes = 0;
        loop {
            let step = reader.step().map_err(|error| self.refused(&error))?;
            let is_end = matches!(step, Step::End);
            if let Step::Letter(letter) = step {
                bytes += letter.envelope.body.len();
                batch.push(*letter);
            }
            if taker.is_enough(batch.len(), bytes) || is_end && !batch.is_empty() {
                let count = batch.len() as u64;
                let new = taker.take(std::mem::take(&mut batch)).await?;
                (done.imported, done.known) = (done.imported + new, done.known + count - new);
                bytes = 0;
                bar.inc(count);
            }
            if is_end && reader.sum() != look.sum {
                return Err(Failure::failed("the file was changed while it was imported")
                    .advise("import it again: what is in already stays as it is"));
            }
            if is_end || stop.is_cancelled() {
                return Ok(());
            }
        }
    }
}

impl Report {
    fn print(&self, output: Output) {
        if output.is_json() {
            return output.document(self);
        }
        let Self {
            letters,
            others,
            bad_lines,
            ..
        } = self;
        let (file, at) = (plain(&self.file), date(Some(self.at)));
        output.line(format_args!(
            "'{file}' holds {letters} dead letters, exported at {at}"
        ));
        if *others > 0 {
            output.line(format_args!(
                "{others} lines about other things are left out; see `porchlight import`"
            ));
        }
        if *bad_lines > 0 {
            output.line(format_args!("{bad_lines} lines cannot be read and are left out"));
        }
        if self.dry_run {
            return output.line("nothing was changed; --yes imports them");
        }
        let Done { imported, known } = self.done;
        output.line(format_args!(
            "{imported} were imported, {known} were here already"
        ));
        if let Some(why) = &self.stopped_by {
            output.line(format_args!(
                "ended early by {why}; the same command again goes on: what is in already is left out"
            ));
        }
    }
}
