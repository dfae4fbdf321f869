//! Reading the server's answers: each function takes one value apart or says that it has another form.
//!
//! It does not know which call an answer belongs to.

use crate::StoreError;
use crate::record::unpack;
use porchlight_device::{Action, ActionCounts, Cause, Command};
use redis::Value;

const ODD: StoreError = StoreError::Unreadable("an answer of an unexpected form");

pub(crate) fn list(value: Value) -> Result<Vec<Value>, StoreError> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        _ => Err(ODD),
    }
}

pub(crate) fn text(value: Value) -> Result<String, StoreError> {
    optional_text(value)?.ok_or(ODD)
}

pub(crate) fn optional_text(value: Value) -> Result<Option<String>, StoreError> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| ODD),
        Value::SimpleString(text) => Ok(Some(text)),
        Value::Okay => Ok(Some("OK".to_owned())),
        Value::Int(number) => Ok(Some(number.to_string())),
        Value::Nil => Ok(None),
        _ => Err(ODD),
    }
}

pub(crate) fn texts(value: Value) -> Result<Vec<String>, StoreError> {
    list(value)?.into_iter().map(text).collect()
}

pub(crate) fn number(value: &Value) -> Result<i64, StoreError> {
    match value {
        Value::Int(number) => Ok(*number),
        Value::BulkString(bytes) => std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(ODD),
        Value::Nil => Ok(0),
        _ => Err(ODD),
    }
}

/// Reads how many commands: pauses, resumes, cancels.
pub(crate) fn action_counts(values: &[Value]) -> Result<ActionCounts, StoreError> {
    let [pause, resume, cancel] = values else {
        return Err(ODD);
    };
    let count = |value| u64::try_from(number(value)?).map_err(|_| ODD);
    Ok(ActionCounts {
        pause: count(pause)?,
        resume: count(resume)?,
        cancel: count(cancel)?,
    })
}

/// Reads entries of the outbox, sorted by device and operation.
pub(crate) fn commands(value: Value) -> Result<Vec<Command>, StoreError> {
    let mut commands = Vec::new();
    for entry in list(value)? {
        let Value::BulkString(bytes) = entry else {
            return Err(ODD);
        };
        commands.push(command(&bytes)?);
    }
    sort(&mut commands);
    Ok(commands)
}

/// As [`commands`], but an entry that cannot be read is left out: it must not stand in the way of the others.
pub(crate) fn readable_commands(value: Value) -> Result<Vec<Command>, StoreError> {
    let mut commands = Vec::new();
    for entry in list(value)? {
        match entry {
            Value::BulkString(bytes) => match read_command(&bytes) {
                Some(command) => commands.push(command),
                None => tracing::warn!("an owed command cannot be read and is left where it is"),
            },
            _ => return Err(ODD),
        }
    }
    sort(&mut commands);
    Ok(commands)
}

/// Puts commands into the order that the reference model gives them in.
pub(crate) fn sort(commands: &mut [Command]) {
    commands.sort_by(|a, b| (&a.device_id, &a.operation_id).cmp(&(&b.device_id, &b.operation_id)));
}

/// Reads one entry of the outbox.
pub(crate) fn command(entry: &[u8]) -> Result<Command, StoreError> {
    read_command(entry).ok_or(StoreError::Unreadable("an entry of the outbox"))
}

fn read_command(entry: &[u8]) -> Option<Command> {
    let mut values = unpack(entry)?.into_iter();
    let mut next = || values.next().flatten();
    let action = Action::from_code(&next()?)?;
    let generation = next()?.parse().ok()?;
    let (operation_id, kind, params, device_id) = (next()?, next()?, next()?, next()?);
    let account_id = next();
    let cause: Cause = serde_json::from_str(&next()?).ok()?;
    let issued_at_ms = next()?.parse().ok()?;
    Some(Command {
        action,
        generation,
        operation_id,
        kind,
        params,
        device_id,
        account_id,
        cause,
        issued_at_ms,
    })
}
