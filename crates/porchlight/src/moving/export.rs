//! `porchlight export`: everything that one way to run knows, in one file.
//!
//! Nothing is taken away and nothing changes where it comes from.

use std::path::PathBuf;
use std::time::Duration;

use indicatif::ProgressBar;
use porchlight_device::carry::Page;
use porchlight_event::replay::StopReason;
use porchlight_ledger::PageError;
use porchlight_queue::DeadLettersError;
use serde::Serialize;
use tokio::time::Instant;

use super::ends::End;
use super::file::{FileError, Writer, check_name};
use super::letters::{Event, Letter};
use super::lines::{Account, Counts, Form, Header, Line, Marks};
use crate::clock::now_ms;
use crate::failure::Failure;
use crate::output::{Output, bar, plain};
use crate::place::QueueArgs;

/// For SQLite to answer one question.
const READ_MAX: Duration = Duration::from_secs(10);
/// Events read at once.
const EVENTS_AT_ONCE: usize = 64;

/// Writes everything to one file, to import it into the other way to run.
///
/// Devices with their operations and histories, accounts, duplicate marks, commands that are owed, dead letters, and of
/// a standalone the events that still wait. The file holds what Ring sent about people's homes: only its owner can read
/// it. Nothing is taken away where it comes from.
///
/// Stop the standalone first; Ring sends again for 73 minutes what it cannot deliver. Of the scaled form stop the
/// ingresses (they cannot be seen from here), wait until the workers have emptied the queue, and stop the workers.
#[derive(clap::Args)]
pub(crate) struct ExportArgs {
    /// The file; must not exist yet
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Overwrite the file
    #[arg(long)]
    force: bool,
    /// Go on although workers run: what they do meanwhile may be missing
    #[arg(long)]
    live: bool,
    /// Go on although events wait in RabbitMQ, and leave them there
    #[arg(long)]
    without_waiting_events: bool,
    #[command(flatten)]
    place: QueueArgs,
}

/// What was written.
#[derive(Serialize)]
struct Report {
    file: String,
    from: Form,
    #[serde(flatten)]
    counts: Counts,
    bytes: u64,
    sha256: String,
    warnings: Vec<String>,
}

/// Exports.
pub(crate) async fn run(args: ExportArgs, output: Output) -> Result<(), Failure> {
    check_name(&args.to, args.force)?;
    let end = End::from(args.place.site()?).await?;
    let warnings = args.look_around(&end).await?;
    let header = Header::new(end.form, now_ms());
    let writer = Writer::create(&args.to, header).map_err(|error| args.unwritten(&error))?;
    let mut carrier = Carrier {
        end: &end,
        writer,
        bar: bar(0, "things"),
        args: &args,
    };
    carrier.carry().await?;
    carrier.bar.finish_and_clear();
    let counts = carrier.writer.counts();
    let last = carrier.writer.finish().map_err(|error| args.unwritten(&error))?;
    let report = Report {
        file: args.to.display().to_string(),
        from: end.form,
        counts,
        bytes: std::fs::metadata(&args.to).map_or(0, |file| file.len()),
        sha256: last.sha256,
        warnings,
    };
    end.close().await;
    report.print(output);
    Ok(())
}

impl ExportArgs {
    /// Whether everything can be taken along; what the operator should know if so.
    async fn look_around(&self, end: &End) -> Result<Vec<String>, Failure> {
        let left = end.left_behind().await?;
        let mut warnings = Vec::new();
        if left.workers > 0 {
            let what = format!("{} workers take events from this broker", left.workers);
            if !self.live {
                return Err(Failure::failed(what).advise(
                    "stop the ingresses, let the workers finish, stop them; or --live to go on nevertheless",
                ));
            }
            warnings.push(format!("{what}: what they do meanwhile may be missing"));
        }
        if left.waiting > 0 {
            let what = format!("{} events wait in RabbitMQ and cannot be exported", left.waiting);
            if !self.without_waiting_events {
                return Err(Failure::failed(what).advise(
                    "let the workers finish first; or --without-waiting-events to leave them where they are",
                ));
            }
            warnings.push(format!("{what}: they stay there"));
        }
        if left.commands > 0 {
            warnings.push(format!(
                "{} commands wait in porchlight.commands: let your services take them before this broker goes",
                left.commands
            ));
        }
        Ok(warnings)
    }

    fn unwritten(&self, error: &FileError) -> Failure {
        Failure::failed(format_args!("'{}' cannot be written", self.to.display())).because(error)
    }
}

/// Everything on its way to the file.
struct Carrier<'a> {
    end: &'a End,
    writer: Writer,
    bar: ProgressBar,
    args: &'a ExportArgs,
}

impl Carrier<'_> {
    async fn carry(&mut self) -> Result<(), Failure> {
        let end = self.end;
        let ledger = &end.ledger;
        self.pages(
            async |cursor| ledger.carry_accounts(cursor).await,
            |account| (Line::Account(Account::from(&account)), 1),
        )
        .await?;
        self.pages(
            async |cursor| ledger.carry_devices(cursor).await,
            |device| (Line::Device(Box::new(device.into())), 1),
        )
        .await?;
        self.pages(
            async |cursor| ledger.carry_marks(cursor).await,
            |marks| (Line::Marks(Marks::from(&marks)), marks.marks.len() as u64),
        )
        .await?;
        self.letters().await?;
        self.events().await
    }

    async fn pages<T>(
        &mut self,
        page: impl AsyncFn(Option<&str>) -> Result<Page<T>, PageError>,
        line: impl Fn(T) -> (Line, u64),
    ) -> Result<(), Failure> {
        let mut cursor: Option<String> = None;
        loop {
            let read = page(cursor.as_deref()).await;
            let read =
                read.map_err(|error| Failure::unavailable("the ledger cannot be read").because(&error))?;
            for row in read.rows {
                let (line, count) = line(row);
                self.add(&line, count)?;
            }
            cursor = read.next_cursor;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    async fn letters(&mut self) -> Result<(), Failure> {
        let mut walk = match self.end.dead_letters().walk().await {
            // No daemon has ever run on this broker, so nothing can have died there.
            Err(error) if error.is_no_queue() => return Ok(()),
            walk => walk.map_err(|error| unseen(&error))?,
        };
        let mut seen = 0;
        while let Some(found) = walk.next().await.map_err(|error| unseen(&error))? {
            seen += 1;
            self.add(&Line::Letter(Letter::from(&found.letter)), 1)?;
            walk.leave(&found);
        }
        let (ready, full) = (walk.ready(), walk.held_max());
        walk.close().await;
        if let Some(most) = full {
            let why = StopReason::HeldMax(most);
            return Err(
                Failure::failed(format_args!("{why}; nothing was exported")).advise("porchlight doctor")
            );
        }
        if seen < ready {
            return Err(Failure::failed(
                "somebody else takes dead letters meanwhile, so some were not seen; nothing was exported",
            ));
        }
        Ok(())
    }

    async fn events(&mut self) -> Result<(), Failure> {
        let Some(rows) = self.end.rows() else {
            return Ok(());
        };
        for is_put_off in [false, true] {
            let mut after = 0;
            loop {
                let until = Instant::now() + READ_MAX;
                let page = rows.waiting(is_put_off, after, EVENTS_AT_ONCE, until).await;
                let page =
                    page.map_err(|error| Failure::unavailable("the queue cannot be read").because(&error))?;
                let Some(last) = page.last() else { break };
                after = last.seq;
                for waiting in &page {
                    self.add(&Line::Event(Event::new(&waiting.envelope, waiting.due_at_ms)), 1)?;
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, line: &Line, count: u64) -> Result<(), Failure> {
        self.bar.inc_length(count);
        self.bar.inc(count);
        self.writer
            .add(line, count)
            .map_err(|error| self.args.unwritten(&error))
    }
}

fn unseen(error: &DeadLettersError) -> Failure {
    Failure::unavailable("the dead letters").because(error)
}

impl Report {
    fn print(&self, output: Output) {
        if output.is_json() {
            return output.document(self);
        }
        for warning in &self.warnings {
            output.line(format_args!("note: {}", plain(warning)));
        }
        output.line(format_args!(
            "wrote '{}' ({} bytes): {}",
            plain(&self.file),
            self.bytes,
            self.counts
        ));
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} accounts, {} devices, {} duplicate marks, {} dead letters, {} waiting events",
            self.accounts, self.devices, self.marks, self.letters, self.events
        )
    }
}
