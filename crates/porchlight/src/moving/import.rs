//! `porchlight import`: takes everything in that an export holds, merging with what is there.
//!
//! It never overwrites: what merging means is the ledger's. Cut off at any moment, it is simply run again.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use indicatif::ProgressBar;
use porchlight_event::queue::RetryTier;
use porchlight_event::replay::StopReason;
use porchlight_ledger::LedgerError;
use porchlight_queue::dead::Known;
use porchlight_queue::{Deadlines, Queue, QueueError};
use serde::Serialize;

use super::ends::End;
use super::file::{FileError, Whole};
use super::lines::{Counts, Form, Thing};
use crate::clock::now_ms;
use crate::confirm::{Consent, YesArgs};
use crate::failure::{Failure, chain};
use crate::output::{Output, bar, date, plain};
use crate::place::QueueArgs;

/// Things taken in at once: they share a round trip or a commit.
const INFLIGHT_MAX: usize = 64;
/// Bytes of lines whose things are taken in at once; a single larger one goes alone.
const INFLIGHT_BYTES_MAX: u64 = 16 << 20;
/// For one event or letter to be stored.
const STORE_MAX: Duration = Duration::from_secs(30);
/// For what a publisher has under way at the end.
const DRAIN_MAX: Duration = Duration::from_secs(10);
const MINUTE_MS: i64 = 60_000;

/// Takes in what an export holds; without --yes it only says what that is.
///
/// The whole file is checked before anything is changed. What is there already is merged, never overwritten: the newest
/// event counts for a status, of an operation the one that went further; so it may be done twice, while events arrive,
/// or again after it was cut off. What is forgotten here and known there comes back.
///
/// Dead letters: into a standalone each comes once, however often it is imported. RabbitMQ cannot tell; so all letters in
/// porchlight.dead are looked at first, and those that the file brings again are left out. Waiting events come again
/// with every import, as duplicates.
#[derive(clap::Args)]
pub(crate) struct ImportArgs {
    /// The file that `export` wrote
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Leave the dead letters out
    #[arg(long)]
    without_letters: bool,
    #[command(flatten)]
    yes: YesArgs,
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
    #[serde(flatten)]
    counts: Counts,
    /// In a dry run: devices that are known here already, and would be merged.
    devices_known: Option<u64>,
    #[serde(flatten)]
    done: Option<Done>,
}

/// What became of what the file held.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Done {
    /// Commands that are owed now and were owed by neither side.
    commands_newly_owed: u64,
    /// Marks that nobody looks up any more.
    marks_too_old: u64,
    /// Letters that were here already.
    letters_known: u64,
}

/// Why a thing was not taken in.
enum Failed {
    Ledger(LedgerError),
    Queue(QueueError),
}

/// Imports, or says what would be imported.
pub(crate) async fn run(args: ImportArgs, output: Output) -> Result<(), Failure> {
    let site = args.place.site()?;
    let is_real = args.yes.given();
    let whole = Whole::check(&args.from).map_err(|error| args.refused(&error))?;
    let mut report = Report {
        dry_run: is_real.is_none(),
        file: args.from.display().to_string(),
        from: whole.header.from,
        at: whole.header.at,
        counts: whole.counts,
        devices_known: None,
        done: None,
    };
    match is_real {
        None => {
            report.devices_known = Some(match End::to_look_at(site)? {
                Some(end) => args.known(&whole, &end).await?,
                None => 0,
            });
        }
        Some(consent) => {
            let end = End::to(site)?;
            let done = args.import(&whole, &end, &consent).await;
            end.close().await;
            report.done = Some(done?);
        }
    }
    report.print(output);
    Ok(())
}

impl ImportArgs {
    fn refused(&self, error: &FileError) -> Failure {
        Failure::usage(format_args!(
            "'{}' was not imported, and nothing was changed",
            self.from.display()
        ))
        .because(error)
    }

    /// How many of the file's devices are known at that end.
    async fn known(&self, whole: &Whole, end: &End) -> Result<u64, Failure> {
        let mut reader = whole.again().map_err(|error| self.refused(&error))?;
        let (mut known, mut looks) = (0, FuturesUnordered::new());
        loop {
            let next = whole.next(&mut reader).map_err(|error| self.refused(&error))?;
            let is_last = next.is_none();
            if let Some(Thing::Device(carried)) = next {
                looks.push(async move { end.ledger.device(&carried.device.device_id).await });
            }
            while looks.len() >= INFLIGHT_MAX || is_last && !looks.is_empty() {
                if let Some(found) = looks.next().await {
                    let unread = |error| Failure::unavailable("the ledger cannot be read").because(&error);
                    known += u64::from(found.map_err(unread)?.is_some());
                }
            }
            if is_last {
                return Ok(known);
            }
        }
    }

    async fn import(&self, whole: &Whole, end: &End, _: &Consent) -> Result<Done, Failure> {
        let queue = end.queue().await?;
        let done = self.import_into(whole, end, &queue).await;
        if let Queue::RabbitMq(publisher) = &queue {
            publisher.close(DRAIN_MAX).await;
        }
        done
    }

    async fn import_into(&self, whole: &Whole, end: &End, queue: &Queue) -> Result<Done, Failure> {
        let takes_letters = whole.counts.letters > 0 && !self.without_letters;
        let taker = Taker {
            end,
            queue,
            letters: if takes_letters { here(end).await? } else { None },
            takes_letters: !self.without_letters,
            now_ms: now_ms(),
        };
        let bar = bar(whole.counts.total(), "things");
        let taken = taker.take_all(whole, &bar).await;
        bar.finish_and_clear();
        taken.map_err(|failed| {
            let why = match failed {
                Stopped::File(error) => return self.refused(&error).advise("export again, and import that"),
                Stopped::Taking(Failed::Ledger(error)) => chain(&error),
                Stopped::Taking(Failed::Queue(error)) => chain(&error),
            };
            Failure::unavailable(format_args!("the import ended half-way: {why}"))
                .advise("run it again: what is in already stays as it is")
        })
    }
}

/// Letters that RabbitMQ has already; a file knows its own.
async fn here(end: &End) -> Result<Option<Known>, Failure> {
    if end.form == Form::Standalone {
        return Ok(None);
    }
    let known = end.dead_letters().known().await;
    let known = known.map_err(|error| Failure::unavailable("the dead letters").because(&error))?;
    if let Some(most) = known.held_max() {
        let why = StopReason::HeldMax(most);
        return Err(Failure::failed(format_args!("{why}; nothing was imported"))
            .advise("porchlight doctor; or --without-letters"));
    }
    Ok(Some(known))
}

enum Stopped {
    File(FileError),
    Taking(Failed),
}

struct Taker<'a> {
    end: &'a End,
    queue: &'a Queue,
    /// Letters that are here already, where the place itself cannot tell.
    letters: Option<Known>,
    takes_letters: bool,
    now_ms: i64,
}

impl Taker<'_> {
    async fn take_all(&self, whole: &Whole, bar: &ProgressBar) -> Result<Done, Stopped> {
        let mut reader = whole.again().map_err(Stopped::File)?;
        let mut under_way = FuturesUnordered::new();
        let (mut done, mut bytes, mut kind) = (Done::default(), 0_u64, None);
        loop {
            let next = whole.next(&mut reader).map_err(Stopped::File)?;
            let line_bytes = reader.line_bytes();
            // Accounts are all in before the first device, devices before marks, and everything before the first event.
            let is_other = next.as_ref().map(std::mem::discriminant) != kind;
            while !under_way.is_empty()
                && (is_other || under_way.len() >= INFLIGHT_MAX || bytes + line_bytes > INFLIGHT_BYTES_MAX)
            {
                let settled: Option<(u64, u64, Result<Done, Failed>)> = under_way.next().await;
                if let Some((size, count, taken)) = settled {
                    bytes -= size;
                    bar.inc(count);
                    done.add(taken.map_err(Stopped::Taking)?);
                }
            }
            let Some(thing) = next else { return Ok(done) };
            kind = Some(std::mem::discriminant(&thing));
            bytes += line_bytes;
            let count = thing.count();
            under_way.push(async move { (line_bytes, count, self.take(thing).await) });
        }
    }

    async fn take(&self, thing: Thing) -> Result<Done, Failed> {
        let (ledger, now_ms, mut done) = (&self.end.ledger, self.now_ms, Done::default());
        match thing {
            Thing::Account(account) => ledger.restore_account(&account, now_ms).await?,
            Thing::Device(device) => {
                let owed = ledger.restore_device(&device, now_ms).await?;
                done.commands_newly_owed = owed.len() as u64;
            }
            Thing::Marks(marks) => {
                if !ledger.restore_marks(&marks, now_ms).await? {
                    done.marks_too_old = marks.marks.len() as u64;
                }
            }
            Thing::Letter(_) if !self.takes_letters => {}
            Thing::Letter(letter) => {
                let is_new = self.letters.as_ref().is_none_or(|known| !known.has(&letter))
                    && self
                        .queue
                        .bring_letter(&letter, Deadlines::within(STORE_MAX))
                        .await?;
                done.letters_known = u64::from(!is_new);
            }
            Thing::Event(envelope, None) => {
                self.queue.accept(&envelope, Deadlines::within(STORE_MAX)).await?;
            }
            Thing::Event(envelope, Some(due_at)) => {
                let tier = match due_at.saturating_sub(now_ms) {
                    ..=MINUTE_MS => RetryTier::OneMinute,
                    _ => RetryTier::TenMinutes,
                };
                self.queue
                    .put_off(&envelope, tier, Deadlines::within(STORE_MAX))
                    .await?;
            }
        }
        Ok(done)
    }
}

impl Done {
    fn add(&mut self, other: Self) {
        self.commands_newly_owed += other.commands_newly_owed;
        self.marks_too_old += other.marks_too_old;
        self.letters_known += other.letters_known;
    }
}

impl From<LedgerError> for Failed {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

impl From<QueueError> for Failed {
    fn from(error: QueueError) -> Self {
        Self::Queue(error)
    }
}

impl Report {
    fn print(&self, output: Output) {
        if output.is_json() {
            return output.document(self);
        }
        let form = match self.from {
            Form::Standalone => "a standalone",
            Form::Scaled => "the scaled form",
        };
        let (file, at) = (plain(&self.file), date(Some(self.at)));
        output.line(format_args!(
            "'{file}' was exported from {form} at {at}: {}",
            self.counts
        ));
        if let Some(known) = self.devices_known {
            output.line(format_args!(
                "{known} of the devices are known here and would be merged; nothing was changed, --yes imports"
            ));
        }
        if let Some(done) = self.done {
            output.line(format_args!(
                "imported; {} commands are newly owed, {} marks were too old, {} dead letters were here already",
                done.commands_newly_owed, done.marks_too_old, done.letters_known
            ));
        }
    }
}
