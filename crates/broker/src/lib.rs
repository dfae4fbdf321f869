//! RabbitMQ: topology, connection, confirmed publishing, consuming and dead letters; the only owner of lapin.
//!
//! It knows neither Redis nor HTTP, and decides nothing about events: what becomes of a delivery is the worker's.
//!
//! - [`topology`]: every name and argument, declared by whoever comes first.
//! - [`connection`]: connecting with deadlines, and the [`QueueState`] everybody watches.
//! - [`publisher`]: a success is exactly an un-returned ack of that very publish.
//! - [`consumer`]: deliveries in batches; an ack can only reach the channel it belongs to.
//! - [`dead_letter`], [`walk`] and [`replay`]: look at the dead letters, and what sends them round again.
//! - [`depth`]: how much waits in each of our queues. [`examine`]: whether all is as it should be.
//!
//! lapin itself logs a returned publish at WARN with properties and body (`lapin::returned_messages`), and
//! `amq_protocol*` logs frames at TRACE. A process that uses this crate must cap both targets at ERROR, whatever its
//! filter says; our own warning carries the publish id alone.

pub mod connection;
pub mod consumer;
mod cutter;
pub mod dead_letter;
pub mod depth;
pub mod examine;
mod greeting;
pub mod publisher;
pub mod replay;
pub mod topology;
pub mod urls;
pub mod walk;
mod wire;

pub use connection::{ConnectError, Link, ServerVersion};
pub use consumer::{Consumer, ConsumerConfig, ConsumerHandle};
pub use dead_letter::{DeadLetter, DeadLetterError, Origin};
pub use depth::{DepthReader, QueueCounts, QueueDepth};
pub use porchlight_event::queue::{AckOutcome, Batch, DeathNote, Delivery, QueueState, RetryTier};
pub use publisher::{Confirmed, PublishDeadlines, PublishError, Publisher, PublisherConfig, PublisherStats};
pub use topology::{TopologyConfig, TopologyError};
pub use urls::{BrokerUrls, Endpoint, UrlError};
pub use walk::{Taken, Walk};
pub use wire::{Headers, Outgoing, retry_queue};
