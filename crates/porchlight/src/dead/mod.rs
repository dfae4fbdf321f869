//! `porchlight dead`: what could not be applied, and sending it round again.
//!
//! How letters are read and replayed safely is the broker crate's; here is what is asked for and what is shown.

mod facts;
mod filter;
mod list;
mod replay;

use clap::Subcommand;
use porchlight_broker::DeadLetterError;
use tokio_util::sync::CancellationToken;

use crate::failure::{EXIT_CODES, Failure};
use crate::output::Output;

/// Looks at dead letters and sends them round again.
///
/// A dead letter is an event that can never be applied as it is (poison), or that failed too often. It stays in
/// porchlight.dead, byte for byte, until somebody replays or removes it.
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

fn unreadable(error: &DeadLetterError) -> Failure {
    let failure = Failure::unavailable("cannot read the dead letters").because(error);
    match error {
        DeadLetterError::Connect(_) => {
            failure.advise("is RabbitMQ running, and is it the one at --amqp-url?")
        }
        DeadLetterError::NoQueue => failure.advise("start an ingress or a worker once; it makes the queues"),
        DeadLetterError::Lost(_) => failure.advise("the same again; looking loses nothing"),
    }
}
