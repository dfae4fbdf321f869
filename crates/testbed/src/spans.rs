//! A collector of traces: it takes what is exported over OTLP, and shows the spans.
//!
//! It keeps everything, samples nothing, and answers as a test tells its receiver to.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span, status::StatusCode};
use prost::Message as _;

use crate::poll::{WaitError, wait_for};
use crate::receiver::{Answering, Receiver};

/// Where collectors take traces.
const PATH: &str = "/v1/traces";

/// A running collector. Dropping it ends it.
#[derive(Debug)]
pub struct Collector {
    /// What it stands on: how it answers, and what was sent to it.
    pub receiver: Receiver,
}

/// A span as it was exported. Ids are in hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenSpan {
    /// Which process made it.
    pub service: String,
    /// What was done.
    pub name: String,
    /// By the protocol's number: 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: i32,
    /// The trace.
    pub trace_id: String,
    /// The span.
    pub span_id: String,
    /// The span that it is a part of; empty for the first of a trace.
    pub parent_id: String,
    /// Traces that it is linked to.
    pub links: Vec<String>,
    /// Whether it says that it failed.
    pub failed: bool,
    /// Begin and end, in nanoseconds since the epoch.
    pub time: (u64, u64),
    /// What it tells, numbers as texts.
    pub attributes: BTreeMap<String, String>,
}

impl Collector {
    /// A collector on a free port of this machine.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start() -> io::Result<Self> {
        let receiver = Receiver::start().await?;
        receiver.answer(Answering::Status(200));
        Ok(Self { receiver })
    }

    /// Its address, as a process is told it.
    pub fn url(&self) -> String {
        self.receiver.url("")
    }

    /// Every span so far. What is no export is left out.
    pub fn spans(&self) -> Vec<SeenSpan> {
        let calls = self.receiver.calls();
        let exports = calls.iter().filter(|call| call.path == PATH);
        let requests = exports.filter_map(|call| ExportTraceServiceRequest::decode(call.body.clone()).ok());
        requests
            .flat_map(|request| request.resource_spans)
            .flat_map(seen)
            .collect()
    }

    /// Waits until `found` finds what it looks for among the spans.
    ///
    /// # Errors
    /// [`WaitError`] when it does not within `patience`.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        patience: Duration,
        mut found: impl FnMut(&[SeenSpan]) -> Option<T>,
    ) -> Result<T, WaitError> {
        wait_for(what, patience, async || {
            let spans = self.spans();
            found(&spans).ok_or_else(|| format!("{spans:#?}"))
        })
        .await
    }
}

impl SeenSpan {
    /// What it tells under this name; empty when it does not.
    pub fn told(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

fn seen(of: ResourceSpans) -> Vec<SeenSpan> {
    let resource = attributes(
        of.resource
            .map(|resource| resource.attributes)
            .unwrap_or_default(),
    );
    let service = resource.get("service.name").cloned().unwrap_or_default();
    let spans = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
    spans.map(|span| seen_span(&service, span)).collect()
}

fn seen_span(service: &str, span: Span) -> SeenSpan {
    let failed = span
        .status
        .is_some_and(|status| status.code == StatusCode::Error as i32);
    SeenSpan {
        service: service.to_owned(),
        name: span.name,
        kind: span.kind,
        trace_id: hex(&span.trace_id),
        span_id: hex(&span.span_id),
        parent_id: hex(&span.parent_span_id),
        links: span.links.iter().map(|link| hex(&link.trace_id)).collect(),
        failed,
        time: (span.start_time_unix_nano, span.end_time_unix_nano),
        attributes: attributes(span.attributes),
    }
}

fn attributes(all: Vec<KeyValue>) -> BTreeMap<String, String> {
    let pairs = all
        .into_iter()
        .map(|pair| (pair.key, pair.value.map(text).unwrap_or_default()));
    pairs.collect()
}

fn text(value: AnyValue) -> String {
    match value.value {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
