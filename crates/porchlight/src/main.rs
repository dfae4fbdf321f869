//! The operator's tool: one command, one answer, one exit code.
//!
//! It composes; what a command does stands in the module of its name.

mod cli;
mod clock;
mod confirm;
mod control_api;
mod dead;
mod demo;
mod devices;
mod doctor;
mod failure;
mod health;
mod keys;
mod ledger;
mod moving;
mod operations;
mod outage;
mod output;
mod place;
mod servers;
mod simulate;
mod standalone;
mod status;

use std::future::Future;
use std::process::ExitCode;

use clap::CommandFactory as _;
use porchlight_service::settings::{Checker, parse_args};
use porchlight_service::{stop, telemetry};
use tokio_util::sync::CancellationToken;

use cli::{Cli, Command};
use failure::Failure;
use output::Output;

/// What is logged unless something else is asked for: an answer says by itself what went wrong.
const LOG: &str = "error";

fn main() -> ExitCode {
    let cli: Cli = match parse_args() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let cli = match cli.command {
        // A daemon, with a log, exit codes and an end of its own.
        Command::Standalone(args) => return standalone::main(&args, cli.log.as_deref()),
        command => Cli { command, ..cli },
    };
    let runtime = match standalone::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::failed("the runtime cannot be started")
                .because(&error)
                .report();
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    set_up_log(cli.log.as_deref())?;
    let output = Output::new(cli.json);
    let stop = stop::on_signals()
        .map_err(|error| Failure::failed("no signal can be listened for").because(&error))?;
    match cli.command {
        // These have something to finish after a signal.
        Command::Demo(args) => demo::run(args, output, stop).await,
        Command::Simulate(args) => simulate::run(*args, output, stop).await,
        Command::Status(args) => status::run(args, output, stop).await,
        Command::Dead(args) => dead::run(*args, output, stop).await,
        Command::Outage(args) => until(&stop, outage::run(args, output)).await,
        Command::Devices(args) => until(&stop, devices::run(args, output)).await,
        Command::Operations(args) => until(&stop, operations::run(args, output)).await,
        Command::Export(args) => until(&stop, moving::run_export(*args, output)).await,
        Command::Import(args) => until(&stop, moving::run_import(*args, output)).await,
        Command::Doctor(args) => until(&stop, doctor::run(*args, output)).await,
        Command::Health(args) => until(&stop, health::run(args, output)).await,
        Command::Standalone(_) => Err(Failure::usage("standalone runs alone")),
    }
}

/// Ends a command that has nothing to finish as soon as a signal comes.
async fn until<T>(
    stop: &CancellationToken,
    command: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    stop.run_until_cancelled(command)
        .await
        .unwrap_or_else(|| Err(Failure::failed("stopped by a signal")))
}

fn set_up_log(filter: Option<&str>) -> Result<(), Failure> {
    let filter = filter.filter(|text| !text.trim().is_empty()).unwrap_or(LOG);
    let mut checker = Checker::new(&Cli::command());
    let log = telemetry::LogSettings::read(&mut checker, filter, "text");
    checker.finish().map_err(|_| {
        Failure::usage("PORCHLIGHT_LOG (--log) is no filter")
            .advise("--log warn, or --log porchlight_broker=debug")
    })?;
    telemetry::init(log).map_err(|error| Failure::failed("no log").because(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
