//! What the operator's pages tell to type must be commands and flags that there are, and what systemd starts must be
//! what the program takes.
//!
//! Nothing of it is carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use super::daemons::{setting_problems, stops_within};
use super::{none, root, seconds};

const PAGES: [&str; 3] = ["deploy/OPERATING.md", "deploy/kubernetes/README.md", "README.md"];

/// After these the tool's name is that of a namespace, a user or a service.
const TAKES_A_NAME: [&str; 8] = [
    "--namespace",
    "--unit",
    "-u",
    "--now",
    "namespace",
    "start",
    "status",
    "stop",
];

/// The help of a command of the tool, where there is such a command.
fn help(words: &[&str]) -> Option<String> {
    let tool = porchlight_testbed::binary("porchlight").unwrap();
    let output = Command::new(tool)
        .args(words)
        .arg("--help")
        .env_clear()
        .output()
        .unwrap();
    output
        .status
        .success()
        .then(|| String::from_utf8(output.stdout).unwrap())
}

/// What a page tells to type: lines of code, and words between backticks that begin with the tool's name.
fn commands(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in page.lines() {
        let typed: Vec<&str> = if line.starts_with("    ") {
            vec![line.trim()]
        } else {
            line.split('`').skip(1).step_by(2).collect()
        };
        for typed in typed {
            // What follows a comment, a pipe or an ampersand is another matter.
            let typed = typed.split(['#', '|', '&', ';']).next().unwrap_or_default();
            let words: Vec<&str> = typed.split_whitespace().collect();
            let is_tool = |at: &usize| {
                words[*at] == "porchlight" && (*at == 0 || !TAKES_A_NAME.contains(&words[at - 1]))
            };
            if let Some(at) = (0..words.len()).find(is_tool).filter(|at| at + 1 < words.len()) {
                found.insert(words[at + 1..].join(" "));
            }
        }
    }
    found
}

fn command_problems(page: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for command in commands(page) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let is_word = |word: &&&str| {
            word.starts_with(|c: char| c.is_ascii_lowercase())
                && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
        };
        let path: Vec<&str> = words.iter().take_while(is_word).copied().take(2).collect();
        // The second word is a command of its own, or what the first is given.
        let Some(help) = help(&path).or_else(|| help(&path[..path.len().min(1)])) else {
            problems.push(format!("there is no command: porchlight {command}"));
            continue;
        };
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            let flag = flag.split('=').next().unwrap_or_default();
            let flag = flag.trim_end_matches(|c: char| !c.is_ascii_lowercase());
            let known = [" ", "\n", ",", "="]
                .iter()
                .any(|end| help.contains(&format!("{flag}{end}")));
            if flag.len() > 2 && !known {
                problems.push(format!("porchlight {} has no {flag}", path.join(" ")));
            }
        }
    }
    problems
}

#[test]
fn the_pages_tell_to_type_only_commands_and_flags_that_there_are() {
    for page in PAGES {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        assert!(!commands(&text).is_empty(), "{page}");
        none(&command_problems(&text));
    }
}

#[test]
fn a_command_or_a_flag_that_is_not_there_is_a_problem() {
    let page = "Type `porchlight status --check`.\n\n    porchlight dead list --reason no_device\n";
    none(&command_problems(page));
    let page = "    porchlight state\n    porchlight dead list --reasons x\n    sudo -u x porchlight status --chek\n";
    assert_eq!(command_problems(page).len(), 3);
}

/// The lines of a unit by name; of a name that is given twice, all values.
fn unit() -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(root().join("deploy/systemd/porchlight.service")).unwrap();
    let mut unit: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    for (name, value) in lines.filter_map(|line| line.split_once('=')) {
        unit.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    unit
}

#[test]
fn systemd_starts_standalone_with_settings_that_it_takes_and_gives_it_the_time_to_stop() {
    let unit = unit();
    let one = |name: &str| unit[name][0].as_str();
    assert_eq!(one("ExecStart"), "/usr/local/bin/porchlight standalone");
    let environment: BTreeMap<String, String> = unit["Environment"]
        .iter()
        .map(|line| line.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    none(&setting_problems(
        "systemd",
        "porchlight standalone",
        &environment,
    ));
    let state = format!("/var/lib/{}", one("StateDirectory"));
    assert_eq!(
        environment["PORCHLIGHT_DATA_DIR"], state,
        "it can write nowhere else"
    );
    assert_eq!(one("RestartPreventExitStatus"), "64");
    let allowed = seconds(&format!("{}s", one("TimeoutStopSec")));
    assert!(allowed >= stops_within("porchlight standalone", &environment));
}
