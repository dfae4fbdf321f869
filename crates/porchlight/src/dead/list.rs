//! `porchlight dead list` and `dead show`: look at dead letters; every one stays where it is.
//!
//! Bodies are shown only by `show --body`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::Serialize;

use super::facts::Row;
use super::filter::FilterArgs;
use super::letters::Letters;
use crate::clock::now_ms;
use crate::failure::Failure;
use crate::output::{Output, Table, date, short};
use crate::place::QueueArgs;

/// Digits of a message id in a list; `show` takes a beginning.
const ID_DIGITS: usize = 12;

/// Lists dead letters, oldest first, and counts them by reason.
///
/// Looking changes nothing, but on RabbitMQ 3 the letters that were looked at stand behind the others afterwards,
/// and on any RabbitMQ at most 10000 are looked at.
#[derive(clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Most letters that are listed; all are counted
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
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
    by_reason: BTreeMap<String, usize>,
    letters: Vec<Row>,
}

/// Lists.
pub(crate) async fn run_list(args: ListArgs, output: Output) -> Result<(), Failure> {
    let letters = Letters::at(args.place.place()?);
    let now_ms = now_ms();
    let mut listing = Listing::default();
    let visit = |row: Row| {
        if args.filter.wants(&row, now_ms) {
            listing.matching += 1;
            *listing.by_reason.entry(row.reason.clone()).or_default() += 1;
            if listing.letters.len() < args.limit {
                listing.letters.push(row);
            }
        }
        ControlFlow::Continue(())
    };
    let seen = letters.look(visit).await?;
    (listing.ready, listing.looked_at) = (seen.ready, seen.seen);
    listing.print(output);
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

impl Listing {
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
        for (reason, count) in &self.by_reason {
            output.line(format_args!("  {count:>8}  {}", short(reason)));
        }
        if self.looked_at < self.ready {
            output.line(format_args!("only the first {} were looked at", self.looked_at));
        }
        if self.letters.len() < self.matching {
            output.line(format_args!(
                "{} are not listed; see --limit",
                self.matching - self.letters.len()
            ));
        }
    }
}
