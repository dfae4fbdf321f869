//! An ingress in this process, on ports of its own, with settings as a command line gives them.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser as _;
use porchlight_event::SigningKey;
use porchlight_ingress::settings::Args;
use porchlight_ingress::{Listeners, Settings, Spool};
use porchlight_service::http;
use porchlight_service::stop::{Drained, Hangups};
use porchlight_testbed::http::{RawConnection, Response, encode, get};
use porchlight_testbed::{free_port, wait_for};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const PATH: &str = "/webhooks/ring";
pub(crate) const BODY: &[u8] = br#"{"data":{"type":"device_online"}}"#;
/// Longest wait for something that should come at once.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// What a request may take where a test does not say it: longer than a busy machine keeps anything waiting.
const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Ingress {
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) ended: JoinHandle<Drained>,
    hangups: watch::Sender<u64>,
}

pub(crate) fn key() -> SigningKey {
    SigningKey::new("test", b"k1")
}

impl Ingress {
    /// Starts with the key `k1`, a broker that is not there unless one is named, and whatever `flags` say besides.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        Self::start_bare(&[&["--signing-keys", "test=k1"], flags].concat()).await
    }

    /// The same without a key.
    pub(crate) async fn start_bare(flags: &[&str]) -> Self {
        Self::start_changed(flags, |_| {}).await
    }

    /// The same, with settings that no flag allows.
    pub(crate) async fn start_changed(flags: &[&str], change: impl FnOnce(&mut Settings)) -> Self {
        let nowhere = format!("amqp://guest:guest@127.0.0.1:{}/%2f", free_port());
        let mut given = [&["test"], flags].concat();
        for (flag, value) in [("--amqp-url", nowhere.as_str()), ("--drain-delay", "0s")] {
            if !given.contains(&flag) {
                given.extend([flag, value]);
            }
        }
        let args = Args::try_parse_from(given).unwrap();
        let (mut settings, _) = Settings::check(&args).unwrap_or_else(|problems| panic!("{problems}"));
        let unless = |flag: &str| (!flags.contains(&flag)).then_some(LONG);
        settings.edge.lengthen(
            unless("--answer-timeout"),
            unless("--head-timeout"),
            unless("--body-timeout"),
        );
        change(&mut settings);
        let spool = settings.spool.as_ref().map(|spool| Spool::open(spool).unwrap());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = Listeners {
            public: http::listen(any).unwrap(),
            admin: http::listen(any).unwrap(),
        };
        let (public, admin) = (
            listeners.public.local_addr().unwrap(),
            listeners.admin.local_addr().unwrap(),
        );
        let (hangups, count) = watch::channel(0);
        let stop = CancellationToken::new();
        let run = porchlight_ingress::run(listeners, settings, spool, Hangups::counted(count), stop.clone());
        Self {
            public,
            admin,
            stop,
            ended: tokio::spawn(run),
            hangups,
        }
    }

    pub(crate) async fn connect(&self) -> RawConnection {
        RawConnection::open(self.public).await.unwrap()
    }

    /// Sends bytes on a connection of their own, and gives the answer.
    pub(crate) async fn send(&self, bytes: &[u8]) -> Response {
        let mut connection = self.connect().await;
        connection.send(bytes).await.unwrap();
        connection.response().await.unwrap()
    }

    pub(crate) fn hang_up(&self) {
        self.hangups.send_modify(|count| *count += 1);
    }

    /// Whether `/readyz` gives this reason.
    pub(crate) async fn not_ready_for(&self, code: &str) -> bool {
        get(self.admin, "/readyz")
            .await
            .is_ok_and(|answer| answer.text().contains(code))
    }

    /// Waits until the metrics have a line that begins so.
    pub(crate) async fn counts(&self, line: &str) {
        wait_for(line, SOON, async || {
            let shown = get(self.admin, "/metrics").await.unwrap().text();
            if shown.lines().any(|known| known.starts_with(line)) {
                Ok(())
            } else {
                Err(shown)
            }
        })
        .await
        .unwrap();
    }
}

/// A signed webhook with other headers besides.
pub(crate) fn signed_with(headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let signature = key().sign(body);
    encode(
        "POST",
        PATH,
        &[&[("X-Signature", signature.as_str())], headers].concat(),
        body,
    )
}

/// A signed webhook.
pub(crate) fn signed(body: &[u8]) -> Vec<u8> {
    signed_with(&[("Content-Type", "application/json")], body)
}

/// Status and error code of an answer.
pub(crate) fn told(answer: &Response) -> (u16, String) {
    let code = answer
        .json()
        .map(|json| json["error"]["code"].as_str().unwrap_or_default().to_owned());
    (answer.status, code.unwrap_or_default())
}

/// What [`told`] gives for a signed event, as long as no broker is there.
pub(crate) fn passed() -> (u16, String) {
    failed(503, "queue_unavailable")
}

pub(crate) fn failed(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}
