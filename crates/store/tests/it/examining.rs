//! Looking a server over.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::store;

#[tokio::test]
async fn a_server_tells_its_settings_its_clock_and_how_far_away_it_is() {
    let (redis, store) = store().await;
    let report = store.report().await.unwrap();
    assert_eq!(report.text("maxmemory_policy"), Some("noeviction"));
    assert_eq!(report.text("cluster_enabled"), Some("0"));
    assert_eq!(report.fsync.as_deref(), Some("everysec"));
    assert!(report.number("used_memory").unwrap() > 0 && report.text("redis_version").is_some());

    let clock = store.server_clock().await.unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let apart = i64::try_from(now.as_micros()).unwrap() - clock.at_us;
    assert!(apart.abs() < 5_000_000, "{apart}");
    assert!(store.round_trip().await.unwrap().as_secs() < 5 && store.tls_endpoint().is_none());

    redis.command(&["ACL", "SETUSER", "default", "-config"]).unwrap();
    assert_eq!(store.report().await.unwrap().fsync, None);
}
