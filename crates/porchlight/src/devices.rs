//! `porchlight devices`: which devices there are, where they stand, and why.
//!
//! It changes nothing.

use clap::Subcommand;
use porchlight_device::Status;
use porchlight_device::view::{DevicePage, DeviceSummary, DeviceView};

use crate::failure::{EXIT_CODES, Failure};
use crate::ledger::Which;
use crate::operations;
use crate::output::{Output, Table, date, short};
use crate::place::LedgerArgs;

/// Devices that one question asks for: what the ledger gives at once.
const PAGE_DEVICES: usize = 500;

/// Shows devices: online or offline, since when, and why.
#[derive(clap::Args)]
pub(crate) struct DevicesArgs {
    #[command(subcommand)]
    command: DevicesCommand,
}

#[derive(Subcommand)]
enum DevicesCommand {
    #[command(after_help = EXIT_CODES)]
    List(ListArgs),
    #[command(after_help = EXIT_CODES)]
    Show(ShowArgs),
}

/// Lists devices, in an order that stays the same and means nothing.
///
/// With --json the answer is one page; with --all it is one JSON line for each device.
#[derive(clap::Args)]
struct ListArgs {
    /// Only those of this account
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// Only those that are online, offline, removed or unknown
    #[arg(long, value_name = "STATUS", value_parser = status)]
    status: Option<Status>,
    /// Most devices
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Where the page before ended
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// All of them, page by page
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    #[command(flatten)]
    ledger: LedgerArgs,
}

/// Shows one device: status, last event, operations, and what became of its latest events and why.
#[derive(clap::Args)]
struct ShowArgs {
    /// The device's id
    #[arg(value_name = "DEVICE")]
    device: String,
    #[command(flatten)]
    ledger: LedgerArgs,
}

/// Runs one of the commands.
pub(crate) async fn run(args: DevicesArgs, output: Output) -> Result<(), Failure> {
    match args.command {
        DevicesCommand::List(args) => list(args, output).await,
        DevicesCommand::Show(args) => {
            let device = args.ledger.open()?.device(&args.device).await?;
            show(&device, output);
            Ok(())
        }
    }
}

async fn list(args: ListArgs, output: Output) -> Result<(), Failure> {
    let ledger = args.ledger.open()?;
    let which = Which {
        account: args.account,
        status: args.status,
    };
    let limit = if args.all {
        usize::MAX
    } else {
        usize::try_from(args.limit).unwrap_or(usize::MAX)
    };
    let mut page = DevicePage {
        devices: Vec::new(),
        next_cursor: args.cursor,
    };
    let (mut shown, mut headed) = (0, false);
    // A page may be short, or empty, and still not be the last.
    loop {
        let wanted = PAGE_DEVICES.min(limit - shown);
        let next = ledger
            .devices(&which, page.next_cursor.as_deref(), wanted)
            .await?;
        if !headed && !output.is_json() {
            output.line(row("STATUS", "SINCE", "DEVICE"));
        }
        headed = true;
        shown += next.devices.len();
        page.next_cursor = next.next_cursor;
        match (output.is_json(), args.all) {
            (true, false) => page.devices.extend(next.devices),
            (true, true) => next.devices.iter().for_each(|device| output.json_line(device)),
            (false, _) => next
                .devices
                .iter()
                .for_each(|device| output.line(summary(device))),
        }
        if page.next_cursor.is_none() || shown >= limit {
            break;
        }
    }
    if output.is_json() {
        if !args.all {
            output.document(&page);
        }
        return Ok(());
    }
    output.line(format_args!("{shown} devices"));
    if let Some(cursor) = &page.next_cursor {
        output.line(format_args!("more with --cursor {}", short(cursor)));
    }
    Ok(())
}

fn status(text: &str) -> Result<Status, String> {
    Status::from_code(text).ok_or_else(|| "must be online, offline, removed or unknown".to_owned())
}

fn summary(device: &DeviceSummary) -> String {
    row(
        &short(&device.status),
        &seconds(device.status_since),
        &short(&device.device_id),
    )
}

fn row(status: &str, since: &str, device: &str) -> String {
    format!("{status:<8} {since:<20} {device}")
}

/// To the second; lists have no room for more.
fn seconds(ms: Option<i64>) -> String {
    date(ms.map(|ms| ms.saturating_sub(ms.rem_euclid(1_000)))).replace(".000Z", "Z")
}

fn show(device: &DeviceView, output: Output) {
    if output.is_json() {
        return output.document(device);
    }
    let line = |name: &str, value: &str| output.line(format_args!("{name:<10} {}", short(value)));
    line("device", &device.device_id);
    line("account", device.account_id.as_deref().unwrap_or("-"));
    line("status", &device.status);
    line("since", &date(device.status_since));
    if let Some(last) = &device.last_event {
        line(
            "last event",
            &format!(
                "{} at {}: {}",
                last.kind,
                date(Some(last.timestamp)),
                last.outcome
            ),
        );
    }
    output.line("");
    operations::table(&device.operations, output);
    if device.history.is_empty() {
        return;
    }
    output.line("");
    let mut table = Table::new(["HAPPENED", "TYPE", "OUTCOME", "WHY"]);
    for entry in &device.history {
        let when = match entry.time_source.as_str() {
            "timestamp" => date(Some(entry.timestamp)),
            other => format!("{} ({})", date(Some(entry.timestamp)), other.replace('_', ".")),
        };
        table.row(&[
            when,
            entry.kind.clone(),
            entry.outcome.clone(),
            entry.reason.clone(),
        ]);
    }
    table.print(output);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_fits_beside_a_long_id() {
        let device = DeviceSummary {
            device_id: "ava1.ring.device.X\u{1b}".to_owned(),
            account_id: None,
            status: "offline".to_owned(),
            status_since: Some(1_771_025_567_999),
        };
        assert_eq!(
            summary(&device),
            "offline  2026-02-13T23:32:47Z ava1.ring.device.X\\u{1b}"
        );
    }

    #[test]
    fn only_the_four_statuses_are_taken() {
        assert_eq!(status("offline"), Ok(Status::Offline));
        assert!(status("off").is_err());
    }
}
