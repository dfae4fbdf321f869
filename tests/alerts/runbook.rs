//! Each alert leads to its own paragraph of the page for whoever is on call, each paragraph has an alert, and each link on
//! the page leads somewhere.

use std::collections::BTreeMap;

use super::rules::{RULES, alerts};
use super::{deploy, none, read};

const PAGE: &str = "OPERATING.md";
/// What each paragraph consists of, in this order.
const PARTS: [&str; 3] = ["**What it means.** ", "**What to look at.** ", "**What to do.** "];

/// The alerts' paragraphs by their headings.
fn paragraphs(page: &str) -> BTreeMap<&str, &str> {
    let part = page.split("\n## Alerts\n").nth(1).unwrap_or_default();
    let part = part.split("\n## ").next().unwrap_or_default();
    let paragraphs = part.split("\n### ").skip(1);
    paragraphs
        .filter_map(|paragraph| paragraph.split_once('\n'))
        .collect()
}

/// What a heading is reached by.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept
        .chars()
        .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

fn paragraph_problem(alert: &str, paragraph: Option<&&str>) -> Option<String> {
    let Some(paragraph) = paragraph else {
        return Some(format!("{alert} has no paragraph"));
    };
    let mut rest = *paragraph;
    for part in PARTS {
        match rest.split_once(&format!("\n{part}")) {
            Some((_, after)) if after.trim().len() > 40 => rest = after,
            _ => return Some(format!("{alert} does not say in its turn: {part}")),
        }
    }
    None
}

/// Links within a page, and to files beside it, that lead nowhere.
fn link_problems(page: &str) -> Vec<String> {
    let anchors: Vec<String> = page
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#').trim()))
        .collect();
    let mut problems = Vec::new();
    for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let leads = match link.split_once('#') {
            Some(("", here)) => anchors.iter().any(|anchor| anchor == here),
            _ if link.contains("://") => true,
            _ => deploy(link.split('#').next().unwrap_or_default()).exists(),
        };
        if !leads {
            problems.push(format!("the link {link} leads nowhere"));
        }
    }
    problems
}

#[test]
fn every_alert_leads_to_its_paragraph_and_every_paragraph_has_an_alert() {
    let (rules, page) = (read(RULES), read(PAGE));
    let (alerts, paragraphs) = (alerts(&rules), paragraphs(&page));
    let links: Vec<_> = rules
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("runbook_url: "))
        .collect();
    let wanted: Vec<_> = alerts
        .iter()
        .map(|alert| format!("deploy/{PAGE}#{}", anchor(alert)))
        .collect();
    assert_eq!(
        links, wanted,
        "each alert's runbook_url, in the order of the file"
    );
    let mut problems: Vec<String> = alerts
        .iter()
        .filter_map(|alert| paragraph_problem(alert, paragraphs.get(alert)))
        .collect();
    let strange = paragraphs.keys().filter(|heading| !alerts.contains(heading));
    problems.extend(strange.map(|heading| format!("there is no alert {heading}")));
    none(&problems);
}

#[test]
fn every_link_on_the_page_leads_somewhere() {
    none(&link_problems(&read(PAGE)));
}

#[test]
fn a_paragraph_without_a_part_and_a_link_to_nothing_are_problems() {
    let page = "# A\n\n## Alerts\n\n### One\n\n**What it means.** x\n\n### Two\n\nx [a](#one) [b](#none) [c](nothing.md)\n";
    let paragraphs = paragraphs(page);
    assert_eq!(paragraphs.keys().collect::<Vec<_>>(), [&"One", &"Two"]);
    assert!(paragraph_problem("One", paragraphs.get("One")).is_some());
    assert!(paragraph_problem("Three", paragraphs.get("Three")).is_some());
    let long = "that something is so, and for how long it has been";
    let whole = PARTS.map(|part| format!("\n{part}{long}\n")).concat();
    assert_eq!(paragraph_problem("Four", Some(&whole.as_str())), None);
    assert_eq!(
        link_problems(page),
        [
            "the link #none leads nowhere",
            "the link nothing.md leads nowhere"
        ]
    );
    assert_eq!(anchor("Scaling, to zero and back"), "scaling-to-zero-and-back");
}
