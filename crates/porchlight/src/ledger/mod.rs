//! The ledger as the tool sees it: directly where it lies, or through a control API; the same answers either way.
//!
//! What the answers look like is the device crate's; nothing is decided here.

mod api;

use porchlight_device::ledger::DeviceFilter;
use porchlight_device::view::{DevicePage, DeviceView, OperationView};
use porchlight_device::{Registration, Status};
use porchlight_ledger::{LedgerError, PageError, RegisterError};

use crate::clock::now_ms;
use crate::control_api::ControlApi;
use crate::failure::Failure;
use crate::place::{LedgerArgs, LedgerPlace};

/// A way to the ledger.
pub(crate) enum Ledger {
    Direct(porchlight_ledger::Ledger),
    Api(Box<ControlApi>),
}

/// Which devices.
#[derive(Debug, Clone, Default)]
pub(crate) struct Which {
    pub(crate) account: Option<String>,
    pub(crate) status: Option<Status>,
}

impl LedgerArgs {
    /// The way that the flags and variables name.
    pub(crate) fn open(&self) -> Result<Ledger, Failure> {
        Ok(match self.place()? {
            LedgerPlace::Redis(store) => Ledger::Direct(porchlight_ledger::Ledger::Redis(store)),
            LedgerPlace::Directory(directory) => Ledger::Direct(directory.ledger()),
            LedgerPlace::Api(api) => Ledger::Api(api),
        })
    }
}

impl Ledger {
    /// One page of devices.
    pub(crate) async fn devices(
        &self,
        which: &Which,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<DevicePage, Failure> {
        match self {
            Self::Api(api) => api.devices(which, cursor, limit).await,
            Self::Direct(ledger) => {
                let filter = DeviceFilter {
                    account_id: which.account.clone(),
                    status: which.status,
                };
                let page = ledger.devices(&filter, cursor, limit).await;
                page.map_err(|error| match error {
                    PageError::BadCursor => Failure::usage("--cursor").because(&error),
                    PageError::Ledger(error) => ledger_failed(&error),
                })
            }
        }
    }

    /// One device; fails when nothing is known of it.
    pub(crate) async fn device(&self, device_id: &str) -> Result<DeviceView, Failure> {
        let found = match self {
            Self::Api(api) => api.device(device_id).await?,
            Self::Direct(ledger) => {
                let found = ledger.device_view(device_id).await;
                found.map_err(|error| ledger_failed(&error))?
            }
        };
        found.ok_or_else(|| {
            Failure::failed(format_args!("nothing is known of device {device_id}"))
                .advise("porchlight devices list")
        })
    }

    /// Registers an operation; what is registered now.
    pub(crate) async fn register(
        &self,
        device_id: &str,
        registration: &Registration,
    ) -> Result<OperationView, Failure> {
        match self {
            Self::Api(api) => api.register(device_id, registration).await,
            Self::Direct(ledger) => {
                // A command that is owed stays in the outbox; a daemon's sweeper sends it.
                let registered = ledger.register(device_id, registration, now_ms()).await;
                registered.map_err(|error| match error {
                    RegisterError::Refused(error) => Failure::failed("not registered").because(&error),
                    RegisterError::Ledger(error) => ledger_failed(&error),
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
    pub(crate) async fn forget(&self, device_id: &str, operation_id: &str) -> Result<bool, Failure> {
        match self {
            Self::Api(api) => api.forget(device_id, operation_id).await,
            Self::Direct(ledger) => {
                let forgotten = ledger.forget(device_id, operation_id).await;
                forgotten.map_err(|error| ledger_failed(&error))
            }
        }
    }
}

fn ledger_failed(error: &LedgerError) -> Failure {
    let (name, advice) = match error {
        LedgerError::Redis(_) => (
            "Redis",
            "is Redis running, and is it the one at --redis-url? For a standalone: --data-dir DIR",
        ),
        _ => ("the data directory", "porchlight status"),
    };
    if error.is_fault() {
        Failure::unavailable(name).because(error).advise(advice)
    } else {
        Failure::failed(name).because(error)
    }
}
