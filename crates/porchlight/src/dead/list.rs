//! `porchlight dead list` and `dead show`: look at dead letters; every one stays where it is.
//!
//! Bodies are shown only by `show --body`.

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::facts::Row;
use super::filter::FilterArgs;
use super::letters::{Letters, Sight};
use super::tally::Tally;
use crate::clock::now_ms;
use crate::failure::Failure;
use crate::output::{Output, Table, bar, date};
use crate::place::QueueArgs;

/// Digits of a message id in a list; `show` takes a beginning.
const ID_DIGITS: usize = 12;
/// Lines of totals that a person reads; `--json` has all.
const TOTALS_SHOWN: usize = 20;
/// Most letters of a page: what this process remembers of them.
const LIMIT_MAX: i64 = 100_000;

/// Lists dead letters, oldest first, page by page, and counts all of them by reason and by type.
///
/// Looking takes nothing away. In RabbitMQ each letter is taken, looked at and given back, so more than a hundred of
/// them go once round their queue: a look at a million takes minutes, and space on the broker's disk for as many
/// letters again until it has tidied up. A look that is stopped half-way leaves those that it has seen behind the others.
#[derive(clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Letters on a page; all are counted
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(0..=LIMIT_MAX))]
    limit: i64,
    /// Which page of those that match, from 1
    #[arg(long, value_name = "N", conflicts_with = "after", value_parser = clap::value_parser!(u32).range(1..))]
    page: Option<u32>,
    /// Begin behind the letter with this message id, or one that begins so: the last one of another page
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    #[command(flatten)]
    place: QueueArgs,
}

/// Shows a dead letter with its headers.
#[derive(clap::Args)]
pub(crate) struct ShowArgs {
    /// The message id, or its beginning
    #[arg(value_name = "ID")]
    id: String,
    /// Show the body, too: what Ring sent about somebody's home
    #[arg(long)]
    body: bool,
    /// Most letters that are shown, where several begin so
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: usize,
    #[command(flatten)]
    place: QueueArgs,
}

#[derive(Serialize, Default)]
struct Listing {
    ready: usize,
    looked_at: usize,
    matching: usize,
    by_reason: Tally,
    by_type: Tally,
    letters: Vec<Row>,
    /// Letters that match and stand before the first one listed.
    before: usize,
    /// What `--after` takes for the next page; nothing on the last one.
    next_after: Option<String>,
    /// Why it ended before the last letter.
    stopped_by: Option<String>,
}

/// Which of the letters that match are listed.
struct Window<'a> {
    /// The id that is still waited for.
    after: Option<&'a str>,
    skip: usize,
    limit: usize,
}

/// Lists.
pub(crate) async fn run_list(
    args: ListArgs,
    output: Output,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let limit = usize::try_from(args.limit).unwrap_or(0);
    let mut window = Window {
        after: args.after.as_deref(),
        skip: limit.saturating_mul(args.page.map_or(0, |page| page as usize - 1)),
        limit,
    };
    let letters = Letters::at(args.place.place()?);
    let listing = Listing::of(&letters, &args.filter, &mut window, stop).await?;
    listing.print(output);
    if let Some(id) = window.after
        && listing.stopped_by.is_none()
    {
        return Err(
            Failure::failed(format_args!("no dead letter that matches begins with {id}"))
                .advise("begin at the first page"),
        );
    }
    if listing.stopped_by.is_some() {
        return Err(Failure::told());
    }
    Ok(())
}

/// Shows. Fails when there is no such letter.
pub(crate) async fn run_show(args: ShowArgs, output: Output) -> Result<(), Failure> {
    let letters = Letters::at(args.place.place()?);
    let found = letters.show(&args.id, args.limit, args.body).await?;
    if output.is_json() {
        output.document(&found);
    } else {
        for (number, shown) in found.iter().enumerate() {
            if number > 0 {
                output.line("");
            }
            shown.print(output);
        }
    }
    if found.is_empty() {
        return Err(
            Failure::failed(format_args!("no dead letter begins with {}", args.id))
                .advise("porchlight dead list"),
        );
    }
    Ok(())
}

impl Window<'_> {
    fn takes(&mut self, row: &Row, listed: usize) -> bool {
        if let Some(id) = self.after {
            if row.message_id.starts_with(id) {
                self.after = None;
            }
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        listed < self.limit
    }
}

impl Listing {
    async fn of(
        letters: &Letters,
        filter: &FilterArgs,
        window: &mut Window<'_>,
        stop: &CancellationToken,
    ) -> Result<Self, Failure> {
        let (mut listing, now_ms) = (Self::default(), now_ms());
        let sight = Sight {
            text: filter.text().map(str::to_owned),
            full: false,
        };
        let mut look = letters.look(sight).await?;
        listing.ready = look.ready();
        let bar = bar(listing.ready as u64, "letters");
        while !stop.is_cancelled() {
            let page = look.page().await?;
            if page.is_empty() {
                break;
            }
            listing.looked_at += page.len();
            bar.set_position(listing.looked_at as u64);
            for peeked in page {
                if filter.wants(&peeked.row, now_ms) {
                    listing.add(peeked.row, window);
                }
            }
        }
        let full = look.held_max();
        look.close().await;
        bar.finish_and_clear();
        let signal = stop.is_cancelled() && listing.looked_at < listing.ready;
        listing.stopped_by = match full {
            Some(most) => Some(held_max(most)),
            None => signal.then(|| "a signal".to_owned()),
        };
        Ok(listing)
    }

    fn add(&mut self, row: Row, window: &mut Window<'_>) {
        self.matching += 1;
        self.by_reason.add(&row.reason);
        self.by_type.add(row.kind.as_deref().unwrap_or("-"));
        if window.takes(&row, self.letters.len()) {
            self.letters.push(row);
        } else if self.letters.is_empty() {
            self.before += 1;
        } else if self.next_after.is_none() {
            self.next_after = self.letters.last().map(|last| last.message_id.clone());
        }
    }

    fn print(&self, output: Output) {
        if output.is_json() {
            return output.document(self);
        }
        if !self.letters.is_empty() {
            let mut table = Table::new(["DIED AT", "REASON", "TYPE", "REPLAYS", "ID"]);
            for row in &self.letters {
                let time = date(row.dead_at);
                table.row(&[
                    time.get(..19).unwrap_or(&time).replace('T', " "),
                    row.reason.clone(),
                    row.kind.clone().unwrap_or_else(|| "-".to_owned()),
                    row.replays.to_string(),
                    row.message_id.chars().take(ID_DIGITS).collect(),
                ]);
            }
            table.print(output);
            output.line("");
        }
        output.line(format_args!(
            "{} of {} dead letters match",
            self.matching, self.ready
        ));
        if self.matching > 0 {
            output.line("by reason:");
            self.by_reason.print(output, TOTALS_SHOWN);
            output.line("by type:");
            self.by_type.print(output, TOTALS_SHOWN);
        }
        let behind = self.matching - self.before - self.letters.len();
        if let (Some(id), true) = (&self.next_after, behind > 0) {
            let id: String = id.chars().take(ID_DIGITS).collect();
            output.line(format_args!("{behind} more follow; see --page, or --after {id}"));
        }
        if let Some(why) = &self.stopped_by {
            output.line(format_args!(
                "only the first {} were looked at: {why}",
                self.looked_at
            ));
        }
    }
}

/// Why no more than so many could be looked at.
pub(super) fn held_max(most: usize) -> String {
    porchlight_event::replay::StopReason::HeldMax(most).to_string()
}
