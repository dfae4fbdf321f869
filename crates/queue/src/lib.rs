//! The queue as everybody uses it: RabbitMQ or SQLite behind one closed choice.
//!
//! Nothing is decided and nothing is stored here; each implementation is its own crate's. Whoever uses a queue does
//! not ask which one it is.

pub mod dead;
pub mod depth;
mod error;
mod known;
mod queue;
mod source;
mod walk;
pub mod work;

pub use dead::{DeadLetters, DeadLettersError};
pub use depth::{DepthError, DepthReader, QueueCounts, QueueDepth};
pub use error::QueueError;
pub use queue::{CommandLetter, Deadlines, Queue, QueueStats, Stored};
pub use source::{Source, SourceHandle};
