//! The ledger's records in the file: loaded and stored one by one, within the writer's transaction.
//!
//! It does not decide anything; [`porchlight_device::records`] does, with these records as with those of the reference
//! model.
//!
//! A device's row is found by its *place*: the first half of its id's hash as an integer. The id is in the row, and
//! where two ids have one place, the later one takes the next place that is free; no row is ever deleted.

use std::collections::BTreeMap;

use porchlight_device::marks;
use porchlight_device::place::PARTITIONS;
use porchlight_device::records::{Line, Records};
use porchlight_device::{AccountRegisters, Action, Command, Device, News, Operation, Place, Status, Subject};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::Times;
use super::rows;
use crate::error::WorkError;

/// Marks that nobody looks up any more are deleted this many at a time: more than a batch of events brings, so that
/// they cannot pile up, and few enough for no transaction to become long.
const OLD_MARKS_AT_ONCE: i64 = 256;

/// Records as one piece of the writer's work sees them.
pub(super) struct Rows<'c> {
    connection: &'c Connection,
    times: Times,
    /// Generations that marks are looked up in, the current one first. Empty ones are left out.
    generations: Vec<i64>,
    /// By how much the count of each status changed.
    counted: [i64; Status::ALL.len()],
    /// Something of the step at hand is stored already.
    pub(super) has_stored: bool,
    find_mark: CachedStatement<'c>,
    add_mark: CachedStatement<'c>,
    find_device: CachedStatement<'c>,
    write_body: CachedStatement<'c>,
}

/// The row that a device was loaded from.
pub(super) struct Row {
    place: i64,
    /// `None` when there is no row yet.
    stored: Option<Stored>,
    /// A history from elsewhere, for a device that has none here.
    pub(super) brought: Option<Vec<u8>>,
}

struct Stored {
    account: Option<i64>,
    body: Vec<u8>,
    history_at: usize,
    status: Status,
    operations: BTreeMap<String, Operation>,
    owed: BTreeMap<String, Command>,
}

impl Row {
    fn history(&self) -> &[u8] {
        match (&self.brought, &self.stored) {
            (Some(brought), _) => brought,
            (None, Some(stored)) => &stored.body[stored.history_at..],
            (None, None) => &[],
        }
    }

    /// Whether there is a line of history.
    pub(super) fn has_history(&self) -> bool {
        self.history().first().is_some_and(|lines| *lines > 0)
    }
}

/// The integer by which a row with this id is found.
pub(super) fn number_of(id: &str) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = Place::of(id).hash;
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// A device's row as it lies in the file.
pub(super) struct Found {
    account: Option<i64>,
    pub(super) body: Vec<u8>,
}

/// Reads the row of a device, which is at its place or behind it: where it is, or where it would be.
pub(super) fn find(
    find_device: &mut CachedStatement,
    device_id: &str,
) -> Result<(i64, Option<Found>), WorkError> {
    let mut place = number_of(device_id);
    loop {
        let mut found = find_device.query([place])?;
        let Some(row) = found.next()? else {
            return Ok((place, None));
        };
        let body = row.get_ref(1)?.as_blob().map_err(|_| ODD)?;
        if rows::unpack_id(body).ok_or(ODD)? == device_id {
            let (account, body) = (row.get(0)?, body.to_vec());
            return Ok((place, Some(Found { account, body })));
        }
        place = place.wrapping_add(1);
    }
}

/// Reads a device's operations and what they owe into it.
pub(super) fn load_operations(
    connection: &Connection,
    place: i64,
    device: &mut Device,
) -> Result<(), WorkError> {
    let mut statement = connection.prepare_cached(LOAD_OPERATIONS)?;
    let mut found = statement.query([place])?;
    while let Some(row) = found.next()? {
        let id: String = row.get(0)?;
        let body = row.get_ref(1)?.as_blob().map_err(|_| ODD_OPERATION)?;
        let operation = rows::unpack_operation(id.clone(), body).ok_or(ODD_OPERATION)?;
        if let Some(owed) = row.get_ref(2)?.as_blob_or_null().map_err(|_| ODD_COMMAND)? {
            let command = rows::unpack_command(owed).ok_or(ODD_COMMAND)?;
            device.owed.insert(id.clone(), command);
        }
        device.operations.insert(id, operation);
    }
    Ok(())
}

pub(super) const FIND_DEVICE: &str = "SELECT account, body FROM devices WHERE place = ?1";
pub(super) const ODD: WorkError = WorkError::Unreadable("a device");
pub(super) const ODD_ACCOUNT: WorkError = WorkError::Unreadable("an account");
const ODD_OPERATION: WorkError = WorkError::Unreadable("an operation");
const ODD_COMMAND: WorkError = WorkError::Unreadable("an owed command");

const LOAD_OPERATIONS: &str = "SELECT id, body, owed FROM operations WHERE place = ?1";
const WRITE_OPERATION: &str = "INSERT INTO operations (place, id, body) VALUES (?1, ?2, ?3)
    ON CONFLICT DO UPDATE SET body = excluded.body";
const WRITE_OPERATION_AND_OWED: &str = "
    INSERT INTO operations (place, id, body, owed, since, first_due, due) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
    ON CONFLICT DO UPDATE SET body = excluded.body, owed = excluded.owed, since = excluded.since,
        first_due = excluded.first_due, due = excluded.due";

impl<'c> Rows<'c> {
    pub(super) fn new(connection: &'c Connection, times: Times) -> Result<Self, WorkError> {
        let oldest: Option<i64> = connection
            .prepare_cached("SELECT slot FROM marks ORDER BY slot LIMIT 1")?
            .query_row([], |row| row.get(0))
            .optional()?;
        let oldest = oldest.map_or(i64::MAX, |slot| slot.div_euclid(SLOTS));
        let mut generations = vec![marks::generation(times.now_ms)];
        generations.extend(marks::neighbours(times.now_ms).filter(|known| *known >= oldest));
        Ok(Self {
            connection,
            times,
            generations,
            counted: [0; Status::ALL.len()],
            has_stored: false,
            find_mark: connection.prepare_cached("SELECT 1 FROM marks WHERE slot = ?1 AND mark = ?2")?,
            add_mark: connection.prepare_cached("INSERT OR IGNORE INTO marks VALUES (?1, ?2)")?,
            find_device: connection.prepare_cached(FIND_DEVICE)?,
            write_body: connection.prepare_cached("UPDATE devices SET body = ?2 WHERE place = ?1")?,
        })
    }

    /// Deletes some of the marks that nobody looks up any more.
    pub(super) fn drop_old_marks(&self) -> Result<(), WorkError> {
        let used_from = (marks::generation(self.times.now_ms.saturating_sub(2 * marks::SKEW_MS)) - 1) * SLOTS;
        let mut delete = self.connection.prepare_cached(
            "DELETE FROM marks WHERE (slot, mark) IN
                (SELECT slot, mark FROM marks WHERE slot < ?1 ORDER BY slot, mark LIMIT ?2)",
        )?;
        delete.execute(params![used_from, OLD_MARKS_AT_ONCE])?;
        Ok(())
    }

    /// Writes what was counted meanwhile; the last step of a piece of work.
    pub(super) fn finish(self) -> Result<(), WorkError> {
        let mut count = self
            .connection
            .prepare_cached("UPDATE counts SET devices = devices + ?2 WHERE status = ?1")?;
        for (status, change) in self.counted.into_iter().enumerate() {
            if change != 0 {
                count.execute(params![status, change])?;
            }
        }
        Ok(())
    }

    fn count(&mut self, status: Status, change: i64) {
        self.counted[usize::from(rows::place_in(&Status::ALL, &status))] += change;
    }

    fn write_operations(
        &self,
        place: i64,
        device: &Device,
        before: Option<&Stored>,
    ) -> Result<(), WorkError> {
        for (id, operation) in &device.operations {
            let known = before.and_then(|before| before.operations.get(id));
            let (owed, owed_before) = (device.owed.get(id), before.and_then(|before| before.owed.get(id)));
            if owed != owed_before {
                let since = owed.map(|_| self.times.now_ms);
                let due = owed.map(|command| match command.action {
                    Action::Resume => self.times.due_resume_ms,
                    Action::Pause | Action::Cancel => self.times.due_ms,
                });
                let (body, owed) = (rows::pack_operation(operation), owed.map(rows::pack_command));
                self.connection
                    .prepare_cached(WRITE_OPERATION_AND_OWED)?
                    .execute(params![place, id, body, owed, since, due])?;
            } else if known != Some(operation) {
                let body = rows::pack_operation(operation);
                self.connection
                    .prepare_cached(WRITE_OPERATION)?
                    .execute(params![place, id, body])?;
            }
        }
        let forgotten = before.into_iter().flat_map(|before| before.operations.keys());
        for id in forgotten.filter(|id| !device.operations.contains_key(*id)) {
            self.connection
                .prepare_cached("DELETE FROM operations WHERE place = ?1 AND id = ?2")?
                .execute(params![place, id])?;
        }
        Ok(())
    }
}

/// Marks of one generation lie in this many slots, one for each partition.
pub(super) const SLOTS: i64 = PARTITIONS as i64;

impl Records for Rows<'_> {
    type Error = WorkError;
    type Row = Row;

    fn is_marked(&mut self, news: &News) -> Result<bool, WorkError> {
        self.has_stored = false;
        let partition = partition(news);
        for generation in &self.generations {
            let slot = generation * SLOTS + partition;
            for mark in std::iter::once(news.identity_mark).chain(news.request_mark) {
                if self.find_mark.exists([slot, mark])? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn mark(&mut self, news: &News) -> Result<(), WorkError> {
        let slot = self.generations[0] * SLOTS + partition(news);
        for mark in std::iter::once(news.identity_mark).chain(news.request_mark) {
            self.add_mark.execute([slot, mark])?;
        }
        Ok(())
    }

    fn device(&mut self, device_id: &str) -> Result<(Device, Row), WorkError> {
        let (place, found) = find(&mut self.find_device, device_id)?;
        let Some(Found { account, body }) = found else {
            return Ok((
                Device::new(device_id),
                Row {
                    place,
                    stored: None,
                    brought: None,
                },
            ));
        };
        let read = rows::unpack_device(&body).ok_or(ODD)?;
        let mut device = read.device;
        if read.operations > 0 {
            load_operations(self.connection, place, &mut device)?;
        }
        let stored = Stored {
            account,
            body,
            history_at: read.history_at,
            status: device.status,
            operations: device.operations.clone(),
            owed: device.owed.clone(),
        };
        Ok((
            device,
            Row {
                place,
                stored: Some(stored),
                brought: None,
            },
        ))
    }

    fn store_device(&mut self, row: Row, device: Device, line: Option<Line>) -> Result<(), WorkError> {
        let place = row.place;
        let history = row.history();
        let lengthened = match &line {
            Some(line) => Some(rows::lengthened(history, line, &device.device_id).ok_or(ODD)?),
            None => None,
        };
        let body = rows::pack_device(&device, lengthened.as_deref().unwrap_or(history));
        let account = device.account_id.as_deref().map(number_of);
        self.has_stored = true;
        match &row.stored {
            None => {
                let mut insert = self
                    .connection
                    .prepare_cached("INSERT INTO devices VALUES (?1, ?2, ?3)")?;
                insert.execute(params![place, account, body])?;
            }
            Some(stored) if stored.account != account => {
                let mut update = self
                    .connection
                    .prepare_cached("UPDATE devices SET account = ?2, body = ?3 WHERE place = ?1")?;
                update.execute(params![place, account, body])?;
            }
            Some(stored) if stored.body != body => {
                self.write_body.execute(params![place, body])?;
            }
            Some(_) => {}
        }
        match row.stored.as_ref().map(|stored| stored.status) {
            None => self.count(device.status, 1),
            Some(before) if before != device.status => {
                self.count(before, -1);
                self.count(device.status, 1);
            }
            Some(_) => {}
        }
        self.write_operations(place, &device, row.stored.as_ref())
    }

    fn account(&mut self, account_id: &str) -> Result<AccountRegisters, WorkError> {
        let mut find = self
            .connection
            .prepare_cached("SELECT body FROM accounts WHERE id = ?1")?;
        let mut found = find.query([account_id])?;
        match found.next()? {
            None => Ok(AccountRegisters::default()),
            Some(row) => {
                let body = row.get_ref(0)?.as_blob().map_err(|_| ODD_ACCOUNT)?;
                rows::unpack_account(body).ok_or(ODD_ACCOUNT)
            }
        }
    }

    fn store_account(&mut self, account_id: &str, registers: &AccountRegisters) -> Result<(), WorkError> {
        self.has_stored = true;
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO accounts VALUES (?1, ?2)")?
            .execute(params![account_id, rows::pack_account(registers)])?;
        Ok(())
    }

    /// Loads each of them once, so that one that cannot be read is found before anything is stored.
    fn devices_of(&mut self, account_id: &str) -> Result<Vec<String>, WorkError> {
        let mut find = self
            .connection
            .prepare_cached("SELECT body FROM devices WHERE account = ?1")?;
        let mut found = find.query([number_of(account_id)])?;
        let mut devices = Vec::new();
        while let Some(row) = found.next()? {
            let body = row.get_ref(0)?.as_blob().map_err(|_| ODD)?;
            let summary = rows::unpack_summary(body).ok_or(ODD)?;
            if summary.account_id.as_deref() == Some(account_id) {
                self.device(&summary.device_id)?;
                devices.push(summary.device_id);
            }
        }
        devices.sort();
        Ok(devices)
    }
}

fn partition(news: &News) -> i64 {
    let (Subject::Device(id) | Subject::Account(id) | Subject::Other(id)) = &news.subject;
    Place::of(id).partition.into()
}
