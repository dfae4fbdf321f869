//! The dashboards are whole: places, names, units and words of every panel, and no variable that is not there.
//!
//! Whether their questions have answers is asked of real daemons, elsewhere.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{deploy, none};

/// Width of Grafana's grid.
const COLUMNS: u64 = 24;
/// Units that are used; Grafana shows an unknown one as text behind the figure.
const UNITS: [&str; 6] = ["short", "s", "bytes", "Bps", "reqps", "percentunit"];
/// Variables that Grafana itself sets.
const BUILT_IN: [&str; 2] = ["__rate_interval", "__range"];
/// Kinds of panels that show figures, and therefore need a question and a unit.
const KINDS: [&str; 4] = ["stat", "timeseries", "bargauge", "table"];

/// A dashboard, by the name of its file.
pub(super) struct Dashboard {
    pub(super) name: String,
    pub(super) content: Value,
}

pub(super) fn all() -> Vec<Dashboard> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(deploy("grafana"))
        .expect("there are dashboards")
        .flatten()
    {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = std::fs::read_to_string(&path).expect("a dashboard can be read");
            found.push(Dashboard {
                name: path
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                content: serde_json::from_str(&text)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display())),
            });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

impl Dashboard {
    /// Title and expression of everything a panel asks, and what the variables and annotations ask.
    pub(super) fn questions(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for panel in list(&self.content["panels"]) {
            for target in list(&panel["targets"]) {
                found.push((text(&panel["title"]), text(&target["expr"])));
            }
        }
        for annotation in list(&self.content["annotations"]["list"]) {
            if let Some(expression) = annotation["expr"].as_str() {
                found.push((text(&annotation["name"]), expression.to_owned()));
            }
        }
        found
    }

    /// Names and queries of the variables that are filled from labels: the metric and the label.
    pub(super) fn label_values(&self) -> Vec<(String, String)> {
        let queries = list(&self.content["templating"]["list"]);
        let queries = queries
            .iter()
            .filter_map(|variable| variable["definition"].as_str());
        let inside = queries.filter_map(|query| query.strip_prefix("label_values(")?.strip_suffix(')'));
        inside
            .filter_map(|inside| inside.rsplit_once(", "))
            .map(|(selector, label)| (selector.to_owned(), label.to_owned()))
            .collect()
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut note = |problem: String| problems.push(format!("{}: {problem}", self.name));
        let panels = list(&self.content["panels"]);
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
        if ids.len() != panels.len() || ids.contains(&None) {
            note("ids of panels are missing or the same".to_owned());
        }
        for (number, panel) in panels.iter().enumerate() {
            for problem in panel_problems(panel) {
                note(format!("{}: {problem}", text(&panel["title"])));
            }
            for other in &panels[number + 1..] {
                if overlap(panel, other) {
                    note(format!(
                        "{} lies over {}",
                        text(&panel["title"]),
                        text(&other["title"])
                    ));
                }
            }
        }
        let variables = list(&self.content["templating"]["list"]);
        let mut variables: Vec<_> = variables.iter().map(|variable| text(&variable["name"])).collect();
        variables.extend(BUILT_IN.map(str::to_owned));
        for (title, expression) in self.questions() {
            for used in used_variables(&expression) {
                if !variables.contains(&used) {
                    note(format!("{title} uses ${used}, which is not there"));
                }
            }
        }
        problems
    }
}

fn panel_problems(panel: &Value) -> Vec<String> {
    let kind = text(&panel["type"]);
    let mut problems = Vec::new();
    if text(&panel["title"]).is_empty() {
        problems.push("it has no title".to_owned());
    }
    if place(panel).is_none_or(|[x, _, w, h]| w == 0 || h == 0 || x + w > COLUMNS) {
        problems.push("it has no place in the grid".to_owned());
    }
    if kind == "row" {
        return problems;
    }
    if text(&panel["description"]).len() < 5 {
        problems.push("it does not say what it shows".to_owned());
    }
    if kind == "text" {
        return problems;
    }
    let unit = text(&panel["fieldConfig"]["defaults"]["unit"]);
    if !KINDS.contains(&kind.as_str()) {
        problems.push(format!("{kind} is not among the kinds of panels in use"));
    } else if kind != "table" && !UNITS.contains(&unit.as_str()) {
        problems.push(format!("its unit is {unit:?}"));
    }
    let targets = list(&panel["targets"]);
    let asks = |target: &Value| {
        !text(&target["expr"]).is_empty()
            && target["datasource"]["uid"] == "${datasource}"
            && target["refId"].is_string()
    };
    if targets.is_empty() || !targets.iter().all(asks) {
        problems.push("a question is empty, or is asked of a fixed source".to_owned());
    }
    problems
}

/// Left, top, width and height.
fn place(panel: &Value) -> Option<[u64; 4]> {
    let place = &panel["gridPos"];
    Some([
        place["x"].as_u64()?,
        place["y"].as_u64()?,
        place["w"].as_u64()?,
        place["h"].as_u64()?,
    ])
}

fn overlap(one: &Value, other: &Value) -> bool {
    let (Some([x, y, w, h]), Some([left, top, width, height])) = (place(one), place(other)) else {
        return false;
    };
    x < left + width && left < x + w && y < top + height && top < y + h
}

fn used_variables(expression: &str) -> Vec<String> {
    let after = expression.split('$').skip(1);
    let is_part = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
    after
        .map(|rest| rest.chars().take_while(is_part).collect())
        .collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[test]
fn every_dashboard_is_whole() {
    let all = all();
    assert_eq!(
        all.iter()
            .map(|dashboard| dashboard.name.as_str())
            .collect::<Vec<_>>(),
        ["ingress", "overview", "standalone", "worker"]
    );
    none(&all.iter().flat_map(Dashboard::problems).collect::<Vec<_>>());
    let uids: BTreeSet<_> = all
        .iter()
        .map(|dashboard| text(&dashboard.content["uid"]))
        .collect();
    assert_eq!(uids.len(), all.len(), "each has an identity of its own: {uids:?}");
}

#[test]
fn the_overview_answers_five_questions_in_their_order() {
    let all = all();
    let overview = all
        .iter()
        .find(|dashboard| dashboard.name == "overview")
        .expect("it is there");
    let rows = list(&overview.content["panels"])
        .iter()
        .filter(|panel| panel["type"] == "row");
    assert_eq!(
        rows.map(|row| text(&row["title"])).collect::<Vec<_>>(),
        [
            "Is it healthy?",
            "How far behind is it?",
            "What is dead, and why?",
            "Would a replay help?",
            "How long until Ring gives up?"
        ]
    );
}

#[test]
fn a_panel_without_words_unit_or_place_is_found_and_so_is_a_variable_that_is_not_there() {
    let panel = |id: u64, x: u64, unit: &str, expression: &str| {
        serde_json::json!({
            "id": id, "type": "stat", "title": "A", "description": "What it is", "gridPos": { "x": x, "y": 0, "w": 12, "h": 4 },
            "fieldConfig": { "defaults": { "unit": unit } },
            "targets": [{ "refId": "A", "expr": expression, "datasource": { "uid": "${datasource}" } }],
        })
    };
    let problems = |panels: &[Value]| {
        let name = "x".to_owned();
        let content = serde_json::json!({ "panels": panels, "templating": { "list": [] } });
        Dashboard { name, content }.problems()
    };
    assert_eq!(
        problems(&[panel(1, 0, "s", "up[$__range]"), panel(2, 12, "s", "up")]),
        [""; 0]
    );
    assert_eq!(
        problems(&[panel(1, 0, "s", "up"), panel(2, 11, "s", "up")]).len(),
        1
    );
    assert_eq!(
        problems(&[panel(1, 0, "s", "up"), panel(1, 12, "s", "up")]).len(),
        1
    );
    assert_eq!(problems(&[panel(1, 13, "s", "up")]).len(), 1);
    assert_eq!(problems(&[panel(1, 0, "seconds", "up")]).len(), 1);
    assert_eq!(problems(&[panel(1, 0, "s", "")]).len(), 1);
    assert_eq!(problems(&[panel(1, 0, "s", "up{a=\"$b\"}")]).len(), 1);
}
