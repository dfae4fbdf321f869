//! The control API of a worker, called over HTTP.
//!
//! Ids are percent-encoded whole, so any id that Ring can send works.

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use porchlight_device::Registration;
use porchlight_device::view::{DevicePage, DeviceView, OperationView};
use porchlight_service::Secret;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::Which;
use crate::failure::Failure;
use porchlight_service::client::{Answer, Client};

/// A worker's control API.
pub(crate) struct Api {
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

#[derive(serde::Serialize)]
struct WireRegistration<'a> {
    account_id: Option<&'a str>,
    kind: &'a str,
    params: &'a RawValue,
}

impl Api {
    /// Calls through `client` with a bearer token.
    pub(super) fn new(client: Client, token: &Secret) -> Self {
        Self {
            client,
            authorization: Secret::new(format!("Bearer {}", token.expose())),
        }
    }

    pub(super) async fn devices(
        &mut self,
        which: &Which,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<DevicePage, Failure> {
        let mut path = format!("/v1/devices?limit={limit}");
        let status = which.status.map(|status| status.code());
        for (name, value) in [
            ("account", which.account.as_deref()),
            ("status", status),
            ("cursor", cursor),
        ] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encoded(value)));
            }
        }
        read(&self.call("GET", &path, Bytes::new()).await?)
    }

    pub(super) async fn device(&mut self, device_id: &str) -> Result<Option<DeviceView>, Failure> {
        let answer = self
            .call(
                "GET",
                &format!("/v1/devices/{}", encoded(device_id)),
                Bytes::new(),
            )
            .await?;
        if is_unknown(&answer) {
            Ok(None)
        } else {
            read(&answer).map(Some)
        }
    }

    pub(super) async fn register(
        &mut self,
        device_id: &str,
        registration: &Registration,
    ) -> Result<OperationView, Failure> {
        let params = serde_json::from_str(&registration.params)
            .map_err(|error| Failure::usage("--params").because(&error))?;
        let wire = WireRegistration {
            account_id: registration.account_id.as_deref(),
            kind: &registration.kind,
            params,
        };
        let body =
            serde_json::to_vec(&wire).map_err(|error| Failure::usage("the registration").because(&error))?;
        read(
            &self
                .call(
                    "PUT",
                    &operation_path(device_id, &registration.operation_id),
                    Bytes::from(body),
                )
                .await?,
        )
    }

    pub(super) async fn forget(&mut self, device_id: &str, operation_id: &str) -> Result<bool, Failure> {
        let answer = self
            .call("DELETE", &operation_path(device_id, operation_id), Bytes::new())
            .await?;
        if is_unknown(&answer) {
            return Ok(false);
        }
        if answer.status.is_success() {
            Ok(true)
        } else {
            Err(refused(&answer))
        }
    }

    async fn call(&self, method: &str, path: &str, body: Bytes) -> Result<Answer, Failure> {
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
                    .advise("is a worker running, and is --api its admin listener?")
            })
    }
}

fn operation_path(device_id: &str, operation_id: &str) -> String {
    format!(
        "/v1/devices/{}/operations/{}",
        encoded(device_id),
        encoded(operation_id)
    )
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Only the API's own codes: another server's 404 must not pass for an answer.
fn is_unknown(answer: &Answer) -> bool {
    let code = serde_json::from_slice(&answer.body).map(|body: ErrorBody| body.error.code);
    answer.status.as_u16() == 404 && code.is_ok_and(|code| code.starts_with("unknown_"))
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, Failure> {
    if !answer.status.is_success() {
        return Err(refused(answer));
    }
    let read = serde_json::from_slice(&answer.body);
    read.map_err(|error| Failure::failed("the control API's answer cannot be read").because(&error))
}

fn refused(answer: &Answer) -> Failure {
    let said = match serde_json::from_slice::<ErrorBody>(&answer.body) {
        Ok(body) => format!("{} ({})", body.error.message, body.error.code),
        Err(_) => "no reason given".to_owned(),
    };
    let line = format!("the control API answers {}: {said}", answer.status.as_u16());
    match answer.status.as_u16() {
        401 | 403 => Failure::usage(line).advise("set PORCHLIGHT_ADMIN_TOKEN as the worker has it"),
        404 => Failure::usage(line)
            .advise("is --api a worker's admin listener, and does the worker have PORCHLIGHT_ADMIN_TOKEN?"),
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
        }
    }

    #[test]
    fn an_id_with_a_slash_stays_one_segment() {
        assert_eq!(
            operation_path("a/b", "ä?"),
            "/v1/devices/a%2Fb/operations/%C3%A4%3F"
        );
    }

    #[test]
    fn another_servers_404_is_no_answer() {
        assert!(is_unknown(&answer(
            404,
            r#"{"error":{"code":"unknown_device","message":"x"}}"#
        )));
        assert!(!is_unknown(&answer(404, "<html>")));
        assert!(!is_unknown(&answer(
            404,
            r#"{"error":{"code":"not_found","message":"x"}}"#
        )));
    }

    #[test]
    fn each_refusal_has_its_exit_code() {
        for (status, exit) in [(401, Exit::Usage), (409, Exit::Failed), (503, Exit::Unavailable)] {
            let failure = refused(&answer(status, r#"{"error":{"code":"c","message":"because"}}"#));
            assert_eq!(failure.exit(), exit);
            assert!(failure.line().contains("because (c)"));
        }
    }
}
