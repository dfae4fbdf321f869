//! `porchlight-ingress`: reads settings, listens, serves until a signal, and says how it ended.
//!
//! Everything it does in between is in the library.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use clap::CommandFactory as _;
use porchlight_ingress::settings::Args;
use porchlight_ingress::{Listeners, Settings, Spool};
use porchlight_service::stop::{self, Drained, Hangups};
use porchlight_service::{exit, http, settings, telemetry};

#[tokio::main]
async fn main() -> ExitCode {
    let args: Args = match settings::parse_args() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let (settings, log) = match Settings::check(&args) {
        Ok(checked) => checked,
        Err(problems) => return problems.report(&Args::command()),
    };
    drop(args);
    if let Err(error) = telemetry::init(log) {
        tracing::error!(%error, "cannot start");
        return ExitCode::from(exit::FAILED);
    }
    settings::warn_of_unknown_variables(&Args::command());
    match run(settings).await {
        Ok(Drained::Met { took }) => {
            tracing::info!(drain_ms = took.as_millis(), "stopped; every request was answered");
            ExitCode::from(exit::OK)
        }
        Ok(Drained::Missed { left }) => {
            tracing::error!(
                connections = left,
                "stopped; the grace ran out with connections open"
            );
            ExitCode::from(exit::FAILED)
        }
        Err(error) => {
            tracing::error!(error = chain(error.as_ref()), "cannot start");
            ExitCode::from(exit::FAILED)
        }
    }
}

type StartError = Box<dyn Error + Send + Sync>;

/// An error with everything that is behind it.
fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        words = format!("{words}: {error}");
        behind = error.source();
    }
    words
}

async fn run(mut settings: Settings) -> Result<Drained, StartError> {
    // First of all: a spool that cannot be used is found before anybody is served.
    let spool = settings.spool.as_ref().map(Spool::open).transpose()?;
    let stop = stop::on_signals()?;
    let hangups = Hangups::listen()?;
    let bind = |name, address| {
        http::listen(address)
            .map_err(|error| io::Error::new(error.kind(), format!("{name} {address}: {error}")))
    };
    let listeners = Listeners {
        public: bind("PORCHLIGHT_LISTEN", settings.edge.listen)?,
        admin: bind("PORCHLIGHT_ADMIN_LISTEN", settings.admin_listen)?,
    };
    settings.edge.fit_to_open_files();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = %listeners.public.local_addr()?,
        admin = %listeners.admin.local_addr()?,
        path = settings.edge.webhook_path(),
        tls = settings.edge.tls.is_some(),
        broker = %settings.broker.publisher.urls,
        spool = ?settings.spool.as_ref().map(|spool| &spool.dir),
        "listening"
    );
    Ok(porchlight_ingress::run(listeners, settings, spool, hangups, stop).await)
}
