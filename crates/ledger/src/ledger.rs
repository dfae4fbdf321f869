//! Every call of a ledger, handed on to the one that was chosen.
//!
//! What each must do is written at the reference model.

use std::collections::BTreeMap;

use porchlight_device::ledger::{Backlog, DeviceFilter, Spread};
use porchlight_device::view::{DevicePage, DeviceView};
use porchlight_device::{Command, Decision, Device, News, OweAgain, Registration, Status};
use porchlight_store::Store;

use crate::{LedgerError, LedgerFacts, PageError, RegisterError};

/// Marks, statuses, operations and owed commands. A cheap handle; clones share everything.
#[derive(Debug, Clone)]
pub enum Ledger {
    /// Redis: each event is one atomic script.
    Redis(Store),
    /// SQLite: each batch of events is a part of one transaction.
    Sqlite(porchlight_journal::Ledger),
}

impl Ledger {
    /// Where it is, for a person; never with a password.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            Self::Redis(store) => store.address().to_owned(),
            Self::Sqlite(ledger) => ledger.address(),
        }
    }

    /// Takes events; one answer for each, in order. Each is taken whole or not at all. `shard` spreads calls over
    /// connections, where there are several.
    ///
    /// # Cancel safety
    /// Dropped, each event was taken or not; giving it again is right. So for all calls here.
    pub async fn apply_batch(
        &self,
        shard: usize,
        news: &[News],
        now_ms: i64,
    ) -> Vec<Result<Decision, LedgerError>> {
        match self {
            Self::Redis(store) => each(store.apply_batch(shard, news, now_ms).await),
            Self::Sqlite(ledger) => each(ledger.apply_batch(news, now_ms).await),
        }
    }

    /// Registers an operation, or updates its kind and parameters; paused at once when the device is offline. The
    /// command that is owed then is in the outbox already, and given back to be sent at once.
    ///
    /// # Errors
    /// [`RegisterError`]
    pub async fn register(
        &self,
        device_id: &str,
        registration: &Registration,
        now_ms: i64,
    ) -> Result<Option<Command>, RegisterError> {
        match self {
            Self::Redis(store) => Ok(store.register(device_id, registration, now_ms).await?),
            Self::Sqlite(ledger) => Ok(ledger.register(device_id, registration, now_ms).await?),
        }
    }

    /// Forgets an operation and drops what it owes; whether there was one.
    ///
    /// # Errors
    /// [`LedgerError`]; it may or may not be forgotten.
    pub async fn forget(&self, device_id: &str, operation_id: &str) -> Result<bool, LedgerError> {
        match self {
            Self::Redis(store) => Ok(store.forget(device_id, operation_id).await?),
            Self::Sqlite(ledger) => Ok(ledger.forget(device_id, operation_id).await?),
        }
    }

    /// Takes commands that are due and holds each back from other sweepers for a while, longer with every attempt.
    ///
    /// # Errors
    /// [`LedgerError`]; what was claimed then becomes due again by itself.
    pub async fn claim(&self, now_ms: i64, limit: usize) -> Result<Vec<Command>, LedgerError> {
        match self {
            Self::Redis(store) => Ok(store.claim(now_ms, limit).await?),
            Self::Sqlite(ledger) => Ok(ledger.claim(now_ms, limit).await?),
        }
    }

    /// Notes that commands were delivered; whether each was still owed.
    ///
    /// # Errors
    /// Each has its own [`LedgerError`]. A command whose confirmation failed is sent again, under the same identity.
    pub async fn confirm(&self, shard: usize, delivered: &[Command]) -> Vec<Result<bool, LedgerError>> {
        match self {
            Self::Redis(store) => each(store.confirm(shard, delivered).await),
            Self::Sqlite(ledger) => each(ledger.confirm(delivered).await),
        }
    }

    /// Strikes a command off that could not be delivered within its time and was dead-lettered; whether it was still
    /// owed. Its operation stays as it is: one whose resume nobody received is still `resuming`.
    ///
    /// # Errors
    /// [`LedgerError`]; it may or may not be owed still.
    pub async fn give_up(&self, command: &Command) -> Result<bool, LedgerError> {
        match self {
            Self::Redis(store) => Ok(store.give_up(command).await?),
            Self::Sqlite(ledger) => Ok(ledger.give_up(command).await?),
        }
    }

    /// Owes a command again that was given up, due now, unless its operation is gone or went on since. Its time to be
    /// delivered begins anew with it: [`Command::issued_at_ms`] is then `now_ms`.
    ///
    /// # Errors
    /// [`LedgerError`]; it may or may not be owed.
    pub async fn owe_again(&self, command: &Command, now_ms: i64) -> Result<OweAgain, LedgerError> {
        match self {
            Self::Redis(store) => Ok(store.owe_again(command, now_ms).await?),
            Self::Sqlite(ledger) => Ok(ledger.owe_again(command, now_ms).await?),
        }
    }

    /// How much is owed.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub async fn backlog(&self) -> Result<Backlog, LedgerError> {
        match self {
            Self::Redis(store) => Ok(store.backlog().await?),
            Self::Sqlite(ledger) => Ok(ledger.backlog().await?),
        }
    }

    /// Tells the devices of accounts that were not all told. What they owe then is in the outbox.
    ///
    /// # Errors
    /// [`LedgerError`]; the next call goes on.
    pub async fn spread_pending(&self, now_ms: i64) -> Result<Spread, LedgerError> {
        match self {
            Self::Redis(store) => Ok(store.spread_pending(now_ms).await?),
            Self::Sqlite(ledger) => Ok(ledger.spread_pending()),
        }
    }

    /// One device with everything that is remembered of it but its history; `None` when it was never heard of.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub async fn device(&self, device_id: &str) -> Result<Option<Device>, LedgerError> {
        match self {
            Self::Redis(store) => Ok(store.device(device_id).await?),
            Self::Sqlite(ledger) => Ok(ledger.device(device_id).await?),
        }
    }

    /// One device as it is shown; `None` when it was never heard of.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub async fn device_view(&self, device_id: &str) -> Result<Option<DeviceView>, LedgerError> {
        match self {
            Self::Redis(store) => Ok(store.device_view(device_id).await?),
            Self::Sqlite(ledger) => Ok(ledger.device_view(device_id).await?),
        }
    }

    /// One page of devices in a stable order; a page may be shorter than `limit` and still have a next one.
    ///
    /// # Errors
    /// [`PageError`]
    pub async fn devices(
        &self,
        filter: &DeviceFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<DevicePage, PageError> {
        match self {
            Self::Redis(store) => Ok(store.devices(filter, cursor, limit).await?),
            Self::Sqlite(ledger) => Ok(ledger.devices(filter, cursor, limit).await?),
        }
    }

    /// Devices by status.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub async fn counts(&self) -> Result<BTreeMap<Status, u64>, LedgerError> {
        match self {
            Self::Redis(store) => Ok(store.counts().await?),
            Self::Sqlite(ledger) => Ok(ledger.counts().await?),
        }
    }

    /// Whether it takes a write now.
    ///
    /// # Errors
    /// [`LedgerError`], when it does not.
    pub async fn probe(&self, now_ms: i64) -> Result<(), LedgerError> {
        match self {
            Self::Redis(store) => Ok(store.probe(now_ms).await?),
            Self::Sqlite(ledger) => Ok(ledger.probe(now_ms).await?),
        }
    }

    /// What it says of itself, for whoever watches it.
    ///
    /// # Errors
    /// [`LedgerError`]; it may deny the question and work all the same.
    pub async fn facts(&self) -> Result<LedgerFacts, LedgerError> {
        match self {
            Self::Redis(store) => Ok(store.server_facts().await?.into()),
            Self::Sqlite(ledger) => Ok(LedgerFacts {
                persistence_ok: Some(ledger.takes_writes()),
                evicts: Some(false),
                ..LedgerFacts::default()
            }),
        }
    }

    /// What in its own set-up an operator should be warned of, one sentence for each.
    ///
    /// # Errors
    /// [`LedgerError`]; it may deny the question and work all the same.
    pub async fn warnings(&self) -> Result<Vec<&'static str>, LedgerError> {
        match self {
            Self::Redis(store) => Ok(store.server_facts().await?.warnings()),
            Self::Sqlite(ledger) => Ok(ledger.warnings()),
        }
    }
}

pub(crate) fn each<T, E>(results: Vec<Result<T, E>>) -> Vec<Result<T, LedgerError>>
where
    LedgerError: From<E>,
{
    results
        .into_iter()
        .map(|result| result.map_err(LedgerError::from))
        .collect()
}
