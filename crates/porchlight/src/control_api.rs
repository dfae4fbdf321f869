//! A daemon's control API, called over HTTP with its bearer token: one call, one answer or one failure in words.
//!
//! What is asked and what the answers mean stands beside each command.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use porchlight_service::Secret;
use porchlight_service::client::{Answer, Client, Target, connector};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// For one call; a daemon gives itself 8 s.
const CALL_MAX: Duration = Duration::from_secs(10);

/// The control API of one daemon.
pub(crate) struct ControlApi {
    target: Arc<Target>,
    client: Client,
    authorization: Secret,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorText,
}

#[derive(Deserialize)]
struct ErrorText {
    code: String,
    message: String,
}

impl ControlApi {
    /// Checks the address and the token; nothing is connected yet.
    pub(crate) fn new(url: &str, token: Option<&str>) -> Result<Self, Failure> {
        let target = Target::parse(url)
            .map_err(|error| Failure::usage("PORCHLIGHT_API_URL (--api)").because(&error))?;
        let token = token.ok_or_else(|| {
            Failure::usage("the control API needs a token")
                .advise("set PORCHLIGHT_ADMIN_TOKEN as the daemon has it")
        })?;
        let tls = connector(&target, None).map_err(|error| Failure::usage("TLS").because(&error))?;
        let target = Arc::new(target);
        Ok(Self {
            client: Client::new(Arc::clone(&target), tls, CALL_MAX),
            target,
            authorization: Secret::new(format!("Bearer {token}")),
        })
    }

    /// Where it is.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Makes one call; an answer of any status.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Bytes) -> Result<Answer, Failure> {
        let headers = [
            ("authorization", self.authorization.expose()),
            ("content-type", "application/json"),
        ];
        self.client
            .send(method, path, &headers, body)
            .await
            .map_err(|error| {
                Failure::unavailable("the control API")
                    .because(&error)
                    .advise("is the daemon running, and is --api its admin listener?")
            })
    }
}

/// A text as one segment of a path or one value of a query, whatever it holds.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The API's own code of an error. Another server's error has none, and must not pass for an answer.
pub(crate) fn error_code(answer: &Answer) -> Option<String> {
    let body = serde_json::from_slice::<ErrorBody>(&answer.body);
    body.ok().map(|body| body.error.code)
}

/// The body of a success, or the failure that any other answer is.
pub(crate) fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, Failure> {
    if !answer.status.is_success() {
        return Err(refused(answer));
    }
    let read = serde_json::from_slice(&answer.body);
    read.map_err(|error| Failure::failed("the control API's answer cannot be read").because(&error))
}

/// As [`read`], for calls that a standalone has and a worker of the scaled form has not; `what` lies in RabbitMQ there.
pub(crate) fn read_of_standalone<T: DeserializeOwned>(answer: &Answer, what: &str) -> Result<T, Failure> {
    if answer.status.as_u16() == 404 && error_code(answer).as_deref() == Some("not_found") {
        return Err(Failure::usage(format_args!(
            "this daemon is no standalone: {what} of the scaled form are in its servers"
        ))
        .advise("leave --api out and name them: --amqp-url, --redis-url"));
    }
    read(answer)
}

/// What an answer that is no success says.
pub(crate) fn refused(answer: &Answer) -> Failure {
    let said = match serde_json::from_slice::<ErrorBody>(&answer.body) {
        Ok(body) => format!("{} ({})", body.error.message, body.error.code),
        Err(_) => "no reason given".to_owned(),
    };
    let line = format!("the control API answers {}: {said}", answer.status.as_u16());
    match answer.status.as_u16() {
        401 | 403 => Failure::usage(line).advise("set PORCHLIGHT_ADMIN_TOKEN as the daemon has it"),
        404 => Failure::usage(line).advise(
            "is --api the admin listener of a worker or a standalone, and does that have PORCHLIGHT_ADMIN_TOKEN?",
        ),
        500.. if error_code(answer).is_none() => Failure::unavailable(line)
            .advise("so answers a balancer that has no worker which is ready: porchlight health WORKER/readyz"),
        500.. => Failure::unavailable(line),
        _ => Failure::failed(line),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::failure::Exit;

    fn answer(status: u16, body: &'static str) -> Answer {
        Answer {
            status: porchlight_service::client::StatusCode::from_u16(status).unwrap(),
            body: Bytes::from_static(body.as_bytes()),
            date: None,
        }
    }

    #[test]
    fn another_servers_error_has_no_code() {
        let ours = answer(404, r#"{"error":{"code":"unknown_device","message":"x"}}"#);
        assert_eq!(error_code(&ours).as_deref(), Some("unknown_device"));
        assert_eq!(error_code(&answer(404, "<html>")), None);
    }

    #[test]
    fn each_refusal_has_its_exit_code() {
        for (status, exit) in [(401, Exit::Usage), (409, Exit::Failed), (503, Exit::Unavailable)] {
            let failure = refused(&answer(status, r#"{"error":{"code":"c","message":"because"}}"#));
            assert_eq!(failure.exit(), exit);
            assert!(failure.line().contains("because (c)"));
        }
    }

    #[test]
    fn a_worker_that_knows_no_such_call_is_told_as_that() {
        let worker = answer(404, r#"{"error":{"code":"not_found","message":"x"}}"#);
        let failure = read_of_standalone::<serde_json::Value>(&worker, "dead letters").unwrap_err();
        assert!(failure.line().contains("no standalone"), "{failure:?}");
        let off = answer(404, r#"{"error":{"code":"api_off","message":"x"}}"#);
        let failure = read_of_standalone::<serde_json::Value>(&off, "dead letters").unwrap_err();
        assert!(failure.line().contains("api_off"), "{failure:?}");
    }
}
