//! Looking a server over.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::support::store;

/// How far apart two readings of one machine's clock may seem that were taken one after the other.
const CLOCK_STEP_US: i64 = 5_000_000;

fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_micros()).unwrap()
}

#[tokio::test]
async fn a_server_tells_its_settings_its_clock_and_how_far_away_it_is() {
    let (redis, store) = store().await;
    let report = store.report().await.unwrap();
    assert_eq!(report.text("maxmemory_policy"), Some("noeviction"));
    assert_eq!(report.text("cluster_enabled"), Some("0"));
    assert_eq!(report.fsync.as_deref(), Some("everysec"));
    assert!(report.number("used_memory").unwrap() > 0 && report.text("redis_version").is_some());

    let before = now_us() - CLOCK_STEP_US;
    let clock = store.server_clock().await.unwrap();
    let after = now_us() + CLOCK_STEP_US;
    assert!(
        (before..=after).contains(&clock.at_us),
        "{} is not in {before}..={after}",
        clock.at_us
    );
    let began = Instant::now();
    let round_trip = store.round_trip().await.unwrap();
    assert!(round_trip <= began.elapsed() && store.tls_endpoint().is_none());

    redis.command(&["ACL", "SETUSER", "default", "-config"]).unwrap();
    assert_eq!(store.report().await.unwrap().fsync, None);
}
