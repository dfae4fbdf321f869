//! What `dead replay` without `--yes` foretells, on every kind of place, and that nothing changes by asking.

use std::collections::BTreeMap;

use bytes::Bytes;
use porchlight_event::Envelope;
use porchlight_event::queue::DeathNote;
use porchlight_queue::Deadlines;
use porchlight_testbed::http;
use serde_json::{Value, json};

use crate::site::{DIED_AT_MS, Form, PATIENCE, Site, TOKEN, event, now_ms};

/// Puts these bytes into the dead letters; the message id.
async fn bury(site: &Site, body: impl Into<Bytes>, reason: &str) -> String {
    let envelope = Envelope::bare(body.into());
    let note = DeathNote {
        reason,
        stage: "decide",
        detail: "a test wants it so",
        at_ms: DIED_AT_MS,
    };
    let buried = site.queue.bury(&envelope, note, Deadlines::within(PATIENCE));
    buried.await.unwrap();
    envelope.message_id
}

/// What the dry run says of each letter: outcome, reason, and pauses, resumes and cancels.
async fn foretold(site: &Site, more: &[&str]) -> (Value, BTreeMap<String, String>) {
    let dry = site
        .run(&[&["dead", "replay", "--json"], more].concat())
        .await
        .expect(0)
        .json();
    assert_eq!(dry["dry_run"], true, "{dry}");
    let letters = dry["letters"].as_array().unwrap();
    let said = letters.iter().map(|letter| {
        let prediction = &letter["prediction"];
        let commands = &prediction["commands"];
        let words = format!(
            "{} {} {}-{}-{}",
            prediction["outcome"].as_str().unwrap(),
            prediction["reason"].as_str().unwrap(),
            commands["pause"],
            commands["resume"],
            commands["cancel"],
        );
        (letter["message_id"].as_str().unwrap().to_owned(), words)
    });
    let said = said.collect();
    (dry, said)
}

#[tokio::test]
async fn each_letter_is_foretold_alike_on_every_kind_of_place_and_stays() {
    for form in Form::ALL {
        let site = Site::start(form).await;
        site.apply("device_online", "d1", 1_000).await;
        site.register("d1", "nightly").await;
        site.apply("device_removed", "gone", 5_000).await;
        let owed = site.register("d1", "hourly").await;
        assert_eq!(owed, None);
        let mut wanted = BTreeMap::new();
        let future = now_ms() + 600_000;
        for (body, words) in [
            (event("device_offline", "d1", 2_000), "applied newest 2-0-0"),
            (event("device_online", "d1", 1_000), "duplicate seen 0-0-0"),
            (event("device_offline", "d1", 500), "stale older_than_known 0-0-0"),
            (
                event("device_online", "gone", 6_000),
                "refused device_removed 0-0-0",
            ),
            (event("motion_detected", "d1", 9_000), "recorded no_effect 0-0-0"),
            (event("device_removed", "d1", 3_000), "applied newest 0-0-2"),
            (event("device_online", "d1", future), "later future 0-0-0"),
            (
                br#"{"data":{"type":"device_online","id":"e"}}"#.to_vec(),
                "poison no_device 0-0-0",
            ),
            (b"{".to_vec(), "poison not_json 0-0-0"),
        ] {
            wanted.insert(bury(&site, body, "a_test").await, words.to_owned());
        }
        let before = site.ledger.device("d1").await.unwrap();
        let (dry, said) = foretold(&site, &[]).await;
        assert_eq!(said, wanted, "{form:?}");
        let outcomes = &dry["prediction"]["outcomes"];
        assert_eq!(outcomes["applied"]["newest"]["letters"], 2, "{form:?} {dry}");
        assert_eq!(outcomes["poison"]["no_device"]["letters"], 1, "{form:?} {dry}");
        assert_eq!(
            dry["prediction"]["commands"],
            json!({ "pause": 2, "resume": 0, "cancel": 2 })
        );
        // Nothing has changed, so the same is foretold again.
        assert_eq!(site.ledger.device("d1").await.unwrap(), before, "{form:?}");
        assert_eq!(foretold(&site, &[]).await.1, wanted, "{form:?}");
        let (few, said) = foretold(&site, &["--limit", "3"]).await;
        assert_eq!((said.len(), &few["matching"]), (3, &9.into()), "{form:?}");
        let shown = site.run(&["dead", "replay"]).await.expect(0).stdout;
        for words in [
            "poison again",
            "applied, owes 2 pauses",
            "they would make 2 pauses and 2 cancels owed",
        ] {
            assert!(shown.contains(words), "{form:?} {words}\n{shown}");
        }
    }
}

#[tokio::test]
async fn a_command_that_was_given_up_is_foretold_to_be_owed_again_or_overtaken() {
    for form in [Form::Scaled, Form::Directory] {
        let site = Site::start(form).await;
        let mut commands = Vec::new();
        for device in ["waits", "over"] {
            site.register(device, "nightly").await;
            let pause = site.apply("device_offline", device, 1_000).await.remove(0);
            site.ledger.give_up(&pause).await.unwrap();
            site.bury_command(&pause).await;
            commands.push(pause);
        }
        site.apply("device_online", "over", 2_000).await;
        let (_, said) = foretold(&site, &[]).await;
        let mut said: Vec<_> = said.into_values().collect();
        said.sort();
        assert_eq!(
            said,
            ["overtaken overtaken 0-0-0", "owed_again still_true 0-0-0"],
            "{form:?}"
        );
        assert_eq!(site.ledger.backlog().await.unwrap().commands, 1, "{form:?}");
    }
}

#[tokio::test]
async fn signatures_count_where_a_worker_has_refused_one() {
    let site = Site::start(Form::Scaled).await;
    bury(&site, event("device_online", "d", 1_000), "bad_signature").await;
    let said = async |more: &[&str]| foretold(&site, more).await.1.into_values().next().unwrap();
    assert_eq!(said(&[]).await, "unknown keys_not_given 0-0-0");
    assert_eq!(
        said(&["--signing-keys", "ring=abc"]).await,
        "poison bad_signature 0-0-0"
    );
}

#[tokio::test]
async fn without_the_ledger_what_cannot_be_said_is_unknown_and_the_rest_is_said() {
    let mut site = Site::start(Form::Scaled).await;
    site.variables.retain(|(name, _)| *name != "PORCHLIGHT_REDIS_URL");
    site.variables
        .push(("PORCHLIGHT_REDIS_URL", "redis://127.0.0.1:1".to_owned()));
    bury(&site, event("device_online", "d", 1_000), "x").await;
    bury(&site, "{", "not_json").await;
    let (_, said) = foretold(&site, &[]).await;
    let mut said: Vec<_> = said.into_values().collect();
    said.sort();
    assert_eq!(said, ["poison not_json 0-0-0", "unknown ledger_away 0-0-0"]);
}

#[tokio::test]
async fn the_control_api_foretells_by_keys_and_refuses_what_is_none() {
    let site = Site::start(Form::Api).await;
    bury(&site, "{", "not_json").await;
    let admin = site.alone.as_ref().unwrap().admin;
    let bearer = format!("Bearer {TOKEN}");
    let ask = async |body: &str| {
        let headers = [("authorization", bearer.as_str())];
        http::request(admin, "POST", "/v1/dead/predict", &headers, body.as_bytes())
            .await
            .unwrap()
    };
    let answer = ask(r#"{"keys":["1","99"]}"#).await;
    assert_eq!(answer.status, 200);
    let results = &answer.json().unwrap()["results"];
    assert_eq!(
        (&results[0]["key"], &results[0]["prediction"]["outcome"]),
        (&"1".into(), &"poison".into())
    );
    assert_eq!(
        (&results[1]["key"], &results[1]["prediction"]),
        (&"99".into(), &Value::Null)
    );
    let many = serde_json::to_string(&json!({ "keys": vec!["1"; 129] })).unwrap();
    for body in [
        "",
        "{}",
        r#"{"keys":[]}"#,
        r#"{"keys":["x"]}"#,
        r#"{"keys":["1"],"y":1}"#,
        many.as_str(),
    ] {
        assert_eq!(ask(body).await.status, 400, "{body}");
    }
    assert_eq!(http::get(admin, "/v1/dead/predict").await.unwrap().status, 401);
}
