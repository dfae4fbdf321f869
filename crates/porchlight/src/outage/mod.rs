//! `porchlight outage`: whether Ring has given up on events, and the letter that asks for them.
//!
//! It sends nothing to anybody; a person does.

mod ask;
mod facts;
mod letter;
mod report;
mod times;

use porchlight_event::ring_schedule::Span;

use crate::clock::now_ms;
use crate::failure::Failure;
use crate::output::{Output, plain};
use facts::{ByHand, Facts};
use report::{Report, Verdict};

pub(crate) use ask::{look_at, sibling};

/// What is asked where nothing is named: the default of ingress and standalone.
const DEFAULT_URL: &str = "http://127.0.0.1:9090";

/// Says whether an outage has cost events, and drafts what to write to your contact at Ring.
///
/// Ring repeats an event six times within 72 min 36 s after it was answered 5xx, then keeps it for 72 hours and sends it
/// again only when it is asked to. This command asks ingresses, or a standalone, for the outages that they remember,
/// reckons which events Ring has given up on, and drafts the request. Nothing is sent.
///
/// An ingress without a directory of its own knows only what was since its start, and no process knows of a time in
/// which none ran: name such a time with --since and --until. In the metrics porchlight_ingress_outage keeps the past.
#[derive(clap::Args)]
pub(crate) struct OutageArgs {
    /// The admin listener of an ingress or a standalone [default: http://127.0.0.1:9090]; may be given several times, as a
    /// variable comma-separated
    #[arg(
        long = "ingress",
        value_name = "URL",
        env = "PORCHLIGHT_INGRESS_ADMIN_URLS",
        hide_env_values = true,
        value_delimiter = ','
    )]
    ingresses: Vec<String>,
    /// An outage by hand, from here on, in UTC: 2026-02-13T22:10, with seconds and another zone if need be. Nobody is
    /// asked then, unless --ingress is given, too
    #[arg(long, value_name = "TIME", value_parser = times::parse)]
    since: Option<i64>,
    /// Its end [default: it goes on]
    #[arg(long, value_name = "TIME", value_parser = times::parse, requires = "since")]
    until: Option<i64>,
    /// In the time named by hand events were answered 401, not 5xx: a wrong signing key. Ring repeats none of those
    #[arg(long, requires = "since")]
    refused: bool,
    /// The address that is registered with Ring, for the letter
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Exit with 1 when an outage is on, or Ring is to be asked for events
    #[arg(long)]
    check: bool,
}

/// Asks, reckons, prints.
pub(crate) async fn run(args: OutageArgs, output: Output) -> Result<(), Failure> {
    let now = now_ms();
    let by_hand = by_hand(&args, now)?;
    let mut given = args.ingresses.clone();
    given.retain(|url| !url.trim().is_empty());
    if given.is_empty() && by_hand.is_none() {
        given.push(DEFAULT_URL.to_owned());
    }
    let answers = ask::all(&given).await?;
    let silent: Vec<String> = answers.iter().filter_map(ask::Answered::silence).collect();
    if silent.len() == answers.len() && by_hand.is_none() {
        return Err(Failure::unavailable(silent.join("; ")).advise(
            "is this the admin listener of an ingress or a standalone? Or name the time: --since TIME",
        ));
    }
    let pages = answers.into_iter().filter_map(ask::Answered::page);
    let facts = Facts::gather(pages, by_hand, args.endpoint.as_deref(), now);
    let report = Report::new(&facts);
    if output.is_json() {
        output.document(&report);
    } else {
        for line in report.lines() {
            output.line(plain(&line));
        }
    }
    if !silent.is_empty() {
        return Err(Failure::unavailable(silent.join("; ")).advise("the answer above is without its outages"));
    }
    match report.verdict() {
        Verdict::Nothing => Ok(()),
        _ if !args.check => Ok(()),
        _ => Err(Failure::told()),
    }
}

fn by_hand(args: &OutageArgs, now_ms: i64) -> Result<Option<ByHand>, Failure> {
    let Some(from_ms) = args.since else {
        return Ok(None);
    };
    let until_ms = args.until.unwrap_or(i64::MAX);
    if from_ms >= until_ms.min(now_ms) {
        return Err(Failure::usage("--since is not before --until and now")
            .advise("times are UTC unless they name a zone"));
    }
    let span = Span { from_ms, until_ms };
    Ok(Some(match args.refused {
        true => ByHand::Refused(span),
        false => ByHand::Outage(span),
    }))
}
