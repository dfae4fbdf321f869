//! What a request of the control API asks for: method, path, query and body become one [`Call`], or a refusal.
//!
//! It touches no ledger and checks no token.

use hyper::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use porchlight_device::ledger::PAGE_DEVICES_MAX;
use porchlight_device::operation::{ID_BYTES_MAX, PARAMS_BYTES_MAX};
use porchlight_device::{Registration, RegistrationError, Status};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Devices on a page that asks for no other number.
pub(super) const PAGE_DEVICES: usize = 100;
/// Longest text of a refusal; a wrong field may be as long as the body.
const TEXT_CHARS_MAX: usize = 200;

/// One call of the control API.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// `PUT /v1/devices/{device}/operations/{operation}`
    Register {
        /// The device.
        device_id: String,
        /// What to register; checked as far as it can be without the device.
        registration: Registration,
    },
    /// `DELETE /v1/devices/{device}/operations/{operation}`
    Forget {
        /// The device.
        device_id: String,
        /// The operation.
        operation_id: String,
    },
    /// `GET /v1/devices/{device}`
    Show {
        /// The device.
        device_id: String,
    },
    /// `GET /v1/devices`
    List(ListCall),
}

/// Which devices a page shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListCall {
    pub(super) account: Option<String>,
    pub(super) status: Option<Status>,
    pub(super) cursor: Option<String>,
    pub(super) limit: usize,
}

/// Why a request is no call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The path takes other methods.
    Method(&'static str),
    /// Anything else.
    Request {
        status: StatusCode,
        code: &'static str,
        text: String,
    },
}

/// The body of a registration. Unknown fields are refused: a mistyped one would otherwise be lost in silence.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with kind, params and account_id")]
struct WireRegistration<'a> {
    #[serde(default)]
    account_id: Option<String>,
    kind: String,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

impl Call {
    /// A short name, one of a closed set: a metric label.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Register { .. } => "register",
            Self::Forget { .. } => "forget",
            Self::Show { .. } => "show",
            Self::List(_) => "list",
        }
    }

    /// Reads a request; `path` is still percent-encoded, so a slash inside an id is `%2F`.
    pub(super) fn read(
        method: &Method,
        path: &str,
        query: Option<&str>,
        body: &[u8],
    ) -> Result<Self, Refused> {
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match segments.as_slice() {
            ["v1", "devices"] => only(method, &Method::GET, "GET").and_then(|()| list(query)),
            ["v1", "devices", device] if !device.is_empty() => {
                only(method, &Method::GET, "GET")?;
                Ok(Self::Show {
                    device_id: decode(device)?,
                })
            }
            ["v1", "devices", device, "operations", operation]
                if !device.is_empty() && !operation.is_empty() =>
            {
                let (device_id, operation_id) = (decode(device)?, decode(operation)?);
                match *method {
                    Method::PUT => {
                        let registration = registration(operation_id, body)?;
                        Ok(Self::Register {
                            device_id,
                            registration,
                        })
                    }
                    Method::DELETE if operation_id.len() > ID_BYTES_MAX => {
                        Err(refusal(&RegistrationError::BadId))
                    }
                    Method::DELETE => Ok(Self::Forget {
                        device_id,
                        operation_id,
                    }),
                    _ => Err(Refused::Method("PUT, DELETE")),
                }
            }
            _ => Err(request(
                StatusCode::NOT_FOUND,
                "not_found",
                "there is nothing at this path",
            )),
        }
    }
}

/// Says in HTTP why a registration is not accepted.
pub(super) fn refusal(error: &RegistrationError) -> Refused {
    let status = match error {
        RegistrationError::ParamsTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        conflict if conflict.is_conflict() => StatusCode::CONFLICT,
        _ => StatusCode::BAD_REQUEST,
    };
    request(status, error.code(), &error.to_string())
}

fn only(method: &Method, wanted: &Method, allow: &'static str) -> Result<(), Refused> {
    if method == wanted {
        Ok(())
    } else {
        Err(Refused::Method(allow))
    }
}

fn list(query: Option<&str>) -> Result<Call, Refused> {
    let mut call = ListCall {
        account: None,
        status: None,
        cursor: None,
        limit: PAGE_DEVICES,
    };
    let mut seen = Vec::new();
    for pair in query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        if seen.contains(&name) {
            return Err(bad_query(&format!("{name} is given twice")));
        }
        match name.as_str() {
            "account" => call.account = Some(value).filter(|value| !value.is_empty()),
            "cursor" => call.cursor = Some(value).filter(|value| !value.is_empty()),
            "status" if value.is_empty() => {}
            "status" => {
                let status = Status::from_code(&value);
                let text = "status must be online, offline, removed or unknown";
                call.status = Some(status.ok_or_else(|| bad_query(text))?);
            }
            "limit" => {
                let limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=PAGE_DEVICES_MAX).contains(limit));
                call.limit =
                    limit.ok_or_else(|| bad_query(&format!("limit must be 1 to {PAGE_DEVICES_MAX}")))?;
            }
            _ => {
                return Err(bad_query(&format!(
                    "{name} is unknown; there are account, status, cursor and limit"
                )));
            }
        }
        seen.push(name);
    }
    Ok(Call::List(call))
}

fn registration(operation_id: String, body: &[u8]) -> Result<Registration, Refused> {
    let bad = |text: &str| {
        request(
            StatusCode::BAD_REQUEST,
            "bad_body",
            &format!("the body is not right: {text}"),
        )
    };
    // A list would be taken for the fields in their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(bad("it must be a JSON object with kind, params and account_id"));
    }
    let wire: WireRegistration<'_> = serde_json::from_slice(body).map_err(|error| bad(&error.to_string()))?;
    if wire.account_id.as_deref() == Some("") {
        let text = "account_id is empty; leave it out where there is none";
        return Err(request(StatusCode::BAD_REQUEST, "bad_account_id", text));
    }
    let params = wire.params.map_or("null", RawValue::get);
    if params.len() > PARAMS_BYTES_MAX {
        return Err(refusal(&RegistrationError::ParamsTooLarge));
    }
    let registration = Registration {
        operation_id,
        account_id: wire.account_id,
        kind: wire.kind,
        params: params.to_owned(),
    };
    registration.check().map_err(|error| refusal(&error))?;
    Ok(registration)
}

/// Strict: a stray percent sign or bytes that are no UTF-8 would name another device than was meant. A plus sign is a
/// plus sign.
fn decode(text: &str) -> Result<String, Refused> {
    let bad = |text| request(StatusCode::BAD_REQUEST, "bad_encoding", text);
    let stray = |part: &str| {
        !part
            .as_bytes()
            .get(..2)
            .is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
    };
    if text.split('%').skip(1).any(stray) {
        return Err(bad(
            "a percent sign is not followed by two hex digits; write %25 for the sign itself",
        ));
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(bad("what is percent-encoded is not UTF-8")),
    }
}

fn bad_query(text: &str) -> Refused {
    request(StatusCode::BAD_REQUEST, "bad_query", text)
}

fn request(status: StatusCode, code: &'static str, text: &str) -> Refused {
    let text = match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    };
    Refused::Request { status, code, text }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn get(path: &str, query: &str) -> Result<Call, Refused> {
        Call::read(&Method::GET, path, Some(query), b"")
    }

    fn put(path: &str, body: &str) -> Result<Call, Refused> {
        Call::read(&Method::PUT, path, None, body.as_bytes())
    }

    fn code(read: Result<Call, Refused>) -> (u16, &'static str, String) {
        match read.unwrap_err() {
            Refused::Request { status, code, text } => (status.as_u16(), code, text),
            Refused::Method(allow) => (405, "method", allow.to_owned()),
        }
    }

    #[test]
    fn any_id_survives_the_path() {
        for (raw, id) in [
            ("a%2Fb", "a/b"),
            ("%00", "\0"),
            ("%F0%9F%98%80", "\u{1f600}"),
            ("a+b", "a+b"),
            ("%25", "%"),
            ("operations", "operations"),
            ("..", ".."),
            ("%2e%2E", ".."),
        ] {
            let shown = get(&format!("/v1/devices/{raw}"), "").unwrap();
            assert_eq!(
                shown,
                Call::Show {
                    device_id: id.to_owned()
                },
                "{raw}"
            );
        }
    }

    #[test]
    fn a_path_that_means_no_certain_id_is_refused() {
        for raw in ["%", "%2", "%zz", "%ff", "%c3%28", "a%80"] {
            let (status, code, _) = code(get(&format!("/v1/devices/{raw}"), ""));
            assert_eq!((status, code), (400, "bad_encoding"), "{raw}");
        }
        for path in [
            "/v1",
            "/v1/",
            "/v1/devices/",
            "/v1/devices/d/",
            "/v1/devices/d/operations",
            "/v1/devices//operations/o",
        ] {
            assert_eq!(code(get(path, "")).0, 404, "{path}");
        }
    }

    #[test]
    fn each_path_names_the_methods_it_takes() {
        assert_eq!(code(put("/v1/devices", "")).2, "GET");
        assert_eq!(code(put("/v1/devices/d", "")).2, "GET");
        assert_eq!(code(get("/v1/devices/d/operations/o", "")).2, "PUT, DELETE");
    }

    #[test]
    fn a_registration_keeps_its_params_as_written() {
        let read = put(
            "/v1/devices/d/operations/o%2F1",
            r#"{"kind":"k","params":{"b": [1.0, "x"],"a":null}}"#,
        );
        let Call::Register {
            device_id,
            registration,
        } = read.unwrap()
        else {
            panic!("not a registration")
        };
        assert_eq!(
            (device_id.as_str(), registration.operation_id.as_str()),
            ("d", "o/1")
        );
        assert_eq!(registration.params, r#"{"b": [1.0, "x"],"a":null}"#);
        assert_eq!(registration.account_id, None);
        let bare = put("/v1/devices/d/operations/o", r#"{"kind":"k","account_id":null}"#).unwrap();
        assert!(matches!(bare, Call::Register { registration, .. } if registration.params == "null"));
    }

    #[test]
    fn a_wrong_registration_is_refused_with_the_field() {
        let refused = |body: &str| code(put("/v1/devices/d/operations/o", body));
        for (body, wanted, word) in [
            ("", "bad_body", "object"),
            ("[]", "bad_body", "kind"),
            (r#"[null,"k",1]"#, "bad_body", "object"),
            ("{", "bad_body", "EOF"),
            ("{}", "bad_body", "`kind`"),
            (r#"{"kind":"k","parms":{}}"#, "bad_body", "`parms`"),
            (r#"{"kind":"k","kind":"k"}"#, "bad_body", "`kind`"),
            (r#"{"kind":5}"#, "bad_body", "string"),
            (r#"{"kind":"a.b"}"#, "bad_kind", "letters"),
            (r#"{"kind":"k","account_id":""}"#, "bad_account_id", "account_id"),
        ] {
            let (status, code, text) = refused(body);
            assert_eq!((status, code), (400, wanted), "{body}: {text}");
            assert!(text.contains(word), "{body}: {text}");
        }
        let large = format!(r#"{{"kind":"k","params":"{}"}}"#, "x".repeat(PARAMS_BYTES_MAX));
        assert_eq!(refused(&large).0, 413);
        let long = format!(r#"{{"kind":"k","{}":1}}"#, "x".repeat(5000));
        assert!(refused(&long).2.chars().count() <= TEXT_CHARS_MAX + 1);
        let id = "x".repeat(ID_BYTES_MAX + 1);
        let path = format!("/v1/devices/d/operations/{id}");
        assert_eq!(code(put(&path, r#"{"kind":"k"}"#)).1, "bad_operation_id");
        assert_eq!(
            code(Call::read(&Method::DELETE, &path, None, b"")).1,
            "bad_operation_id"
        );
    }

    #[test]
    fn conflicts_with_the_device_are_409() {
        for error in [
            RegistrationError::DeviceRemoved,
            RegistrationError::AccountMismatch,
            RegistrationError::TooMany,
        ] {
            assert!(matches!(
                refusal(&error),
                Refused::Request {
                    status: StatusCode::CONFLICT,
                    ..
                }
            ));
        }
    }

    #[test]
    fn a_list_is_narrowed_by_its_query() {
        let call = get(
            "/v1/devices",
            "account=a%26b&status=offline&cursor=c%3D&limit=500",
        )
        .unwrap();
        let wanted = ListCall {
            account: Some("a&b".to_owned()),
            status: Some(Status::Offline),
            cursor: Some("c=".to_owned()),
            limit: 500,
        };
        assert_eq!(call, Call::List(wanted));
        let bare = ListCall {
            account: None,
            status: None,
            cursor: None,
            limit: PAGE_DEVICES,
        };
        assert_eq!(
            get("/v1/devices", "status=&account=&cursor="),
            Ok(Call::List(bare))
        );
        for query in [
            "status=on",
            "limit=0",
            "limit=501",
            "limit=x",
            "acount=a",
            "account=%ff",
            "account=a&account=b",
        ] {
            assert_eq!(code(get("/v1/devices", query)).0, 400, "{query}");
        }
    }
}
