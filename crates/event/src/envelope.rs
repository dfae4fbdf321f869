//! The envelope: what travels on the queue around one event, as named headers and the untouched body.
//!
//! It does not know AMQP; the broker crate maps headers and properties to the wire.

use bytes::Bytes;

use crate::TraceParent;

/// Names of the message headers; all begin with `x-porchlight-`.
pub mod header {
    /// Milliseconds since the epoch at which the ingress had read the whole request.
    pub const RECEIVED_AT: &str = "x-porchlight-received-at";
    /// Name of the signing key that matched; never the key itself.
    pub const KEY_NAME: &str = "x-porchlight-key";
    /// The `X-Signature` header as received, kept so that a dead letter can be verified again.
    pub const SIGNATURE: &str = "x-porchlight-signature";
    /// Unique to one attempt to publish; correlates a returned message.
    pub const PUBLISH_ID: &str = "x-porchlight-publish-id";
    /// The request's `Content-Encoding`, where there was one.
    pub const CONTENT_ENCODING: &str = "x-porchlight-content-encoding";
    /// How often the worker has put this event off to a retry queue.
    pub const ATTEMPT: &str = "x-porchlight-attempt";
    /// How often this event was replayed from the dead letters.
    pub const REPLAY: &str = "x-porchlight-replay";
    /// When the last replay happened, in milliseconds since the epoch.
    pub const REPLAYED_AT: &str = "x-porchlight-replayed-at";
    /// Why the event was dead-lettered: a short code.
    pub const DEAD_REASON: &str = "x-porchlight-dead-reason";
    /// Which step gave up: a short code.
    pub const DEAD_STAGE: &str = "x-porchlight-dead-stage";
    /// One sentence for a person; never shows any of the body.
    pub const DEAD_DETAIL: &str = "x-porchlight-dead-detail";
    /// When it was dead-lettered, in milliseconds since the epoch.
    pub const DEAD_AT: &str = "x-porchlight-dead-at";
    /// W3C trace context of the request, where it had one.
    pub const TRACEPARENT: &str = "traceparent";
}

/// One event on its way from the ingress to the worker.
///
/// Everything but `body` and `message_id` is optional on arrival: a person may publish a bare body by hand, and
/// the worker must still decide what becomes of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The same for the same body; see [`crate::ids::message_id`].
    pub message_id: String,
    /// The bytes Ring signed, untouched.
    pub body: Bytes,
    /// When the ingress received it, in milliseconds since the epoch.
    pub received_at_ms: Option<i64>,
    /// Name of the signing key that matched.
    pub key_name: Option<String>,
    /// The signature header as received.
    pub signature: Option<String>,
    /// The request's content type, untouched.
    pub content_type: Option<String>,
    /// The request's content encoding, untouched.
    pub content_encoding: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// How often it was put off.
    pub attempt: u32,
    /// How often it was replayed.
    pub replay: u32,
}

impl Envelope {
    /// An envelope around `body` with nothing known but the bytes.
    pub fn bare(body: Bytes) -> Self {
        Self {
            message_id: crate::ids::message_id(&body),
            body,
            received_at_ms: None,
            key_name: None,
            signature: None,
            content_type: None,
            content_encoding: None,
            traceparent: None,
            attempt: 0,
            replay: 0,
        }
    }

    /// The id of the trace that it is a part of, where it carries one that can be read.
    #[must_use]
    pub fn trace_id(&self) -> Option<&str> {
        let carried = self.traceparent.as_deref()?;
        TraceParent::parse(carried).and(carried.get(3..35))
    }
}

/// Shows ids and sizes only: an envelope in a log line must not spill the body or the signature.
impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Envelope")
            .field("message_id", &self.message_id)
            .field("body_bytes", &self.body.len())
            .field("received_at_ms", &self.received_at_ms)
            .field("attempt", &self.attempt)
            .field("replay", &self.replay)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_known_by_what_is_well_formed_only() {
        let mut envelope = Envelope::bare(Bytes::new());
        assert_eq!(envelope.trace_id(), None);
        envelope.traceparent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned());
        assert_eq!(envelope.trace_id(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        envelope.traceparent = Some("x".repeat(55));
        assert_eq!(envelope.trace_id(), None);
    }

    #[test]
    fn debug_shows_neither_body_nor_signature() {
        let mut envelope = Envelope::bare(Bytes::from_static(b"the-body"));
        envelope.signature = Some("sha256=feed".to_owned());
        let shown = format!("{envelope:?}");
        assert!(!shown.contains("the-body") && !shown.contains("feed"), "{shown}");
        assert!(shown.contains("body_bytes: 8"));
    }
}
