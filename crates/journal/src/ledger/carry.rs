//! Carrying the ledger out and in: pages of accounts, devices and marks, and taking in what another ledger knew.
//!
//! What taking in does to a device says [`porchlight_device::merge`].

use porchlight_device::carry::{CarriedAccount, CarriedDevice, CarriedMarks, Page};
use porchlight_device::marks::{generation, unused_from_ms};
use porchlight_device::news::TimeSource;
use porchlight_device::records::{Line, Records as _};
use porchlight_device::view::HistoryEntry;
use porchlight_device::{Command, Kind, News, Order, Outcome, Reason, Subject, merge};
use rusqlite::{Connection, params};

use super::pages::Cursor;
use super::records::{ODD, ODD_ACCOUNT, SLOTS, load_operations};
use super::{Ledger, PageError, deadline, rows};
use crate::error::{JournalError, WorkError};

/// Accounts of one page.
const ACCOUNTS_AT_ONCE: usize = 256;
/// Devices of one page: each may have 256 operations of 16 KiB, so few.
const DEVICES_AT_ONCE: usize = 32;
/// Marks of one page.
const MARKS_AT_ONCE: usize = 8192;
/// Marks written in one piece of work: some milliseconds of the writer.
const MARKS_WRITTEN_AT_ONCE: usize = 1024;

const ODD_LINE: WorkError = WorkError::Unreadable("a line of history");

impl Ledger {
    /// Some accounts with their registers.
    ///
    /// # Errors
    /// [`PageError`]
    pub async fn carry_accounts(&self, cursor: Option<&str>) -> Result<Page<CarriedAccount>, PageError> {
        let after = cursor.map(str::to_owned);
        let look = move |connection: &Connection| accounts(connection, after.as_deref());
        Ok(self.journal.read(deadline(), look).await?)
    }

    /// Some devices, whole.
    ///
    /// # Errors
    /// [`PageError`]
    pub async fn carry_devices(&self, cursor: Option<&str>) -> Result<Page<CarriedDevice>, PageError> {
        let from = match cursor {
            None => i64::MIN,
            Some(text) => Cursor::read(text).ok_or(PageError::BadCursor)?.place(),
        };
        let look = move |connection: &Connection| devices(connection, from);
        Ok(self.journal.read(deadline(), look).await?)
    }

    /// Some marks that lie together.
    ///
    /// # Errors
    /// [`PageError`]
    pub async fn carry_marks(&self, cursor: Option<&str>) -> Result<Page<CarriedMarks>, PageError> {
        let read = |text: &str| {
            let (slot, mark) = text.split_once(':')?;
            Some((slot.parse().ok()?, mark.parse().ok()?))
        };
        let after: (i64, i64) = match cursor {
            None => (i64::MIN, i64::MIN),
            Some(text) => read(text).ok_or(PageError::BadCursor)?,
        };
        let look = move |connection: &Connection| marks(connection, after);
        Ok(self.journal.read(deadline(), look).await?)
    }

    /// Takes in what another ledger knew of an account; where that moves a register, its devices are told in the same
    /// step.
    ///
    /// # Errors
    /// [`JournalError`]; taking it in again is right.
    pub async fn restore_account(&self, account: &CarriedAccount, now_ms: i64) -> Result<(), JournalError> {
        let account = account.clone();
        self.change(self.times(now_ms), move |rows| {
            merge::restore_account(rows, &account.account_id, &account.registers, now_ms).map(drop)
        })
        .await
    }

    /// Takes in what another ledger knew of a device; what is newly owed because of it, which is in the outbox.
    ///
    /// # Errors
    /// [`JournalError`]; taking it in again is right.
    pub async fn restore_device(
        &self,
        carried: &CarriedDevice,
        now_ms: i64,
    ) -> Result<Vec<Command>, JournalError> {
        let carried = carried.clone();
        self.change(self.times(now_ms), move |rows| {
            let (device, commands, mut row) = merge::merged_device(rows, &carried.device, now_ms)?;
            if !row.has_history() {
                row.brought = Some(packed(&carried)?);
            }
            rows.store_device(row, device, None)?;
            Ok(commands)
        })
        .await
    }

    /// Takes marks into their generation; whether anybody still looks them up. Marks of a clock that was ahead of ours
    /// count as of now.
    ///
    /// # Errors
    /// [`JournalError`]; taking them in again is right.
    pub async fn restore_marks(&self, carried: &CarriedMarks, now_ms: i64) -> Result<bool, JournalError> {
        let into = carried.generation.min(generation(now_ms));
        if unused_from_ms(into) <= now_ms {
            return Ok(false);
        }
        let slot = into * SLOTS + i64::from(carried.partition);
        for some in carried.marks.chunks(MARKS_WRITTEN_AT_ONCE) {
            let some = some.to_vec();
            let write = move |connection: &Connection| {
                let mut add = connection.prepare_cached("INSERT OR IGNORE INTO marks VALUES (?1, ?2)")?;
                for mark in some {
                    add.execute([slot, mark])?;
                }
                Ok(())
            };
            self.journal.write(deadline(), write).await?;
        }
        Ok(true)
    }
}

fn accounts(connection: &Connection, after: Option<&str>) -> Result<Page<CarriedAccount>, WorkError> {
    let mut find = connection
        .prepare_cached("SELECT id, body FROM accounts WHERE ?1 IS NULL OR id > ?1 ORDER BY id LIMIT ?2")?;
    let mut found = find.query(params![after, ACCOUNTS_AT_ONCE])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let body = row.get_ref(1)?.as_blob().map_err(|_| ODD_ACCOUNT)?;
        rows.push(CarriedAccount {
            account_id: row.get(0)?,
            registers: rows::unpack_account(body).ok_or(ODD_ACCOUNT)?,
        });
    }
    let last = rows.last().filter(|_| rows.len() == ACCOUNTS_AT_ONCE);
    let next_cursor = last.map(|account| account.account_id.clone());
    Ok(Page { rows, next_cursor })
}

fn devices(connection: &Connection, from: i64) -> Result<Page<CarriedDevice>, WorkError> {
    let mut find = connection
        .prepare_cached("SELECT place, body FROM devices WHERE place >= ?1 ORDER BY place LIMIT ?2")?;
    let mut found = find.query(params![from, DEVICES_AT_ONCE])?;
    let (mut rows, mut last) = (Vec::new(), i64::MIN);
    while let Some(row) = found.next()? {
        last = row.get(0)?;
        let body = row.get_ref(1)?.as_blob().map_err(|_| ODD)?;
        let read = rows::unpack_device(body).ok_or(ODD)?;
        let mut device = read.device;
        load_operations(connection, last, &mut device)?;
        let history = rows::unpack_history(&body[read.history_at..], &device.device_id).ok_or(ODD_LINE)?;
        rows.push(CarriedDevice { device, history });
    }
    let is_full = rows.len() == DEVICES_AT_ONCE;
    let next = last.checked_add(1).filter(|_| is_full);
    Ok(Page {
        rows,
        next_cursor: next.map(|place| Cursor::at(place).text()),
    })
}

fn marks(connection: &Connection, after: (i64, i64)) -> Result<Page<CarriedMarks>, WorkError> {
    let mut find = connection.prepare_cached(
        "SELECT slot, mark FROM marks WHERE (slot, mark) > (?1, ?2) ORDER BY slot, mark LIMIT ?3",
    )?;
    let mut found = find.query(params![after.0, after.1, MARKS_AT_ONCE])?;
    let mut rows: Vec<CarriedMarks> = Vec::new();
    let (mut count, mut last) = (0, after);
    while let Some(row) = found.next()? {
        last = (row.get(0)?, row.get(1)?);
        count += 1;
        let (generation, partition) = (last.0.div_euclid(SLOTS), last.0.rem_euclid(SLOTS));
        let partition = u8::try_from(partition).map_err(|_| WorkError::Unreadable("a mark"))?;
        match rows.last_mut() {
            Some(run) if (run.generation, run.partition) == (generation, partition) => run.marks.push(last.1),
            _ => rows.push(CarriedMarks {
                partition,
                generation,
                marks: vec![last.1],
            }),
        }
    }
    let next_cursor = (count == MARKS_AT_ONCE).then(|| format!("{}:{}", last.0, last.1));
    Ok(Page { rows, next_cursor })
}

/// A history as a row keeps it.
fn packed(carried: &CarriedDevice) -> Result<Vec<u8>, WorkError> {
    let id = &carried.device.device_id;
    let mut history = Vec::new();
    for entry in carried.history.iter().rev() {
        let news = news_of(entry, id).ok_or(ODD_LINE)?;
        let line = Line {
            news: &news,
            outcome: Outcome::from_code(&entry.outcome).ok_or(ODD_LINE)?,
            reason: Reason::from_code(&entry.reason).ok_or(ODD_LINE)?,
            at_ms: entry.at,
        };
        history = rows::lengthened(&history, &line, id).ok_or(ODD_LINE)?;
    }
    Ok(history)
}

/// As much of the news as a line of history tells.
fn news_of(entry: &HistoryEntry, device_id: &str) -> Option<News> {
    let sources = [TimeSource::Timestamp, TimeSource::MetaTime, TimeSource::Receipt];
    Some(News {
        subject: Subject::Device(device_id.to_owned()),
        kind: Kind::Recorded,
        order: Order::new(entry.timestamp, None, "", ""),
        timestamp_ms: entry.timestamp,
        time_source: sources
            .into_iter()
            .find(|source| source.code() == entry.time_source)?,
        event_id: entry.event_id.clone(),
        event_type: entry.kind.clone(),
        request_id: entry.request_id.clone(),
        account_id: None,
        identity_mark: 0,
        request_mark: None,
        traceparent: None,
    })
}
