//! What deploys and explains Porchlight must name only settings that there are, and all that there are.
//!
//! It does not start a container.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const PREFIX: &str = "PORCHLIGHT_";
const PROGRAMS: [&str; 3] = ["porchlight-ingress", "porchlight-worker", "porchlight"];
const TOOL_COMMANDS: [&[&str]; 7] = [
    &[],
    &["standalone"],
    &["simulate"],
    &["status"],
    &["devices", "list"],
    &["operations", "add"],
    &["dead", "replay"],
];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .to_owned()
}

fn files_under(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files_under(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

fn names_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c: char| !is_part(c));
    words
        .filter(|word| word.starts_with(PREFIX) && word.len() > PREFIX.len())
        .map(str::to_owned)
        .collect()
}

fn help(program: &str, command: &[&str]) -> String {
    let path = porchlight_testbed::binary(program).unwrap();
    let output = Command::new(path)
        .args(command)
        .arg("--help")
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{program} {command:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn known() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for program in PROGRAMS {
        let commands: &[&[&str]] = if program == "porchlight" {
            &TOOL_COMMANDS
        } else {
            &TOOL_COMMANDS[..1]
        };
        for command in commands {
            known.extend(names_in(&help(program, command)));
        }
    }
    known
}

#[test]
fn every_setting_that_is_deployed_or_explained_exists() {
    let top = top();
    let mut files = vec![
        top.join("docker-compose.yml"),
        top.join(".env.example"),
        top.join("README.md"),
    ];
    files.extend(files_under(&top.join("deploy")));
    let known = known();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let unknown: Vec<_> = names_in(&text)
            .into_iter()
            .filter(|name| !known.contains(name))
            .collect();
        assert!(unknown.is_empty(), "{} names {unknown:?}", file.display());
    }
}

#[test]
fn the_readme_explains_every_setting() {
    let explained = names_in(&std::fs::read_to_string(top().join("README.md")).unwrap());
    let missing: Vec<_> = known()
        .into_iter()
        .filter(|name| !explained.contains(name))
        .collect();
    assert!(missing.is_empty(), "README.md lacks {missing:?}");
}

#[test]
fn the_example_of_settings_says_that_its_secrets_are_public() {
    let text = std::fs::read_to_string(top().join(".env.example")).unwrap();
    let secrets = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    for line in secrets.filter(|line| !line.starts_with("WEBHOOK_PORT")) {
        assert!(
            line.to_lowercase()
                .replace('-', "")
                .contains("neveruseinproduction"),
            "{line}"
        );
    }
}
