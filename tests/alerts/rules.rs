//! The rules are accepted by Prometheus' own tool and pass their tests, and no alert is without a test of both kinds.

use std::collections::BTreeSet;
use std::process::Command;

use super::{deploy, none, read};

pub(super) const RULES: &str = "prometheus/porchlight.rules.yml";
const TESTS: [&str; 2] = [
    "prometheus/porchlight.rules.test.yml",
    "prometheus/porchlight.rules.days.test.yml",
];

/// Names of all alerts, in the order of the file.
pub(super) fn alerts(rules: &str) -> Vec<&str> {
    let names = rules.lines().map(str::trim_start);
    names.filter_map(|line| line.strip_prefix("- alert: ")).collect()
}

/// Alerts that some test sees firing, and of those the ones that the same test sees silent at another moment, or that
/// another test which is about it does.
fn tested(tests: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut fires, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for test in tests.split("\n  - name: ").skip(1) {
        let moments: Vec<BTreeSet<String>> = test.split("expr: ").skip(1).map(firing).collect();
        let all: BTreeSet<String> = moments.iter().flatten().cloned().collect();
        let about = test.split_whitespace().next().unwrap_or_default().to_owned();
        for alert in all.iter().chain([&about]) {
            if moments.iter().any(|moment| !moment.contains(alert)) {
                silent.insert(alert.clone());
            }
        }
        fires.extend(all);
    }
    (fires, silent)
}

fn firing(moment: &str) -> BTreeSet<String> {
    let named = moment.split("alertname=\"").skip(1);
    named
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn promtool(arguments: &[&str]) {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(deploy(""));
    let output = command
        .output()
        .expect("promtool is in Debian's package prometheus");
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "promtool {}:\n{told}",
        arguments.join(" ")
    );
}

#[test]
fn prometheus_accepts_rules_and_configuration() {
    promtool(&["check", "rules", RULES]);
    promtool(&["check", "config", "prometheus/prometheus.yml"]);
}

#[test]
fn every_alert_does_what_its_tests_say() {
    promtool(&[&["test", "rules"], &TESTS[..]].concat());
}

#[test]
fn no_alert_is_without_a_test_of_firing_and_one_of_silence() {
    let rules = read(RULES);
    let (fires, silent) = tested(&TESTS.map(read).concat());
    let mut problems = Vec::new();
    for alert in alerts(&rules) {
        if !fires.contains(alert) {
            problems.push(format!("no test sees {alert} firing"));
        }
        if !silent.contains(alert) {
            problems.push(format!("no test sees {alert} silent"));
        }
    }
    assert!(
        alerts(&rules).len() > 20,
        "the rules are not read as they are written"
    );
    none(&problems);
}

#[test]
fn an_alert_that_is_only_seen_firing_is_found() {
    let text = "x:\n  - name: A fires\n    - expr: b\n      alertname=\"A\"\n    - expr: c\n      alertname=\"A\" alertname=\"B\"\n";
    let (fires, silent) = tested(text);
    assert_eq!(fires.into_iter().collect::<Vec<_>>(), ["A", "B"]);
    assert_eq!(silent.into_iter().collect::<Vec<_>>(), ["B"]);
}
