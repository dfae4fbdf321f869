//! `porchlight standalone`: everything in one process, with one directory and no servers.
//!
//! How the process begins and ends; what it is made of stands in [`process`].

mod api;
mod args;
mod changes;
mod metrics;
mod process;
mod settings;

use std::process::ExitCode;

use porchlight_service::stop::{self, Hangups};
use porchlight_service::{exit, settings as service_settings, telemetry};

use crate::failure::chain;
pub(crate) use args::{StandaloneArgs, command};
pub(crate) use process::Standalone;
pub(crate) use settings::Settings;

/// Most threads of the runtime: the disk is what bounds the work, and each thread keeps memory of its own.
const THREADS_MAX: usize = 4;

/// Runs until a signal; the code to exit with.
pub(crate) fn main(args: &StandaloneArgs, log: Option<&str>) -> ExitCode {
    let (settings, log) = match Settings::check(args, log) {
        Ok(checked) => checked,
        Err(problems) => return problems.report(&command()),
    };
    std::panic::set_hook(Box::new(log_panic));
    let ended = start(settings, log);
    match ended {
        Ok(()) => ExitCode::from(exit::OK),
        Err(error) => {
            tracing::error!(error = chain(error.as_ref()), "ended");
            ExitCode::from(exit::FAILED)
        }
    }
}

fn start(settings: Settings, log: telemetry::LogSettings) -> Result<(), Box<dyn std::error::Error>> {
    telemetry::init(log)?;
    service_settings::warn_of_unknown_variables(&command());
    runtime()?.block_on(async {
        let (stop, hangups) = (stop::on_signals()?, Hangups::listen()?);
        let told = settings.told();
        let standalone = Standalone::open(settings, hangups).await?;
        if !standalone.ended_cleanly() {
            tracing::warn!("the process before was killed; nothing that it answered is lost");
        }
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            listen = %standalone.address()?,
            path = told.path,
            tls = told.tls,
            admin = %standalone.admin_address()?,
            control_api = told.control_api,
            data = %standalone.data_dir().display(),
            commands = told.commands,
            "ready"
        );
        let took = standalone.run(stop).await?;
        tracing::info!(
            drain_ms = took.as_millis(),
            "stopped; every request was answered, and what is left is stored"
        );
        Ok(())
    })
}

/// A runtime for a process that lives long and stays small.
///
/// # Errors
/// What the system says.
pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let threads = std::thread::available_parallelism().map_or(THREADS_MAX, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.clamp(2, THREADS_MAX))
        .enable_all()
        .build()
}

/// Where it happened, without what it said: a panic's words may quote a body.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(place, "panic");
}
