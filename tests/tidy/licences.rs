//! Licences of everything we build with, held to the list in `deny.toml`.

use std::collections::BTreeSet;

use super::{metadata, none, root};

/// What a dependency's licence may ask for: notices, and no more. The same list stands in `deny.toml`.
const ALLOWED: [&str; 8] = [
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// A word of a licence expression.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Name(String),
}

fn tokens(expression: &str) -> Vec<Token> {
    // The slash is the old spelling of OR; an exception (WITH) only widens what the licence allows.
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut words = spaced.split_whitespace();
    let mut tokens = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "(" => tokens.push(Token::Open),
            ")" => tokens.push(Token::Close),
            "AND" => tokens.push(Token::And),
            "OR" => tokens.push(Token::Or),
            "WITH" => drop(words.next()),
            name => tokens.push(Token::Name(name.to_owned())),
        }
    }
    tokens
}

/// Whether `allowed` satisfies the expression; AND binds tighter than OR.
fn is_satisfied(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let tokens = tokens(expression);
    let mut at = 0;
    let satisfied = any_of(&tokens, &mut at, allowed);
    satisfied && at == tokens.len()
}

fn any_of(tokens: &[Token], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let mut satisfied = all_of(tokens, at, allowed);
    while tokens.get(*at) == Some(&Token::Or) {
        *at += 1;
        satisfied |= all_of(tokens, at, allowed);
    }
    satisfied
}

fn all_of(tokens: &[Token], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let mut satisfied = one(tokens, at, allowed);
    while tokens.get(*at) == Some(&Token::And) {
        *at += 1;
        satisfied &= one(tokens, at, allowed);
    }
    satisfied
}

fn one(tokens: &[Token], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let token = tokens.get(*at);
    *at += 1;
    match token {
        Some(Token::Name(name)) => allowed.contains(name.as_str()),
        Some(Token::Open) => {
            let satisfied = any_of(tokens, at, allowed);
            *at += 1;
            satisfied && tokens.get(*at - 1) == Some(&Token::Close)
        }
        _ => false,
    }
}

/// Packages, each with its licence expression, that may not be used.
fn problems<'a>(packages: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> Vec<String> {
    let allowed = BTreeSet::from(ALLOWED);
    let bad = packages.filter(|(_, licence)| !licence.is_some_and(|text| is_satisfied(text, &allowed)));
    bad.map(|(name, licence)| format!("{name} has the licence {}", licence.unwrap_or("(none)")))
        .collect()
}

/// The entries of the `allow` list of a `deny.toml`.
fn allowed_by(deny: &str) -> BTreeSet<&str> {
    let list = deny.split_once("\nallow = [").map_or("", |(_, rest)| rest);
    let list = list.split_once(']').map_or("", |(list, _)| list);
    list.split(',')
        .map(|entry| entry.trim().trim_matches('"'))
        .filter(|entry| !entry.is_empty())
        .collect()
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let packages = metadata()["packages"].as_array().expect("a list");
    let licences = packages.iter().map(|package| {
        (
            package["name"].as_str().unwrap_or("?"),
            package["license"].as_str(),
        )
    });
    none(&problems(licences));
}

#[test]
fn deny_toml_allows_the_same_licences() {
    let deny = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml is there");
    assert_eq!(allowed_by(&deny), BTreeSet::from(ALLOWED));
}

#[test]
fn a_licence_that_is_not_allowed_or_missing_is_a_problem() {
    let packages = [
        ("good", Some("(MIT OR GPL-3.0) AND Unicode-3.0")),
        ("old", Some("GPL-3.0/Apache-2.0")),
        ("with", Some("Apache-2.0 WITH LLVM-exception")),
        ("copyleft", Some("GPL-3.0-only")),
        ("both", Some("MIT AND GPL-3.0-only")),
        ("odd", Some("MIT MIT")),
        ("open", Some("(MIT")),
        ("none", None),
    ];
    let bad = problems(packages.into_iter());
    let names: Vec<&str> = bad
        .iter()
        .filter_map(|problem| problem.split(' ').next())
        .collect();
    assert_eq!(names, ["copyleft", "both", "odd", "open", "none"]);
}

#[test]
fn a_list_that_differs_is_seen() {
    assert_eq!(
        allowed_by("[licenses]\nallow = [\n    \"MIT\",\n    \"ISC\",\n]\n"),
        BTreeSet::from(["ISC", "MIT"])
    );
}
