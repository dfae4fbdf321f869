//! The top of the tree and the folders of the crates: a newcomer finds only what belongs there.

use std::collections::BTreeSet;

use super::{none, root};

/// What may lie at the top; `target` is cargo's, `.git` is git's, `.env` and the data folder are a run's own.
const TOP: [&str; 22] = [
    ".ci",
    ".dockerignore",
    ".editorconfig",
    ".env",
    ".env.example",
    ".git",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "crates",
    "deny.toml",
    "deploy",
    "docker-compose.yml",
    "porchlight-data",
    "rustfmt.toml",
    "target",
    "tests",
];

/// What must be there.
const NEEDED: [&str; 10] = [
    "ARCHITECTURE.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "crates",
    "deny.toml",
    "deploy",
    "docker-compose.yml",
    "tests",
];

fn top_problems(names: &BTreeSet<String>) -> Vec<String> {
    let strange = names.iter().filter(|name| !TOP.contains(&name.as_str()));
    let missing = NEEDED.iter().filter(|name| !names.contains(**name));
    strange
        .map(|name| format!("{name} does not belong at the top"))
        .chain(missing.map(|name| format!("{name} is missing")))
        .collect()
}

/// A folder is named as its crate, without our prefix.
fn name_problem(folder: &str, manifest: &str) -> Option<String> {
    let name = manifest
        .lines()
        .find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))?;
    let wanted = name.strip_prefix("porchlight-").unwrap_or(name);
    (wanted != folder).then(|| format!("crates/{folder} holds {name}"))
}

#[test]
fn only_what_belongs_there_lies_at_the_top() {
    let entries = std::fs::read_dir(root())
        .expect("the root can be listed")
        .flatten();
    let names = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    none(&top_problems(&names));
}

#[test]
fn the_licence_is_the_one_the_manifest_names() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("the manifest is there");
    let licence = std::fs::read_to_string(root().join("LICENSE")).expect("the licence is there");
    assert!(manifest.contains("license = \"Apache-2.0\"") && licence.contains("Apache License"));
}

#[test]
fn folders_are_named_as_their_crates() {
    let folders = std::fs::read_dir(root().join("crates"))
        .expect("there are crates")
        .flatten();
    let problems: Vec<String> = folders
        .filter_map(|entry| {
            let manifest = std::fs::read_to_string(entry.path().join("Cargo.toml")).unwrap_or_default();
            name_problem(&entry.file_name().to_string_lossy(), &manifest)
        })
        .collect();
    none(&problems);
}

#[test]
fn a_stray_file_and_a_missing_one_are_problems() {
    let names = ["notes.txt"]
        .into_iter()
        .chain(NEEDED)
        .filter(|name| *name != "LICENSE");
    let problems = top_problems(&names.map(str::to_owned).collect());
    assert_eq!(
        problems,
        ["notes.txt does not belong at the top", "LICENSE is missing"]
    );
}

#[test]
fn a_folder_with_another_name_is_a_problem() {
    assert!(name_problem("event", "[package]\nname = \"porchlight-event\"\n").is_none());
    assert!(name_problem("porchlight", "[package]\nname = \"porchlight\"\n").is_none());
    assert!(name_problem("events", "[package]\nname = \"porchlight-event\"\n").is_some());
}
