//! The admin listener: health, readiness and metrics, and whatever control API the daemon mounts under `/v1/`.
//!
//! Never public. It knows no path of the API and decides nothing about readiness; both are functions it is given.

mod places;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, AUTHORIZATION, CONNECTION, HeaderValue, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::guarded_io::{ConnectionLimits, ConnectionPhase, GuardedIo};
use crate::http::{self, Answer};
use crate::metrics::{Format, Metrics};
use crate::readiness::{NotReady, Note, Readiness, ReadyFn};
use crate::settings::Secret;
use crate::stop::{self, Drained};
use places::{Place, Places};

/// A future in a box, as functions behind a pointer give it.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Answers a call of the control API whose token was right.
///
/// # Cancel safety
/// The future is dropped when the request's deadline passes or the client goes away; what must not stop half-way is to
/// be spawned.
pub type ApiFn = Arc<dyn Fn(ApiRequest) -> BoxFuture<ApiResponse> + Send + Sync>;

/// Makes what a [`Page`] shows. Called at each request; it must not block.
pub type PageFn = Arc<dyn Fn() -> ApiResponse + Send + Sync>;

/// One part of so many of the places for connections is not left to idle ones: health checks must find a place.
const SPARE_PART: usize = 4;
/// How long open requests get when the listener stops.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// A call of the control API.
#[derive(Debug)]
pub struct ApiRequest {
    /// The method.
    pub method: Method,
    /// The path from `/v1/` on, still percent-encoded.
    pub path: String,
    /// What follows the question mark, still percent-encoded.
    pub query: Option<String>,
    /// All headers, the token's included.
    pub headers: HeaderMap,
    /// The whole body, at most [`AdminLimits::body_bytes_max`].
    pub body: Bytes,
}

/// The answer to a call of the control API.
#[derive(Debug)]
pub struct ApiResponse(Answer);

/// Bounds of the admin listener.
#[derive(Debug, Clone, Copy)]
pub struct AdminLimits {
    /// Connections at once; more wait in the kernel.
    pub connections_max: usize,
    /// Bytes of a request's line and headers.
    pub head_bytes_max: usize,
    /// Bytes of a body.
    pub body_bytes_max: usize,
    /// Until a head is whole.
    pub head_timeout: Duration,
    /// For reading the body and answering.
    pub request_timeout: Duration,
    /// For a connection without a request; longer than a scrape interval.
    pub idle_timeout: Duration,
}

/// Something that anybody who reaches the listener may read, as `/readyz` is; so nothing secret is on it.
#[derive(Clone)]
pub struct Page {
    /// Where, beginning with a slash; none of the listener's own paths.
    pub path: &'static str,
    /// What.
    pub show: PageFn,
}

/// What the admin listener shows.
#[derive(Clone)]
pub struct Admin {
    /// Whether the process can do its work.
    pub ready: ReadyFn,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// What the daemon shows besides, without a token.
    pub pages: Vec<Page>,
    /// The control API, in a daemon that has one.
    pub api: Option<ApiFn>,
    /// The API's token; without one the API is off.
    pub token: Option<Secret>,
    /// Bounds.
    pub limits: AdminLimits,
}

#[derive(Serialize)]
struct ReadyBody {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<NotReady>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<Note>,
}

impl Default for AdminLimits {
    fn default() -> Self {
        Self {
            connections_max: 64,
            head_bytes_max: 64 * 1024,
            body_bytes_max: 64 * 1024,
            head_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(90),
        }
    }
}

impl ApiResponse {
    /// An answer with a JSON body.
    pub fn json(status: StatusCode, body: &impl Serialize) -> Self {
        Self(http::json(status, body))
    }

    /// `{"error":{"code","message"}}`.
    pub fn error(status: StatusCode, code: &str, message: &str) -> Self {
        Self(http::error(status, code, message))
    }

    /// No body, such as 204.
    pub fn empty(status: StatusCode) -> Self {
        let mut answer = Answer::default();
        *answer.status_mut() = status;
        Self(answer)
    }

    /// 405 with `Allow`, such as `GET, PUT`.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self(method_not_allowed(allow))
    }

    /// The same with one more header.
    #[must_use]
    pub fn with_header(mut self, name: hyper::header::HeaderName, value: HeaderValue) -> Self {
        self.0.headers_mut().insert(name, value);
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.0.status()
    }
}

/// Serves until `stop`, then gives open requests a second. Stop it last, so that a process that drains can be watched.
pub async fn serve(listener: TcpListener, admin: Admin, stop: CancellationToken) {
    let places = Places::new(admin.limits.connections_max);
    let tasks = TaskTracker::new();
    let admin = Arc::new(admin);
    // First somebody who wants a place, and then a place: the last one is not kept free by making others leave.
    let next = async || {
        let stream = http::accept(&listener).await.0;
        Some((stream, places.take().await?))
    };
    while let Some(Some((stream, place))) = stop.run_until_cancelled(next()).await {
        tasks.spawn(connection(stream, Arc::clone(&admin), stop.clone(), place));
    }
    drop(listener);
    if let Drained::Missed { left } = stop::drain(&tasks, STOP_GRACE).await {
        tracing::debug!(connections = left, "admin connections left open");
    }
}

async fn connection(stream: TcpStream, admin: Arc<Admin>, stop: CancellationToken, mut place: Place) {
    let limits = admin.limits;
    let places = place.places();
    let io = GuardedIo::new(
        stream,
        ConnectionLimits {
            head: limits.head_timeout,
            idle: limits.idle_timeout,
            write: limits.request_timeout,
            linger: STOP_GRACE,
        },
    );
    let phase = io.phase();
    let leave = place.seat(Arc::clone(&phase));
    let quiet = Arc::clone(&phase);
    let service = service_fn(move |request| {
        let crowded = places.free() < limits.connections_max / SPARE_PART;
        answer(Arc::clone(&admin), Arc::clone(&phase), crowded, request)
    });
    let builder = http::connection_builder(limits.head_bytes_max);
    let served = builder.serve_connection(TokioIo::new(io), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
        () = leave.cancelled() => {
            // A request may have come at the last moment; it is answered.
            if quiet.quiet_since().is_some() {
                return;
            }
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "admin connection broke");
    }
}

async fn answer(
    admin: Arc<Admin>,
    phase: Arc<ConnectionPhase>,
    crowded: bool,
    request: Request<Incoming>,
) -> Result<Answer, std::convert::Infallible> {
    let mark = phase.begin_request();
    let head = request.method() == Method::HEAD;
    let has_body = !hyper::body::Body::is_end_stream(request.body());
    let routed = route(&admin, request);
    let mut answer = match tokio::time::timeout(admin.limits.request_timeout, routed).await {
        Ok(answer) => answer,
        Err(_) => http::error(
            StatusCode::SERVICE_UNAVAILABLE,
            "deadline",
            "the answer took too long",
        ),
    };
    if crowded {
        answer
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    // A body may be left unread; the answer must reach the client all the same.
    if has_body && !head && !answer.status().is_success() {
        answer
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        mark.linger();
    }
    Ok(answer)
}

async fn route(admin: &Admin, request: Request<Incoming>) -> Answer {
    let path = request.uri().path();
    if path == "/v1" || path.starts_with("/v1/") {
        return call_api(admin, request).await;
    }
    let page = admin.pages.iter().find(|page| page.path == path);
    let known = page.is_some() || matches!(path, "/livez" | "/readyz" | "/metrics");
    if known && !matches!(*request.method(), Method::GET | Method::HEAD) {
        return method_not_allowed("GET, HEAD");
    }
    match path {
        "/livez" => http::json(
            StatusCode::OK,
            &ReadyBody {
                status: "alive",
                reasons: Vec::new(),
                notes: Vec::new(),
            },
        ),
        "/readyz" => readiness((admin.ready)()),
        "/metrics" => {
            let format = Format::asked_for(request.headers());
            let kind = HeaderValue::from_static(format.content_type());
            http::with_type(StatusCode::OK, kind, admin.metrics.encode_as(format).into())
        }
        _ => page.map_or_else(not_found, |page| (page.show)().0),
    }
}

fn readiness(ready: Readiness) -> Answer {
    let (code, status) = if ready.is_ready() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not_ready")
    };
    let Readiness { reasons, notes } = ready;
    http::json(
        code,
        &ReadyBody {
            status,
            reasons,
            notes,
        },
    )
}

async fn call_api(admin: &Admin, request: Request<Incoming>) -> Answer {
    let Some(api) = &admin.api else { return not_found() };
    let Some(token) = &admin.token else {
        let text = "the control API is off: no PORCHLIGHT_ADMIN_TOKEN is set";
        return http::error(StatusCode::NOT_FOUND, "api_off", text);
    };
    if !is_authorised(request.headers(), token) {
        let text = "a bearer token is required, and it must be the right one";
        let mut answer = http::error(StatusCode::UNAUTHORIZED, "unauthorized", text);
        answer.headers_mut().insert(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"porchlight\""),
        );
        return answer;
    }
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, admin.limits.body_bytes_max).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let text = format!("the body is larger than {} bytes", admin.limits.body_bytes_max);
            return http::error(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", &text);
        }
        Err(_) => return http::error(StatusCode::BAD_REQUEST, "bad_body", "the body could not be read"),
    };
    let request = ApiRequest {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: head.headers,
        body,
    };
    api(request).await.0
}

/// Exactly one `Authorization: Bearer <token>`; the scheme in any case.
fn is_authorised(headers: &HeaderMap, token: &Secret) -> bool {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return false;
    };
    match value.as_bytes().split_at_checked("bearer ".len()) {
        Some((scheme, rest)) => scheme.eq_ignore_ascii_case(b"bearer ") && token.matches(rest.trim_ascii()),
        None => false,
    }
}

fn not_found() -> Answer {
    http::error(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing at this path",
    )
}

fn method_not_allowed(allow: &'static str) -> Answer {
    let text = format!("this path takes {allow}");
    let mut answer = http::error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &text);
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

#[cfg(test)]
mod tests;
