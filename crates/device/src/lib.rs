//! What one event does to a device: status, operations, generations and owed commands, as pure decisions.
//!
//! No I/O and no clock. The types here are what both ledgers store; [`model::Ledger`] is the reference that each
//! of them is held to.
//!
//! # How order of arrival is made not to matter
//!
//! A device remembers the largest [`Order`] of each class of news in a register of its own: online or offline,
//! added, removed, and the same two for its account. The status is derived from the registers alone, so it is the
//! same for every order of arrival and any number of repeats. News that is refused while a device is removed still
//! moves its register: when a late `device_added` proves that the device is back, the status is already right.

pub mod account;
pub mod carry;
pub mod command;
pub mod device;
pub mod ledger;
pub mod marks;
pub mod merge;
pub mod model;
pub mod news;
pub mod operation;
pub mod order;
pub mod outcome;
pub mod place;
pub mod predict;
pub mod records;
pub mod view;

pub use account::AccountRegisters;
pub use command::{Action, Cause, Command, CommandError, OweAgain};
pub use device::Device;
pub use news::{Kind, News, NewsError, Subject};
pub use operation::{Operation, Registration, RegistrationError, State};
pub use order::Order;
pub use outcome::{Decision, Outcome, Reason, Status};
pub use place::Place;
pub use predict::{ActionCounts, Prediction};
