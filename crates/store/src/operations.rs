//! Registering and forgetting operations: atomic siblings of what an event does.
//!
//! It does not list them; a device is shown whole, see [`crate::devices`].

use crate::accounts::Registers;
use crate::apply::{given, json};
use crate::keys::Place;
use crate::script::Script;
use crate::{Store, StoreError, reply};
use porchlight_device::operation::OPERATIONS_MAX;
use porchlight_device::{Action, Cause, Command, Registration, RegistrationError};
use redis::Value;

/// Attempts to register while the device moves between accounts.
const ROUNDS_MAX: usize = 5;

/// Why an operation was not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The registration is not acceptable; nothing was changed.
    #[error(transparent)]
    Refused(#[from] RegistrationError),
    /// The store failed; the operation may or may not be registered. Registering again is right.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
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
        let (place, shard) = (Place::of(device_id), self.any_shard());
        let times = self.times(now_ms);
        let cause = Cause {
            event_id: registration.operation_id.clone(),
            request_id: None,
            kind: "registration".to_owned(),
            timestamp: now_ms,
            traceparent: None,
        };
        let mut registers = None;
        for _ in 0..ROUNDS_MAX {
            let call = Script::Register
                .call(&place.device_keys())
                .arg(device_id)
                .arg(&registration.operation_id)
                .arg(given(registration.account_id.as_deref()))
                .arg(&registration.kind)
                .arg(&registration.params)
                .arg(json(&cause))
                .arg(now_ms)
                .arg(times.due_ms)
                .arg(times.due_resume_ms);
            let call = Registers::add_to(registers.as_ref(), call).arg(OPERATIONS_MAX);
            let mut answer = reply::list(self.run_one(shard, call).await?)?.into_iter();
            let mut next = || reply::text(answer.next().unwrap_or(Value::Nil));
            match (next()?.as_str(), next()?) {
                ("account", account) => {
                    let touched = self.touch_accounts(shard, vec![(place, account)]).await.pop();
                    registers = Some(touched.unwrap_or(Err(StoreError::Contended))?);
                }
                ("refused", code) => return Err(refusal(&code)),
                (_, entry) if entry.is_empty() => return Ok(None),
                (_, entry) => {
                    let command = reply::command(entry.as_bytes())?;
                    let waits = self.resumes_later() && command.action == Action::Resume;
                    return Ok(Some(command).filter(|_| !waits));
                }
            }
        }
        Err(StoreError::Contended.into())
    }

    /// Forgets an operation and drops what it owes; whether there was one.
    ///
    /// # Errors
    /// [`StoreError`]; it may or may not be forgotten.
    pub async fn forget(&self, device_id: &str, operation_id: &str) -> Result<bool, StoreError> {
        let place = Place::of(device_id);
        let partition = place.partition;
        let keys = [
            place.device(),
            place.operations(),
            partition.outbox(),
            partition.due(),
            partition.owed_since(),
        ];
        let call = Script::Forget.call(&keys).arg(operation_id);
        Ok(reply::number(&self.run_one(self.any_shard(), call).await?)? == 1)
    }
}

fn refusal(code: &str) -> RegisterError {
    let known = [
        RegistrationError::DeviceRemoved,
        RegistrationError::AccountMismatch,
        RegistrationError::TooMany,
    ];
    match known.into_iter().find(|error| error.code() == code) {
        Some(error) => error.into(),
        None => StoreError::Unreadable("a refusal").into(),
    }
}
