//! `porchlight-worker`: reads its settings, starts a worker, and says how it ended.
//!
//! Everything it does lives in the library.

use std::process::ExitCode;

use clap::CommandFactory as _;
use porchlight_broker::TopologyConfig;
use porchlight_service::{exit, http, settings, stop, telemetry};
use porchlight_store::StoreConfig;
use porchlight_worker::{Args, Settings, WorkerConfig};

fn main() -> ExitCode {
    let args = match settings::parse_args::<Args>() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let settings = match Settings::check(&args) {
        Ok(settings) => settings,
        Err(problems) => return problems.report(&Args::command()),
    };
    std::panic::set_hook(Box::new(log_panic));
    match start(settings) {
        Ok(()) => {
            tracing::info!("stopped cleanly");
            ExitCode::from(exit::OK)
        }
        Err(error) => {
            let causes = std::iter::successors(error.source(), |cause| cause.source());
            let causes = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
            tracing::error!(%error, causes, "ended");
            ExitCode::from(exit::FAILED)
        }
    }
}

fn start(settings: Settings) -> Result<(), Box<dyn std::error::Error>> {
    telemetry::init(settings.log)?;
    settings::warn_of_unknown_variables(&Args::command());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = stop::on_signals()?;
        let listener = http::listen(settings.admin_listen)
            .map_err(|error| format!("PORCHLIGHT_ADMIN_LISTEN {}: {error}", settings.admin_listen))?;
        let keys = settings.keys.watch(stop::Hangups::listen()?, stop.clone());
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            admin = %listener.local_addr()?,
            broker = %settings.amqp,
            control_api = settings.admin_token.is_some(),
            callbacks = settings.callback.is_some(),
            verifies = keys.borrow().is_some(),
            "worker starts"
        );
        let config = WorkerConfig {
            amqp: settings.amqp,
            topology: TopologyConfig::default(),
            redis: StoreConfig::new(settings.redis.expose()),
            admin_token: settings.admin_token,
            keys,
            prefetch_ramp: settings.prefetch_ramp,
            management: settings.management,
            trace: settings.trace,
            work: settings.work,
            callback: settings.callback,
        };
        Ok(porchlight_worker::run(config, listener, stop).await?)
    })
}

/// Where it happened, without what it said: a panic's words may quote a body.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(place, "panic");
}
