//! What the servers are set to: definitions that RabbitMQ imports and the daemons then find as they declare it, and
//! settings that Redis takes.
//!
//! The definitions for RabbitMQ 4 cannot be imported into the 3.10 that tests have; they are held against those for 3.

use std::collections::BTreeMap;

use porchlight_testbed::{RabbitMq, Redis};
use serde_json::{Value, json};

use super::{bytes, list, named, none, production, root, text};
use crate::support::{Pipeline, Plan, event, now_ms};

/// What a definitions file may hold: no users, no permissions, and nothing else that is secret or the operator's.
const KEPT: [&str; 4] = ["policies", "exchanges", "queues", "bindings"];
/// Queues that must never lose anything to a delivery limit.
const UNLIMITED: [&str; 2] = ["porchlight.dead", "porchlight.unrouted"];

fn definitions(version: &str) -> Value {
    let path = root().join(format!("deploy/rabbitmq/definitions-{version}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The same for another virtual host.
fn moved_to(mut definitions: Value, vhost: &str) -> Value {
    for part in KEPT {
        for entry in definitions[part].as_array_mut().unwrap() {
            assert_eq!(entry["vhost"], "/", "{entry}");
            entry["vhost"] = json!(vhost);
        }
    }
    definitions
}

/// What a virtual host holds, in the form of a definitions file.
async fn exported(node: &RabbitMq, vhost: &str) -> Value {
    let all = node
        .eval("rabbit_json:encode(rabbit_definitions:all_definitions())")
        .await
        .unwrap();
    let mut all: Value = serde_json::from_str(&all).unwrap();
    let mut kept = json!({});
    for part in KEPT {
        let mut entries = all[part].take();
        let list = entries.as_array_mut().unwrap();
        list.retain(|entry| entry["vhost"] == vhost);
        // They come in the order of a table that other tests write to as well.
        list.sort_by_key(ToString::to_string);
        kept[part] = entries;
    }
    kept
}

async fn import(node: &RabbitMq, vhost: &str, definitions: Value) {
    let path = node.directory().join(format!("{vhost}.json"));
    std::fs::write(&path, moved_to(definitions, vhost).to_string()).unwrap();
    let import = format!(
        "{{ok, File}} = file:read_file(\"{}\"), ok = rabbit_definitions:import_raw(File), []",
        path.display()
    );
    node.eval(&import).await.unwrap();
}

/// The entries of one part by name, in an order of their own, without where they are.
fn part(definitions: &Value, part: &str) -> BTreeMap<String, Value> {
    let entries = list(&definitions[part]).iter().cloned();
    entries
        .map(|mut entry| {
            let fields = entry.as_object_mut().unwrap();
            fields.remove("vhost");
            // A queue's type is told twice where it is exported.
            let told_twice = fields
                .get("arguments")
                .is_some_and(|arguments| fields.get("type") == Some(&arguments["x-queue-type"]));
            if told_twice {
                fields.remove("type");
            }
            let key = |name| text(&entry[name]).to_owned();
            (format!("{}{}", key("name"), key("source")), entry)
        })
        .collect()
}

#[track_caller]
fn same_topology(one: &Value, other: &Value) {
    for kind in ["exchanges", "queues", "bindings"] {
        assert_eq!(part(one, kind), part(other, kind), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_definitions_for_rabbitmq_3_are_what_the_daemons_declare_and_are_taken_as_they_are() {
    let declared = Pipeline::start(Plan::default()).await;
    let node = declared.broker.node();
    let by_daemons = exported(node, declared.broker.vhost()).await;
    same_topology(&definitions("3.x"), &by_daemons);

    let mut imported = Pipeline::prepare(Plan::default()).await;
    let vhost = imported.broker.vhost().to_owned();
    import(node, &vhost, definitions("3.x")).await;
    let before = exported(node, &vhost).await;
    for member in imported.members_mut() {
        member.start();
    }
    for member in imported.members() {
        member.wait_until_ready().await;
    }
    imported
        .accept(&event("device_online", "d-1", "acct", now_ms()))
        .await;
    imported.settle().await;
    assert_eq!(imported.device("d-1").await["status"], "online");
    assert_eq!(
        exported(node, &vhost).await,
        before,
        "the daemons changed something"
    );
    assert_eq!(part(&before, "policies"), part(&definitions("3.x"), "policies"));
    // Once more, as somebody would do it after an upgrade: nothing is refused, nothing changes.
    import(node, &vhost, definitions("3.x")).await;
    assert_eq!(exported(node, &vhost).await, before);
}

#[test]
fn the_definitions_for_rabbitmq_4_differ_only_in_lifting_the_delivery_limit() {
    let mut wanted = definitions("3.x");
    for queue in wanted["queues"].as_array_mut().unwrap() {
        if UNLIMITED.contains(&text(&queue["name"])) {
            queue["arguments"]["x-delivery-limit"] = json!(-1);
        }
    }
    let four = definitions("4.x");
    same_topology(&four, &wanted);
    let mut policies = part(&four, "policies");
    let lift = policies.remove("porchlight-unlimited").unwrap();
    assert_eq!(policies, part(&wanted, "policies"));
    assert_eq!(lift["definition"], json!({ "delivery-limit": -1 }));
}

#[test]
fn definitions_hold_no_users_and_name_only_queues_of_ours() {
    for version in ["3.x", "4.x"] {
        let definitions = definitions(version);
        let parts: Vec<_> = definitions.as_object().unwrap().keys().collect();
        assert!(
            parts.iter().all(|part| KEPT.contains(&part.as_str())),
            "{parts:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_policy_is_for_the_queues_it_is_meant_for_and_no_queue_has_two() {
    let node = RabbitMq::shared().await;
    let sized = [
        "porchlight.commands",
        "porchlight.events",
        "porchlight.retry.10m",
        "porchlight.retry.1m",
    ];
    for version in ["3.x", "4.x"] {
        let definitions = definitions(version);
        for (name, policy) in part(&definitions, "policies") {
            let mut matched = Vec::new();
            for queue in part(&definitions, "queues").keys() {
                let pattern = text(&policy["pattern"]).replace('\\', "\\\\");
                let question =
                    format!("atom_to_list(re:run(<<\"{queue}\">>, <<\"{pattern}\">>, [{{capture, none}}]))");
                if node.eval(&question).await.unwrap() == "match" {
                    matched.push(queue.clone());
                }
            }
            let wanted = match name.as_str() {
                "porchlight-sizes" => &sized[..],
                _ => &UNLIMITED[..],
            };
            assert_eq!(matched, wanted, "{version} {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_takes_every_setting_and_is_durable_never_evicts_and_has_room_to_copy_itself() {
    let redis = Redis::start().await.unwrap();
    let text_of_file = std::fs::read_to_string(root().join("deploy/redis/redis.conf")).unwrap();
    let settings: BTreeMap<&str, &str> = text_of_file
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    let refused: Vec<String> = settings
        .iter()
        .map(|(name, value)| {
            (
                name,
                redis.command(&["CONFIG", "SET", name, value.trim_matches('"')]),
            )
        })
        .filter(|(_, reply)| !matches!(reply, Ok(reply) if format!("{reply:?}").contains("OK")))
        .map(|(name, reply)| format!("{name}: {reply:?}"))
        .collect();
    none(&refused);
    let wanted = [
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("maxmemory-policy", "noeviction"),
    ];
    for (name, value) in wanted {
        assert_eq!(settings.get(name), Some(&value), "{name}");
    }
    let redis = named(production(), "StatefulSet", "porchlight-redis");
    let container = &redis["spec"]["template"]["spec"]["containers"][0];
    let limit = bytes(text(&container["resources"]["limits"]["memory"]));
    assert!(bytes(settings["maxmemory"]) * 2 < limit);
    assert_eq!(container["volumeMounts"][0]["mountPath"], container["workingDir"]);
}

#[test]
fn a_majority_of_three_nodes_holds_every_event() {
    let cluster = named(production(), "RabbitmqCluster", "porchlight-rabbitmq");
    assert_eq!(cluster["spec"]["replicas"], 3);
    let apart =
        &cluster["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
    assert_eq!(apart["topologyKey"], "kubernetes.io/hostname");
    let config = text(&cluster["spec"]["rabbitmq"]["additionalConfig"]);
    assert!(config.contains("target_group_size = 3\n") && config.contains("heartbeat = 10\n"));
    assert!(
        !config.contains("load_definitions"),
        "a fresh node would then make no user"
    );
    let (_, version) = text(&cluster["spec"]["image"]).split_once(':').unwrap();
    assert!(version.starts_with("4."), "definitions-4.x.json is for another");
}
