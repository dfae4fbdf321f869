//! The ledger in SQLite: duplicate marks, device states, operations and owed commands, each event one atomic step.
//!
//! It decides nothing: it runs the steps of [`porchlight_device::records`] on the rows of one file, inside the writer's
//! transaction. Nothing is kept in memory between two calls, because an operator's command may write to the same file
//! at any moment.
//!
//! An account and its devices are in one file, so news of an account reaches all its devices in the step that takes it.

mod carry;
mod error;
mod outbox;
mod pack;
mod pages;
mod predict;
mod records;
mod rows;

use std::collections::BTreeMap;
use std::time::Duration;

use porchlight_device::ledger::{Backlog, DeviceFilter, HOLD_MS_MAX, Spread};
use porchlight_device::records as steps;
use porchlight_device::view::{DevicePage, DeviceView};
use porchlight_device::{Action, Command, Decision, Device, News, OweAgain, Registration, Status};
use porchlight_event::queue::QueueState;
use rusqlite::Connection;
use tokio::time::Instant;

use crate::error::{JournalError, WorkError};
use crate::file::FILE;
use crate::journal::Journal;
pub use error::{PageError, RegisterError};
pub(crate) use outbox::release_claimed;
use pages::Cursor;
use records::Rows;

/// How long one call may take. A commit is far shorter; an operator's command that writes beside us may hold it up.
const ANSWER_MAX: Duration = Duration::from_secs(6);
/// Longest settle time and head start.
const SPAN_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// When commands are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerConfig {
    /// How long a device must stay online before its operations are resumed; more than a day counts as a day. Not given
    /// to the fast path: a resume is then only ever claimed.
    pub settle: Duration,
    /// How long the one that made a command owed has to send it, before a sweeper may; at most a day.
    pub head_start: Duration,
}

/// The ledger of one machine. A cheap handle; clones share the journal.
#[derive(Debug, Clone)]
pub struct Ledger {
    journal: Journal,
    settle_ms: i64,
    head_start_ms: i64,
}

/// When something happens, and when what it owes is to be sent, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy)]
struct Times {
    now_ms: i64,
    due_ms: i64,
    due_resume_ms: i64,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            settle: Duration::ZERO,
            head_start: Duration::from_secs(2),
        }
    }
}

impl Ledger {
    /// The ledger in this journal.
    #[must_use]
    pub fn new(journal: Journal, config: LedgerConfig) -> Self {
        let milliseconds = |span: Duration| i64::try_from(span.min(SPAN_MAX).as_millis()).unwrap_or(i64::MAX);
        Self {
            journal,
            settle_ms: milliseconds(config.settle),
            head_start_ms: milliseconds(config.head_start),
        }
    }

    /// The file's path.
    #[must_use]
    pub fn address(&self) -> String {
        self.journal.config().dir.join(FILE).display().to_string()
    }

    /// Takes events, in order, in one transaction; 64 to 128 at once keep its cost for each small. One result for each,
    /// in the same order.
    ///
    /// The commands of a decision are in the outbox already. They are given back to be sent at once; a resume that has
    /// to wait for its device to settle is not among them.
    ///
    /// # Errors
    /// Each event has its own: `Unreadable` is about one of them, which had no effect then; any other is everybody's.
    /// After a [`JournalError`] the event may or may not have had its effect: take it again.
    ///
    /// # Cancel safety
    /// Dropped, all events had their effect or none; their commands then come from [`Ledger::claim`].
    pub async fn apply_batch(&self, news: &[News], now_ms: i64) -> Vec<Result<Decision, JournalError>> {
        let (events, times) = (news.to_vec(), self.times(now_ms));
        let applied = self
            .journal
            .write(deadline(), move |connection| {
                apply_all(connection, &events, times)
            })
            .await;
        match applied {
            Err(error) => vec![Err(error); news.len()],
            Ok(mut results) => {
                for decision in results.iter_mut().flatten() {
                    decision.commands.retain(|command| !self.waits(command));
                }
                results
            }
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
        registration.check()?;
        let (device_id, registration) = (device_id.to_owned(), registration.clone());
        let registered = self
            .change(self.times(now_ms), move |rows| {
                steps::register(rows, &device_id, &registration, now_ms)
            })
            .await??;
        Ok(registered.filter(|command| !self.waits(command)))
    }

    /// Forgets an operation and drops what it owes; whether there was one.
    ///
    /// # Errors
    /// [`JournalError`]; it may or may not be forgotten.
    pub async fn forget(&self, device_id: &str, operation_id: &str) -> Result<bool, JournalError> {
        let (device_id, operation_id) = (device_id.to_owned(), operation_id.to_owned());
        self.change(self.times(0), move |rows| {
            steps::forget(rows, &device_id, &operation_id)
        })
        .await
    }

    /// Takes commands that are due, the longest due first, and holds each back from other sweepers for 5 s, and about
    /// twice as long with every attempt, up to 5 min; see [`porchlight_device::ledger::hold_ms`]. At most `limit`, and
    /// 1024. A command stays owed until it is confirmed or given up. When a daemon opens the journal, nothing is held
    /// back any longer: there is no other sweeper.
    ///
    /// # Errors
    /// [`JournalError`]; what was claimed then becomes due again by itself.
    pub async fn claim(&self, now_ms: i64, limit: usize) -> Result<Vec<Command>, JournalError> {
        let horizon_ms = now_ms.saturating_add(self.settle_ms.max(self.head_start_ms).max(HOLD_MS_MAX));
        let look = move |connection: &Connection| outbox::is_due(connection, now_ms, horizon_ms);
        if !self.journal.read(deadline(), look).await? {
            return Ok(Vec::new());
        }
        let claim = move |connection: &Connection| outbox::claim(connection, now_ms, horizon_ms, limit);
        self.journal.write(deadline(), claim).await
    }

    /// Notes that commands were delivered: each is owed no longer, and a resumed operation runs again. A command that a
    /// newer one replaced changes nothing. One result for each: whether it was still owed.
    ///
    /// # Errors
    /// Each has its own [`JournalError`]. A command whose confirmation failed is sent again, under the same identity.
    pub async fn confirm(&self, delivered: &[Command]) -> Vec<Result<bool, JournalError>> {
        let (commands, times) = (delivered.to_vec(), self.times(0));
        let confirm = move |connection: &Connection| {
            let mut rows = Rows::new(connection, times)?;
            let confirmed = each(&mut rows, &commands, |rows, command| {
                steps::confirm(rows, command)
            })?;
            rows.finish()?;
            Ok(confirmed)
        };
        match self.journal.write(deadline(), confirm).await {
            Ok(results) => results,
            Err(error) => vec![Err(error); delivered.len()],
        }
    }

    /// Strikes a command off that could not be delivered within its time and was dead-lettered; whether it was still
    /// owed. Its operation stays as it is.
    ///
    /// # Errors
    /// [`JournalError`]; it may or may not be owed still.
    pub async fn give_up(&self, command: &Command) -> Result<bool, JournalError> {
        let command = command.clone();
        self.change(self.times(0), move |rows| steps::give_up(rows, &command))
            .await
    }

    /// Owes a command again that was given up, due now, unless its operation is gone or went on since.
    ///
    /// # Errors
    /// [`JournalError`]; it may or may not be owed.
    pub async fn owe_again(&self, command: &Command, now_ms: i64) -> Result<OweAgain, JournalError> {
        let command = command.clone();
        let now = Times {
            now_ms,
            due_ms: now_ms,
            due_resume_ms: now_ms,
        };
        let owe = move |connection: &Connection| {
            let mut rows = Rows::new(connection, now)?;
            let again = steps::owe_again(&mut rows, &command, now_ms)?;
            rows.finish()?;
            if again == OweAgain::Owed {
                outbox::hasten(connection, &command, now_ms)?;
            }
            Ok(again)
        };
        self.journal.write(deadline(), owe).await
    }

    /// How much is owed.
    ///
    /// # Errors
    /// [`JournalError`]
    pub async fn backlog(&self) -> Result<Backlog, JournalError> {
        self.journal.read(deadline(), outbox::backlog).await
    }

    /// Nothing is ever left to be told: an account's news reaches its devices in the step that takes it.
    #[must_use]
    pub fn spread_pending(&self) -> Spread {
        Spread::default()
    }

    /// One device with everything that is remembered of it but its history; `None` when it was never heard of.
    ///
    /// # Errors
    /// [`JournalError`]
    pub async fn device(&self, device_id: &str) -> Result<Option<Device>, JournalError> {
        let device_id = device_id.to_owned();
        let look = move |connection: &Connection| pages::device(connection, &device_id);
        let found = self.journal.read(deadline(), look).await?;
        Ok(found.map(|(device, _)| device))
    }

    /// One device as it is shown; `None` when it was never heard of.
    ///
    /// # Errors
    /// [`JournalError`]
    pub async fn device_view(&self, device_id: &str) -> Result<Option<DeviceView>, JournalError> {
        let device_id = device_id.to_owned();
        let look = move |connection: &Connection| pages::device(connection, &device_id);
        let found = self.journal.read(deadline(), look).await?;
        Ok(found.map(|(device, history)| DeviceView::new(device, history)))
    }

    /// One page of devices, in a stable order that means nothing else; at most `limit`, which is cut to
    /// [`porchlight_device::ledger::PAGE_DEVICES_MAX`]. A page may be shorter, or empty, and still have a next one.
    ///
    /// # Errors
    /// [`PageError`]
    pub async fn devices(
        &self,
        filter: &DeviceFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<DevicePage, PageError> {
        let after = match cursor {
            None => None,
            Some(text) => Some(Cursor::read(text).ok_or(PageError::BadCursor)?),
        };
        let filter = filter.clone();
        let look = move |connection: &Connection| pages::page(connection, &filter, after, limit);
        Ok(self.journal.read(deadline(), look).await?)
    }

    /// How many devices there are of each status.
    ///
    /// # Errors
    /// [`JournalError`]
    pub async fn counts(&self) -> Result<BTreeMap<Status, u64>, JournalError> {
        self.journal.read(deadline(), pages::counts).await
    }

    /// Proves that it takes a write now.
    ///
    /// # Errors
    /// [`JournalError`], when it does not.
    pub async fn probe(&self, now_ms: i64) -> Result<(), JournalError> {
        let prove = move |connection: &Connection| {
            let mut write =
                connection.prepare_cached("INSERT OR REPLACE INTO ledger_proof VALUES (1, ?1)")?;
            write.execute([now_ms])?;
            Ok(())
        };
        self.journal.write(deadline(), prove).await
    }

    /// Whether what it is given comes to the disk: the last attempt to write there succeeded.
    #[must_use]
    pub fn takes_writes(&self) -> bool {
        self.journal.working_state().borrow().is_ready()
    }

    /// What an operator should be warned of, one sentence for each.
    #[must_use]
    pub fn warnings(&self) -> Vec<&'static str> {
        match *self.journal.state().borrow() {
            QueueState::Blocked { .. } => {
                vec![
                    "the journal takes no more events: it holds as much as it may, or its disk refuses writes",
                ]
            }
            _ => Vec::new(),
        }
    }

    /// One step on the records, in a piece of work of its own.
    async fn change<T: Send + 'static>(
        &self,
        times: Times,
        step: impl FnOnce(&mut Rows) -> Result<T, WorkError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let work = move |connection: &Connection| {
            let mut rows = Rows::new(connection, times)?;
            let done = step(&mut rows)?;
            rows.finish()?;
            Ok(done)
        };
        self.journal.write(deadline(), work).await
    }

    /// Whether a command is left to the sweeper, because its device must first stay online for a while.
    fn waits(&self, command: &Command) -> bool {
        self.settle_ms > 0 && command.action == Action::Resume
    }

    fn times(&self, now_ms: i64) -> Times {
        let due_ms = now_ms.saturating_add(self.head_start_ms);
        let settled_ms = now_ms.saturating_add(self.settle_ms);
        Times {
            now_ms,
            due_ms,
            due_resume_ms: if self.settle_ms > 0 { settled_ms } else { due_ms },
        }
    }
}

fn deadline() -> Instant {
    Instant::now() + ANSWER_MAX
}

fn apply_all(
    connection: &Connection,
    events: &[News],
    times: Times,
) -> Result<Vec<Result<Decision, JournalError>>, WorkError> {
    let mut rows = Rows::new(connection, times)?;
    rows.drop_old_marks()?;
    let results = each(&mut rows, events, |rows, news| {
        steps::apply(rows, news, times.now_ms)
    })?;
    rows.finish()?;
    Ok(results)
}

/// Takes one step for each. A record that cannot be read fails the step that needs it, which has not stored anything
/// then; everything else fails all.
fn each<A, T>(
    rows: &mut Rows,
    all: &[A],
    mut step: impl FnMut(&mut Rows, &A) -> Result<T, WorkError>,
) -> Result<Vec<Result<T, JournalError>>, WorkError> {
    let mut results = Vec::with_capacity(all.len());
    for one in all {
        rows.has_stored = false;
        match step(rows, one) {
            Ok(done) => results.push(Ok(done)),
            Err(error @ WorkError::Unreadable(_)) if !rows.has_stored => results.push(Err(error.into())),
            Err(error) => return Err(error),
        }
    }
    Ok(results)
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
