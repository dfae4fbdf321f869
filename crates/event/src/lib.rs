//! What Ring sends and what of it travels on the queue: wire types, signature, envelope and ids.
//!
//! Pure by design: no I/O, no async, no clock. The time is always a value that the caller passes in.

pub mod diagnosis;
pub mod envelope;
pub mod ids;
mod loose;
pub mod queue;
pub mod replay;
pub mod ring_event;
pub mod ring_schedule;
pub mod sample;
pub mod signature;
pub mod standard_webhooks;
pub mod trace;

pub use envelope::Envelope;
pub use ring_event::{EventType, ParseError, RingEvent};
pub use signature::{KeyError, Refusal, SigningKey, SigningKeys, Verifier};
pub use standard_webhooks::WebhookSecrets;
pub use trace::TraceParent;

#[cfg(test)]
mod vectors;
