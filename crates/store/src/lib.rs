//! The ledger in Redis: duplicate marks, device states, operations and owed commands, each event one atomic step.
//!
//! It knows no queue and no HTTP, and emits no metrics. [`porchlight_device::model::Ledger`] says what each call must
//! do; the scripts beside these files do the same in the server.
//!
//! # What is atomic
//!
//! Everything an event does to one device is one script: it happens whole or not at all, and its marks are written
//! last. An account lies in another partition than its devices, so its news takes effect in two steps: the account's
//! registers move together with a note that its devices must be told, then each device is told. Every step can be
//! repeated, and [`Store::spread_pending`] carries on where a crash left off.
//!
//! # When the server fails
//!
//! Every call has a deadline. An error means that the call had its effect or not; making it again is always right.

mod accounts;
mod apply;
mod carry;
mod carry_marks;
mod connection;
mod devices;
mod error;
mod examine;
mod keys;
pub mod marks;
mod operations;
mod outbox;
mod predict;
mod record;
mod reply;
mod script;
mod server;
mod store;

pub use devices::{PAGE_DEVICES_MAX, PageError};
pub use error::{ConnectError, StoreError};
pub use examine::{ServerClock, ServerReport};
pub use operations::RegisterError;
pub use outbox::CLAIM_MAX;
pub use porchlight_device::ledger::{Backlog, DeviceFilter, Spread};
pub use server::ServerFacts;
pub use store::{Store, StoreConfig};
