//! The control API, row by row.

use porchlight_testbed::http::request;
use serde_json::{Value, json};

use crate::harness::{Form, Setup, body, in_every_form, now_ms};
use crate::servers::Bench;

in_every_form!(
    an_operation_is_registered_shown_changed_and_forgotten,
    a_device_is_shown_with_the_reason_of_each_decision,
    devices_come_in_pages_narrowed_by_account_and_status,
    what_cannot_be_done_is_answered_with_its_own_code,
    without_a_token_the_api_is_off_and_health_stays,
);

fn code(answer: &porchlight_testbed::http::Response) -> (u16, String) {
    let error = answer.json().unwrap_or_default();
    (
        answer.status,
        error["error"]["code"].as_str().unwrap_or_default().to_owned(),
    )
}

async fn an_operation_is_registered_shown_changed_and_forgotten(bench: impl Form) {
    let worker = bench.worker().await;
    let path = "/v1/devices/d%2F1/operations/o%2F%F0%9F%98%80";
    let first = worker
        .call(
            "PUT",
            path,
            r#"{"kind":"snapshot","params":{"a":[1]},"account_id":"acct"}"#,
        )
        .await;
    let wanted = json!({"id": "o/\u{1f600}", "kind": "snapshot", "params": {"a": [1]}, "state": "running", "generation": 0});
    assert_eq!((first.status, first.json().unwrap()), (201, wanted.clone()));
    let again = worker
        .call(
            "PUT",
            path,
            r#"{"kind":"snapshot","params":{"a":[1]},"account_id":"acct"}"#,
        )
        .await;
    assert_eq!((again.status, again.json().unwrap()), (200, wanted));
    let changed = worker.call("PUT", path, r#"{"kind":"clip"}"#).await;
    assert_eq!(
        (changed.status, changed.json().unwrap()["kind"].as_str()),
        (200, Some("clip"))
    );
    let shown = worker.device("d%2F1").await;
    assert_eq!(
        (shown["device_id"].as_str(), shown["status"].as_str()),
        (Some("d/1"), Some("unknown"))
    );
    assert_eq!(shown["operations"][0]["params"], Value::Null);
    let forgotten = worker.call("DELETE", path, "").await;
    assert_eq!((forgotten.status, forgotten.body.len()), (204, 0));
    assert_eq!(
        code(&worker.call("DELETE", path, "").await),
        (404, "unknown_operation".to_owned())
    );
    assert_eq!(worker.device("d%2F1").await["operations"], json!([]));
    worker.stop().await.unwrap();
}

async fn a_device_is_shown_with_the_reason_of_each_decision(bench: impl Form) {
    let worker = bench.worker().await;
    let at = now_ms() - 1000;
    for (kind, at) in [("device_online", at), ("device_offline", at - 5)] {
        bench.publish_all([body(kind, "d", at)]).await;
        bench.drained().await;
    }
    let shown = worker.device("d").await;
    let wanted = json!({
        "event_id": format!("d_device_offline_{}", at - 5), "request_id": format!("device_offline/d/{}", at - 5),
        "type": "device_offline", "timestamp": at - 5, "outcome": "stale",
    });
    assert_eq!(
        (&shown["status"], &shown["status_since"]),
        (&json!("online"), &json!(at))
    );
    assert_eq!(
        (&shown["account_id"], &shown["last_event"]),
        (&json!("acct"), &wanted)
    );
    let reasons: Vec<_> = shown["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["reason"].as_str().unwrap())
        .collect();
    assert_eq!(
        reasons,
        [
            "newer news of its kind is already known",
            "the newest news of its kind"
        ]
    );
    worker.stop().await.unwrap();
}

async fn devices_come_in_pages_narrowed_by_account_and_status(bench: impl Form) {
    let worker = bench.worker().await;
    let at = now_ms() - 1000;
    bench
        .publish_all((0..25).map(|n| {
            body(
                if n < 5 { "device_offline" } else { "device_online" },
                &format!("d{n}"),
                at,
            )
        }))
        .await;
    worker.wait_sum("porchlight_worker_events_total", 25.0).await;
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = worker
            .call(
                "GET",
                &format!("/v1/devices?account=acct&limit=10&cursor={cursor}"),
                "",
            )
            .await;
        let page = page.json().unwrap();
        found.extend(
            page["devices"]
                .as_array()
                .unwrap()
                .iter()
                .map(|d| d["device_id"].as_str().unwrap().to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 25);
    let offline = worker
        .call("GET", "/v1/devices?status=offline", "")
        .await
        .json()
        .unwrap();
    assert_eq!(offline["devices"].as_array().unwrap().len(), 5);
    assert_eq!(offline["devices"][0]["account_id"], "acct");
    worker.stop().await.unwrap();
}

async fn what_cannot_be_done_is_answered_with_its_own_code(bench: impl Form) {
    let worker = bench.worker().await;
    bench
        .publish_all([body("device_removed", "gone", now_ms() - 5)])
        .await;
    bench.drained().await;
    worker
        .call(
            "PUT",
            "/v1/devices/d/operations/o",
            r#"{"kind":"k","account_id":"a"}"#,
        )
        .await;
    let large = format!(r#"{{"kind":"k","params":"{}"}}"#, "x".repeat(17_000));
    let huge = " ".repeat(70_000);
    let good = r#"{"kind":"k"}"#;
    for (method, path, body, wanted) in [
        ("GET", "/v1/devices/nobody", "", (404, "unknown_device")),
        ("GET", "/v1/devices/%ff", "", (400, "bad_encoding")),
        ("GET", "/v1/devices/%zz", "", (400, "bad_encoding")),
        ("GET", "/v1/devices?status=up", "", (400, "bad_query")),
        ("GET", "/v1/devices?cursor=odd", "", (400, "bad_query")),
        ("GET", "/v1/nothing", "", (404, "not_found")),
        ("POST", "/v1/devices/d", good, (405, "method_not_allowed")),
        ("PUT", "/v1/devices/d/operations/o", "{}", (400, "bad_body")),
        (
            "PUT",
            "/v1/devices/d/operations/o",
            r#"{"kind":"k","colour":1}"#,
            (400, "bad_body"),
        ),
        (
            "PUT",
            "/v1/devices/d/operations/o",
            r#"{"kind":"a b"}"#,
            (400, "bad_kind"),
        ),
        (
            "PUT",
            "/v1/devices/d/operations/o",
            r#"{"kind":"k","account_id":"b"}"#,
            (409, "account_mismatch"),
        ),
        (
            "PUT",
            "/v1/devices/gone/operations/o",
            good,
            (409, "device_removed"),
        ),
        (
            "PUT",
            "/v1/devices/d/operations/o",
            large.as_str(),
            (413, "params_too_large"),
        ),
        (
            "PUT",
            "/v1/devices/d/operations/o",
            huge.as_str(),
            (413, "body_too_large"),
        ),
    ] {
        let answer = worker.call(method, path, body).await;
        assert_eq!(
            code(&answer),
            (wanted.0, wanted.1.to_owned()),
            "{method} {path}: {}",
            answer.text()
        );
    }
    let unsigned = request(worker.admin, "GET", "/v1/devices/d", &[], b"")
        .await
        .unwrap();
    assert_eq!(code(&unsigned), (401, "unauthorized".to_owned()));
    worker.stop().await.unwrap();
}

async fn without_a_token_the_api_is_off_and_health_stays(bench: impl Form) {
    let setup = Setup {
        token: None,
        ..Setup::default()
    };
    let worker = bench.start(setup);
    worker.ready().await;
    assert_eq!(
        code(&worker.call("GET", "/v1/devices", "").await),
        (404, "api_off".to_owned())
    );
    assert_eq!(worker.call("GET", "/livez", "").await.status, 200);
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_ledger_that_is_away_is_answered_503_in_time() {
    let bench = Bench::start().await;
    let worker = bench.start(Setup::for_frozen_ledger());
    worker.ready().await;
    for freeze in [true, false] {
        if freeze {
            bench.redis.pause()
        } else {
            bench.redis.kill()
        }
        for (method, path, body) in [
            ("GET", "/v1/devices/d", ""),
            ("GET", "/v1/devices", ""),
            ("DELETE", "/v1/devices/d/operations/o", ""),
            ("PUT", "/v1/devices/d/operations/o", r#"{"kind":"k"}"#),
        ] {
            let answer = worker.call(method, path, body).await;
            assert_eq!(
                code(&answer),
                (503, "ledger_unavailable".to_owned()),
                "{method} {path}"
            );
        }
    }
    let _ = worker.stop().await;
}
