//! The stage of the demo: standalone itself in this process, on free ports and in a directory of its own, and the
//! receiver of its commands.
//!
//! It tells no story. Nothing of the environment is used, so that nothing that runs elsewhere is touched.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as _, FromArgMatches as _};
use porchlight_event::{SigningKey, WebhookSecrets};
use porchlight_service::Secret;
use porchlight_service::stop::Hangups;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::control::Control;
use super::directory::{Directory, random_hex};
use super::receiver::Receiver;
use crate::failure::Failure;
use crate::standalone::{Settings, Standalone, StandaloneArgs};

/// For the process to become ready, from opening on.
const READY_MAX: Duration = Duration::from_secs(10);
/// Between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const WEBHOOK_PATH: &str = "/webhooks/ring";

/// Everything that runs for the demo. To be closed; dropped it leaves no directory either.
pub(super) struct Stage {
    pub(super) receiver: Receiver,
    pub(super) secrets: Secrets,
    running: Option<Running>,
    address: SocketAddr,
    admin_address: SocketAddr,
    // The last to be dropped.
    directory: Directory,
}

/// What only this demo knows.
pub(super) struct Secrets {
    signing: String,
    pub(super) admin_token: Secret,
    callback: String,
}

struct Running {
    stop: CancellationToken,
    ended: JoinHandle<Result<(), Failure>>,
}

impl Secrets {
    fn draw() -> std::io::Result<Self> {
        // The hex digits are the Base64 text of some other bytes, which are as random.
        Ok(Self {
            signing: random_hex(24)?,
            admin_token: Secret::new(random_hex(24)?),
            callback: format!("whsec_{}", random_hex(24)?),
        })
    }

    /// Ring's key.
    pub(super) fn signing_key(&self) -> SigningKey {
        SigningKey::new("demo", self.signing.as_bytes())
    }

    /// The setting that names it.
    pub(super) fn signing_keys(&self) -> String {
        format!("demo={}", self.signing)
    }
}

impl Stage {
    /// Starts everything and waits until it is ready.
    pub(super) async fn set() -> Result<Self, Failure> {
        let system = |error: std::io::Error| Failure::failed("the demo cannot begin").because(&error);
        let secrets = Secrets::draw().map_err(system)?;
        let verifying = WebhookSecrets::parse(&secrets.callback)
            .map_err(|error| Failure::failed("the demo's secret").because(&error))?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut stage = Self {
            receiver: Receiver::start(verifying).map_err(system)?,
            secrets,
            running: None,
            address: any,
            admin_address: any,
            directory: Directory::make().map_err(system)?,
        };
        stage.start().await?;
        Ok(stage)
    }

    /// Stops the process as SIGTERM would, and starts it again on the same directory and the same ports.
    pub(super) async fn restart(&mut self) -> Result<(), Failure> {
        self.stop().await?;
        self.start().await
    }

    /// Ends everything and removes the directory.
    pub(super) async fn close(mut self) -> Result<(), Failure> {
        self.stop().await
    }

    /// Where webhooks are sent.
    pub(super) fn webhook_url(&self) -> String {
        format!("http://{}{WEBHOOK_PATH}", self.address)
    }

    /// Where the admin listener is.
    pub(super) fn admin_url(&self) -> String {
        format!("http://{}", self.admin_address)
    }

    /// A way to the admin listener.
    pub(super) fn control(&self) -> Result<Control, Failure> {
        Control::new(self.admin_address, &self.secrets.admin_token)
    }

    /// The demo's directory.
    pub(super) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// The process's directory, within the demo's.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    async fn start(&mut self) -> Result<(), Failure> {
        let settings = self.settings()?;
        // Nobody sends SIGHUP here; the sender is gone, so none ever comes.
        let hangups = Hangups::counted(watch::channel(0).1);
        let cannot =
            |error: &dyn std::error::Error| Failure::failed("standalone does not start").because(error);
        let standalone = Standalone::open(settings, hangups)
            .await
            .map_err(|error| cannot(&error))?;
        self.address = standalone.address().map_err(|error| cannot(&error))?;
        self.admin_address = standalone.admin_address().map_err(|error| cannot(&error))?;
        let stop = CancellationToken::new();
        let token = stop.clone();
        let ended = tokio::spawn(async move {
            let ended = standalone.run(token).await;
            ended
                .map(|_| ())
                .map_err(|error| Failure::failed("standalone did not stop cleanly").because(&error))
        });
        self.running = Some(Running { stop, ended });
        let control = self.control()?;
        let ready = until(READY_MAX, async || control.is_ready().await.then_some(())).await;
        ready.ok_or_else(|| Failure::failed("standalone is not ready in time"))
    }

    async fn stop(&mut self) -> Result<(), Failure> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        running.stop.cancel();
        let ended = running.ended.await;
        ended.unwrap_or_else(|error| Err(Failure::failed("standalone panicked").because(&error)))
    }

    fn settings(&self) -> Result<Settings, Failure> {
        let Secrets {
            admin_token,
            callback,
            ..
        } = &self.secrets;
        let flags = [
            format!("--data-dir={}", self.data_dir().display()),
            format!("--listen={}", self.address),
            format!("--admin-listen={}", self.admin_address),
            format!("--webhook-path={WEBHOOK_PATH}"),
            format!("--signing-keys={}", self.secrets.signing_keys()),
            format!("--admin-token={}", admin_token.expose()),
            format!("--callback-url={}", self.receiver.url()),
            format!("--callback-secret={callback}"),
            // Nothing balances the load here, so nobody must take notice first.
            "--drain-delay=0s".to_owned(),
            "--sweep-interval=100ms".to_owned(),
        ];
        let command = StandaloneArgs::augment_args(clap::Command::new("demo"))
            .mut_args(|arg| arg.env(clap::builder::Resettable::Reset));
        let given = std::iter::once("demo".to_owned()).chain(flags);
        let refused = |error: &dyn std::error::Error| Failure::failed("the demo's settings").because(error);
        let matches = command
            .try_get_matches_from(given)
            .map_err(|error| refused(&error))?;
        let args = StandaloneArgs::from_arg_matches(&matches).map_err(|error| refused(&error))?;
        let checked = Settings::check(&args, None).map_err(|problems| refused(&problems))?;
        Ok(checked.0)
    }
}

/// Looks until there is something, for at most `patience`.
pub(super) async fn until<T>(patience: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(patience, looking).await.ok()
}
