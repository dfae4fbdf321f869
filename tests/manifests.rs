//! What deploys Porchlight must be what its programs and servers take: manifests, compose file, and servers' settings.
//!
//! Each rule is a function from documents to a list of problems, and is itself tested on documents made wrong. No
//! cluster is needed or started.

mod daemons;
mod pages;
mod schemas;
mod servers;
mod traffic;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// The images' name before an overlay replaces it; what runs under it is ours.
const OUR_IMAGE: &str = "porchlight";
/// What stands for the content of a secret: every `name/key` that manifests refer to, as somebody would fill it.
const SECRETS: [(&str, &str); 9] = [
    (
        "porchlight-servers/amqp-url",
        "amqp://porchlight:sample@porchlight-rabbitmq:5672/%2f",
    ),
    (
        "porchlight-servers/redis-url",
        "redis://:sample@porchlight-redis:6379",
    ),
    (
        "porchlight-servers/management-url",
        "http://porchlight-watch:sample@porchlight-rabbitmq:15672",
    ),
    ("porchlight-admin/token", "sample-token-of-24-chars"),
    ("porchlight-redis/password", "sample"),
    ("porchlight-rabbitmq-watch/username", "porchlight-watch"),
    ("porchlight-rabbitmq-watch/password", "sample"),
    ("porchlight-callback/url", "https://receiver.example/commands"),
    (
        "porchlight-callback/secret",
        "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    ),
];

/// One container of a pod template, with what is around it.
struct Container<'d> {
    workload: &'d Value,
    pod: &'d Value,
    it: &'d Value,
}

impl Container<'_> {
    fn name(&self) -> String {
        format!(
            "{} {}",
            text(&self.workload["metadata"]["name"]),
            text(&self.it["name"])
        )
    }

    fn is_ours(&self) -> bool {
        let image = text(&self.it["image"]);
        let path = image.rsplit_once(':').map_or(image, |(path, _)| path);
        path.rsplit('/').next() == Some(OUR_IMAGE)
    }

    fn program(&self) -> &str {
        text(&self.it["command"][0])
    }

    /// Its environment, secrets filled in; those that are unknown stand empty.
    fn environment(&self) -> BTreeMap<String, String> {
        let of = |variable: &Value| {
            let reference = &variable["valueFrom"]["secretKeyRef"];
            let value = if reference.is_object() {
                secret(reference).unwrap_or_default()
            } else {
                text(&variable["value"])
            };
            (text(&variable["name"]).to_owned(), value.to_owned())
        };
        list(&self.it["env"]).iter().map(of).collect()
    }
}

fn secret(reference: &Value) -> Option<&'static str> {
    let wanted = format!("{}/{}", text(&reference["name"]), text(&reference["key"]));
    SECRETS
        .iter()
        .find(|(name, _)| *name == wanted)
        .map(|(_, value)| *value)
}

/// The root of the workspace.
fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap().to_owned()
}

/// Runs the Python beside this file, in the environment that `tests/run` installs into the target folder.
fn manifests_py(arguments: &[&str], input: &str) -> Value {
    let executable = std::env::current_exe().unwrap();
    let target = executable.ancestors().find(|path| path.join("debug").is_dir());
    let target = target.map_or_else(|| root().join("target"), Path::to_owned);
    let python = target.join("manifests/bin/python");
    assert!(
        python.exists(),
        "there is no {}; run tests/run once, it installs what builds and checks manifests",
        python.display()
    );
    let mut child = Command::new(python)
        .arg(root().join("tests/manifests/manifests.py"))
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn build(folder: &str) -> Vec<Value> {
    let folder = format!("deploy/kubernetes/{folder}");
    list(&manifests_py(&["build", &folder], "")).to_vec()
}

/// The overlay for production, as a cluster would get it.
fn production() -> &'static [Value] {
    static MADE: OnceLock<Vec<Value>> = OnceLock::new();
    MADE.get_or_init(|| build("production"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn of_kind<'d>(documents: &'d [Value], kind: &str) -> impl Iterator<Item = &'d Value> {
    documents.iter().filter(move |document| document["kind"] == kind)
}

#[track_caller]
fn named<'d>(documents: &'d [Value], kind: &str, name: &str) -> &'d Value {
    of_kind(documents, kind)
        .find(|document| document["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

fn containers(documents: &[Value]) -> Vec<Container<'_>> {
    let workloads = documents
        .iter()
        .filter(|document| ["Deployment", "StatefulSet"].contains(&text(&document["kind"])));
    workloads
        .flat_map(|workload| {
            let pod = &workload["spec"]["template"]["spec"];
            let all = list(&pod["initContainers"])
                .iter()
                .chain(list(&pod["containers"]));
            all.map(move |it| Container { workload, pod, it })
        })
        .collect()
}

/// Seconds of a span such as `10s`, `250ms`, `2m`.
fn seconds(span: &str) -> f64 {
    let digits = span.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().unwrap_or_else(|_| panic!("{span} is no span"));
    match &span[digits.len()..] {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        unit => panic!("{span} has the unit {unit}"),
    }
}

/// Bytes of a quantity such as `256Mi`, `1gb` or `2560Mi`.
fn bytes(quantity: &str) -> u64 {
    let digits = quantity.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().unwrap_or_else(|_| panic!("{quantity} is no size"));
    let shift = match quantity[digits.len()..].to_lowercase().as_str() {
        "" => 0,
        "k" | "ki" | "kb" => 10,
        "m" | "mi" | "mb" => 20,
        "g" | "gi" | "gb" => 30,
        unit => panic!("{quantity} has the unit {unit}"),
    };
    number << shift
}

/// Fails with every problem at once.
#[track_caller]
fn none(problems: &[String]) {
    assert!(
        problems.is_empty(),
        "{} problems:\n  {}",
        problems.len(),
        problems.join("\n  ")
    );
}

/// Makes documents wrong.
type Spoil<'f> = &'f dyn Fn(&mut Vec<Value>);

/// A rule, and ways to break it: each must make the rule name at least one problem that holds the given words.
#[track_caller]
fn notices(documents: &[Value], rule: impl Fn(&[Value]) -> Vec<String>, wrong: &[(&str, Spoil<'_>)]) {
    for (words, spoil) in wrong {
        let mut spoiled = documents.to_vec();
        spoil(&mut spoiled);
        let problems = rule(&spoiled);
        assert!(
            problems.iter().any(|problem| problem.contains(words)),
            "{words:?} is not among {problems:?}"
        );
    }
}

/// The place in a document to spoil; it is made when it is not there.
fn place<'d>(documents: &'d mut [Value], kind: &str, name: &str, pointer: &str) -> &'d mut Value {
    let document = documents
        .iter_mut()
        .find(|document| document["kind"] == kind && document["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("there is no {kind} {name}"));
    let mut at = document;
    for step in pointer.split('/').filter(|step| !step.is_empty()) {
        at = match step.parse::<usize>() {
            Ok(index) if at.is_array() => &mut at[index],
            _ => &mut at[step],
        };
    }
    at
}
