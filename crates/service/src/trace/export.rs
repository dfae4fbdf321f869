//! From the end of a span to the collector: a bounded queue, and one task that sends what is in it.
//!
//! Nothing that works ever waits for it. What does not fit, or is not taken in a few tries, is dropped and counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::Context;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::FIGURES;
use super::figures::Loss;
use crate::client::{Answer, Client, SendError, StatusCode, Target, TlsConnector};

/// Spans that wait: a second of some 1 500 events, and with about 1 KiB each 8 MiB at most.
const WAITING_MAX: usize = 8192;
/// Spans in one request.
const BATCH_MAX: usize = 512;
/// How long the first span of a request waits for others.
const BATCH_WAIT_MAX: Duration = Duration::from_secs(1);
/// For one request to be answered, connecting included.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// Pauses between the tries of one request. Meanwhile the queue fills, so there are few.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// Where spans go when they end.
#[derive(Debug)]
pub(super) struct Intake(mpsc::Sender<SpanData>);

/// Sends what the intake took.
pub(super) struct Exporter {
    spans: mpsc::Receiver<SpanData>,
    client: Client,
    target: Arc<Target>,
    resource: ResourceAttributesWithSchema,
    /// Whether the last request was taken; each change is logged once.
    works: bool,
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("the answer was {}", .0.as_u16())]
    Status(StatusCode),
    #[error(transparent)]
    Send(#[from] SendError),
}

impl Intake {
    pub(super) fn new() -> (Self, mpsc::Receiver<SpanData>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }
}

impl SpanProcessor for Intake {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        match self.0.try_send(span) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => FIGURES.lost(Loss::QueueFull, 1),
            Err(mpsc::error::TrySendError::Closed(_)) => FIGURES.lost(Loss::Stopped, 1),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Exporter {
    pub(super) fn new(
        target: Arc<Target>,
        tls: Option<TlsConnector>,
        resource: &Resource,
        spans: mpsc::Receiver<SpanData>,
    ) -> Self {
        Self {
            spans,
            client: Client::new(Arc::clone(&target), tls, REQUEST_MAX),
            target,
            resource: resource.into(),
            works: true,
        }
    }

    /// Exports until `stop`, and then what is left, each request in one try.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        while let Some(batch) = self.gather(&stop).await {
            let spans = batch.len();
            let request = self.request(batch);
            match self.deliver(request, &stop).await {
                Ok(rejected) => {
                    FIGURES.lost(Loss::Rejected, rejected);
                    FIGURES.exported.inc_by(spans.saturating_sub(rejected) as u64);
                    self.note(None);
                }
                Err(error) => {
                    let loss = if error.may_pass() {
                        Loss::NotDelivered
                    } else {
                        Loss::Rejected
                    };
                    FIGURES.lost(loss, spans);
                    self.note(Some(&error));
                }
            }
        }
    }

    /// Spans for one request, at least one; nothing when the process stops and none is left.
    async fn gather(&mut self, stop: &CancellationToken) -> Option<Vec<SpanData>> {
        let mut batch = Vec::new();
        if stop
            .run_until_cancelled(self.spans.recv_many(&mut batch, BATCH_MAX))
            .await
            .is_some()
        {
            let full_by = Instant::now() + BATCH_WAIT_MAX;
            while batch.len() < BATCH_MAX {
                let room = BATCH_MAX - batch.len();
                let more = timeout_at(full_by, self.spans.recv_many(&mut batch, room));
                if !matches!(stop.run_until_cancelled(more).await, Some(Ok(1..))) {
                    break;
                }
            }
        } else {
            self.spans.close();
            self.spans.recv_many(&mut batch, BATCH_MAX).await;
        }
        (!batch.is_empty()).then_some(batch)
    }

    fn request(&self, batch: Vec<SpanData>) -> Bytes {
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        ExportTraceServiceRequest { resource_spans }
            .encode_to_vec()
            .into()
    }

    /// Sends one request, in several tries unless the process stops; how many spans the collector refused of it.
    async fn deliver(&self, request: Bytes, stop: &CancellationToken) -> Result<usize, ExportError> {
        let mut pauses = PAUSES.iter();
        loop {
            let error = match self.send(request.clone()).await {
                Ok(rejected) => return Ok(rejected),
                Err(error) => error,
            };
            let pause = pauses.next().filter(|_| error.may_pass());
            let Some(pause) = pause else {
                return Err(error);
            };
            if stop.run_until_cancelled(sleep(*pause)).await.is_none() {
                return Err(error);
            }
        }
    }

    async fn send(&self, request: Bytes) -> Result<usize, ExportError> {
        let headers = [
            ("content-type", "application/x-protobuf"),
            ("user-agent", concat!("porchlight/", env!("CARGO_PKG_VERSION"))),
        ];
        let path = self.target.path();
        let Answer { status, body, .. } = self.client.send("POST", path, &headers, request).await?;
        if !status.is_success() {
            return Err(ExportError::Status(status));
        }
        // An answer that cannot be read says nothing of spans that were refused.
        let answer = ExportTraceServiceResponse::decode(body).unwrap_or_default();
        let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
        Ok(usize::try_from(rejected).unwrap_or_default())
    }

    fn note(&mut self, error: Option<&ExportError>) {
        let works = error.is_none();
        if works == self.works {
            return;
        }
        self.works = works;
        let address = self.target.address();
        match error {
            Some(error) => tracing::warn!(address, %error, "traces cannot be exported; spans are dropped"),
            None => tracing::info!(address, "traces are exported again"),
        }
    }
}

impl ExportError {
    /// Whether another try may help: by the protocol's list of answers.
    fn may_pass(&self) -> bool {
        match self {
            Self::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            Self::Send(_) => true,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use opentelemetry::trace::{Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// A collector that gives these answers in turn, the last for ever; what it was sent.
    async fn collector(answers: &'static [&'static str]) -> (Arc<Target>, mpsc::Receiver<usize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let (seen, requests) = mpsc::channel(64);
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut answers = answers.iter();
            let mut answer = answers.next().unwrap();
            let mut read = Vec::new();
            loop {
                let head = loop {
                    if let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
                        break end + 4;
                    }
                    assert!(stream.read_buf(&mut read).await.unwrap() > 0);
                };
                let text = String::from_utf8_lossy(&read[..head]).to_lowercase();
                let length = text.split("content-length: ").nth(1).unwrap();
                let length: usize = length.lines().next().unwrap().parse().unwrap();
                while read.len() < head + length {
                    stream.read_buf(&mut read).await.unwrap();
                }
                let request = ExportTraceServiceRequest::decode(&read[head..head + length]).unwrap();
                read.drain(..head + length);
                let spans = request.resource_spans.iter().flat_map(|r| &r.scope_spans);
                let _ = seen.send(spans.map(|scope| scope.spans.len()).sum()).await;
                let empty = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(empty.as_bytes()).await.unwrap();
                answer = answers.next().unwrap_or(answer);
            }
        });
        (Arc::new(Target::parse(&url).unwrap()), requests)
    }

    fn running(target: Arc<Target>) -> (SdkTracerProvider, CancellationToken, tokio::task::JoinHandle<()>) {
        let (intake, spans) = Intake::new();
        let provider = SdkTracerProvider::builder().with_span_processor(intake).build();
        let exporter = Exporter::new(target, None, &Resource::builder_empty().build(), spans);
        let stop = CancellationToken::new();
        let task = tokio::spawn(exporter.run(stop.clone()));
        (provider, stop, task)
    }

    #[tokio::test]
    async fn what_ended_before_the_stop_is_exported_in_batches() {
        let (target, mut requests) = collector(&["200 OK"]).await;
        let (provider, stop, task) = running(target);
        let tracer = provider.tracer("t");
        for _ in 0..BATCH_MAX + 3 {
            drop(tracer.start("span"));
        }
        stop.cancel();
        task.await.unwrap();
        assert_eq!(
            [requests.recv().await, requests.recv().await],
            [Some(BATCH_MAX), Some(3)]
        );
    }

    // Not with a clock that is paused: it would run to the deadlines while an answer is still on its way.
    #[tokio::test]
    async fn a_collector_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
        let asked = async |answers: &'static [&'static str], asked: usize| {
            let (target, mut requests) = collector(answers).await;
            let (provider, _stop, task) = running(target);
            drop(provider.tracer("t").start("span"));
            // It ends when there are no more spans to come, with all its tries.
            drop(provider);
            task.await.unwrap();
            for _ in 0..asked {
                assert_eq!(requests.recv().await, Some(1), "{answers:?}");
            }
            assert!(requests.try_recv().is_err(), "{answers:?}");
        };
        tokio::join!(
            asked(&["503 Busy", "503 Busy", "200 OK"], 3),
            asked(&["400 No", "200 OK"], 1),
            asked(&["429 Later"], 3),
        );
    }

    #[tokio::test]
    async fn spans_beyond_the_queue_are_dropped_and_nothing_waits() {
        let (intake, mut spans) = Intake::new();
        let provider = SdkTracerProvider::builder().with_span_processor(intake).build();
        let tracer = provider.tracer("t");
        for _ in 0..WAITING_MAX + 5 {
            drop(tracer.start("span"));
        }
        let mut kept = Vec::new();
        assert_eq!(spans.recv_many(&mut kept, usize::MAX).await, WAITING_MAX);
    }
}
