//! The walls between the crates: who may depend on whom, and which outside package has one owner.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{metadata, none, root};

/// Which crates of ours each of our crates may depend on, in the code it ships.
const ARROWS: [(&str, &[&str]); 15] = [
    ("porchlight-event", &[]),
    ("porchlight-device", &["porchlight-event"]),
    ("porchlight-service", &[]),
    ("porchlight-management", &["porchlight-service"]),
    ("porchlight-broker", &["porchlight-event"]),
    ("porchlight-store", &["porchlight-device", "porchlight-event"]),
    ("porchlight-journal", &["porchlight-device", "porchlight-event"]),
    (
        "porchlight-queue",
        &["porchlight-broker", "porchlight-event", "porchlight-journal"],
    ),
    (
        "porchlight-ledger",
        &[
            "porchlight-device",
            "porchlight-event",
            "porchlight-journal",
            "porchlight-store",
        ],
    ),
    ("porchlight-testbed", &["porchlight-event"]),
    // It watches a queue, whichever it is, and no ledger: the ingress stands on it.
    (
        "porchlight-monitor",
        &[
            "porchlight-event",
            "porchlight-management",
            "porchlight-queue",
            "porchlight-service",
        ],
    ),
    // Broker and journal for making what the queue stands on, and for nothing else.
    (
        "porchlight-ingress",
        &[
            "porchlight-broker",
            "porchlight-event",
            "porchlight-journal",
            "porchlight-monitor",
            "porchlight-queue",
            "porchlight-service",
        ],
    ),
    (
        "porchlight-worker",
        &[
            "porchlight-broker",
            "porchlight-device",
            "porchlight-event",
            "porchlight-ledger",
            "porchlight-monitor",
            "porchlight-queue",
            "porchlight-service",
            "porchlight-store",
        ],
    ),
    (
        "porchlight",
        &[
            "porchlight-broker",
            "porchlight-device",
            "porchlight-event",
            "porchlight-ingress",
            "porchlight-journal",
            "porchlight-ledger",
            "porchlight-management",
            "porchlight-monitor",
            "porchlight-queue",
            "porchlight-service",
            "porchlight-store",
            "porchlight-worker",
        ],
    ),
    ("porchlight-tests", &[]),
];

/// What must not be linked into a crate, not even through others.
const MUST_NOT_REACH: [(&str, &[&str]); 8] = [
    (
        "porchlight-event",
        &["tokio", "hyper", "lapin", "redis", "tracing"],
    ),
    (
        "porchlight-device",
        &["tokio", "hyper", "lapin", "redis", "tracing"],
    ),
    ("porchlight-service", &["lapin", "redis", "deadpool-redis"]),
    ("porchlight-management", &["lapin", "redis", "deadpool-redis"]),
    ("porchlight-broker", &["redis", "deadpool-redis", "hyper"]),
    ("porchlight-store", &["lapin", "hyper"]),
    (
        "porchlight-journal",
        &["lapin", "redis", "deadpool-redis", "hyper"],
    ),
    // It reaches the devices' crate through the journal, which keeps queue and ledger in one file; by the arrows it may
    // not name it.
    (
        "porchlight-ingress",
        &["redis", "deadpool-redis", "porchlight-store", "porchlight-ledger"],
    ),
];

/// Outside packages and the only crates that may name them in the code they ship.
const OWNERS: [(&str, &[&str]); 11] = [
    ("lapin", &["porchlight-broker"]),
    ("redis", &["porchlight-store"]),
    ("deadpool-redis", &["porchlight-store"]),
    ("tracing-subscriber", &["porchlight-service"]),
    ("opentelemetry", &["porchlight-service"]),
    ("opentelemetry_sdk", &["porchlight-service"]),
    // The testbed reads what was exported.
    (
        "opentelemetry-proto",
        &["porchlight-service", "porchlight-testbed"],
    ),
    ("hmac", &["porchlight-event"]),
    // The device crate derives command ids; the store's keys are hashes of ids that may be of any length; the tool seals
    // an export.
    (
        "sha2",
        &[
            "porchlight",
            "porchlight-device",
            "porchlight-event",
            "porchlight-store",
        ],
    ),
    ("indicatif", &["porchlight"]),
    ("rusqlite", &["porchlight-journal"]),
];

/// Packages the project was asked to be built on; each must be named by a crate that ships.
const ASKED_FOR: [&str; 8] = [
    "deadpool-redis",
    "hmac",
    "hyper",
    "lapin",
    "serde_json",
    "sha2",
    "tokio",
    "tracing-subscriber",
];

/// Crates that never ship.
const TEST_ONLY: [&str; 2] = ["porchlight-testbed", "porchlight-tests"];

/// Who names whom in the code that ships: build and test dependencies are left out. By name, all versions as one.
type Graph = BTreeMap<String, BTreeSet<String>>;

fn shipped_graph(metadata: &Value) -> Graph {
    let entries = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names: BTreeMap<String, String> = entries(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let mut graph = Graph::new();
    for node in entries(&metadata["resolve"]["nodes"]) {
        let shipped = |dependency: &&Value| {
            entries(&dependency["dep_kinds"])
                .iter()
                .any(|kind| kind["kind"].is_null())
        };
        let dependencies = entries(&node["deps"]);
        let dependencies = dependencies
            .iter()
            .filter(shipped)
            .map(|dependency| names[&text(&dependency["pkg"])].clone());
        graph
            .entry(names[&text(&node["id"])].clone())
            .or_default()
            .extend(dependencies);
    }
    graph
}

fn reachable<'g>(graph: &'g Graph, from: &str) -> BTreeSet<&'g str> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(name) = open.pop() {
        for next in graph.get(name).into_iter().flatten() {
            if seen.insert(next.as_str()) {
                open.push(next);
            }
        }
    }
    seen
}

fn is_ours(name: &str) -> bool {
    name == "porchlight" || name.starts_with("porchlight-")
}

fn arrow_problems(graph: &Graph) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into();
    let mut problems = Vec::new();
    for (from, targets) in graph.iter().filter(|(name, _)| is_ours(name)) {
        let Some(allowed) = allowed.get(from.as_str()) else {
            problems.push(format!("{from} has no entry in the table of arrows"));
            continue;
        };
        for target in targets.iter().filter(|target| is_ours(target)) {
            if !allowed.contains(&target.as_str()) {
                problems.push(format!("{from} must not depend on {target}"));
            }
        }
    }
    problems
}

fn reach_problems(graph: &Graph) -> Vec<String> {
    let mut problems = Vec::new();
    for (from, banned) in MUST_NOT_REACH {
        let reached = reachable(graph, from);
        let hits = banned.iter().filter(|name| reached.contains(*name));
        problems.extend(hits.map(|name| format!("{from} links {name}")));
    }
    problems
}

fn owner_problems(graph: &Graph) -> Vec<String> {
    let mut problems = Vec::new();
    for (package, owners) in OWNERS {
        let users = graph
            .iter()
            .filter(|(name, targets)| is_ours(name) && targets.contains(package));
        let strangers = users.filter(|(name, _)| !owners.contains(&name.as_str()));
        problems.extend(
            strangers.map(|(name, _)| format!("{name} names {package}, which belongs to {owners:?}")),
        );
    }
    problems
}

fn missing_problems(graph: &Graph) -> Vec<String> {
    let shipped = graph
        .iter()
        .filter(|(name, _)| is_ours(name) && !TEST_ONLY.contains(&name.as_str()));
    let named: BTreeSet<&String> = shipped.flat_map(|(_, targets)| targets).collect();
    let missing = ASKED_FOR
        .iter()
        .filter(|package| !named.contains(&(**package).to_owned()));
    missing
        .map(|package| format!("no crate that ships names {package}"))
        .collect()
}

/// Lines of a crate's manifest that should come from the workspace and do not.
fn manifest_problems(name: &str, manifest: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for wanted in [
        "[lints]\nworkspace = true",
        "version.workspace = true",
        "edition.workspace = true",
        "rust-version.workspace = true",
        "license.workspace = true",
        "publish.workspace = true",
    ] {
        if !format!("\n{manifest}").contains(&format!("\n{wanted}\n")) {
            problems.push(format!("{name} lacks {wanted:?}"));
        }
    }
    let mut in_dependencies = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.trim_end_matches(']').ends_with("dependencies");
        } else if in_dependencies
            && line.contains('=')
            && !line.starts_with('#')
            && !line.contains("workspace = true")
        {
            problems.push(format!("{name} chooses a version by itself: {line}"));
        }
    }
    problems
}

#[test]
fn crates_depend_only_on_those_below_them() {
    none(&arrow_problems(&shipped_graph(metadata())));
}

#[test]
fn nothing_links_what_it_must_not_know() {
    none(&reach_problems(&shipped_graph(metadata())));
}

#[test]
fn outside_packages_have_one_owner() {
    none(&owner_problems(&shipped_graph(metadata())));
}

#[test]
fn the_packages_asked_for_are_used() {
    none(&missing_problems(&shipped_graph(metadata())));
}

#[test]
fn every_crate_takes_lints_and_versions_from_the_workspace() {
    let mut problems = Vec::new();
    let folders = std::fs::read_dir(root().join("crates")).expect("there are crates");
    let folders = folders.flatten().map(|entry| entry.path());
    for folder in folders.chain([root().join("tests")]) {
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
        problems.extend(manifest_problems(&folder.display().to_string(), &manifest));
    }
    none(&problems);
}

fn graph(edges: &[(&str, &[&str])]) -> Graph {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    edges
        .iter()
        .map(|(from, to)| ((*from).to_owned(), owned(to)))
        .collect()
}

#[test]
fn an_arrow_that_points_up_is_a_problem() {
    let wrong = graph(&[
        ("porchlight-broker", &["porchlight-store", "lapin"]),
        ("porchlight-worker", &["porchlight-testbed"]),
        ("porchlight-new", &[]),
    ]);
    assert_eq!(arrow_problems(&wrong).len(), 3);
}

#[test]
fn a_package_reached_through_another_is_a_problem() {
    let wrong = graph(&[
        ("porchlight-ingress", &["porchlight-service"]),
        ("porchlight-service", &["deadpool-redis"]),
        ("deadpool-redis", &["redis"]),
    ]);
    let problems = reach_problems(&wrong);
    assert!(
        problems.contains(&"porchlight-ingress links redis".to_owned()),
        "{problems:?}"
    );
    assert_eq!(problems.len(), 4);
}

#[test]
fn a_stranger_that_names_an_owned_package_is_a_problem() {
    let wrong = graph(&[
        ("porchlight-worker", &["lapin"]),
        ("porchlight-broker", &["lapin"]),
    ]);
    assert_eq!(owner_problems(&wrong).len(), 1);
}

#[test]
fn a_package_that_only_tests_name_counts_as_missing() {
    let wrong = graph(&[("porchlight-testbed", &["hmac"]), ("porchlight-event", &["sha2"])]);
    let problems = missing_problems(&wrong);
    assert!(problems.iter().any(|problem| problem.ends_with("hmac")));
    assert_eq!(problems.len(), ASKED_FOR.len() - 1);
}

#[test]
fn only_what_ships_is_in_the_graph() {
    let metadata = serde_json::json!({
        "packages": [{"id": "a 1", "name": "a"}, {"id": "b 1", "name": "b"}, {"id": "c 1", "name": "c"}],
        "resolve": {"nodes": [
            {"id": "a 1", "deps": [
                {"pkg": "b 1", "dep_kinds": [{"kind": "dev"}, {"kind": null}]},
                {"pkg": "c 1", "dep_kinds": [{"kind": "dev"}]}]},
            {"id": "b 1", "deps": []}]},
    });
    assert_eq!(shipped_graph(&metadata), graph(&[("a", &["b"]), ("b", &[])]));
}

#[test]
fn a_manifest_that_goes_its_own_way_is_a_problem() {
    let manifest = "[package]\nversion = \"1.0.0\"\nedition.workspace = true\nrust-version.workspace = true\n\
                    license.workspace = true\npublish.workspace = true\n\n[dev-dependencies]\nserde = \"1\"\n\
                    tokio = { workspace = true, features = [\"test-util\"] }\n";
    assert_eq!(manifest_problems("x", manifest).len(), 3);
}
