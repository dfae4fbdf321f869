//! `devices` and `operations` on a private Redis.

use porchlight_testbed::Redis;

use crate::tool::run;

#[tokio::test]
async fn an_operation_is_added_listed_shown_and_removed() {
    let redis = Redis::start().await.unwrap();
    let url = redis.url();
    let server = [("PORCHLIGHT_REDIS_URL", url.as_str())];
    let add = [
        "operations",
        "add",
        "d/1",
        "nightly",
        "--kind",
        "snapshot",
        "--params",
        r#"{"a":[1]}"#,
        "--account",
        "a",
    ];
    let added = run(&[&add[..], &["--json"]].concat(), &server)
        .await
        .expect(0)
        .json();
    assert_eq!(
        (&added["state"], &added["params"]["a"][0]),
        (&"running".into(), &1.into())
    );
    run(&add, &server).await.expect(0);

    let listed = run(&["operations", "list", "d/1", "--json"], &server)
        .await
        .expect(0)
        .json();
    assert_eq!(listed, serde_json::json!([added]));
    let shown = run(&["devices", "show", "d/1"], &server).await.expect(0).stdout;
    assert!(shown.contains("nightly") && shown.contains("unknown"), "{shown}");
    let shown = run(&["devices", "show", "d/1", "--json"], &server)
        .await
        .expect(0)
        .json();
    assert_eq!(
        (&shown["account_id"], &shown["operations"][0]),
        (&"a".into(), &added)
    );

    let asked = run(&["operations", "remove", "d/1", "nightly"], &server)
        .await
        .expect(64);
    assert!(asked.stderr.contains("--yes"), "{asked:?}");
    run(&["operations", "remove", "d/1", "nightly", "--yes"], &server)
        .await
        .expect(0);
    let again = run(
        &["operations", "remove", "d/1", "nightly", "--yes", "--json"],
        &server,
    )
    .await
    .expect(1);
    assert_eq!(again.json()["removed"], false);
}

#[tokio::test]
async fn devices_are_listed_page_by_page() {
    let redis = Redis::start().await.unwrap();
    let url = redis.url();
    let server = [("PORCHLIGHT_REDIS_URL", url.as_str())];
    for number in 0..7 {
        let device = format!("d{number}");
        let account = format!("a{}", number % 2);
        run(
            &[
                "operations",
                "add",
                &device,
                "o",
                "--kind",
                "k",
                "--account",
                &account,
            ],
            &server,
        )
        .await
        .expect(0);
    }
    let all = run(&["devices", "list", "--all", "--json"], &server)
        .await
        .expect(0);
    assert_eq!(all.stdout.lines().count(), 7);
    let account = run(&["devices", "list", "--account", "a0", "--json"], &server)
        .await
        .expect(0)
        .json();
    assert_eq!(account["devices"].as_array().unwrap().len(), 4);
    let none = run(&["devices", "list", "--status", "online", "--json"], &server)
        .await
        .expect(0)
        .json();
    assert_eq!(none, serde_json::json!({ "devices": [], "next_cursor": null }));

    let first = run(&["devices", "list", "--limit", "5", "--json"], &server)
        .await
        .expect(0)
        .json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = run(&["devices", "list", "--cursor", cursor, "--json"], &server)
        .await
        .expect(0)
        .json();
    assert_eq!(first["devices"].as_array().unwrap().len(), 5);
    assert_eq!(second["devices"].as_array().unwrap().len(), 2);
    assert_eq!(second["next_cursor"], serde_json::Value::Null);
}

#[tokio::test]
async fn what_cannot_be_registered_says_why() {
    let redis = Redis::start().await.unwrap();
    let url = redis.url();
    let server = [("PORCHLIGHT_REDIS_URL", url.as_str())];
    let wrong = run(&["operations", "add", "d", "o", "--kind", "not a word"], &server)
        .await
        .expect(64);
    assert!(wrong.stderr.contains("kind"), "{wrong:?}");
    run(
        &["operations", "add", "d", "o", "--kind", "k", "--account", "a"],
        &server,
    )
    .await
    .expect(0);
    let other = run(
        &["operations", "add", "d", "o", "--kind", "k", "--account", "b"],
        &server,
    )
    .await
    .expect(1);
    assert!(other.stderr.contains("another account"), "{other:?}");
    let unknown = run(&["devices", "show", "nobody"], &server).await.expect(1);
    assert!(
        unknown.stderr.contains("nothing is known of device nobody"),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn a_redis_that_is_away_is_told_as_that() {
    let url = format!("redis://:hunter2@127.0.0.1:{}", porchlight_testbed::free_port());
    let ran = run(&["devices", "list"], &[("PORCHLIGHT_REDIS_URL", &url)])
        .await
        .expect(69);
    assert!(
        ran.stderr.contains("cannot be reached") && !ran.stderr.contains("hunter2"),
        "{ran:?}"
    );
}
