//! Wherever webhooks are received: an ingress before a broker, or a standalone. The same tests run against both.
//!
//! It asserts nothing about answers; it starts one, sends, and counts what was stored.

use std::net::SocketAddr;

use porchlight_event::SigningKey;
use porchlight_testbed::http::{RawConnection, Response, post_signed, request};
use porchlight_testbed::{Daemon, free_port, http, wait_for};

use crate::support::{PATIENCE, Pipeline, Plan, TOKEN, WEBHOOK, unless_slow};

const KEY: &str = "whsec-porch-5a80b2";
const EVENTS: &str = "porchlight.events";

/// Which form is to be tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// An ingress alone, so that what it stored stays on the queue to be counted.
    Scaled,
    /// Everything in one process.
    Standalone,
}

/// One place that receives webhooks.
pub(crate) struct Site {
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) key: SigningKey,
    inner: Inner,
}

enum Inner {
    Scaled(Box<Pipeline>),
    // The directory goes after the process that uses it.
    Standalone(
        Daemon,
        #[expect(dead_code, reason = "it is removed when it is dropped")] tempfile::TempDir,
    ),
}

impl Site {
    /// Starts one and waits until it is ready.
    pub(crate) async fn start(form: Form, settings: Vec<(&'static str, String)>) -> Self {
        match form {
            Form::Scaled => Self::scaled(settings).await,
            Form::Standalone => Self::standalone(settings).await,
        }
    }

    async fn scaled(settings: Vec<(&'static str, String)>) -> Self {
        let mut pipeline = Pipeline::prepare(Plan {
            settings,
            workers: 0,
            ..Plan::default()
        })
        .await;
        pipeline.ingresses[0].start();
        pipeline.ingresses[0].wait_until_ready().await;
        Self {
            listen: pipeline.ingresses[0].listen,
            admin: pipeline.ingresses[0].admin,
            key: pipeline.key.clone(),
            inner: Inner::Scaled(Box::new(pipeline)),
        }
    }

    async fn standalone(settings: Vec<(&'static str, String)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (listen, admin) = (address(), address());
        let daemon = Daemon::of("porchlight")
            .arg("standalone")
            .env("PORCHLIGHT_DATA_DIR", folder.path().join("data"))
            .env("PORCHLIGHT_LISTEN", listen.to_string())
            .env("PORCHLIGHT_ADMIN_LISTEN", admin.to_string())
            .env("PORCHLIGHT_ADMIN_TOKEN", TOKEN)
            .env("PORCHLIGHT_SIGNING_KEYS", format!("main={KEY}"))
            .envs(settings)
            .start()
            .unwrap();
        let look = async || match http::get(admin, "/readyz").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        };
        if let Err(error) = daemon.ready(PATIENCE, look).await {
            panic!("{error}\n{}", daemon.logs());
        }
        Self {
            listen,
            admin,
            key: SigningKey::new("main", KEY.as_bytes()),
            inner: Inner::Standalone(daemon, folder),
        }
    }

    /// The process that receives.
    pub(crate) fn daemon(&self) -> &Daemon {
        match &self.inner {
            Inner::Scaled(pipeline) => pipeline.ingresses[0].daemon(),
            Inner::Standalone(daemon, _) => daemon,
        }
    }

    /// One request with a connection of its own.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        request(self.listen, method, path, headers, body).await.unwrap()
    }

    /// Bytes as they are, and the first answer to them.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> (Response, RawConnection) {
        let mut connection = RawConnection::open(self.listen).await.unwrap();
        connection.send(bytes).await.unwrap();
        (connection.response().await.unwrap(), connection)
    }

    /// Posts a body, rightly signed.
    pub(crate) async fn post(&self, body: &[u8]) -> Response {
        post_signed(self.listen, WEBHOOK, &self.key, body).await.unwrap()
    }

    /// Posts a body and insists on 200.
    pub(crate) async fn accept(&self, body: &[u8]) {
        let answer = unless_slow(async || self.post(body).await).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Waits until exactly so many events were stored since the start.
    pub(crate) async fn wait_for_stored(&self, count: u64) {
        match &self.inner {
            Inner::Scaled(pipeline) => pipeline.broker.wait_for_depth(EVENTS, count).await,
            Inner::Standalone(..) => {
                wait_for(
                    &format!("{count} settled events"),
                    PATIENCE,
                    async || match self.settled().await {
                        settled if settled == count => Ok(()),
                        settled => Err(settled.to_string()),
                    },
                )
                .await
                .unwrap();
            }
        }
    }

    /// What was stored does not wait there: each event has become something.
    async fn settled(&self) -> u64 {
        let metrics = http::get(self.admin, "/metrics").await.unwrap().text();
        let series = metrics
            .lines()
            .filter(|line| line.starts_with("porchlight_worker_events_total{"));
        let values = series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        values.sum()
    }
}

/// Makes each function, which takes a form, a test of both forms.
macro_rules! on_both_forms {
    ($($name:ident),+ $(,)?) => {
        mod scaled {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($crate::site::Form::Scaled).await;
            })+
        }
        mod standalone {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($crate::site::Form::Standalone).await;
            })+
        }
    };
}
pub(crate) use on_both_forms;
