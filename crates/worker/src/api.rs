//! The control API: registers and forgets operations and shows devices, in JSON, under `/v1/devices`.
//!
//! The listener and the token's check are the admin listener's; what a request asks for is read in [`route`].

mod route;

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use porchlight_device::Registration;
use porchlight_ledger::{LedgerError, PageError, RegisterError};
use porchlight_service::{ApiFn, ApiRequest, ApiResponse};

use crate::clerk::Clerk;
use crate::dispatch::Dispatch;
use crate::metrics::WorkerMetrics;
use route::{Call, ListCall, Refused};

/// For one call. The ledger's own deadlines are shorter; a page of a thousand devices asks it many times.
const CALL_MAX: Duration = Duration::from_secs(8);

/// What the calls need.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) clerk: Arc<Clerk>,
    pub(crate) dispatch: Dispatch,
    pub(crate) metrics: Arc<WorkerMetrics>,
}

impl Api {
    /// The function the admin listener mounts.
    ///
    /// # Cancel safety
    /// Each call changes at most one thing in one atomic step, so a dropped call did it or did not.
    pub(crate) fn into_fn(self) -> ApiFn {
        Arc::new(move |request| {
            let own = self.clone();
            Box::pin(async move { own.answer(request).await })
        })
    }

    async fn answer(&self, request: ApiRequest) -> ApiResponse {
        let ApiRequest {
            method,
            path,
            query,
            body,
            ..
        } = request;
        let (label, response) = match Call::read(&method, &path, query.as_deref(), &body) {
            Err(refused) => ("refused", refusal(refused)),
            Ok(call) => {
                let label = call.label();
                // In a box, for the compiler: with the ledger below it the nest of futures is deeper than it goes.
                let done = tokio::time::timeout(CALL_MAX, Box::pin(self.call(call))).await;
                (
                    label,
                    done.unwrap_or_else(|_| unavailable("the ledger did not answer in time")),
                )
            }
        };
        self.metrics.call(label, response.status().as_u16());
        response
    }

    async fn call(&self, call: Call) -> ApiResponse {
        match call {
            Call::Register {
                device_id,
                registration,
            } => self.register(&device_id, &registration).await,
            Call::Forget {
                device_id,
                operation_id,
            } => self.forget(&device_id, &operation_id).await,
            Call::Show { device_id } => self.show(&device_id).await,
            Call::List(list) => self.list(list).await,
        }
    }

    async fn register(&self, device_id: &str, registration: &Registration) -> ApiResponse {
        match self.clerk.register(device_id, registration).await {
            Ok(registered) => {
                if let Some(command) = registered.command {
                    self.dispatch.offer(command);
                }
                let status = if registered.created {
                    StatusCode::CREATED
                } else {
                    StatusCode::OK
                };
                match registered.operation {
                    Some(operation) => ApiResponse::json(status, &operation),
                    None => ApiResponse::error(
                        StatusCode::CONFLICT,
                        "forgotten",
                        "the operation was forgotten by another call at the same moment",
                    ),
                }
            }
            Err(RegisterError::Refused(error)) => refusal(route::refusal(&error)),
            Err(RegisterError::Ledger(error)) => failed(&error),
        }
    }

    async fn forget(&self, device_id: &str, operation_id: &str) -> ApiResponse {
        match self.clerk.forget(device_id, operation_id).await {
            Ok(true) => ApiResponse::empty(StatusCode::NO_CONTENT),
            Ok(false) => not_found("unknown_operation", "the device has no such operation"),
            Err(error) => failed(&error),
        }
    }

    async fn show(&self, device_id: &str) -> ApiResponse {
        match self.clerk.device(device_id).await {
            Ok(Some(device)) => ApiResponse::json(StatusCode::OK, &device),
            Ok(None) => not_found("unknown_device", "nothing is known of this device"),
            Err(error) => failed(&error),
        }
    }

    async fn list(&self, list: ListCall) -> ApiResponse {
        match self
            .clerk
            .devices(list.account, list.status, list.cursor.as_deref(), list.limit)
            .await
        {
            Ok(page) => ApiResponse::json(StatusCode::OK, &page),
            Err(error @ PageError::BadCursor) => {
                ApiResponse::error(StatusCode::BAD_REQUEST, "bad_query", &error.to_string())
            }
            Err(PageError::Ledger(error)) => failed(&error),
        }
    }
}

fn refusal(refused: Refused) -> ApiResponse {
    match refused {
        Refused::Method(allow) => ApiResponse::method_not_allowed(allow),
        Refused::Request { status, code, text } => ApiResponse::error(status, code, &text),
    }
}

fn not_found(code: &str, text: &str) -> ApiResponse {
    ApiResponse::error(StatusCode::NOT_FOUND, code, text)
}

fn unavailable(text: &str) -> ApiResponse {
    ApiResponse::error(StatusCode::SERVICE_UNAVAILABLE, "ledger_unavailable", text)
}

/// The cause goes to the log; outside only what a caller can act on is said.
fn failed(error: &LedgerError) -> ApiResponse {
    tracing::debug!(%error, "a call of the control API failed");
    unavailable("the ledger cannot be reached or takes no writes; try again")
}
