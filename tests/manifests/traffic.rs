//! Who finds whom: services, network policies, disruption budgets and scaling must name pods, ports and queues that are.
//!
//! Nothing is sent; selectors and ports are compared as a cluster would.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::daemons::{help, value};
use super::schemas::with_component;
use super::{
    Container, containers, list, named, none, notices, of_kind, place, production, root, secret, text,
};

const NAME: &str = "app.kubernetes.io/name";
const MONITORING: &str = "monitoring";

type Labels = BTreeMap<String, String>;

/// The labels of the pods behind a host name of ours; RabbitMQ's are set by its operator.
fn pods_behind(documents: &[Value], host: &str) -> Option<Labels> {
    if of_kind(documents, "RabbitmqCluster").any(|cluster| cluster["metadata"]["name"] == host) {
        let labels = [
            (NAME, host),
            ("app.kubernetes.io/component", "rabbitmq"),
            ("app.kubernetes.io/part-of", "rabbitmq"),
        ];
        return Some(
            labels
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        );
    }
    let service = of_kind(documents, "Service").find(|service| service["metadata"]["name"] == host)?;
    let pods = containers(documents).into_iter().map(|it| labels_of(&it));
    pods.into_iter()
        .find(|labels| selects(&json!({ "matchLabels": service["spec"]["selector"] }), labels))
}

fn labels_of(container: &Container<'_>) -> Labels {
    let labels = &container.workload["spec"]["template"]["metadata"]["labels"];
    let labels = labels.as_object().into_iter().flatten();
    labels
        .map(|(name, value)| (name.clone(), text(value).to_owned()))
        .collect()
}

/// A selector by labels and by lists of values; an empty one selects all.
fn selects(selector: &Value, labels: &Labels) -> bool {
    let by_label = selector["matchLabels"].as_object().into_iter().flatten();
    let by_list = list(&selector["matchExpressions"]).iter();
    by_label
        .map(|(name, value)| labels.get(name).map(String::as_str) == value.as_str())
        .chain(by_list.map(|expression| {
            let values = list(&expression["values"]).iter().map(text);
            expression["operator"] == "In"
                && labels
                    .get(text(&expression["key"]))
                    .is_some_and(|label| values.into_iter().any(|value| value == label))
        }))
        .all(|held| held)
}

/// Whether a policy for `pod` lets `peer` through on `port`; `peer` is a pod of this namespace, or a namespace's name.
fn lets(documents: &[Value], way: &str, pod: &Labels, peer: Result<&Labels, &str>, port: u64) -> bool {
    let policies =
        of_kind(documents, "NetworkPolicy").filter(|policy| selects(&policy["spec"]["podSelector"], pod));
    let (rules, peers) = if way == "Egress" {
        ("egress", "to")
    } else {
        ("ingress", "from")
    };
    policies
        .flat_map(|policy| list(&policy["spec"][rules]))
        .any(|rule| {
            let by_peer = rule[peers].is_null()
                || list(&rule[peers]).iter().any(|one| match peer {
                    Ok(labels) => {
                        one["namespaceSelector"].is_null()
                            && one["podSelector"].is_object()
                            && selects(&one["podSelector"], labels)
                    }
                    Err(namespace) => {
                        let labels = [("kubernetes.io/metadata.name".to_owned(), namespace.to_owned())];
                        one["podSelector"].is_null() && selects(&one["namespaceSelector"], &labels.into())
                    }
                });
            let by_port =
                rule["ports"].is_null() || list(&rule["ports"]).iter().any(|one| one["port"] == port);
            by_peer && by_port
        })
}

/// Host and port of a URL without a default port.
fn host_and_port(url: &str) -> Option<(&str, u64)> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let address = authority
        .rsplit_once('@')
        .map_or(authority, |(_, address)| address);
    let (host, port) = address.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

/// Whatever a program is told to call must be allowed on both sides, and what it listens on on its own.
fn reach_problems(documents: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    for container in containers(documents).iter().filter(|it| it.is_ours()) {
        let (name, labels, environment) = (container.name(), labels_of(container), container.environment());
        for (setting, url) in environment
            .iter()
            .filter(|(setting, _)| setting.ends_with("_URL"))
        {
            let Some((host, port)) = host_and_port(url) else {
                continue;
            };
            let Some(target) = pods_behind(documents, host) else {
                problems.push(format!("{name}: nothing is behind {host}, which {setting} names"));
                continue;
            };
            if !lets(documents, "Egress", &labels, Ok(&target), port) {
                problems.push(format!("{name}: may not call {host}:{port}"));
            }
            if !lets(documents, "Ingress", &target, Ok(&labels), port) {
                problems.push(format!("{host}: does not let {name} in on {port}"));
            }
        }
        for port in list(&container.it["ports"]) {
            let number = port["containerPort"].as_u64().unwrap_or_default();
            if port["name"] == "admin" && !lets(documents, "Ingress", &labels, Err(MONITORING), number) {
                problems.push(format!("{name}: its metrics cannot be fetched"));
            }
            if port["name"] == "admin" && lets(documents, "Ingress", &labels, Err("default"), number) {
                problems.push(format!("{name}: anybody may reach its admin port"));
            }
            if port["name"] == "webhooks" && !lets(documents, "Ingress", &labels, Err("anywhere"), number) {
                problems.push(format!("{name}: no webhook can come in"));
            }
        }
    }
    problems
}

fn service_problems(documents: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    let all = containers(documents);
    for service in of_kind(documents, "Service") {
        let (name, spec) = (text(&service["metadata"]["name"]), &service["spec"]);
        let behind = all
            .iter()
            .find(|it| selects(&json!({ "matchLabels": spec["selector"] }), &labels_of(it)));
        for port in list(&spec["ports"]) {
            let found = behind.is_some_and(|it| {
                list(&it.it["ports"])
                    .iter()
                    .any(|one| one["name"] == port["targetPort"])
            });
            if !found {
                problems.push(format!("service {name}: {} leads nowhere", port["targetPort"]));
            }
        }
    }
    for edge in of_kind(documents, "Ingress") {
        for rule in list(&edge["spec"]["rules"]) {
            for path in list(&rule["http"]["paths"]) {
                let to = &path["backend"]["service"];
                let service = of_kind(documents, "Service").find(|it| it["metadata"]["name"] == to["name"]);
                let ports = service.map_or(&[][..], |it| list(&it["spec"]["ports"]));
                if !ports.iter().any(|port| port["name"] == to["port"]["name"]) {
                    problems.push(format!("the public path leads to no port of {}", to["name"]));
                }
                let wanted = value(&BTreeMap::new(), "porchlight-ingress", "PORCHLIGHT_WEBHOOK_PATH");
                if path["path"] != wanted.as_str() || path["pathType"] != "Exact" {
                    problems.push(format!("the public path {} is not {wanted}", path["path"]));
                }
            }
        }
    }
    for monitor in of_kind(documents, "PodMonitor") {
        let seen = all
            .iter()
            .filter(|it| selects(&monitor["spec"]["selector"], &labels_of(it)) && it.is_ours());
        if seen.count() != all.iter().filter(|it| it.is_ours()).count() {
            problems.push("not all of our pods are scraped".to_owned());
        }
        for endpoint in list(&monitor["spec"]["podMetricsEndpoints"]) {
            if endpoint["port"] != "admin" || endpoint["path"] != "/metrics" {
                problems.push(format!("nothing is measured at {endpoint}"));
            }
        }
    }
    problems
}

/// The least number of pods that a workload may be scaled to.
fn least(documents: &[Value], workload: &str) -> u64 {
    let scaled = of_kind(documents, "ScaledObject")
        .find(|scaled| scaled["spec"]["scaleTargetRef"]["name"] == workload)
        .map(|scaled| scaled["spec"]["minReplicaCount"].as_u64().unwrap_or(0));
    scaled
        .or_else(|| {
            let of = |kind| of_kind(documents, kind).find(|it| it["metadata"]["name"] == workload);
            let found = of("Deployment").or_else(|| of("RabbitmqCluster"))?;
            found["spec"]["replicas"].as_u64()
        })
        .unwrap_or(1)
}

fn budget_problems(documents: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    for budget in of_kind(documents, "PodDisruptionBudget") {
        let name = text(&budget["metadata"]["name"]);
        if budget["spec"]["selector"]["matchLabels"][NAME] != name {
            problems.push(format!("budget {name}: guards something else"));
        }
        let gone = budget["spec"]["maxUnavailable"].as_u64().unwrap_or(u64::MAX);
        if gone == 0 || gone >= least(documents, name) {
            problems.push(format!(
                "budget {name}: {gone} of {} may be gone",
                least(documents, name)
            ));
        }
    }
    for container in containers(documents).iter().filter(|it| it.is_ours()) {
        let workload = text(&container.workload["metadata"]["name"]);
        if !of_kind(documents, "PodDisruptionBudget").any(|it| it["metadata"]["name"] == workload) {
            problems.push(format!("{workload} has no budget"));
        }
    }
    problems
}

fn scaling_problems(documents: &[Value]) -> Vec<String> {
    let definitions = std::fs::read_to_string(root().join("deploy/rabbitmq/definitions-4.x.json")).unwrap();
    let definitions: Value = serde_json::from_str(&definitions).unwrap();
    let mut problems = Vec::new();
    for scaled in of_kind(documents, "ScaledObject") {
        let (name, spec) = (text(&scaled["metadata"]["name"]), &scaled["spec"]);
        let target = of_kind(documents, "Deployment")
            .find(|it| it["metadata"]["name"] == spec["scaleTargetRef"]["name"]);
        match target {
            None => problems.push(format!("{name}: scales nothing that there is")),
            Some(target) if target["spec"]["replicas"].is_number() => {
                problems.push(format!("{name}: applying again undoes what was scaled"));
            }
            Some(_) => {}
        }
        let count = |bound| spec[bound].as_u64().unwrap_or(0);
        if count("minReplicaCount") < 1 || count("maxReplicaCount") <= count("minReplicaCount") {
            problems.push(format!(
                "{name}: its bounds leave nothing to scale, or nobody to work"
            ));
        }
        for trigger in list(&spec["triggers"]) {
            let with = &trigger["metadata"];
            if trigger["type"] == "cpu" {
                continue;
            }
            let queues = list(&definitions["queues"]);
            if !queues.iter().any(|queue| queue["name"] == with["queueName"]) {
                problems.push(format!("{name}: there is no queue {}", with["queueName"]));
            }
            if with["protocol"] != "http" || with["excludeUnacknowledged"] != "false" {
                problems.push(format!(
                    "{name}: does not see what is delivered and not yet acked"
                ));
            }
            let namespace = text(&scaled["metadata"]["namespace"]);
            let service = host_and_port(text(&with["host"]))
                .and_then(|(host, port)| Some((host.strip_suffix(&format!(".{namespace}.svc"))?, port)));
            let asked = service.and_then(|(host, port)| Some((pods_behind(documents, host)?, port)));
            if !asked.is_some_and(|(pods, port)| lets(documents, "Ingress", &pods, Err("keda"), port)) {
                problems.push(format!("{name}: cannot ask {}", with["host"]));
            }
            let login = of_kind(documents, "TriggerAuthentication")
                .find(|it| it["metadata"]["name"] == trigger["authenticationRef"]["name"]);
            let secrets = login.map_or(&[][..], |it| list(&it["spec"]["secretTargetRef"]));
            if secrets.len() != 2 || !secrets.iter().all(|it| secret(it).is_some()) {
                problems.push(format!("{name}: has no name and password"));
            }
        }
    }
    problems
}

#[test]
fn every_program_reaches_what_it_is_told_to_call_and_nobody_else_reaches_it() {
    none(&reach_problems(production()));
    notices(
        production(),
        reach_problems,
        &[
            ("may not call porchlight-redis:6379", &|all| {
                *place(
                    all,
                    "NetworkPolicy",
                    "porchlight-worker",
                    "/spec/egress/2/ports/0/port",
                ) = json!(6380);
            }),
            ("does not let porchlight-ingress ingress in on 5672", &|all| {
                let path = "/spec/ingress/0/from/0/podSelector/matchExpressions/0/values";
                *place(all, "NetworkPolicy", "porchlight-rabbitmq", path) = json!(["porchlight-worker"]);
            }),
            ("nothing is behind porchlight-redis", &|all| {
                *place(all, "Service", "porchlight-redis", "/metadata/name") = json!("redis");
            }),
            ("its metrics cannot be fetched", &|all| {
                *place(
                    all,
                    "NetworkPolicy",
                    "porchlight-ingress",
                    "/spec/ingress/1/ports/0/port",
                ) = json!(9091);
            }),
            ("anybody may reach its admin port", &|all| {
                let policy = place(all, "NetworkPolicy", "porchlight-worker", "/spec/ingress/1");
                policy.as_object_mut().unwrap().remove("from");
            }),
            ("no webhook can come in", &|all| {
                *place(
                    all,
                    "NetworkPolicy",
                    "porchlight-ingress",
                    "/spec/ingress/0/ports/0/port",
                ) = json!(80);
            }),
        ],
    );
}

#[test]
fn services_and_the_public_path_lead_to_ports_that_there_are() {
    none(&service_problems(production()));
    notices(
        production(),
        service_problems,
        &[
            ("leads nowhere", &|all| {
                *place(all, "Service", "porchlight-control", "/spec/ports/0/targetPort") = json!("control");
            }),
            ("leads to no port", &|all| {
                let path = "/spec/rules/0/http/paths/0/backend/service/port/name";
                *place(all, "Ingress", "porchlight", path) = json!("http");
            }),
            ("is not /webhooks/ring", &|all| {
                *place(all, "Ingress", "porchlight", "/spec/rules/0/http/paths/0/path") = json!("/");
            }),
            ("not all of our pods", &|all| {
                let path = "/spec/selector/matchExpressions/0/values";
                *place(all, "PodMonitor", "porchlight", path) = json!(["porchlight-worker"]);
            }),
            ("nothing is measured", &|all| {
                *place(
                    all,
                    "PodMonitor",
                    "porchlight",
                    "/spec/podMetricsEndpoints/0/port",
                ) = json!("metrics");
            }),
        ],
    );
}

#[test]
fn a_drained_node_never_takes_the_last_of_a_kind() {
    none(&budget_problems(production()));
    notices(
        production(),
        budget_problems,
        &[
            ("1 of 1 may be gone", &|all| {
                *place(all, "ScaledObject", "porchlight-worker", "/spec/minReplicaCount") = json!(1);
            }),
            ("guards something else", &|all| {
                let path = "/spec/selector/matchLabels";
                *place(all, "PodDisruptionBudget", "porchlight-ingress", path) =
                    json!({ NAME: "porchlight" });
            }),
            ("porchlight-worker has no budget", &|all| {
                *place(all, "PodDisruptionBudget", "porchlight-worker", "/metadata/name") = json!("other");
            }),
        ],
    );
}

#[test]
fn the_scaler_counts_a_queue_that_there_is_and_always_leaves_somebody_at_work() {
    none(&scaling_problems(production()));
    assert!(help("porchlight-worker").contains("Any number of workers may run at once"));
    let trigger = "/spec/triggers/0/metadata";
    notices(
        production(),
        scaling_problems,
        &[
            ("there is no queue", &|all| {
                *place(
                    all,
                    "ScaledObject",
                    "porchlight-worker",
                    &format!("{trigger}/queueName"),
                ) = json!("events");
            }),
            ("not yet acked", &|all| {
                *place(
                    all,
                    "ScaledObject",
                    "porchlight-worker",
                    &format!("{trigger}/protocol"),
                ) = json!("amqp");
            }),
            ("cannot ask", &|all| {
                let host = json!("http://porchlight-rabbitmq.other.svc:15672/");
                *place(
                    all,
                    "ScaledObject",
                    "porchlight-worker",
                    &format!("{trigger}/host"),
                ) = host;
            }),
            ("nobody to work", &|all| {
                *place(all, "ScaledObject", "porchlight-worker", "/spec/minReplicaCount") = json!(0);
            }),
            ("undoes what was scaled", &|all| {
                *place(all, "Deployment", "porchlight-ingress", "/spec/replicas") = json!(2);
            }),
            ("no name and password", &|all| {
                *place(
                    all,
                    "TriggerAuthentication",
                    "porchlight-rabbitmq",
                    "/spec/secretTargetRef/0/key",
                ) = json!("user");
            }),
        ],
    );
}

#[test]
fn receivers_of_callbacks_are_outside_and_reached_over_https_only() {
    let documents = with_component("callbacks");
    let policy = named(&documents, "NetworkPolicy", "porchlight-callbacks");
    let rule = &policy["spec"]["egress"][0];
    assert_eq!(rule["ports"], json!([{ "port": 443 }]));
    assert!(list(&rule["to"][0]["ipBlock"]["except"]).len() >= 5);
}
