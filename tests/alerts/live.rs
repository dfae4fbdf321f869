//! Rules and dashboards before daemons that really run, scraped by a real Prometheus: every metric, label and value that is
//! named exists, and every question has an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::OnceLock;

use porchlight_event::WebhookSecrets;
use porchlight_testbed::http::{RawConnection, request};
use porchlight_testbed::prometheus::Target;
use porchlight_testbed::{Prometheus, Receiver, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::dashboards::{self, Dashboard};
use super::promql::{Selector, groupings, selectors};
use super::{deploy, rules};
use crate::site::{Form, Site};
use crate::support::{PATIENCE, Pipeline, Plan, TOKEN, WEBHOOK, event, now_ms};

/// Panels that show nothing while all is well.
const EMPTY_WHEN_WELL: [&str; 4] = ["Alerts", "Critical alerts", "Ring gives up in", "Ring forgets in"];
/// Series that Prometheus makes only while something fires.
const OF_ALERTS: &str = "ALERTS";
/// Labels that a scrape adds, of which some installations have none.
const OF_SCRAPES: [&str; 3] = ["namespace", "job", "instance"];

/// Both forms, with everything switched on that has metrics.
struct Stand {
    pipeline: Pipeline,
    standalone: Site,
    prometheus: Prometheus,
    _receiver: Receiver,
    _spool: TempDir,
}

/// All series by their metric.
type Series = BTreeMap<String, Vec<Value>>;

impl Stand {
    async fn start() -> Self {
        let mut pipeline = Pipeline::prepare(Plan {
            settings: vec![("PORCHLIGHT_WATCH_INTERVAL", "200ms".to_owned())],
            ..Plan::default()
        })
        .await;
        // A limit is shown only where there is one.
        pipeline
            .redis
            .command(&["CONFIG", "SET", "maxmemory", "512mb"])
            .unwrap();
        let spool = tempfile::tempdir().unwrap();
        let keys = spool.path().join("keys");
        std::fs::write(&keys, "file=a-key-out-of-a-file\n").unwrap();
        let ingress = &mut pipeline.ingresses[0];
        ingress.set(
            "PORCHLIGHT_DATA_DIR",
            spool.path().join("spool").to_string_lossy(),
        );
        ingress.set("PORCHLIGHT_SIGNING_KEYS_FILE", keys.to_string_lossy());
        for member in pipeline.members_mut() {
            member.start();
        }
        let receiver = Receiver::start().await.unwrap();
        let secret = WebhookSecrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        assert!(secret.is_ok(), "the secret is written as it must be");
        let settings = vec![
            ("PORCHLIGHT_WATCH_INTERVAL", "200ms".to_owned()),
            ("PORCHLIGHT_CALLBACK_URL", receiver.url("/commands")),
            (
                "PORCHLIGHT_CALLBACK_SECRET",
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(),
            ),
        ];
        let standalone = Site::start(Form::Standalone, settings).await;
        for member in pipeline.members() {
            member.wait_until_ready().await;
        }
        let target = |job, address| Target { job, address };
        let targets = [
            target("porchlight-ingress", pipeline.ingresses[0].admin),
            target("home/porchlight-worker", pipeline.workers[0].admin),
            target("porchlight", standalone.admin),
        ];
        let prometheus = Prometheus::start(&targets, &deploy(rules::RULES)).await.unwrap();
        let stand = Self {
            pipeline,
            standalone,
            prometheus,
            _receiver: receiver,
            _spool: spool,
        };
        // What counts from 0 must be seen at 0 first.
        stand.scraped("every target", "count(up == 1) == 3").await;
        stand
    }

    /// Something of everything: good and bad requests, poison, a command, a call, a connection that breaks off.
    async fn traffic(&self) {
        let at = now_ms();
        let path = "/v1/devices/d-1/operations/snapshot";
        let body = json!({ "kind": "snapshot", "params": {} }).to_string();
        let bearer = format!("Bearer {TOKEN}");
        let sites = [
            (
                self.pipeline.ingresses[0].listen,
                self.pipeline.workers[0].admin,
                &self.pipeline.key,
            ),
            (
                self.standalone.listen,
                self.standalone.admin,
                &self.standalone.key,
            ),
        ];
        for (listen, admin, key) in sites {
            let headers = [
                ("Authorization", bearer.as_str()),
                ("Content-Type", "application/json"),
            ];
            let answer = request(admin, "PUT", path, &headers, body.as_bytes())
                .await
                .unwrap();
            assert_eq!(answer.status, 201, "{}", answer.text());
            let offline = event("device_offline", "d-1", "a-1", at);
            for body in [offline.as_slice(), b"no event at all"] {
                let answer = porchlight_testbed::http::post_signed(listen, WEBHOOK, key, body)
                    .await
                    .unwrap();
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
            let forged = format!("sha256={}", "0".repeat(64));
            let answer = request(listen, "POST", WEBHOOK, &[("X-Signature", &forged)], b"{}")
                .await
                .unwrap();
            assert_eq!(answer.status, 401, "{}", answer.text());
            let mut broken = RawConnection::open(listen).await.unwrap();
            broken
                .send(b"POST /webhooks/ring HTTP/1.1\r\nhost: a\r\n")
                .await
                .unwrap();
        }
    }

    async fn scraped(&self, what: &str, expression: &str) {
        wait_for(what, PATIENCE, async || {
            match self.prometheus.query(expression).await {
                Ok(Value::Array(found)) if !found.is_empty() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap();
    }

    async fn series(&self) -> Series {
        let mut series = Series::new();
        for labels in self
            .prometheus
            .series(r#"{__name__=~".+"}"#)
            .await
            .unwrap_or_default()
        {
            let metric = labels["__name__"].as_str().unwrap_or_default().to_owned();
            series.entry(metric).or_default().push(labels);
        }
        series
    }

    /// What is wrong with the rules' last evaluation.
    async fn rule_problems(&self) -> Vec<String> {
        let groups = self.prometheus.rules().await.unwrap();
        let mut problems = Vec::new();
        for rule in groups
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|group| group["rules"].as_array().unwrap())
        {
            if rule["health"] != "ok" {
                problems.push(format!(
                    "{}: {} {}",
                    rule["name"], rule["health"], rule["lastError"]
                ));
            }
            if rule["state"] == "firing" {
                problems.push(format!("{} fires where all is well", rule["name"]));
            }
        }
        problems
    }

    /// What is wrong with a dashboard's questions.
    async fn answer_problems(&self, dashboard: &Dashboard) -> Vec<String> {
        let mut problems = Vec::new();
        for (title, expression) in dashboard.questions() {
            let asked = filled(&expression);
            match self.prometheus.query(&asked).await {
                Ok(Value::Array(found)) if found.is_empty() && !EMPTY_WHEN_WELL.contains(&title.as_str()) => {
                    problems.push(format!("{}: {title} shows nothing: {asked}", dashboard.name));
                }
                Ok(_) => {}
                Err(error) => problems.push(format!("{}: {title}: {error}: {asked}", dashboard.name)),
            }
        }
        problems
    }
}

/// An expression as Grafana sends it, with everything chosen.
fn filled(expression: &str) -> String {
    let expression = expression
        .replace("$__rate_interval", "1m")
        .replace("$__range", "1h");
    expression.replace("$namespace", ".*").replace("$instance", ".+")
}

/// Expressions of the rules, as Prometheus read them.
async fn rule_expressions(prometheus: &Prometheus) -> Vec<(String, String)> {
    let groups = prometheus.rules().await.unwrap();
    let rules = groups
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rules
        .map(|rule| (text(&rule["name"]), text(&rule["query"])))
        .collect()
}

/// What is named in an expression and does not exist.
fn name_problems(who: &str, expression: &str, series: &Series) -> Vec<String> {
    let mut problems = Vec::new();
    let found = selectors(expression);
    let mut labels: BTreeSet<&str> = OF_SCRAPES.into_iter().collect();
    for selector in found.iter().filter(|selector| selector.metric != OF_ALERTS) {
        let Some(seen) = series.get(&selector.metric) else {
            problems.push(format!("{who}: there is no metric {}", selector.metric));
            continue;
        };
        labels.extend(
            seen.iter()
                .filter_map(Value::as_object)
                .flat_map(|labels| labels.keys().map(String::as_str)),
        );
        problems.extend(
            matcher_problems(selector, seen)
                .into_iter()
                .map(|problem| format!("{who}: {problem}")),
        );
    }
    for label in groupings(expression) {
        if !labels.contains(label.as_str()) {
            problems.push(format!("{who}: it groups by {label}, which no metric of it has"));
        }
    }
    problems
}

fn matcher_problems(selector: &Selector, seen: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    let metric = &selector.metric;
    for (label, _, value) in &selector.matchers {
        if OF_SCRAPES.contains(&label.as_str()) {
            continue;
        }
        if !seen.iter().any(|labels| labels[label].is_string()) {
            problems.push(format!("{metric} has no label {label}"));
        }
        let words = value
            .split('|')
            .filter(|word| !word.contains(['$', '*', '+', '[']));
        for word in words {
            let shown = seen.iter().any(|labels| labels[label] == word);
            if !shown && !sources().contains(&format!("\"{word}\"")) {
                problems.push(format!("{metric} is never shown with {label}=\"{word}\""));
            }
        }
    }
    problems
}

/// The text of all the code that ships, for values of labels that are shown only when something happens.
fn sources() -> &'static str {
    static SOURCES: OnceLock<String> = OnceLock::new();
    SOURCES.get_or_init(|| {
        let mut text = String::new();
        let mut open = vec![deploy("../crates")];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    open.push(path);
                } else if is_shipped(&path) {
                    text += &std::fs::read_to_string(path).unwrap();
                }
            }
        }
        text
    })
}

fn is_shipped(path: &Path) -> bool {
    let path = path.to_string_lossy();
    path.ends_with(".rs") && path.contains("/src/") && !path.contains("/testbed/")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rules_and_dashboards_name_exists_and_every_question_has_an_answer() {
    let stand = Stand::start().await;
    stand.traffic().await;
    let dashboards = dashboards::all();
    wait_for("an answer to every question", PATIENCE, async || {
        let series = stand.series().await;
        let mut problems = stand.rule_problems().await;
        for (name, expression) in rule_expressions(&stand.prometheus).await {
            problems.extend(name_problems(&name, &expression, &series));
        }
        for dashboard in &dashboards {
            for (title, expression) in dashboard.questions() {
                let who = format!("{}, {title}", dashboard.name);
                problems.extend(name_problems(&who, &expression, &series));
            }
            for (selector, label) in dashboard.label_values() {
                let asked = format!("count by ({label}) ({selector})");
                problems.extend(name_problems(&dashboard.name, &asked, &series));
            }
            problems.extend(stand.answer_problems(dashboard).await);
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(format!(
                "{} problems:\n  {}",
                problems.len(),
                problems.join("\n  ")
            ))
        }
    })
    .await
    .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_metric_a_label_and_a_value_that_do_not_exist_are_problems() {
    let labels = json!({ "__name__": "porchlight_a", "state": "ready", "instance": "i" });
    let series = Series::from([("porchlight_a".to_owned(), vec![labels])]);
    let problems = |expression: &str| name_problems("x", expression, &series);
    assert_eq!(
        problems(r#"sum by (state) (porchlight_a{state="ready", namespace=~"$namespace"})"#),
        [""; 0]
    );
    assert_eq!(problems("porchlight_b"), ["x: there is no metric porchlight_b"]);
    assert_eq!(problems("sum by (cause) (porchlight_a)").len(), 1);
    assert_eq!(problems(r#"porchlight_a{phase="ready"}"#).len(), 1);
    assert_eq!(
        problems(r#"porchlight_a{state=~"ready|red-y"}"#),
        ["x: porchlight_a is never shown with state=\"red-y\""]
    );
}
