//! The ledger as everybody uses it: Redis or SQLite behind one closed choice.
//!
//! Nothing is decided and nothing is stored here; each implementation is its own crate's, and both are held to
//! [`porchlight_device::model::Ledger`]. Whoever uses a ledger does not ask which one it is.

mod carry;
mod error;
mod facts;
mod ledger;
mod predict;

pub use error::{LedgerError, PageError, RegisterError};
pub use facts::LedgerFacts;
pub use ledger::Ledger;
