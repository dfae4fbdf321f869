//! Every command on every kind of place: the same words, the same JSON.
//!
//! What differs by nature is said here: where `status` looks, and what a queue in RabbitMQ knows beside.

use serde_json::{Value, json};

use crate::site::{Form, Site, event, trace};

/// Types instead of values, so that two answers can be compared; of a list, the shape of its first entry.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => json!("null"),
        Value::Bool(_) => json!("bool"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("text"),
        Value::Array(entries) => Value::Array(entries.iter().take(1).map(shape).collect()),
        Value::Object(fields) => {
            let shaped = fields.iter().map(|(name, value)| (name.clone(), shape(value)));
            Value::Object(shaped.collect())
        }
    }
}

/// What each command answers on one place, under a name.
async fn answers(site: &Site) -> Vec<(&'static str, Value)> {
    let json = async |arguments: &[&str]| {
        let ran = site.run(&[arguments, &["--json"]].concat()).await.expect(0);
        ran.json()
    };
    let mut answers = Vec::new();
    let add = [
        "operations",
        "add",
        "d/1",
        "nightly",
        "--kind",
        "snapshot",
        "--account",
        "a",
    ];
    answers.push(("add", json(&add).await));
    answers.push(("list operations", json(&["operations", "list", "d/1"]).await));
    answers.push(("show device", json(&["devices", "show", "d/1"]).await));
    answers.push(("list devices", json(&["devices", "list", "--account", "a"]).await));
    let remove = ["operations", "remove", "d/1", "nightly", "--yes"];
    answers.push(("remove", json(&remove).await));
    let page = json(&["devices", "list", "--limit", "1"]).await;
    assert_eq!(page["devices"].as_array().unwrap().len(), 1, "{page}");

    let id = site.bury(0, "no_device", 0).await;
    site.bury(1, "not_json", 1).await;
    site.bury(3, "not_json", 3).await;
    let list = json(&["dead", "list", "--older-than", "1h"]).await;
    assert_eq!((&list["ready"], &list["matching"]), (&3.into(), &3.into()));
    assert_eq!(list["letters"][0]["message_id"], id.as_str());
    answers.push(("list letters", list));
    let narrow = [
        "dead",
        "list",
        "--reason",
        "not_json",
        "--device",
        "d3",
        "--type",
        "device_offline",
    ];
    answers.push(("list some", json(&narrow).await));
    let shown = json(&["dead", "show", &id[..8], "--body"]).await;
    assert_eq!(
        shown[0]["body"],
        String::from_utf8(event("device_online", "d0", 1_000)).unwrap()
    );
    answers.push(("show letter", shown));
    let dry = json(&["dead", "replay"]).await;
    assert_eq!((&dry["matching"], &dry["refused"]), (&2.into(), &1.into()));
    answers.push(("dry run", dry));
    let one = json(&["dead", "replay", "--yes", "--max", "1", "--rate", "100"]).await;
    assert_eq!((&one["replayed"], &one["looked_at"]), (&1.into(), &1.into()));
    answers.push(("replay", one));
    let ran = site.run(&["dead", "replay", "--yes", "--force"]).await.expect(0);
    assert!(
        ran.stdout.starts_with("2 of 2 dead letters were replayed"),
        "{ran:?}"
    );
    let lines: Vec<Value> = ran
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    answers.push(("audit begin", lines[0].clone()));
    let lines: Vec<_> = lines.iter().filter(|line| line.get("fate").is_some()).collect();
    // Confirms come in any order.
    let mut replays: Vec<_> = lines.iter().map(|line| line["replays"].as_u64()).collect();
    replays.sort_unstable();
    assert_eq!(replays, [Some(2), Some(4)]);
    assert!(lines.iter().all(|line| line["fate"] == "replayed"), "{lines:?}");
    answers.push(("audit line", (*lines[0]).clone()));
    answers.push(("list nothing", json(&["dead", "list"]).await));
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_answers_in_the_same_shape_wherever_it_looks() {
    let scaled = answers(&Site::start(Form::Scaled).await).await;
    for form in [Form::Directory, Form::Beside, Form::Api] {
        let site = Site::start(form).await;
        for ((name, mut scaled), (_, mut found)) in scaled.clone().into_iter().zip(answers(&site).await) {
            if name == "show letter" {
                // Each queue has marks of its own beside ours.
                for answer in [&mut scaled, &mut found] {
                    answer[0]["headers"] = json!({});
                }
            }
            assert_eq!(
                shape(&found),
                shape(&scaled),
                "{form:?}: {name}: {found} and {scaled}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_the_same_wherever_it_happens() {
    for form in Form::ALL {
        let site = Site::start(form).await;
        let add =
            |account: &'static str| ["operations", "add", "d", "o", "--kind", "k", "--account", account];
        site.run(&add("a")).await.expect(0);
        let other = site.run(&add("b")).await.expect(1);
        assert!(other.stderr.contains("another account"), "{form:?} {other:?}");
        let unknown = site.run(&["devices", "show", "nobody"]).await.expect(1);
        assert!(
            unknown.stderr.contains("nothing is known of device nobody"),
            "{form:?} {unknown:?}"
        );
        let asked = site.run(&["operations", "remove", "d", "o"]).await.expect(64);
        assert!(asked.stderr.contains("--yes"), "{form:?} {asked:?}");
        let missing = site
            .run(&["operations", "remove", "d", "else", "--yes"])
            .await
            .expect(1);
        assert!(
            missing.stderr.contains("no such operation"),
            "{form:?} {missing:?}"
        );
        if form != Form::Scaled {
            let none = site.run(&["dead", "show", "nothing"]).await.expect(1);
            assert!(
                none.stderr.contains("no dead letter begins with nothing"),
                "{form:?} {none:?}"
            );
        }
        let cursor = site.run(&["devices", "list", "--cursor", "never given"]).await;
        assert!([1, 64].contains(&cursor.code), "{form:?} {cursor:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_no_receiver_took_is_owed_again_unless_something_newer_is() {
    for form in Form::ALL {
        let site = Site::start(form).await;
        for device in ["still", "over"] {
            site.register(device, "o").await;
            let owed = site.apply("device_offline", device, 1_000).await;
            assert_eq!(owed.len(), 1, "{form:?}");
            site.ledger.give_up(&owed[0]).await.unwrap();
            site.bury_command(&owed[0]).await;
        }
        site.apply("device_online", "over", 2_000).await;
        let letters = site.run(&["dead", "list", "--json"]).await.expect(0).json();
        assert_eq!(
            letters["letters"][0]["type"], "command pause",
            "{form:?} {letters}"
        );
        assert_eq!(letters["letters"][0]["origin"], "callback", "{form:?} {letters}");
        let dry = site.run(&["dead", "replay", "--json"]).await.expect(0).json();
        assert_eq!(
            (&dry["matching"], &letters["ready"]),
            (&2.into(), &2.into()),
            "{form:?} {dry}"
        );

        let ran = site.run(&["dead", "replay", "--yes", "--json"]).await.expect(0);
        let report = ran.json();
        assert_eq!(
            (&report["owed_again"], &report["overtaken"], &report["replayed"]),
            (&1.into(), &1.into(), &0.into()),
            "{form:?} {ran:?}"
        );
        let fates: Vec<Value> = ran
            .stderr
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|line| line.get("fate").is_some())
            .collect();
        let mut fates: Vec<_> = fates.iter().map(|line| line["fate"].as_str().unwrap()).collect();
        // On RabbitMQ several are under way at once.
        fates.sort_unstable();
        assert_eq!(fates, ["overtaken", "owed_again"], "{form:?}");
        let left = site.run(&["dead", "list", "--json"]).await.expect(0).json();
        assert_eq!(left["ready"], 0, "{form:?}");
        if form == Form::Directory || form == Form::Scaled {
            // Nobody sends here, so both are still owed: the pause again, and the other's resume.
            assert_eq!(site.ledger.backlog().await.unwrap().commands, 2, "{form:?}");
            let owed = site.ledger.claim(i64::MAX, 10).await.unwrap();
            assert!(
                owed.iter().all(|command| command.cause.traceparent == trace()),
                "{form:?} {owed:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_the_same_queues_and_ledger_of_a_standalone_in_each_way() {
    let mut shapes = Vec::new();
    for form in [Form::Directory, Form::Beside, Form::Api] {
        let site = Site::start(form).await;
        site.register("d", "o").await;
        site.apply("device_online", "d", 1_000).await;
        let ran = site.run(&["status", "--json"]).await.expect(0);
        let status = ran.json();
        assert!(
            status.get("rabbitmq").is_none() && status.get("redis").is_none(),
            "{status}"
        );
        let state = &status["standalone"]["state"];
        let names: Vec<_> = (0..3)
            .map(|at| state["queues"][at]["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            ["porchlight.events", "porchlight.retry", "porchlight.dead"]
        );
        assert_eq!(
            (&state["ledger"]["devices"]["online"], &state["blocked"]),
            (&1.into(), &Value::Null)
        );
        assert!(state["file"]["bytes_in_use"].as_u64().unwrap() > 0, "{status}");
        assert_eq!(state["running"], form != Form::Directory, "{status}");
        let check = site.run(&["status", "--check"]).await;
        if form == Form::Directory {
            assert!(
                check.stdout.contains("no standalone runs on this directory"),
                "{check:?}"
            );
            check.expect(1);
        } else {
            assert!(!check.stdout.contains("needs attention"), "{check:?}");
            assert!(check.stdout.lines().all(|line| line.len() <= 100), "{check:?}");
            check.expect(0);
        }
        shapes.push(shape(&status["standalone"]["state"]));
    }
    assert_eq!(shapes[0], shapes[1]);
    assert_eq!(shapes[1], shapes[2]);
}
