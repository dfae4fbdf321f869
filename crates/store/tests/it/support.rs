//! What the tests share: a server, a store on it, and events.

use porchlight_device::{Decision, News, Registration};
use porchlight_event::RingEvent;
use porchlight_store::{Store, StoreConfig, StoreError};
use porchlight_testbed::Redis;
use porchlight_testbed::redis::Fsync;
use serde_json::json;
use std::time::Duration;

/// How long a test waits for a state, and for an answer where none is to be missing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A fast server, and a store on it.
pub(crate) async fn store() -> (Redis, Store) {
    let redis = Redis::start_with(Fsync::EverySecond, None).await.unwrap();
    let store = store_on(&redis);
    (redis, store)
}

/// It waits for long: a call that was given up has its effect all the same, and the next one would find it.
pub(crate) fn store_on(redis: &Redis) -> Store {
    let config = StoreConfig {
        connect_timeout: PATIENCE,
        response_timeout: PATIENCE,
        ..StoreConfig::new(redis.url())
    };
    Store::connect(&config).unwrap()
}

/// An event as Ring would send it.
#[derive(Debug, Clone)]
pub(crate) struct Event<'a> {
    pub(crate) event_type: &'a str,
    pub(crate) device_id: &'a str,
    pub(crate) account_id: Option<&'a str>,
    pub(crate) at: i64,
    pub(crate) request_id: Option<&'a str>,
}

impl Event<'_> {
    pub(crate) fn news(&self) -> News {
        let is_account = self.event_type.starts_with("app_");
        let subject = if is_account {
            self.account_id.unwrap()
        } else {
            self.device_id
        };
        let is_other = self.event_type.starts_with("something_");
        let source_type = match (is_account, is_other) {
            (true, _) => "users",
            (_, true) => "subscriptions",
            _ => "devices",
        };
        let body = json!({
            "meta": { "request_id": self.request_id, "account_id": self.account_id },
            "data": {
                "id": format!("{subject}_{}_{}", self.event_type, self.at),
                "type": self.event_type,
                "attributes": {
                    "source": subject,
                    "source_type": source_type,
                    "timestamp": self.at,
                },
            },
        });
        News::new(&RingEvent::parse(body.to_string().as_bytes()).unwrap(), 0).unwrap()
    }
}

/// An event of `device_id` in account `acct`.
pub(crate) fn news(event_type: &str, device_id: &str, at: i64) -> News {
    Event {
        event_type,
        device_id,
        account_id: Some("acct"),
        at,
        request_id: None,
    }
    .news()
}

pub(crate) async fn apply(store: &Store, news: &News, now_ms: i64) -> Result<Decision, StoreError> {
    store
        .apply_batch(0, std::slice::from_ref(news), now_ms)
        .await
        .remove(0)
}

pub(crate) fn registration(operation_id: &str) -> Registration {
    Registration {
        operation_id: operation_id.to_owned(),
        account_id: None,
        kind: "snapshot".to_owned(),
        params: r#"{"every":"night"}"#.to_owned(),
    }
}
