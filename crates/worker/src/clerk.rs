//! The clerk: makes every entry in the ledger, and knows whether the ledger takes entries.
//!
//! It retries nothing; whoever calls decides what a failure means. Each change between up and down is logged once.
//!
//! Nothing walks over the devices to resume what is paused on an online one: status and operations move in one atomic
//! step, and a registration is a sibling of it, so the two cannot come apart. What can be left behind is a command in
//! the outbox or an account whose devices were not all told, and the sweeper finishes both.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use porchlight_device::ledger::{Backlog, DeviceFilter};
use porchlight_device::view::{DevicePage, DeviceView, OperationView};
use porchlight_device::{Command, News, Outcome, Reason, Registration, Status};
use porchlight_ledger::{Ledger, LedgerError, PageError, RegisterError};
use porchlight_service::LogGate;
use tokio::sync::watch;

use crate::hold::Hold;
use crate::metrics::WorkerMetrics;
use crate::now_ms;

/// Most commands that one sweep claims; more than are sent in one interval would only be held back from others.
const CLAIM_MAX: usize = 1024;
/// The wait between probes when a hold's own would have run out.
const PROBE_WAIT_MAX: Duration = Duration::from_secs(2);

/// What the ledger made of one event.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is in the ledger for good.
    Settled {
        /// What became of it.
        outcome: Outcome,
        /// Why.
        reason: Reason,
        /// Newly owed.
        commands: Vec<Command>,
    },
    /// The ledger works and fails on this event: a defect, and no condition of its own.
    Refused,
    /// The ledger is away, full, read-only or slow: hold the event.
    Fault,
}

/// What a registration did.
pub(crate) struct Registered {
    /// As it stands now; nothing when it was forgotten at the same moment.
    pub(crate) operation: Option<OperationView>,
    /// Whether it was not there before.
    pub(crate) created: bool,
    /// Owed, because the device is offline.
    pub(crate) command: Option<Command>,
}

/// The ledger, with its condition.
pub(crate) struct Clerk {
    ledger: Ledger,
    condition: Mutex<Condition>,
    up: watch::Sender<bool>,
    takes_work: watch::Sender<bool>,
    metrics: Arc<WorkerMetrics>,
    log_gate: LogGate,
}

/// Two looks at the same ledger: one kind of call may work while another does not, so neither speaks for the other.
#[derive(Debug)]
struct Condition {
    works: bool,
    sweeps: bool,
    down_since: Instant,
}

/// Who noticed.
#[derive(Debug, Clone, Copy)]
enum Witness {
    Work,
    Sweep,
}

impl Clerk {
    /// Asks nothing yet: the ledger counts as down until its first answer.
    pub(crate) fn new(ledger: Ledger, metrics: Arc<WorkerMetrics>) -> Self {
        // Without a line about it: nothing has failed yet.
        let condition = Condition {
            works: false,
            sweeps: true,
            down_since: Instant::now(),
        };
        Self {
            ledger,
            condition: Mutex::new(condition),
            up: watch::Sender::new(false),
            takes_work: watch::Sender::new(false),
            metrics,
            log_gate: LogGate::default(),
        }
    }

    /// Whether the ledger is up, and every change of it.
    pub(crate) fn up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Whether the last attempt to take an event succeeded, and every change of it.
    pub(crate) fn takes_work(&self) -> watch::Receiver<bool> {
        self.takes_work.subscribe()
    }

    /// Applies events in one round trip; one answer for each, in order. `turn` spreads the calls over connections.
    pub(crate) async fn apply(&self, turn: usize, news: &[News]) -> Vec<Answer> {
        let answers = self.ledger.apply_batch(turn, news, now_ms()).await;
        let fault = answers
            .iter()
            .find_map(|answer| answer.as_ref().err().filter(|error| error.is_fault()));
        self.note(Witness::Work, fault);
        let answer = |answer: Result<_, LedgerError>| match answer {
            Ok(decision) => {
                let porchlight_device::Decision {
                    outcome,
                    reason,
                    commands,
                } = decision;
                Answer::Settled {
                    outcome,
                    reason,
                    commands,
                }
            }
            Err(error) if error.is_fault() => Answer::Fault,
            Err(error) => {
                if let Some(suppressed) = self.log_gate.admit(error.code()) {
                    tracing::error!(%error, suppressed, "the ledger fails on an event");
                }
                Answer::Refused
            }
        };
        answers.into_iter().map(answer).collect()
    }

    /// Whether the ledger takes a write that is no event.
    pub(crate) async fn probe(&self) -> bool {
        let probed = self.ledger.probe(now_ms()).await;
        self.note(Witness::Work, probed.as_ref().err());
        probed.is_ok()
    }

    /// Returns when the ledger takes writes. Asks again and again, at most every two seconds.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn until_back(&self) {
        let mut hold = Hold::new(Duration::from_secs(60));
        while !self.probe().await {
            tokio::time::sleep(hold.next_wait().unwrap_or(PROBE_WAIT_MAX)).await;
        }
        // It may be another one than before, or have other settings.
        for warning in self.ledger.warnings().await.unwrap_or_default() {
            tracing::warn!(address = self.ledger.address(), "{warning}");
        }
    }

    /// Notes that a command was delivered; whether the ledger knows it now.
    pub(crate) async fn confirm(&self, command: &Command) -> bool {
        let shard = usize::try_from(command.generation).unwrap_or_default();
        let confirmed = self
            .ledger
            .confirm(shard, std::slice::from_ref(command))
            .await
            .pop();
        matches!(confirmed, Some(Ok(_)))
    }

    /// Strikes a command off that is given up; whether the ledger took that.
    pub(crate) async fn give_up(&self, command: &Command) -> bool {
        self.ledger.give_up(command).await.is_ok()
    }

    /// Commands that are due, held back from other sweepers for a while. Nothing when the ledger fails.
    pub(crate) async fn claim(&self) -> Vec<Command> {
        self.swept(self.ledger.claim(now_ms(), CLAIM_MAX).await)
            .unwrap_or_default()
    }

    /// How much is owed; nothing when the ledger fails.
    pub(crate) async fn backlog(&self) -> Option<Backlog> {
        self.swept(self.ledger.backlog().await)
    }

    /// Tells the devices of accounts that were not all told. What they owe then is in the outbox.
    pub(crate) async fn finish_spreads(&self) {
        if let Some(spread) = self.swept(self.ledger.spread_pending(now_ms()).await)
            && spread.accounts > 0
        {
            tracing::info!(
                accounts = spread.accounts,
                commands = spread.commands.len(),
                "accounts told to the end"
            );
        }
    }

    /// Registers an operation, and shows it as it stands afterwards.
    pub(crate) async fn register(
        &self,
        device_id: &str,
        registration: &Registration,
    ) -> Result<Registered, RegisterError> {
        let id = &registration.operation_id;
        // Two at once may both say that they created it; only the status of the answer depends on it.
        let before = self.ledger.device(device_id).await?;
        let created = before.is_none_or(|device| !device.operations.contains_key(id));
        let command = self.ledger.register(device_id, registration, now_ms()).await?;
        let shown = self.ledger.device_view(device_id).await?;
        let operation = shown.and_then(|device| device.operations.into_iter().find(|found| found.id == *id));
        Ok(Registered {
            operation,
            created,
            command,
        })
    }

    /// Forgets an operation; whether there was one.
    pub(crate) async fn forget(&self, device_id: &str, operation_id: &str) -> Result<bool, LedgerError> {
        self.ledger.forget(device_id, operation_id).await
    }

    /// One device as it is shown.
    pub(crate) async fn device(&self, device_id: &str) -> Result<Option<DeviceView>, LedgerError> {
        self.ledger.device_view(device_id).await
    }

    /// One page of devices.
    pub(crate) async fn devices(
        &self,
        account_id: Option<String>,
        status: Option<Status>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<DevicePage, PageError> {
        self.ledger
            .devices(&DeviceFilter { account_id, status }, cursor, limit)
            .await
    }

    fn swept<T>(&self, result: Result<T, LedgerError>) -> Option<T> {
        match result {
            Ok(found) => {
                self.note(Witness::Sweep, None);
                Some(found)
            }
            Err(error) if error.is_fault() => {
                self.note(Witness::Sweep, Some(&error));
                None
            }
            // The ledger works and something in it is wrong: no reason to take no events.
            Err(error) => {
                if let Some(suppressed) = self.log_gate.admit("sweep") {
                    tracing::error!(%error, suppressed, "the ledger fails on what it owes");
                }
                None
            }
        }
    }

    fn note(&self, witness: Witness, error: Option<&LedgerError>) {
        let mut condition = self.lock();
        let was_up = condition.works && condition.sweeps;
        match witness {
            Witness::Work => condition.works = error.is_none(),
            Witness::Sweep => condition.sweeps = error.is_none(),
        }
        let works = condition.works;
        self.takes_work
            .send_if_modified(|known| std::mem::replace(known, works) != works);
        let is_up = works && condition.sweeps;
        // The first answer is a change, too, from not knowing.
        if let (true, Some(error)) = (was_up, error) {
            condition.down_since = Instant::now();
            tracing::warn!(%error, code = error.code(), address = self.ledger.address(), "the ledger fails; events are held");
        } else if is_up && !was_up {
            let down_ms = u64::try_from(condition.down_since.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(
                duration_ms = down_ms,
                address = self.ledger.address(),
                "the ledger takes events"
            );
        }
        if is_up != was_up {
            self.metrics.set_ledger_up(is_up);
            self.up.send_replace(is_up);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
