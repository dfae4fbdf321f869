//! Reading devices: one whole, pages of them, and counts by status.
//!
//! It changes nothing.

use crate::keys::{Partition, Place};
use crate::script::{Call, Script};
use crate::{Store, StoreError, record, reply};
pub use porchlight_device::ledger::PAGE_DEVICES_MAX;

use porchlight_device::ledger::DeviceFilter;
use porchlight_device::view::{DevicePage, DeviceSummary, DeviceView, HISTORY_ENTRIES_MAX, HistoryEntry};
use porchlight_device::{AccountRegisters, Command, Device, Operation, Order, State, Status};
use redis::Value;
use std::collections::{BTreeMap, HashMap};

/// Devices that one page looks at before it ends short, so that a rare status does not make one call walk all.
const LOOKED_AT_MAX: usize = 4096;
/// Partitions whose index is read in one round trip.
const PARTITIONS_AT_ONCE: usize = 32;
/// The fields of a device that a page shows.
const SUMMARY_FIELDS: [&str; 4] = ["id", "acct", "st", "si"];

const ODD: StoreError = StoreError::Unreadable("a device");

/// Why there is no page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The cursor is none that an earlier page gave.
    #[error("the cursor is not one that an earlier page gave")]
    BadCursor,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A device and its history as stored.
pub(crate) struct Stored {
    pub(crate) device: Device,
    pub(crate) history: Vec<HistoryEntry>,
}

impl Store {
    /// One device with everything that is remembered of it but its history; `None` when it was never heard of.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn device(&self, device_id: &str) -> Result<Option<Device>, StoreError> {
        Ok(self.stored(device_id).await?.map(|stored| stored.device))
    }

    /// One device as it is shown; `None` when it was never heard of.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn device_view(&self, device_id: &str) -> Result<Option<DeviceView>, StoreError> {
        let stored = self.stored(device_id).await?;
        Ok(stored.map(|stored| DeviceView::new(stored.device, stored.history)))
    }

    async fn stored(&self, device_id: &str) -> Result<Option<Stored>, StoreError> {
        let call = Stored::call(&Place::of(device_id));
        Stored::read(self.run_one(self.any_shard(), call).await?)
    }

    /// One page of devices, in a stable order that means nothing else; at most `limit`, which is cut to
    /// [`PAGE_DEVICES_MAX`]. A page may be shorter, or empty, and still have a next one.
    ///
    /// # Errors
    /// [`PageError`]
    pub async fn devices(
        &self,
        filter: &DeviceFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<DevicePage, PageError> {
        let limit = limit.clamp(1, PAGE_DEVICES_MAX);
        let mut after = match cursor {
            Some(text) => Some(Place::from_member(text).ok_or(PageError::BadCursor)?),
            None => None,
        };
        let mut devices = Vec::new();
        let mut looked_at = 0;
        loop {
            let wanted = limit - devices.len();
            let places = match &filter.account_id {
                Some(account) => self.places_of_account(account, after, wanted).await?,
                None => self.places(after, wanted).await?,
            };
            let is_last = places.len() < wanted;
            looked_at += places.len();
            for summary in self.summaries(&places).await?.into_iter().flatten() {
                let in_account = filter
                    .account_id
                    .as_ref()
                    .is_none_or(|account| summary.account_id.as_ref() == Some(account));
                let in_status = filter.status.is_none_or(|status| summary.status == status.code());
                if in_account && in_status {
                    devices.push(summary);
                }
            }
            after = places.last().copied().or(after);
            if is_last || devices.len() >= limit || looked_at >= LOOKED_AT_MAX {
                let next_cursor = after.filter(|_| !is_last).map(|place| place.member());
                return Ok(DevicePage { devices, next_cursor });
            }
        }
    }

    /// The next devices in the index, at most `limit`; fewer only at the end.
    pub(crate) async fn places(&self, after: Option<Place>, limit: usize) -> Result<Vec<Place>, StoreError> {
        let shard = self.any_shard();
        let start = after.map_or(0, |place| place.partition.index());
        let partitions: Vec<Partition> = Partition::all().skip(start).collect();
        let mut places = Vec::new();
        for some in partitions.chunks(PARTITIONS_AT_ONCE) {
            let look = |partition: &Partition| {
                let from = after.filter(|place| place.partition == *partition);
                let from = from.map_or_else(|| "-".to_owned(), |place| format!("({}", place.hash()));
                let call = Call::plain("ZRANGEBYLEX")
                    .arg(partition.index_of_devices())
                    .arg(from)
                    .arg("+");
                call.arg("LIMIT").arg(0).arg(limit)
            };
            for (partition, answer) in some
                .iter()
                .zip(self.run(shard, some.iter().map(look).collect()).await)
            {
                for hash in reply::texts(answer?)? {
                    places.push(Place::at(*partition, &hash).ok_or(ODD)?);
                }
            }
            if places.len() >= limit {
                places.truncate(limit);
                break;
            }
        }
        Ok(places)
    }

    async fn places_of_account(
        &self,
        account_id: &str,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Place>, StoreError> {
        let from = after.map_or_else(|| "-".to_owned(), |place| format!("({}", place.member()));
        let call = Call::plain("ZRANGEBYLEX")
            .arg(Place::of(account_id).devices_of_account())
            .arg(from)
            .arg("+");
        let page = self
            .run_one(self.any_shard(), call.arg("LIMIT").arg(0).arg(limit))
            .await?;
        reply::texts(page)?
            .iter()
            .map(|member| Place::from_member(member).ok_or(ODD))
            .collect()
    }

    /// What a page shows of each; `None` for a place that has no device yet.
    async fn summaries(&self, places: &[Place]) -> Result<Vec<Option<DeviceSummary>>, StoreError> {
        let read = |place: &Place| Call::plain("HMGET").arg(place.device()).arg(&SUMMARY_FIELDS);
        let answers = self
            .run(self.any_shard(), places.iter().map(read).collect())
            .await;
        answers.into_iter().map(|answer| summary(answer?)).collect()
    }

    /// How many devices there are of each status.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn counts(&self) -> Result<BTreeMap<Status, u64>, StoreError> {
        let codes: Vec<&str> = Status::ALL.iter().map(|status| status.code()).collect();
        let read = |partition: Partition| Call::plain("HMGET").arg(partition.counts()).arg(&codes);
        let mut counts: BTreeMap<Status, u64> = Status::ALL.into_iter().map(|status| (status, 0)).collect();
        for answer in self
            .run(self.any_shard(), Partition::all().map(read).collect())
            .await
        {
            for (count, value) in Status::ALL.iter().zip(reply::list(answer?)?) {
                *counts.entry(*count).or_default() +=
                    u64::try_from(reply::number(&value)?).unwrap_or_default();
            }
        }
        Ok(counts)
    }
}

fn summary(values: Value) -> Result<Option<DeviceSummary>, StoreError> {
    let mut values = reply::list(values)?.into_iter();
    let mut next = || reply::optional_text(values.next().unwrap_or(Value::Nil));
    let Some(device_id) = next()? else { return Ok(None) };
    let (account_id, status, since) = (next()?, next()?.ok_or(ODD)?, next()?);
    let status_since = since.map(|text| text.parse().map_err(|_| ODD)).transpose()?;
    Ok(Some(DeviceSummary {
        device_id,
        account_id,
        status,
        status_since,
    }))
}

impl Stored {
    /// The call that reads it.
    pub(crate) fn call(place: &Place) -> Call {
        let keys = [
            place.device(),
            place.operations(),
            place.history(),
            place.partition.outbox(),
        ];
        Script::DeviceView.call(&keys).arg(HISTORY_ENTRIES_MAX)
    }

    pub(crate) fn read(answer: Value) -> Result<Option<Self>, StoreError> {
        let mut parts = reply::list(answer)?.into_iter();
        let mut next = || parts.next().unwrap_or(Value::Nil);
        let (fields, operations, owed, history) = (next(), next(), next(), next());
        let fields = reply::texts(fields)?;
        let mut fields: HashMap<String, String> = fields
            .chunks_exact(2)
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect();
        let Some(device_id) = fields.remove("id") else {
            return Ok(None);
        };
        let mut device = Device::new(device_id);
        read_registers(&mut device, fields)?;
        let mut operations = reply::list(operations)?.into_iter();
        while let (Some(id), Some(Value::BulkString(stored))) = (operations.next(), operations.next()) {
            let id = reply::text(id)?;
            device
                .operations
                .insert(id.clone(), operation(id, &stored).ok_or(ODD)?);
        }
        let owed = reply::commands(owed)?;
        device.owed = owed
            .into_iter()
            .map(|command: Command| (command.operation_id.clone(), command))
            .collect();
        let lines = reply::texts(history)?;
        let history: Result<Vec<_>, _> = lines.iter().map(|line| serde_json::from_str(line)).collect();
        Ok(Some(Self {
            device,
            history: history.map_err(|_| StoreError::Unreadable("a line of history"))?,
        }))
    }
}

fn read_registers(device: &mut Device, mut fields: HashMap<String, String>) -> Result<(), StoreError> {
    let order = |text: Option<String>| text.map(|text| Order::from_stored(text).ok_or(ODD)).transpose();
    let status = |text: Option<String>| text.and_then(|code| Status::from_code(&code)).ok_or(ODD);
    device.account_id = fields.remove("acct");
    device.account_order = order(fields.remove("ao"))?;
    device.account = AccountRegisters {
        added: order(fields.remove("aa"))?,
        removed: order(fields.remove("ar"))?,
    };
    if let Some(newest) = order(fields.remove("s"))? {
        device.news = Some((newest, status(fields.remove("v"))?));
    }
    device.added = order(fields.remove("ad"))?;
    device.removed = order(fields.remove("rm"))?;
    device.status = status(fields.remove("st"))?;
    device.status_since_ms = fields
        .remove("si")
        .map(|text| text.parse().map_err(|_| ODD))
        .transpose()?;
    device.generation_floor = fields
        .remove("fl")
        .map_or(Ok(0), |text| text.parse().map_err(|_| ODD))?;
    Ok(())
}

fn operation(id: String, stored: &[u8]) -> Option<Operation> {
    let mut values = record::unpack(stored)?.into_iter();
    let state = State::from_code(&values.next()??)?;
    let generation = values.next()??.parse().ok()?;
    let account_id = values.next()?;
    let (kind, params) = (values.next()??, values.next()??);
    Some(Operation {
        id,
        kind,
        params,
        account_id,
        state,
        generation,
    })
}
