//! Traces: spans of what this process does, exported over OTLP when an address is set, and nothing at all when none is.
//!
//! It names no span and decides nothing; whoever works makes spans where the work is. There is one tracer for the
//! process, as there is one log, and no span is made for the log: what a line should say is a field of it.

mod export;
mod figures;
mod settings;
mod span;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use export::{Exporter, Intake};
pub(crate) use figures::FIGURES;
pub use settings::{TraceArgs, TraceSettings};
pub use span::{Kind, Parent, Span, begin, begin_at};

/// Longest time that a stop takes for the spans that are left.
pub const FLUSH_MAX: Duration = Duration::from_secs(3);

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// The traces of this process, from its start to its end.
#[derive(Debug, Default)]
pub struct Traces(Option<Running>);

#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    exporting: JoinHandle<()>,
}

/// Whether spans are made.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

impl Traces {
    /// Makes spans from here on, and exports them; without settings nothing happens. `service` is the name that they are
    /// found under. To be called within a runtime, once in a process: a second call changes nothing.
    pub fn start(settings: Option<TraceSettings>, service: &'static str, version: &'static str) -> Self {
        let Some(settings) = settings else {
            return Self::default();
        };
        // What else is to be told of a process is set by the standard's own variable, OTEL_RESOURCE_ATTRIBUTES.
        let resource = Resource::builder()
            .with_service_name(service)
            .with_attribute(KeyValue::new("service.version", version))
            .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())))
            .build();
        let (intake, spans) = Intake::new();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
                settings.ratio,
            ))))
            .with_resource(resource.clone())
            .with_span_processor(intake)
            .build();
        let scope = InstrumentationScope::builder("porchlight")
            .with_version(version)
            .build();
        if TRACER.set(provider.tracer_with_scope(scope)).is_err() {
            tracing::warn!("traces were begun twice in one process; the first go on");
            return Self::default();
        }
        tracing::info!(
            address = settings.target.address(),
            ratio = settings.ratio,
            "traces are exported"
        );
        let stop = CancellationToken::new();
        let exporter = Exporter::new(Arc::clone(&settings.target), settings.tls(), &resource, spans);
        let exporting = tokio::spawn(exporter.run(stop.clone()));
        Self(Some(Running { stop, exporting }))
    }

    /// Exports what is left, for at most [`FLUSH_MAX`], and ends. Spans that end later are dropped.
    pub async fn close(self) {
        let Some(Running { stop, mut exporting }) = self.0 else {
            return;
        };
        stop.cancel();
        if tokio::time::timeout(FLUSH_MAX, &mut exporting).await.is_err() {
            exporting.abort();
            tracing::warn!("the last spans could not be exported in time");
        }
    }
}
