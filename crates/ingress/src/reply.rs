//! Turns what became of a request into its answer, its count and its log line; the only place that does.
//!
//! Two texts leave here, one for the client and one for the log. Neither ever holds a body, a key or a signature.

use std::net::SocketAddr;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{ALLOW, CONNECTION, HeaderValue, RETRY_AFTER};
use porchlight_event::Refusal;
use porchlight_journal::JournalError;
use porchlight_queue::QueueError;
use porchlight_service::LogGate;
use porchlight_service::http::{self, Answer};

use crate::body::BodyError;
use crate::metrics::IngressMetrics;
use crate::receive::{Accepted, ReceiveError};
use crate::storage::StoreFailure;

/// What a cause of refusal or failure means outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cause {
    status: StatusCode,
    /// For programs: in the answer, in the metrics and in the log.
    code: &'static str,
    /// For a person at the other end.
    text: &'static str,
    ends: Ends,
}

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// The request was read whole; the next may follow.
    No,
    /// If the request has a body, it is unread.
    IfBody,
    /// The body is unread, or not to be trusted to end where it says.
    Yes,
}

/// Answers requests; shared by all connections.
#[derive(Debug, Default)]
pub(crate) struct Replier {
    log_gate: LogGate,
}

/// What the server must know about an answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) answer: Answer,
    /// A part of the request may be unread.
    pub(crate) lingers: bool,
}

const MALFORMED: Cause = cause(
    400,
    "malformed_http",
    "the request is not well-formed HTTP",
    Ends::Yes,
);

/// The table of answers. A 4xx tells Ring never to send the event again, so each one says that the request is not
/// Ring's; whatever may be our own fault is a 503.
fn cause_of(error: &ReceiveError) -> Cause {
    use ReceiveError as E;
    match error {
        E::WrongPath => cause(404, "not_found", "nothing is served at this path", Ends::IfBody),
        E::WrongMethod => cause(405, "method_not_allowed", "this path takes POST", Ends::IfBody),
        E::NotSigned(Refusal::Missing) => cause(
            401,
            "signature_missing",
            "the X-Signature header is missing",
            Ends::IfBody,
        ),
        E::NotSigned(Refusal::Repeated) => cause(
            401,
            "signature_repeated",
            "the X-Signature header is repeated",
            Ends::IfBody,
        ),
        E::NotSigned(_) => {
            let text = "the X-Signature header is not sha256= and 64 hex digits";
            cause(401, "signature_malformed", text, Ends::IfBody)
        }
        E::NoMatch => cause(
            401,
            "signature_mismatch",
            "the signature does not match the body",
            Ends::No,
        ),
        E::KeysInDoubt => cause(503, "key_health", "signatures cannot be checked now", Ends::No),
        E::DeclaredTooLarge | E::Body(BodyError::TooLarge) => {
            cause(413, "body_too_large", "the body is over the limit", Ends::Yes)
        }
        E::Body(BodyError::Malformed) => MALFORMED,
        E::Body(BodyError::Slow) => cause(503, "body_slow", "the body did not come in time", Ends::Yes),
        E::Body(BodyError::Broken) => cause(503, "body_broken", "the body did not come whole", Ends::Yes),
        E::Body(BodyError::MemoryFull) => {
            cause(503, "memory_full", "too many bodies are being read", Ends::Yes)
        }
        E::NoKeys => cause(
            503,
            "keys_missing",
            "signatures cannot be checked now",
            Ends::IfBody,
        ),
        E::NotStored(failure, _) => failure_cause(failure),
    }
}

/// The code that answer, metrics and log have for an event that is not stored.
pub(crate) fn failure_code(failure: &StoreFailure) -> &'static str {
    failure_cause(failure).code
}

fn failure_cause(failure: &StoreFailure) -> Cause {
    match failure {
        StoreFailure::Queue(error) => not_stored(*error),
        StoreFailure::Spool { spool, .. } => not_spooled(spool),
    }
}

/// The name for programs of what an error means outside.
pub(crate) fn code_of(error: &ReceiveError) -> &'static str {
    cause_of(error).code
}

fn not_stored(error: QueueError) -> Cause {
    let (code, text) = match error {
        QueueError::Unavailable => ("queue_unavailable", "events cannot be stored now"),
        QueueError::Blocked => ("queue_blocked", "events cannot be stored now"),
        QueueError::Full => ("queue_full", "events cannot be stored now"),
        QueueError::WindowFull => ("window_full", "too many events are being stored"),
        QueueError::Refused => ("queue_refused", "the event could not be stored"),
        QueueError::Returned => ("queue_returned", "the event could not be stored"),
        QueueError::TimedOut => ("confirm_timeout", "the event is not known to be stored"),
        QueueError::Disconnected => ("queue_disconnected", "the event is not known to be stored"),
        QueueError::Stopping => ("stopping", "this server is stopping"),
    };
    cause(503, code, text, Ends::No)
}

fn not_spooled(error: &JournalError) -> Cause {
    let (code, text) = match error {
        JournalError::Full => ("spool_full", "events cannot be stored now"),
        JournalError::WindowFull => ("window_full", "too many events are being stored"),
        JournalError::TimedOut => ("spool_timeout", "the event is not known to be stored"),
        JournalError::Stopping => ("stopping", "this server is stopping"),
        JournalError::Failed(_) | JournalError::Busy | JournalError::Unreadable(_) => {
            ("spool_failed", "the event could not be stored")
        }
    };
    cause(503, code, text, Ends::No)
}

const fn cause(status: u16, code: &'static str, text: &'static str, ends: Ends) -> Cause {
    let status = match StatusCode::from_u16(status) {
        Ok(status) => status,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Cause {
        status,
        code,
        text,
        ends,
    }
}

impl Replier {
    /// Answers one request. `has_body` says whether a body was announced; it may be unread when the error came early.
    pub(crate) fn reply(
        &self,
        outcome: Result<Accepted, ReceiveError>,
        has_body: bool,
        peer: SocketAddr,
        metrics: &IngressMetrics,
    ) -> Reply {
        let error = match outcome {
            Ok(accepted) => {
                metrics.count_stored(accepted.spooled);
                return Reply {
                    answer: stored(&accepted),
                    lingers: false,
                };
            }
            Err(error) => error,
        };
        let cause = cause_of(&error);
        let message_id = match &error {
            ReceiveError::NotStored(_, id) => Some(id.as_str()),
            _ => None,
        };
        self.note(cause, &error, message_id, peer, metrics);
        let mut answer = http::error(cause.status, cause.code, cause.text);
        let headers = answer.headers_mut();
        match cause.status {
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        let ends = cause.ends == Ends::Yes || (cause.ends == Ends::IfBody && has_body);
        if ends {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Reply {
            answer,
            lingers: ends,
        }
    }

    /// Notes a request whose head could not be parsed; hyper has answered it.
    pub(crate) fn note_malformed(&self, error: &hyper::Error, peer: SocketAddr, metrics: &IngressMetrics) {
        self.note(MALFORMED, error, None, peer, metrics);
    }

    fn note(
        &self,
        cause: Cause,
        error: &dyn std::error::Error,
        message_id: Option<&str>,
        peer: SocketAddr,
        metrics: &IngressMetrics,
    ) {
        let status = cause.status.as_u16();
        metrics.count_request(status, cause.code);
        if let Some(suppressed) = self.log_gate.admit(cause.code) {
            let code = cause.code;
            if cause.status.is_server_error() {
                tracing::error!(status, cause = code, message.id = message_id, %peer, suppressed, "event not taken: {error}");
            } else {
                tracing::warn!(status, cause = code, %peer, suppressed, "request refused: {error}");
            }
        }
    }
}

fn stored(accepted: &Accepted) -> Answer {
    let body = format!(r#"{{"status":"stored","id":"{}"}}"#, accepted.message_id);
    http::json_bytes(StatusCode::OK, Bytes::from(body))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::metrics::ANSWERS;

    fn reply(error: ReceiveError, has_body: bool) -> Reply {
        let metrics = IngressMetrics::register(&mut Default::default());
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let cause = cause_of(&error);
        let answer = (cause.status.as_u16(), cause.code);
        assert!(
            ANSWERS.contains(&answer),
            "{answer:?} is not shown from the start"
        );
        Replier::default().reply(Err(error), has_body, peer, &metrics)
    }

    #[test]
    fn every_failure_of_ours_is_a_503_that_asks_for_a_retry() {
        let failures = [
            ReceiveError::NoKeys,
            ReceiveError::KeysInDoubt,
            ReceiveError::Body(BodyError::Slow),
            ReceiveError::Body(BodyError::Broken),
            ReceiveError::Body(BodyError::MemoryFull),
        ];
        let queue = [
            QueueError::Unavailable,
            QueueError::Blocked,
            QueueError::Full,
            QueueError::WindowFull,
            QueueError::Refused,
            QueueError::Returned,
            QueueError::TimedOut,
            QueueError::Disconnected,
            QueueError::Stopping,
        ];
        let spool = [
            JournalError::Full,
            JournalError::Failed("disk I/O error".to_owned()),
            JournalError::TimedOut,
            JournalError::WindowFull,
            JournalError::Busy,
            JournalError::Stopping,
        ];
        let spool = spool.map(|spool| StoreFailure::Spool {
            queue: QueueError::Unavailable,
            spool,
        });
        let stores = queue.map(StoreFailure::Queue).into_iter().chain(spool);
        for error in failures
            .into_iter()
            .chain(stores.map(|failure| ReceiveError::NotStored(failure, String::new())))
        {
            let shown = format!("{error:?}");
            let answer = reply(error, true).answer;
            assert_eq!(answer.status(), 503, "{shown}");
            assert_eq!(answer.headers()[RETRY_AFTER], "1", "{shown}");
        }
    }

    #[test]
    fn refusals_are_final_and_say_why() {
        for (error, status) in [
            (ReceiveError::WrongPath, 404),
            (ReceiveError::WrongMethod, 405),
            (ReceiveError::NotSigned(Refusal::Missing), 401),
            (ReceiveError::NotSigned(Refusal::Repeated), 401),
            (ReceiveError::NotSigned(Refusal::Malformed), 401),
            (ReceiveError::NoMatch, 401),
            (ReceiveError::DeclaredTooLarge, 413),
            (ReceiveError::Body(BodyError::TooLarge), 413),
            (ReceiveError::Body(BodyError::Malformed), 400),
        ] {
            let answer = reply(error, true).answer;
            assert_eq!(answer.status(), status);
            assert!(!answer.headers().contains_key(RETRY_AFTER));
            assert_eq!(answer.headers().contains_key(ALLOW), status == 405);
        }
    }

    #[test]
    fn a_connection_ends_only_where_a_body_may_be_unread() {
        assert!(reply(ReceiveError::WrongPath, true).lingers);
        assert!(!reply(ReceiveError::WrongPath, false).lingers);
        assert!(!reply(ReceiveError::NoMatch, true).lingers);
        assert!(reply(ReceiveError::DeclaredTooLarge, true).answer.headers()[CONNECTION] == "close");
    }
}
