//! `porchlight dead replay`: sends dead letters round again, each gone only when its copy is confirmed.
//!
//! Without `--yes` it only counts. It never shows or writes a body.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::ProgressBar;
use porchlight_broker::dead_letter::{HELD_MAX, list};
use porchlight_broker::replay::{Fate, REPLAY_COUNT_MAX, Settled, replay};
use porchlight_broker::{
    BrokerUrls, DeadLetter, Publisher, PublisherConfig, QueueState, ReplayOptions, ReplaySummary,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::facts::Facts;
use super::filter::FilterArgs;
use super::unreadable;
use crate::clock::now_ms;
use crate::confirm::{Consent, YesArgs};
use crate::failure::{Failure, chain};
use crate::output::{Output, bar, plain};
use crate::servers::AmqpArgs;

/// How long to wait for the connection.
const READY_MAX: Duration = Duration::from_secs(15);
/// How long a close waits for confirms; none is out by then.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// Sends dead letters back to the queue that they came from; without --yes it only says which.
///
/// Repair the cause first, or they come back. A letter is gone from the dead letters only when the broker has
/// confirmed its copy, so a run that is cut off loses nothing; it may leave a copy of up to 20 letters beside them,
/// which the workers take for what it is, a duplicate. Letters that die while it runs are not touched.
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
    amqp: AmqpArgs,
}

/// What was done, or would be.
#[derive(Debug, Default, Serialize)]
struct Report {
    dry_run: bool,
    ready: usize,
    looked_at: usize,
    replayed: usize,
    /// In a dry run: what would be replayed.
    matching: usize,
    refused: usize,
    unwanted: usize,
    by_reason: BTreeMap<String, usize>,
    stopped_by: Option<String>,
}

#[derive(Serialize)]
struct AuditLine<'a> {
    at: i64,
    message_id: &'a str,
    reason: &'a str,
    replays: u32,
    fate: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Where audit lines go.
enum Audit {
    Stderr,
    File(File),
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
    let urls = args.amqp.urls()?;
    let report = match args.yes.given() {
        Some(consent) => replay_really(&args, &urls, &stop, consent).await?,
        None => dry_run(&args, &urls).await?,
    };
    report.print(output);
    if report.stopped_by.is_some() {
        Err(Failure::told())
    } else {
        Ok(())
    }
}

async fn dry_run(args: &ReplayArgs, urls: &BrokerUrls) -> Result<Report, Failure> {
    let mut report = Report {
        dry_run: true,
        ..Report::default()
    };
    let mut picker = Picker::new(args);
    let visit = |letter: DeadLetter| {
        let meant = picker.wants(&letter);
        if !meant {
            report.unwanted += 1;
        } else if picker.would_be_refused(&letter) {
            report.refused += 1;
        } else {
            report.matching += 1;
            *report.by_reason.entry(letter.reason).or_default() += 1;
        }
        ControlFlow::Continue(())
    };
    let seen = list(urls, "tool", HELD_MAX, visit)
        .await
        .map_err(|error| unreadable(&error))?;
    (report.ready, report.looked_at) = (seen.ready, seen.seen);
    Ok(report)
}

async fn replay_really(
    args: &ReplayArgs,
    urls: &BrokerUrls,
    stop: &CancellationToken,
    _consent: Consent,
) -> Result<Report, Failure> {
    let mut audit = Audit::open(args)?;
    let mut config = PublisherConfig::new(urls.clone(), "tool");
    config.channel_count = 1;
    let closing = CancellationToken::new();
    let publisher = Publisher::start(config, closing.clone());
    publisher_ready(&publisher, stop).await?;
    let options = ReplayOptions {
        force: args.force,
        per_second_max: args.rate,
        ..ReplayOptions::default()
    };
    let mut picker = Picker::new(args);
    let (mut latest, mut by_reason) = (ReplaySummary::default(), BTreeMap::new());
    let bar = bar(0, "letters");
    let progress = |summary: &ReplaySummary, settled: Option<&Settled>| {
        latest = summary.clone();
        bar.set_length(summary.ready as u64);
        bar.set_position(summary.seen as u64);
        if let Some(settled) = settled {
            if settled.fate == Fate::Replayed {
                *by_reason.entry(settled.reason.clone()).or_default() += 1;
            }
            audit.write(&bar, settled);
        }
    };
    let wanted = |letter: &DeadLetter| picker.wants(letter);
    let run = replay(urls, "tool", &publisher, &options, now_ms, wanted, progress);
    // Dropping a replay half-way is safe, so a stop needs no more than that.
    let ended = stop.run_until_cancelled(run).await;
    bar.finish_and_clear();
    publisher.close(DRAIN_MAX).await;
    let mut report = Report::new(match &ended {
        Some(Ok(summary)) => summary,
        _ => &latest,
    });
    report.by_reason = by_reason;
    match ended {
        Some(Err(error)) => report.stopped_by = Some(chain(&error)),
        None => report.stopped_by = Some("a signal".to_owned()),
        Some(Ok(_)) => {}
    }
    Ok(report)
}

/// Waits for the connection, so that an unreachable broker is told as that.
async fn publisher_ready(publisher: &Publisher, stop: &CancellationToken) -> Result<(), Failure> {
    let mut state = publisher.state();
    let ready = tokio::time::timeout(READY_MAX, state.wait_for(QueueState::is_ready));
    let ended = stop.run_until_cancelled(ready).await;
    if matches!(&ended, Some(Ok(Ok(_)))) {
        return Ok(());
    }
    drop(ended);
    let why = match &*publisher.state().borrow() {
        QueueState::Blocked { reason } => format!("RabbitMQ takes nothing now: {reason}"),
        QueueState::Connecting {
            last_error: Some(error),
        } => error.clone(),
        _ => "no connection to RabbitMQ".to_owned(),
    };
    Err(Failure::unavailable(format_args!("cannot replay: {why}")).advise("porchlight status"))
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

    fn wants(&mut self, letter: &DeadLetter) -> bool {
        let wanted = self.picked < self.max && self.filter.wants(letter, &Facts::of(letter), self.now_ms);
        if wanted && !self.would_be_refused(letter) {
            self.picked += 1;
        }
        wanted
    }

    fn would_be_refused(&self, letter: &DeadLetter) -> bool {
        !self.force && letter.envelope.replay >= REPLAY_COUNT_MAX
    }
}

impl Report {
    fn new(summary: &ReplaySummary) -> Self {
        Self {
            dry_run: false,
            ready: summary.ready,
            looked_at: summary.seen,
            replayed: summary.replayed,
            matching: summary.seen - summary.unwanted - summary.refused,
            refused: summary.refused,
            unwanted: summary.unwanted,
            by_reason: BTreeMap::new(),
            stopped_by: summary.stopped_by.map(|reason| reason.to_string()),
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
            matching,
            refused,
            ..
        } = self;
        if self.dry_run {
            output.line(format_args!(
                "{matching} of {ready} dead letters would be replayed"
            ));
        } else {
            output.line(format_args!("{replayed} of {ready} dead letters were replayed"));
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

impl Audit {
    fn open(args: &ReplayArgs) -> Result<Self, Failure> {
        let Some(path) = &args.audit_file else {
            return Ok(Self::Stderr);
        };
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.map(Self::File)
            .map_err(|error| Failure::usage(format_args!("--audit-file {}", path.display())).because(&error))
    }

    fn write(&mut self, bar: &ProgressBar, settled: &Settled) {
        let (fate, error) = match settled.fate {
            Fate::Replayed => ("replayed", None),
            Fate::Refused => ("refused", None),
            Fate::Kept(error) => ("kept", Some(chain(&error))),
        };
        let line = AuditLine {
            at: now_ms(),
            message_id: &settled.message_id,
            reason: &settled.reason,
            replays: settled.replayed_before + u32::from(fate == "replayed"),
            fate,
            error,
        };
        let line = serde_json::to_string(&line).unwrap_or_default();
        // A replay that is confirmed cannot be taken back because its line cannot be written.
        let _ = match self {
            Self::File(file) => writeln!(file, "{line}"),
            Self::Stderr => bar.suspend(|| writeln!(std::io::stderr(), "{line}")),
        };
    }
}
