//! `porchlight dead list` and `dead show`: look at dead letters; every one stays where it is.
//!
//! Bodies are shown only by `show --body`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use porchlight_broker::DeadLetter;
use porchlight_broker::dead_letter::{HELD_MAX, list};
use serde::Serialize;

use super::facts::{Facts, Row};
use super::filter::FilterArgs;
use super::unreadable;
use crate::clock::now_ms;
use crate::failure::Failure;
use crate::output::{Output, Table, date, plain, short};
use crate::servers::AmqpArgs;

/// Digits of a message id in a list; `show` takes a beginning.
const ID_DIGITS: usize = 12;

/// Lists dead letters, oldest first, and counts them by reason.
///
/// Looking changes nothing, but on RabbitMQ 3 the letters that were looked at stand behind the others afterwards.
/// At most 10000 letters are looked at.
#[derive(clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Most letters that are listed; all are counted
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    amqp: AmqpArgs,
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
    amqp: AmqpArgs,
}

#[derive(Serialize, Default)]
struct Listing {
    ready: usize,
    looked_at: usize,
    matching: usize,
    by_reason: BTreeMap<String, usize>,
    letters: Vec<Row>,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    row: Row,
    routing_key: String,
    deaths: Vec<ShownDeath>,
    returned: u64,
    headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_hex: Option<String>,
}

#[derive(Serialize)]
struct ShownDeath {
    queue: String,
    reason: String,
    count: u64,
    at: Option<i64>,
}

/// Lists.
pub(crate) async fn run_list(args: ListArgs, output: Output) -> Result<(), Failure> {
    let now_ms = now_ms();
    let mut listing = Listing::default();
    let visit = |letter: DeadLetter| {
        let facts = Facts::of(&letter);
        if args.filter.wants(&letter, &facts, now_ms) {
            listing.matching += 1;
            *listing.by_reason.entry(letter.reason.clone()).or_default() += 1;
            if listing.letters.len() < args.limit {
                listing.letters.push(Row::new(&letter, facts));
            }
        }
        ControlFlow::Continue(())
    };
    let urls = args.amqp.urls()?;
    let seen = list(&urls, "tool", HELD_MAX, visit)
        .await
        .map_err(|error| unreadable(&error))?;
    (listing.ready, listing.looked_at) = (seen.ready, seen.seen);
    listing.print(output);
    Ok(())
}

/// Shows. Fails when there is no such letter.
pub(crate) async fn run_show(args: ShowArgs, output: Output) -> Result<(), Failure> {
    let filter = FilterArgs::for_id(args.id.clone());
    let (now_ms, mut found) = (now_ms(), Vec::new());
    let visit = |letter: DeadLetter| {
        let facts = Facts::of(&letter);
        if filter.wants(&letter, &facts, now_ms) {
            found.push(Shown::new(&letter, facts, args.body));
        }
        if found.len() < args.limit {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    };
    let urls = args.amqp.urls()?;
    list(&urls, "tool", HELD_MAX, visit)
        .await
        .map_err(|error| unreadable(&error))?;
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

impl Shown {
    fn new(letter: &DeadLetter, facts: Facts, with_body: bool) -> Self {
        let deaths = letter.deaths.iter().map(|death| ShownDeath {
            queue: death.queue.clone(),
            reason: death.reason.clone(),
            count: death.count,
            at: death.at_ms,
        });
        let text = std::str::from_utf8(&letter.envelope.body).ok();
        Self {
            row: Row::new(letter, facts),
            routing_key: letter.routing_key.clone(),
            deaths: deaths.collect(),
            returned: letter.delivery_count,
            headers: letter.headers.iter().cloned().collect(),
            body: text.filter(|_| with_body).map(str::to_owned),
            body_hex: (with_body && text.is_none()).then(|| hex(&letter.envelope.body)),
        }
    }

    fn print(&self, output: Output) {
        let row = &self.row;
        let line = |name: &str, value: Option<&str>| {
            output.line(format_args!(
                "{name:<12} {}",
                value.map_or_else(|| "-".to_owned(), short)
            ));
        };
        line("id", Some(&row.message_id));
        line("reason", Some(&row.reason));
        line("stage", row.stage.as_deref());
        line("detail", row.detail.as_deref());
        line("died at", Some(&date(row.dead_at)));
        line("origin", Some(row.origin));
        line("type", row.kind.as_deref());
        line("event id", row.event_id.as_deref());
        line("device", row.device_id.as_deref());
        line("account", row.account_id.as_deref());
        line("replays", Some(&row.replays.to_string()));
        line("body", Some(&format!("{} bytes", row.body_bytes)));
        for death in &self.deaths {
            let ShownDeath {
                queue,
                reason,
                count,
                at,
            } = death;
            line(
                "death",
                Some(&format!(
                    "{reason} in {queue}, {count} times, first {}",
                    date(*at)
                )),
            );
        }
        for (name, value) in &self.headers {
            output.line(format_args!("  {}: {}", short(name), plain(value)));
        }
        if let Some(body) = self.body.as_ref().or(self.body_hex.as_ref()) {
            output.line("");
            for text in body.lines() {
                output.line(plain(text));
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
