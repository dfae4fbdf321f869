//! The spans of one request: its own, and that of storing its event.
//!
//! Only a request that is signed gets any: a flood of others would displace those of events. While traces are off they
//! are empty, and what came along is passed on as it is.

use std::time::SystemTime;

use porchlight_event::{Envelope, TraceParent};
use porchlight_service::trace::{self, Kind, Parent, Span};
use tokio::time::Instant;

use crate::reply::failure_code;
use crate::storage::{StoreFailure, Stored};

/// Both, begun. Dropped they end untold: the client has gone away.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    // Ends before the span that it is a part of.
    storing: Span,
    whole: Span,
}

impl Spans {
    /// Begins a trace with a request whose first byte came at `began`.
    ///
    /// What came along is not signed. Whoever sends a request again that somebody else signed could put any number of
    /// them into one trace, or choose which are kept. So it is linked to, and no more.
    pub(crate) fn begin(came: Option<&TraceParent>, began: Instant) -> Self {
        if !trace::is_on() {
            return Self::default();
        }
        let began = SystemTime::now() - began.elapsed();
        let parent = Parent::Root(came.map(TraceParent::as_str));
        let whole = trace::begin_at("receive", Kind::Server, parent, began);
        let storing = trace::begin("store", Kind::Producer, Parent::Span(&whole));
        Self { storing, whole }
    }

    /// What the event carries on.
    pub(crate) fn traceparent(&self, came: Option<&TraceParent>) -> Option<String> {
        self.storing
            .traceparent()
            .or_else(|| came.map(|came| came.as_str().to_owned()))
    }

    /// Tells what became of it.
    pub(crate) fn end(mut self, envelope: &Envelope, stored: &Result<Stored, StoreFailure>) {
        if !trace::is_on() {
            return;
        }
        let Self { storing, whole } = &mut self;
        storing.word("messaging.operation.type", "send");
        storing.word("messaging.destination.name", "porchlight.events");
        storing.text("messaging.message.id", &envelope.message_id);
        storing.number("messaging.message.body.size", envelope.body.len());
        whole.word("http.request.method", "POST");
        whole.number("http.request.body.size", envelope.body.len());
        whole.text("porchlight.key", envelope.key_name.as_deref().unwrap_or_default());
        match stored {
            Ok(stored) => {
                storing.word("porchlight.stored", stored.place());
                whole.number("http.response.status_code", 200);
            }
            Err(failure) => {
                let code = failure_code(failure);
                storing.failed(code);
                whole.failed(code);
                whole.number("http.response.status_code", 503);
            }
        }
    }
}
