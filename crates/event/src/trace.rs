//! A place in a trace, as the W3C's `traceparent` header writes it: which trace, which span of it, and whether it is kept.
//!
//! It makes no ids and records nothing; whoever has a tracer does.

use serde::{Serialize, Serializer};

/// Bytes of the text: `00-<32 hex>-<16 hex>-<2 hex>`.
const BYTES: usize = 55;

/// A well-formed `traceparent` of version 00, in lower case, with ids that are not all zero.
///
/// It travels with an event to the commands that it causes. It is a hint: nothing may depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TraceParent(Box<str>);

impl TraceParent {
    /// Reads a header's text; `None` for anything else than the one form. No later version exists.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let some = |part: &str| hex(part) && part.bytes().any(|b| b != b'0');
        if text.len() != BYTES || !text.is_ascii() {
            return None;
        }
        let mut parts = text.split('-');
        let mut next = |length: usize| parts.next().filter(|part| part.len() == length);
        let (version, trace, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        let formed = version == "00" && some(trace) && some(span) && hex(flags);
        formed.then(|| Self(text.into()))
    }

    /// The header's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trace's id: 32 hex digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        &self.0[3..35]
    }
}

impl Serialize for TraceParent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_form_is_a_place_in_a_trace() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = TraceParent::parse(good).unwrap();
        assert_eq!(
            (read.as_str(), read.trace_id()),
            (good, "4bf92f3577b34da6a3ce929d0e0e4736")
        );
        for bad in [
            "",
            "00-ab-cd-01",
            &good[1..],
            &good.to_uppercase(),
            &good.replace("4bf", "4bg"),
            &good.replacen("00", "ff", 1),
            &good.replacen("00", "01", 1),
            &format!("{good}-"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6-a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-\u{e9}",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }
}
