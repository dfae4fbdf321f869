//! The ledger as the tool sees it: directly in Redis, or through a worker's control API; the same answers either way.
//!
//! What the answers look like is the device crate's; nothing is decided here.

mod api;

use std::sync::Arc;
use std::time::Duration;

use porchlight_device::view::{DevicePage, DeviceView, OperationView};
use porchlight_device::{Registration, Status};
use porchlight_service::Secret;
use porchlight_store::{DeviceFilter, PageError, RegisterError, Store, StoreConfig, StoreError};

use crate::clock::now_ms;
use crate::failure::Failure;
use api::Api;
use porchlight_service::client::{Client, Target, connector};

const REDIS_URL: &str = "redis://127.0.0.1:6379";
/// One command makes a few calls, one after the other.
const CONNECTIONS: usize = 1;
/// For one round trip: a person waits, so longer than a daemon would.
const RESPONSE_MAX: Duration = Duration::from_secs(5);
/// For making a connection.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// For one call of the control API, which gives itself 8 s.
const API_CALL_MAX: Duration = Duration::from_secs(10);

/// Where Redis is.
#[derive(clap::Args)]
pub(crate) struct RedisArgs {
    /// Redis, as the workers have it
    #[arg(
        long,
        value_name = "URL",
        env = "PORCHLIGHT_REDIS_URL",
        hide_env_values = true,
        default_value = REDIS_URL,
        help_heading = "Servers"
    )]
    redis_url: String,
}

/// Where the ledger is: Redis, or a worker.
#[derive(clap::Args)]
pub(crate) struct LedgerArgs {
    #[command(flatten)]
    redis: RedisArgs,
    /// Ask a worker's control API instead of Redis, for example http://127.0.0.1:9091
    #[arg(
        long,
        value_name = "URL",
        env = "PORCHLIGHT_API_URL",
        hide_env_values = true,
        help_heading = "Servers"
    )]
    api: Option<String>,
    /// Bearer token of the control API
    #[arg(
        long,
        value_name = "TOKEN",
        env = "PORCHLIGHT_ADMIN_TOKEN",
        hide_env_values = true,
        help_heading = "Servers"
    )]
    admin_token: Option<String>,
}

/// A way to the ledger.
pub(crate) enum Ledger {
    Redis(Store),
    Api(Box<Api>),
}

/// Which devices.
#[derive(Debug, Clone, Default)]
pub(crate) struct Which {
    pub(crate) account: Option<String>,
    pub(crate) status: Option<Status>,
}

impl RedisArgs {
    /// A store that connects with its first call.
    pub(crate) fn store(&self) -> Result<Store, Failure> {
        let url = if self.redis_url.trim().is_empty() {
            REDIS_URL
        } else {
            self.redis_url.trim()
        };
        let mut config = StoreConfig::new(url);
        config.connections = CONNECTIONS;
        config.response_timeout = RESPONSE_MAX;
        config.connect_timeout = CONNECT_MAX;
        Store::connect(&config)
            .map_err(|error| Failure::usage("PORCHLIGHT_REDIS_URL (--redis-url)").because(&error))
    }
}

impl LedgerArgs {
    /// The way that the flags ask for.
    pub(crate) fn open(&self) -> Result<Ledger, Failure> {
        let given = |text: &Option<String>| {
            text.as_deref()
                .map(str::trim)
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let Some(url) = given(&self.api) else {
            return self.redis.store().map(Ledger::Redis);
        };
        let target = Target::parse(&url)
            .map_err(|error| Failure::usage("PORCHLIGHT_API_URL (--api)").because(&error))?;
        let token = given(&self.admin_token).ok_or_else(|| {
            Failure::usage("the control API needs a token")
                .advise("set PORCHLIGHT_ADMIN_TOKEN as the worker has it")
        })?;
        let tls = connector(&target, None).map_err(|error| Failure::usage("TLS").because(&error))?;
        let client = Client::new(Arc::new(target), tls, API_CALL_MAX);
        Ok(Ledger::Api(Box::new(Api::new(client, &Secret::new(token)))))
    }
}

impl Ledger {
    /// One page of devices.
    pub(crate) async fn devices(
        &mut self,
        which: &Which,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<DevicePage, Failure> {
        match self {
            Self::Api(api) => api.devices(which, cursor, limit).await,
            Self::Redis(store) => {
                let filter = DeviceFilter {
                    account_id: which.account.clone(),
                    status: which.status,
                };
                store
                    .devices(&filter, cursor, limit)
                    .await
                    .map_err(|error| match error {
                        PageError::BadCursor => Failure::usage("--cursor").because(&error),
                        PageError::Store(error) => store_failed(&error),
                    })
            }
        }
    }

    /// One device; fails when nothing is known of it.
    pub(crate) async fn device(&mut self, device_id: &str) -> Result<DeviceView, Failure> {
        let found = match self {
            Self::Api(api) => api.device(device_id).await?,
            Self::Redis(store) => store
                .device_view(device_id)
                .await
                .map_err(|error| store_failed(&error))?,
        };
        found.ok_or_else(|| {
            Failure::failed(format_args!("nothing is known of device {device_id}"))
                .advise("porchlight devices list")
        })
    }

    /// Registers an operation; what is registered now.
    pub(crate) async fn register(
        &mut self,
        device_id: &str,
        registration: &Registration,
    ) -> Result<OperationView, Failure> {
        match self {
            Self::Api(api) => api.register(device_id, registration).await,
            Self::Redis(store) => {
                // A command that is owed stays in the outbox; a worker's sweeper sends it.
                store
                    .register(device_id, registration, now_ms())
                    .await
                    .map_err(|error| match error {
                        RegisterError::Refused(error) => Failure::failed("not registered").because(&error),
                        RegisterError::Store(error) => store_failed(&error),
                    })?;
                let device = self.device(device_id).await?;
                let own = device
                    .operations
                    .into_iter()
                    .find(|known| known.id == registration.operation_id);
                own.ok_or_else(|| Failure::failed("somebody has removed the operation at this moment"))
            }
        }
    }

    /// Forgets an operation; whether there was one.
    pub(crate) async fn forget(&mut self, device_id: &str, operation_id: &str) -> Result<bool, Failure> {
        match self {
            Self::Api(api) => api.forget(device_id, operation_id).await,
            Self::Redis(store) => store
                .forget(device_id, operation_id)
                .await
                .map_err(|error| store_failed(&error)),
        }
    }
}

fn store_failed(error: &StoreError) -> Failure {
    if error.is_fault() {
        Failure::unavailable("Redis")
            .because(error)
            .advise("is Redis running, and is it the one at --redis-url? porchlight status")
    } else {
        Failure::failed("Redis").because(error)
    }
}
