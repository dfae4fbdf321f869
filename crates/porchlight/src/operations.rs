//! `porchlight operations`: registers, lists and removes the work that follows a device's status.
//!
//! What registering and removing do is the ledger's.

use std::io::Read as _;

use clap::Subcommand;
use porchlight_device::Registration;
use porchlight_device::operation::PARAMS_BYTES_MAX;
use porchlight_device::view::OperationView;
use serde::Serialize;

use crate::confirm::{Consent, YesArgs};
use crate::failure::{EXIT_CODES, Failure};
use crate::ledger::Ledger;
use crate::output::{Output, Table};
use crate::place::LedgerArgs;

/// Registers, lists and removes operations: work that is paused while its device is offline.
#[derive(clap::Args)]
pub(crate) struct OperationsArgs {
    #[command(subcommand)]
    command: OperationsCommand,
}

#[derive(Subcommand)]
enum OperationsCommand {
    #[command(after_help = EXIT_CODES)]
    Add(AddArgs),
    #[command(after_help = EXIT_CODES)]
    List(ListArgs),
    #[command(after_help = EXIT_CODES)]
    Remove(RemoveArgs),
}

/// Registers an operation on a device, or changes its kind and params.
///
/// It is paused at once when the device is offline. A device that was never heard of can have operations, too.
#[derive(clap::Args)]
struct AddArgs {
    /// The device's id
    #[arg(value_name = "DEVICE")]
    device: String,
    /// The operation's id, unique on this device
    #[arg(value_name = "OPERATION")]
    operation: String,
    /// What it is: letters, digits, - and _; commands are sent under the key ACTION.KIND
    #[arg(long, value_name = "KIND")]
    kind: String,
    /// JSON that comes back in each command, at most 16 KiB; `-` reads it from standard input
    #[arg(long, value_name = "JSON", default_value = "null", hide_default_value = true)]
    params: String,
    /// The account; where the device's is known they must agree
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    #[command(flatten)]
    ledger: LedgerArgs,
}

/// Lists the operations of a device.
#[derive(clap::Args)]
struct ListArgs {
    /// The device's id
    #[arg(value_name = "DEVICE")]
    device: String,
    #[command(flatten)]
    ledger: LedgerArgs,
}

/// Forgets an operation. Commands that are still owed for it are dropped, so nobody will be told to resume it.
#[derive(clap::Args)]
struct RemoveArgs {
    /// The device's id
    #[arg(value_name = "DEVICE")]
    device: String,
    /// The operation's id
    #[arg(value_name = "OPERATION")]
    operation: String,
    #[command(flatten)]
    yes: YesArgs,
    #[command(flatten)]
    ledger: LedgerArgs,
}

#[derive(Serialize)]
struct Removed<'a> {
    device_id: &'a str,
    operation_id: &'a str,
    removed: bool,
}

/// Runs one of the commands.
pub(crate) async fn run(args: OperationsArgs, output: Output) -> Result<(), Failure> {
    match args.command {
        OperationsCommand::Add(args) => add(args, output).await,
        OperationsCommand::List(args) => {
            let device = args.ledger.open()?.device(&args.device).await?;
            if output.is_json() {
                output.document(&device.operations);
            } else {
                table(&device.operations, output);
            }
            Ok(())
        }
        OperationsCommand::Remove(args) => {
            let question = format!("remove operation {} of device {}?", args.operation, args.device);
            let consent = args.yes.given_or_asked(&question)?;
            remove(
                args.ledger.open()?,
                &args.device,
                &args.operation,
                output,
                consent,
            )
            .await
        }
    }
}

/// Prints operations for a person.
pub(crate) fn table(operations: &[OperationView], output: Output) {
    if operations.is_empty() {
        return output.line("no operations");
    }
    let mut table = Table::new(["OPERATION", "KIND", "STATE", "GENERATION"]);
    for operation in operations {
        let OperationView {
            id,
            kind,
            state,
            generation,
            ..
        } = operation;
        table.row(&[id.clone(), kind.clone(), state.clone(), generation.to_string()]);
    }
    table.print(output);
}

async fn add(args: AddArgs, output: Output) -> Result<(), Failure> {
    let params = if args.params == "-" {
        read_params()?
    } else {
        args.params
    };
    let registration = Registration {
        operation_id: args.operation,
        account_id: args.account,
        kind: args.kind,
        params,
    };
    registration
        .check()
        .map_err(|error| Failure::usage("not registered").because(&error))?;
    let operation = args.ledger.open()?.register(&args.device, &registration).await?;
    if output.is_json() {
        output.document(&operation);
    } else {
        table(&[operation], output);
    }
    Ok(())
}

fn read_params() -> Result<String, Failure> {
    let mut text = String::new();
    let bound = u64::try_from(PARAMS_BYTES_MAX).unwrap_or(u64::MAX) + 2;
    let read = std::io::stdin().lock().take(bound).read_to_string(&mut text);
    read.map_err(|error| Failure::usage("--params -").because(&error))?;
    Ok(text.trim().to_owned())
}

async fn remove(
    ledger: Ledger,
    device_id: &str,
    operation_id: &str,
    output: Output,
    _consent: Consent,
) -> Result<(), Failure> {
    let removed = ledger.forget(device_id, operation_id).await?;
    if output.is_json() {
        output.document(&Removed {
            device_id,
            operation_id,
            removed,
        });
    } else if removed {
        output.line("removed");
    }
    if removed {
        return Ok(());
    }
    Err(Failure::failed("the device has no such operation").advise("porchlight operations list DEVICE"))
}
