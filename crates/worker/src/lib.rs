//! The worker: consumes events, applies each once to the ledger and sends the commands they owe.
//!
//! It knows no public HTTP: what Ring sends arrives through the queue, whole and already stored. Nor does it know
//! which queue and which ledger it works with, but for [`scaled`], which opens those of the scaled form.
//!
//! Invariants of the crate:
//! - A delivery is acked only after the ledger has it, or after the queue has stored a copy of it.
//! - Nothing is ever nacked. What cannot be settled for long goes back with its incarnation, all at once.
//! - A command goes out only after the ledger owes it, and is owed until the outlet has delivered it.
//!
//! The way of an event: [`work_loop`] takes a batch, [`piece`] cuts it, [`settle`] has [`decide`] say what becomes of
//! each delivery and does it through [`clerk`], the work loop acks, [`dispatch`] sends what is owed, and [`sweep`]
//! whatever that left behind. [`worker`] puts them together.

mod api;
mod args;
mod clerk;
pub mod decide;
mod dispatch;
mod hold;
pub mod keys;
mod ledger_watch;
mod metrics;
mod outlet;
mod piece;
mod ready;
mod scaled;
mod settings;
mod settle;
mod spans;
mod sweep;
mod work_loop;
mod worker;

use std::time::{SystemTime, UNIX_EPOCH};

pub use args::{Args, WorkArgs};
pub use outlet::{
    BreakerBounds, Callback, CallbackArgs, CallbackSettings, Lines, Outlet, ReceiverError, ReceiverSettings,
};
pub use scaled::{WorkerConfig, run};
pub use settings::{Settings, WorkSettings};
pub use worker::{RunError, Worker, WorkerParts};

/// A foreign id as a log line shows it: escaped, and cut where it is long.
pub(crate) fn shown(id: impl AsRef<str>) -> String {
    const CHARS_MAX: usize = 128;
    let chars = id.as_ref().chars().take(CHARS_MAX);
    chars.flat_map(char::escape_default).collect()
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
