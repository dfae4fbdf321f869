//! `porchlight dead`: what could not be applied, and sending it round again.
//!
//! Where they lie and how they are moved safely stands in [`letters`]; the rest is what is asked for and what is shown.

mod audit;
mod direct;
mod facts;
mod filter;
mod letters;
mod list;
mod remote;
mod replay;
mod shown;
mod wire;

use clap::Subcommand;
use tokio_util::sync::CancellationToken;

use crate::failure::{EXIT_CODES, Failure};
use crate::output::Output;
pub(crate) use direct::owe_again;
pub(crate) use shown::Shown;
pub(crate) use wire::{Fate, KeyedRow, LettersPage, REPLAY_COUNT_MAX, ReplayAnswer, ReplayRequest, Replayed};

/// Looks at dead letters and sends them round again.
///
/// A dead letter is an event that can never be applied as it is (poison), or that failed too often, or a command that
/// no receiver took in time. It stays in porchlight.dead, byte for byte, until somebody replays it.
#[derive(clap::Args)]
pub(crate) struct DeadArgs {
    #[command(subcommand)]
    command: DeadCommand,
}

#[derive(Subcommand)]
enum DeadCommand {
    #[command(after_help = EXIT_CODES)]
    List(list::ListArgs),
    #[command(after_help = EXIT_CODES)]
    Show(list::ShowArgs),
    #[command(after_help = EXIT_CODES)]
    Replay(replay::ReplayArgs),
}

/// Runs one of the commands.
pub(crate) async fn run(args: DeadArgs, output: Output, stop: CancellationToken) -> Result<(), Failure> {
    match args.command {
        DeadCommand::List(args) => crate::until(&stop, list::run_list(args, output)).await,
        DeadCommand::Show(args) => crate::until(&stop, list::run_show(args, output)).await,
        DeadCommand::Replay(args) => replay::run(args, output, stop).await,
    }
}
