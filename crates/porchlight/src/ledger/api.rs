//! Devices and operations through a control API.
//!
//! Ids are percent-encoded whole, so any id that Ring can send works.

use bytes::Bytes;
use porchlight_device::Registration;
use porchlight_device::view::{DevicePage, DeviceView, OperationView};
use serde_json::value::RawValue;

use super::Which;
use crate::control_api::{ControlApi, encoded, error_code, read, refused};
use crate::failure::Failure;
use porchlight_service::client::Answer;

#[derive(serde::Serialize)]
struct WireRegistration<'a> {
    account_id: Option<&'a str>,
    kind: &'a str,
    params: &'a RawValue,
}

impl ControlApi {
    pub(super) async fn devices(
        &self,
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

    pub(super) async fn device(&self, device_id: &str) -> Result<Option<DeviceView>, Failure> {
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
        &self,
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

    pub(super) async fn forget(&self, device_id: &str, operation_id: &str) -> Result<bool, Failure> {
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
}

fn operation_path(device_id: &str, operation_id: &str) -> String {
    format!(
        "/v1/devices/{}/operations/{}",
        encoded(device_id),
        encoded(operation_id)
    )
}

fn is_unknown(answer: &Answer) -> bool {
    answer.status.as_u16() == 404 && error_code(answer).is_some_and(|code| code.starts_with("unknown_"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> Answer {
        Answer {
            status: porchlight_service::client::StatusCode::from_u16(status).unwrap(),
            body: Bytes::from_static(body.as_bytes()),
            date: None,
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
}
