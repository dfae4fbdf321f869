//! `porchlight dead`: what could not be applied, and sending it round again.
//!
//! Where they lie and how they are moved safely stands in [`letters`]; the rest is what is asked for and what is shown.

mod audit;
mod direct;
mod doing;
mod drop;
mod export;
mod facts;
mod filter;
mod forecast;
mod import;
mod letter_file;
mod letters;
mod list;
mod predict;
mod remote;
mod replay;
mod shown;
mod taking_in;
mod tally;
mod wire;

use clap::Subcommand;
use tokio_util::sync::CancellationToken;

use crate::failure::{EXIT_CODES, Failure};
use crate::output::Output;
pub(crate) use direct::owe_again;
pub(crate) use predict::{BATCH_LETTERS, Form, PredictAnswer, PredictRequest, Predicted, Predictor};
pub(crate) use shown::Shown;
pub(crate) use wire::{
    Fate, ImportAnswer, ImportRequest, KeyedRow, LettersPage, ReplayAnswer, ReplayRequest, Replayed,
};

/// Looks at dead letters, sends them round again, drops them, and moves them by a file.
///
/// A dead letter is an event that can never be applied as it is (poison), or that failed too often, or a command that
/// no receiver took in time. It stays in porchlight.dead, byte for byte, until somebody replays or drops it.
///
/// All commands work on RabbitMQ, on a standalone's directory and on its control API, on as many letters as there are:
/// the tool holds a page of them at a time. On RabbitMQ one of them works at a time; another waits five seconds, and then
/// says so.
#[derive(clap::Args)]
pub(crate) struct DeadArgs {
    #[command(subcommand)]
    command: DeadCommand,
}

#[derive(Subcommand)]
enum DeadCommand {
    #[command(after_help = EXIT_CODES)]
    List(Box<list::ListArgs>),
    #[command(after_help = EXIT_CODES)]
    Show(list::ShowArgs),
    #[command(after_help = EXIT_CODES)]
    Replay(Box<replay::ReplayArgs>),
    #[command(after_help = EXIT_CODES)]
    Drop(Box<drop::DropArgs>),
    #[command(after_help = EXIT_CODES)]
    Export(Box<export::ExportArgs>),
    #[command(after_help = EXIT_CODES)]
    Import(Box<import::ImportArgs>),
}

/// Runs one of the commands.
pub(crate) async fn run(args: DeadArgs, output: Output, stop: CancellationToken) -> Result<(), Failure> {
    match args.command {
        DeadCommand::List(args) => list::run_list(*args, output, &stop).await,
        DeadCommand::Show(args) => crate::until(&stop, list::run_show(args, output)).await,
        DeadCommand::Replay(args) => replay::run(*args, output, &stop).await,
        DeadCommand::Drop(args) => drop::run(*args, output, &stop).await,
        DeadCommand::Export(args) => export::run(*args, output, &stop).await,
        DeadCommand::Import(args) => import::run(*args, output, &stop).await,
    }
}
