//! The spans of the worker: one for each event at work, one for its way into the ledger, one for each command sent.
//!
//! It decides nothing. While traces are off every span is empty, and what came along is passed on as it is.

use porchlight_device::{Command, Outcome, Reason};
use porchlight_event::queue::Delivery;
use porchlight_event::{Envelope, TraceParent};
use porchlight_service::trace::{self, Kind, Parent, Span};

use crate::now_ms;

/// An event at work: from the decision about it until it is settled. One that goes back to the queue has no outcome.
#[derive(Debug, Default)]
pub(crate) struct AtWork {
    // Ends before the span that it is a part of.
    applying: Span,
    whole: Span,
}

impl AtWork {
    /// Goes on where the ingress had it stored.
    pub(crate) fn begin(delivery: &Delivery) -> Self {
        let envelope = &delivery.envelope;
        let parent = Parent::Carried(envelope.traceparent.as_deref());
        let mut whole = trace::begin("process", Kind::Consumer, parent);
        if trace::is_on() {
            whole.word("messaging.operation.type", "process");
            whole.word("messaging.destination.name", "porchlight.events");
            whole.text("messaging.message.id", &envelope.message_id);
            whole.number("porchlight.delivery_count", delivery.delivery_count);
            whole.number("porchlight.attempt", envelope.attempt);
            whole.number("porchlight.replay", envelope.replay);
            if let Some(at_ms) = envelope.received_at_ms {
                whole.number("porchlight.waited_ms", now_ms().saturating_sub(at_ms));
            }
        }
        Self {
            applying: Span::none(),
            whole,
        }
    }

    /// What the commands that it causes go on with.
    pub(crate) fn traceparent(&self, envelope: &Envelope) -> Option<TraceParent> {
        let own = self.whole.traceparent();
        TraceParent::parse(own.as_deref().or(envelope.traceparent.as_deref())?)
    }

    /// It is handed to the ledger.
    pub(crate) fn apply(&mut self, event_type: &str, event_id: &str) {
        self.whole.text("porchlight.event.type", event_type);
        self.whole.text("porchlight.event.id", event_id);
        self.applying = trace::begin("apply", Kind::Internal, Parent::Span(&self.whole));
    }

    /// The ledger has it, after so many tries of the piece that it is in.
    pub(crate) fn settled(mut self, outcome: Outcome, reason: Reason, tries: u32) {
        self.applying.number("porchlight.tries", tries);
        self.whole.word("porchlight.outcome", outcome.code());
        self.whole.word("porchlight.reason", reason.code());
    }

    /// The ledger will never take it.
    pub(crate) fn refused(&mut self) {
        self.applying.failed("ledger_refused");
        self.applying = Span::none();
    }

    /// A copy of it is being stored.
    pub(crate) fn copy(&self, name: &'static str, destination: &'static str) -> Span {
        let mut copying = trace::begin(name, Kind::Producer, Parent::Span(&self.whole));
        copying.word("messaging.operation.type", "send");
        copying.word("messaging.destination.name", destination);
        copying
    }

    /// The copy is stored, and that is its outcome. `reason` is why it is among the dead letters, if it is.
    pub(crate) fn copied(mut self, outcome: &'static str, reason: Option<&'static str>) {
        self.whole.word("porchlight.outcome", outcome);
        if let Some(reason) = reason {
            self.whole.failed(reason);
        }
    }
}

/// A command on its way to whoever takes it. It goes on with the event that it is owed to, also long after that.
#[derive(Debug)]
pub(crate) struct Sending(Span);

impl Sending {
    pub(crate) fn begin(command: &Command, kind: Kind) -> Self {
        let cause = &command.cause;
        let parent = Parent::Carried(cause.traceparent.as_ref().map(TraceParent::as_str));
        let mut span = trace::begin("send command", kind, parent);
        if trace::is_on() {
            span.text("porchlight.command.id", &command.id());
            span.word("porchlight.command.action", command.action.code());
            span.text("porchlight.command.kind", &command.kind);
            span.number("porchlight.command.generation", command.generation);
            span.text("porchlight.device.id", &command.device_id);
            span.text("porchlight.operation.id", &command.operation_id);
            span.text("porchlight.event.id", &cause.event_id);
            span.number(
                "porchlight.owed_ms",
                now_ms().saturating_sub(command.issued_at_ms),
            );
        }
        Self(span)
    }

    /// The header by which the receiver goes on with it.
    pub(crate) fn traceparent(&self, command: &Command) -> Option<String> {
        let carried = command.cause.traceparent.as_ref();
        self.0
            .traceparent()
            .or_else(|| carried.map(|carried| carried.as_str().to_owned()))
    }

    /// The receiver answered with this status.
    pub(crate) fn answered(&mut self, status: u16) {
        self.0.number("http.response.status_code", status);
    }

    /// It is not known to be delivered.
    pub(crate) fn failed(&mut self, code: &'static str) {
        self.0.failed(code);
    }
}
