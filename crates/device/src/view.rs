//! What is shown of the ledger: the JSON answers of the control API and of the operator's tool.
//!
//! Field names are promised to partners; a ledger fills them, nothing here decides.

use crate::{Device, Operation, Reason};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Entries of history kept for each device: enough to explain a bad day, small enough to keep for every device.
pub const HISTORY_ENTRIES_MAX: usize = 20;

/// One device, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceView {
    /// Ring's id.
    pub device_id: String,
    /// The account it belongs to.
    pub account_id: Option<String>,
    /// `online`, `offline`, `removed` or `unknown`.
    pub status: String,
    /// When it last changed, by the event's clock, in milliseconds since the epoch.
    pub status_since: Option<i64>,
    /// The event that arrived last and was no duplicate.
    pub last_event: Option<LastEvent>,
    /// Registered operations, by id.
    pub operations: Vec<OperationView>,
    /// Newest first, at most [`HISTORY_ENTRIES_MAX`].
    pub history: Vec<HistoryEntry>,
}

/// The event that arrived last and was no duplicate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastEvent {
    /// `data.id`.
    pub event_id: String,
    /// `meta.request_id`.
    pub request_id: Option<String>,
    /// `data.type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it happened, in milliseconds since the epoch.
    pub timestamp: i64,
    /// What became of it.
    pub outcome: String,
}

/// One registered operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationView {
    /// The partner's id.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// Its parameters.
    pub params: Value,
    /// `running`, `paused`, `resuming` or `cancelled`.
    pub state: String,
    /// The generation it is in.
    pub generation: u64,
}

/// One decision of the past.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When it was decided, in milliseconds since the epoch.
    pub at: i64,
    /// `data.id`.
    pub event_id: String,
    /// `meta.request_id`.
    pub request_id: Option<String>,
    /// `data.type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When the event happened, in milliseconds since the epoch.
    pub timestamp: i64,
    /// Which clock that is: `timestamp`, `meta_time` or `receipt`.
    pub time_source: String,
    /// What became of it.
    pub outcome: String,
    /// Why, for a person.
    pub reason: String,
}

/// One page of devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DevicePage {
    /// The devices of this page.
    pub devices: Vec<DeviceSummary>,
    /// Where the next page begins; `None` at the end.
    pub next_cursor: Option<String>,
}

/// One device in a page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceSummary {
    /// Ring's id.
    pub device_id: String,
    /// The account it belongs to.
    pub account_id: Option<String>,
    /// Its status.
    pub status: String,
    /// When that last changed, in milliseconds since the epoch.
    pub status_since: Option<i64>,
}

impl DeviceView {
    /// A device with its history, newest first, whose reasons are given as codes.
    pub fn new(device: Device, mut history: Vec<HistoryEntry>) -> Self {
        let last_event = history.first().map(|newest| LastEvent {
            event_id: newest.event_id.clone(),
            request_id: newest.request_id.clone(),
            kind: newest.kind.clone(),
            timestamp: newest.timestamp,
            outcome: newest.outcome.clone(),
        });
        for entry in &mut history {
            if let Some(reason) = Reason::from_code(&entry.reason) {
                reason.text().clone_into(&mut entry.reason);
            }
        }
        let operation = |operation: Operation| OperationView {
            params: serde_json::from_str(&operation.params).unwrap_or_default(),
            id: operation.id,
            kind: operation.kind,
            state: operation.state.code().to_owned(),
            generation: operation.generation,
        };
        Self {
            device_id: device.device_id,
            account_id: device.account_id,
            status: device.status.code().to_owned(),
            status_since: device.status_since_ms,
            last_event,
            operations: device.operations.into_values().map(operation).collect(),
            history,
        }
    }
}
