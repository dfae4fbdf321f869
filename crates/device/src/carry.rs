//! What a ledger is carried in from one form to another: whole records, some at a time.
//!
//! Pure values; a ledger fills them and takes them. What taking them does to a device is [`crate::merge`]'s.

use crate::view::HistoryEntry;
use crate::{AccountRegisters, Device};

/// The registers of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedAccount {
    /// Ring's id.
    pub account_id: String,
    /// Its registers.
    pub registers: AccountRegisters,
}

/// One device with its history.
#[derive(Debug, Clone, PartialEq)]
pub struct CarriedDevice {
    /// The device.
    pub device: Device,
    /// Newest first; reasons are codes.
    pub history: Vec<HistoryEntry>,
}

/// Marks that lie together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedMarks {
    /// The partition of whom they are about.
    pub partition: u8,
    /// When they were made; see [`crate::marks`].
    pub generation: i64,
    /// The marks.
    pub marks: Vec<i64>,
}

/// Some of many. A page may be empty and still have a next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What this page holds.
    pub rows: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next_cursor: Option<String>,
}
