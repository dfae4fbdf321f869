//! The command line: which commands there are and what all of them share.
//!
//! Each command's own flags stand beside its code.

use clap::{Parser, Subcommand};

use crate::dead::DeadArgs;
use crate::demo::DemoArgs;
use crate::devices::DevicesArgs;
use crate::doctor::DoctorArgs;
use crate::failure::EXIT_CODES;
use crate::health::HealthArgs;
use crate::moving::{ExportArgs, ImportArgs};
use crate::operations::OperationsArgs;
use crate::outage::OutageArgs;
use crate::simulate::SimulateArgs;
use crate::standalone::StandaloneArgs;
use crate::status::StatusArgs;

/// Porchlight on one machine, and the tool for operators of both its forms: see a demo, run standalone, send signed
/// test traffic, look at queues, devices and operations, replay dead letters.
///
/// Flags can also be given as the variables shown with them; a flag overrules its variable. Nothing is replayed or
/// removed without --yes. Answers go to standard output, everything else to standard error.
#[derive(Parser)]
#[command(name = "porchlight", version, max_term_width = 100, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print JSON for a program instead of text for a person
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) json: bool,
    /// What to log on standard error: a level (off, error, warn, info, debug), or target=level, comma-separated
    /// [default: error; standalone: info]
    #[arg(
        long = "log",
        global = true,
        value_name = "FILTER",
        env = "PORCHLIGHT_LOG",
        hide_env_values = true,
        help_heading = "Everywhere"
    )]
    pub(crate) log: Option<String>,
}

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    Demo(DemoArgs),
    Standalone(Box<StandaloneArgs>),
    #[command(after_help = EXIT_CODES)]
    Status(StatusArgs),
    #[command(after_help = EXIT_CODES)]
    Outage(OutageArgs),
    #[command(after_help = EXIT_CODES)]
    Simulate(Box<SimulateArgs>),
    Devices(DevicesArgs),
    Operations(OperationsArgs),
    Dead(Box<DeadArgs>),
    #[command(after_help = EXIT_CODES)]
    Export(Box<ExportArgs>),
    #[command(after_help = EXIT_CODES)]
    Import(Box<ImportArgs>),
    Doctor(Box<DoctorArgs>),
    #[command(after_help = EXIT_CODES)]
    Health(HealthArgs),
}
