//! Reading devices: one whole, pages of them, and counts by status.
//!
//! It changes nothing.

use std::collections::BTreeMap;

use porchlight_device::ledger::{DeviceFilter, PAGE_DEVICES_MAX};
use porchlight_device::view::{DevicePage, DeviceSummary, HistoryEntry};
use porchlight_device::{Device, Status};
use rusqlite::{Connection, params};

use super::records::{FIND_DEVICE, Found, ODD, find, load_operations, number_of};
use super::rows;
use crate::error::WorkError;

/// Devices that one page looks at before it ends short, so that a rare status does not make one call walk all.
const LOOKED_AT_MAX: usize = 4096;

/// A device with its history, newest first; `None` when it was never heard of.
pub(super) fn device(
    connection: &Connection,
    device_id: &str,
) -> Result<Option<(Device, Vec<HistoryEntry>)>, WorkError> {
    let (place, found) = find(&mut connection.prepare_cached(FIND_DEVICE)?, device_id)?;
    let Some(Found { body, .. }) = found else {
        return Ok(None);
    };
    let read = rows::unpack_device(&body).ok_or(ODD)?;
    let mut device = read.device;
    load_operations(connection, place, &mut device)?;
    let history = rows::unpack_history(&body[read.history_at..], device_id)
        .ok_or(WorkError::Unreadable("a line of history"))?;
    Ok(Some((device, history)))
}

/// Devices in the order of their places, from a cursor on.
pub(super) fn page(
    connection: &Connection,
    filter: &DeviceFilter,
    after: Option<Cursor>,
    limit: usize,
) -> Result<DevicePage, WorkError> {
    let limit = limit.clamp(1, PAGE_DEVICES_MAX);
    let mut page = DevicePage {
        devices: Vec::new(),
        next_cursor: None,
    };
    let from = match after {
        None => i64::MIN,
        Some(Cursor(i64::MAX)) => return Ok(page),
        Some(Cursor(place)) => place + 1,
    };
    let sql = match filter.account_id {
        None => "SELECT place, body FROM devices WHERE place >= ?1 ORDER BY place",
        Some(_) => "SELECT place, body FROM devices WHERE place >= ?1 AND account = ?2 ORDER BY place",
    };
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = match &filter.account_id {
        None => statement.query([from])?,
        Some(account) => statement.query(params![from, number_of(account)])?,
    };
    let (mut looked_at, mut last) = (0, None);
    while let Some(row) = found.next()? {
        if page.devices.len() >= limit || looked_at >= LOOKED_AT_MAX {
            page.next_cursor = last.map(Cursor::text);
            break;
        }
        looked_at += 1;
        last = Some(Cursor(row.get(0)?));
        let summary = rows::unpack_summary(row.get_ref(1)?.as_blob().map_err(|_| ODD)?).ok_or(ODD)?;
        if fits(filter, &summary) {
            page.devices.push(summary);
        }
    }
    Ok(page)
}

fn fits(filter: &DeviceFilter, device: &DeviceSummary) -> bool {
    let account = filter.account_id.as_ref();
    account.is_none_or(|account| device.account_id.as_ref() == Some(account))
        && filter.status.is_none_or(|status| device.status == status.code())
}

pub(super) fn counts(connection: &Connection) -> Result<BTreeMap<Status, u64>, WorkError> {
    let mut statement = connection.prepare_cached("SELECT devices FROM counts ORDER BY status")?;
    let devices: Vec<u64> = statement
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(Status::ALL.into_iter().zip(devices).collect())
}

/// Where a page ended: the place of its last device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor(i64);

impl Cursor {
    pub(super) fn at(place: i64) -> Self {
        Self(place)
    }

    pub(super) fn place(self) -> i64 {
        self.0
    }

    /// Sixteen hex digits.
    pub(super) fn text(self) -> String {
        hex::encode(self.0.to_be_bytes())
    }

    /// Reads back what [`Cursor::text`] gave.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut place = [0; 8];
        hex::decode_to_slice(text, &mut place).ok()?;
        Some(Self(i64::from_be_bytes(place)))
    }
}
