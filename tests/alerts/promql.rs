//! Finds in an expression of Prometheus' language what it asks for: metrics, the labels they are selected by, groupings.
//!
//! It is no parser and refuses nothing: Prometheus itself does that. It finds every name that could be a metric of ours.

use std::collections::BTreeSet;

/// A metric as an expression names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) metric: String,
    /// Label, operator and value.
    pub(super) matchers: Vec<(String, String, String)>,
}

/// All metrics that are ours, or of any process, or Prometheus' own.
pub(super) fn selectors(expression: &str) -> Vec<Selector> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some((name, after)) = next_name(rest) {
        rest = after;
        if !is_metric(name) {
            continue;
        }
        let braces = after.trim_start().strip_prefix('{');
        let inside = braces.map(|inside| &inside[..closing_brace(inside)]);
        if let (Some(braces), Some(inside)) = (braces, inside) {
            rest = &braces[inside.len()..];
        }
        found.push(Selector {
            metric: name.to_owned(),
            matchers: matchers(inside.unwrap_or_default()),
        });
    }
    found
}

/// All labels that the expression groups or joins by.
pub(super) fn groupings(expression: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = expression;
    while let Some((name, after)) = next_name(rest) {
        rest = after;
        if !["by", "without", "on", "ignoring", "group_left", "group_right"].contains(&name) {
            continue;
        }
        let inside = after
            .trim_start()
            .strip_prefix('(')
            .and_then(|inside| inside.split(')').next());
        let labels = inside
            .unwrap_or_default()
            .split(',')
            .map(|label| label.trim().to_owned());
        found.extend(labels.filter(|label| !label.is_empty()));
    }
    found
}

fn is_metric(name: &str) -> bool {
    let begins = ["porchlight_", "process_", "namespace:", "namespace_queue:"];
    begins.iter().any(|begin| name.starts_with(begin)) || ["up", "ALERTS"].contains(&name)
}

/// The next name outside of strings, and what follows it.
fn next_name(text: &str) -> Option<(&str, &str)> {
    let mut in_string = None;
    let mut before = ' ';
    for (at, letter) in text.char_indices() {
        match in_string {
            Some(quote) if letter == quote && before != '\\' => in_string = None,
            Some(_) => {}
            None if letter == '"' || letter == '\'' => in_string = Some(letter),
            None if (letter.is_ascii_alphabetic() || letter == '_')
                && !before.is_ascii_digit()
                && before != '$' =>
            {
                let name = &text[at..];
                let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
                let end = name.find(|letter| !is_part(letter)).unwrap_or(name.len());
                return Some((&name[..end], &name[end..]));
            }
            None => {}
        }
        before = letter;
    }
    None
}

fn closing_brace(inside: &str) -> usize {
    let mut in_string = false;
    let mut before = ' ';
    for (at, letter) in inside.char_indices() {
        match letter {
            '"' if before != '\\' => in_string = !in_string,
            '}' if !in_string => return at,
            _ => {}
        }
        before = letter;
    }
    inside.len()
}

fn matchers(inside: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let mut rest = inside;
    while let Some((label, after)) = next_name(rest) {
        let (operator, quoted) = after.split_once('"').unwrap_or((after, ""));
        let (value, after) = quoted.split_once('"').unwrap_or((quoted, ""));
        found.push((label.to_owned(), operator.trim().to_owned(), value.to_owned()));
        rest = after;
    }
    found
}

#[test]
fn metrics_are_found_with_their_matchers_and_strings_are_not_looked_into() {
    let text =
        r#"sum by (le) (rate(porchlight_a_bucket{x="by (up)", y=~"b|c"}[5m])) > on (job) up unless ALERTS"#;
    let found = selectors(text);
    let names: Vec<_> = found.iter().map(|selector| selector.metric.as_str()).collect();
    assert_eq!(names, ["porchlight_a_bucket", "up", "ALERTS"]);
    let matcher = |label: &str, operator: &str, value: &str| (label.into(), operator.into(), value.into());
    assert_eq!(
        found[0].matchers,
        [matcher("x", "=", "by (up)"), matcher("y", "=~", "b|c")]
    );
    assert_eq!(groupings(text).into_iter().collect::<Vec<_>>(), ["job", "le"]);
}

#[test]
fn names_of_recorded_series_are_one_word() {
    let found = selectors("max(namespace:porchlight_a:max{namespace=~\"$namespace\"}[72h]) - 5m");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].metric, "namespace:porchlight_a:max");
    assert_eq!(found[0].matchers[0].2, "$namespace");
}
