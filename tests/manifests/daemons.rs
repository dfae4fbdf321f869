//! What is set for our programs must be what they take: names and values of settings, ports, probes, time to stop,
//! and a place for whatever they write.
//!
//! It looks at the Kubernetes manifests and at the compose file; it starts a program only to have its settings checked.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use super::schemas::with_component;
use super::{
    Container, bytes, containers, list, manifests_py, none, notices, place, production, root, seconds,
    secret, text,
};

/// Connections are closed after the graces that are set, each within a bound of its own.
const CLOSING_MAX_S: f64 = 15.0;
/// What a daemon needs beside what its settings let it hold.
const ROOM_BYTES: u64 = 96 << 20;
/// Settings that name a file or folder. What is written must lie on a volume.
const WRITTEN: [&str; 1] = ["PORCHLIGHT_DATA_DIR"];
const READ: [&str; 4] = [
    "PORCHLIGHT_SIGNING_KEYS_FILE",
    "PORCHLIGHT_TLS_CERT_FILE",
    "PORCHLIGHT_TLS_KEY_FILE",
    "PORCHLIGHT_CALLBACK_CA_FILE",
];

/// A program by its name, or one of its commands after a blank.
fn command(program: &str) -> Command {
    let mut words = program.split(' ');
    let mut command = Command::new(porchlight_testbed::binary(words.next().unwrap()).unwrap());
    command.args(words);
    command
}

/// What a program says of its settings, as one line.
pub(super) fn help(program: &str) -> String {
    let output = command(program).arg("--help").env_clear().output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_a_setting(help: &str, name: &str) -> bool {
    help.contains(&format!("[env: {name}]")) || help.contains(&format!("[env: {name}="))
}

/// What is set, or the program's own default.
pub(super) fn value(environment: &BTreeMap<String, String>, program: &str, name: &str) -> String {
    if let Some(value) = environment.get(name) {
        return value.clone();
    }
    let help = help(program);
    let (_, rest) = help
        .split_once(&format!("[env: {name}]"))
        .unwrap_or_else(|| panic!("{program} has no {name}"));
    let (_, rest) = rest.split_once("[default: ").unwrap();
    rest.split_once(']').unwrap().0.to_owned()
}

/// Names that the program does not have, and values that it refuses.
///
/// One setting that nobody uses is made wrong on purpose: the program then says all that is wrong and starts nothing.
pub(super) fn setting_problems(
    who: &str,
    program: &str,
    environment: &BTreeMap<String, String>,
) -> Vec<String> {
    let (probe, help) = ("PORCHLIGHT_LOG", help(program));
    let unknown = environment
        .keys()
        .filter(|name| name.starts_with("PORCHLIGHT_") && !is_a_setting(&help, name));
    let mut problems: Vec<String> = unknown
        .map(|name| format!("{who}: {program} has no {name}"))
        .collect();
    let output = command(program)
        .env_clear()
        .envs(environment)
        .env(probe, "wrong=on=purpose")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{who}: {said}");
    let wrong = said.lines().filter(|line| line.starts_with("  PORCHLIGHT_"));
    let others = wrong.filter(|line| !line.starts_with(&format!("  {probe} ")));
    problems.extend(others.map(|line| format!("{who}: {}", line.trim())));
    problems
}

fn settings_of_pods(documents: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    for container in containers(documents).iter().filter(|it| it.is_ours()) {
        for variable in list(&container.it["env"]) {
            let reference = &variable["valueFrom"]["secretKeyRef"];
            if reference.is_object() && secret(reference).is_none() {
                problems.push(format!("{}: nobody explains {reference}", container.name()));
            }
            let looks_secret = ["_URL", "_KEYS", "_SECRET", "_TOKEN"];
            let name = text(&variable["name"]);
            // The collector's address holds no password.
            let is_secret =
                looks_secret.iter().any(|end| name.ends_with(end)) && name != "PORCHLIGHT_OTLP_URL";
            if is_secret && !reference.is_object() {
                problems.push(format!("{}: {name} is not taken from a secret", container.name()));
            }
        }
        let environment = container.environment();
        problems.extend(setting_problems(
            &container.name(),
            container.program(),
            &environment,
        ));
    }
    problems
}

/// Port of a listener setting.
fn listens_on(container: &Container<'_>, name: &str) -> u64 {
    let address = value(&container.environment(), container.program(), name);
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}

fn port_problems(documents: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    for container in containers(documents).iter().filter(|it| it.is_ours()) {
        let name = container.name();
        let mut wanted = vec![("admin", listens_on(container, "PORCHLIGHT_ADMIN_LISTEN"))];
        if container.program() == "porchlight-ingress" {
            wanted.push(("webhooks", listens_on(container, "PORCHLIGHT_LISTEN")));
        }
        for (port, number) in wanted {
            let found = list(&container.it["ports"])
                .iter()
                .any(|it| it["name"] == port && it["containerPort"] == number);
            if !found {
                problems.push(format!("{name}: the port {port} is not {number}"));
            }
        }
        for listen in ["PORCHLIGHT_LISTEN", "PORCHLIGHT_ADMIN_LISTEN"] {
            let set = container.environment().get(listen).cloned();
            if set.is_some_and(|address| !address.starts_with("0.0.0.0:")) {
                problems.push(format!("{name}: {listen} does not listen to the pod's address"));
            }
        }
        let get = |probe: &str| {
            let get = &container.it[probe]["httpGet"];
            (text(&get["path"]).to_owned(), text(&get["port"]).to_owned())
        };
        for (probe, path) in [("startupProbe", "/readyz"), ("livenessProbe", "/livez")] {
            if get(probe) != (path.to_owned(), "admin".to_owned()) {
                problems.push(format!(
                    "{name}: its {probe} does not ask the admin port for {path}"
                ));
            }
        }
        let serves = container.it["readinessProbe"]["tcpSocket"]["port"] == "webhooks"
            || get("readinessProbe") == ("/readyz".to_owned(), "admin".to_owned());
        if !serves {
            problems.push(format!("{name}: its readinessProbe asks nothing that there is"));
        }
    }
    problems
}

/// How long a daemon may take to stop, by its settings.
pub(super) fn stops_within(program: &str, environment: &BTreeMap<String, String>) -> f64 {
    let span = |name| seconds(&value(environment, program, name));
    let graces = match program {
        "porchlight-ingress" => span("PORCHLIGHT_DRAIN_DELAY") + span("PORCHLIGHT_SHUTDOWN_GRACE"),
        "porchlight-worker" => 2.0 * span("PORCHLIGHT_STOP_GRACE"),
        "porchlight standalone" => {
            span("PORCHLIGHT_DRAIN_DELAY")
                + span("PORCHLIGHT_SHUTDOWN_GRACE")
                + 2.0 * span("PORCHLIGHT_STOP_GRACE")
        }
        other => panic!("{other} is no daemon"),
    };
    graces + CLOSING_MAX_S
}

fn life_problems(documents: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    for container in containers(documents).iter().filter(|it| it.is_ours()) {
        let (name, environment) = (container.name(), container.environment());
        let allowed = container.pod["terminationGracePeriodSeconds"]
            .as_f64()
            .unwrap_or(30.0);
        let needed = stops_within(container.program(), &environment);
        if allowed < needed {
            problems.push(format!(
                "{name}: is killed after {allowed} s, may need {needed} s to stop"
            ));
        }
        if container.it["lifecycle"].is_object() {
            problems.push(format!("{name}: a hook takes from the time that a stop has"));
        }
        let size = |name| bytes(&value(&environment, container.program(), name).replace('B', ""));
        let held = match container.program() {
            "porchlight-ingress" => size("PORCHLIGHT_BODY_MEMORY_MAX"),
            _ => size("PORCHLIGHT_PREFETCH") << 20,
        };
        let limit = bytes(text(&container.it["resources"]["limits"]["memory"]));
        if limit < held + ROOM_BYTES {
            problems.push(format!(
                "{name}: may hold {held} bytes, and more than {limit} is its end"
            ));
        }
        if container.it["resources"]["limits"]["cpu"].is_string() {
            problems.push(format!("{name}: a limit on processors delays answers"));
        }
    }
    problems
}

/// Every container, ours or not: no root, nothing to write on but volumes, no rights.
fn security_problems(documents: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    let dockerfile = std::fs::read_to_string(root().join("deploy/Dockerfile")).unwrap();
    for container in containers(documents) {
        let (name, pod, own) = (
            container.name(),
            &container.pod["securityContext"],
            &container.it["securityContext"],
        );
        let user = &pod["runAsUser"];
        let held = [
            (pod["runAsNonRoot"] == true, "may be root"),
            (user.as_u64().is_some_and(|user| user > 0), "has no user"),
            (
                pod["seccompProfile"]["type"] == "RuntimeDefault",
                "may call all of the kernel",
            ),
            (own["allowPrivilegeEscalation"] == false, "may gain rights"),
            (own["readOnlyRootFilesystem"] == true, "may write to its image"),
            (own["capabilities"]["drop"] == json!(["ALL"]), "has capabilities"),
            (own["capabilities"].get("add").is_none(), "is given capabilities"),
            (
                container.pod["automountServiceAccountToken"] == false,
                "is given a token",
            ),
            (
                container.it["resources"]["requests"]["memory"].is_string(),
                "asks for no memory",
            ),
        ];
        problems.extend(
            held.iter()
                .filter(|(held, _)| !held)
                .map(|(_, what)| format!("{name}: {what}")),
        );
        if container.is_ours() && !dockerfile.contains(&format!("\nUSER {user}:{user}\n")) {
            problems.push(format!(
                "{name}: runs as {user}, and the image is made for another"
            ));
        }
        let mounts = list(&container.it["volumeMounts"]);
        let lies_on = |path: &str, writable: bool| {
            mounts.iter().any(|mount| {
                path.starts_with(&format!("{}/", text(&mount["mountPath"]))) || path == text(&mount["mountPath"])
            }
            && !(writable && mount["readOnly"] == true))
        };
        let environment = container.environment();
        for (names, writable) in [(&WRITTEN[..], true), (&READ[..], false)] {
            let paths = names.iter().filter_map(|name| environment.get(*name));
            problems.extend(
                paths
                    .filter(|path| !lies_on(path, writable))
                    .map(|path| format!("{name}: {path} lies on no volume")),
            );
        }
        for mount in mounts {
            let claims = list(&container.workload["spec"]["volumeClaimTemplates"]);
            let volumes = list(&container.pod["volumes"]).iter();
            let mut known = volumes
                .map(|volume| &volume["name"])
                .chain(claims.iter().map(|claim| &claim["metadata"]["name"]));
            if !known.any(|volume| *volume == mount["name"]) {
                problems.push(format!("{name}: there is no volume {}", mount["name"]));
            }
        }
    }
    problems
}

#[test]
fn pods_are_given_only_settings_that_their_program_has_and_takes() {
    none(&settings_of_pods(production()));
    for component in ["callbacks", "tracing"] {
        none(&settings_of_pods(&with_component(component)));
    }
}

#[test]
fn settings_that_a_program_does_not_have_or_take_are_problems() {
    let env = "/spec/template/spec/containers/0/env";
    notices(
        production(),
        settings_of_pods,
        &[
            ("has no PORCHLIGHT_LISTEN", &|all| {
                let entry = json!({"name": "PORCHLIGHT_LISTEN", "value": "0.0.0.0:8080"});
                place(all, "Deployment", "porchlight-worker", env)
                    .as_array_mut()
                    .unwrap()
                    .push(entry);
            }),
            ("PORCHLIGHT_DRAIN_DELAY (--drain-delay)", &|all| {
                let entry = json!({"name": "PORCHLIGHT_DRAIN_DELAY", "value": "10"});
                place(all, "Deployment", "porchlight-ingress", env)
                    .as_array_mut()
                    .unwrap()
                    .push(entry);
            }),
            ("nobody explains", &|all| {
                let path = format!("{env}/2/valueFrom/secretKeyRef/key");
                *place(all, "Deployment", "porchlight-worker", &path) = json!("somewhere-else");
            }),
            ("is not taken from a secret", &|all| {
                let entry = json!([{"name": "PORCHLIGHT_AMQP_URL", "value": "amqp://guest:guest@rabbitmq"}]);
                *place(all, "Deployment", "porchlight-worker", env) = entry;
            }),
        ],
    );
}

#[test]
fn probes_and_named_ports_are_where_the_programs_listen() {
    none(&port_problems(production()));
    let container = "/spec/template/spec/containers/0";
    notices(
        production(),
        port_problems,
        &[
            ("the port admin is not 9091", &|all| {
                let path = format!("{container}/ports/0/containerPort");
                *place(all, "Deployment", "porchlight-worker", &path) = json!(9090);
            }),
            ("livenessProbe", &|all| {
                let path = format!("{container}/livenessProbe/httpGet/path");
                *place(all, "Deployment", "porchlight-ingress", &path) = json!("/readyz");
            }),
            ("readinessProbe", &|all| {
                let path = format!("{container}/readinessProbe/tcpSocket/port");
                *place(all, "Deployment", "porchlight-ingress", &path) = json!("admin");
            }),
            ("does not listen", &|all| {
                let path = format!("{container}/env/0/value");
                *place(all, "Deployment", "porchlight-ingress", &path) = json!("127.0.0.1:8080");
            }),
        ],
    );
}

#[test]
fn a_pod_has_the_time_to_stop_and_the_memory_that_its_settings_allow() {
    none(&life_problems(production()));
    let pod = "/spec/template/spec";
    notices(
        production(),
        life_problems,
        &[
            ("is killed after 30 s", &|all| {
                let path = format!("{pod}/terminationGracePeriodSeconds");
                *place(all, "Deployment", "porchlight-worker", &path) = json!(30);
            }),
            ("a hook", &|all| {
                let path = format!("{pod}/containers/0/lifecycle/preStop/sleep/seconds");
                *place(all, "Deployment", "porchlight-ingress", &path) = json!(10);
            }),
            ("may hold", &|all| {
                let path = format!("{pod}/containers/0/resources/limits/memory");
                *place(all, "Deployment", "porchlight-worker", &path) = json!("512Mi");
            }),
        ],
    );
}

#[test]
fn no_container_has_more_rights_than_it_needs() {
    none(&security_problems(production()));
    let pod = "/spec/template/spec";
    notices(
        production(),
        security_problems,
        &[
            ("may write to its image", &|all| {
                let path = format!("{pod}/containers/0/securityContext/readOnlyRootFilesystem");
                *place(all, "StatefulSet", "porchlight-redis", &path) = json!(false);
            }),
            ("the image is made for another", &|all| {
                *place(
                    all,
                    "Deployment",
                    "porchlight-worker",
                    &format!("{pod}/securityContext/runAsUser"),
                ) = json!(1);
            }),
            ("lies on no volume", &|all| {
                let path = format!("{pod}/containers/0/volumeMounts/0/mountPath");
                *place(all, "Deployment", "porchlight-ingress", &path) = json!("/etc/elsewhere");
            }),
            ("there is no volume", &|all| {
                *place(all, "StatefulSet", "porchlight-redis", &format!("{pod}/volumes")) = json!([]);
            }),
            ("has capabilities", &|all| {
                let path = format!("{pod}/containers/0/securityContext/capabilities/drop");
                *place(all, "Deployment", "porchlight-ingress", &path) = json!(["NET_RAW"]);
            }),
        ],
    );
}

/// A value of the compose file with its variables filled in.
fn filled(value: &str) -> String {
    let Some((before, rest)) = value.split_once("${") else {
        return value.to_owned();
    };
    let (variable, after) = rest.split_once('}').unwrap();
    let (name, default) = variable.split_once(':').unwrap_or((variable, ""));
    let sample = match (name, default.strip_prefix('-')) {
        ("PORCHLIGHT_SIGNING_KEYS", _) => "ring=sample",
        (_, Some(default)) => default,
        _ => "sample-of-24-characters-",
    };
    format!("{before}{sample}{}", filled(after))
}

#[test]
fn the_compose_file_gives_each_program_its_own_settings_and_the_time_to_stop() {
    let compose = manifests_py(&["read", "docker-compose.yml"], "")[0].clone();
    let services = compose["services"].as_object().unwrap();
    let ours: Vec<_> = services
        .iter()
        .filter(|(_, service)| service["image"] == "porchlight:local" && service["command"][0] != "--help")
        .collect();
    assert_eq!(ours.len(), 2);
    for (name, service) in ours {
        let program = text(&service["command"][0]);
        let environment = service["environment"].as_object().unwrap();
        let environment = environment
            .iter()
            .map(|(name, value)| (name.clone(), filled(text(value))))
            .collect();
        none(&setting_problems(name, program, &environment));
        let allowed = seconds(text(&service["stop_grace_period"]));
        assert!(allowed >= stops_within(program, &environment), "{name}");
        assert!(
            service["read_only"] == true && service["cap_drop"] == json!(["ALL"]),
            "{name}"
        );
    }
}

#[test]
fn the_image_holds_every_program_that_is_started_from_it() {
    let dockerfile = std::fs::read_to_string(root().join("deploy/Dockerfile")).unwrap();
    for container in containers(production()).iter().filter(|it| it.is_ours()) {
        let built = format!("target/release/{} ", container.program());
        assert!(dockerfile.contains(&built), "{}", container.name());
    }
}
