//! One span: begun, told about, ended when it is dropped.
//!
//! It exports nothing. While traces are off it is empty, and everything here returns at once.

use std::time::SystemTime;

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::Span as SdkSpan;

use super::TRACER;

/// Longest text that a span keeps, in characters. An id from outside may be as long as a body.
const TEXT_CHARS_MAX: usize = 256;

/// One span. Dropped it ends; a span of work that was cut short therefore lacks what is told at the end.
#[derive(Debug, Default)]
pub struct Span(Option<Box<SdkSpan>>);

/// What a span is to those beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Answers a request.
    Server,
    /// Makes a request and waits for its answer.
    Client,
    /// Hands something over that is worked on later.
    Producer,
    /// Works on what was handed over.
    Consumer,
    /// Work within.
    Internal,
}

/// What a span goes on with.
#[derive(Debug, Clone, Copy)]
pub enum Parent<'a> {
    /// A trace of its own. The text is a `traceparent` that came along unsigned: whoever sent it may be found by it, and
    /// decides nothing.
    Root(Option<&'a str>),
    /// A span of this process.
    Span(&'a Span),
    /// A `traceparent` that one of our processes wrote; without one, or if it is none, a trace of its own.
    Carried(Option<&'a str>),
}

/// Begins a span; an empty one while traces are off.
pub fn begin(name: &'static str, kind: Kind, parent: Parent<'_>) -> Span {
    match TRACER.get() {
        Some(_) => begin_at(name, kind, parent, SystemTime::now()),
        None => Span(None),
    }
}

/// As [`begin`], for what began before.
pub fn begin_at(name: &'static str, kind: Kind, parent: Parent<'_>, began: SystemTime) -> Span {
    let Some(tracer) = TRACER.get() else {
        return Span(None);
    };
    let mut builder = SpanBuilder::from_name(name)
        .with_kind(kind.into())
        .with_start_time(began);
    let (known, link) = match parent {
        Parent::Root(came) => (None, came.and_then(read)),
        Parent::Span(span) => (span.context(), None),
        Parent::Carried(carried) => (carried.and_then(read), None),
    };
    if let Some(link) = link {
        builder = builder.with_links(vec![opentelemetry::trace::Link::with_context(link)]);
    }
    // Never what may be current on this thread: parents are told here and nowhere else.
    let context = match known {
        Some(known) => Context::new().with_remote_span_context(known),
        None => Context::new(),
    };
    Span(Some(Box::new(tracer.build_with_context(builder, &context))))
}

impl Span {
    /// No span.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Tells a text, cut to 256 characters.
    pub fn text(&mut self, key: &'static str, text: &str) {
        if let Some(span) = self.recording() {
            let cut: String = text.chars().take(TEXT_CHARS_MAX).collect();
            span.set_attribute(KeyValue::new(key, cut));
        }
    }

    /// Tells a word of ours.
    pub fn word(&mut self, key: &'static str, word: &'static str) {
        if let Some(span) = self.recording() {
            span.set_attribute(KeyValue::new(key, word));
        }
    }

    /// Tells a number; one that is too large is told as the largest.
    pub fn number(&mut self, key: &'static str, number: impl TryInto<i64>) {
        if let Some(span) = self.recording() {
            span.set_attribute(KeyValue::new(key, number.try_into().unwrap_or(i64::MAX)));
        }
    }

    /// Tells that it failed, and with which code.
    pub fn failed(&mut self, code: &'static str) {
        if let Some(span) = self.recording() {
            span.set_attribute(KeyValue::new("error.type", code));
            span.set_status(Status::error(code));
        }
    }

    /// The `traceparent` by which others go on with it; nothing while traces are off. One that is not kept has one, too,
    /// which says so.
    pub fn traceparent(&self) -> Option<String> {
        let context = self.0.as_ref()?.span_context();
        let flags = context.trace_flags() & TraceFlags::SAMPLED;
        let (trace, span) = (context.trace_id(), context.span_id());
        Some(format!("00-{trace}-{span}-{:02x}", flags.to_u8()))
    }

    /// The trace's id in hex, for a line of the log; empty while traces are off, or where the trace is not kept.
    pub fn trace_id(&self) -> String {
        let kept = self.0.as_ref().filter(|span| span.is_recording());
        kept.map(|span| span.span_context().trace_id().to_string())
            .unwrap_or_default()
    }

    fn context(&self) -> Option<SpanContext> {
        self.0.as_ref().map(|span| span.span_context().clone())
    }

    fn recording(&mut self) -> Option<&mut SdkSpan> {
        self.0.as_deref_mut().filter(|span| span.is_recording())
    }
}

impl From<Kind> for SpanKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Server => Self::Server,
            Kind::Client => Self::Client,
            Kind::Producer => Self::Producer,
            Kind::Consumer => Self::Consumer,
            Kind::Internal => Self::Internal,
        }
    }
}

/// Reads `00-<trace>-<span>-<flags>`; `None` for anything else. A later version begins the same, and there is none.
fn read(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-');
    let mut next = |length: usize| {
        let lower = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        parts
            .next()
            .filter(|part| part.len() == length && part.bytes().all(lower))
    };
    let (version, trace, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
    if version != "00" || parts.next().is_some() {
        return None;
    }
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let context = SpanContext::new(trace, span, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_read_only_in_its_own_form() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";
        let read_back = read(good).unwrap();
        assert_eq!(
            (read_back.trace_id().to_string(), read_back.span_id().to_string()),
            (
                "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
                "00f067aa0ba902b7".to_owned()
            )
        );
        assert!(read_back.is_sampled() && read_back.is_remote());
        for bad in [
            "",
            &good[1..],
            &good.to_uppercase(),
            &good.replacen("00", "01", 1),
            &format!("{good}-00"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn while_traces_are_off_a_span_is_empty() {
        let mut span = begin("work", Kind::Internal, Parent::Root(None));
        span.text("a", "b");
        span.failed("c");
        assert_eq!((span.traceparent(), span.trace_id()), (None, String::new()));
    }
}
