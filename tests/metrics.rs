//! The page on metrics and what daemons really show, held together both ways; and what Prometheus's own tool says of it.
//!
//! What a figure is in which state is tested with the crate that it is of.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use porchlight_testbed::receiver::Receiver;
use porchlight_testbed::{http, wait_for};

use crate::site::{Form, Site};
use crate::support::{PATIENCE, Pipeline, Plan, TOKEN, event, now_ms};

const PAGE: &str = "deploy/METRICS.md";
const CALLBACK_SECRET: &str = "whsec_cG9yY2hsaWdodC1tZXRyaWNzLXNlY3JldC0xMjM0NTY3";
/// As the page calls them.
const DAEMONS: [&str; 3] = ["ingress", "worker", "standalone"];

/// One line of a table of the page.
#[derive(Debug)]
struct Row {
    name: String,
    kind: String,
    labels: BTreeSet<String>,
    daemons: BTreeSet<String>,
    meaning: String,
}

/// One metric as a daemon shows it.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
}

fn page() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join(PAGE)).unwrap()
}

/// Every line such as `| `name` | gauge | `label` | worker | meaning |`.
fn rows(page: &str) -> Vec<Row> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, daemons, meaning] = cells.as_slice() else {
            return None;
        };
        let daemons: BTreeSet<String> = match *daemons {
            "all" => DAEMONS.map(str::to_owned).into(),
            some => words(some).collect(),
        };
        Some(Row {
            name: name.strip_prefix('`')?.strip_suffix('`')?.to_owned(),
            kind: (*kind).to_owned(),
            labels: words(labels).filter(|label| !label.is_empty()).collect(),
            daemons,
            meaning: (*meaning).to_owned(),
        })
    };
    page.lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(row)
        .collect()
}

/// What a cell lists, without its marks.
fn words(cell: &str) -> impl Iterator<Item = String> {
    cell.split(',')
        .map(|word| word.trim().trim_matches('`').to_owned())
}

/// Everything in Prometheus text, with the labels that any of its series has.
fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families = BTreeMap::<String, Family>::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            current = name.to_owned();
            let repeated = families.insert(
                current.clone(),
                Family {
                    kind: kind.to_owned(),
                    ..Family::default()
                },
            );
            assert!(repeated.is_none(), "{name} is shown twice");
        } else if !line.starts_with('#') {
            let family = families.get_mut(&current).expect("a type comes first");
            family.labels.extend(labels(line).filter(|label| label != "le"));
        }
    }
    families
}

fn labels(sample: &str) -> impl Iterator<Item = String> {
    let inside = sample.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}'));
    let pairs = inside.map_or("", |(inside, _)| inside).split("\",");
    let names = pairs.filter_map(|pair| pair.split_once('='));
    names
        .map(|(name, _)| name.to_owned())
        .collect::<Vec<_>>()
        .into_iter()
}

/// What is on the page and not shown by this daemon, or the other way round, or with another type or other labels.
fn differences(daemon: &str, rows: &[Row], shown: &BTreeMap<String, Family>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut told = BTreeSet::new();
    for row in rows.iter().filter(|row| row.daemons.contains(daemon)) {
        told.insert(row.name.as_str());
        match shown.get(&row.name) {
            None => problems.push(format!("{daemon} does not show {}", row.name)),
            Some(family) if family.kind != row.kind || family.labels != row.labels => {
                problems.push(format!(
                    "{daemon} shows {} as {} with {:?}, the page says {} with {:?}",
                    row.name, family.kind, family.labels, row.kind, row.labels
                ));
            }
            Some(_) => {}
        }
    }
    let untold = shown.iter().filter(|(name, _)| !told.contains(name.as_str()));
    problems.extend(untold.map(|(name, family)| {
        format!(
            "{daemon} shows {name}, {} with {:?}: not on the page",
            family.kind, family.labels
        )
    }));
    problems
}

/// Waits until a daemon shows everything that the page says it shows, and gives what it shows.
async fn shown(daemon: &str, admin: SocketAddr, rows: &[Row]) -> String {
    let mut last = String::new();
    let whole = wait_for("every metric of the page", PATIENCE, async || {
        let answer = http::get(admin, "/metrics")
            .await
            .map_err(|error| error.to_string())?;
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; version=0.0.4; charset=utf-8")
        );
        last = answer.text();
        let problems = differences(daemon, rows, &families(&last));
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems.join("\n  "))
        }
    });
    if let Err(error) = whole.await {
        panic!("{daemon}: {error}\n{PAGE} and what is shown differ");
    }
    last
}

/// What promtool finds in the text, if anything.
fn lint(text: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed by tests/run");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        String::new()
    } else {
        format!("{said}{}", output.status)
    }
}

/// Everything that a daemon can show has happened in it once.
async fn scaled(receiver: &Receiver, folder: &Path) -> Pipeline {
    let mut pipeline = Pipeline::prepare(Plan {
        settings: vec![("PORCHLIGHT_WATCH_INTERVAL", "200ms".to_owned())],
        ..Plan::default()
    })
    .await;
    let management = pipeline.broker.node().management_url().await.unwrap();
    for member in pipeline.members_mut() {
        member.set("PORCHLIGHT_MANAGEMENT_URL", &management);
    }
    pipeline.ingresses[0].set("PORCHLIGHT_DATA_DIR", folder.join("spool").display().to_string());
    pipeline.workers[0].set("PORCHLIGHT_CALLBACK_URL", receiver.url("/"));
    pipeline.workers[0].set("PORCHLIGHT_CALLBACK_SECRET", CALLBACK_SECRET);
    let limit = ["CONFIG", "SET", "maxmemory", "1073741824"];
    pipeline.redis.command(&limit).unwrap();
    for member in pipeline.members_mut() {
        member.start();
    }
    for member in pipeline.members() {
        member.wait_until_ready().await;
    }
    pipeline
}

async fn register(admin: SocketAddr) {
    let authorization = format!("Bearer {TOKEN}");
    let headers = [("Authorization", authorization.as_str())];
    let body = br#"{"kind":"snapshot"}"#;
    let path = "/v1/devices/d/operations/nightly";
    let answer = http::request(admin, "PUT", path, &headers, body).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_names_what_daemons_show_and_daemons_show_what_it_names() {
    let (folder, receiver) = (tempfile::tempdir().unwrap(), Receiver::start().await.unwrap());
    let rows = rows(&page());
    let callback = vec![
        ("PORCHLIGHT_WATCH_INTERVAL", "200ms".to_owned()),
        ("PORCHLIGHT_CALLBACK_URL", receiver.url("/")),
        ("PORCHLIGHT_CALLBACK_SECRET", CALLBACK_SECRET.to_owned()),
    ];
    let (pipeline, site) = tokio::join!(
        scaled(&receiver, folder.path()),
        Site::start(Form::Standalone, callback)
    );
    let offline = event("device_offline", "d", "a", now_ms() - 1000);
    register(pipeline.workers[0].admin).await;
    register(site.admin).await;
    pipeline.accept(&offline).await;
    site.accept(&offline).await;
    receiver.wait_calls(2, PATIENCE).await.unwrap();
    let daemons = [pipeline.ingresses[0].admin, pipeline.workers[0].admin, site.admin];
    let mut found = Vec::new();
    for (daemon, admin) in DAEMONS.into_iter().zip(daemons) {
        let text = shown(daemon, admin, &rows).await;
        found.extend(
            Some(lint(&text))
                .filter(|said| !said.is_empty())
                .map(|said| format!("{daemon}: {said}")),
        );
    }
    assert!(found.is_empty(), "promtool check metrics:\n{}", found.join("\n"));
}

#[test]
fn every_row_of_the_page_has_a_known_type_daemons_and_a_meaning_and_none_is_there_twice() {
    let rows = rows(&page());
    let mut names = BTreeSet::new();
    for row in &rows {
        assert!(names.insert(&row.name), "{} is there twice", row.name);
        assert!(
            ["counter", "gauge", "histogram"].contains(&row.kind.as_str()),
            "{row:?}"
        );
        assert!(
            row.daemons.iter().all(|one| DAEMONS.contains(&one.as_str())),
            "{row:?}"
        );
        assert!(row.meaning.len() > 10, "{row:?}");
    }
    assert!(rows.len() > 80, "{} rows were read", rows.len());
}

#[test]
fn a_metric_that_is_missing_untold_or_of_another_kind_is_a_problem() {
    let rows = rows(
        "| `a_total` | counter | `of`, `by` | all | How many of what |\n\
         | `b` | gauge | | worker | How much of it there is |\n\
         | `c` | gauge | | ingress | Only there |\n",
    );
    let text = "# TYPE a_total counter\na_total{of=\"x,y=\\\"\",by=\"z\"} 1\n# TYPE b gauge\nb 1\n";
    assert_eq!(
        differences("worker", &rows, &families(text)),
        Vec::<String>::new()
    );
    let wrong = "# TYPE a_total counter\na_total{of=\"x\"} 1\n# TYPE d gauge\nd 1\n";
    assert_eq!(differences("worker", &rows, &families(wrong)).len(), 3);
}
