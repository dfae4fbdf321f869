//! The shape of our files: what each begins with, how long it may be, and what must not stand in it.

use std::path::{Path, PathBuf};

use super::{none, root};

/// Longest file, in lines. The aim is 400; past this one, look for the second noun.
const LINES_MAX: usize = 500;
/// Files that may be longer, each with its reason.
const LONG: [(&str, &str); 0] = [];
/// Test files that may sleep, each with its reason. Everything else waits for a state.
const SLEEPERS: [(&str, &str); 2] = [
    (
        "crates/service/src/guarded_io.rs",
        "its tests run on a paused clock, where a sleep takes no time",
    ),
    (
        "crates/testbed/src/poll.rs",
        "it is the one place that waits for states",
    ),
];
/// What must not be written anywhere in Rust, as two halves so that this file does not hold it, and why.
const BANNED_IN_RUST: [(&str, &str, &str); 5] = [
    ("unbounded_", "channel", "memory must be bounded"),
    (
        "#[ign",
        "ore",
        "a test that does not run proves nothing; start what it needs, or delete it",
    ),
    ("tod", "o!(", "finish it, or leave it out"),
    ("unimpl", "emented!(", "finish it, or leave it out"),
    ("db", "g!(", "a trace left behind"),
];
/// What must not be written in any file: paths of a machine the project was once on, and hosts packages come from.
const BANNED_EVERYWHERE: [(&str, &str); 5] = [
    ("/wo", "rk/"),
    ("/ro", "ot/"),
    ("/ho", "me/"),
    ("/tmp/", "pl"),
    ("crates", ".io"),
];
/// Folders and files that are not ours, or not text.
const SKIPPED: [&str; 6] = [
    ".git",
    "target",
    "Cargo.lock",
    "LICENSE",
    "porchlight-data",
    ".env",
];

/// One of our text files.
struct Source {
    /// From the root, with slashes.
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|extension| extension == "rs")
    }

    /// The lines before the unit tests at the foot of a file.
    fn code(&self) -> &str {
        let is_module = |rest: &str| {
            let line = rest
                .lines()
                .find(|line| !line.starts_with('#'))
                .unwrap_or_default();
            line.trim_start_matches("pub(crate) ").starts_with("mod ") && line.ends_with('{')
        };
        let marker = "\n#[cfg(test)]\n";
        let mut marks = self.text.match_indices(marker);
        let foot = marks.find(|(at, _)| is_module(&self.text[at + marker.len()..]));
        &self.text[..foot.map_or(self.text.len(), |(at, _)| at)]
    }

    /// Lines that only tests run: all of a file under a `tests/` folder, or the foot of another.
    fn test_code(&self) -> &str {
        if self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("_tests.rs")
        {
            &self.text
        } else {
            &self.text[self.code().len()..]
        }
    }
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![root()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder)
            .expect("a folder can be listed")
            .flatten()
        {
            if SKIPPED.contains(&entry.file_name().to_string_lossy().as_ref()) {
                continue;
            }
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                let path = path
                    .strip_prefix(root())
                    .unwrap_or(&path)
                    .to_string_lossy()
                    .into_owned();
                found.push(Source { path, text });
            }
        }
    }
    found
}

fn opening_problem(source: &Source) -> Option<String> {
    let opened = !source.is_rust() || source.text.starts_with("//! ");
    (!opened).then(|| format!("{} does not begin by saying what it is for", source.path))
}

fn length_problem(source: &Source) -> Option<String> {
    if !source.is_rust() || LONG.iter().any(|(path, _)| *path == source.path) {
        return None;
    }
    let lines = source.text.lines().count();
    (lines > LINES_MAX).then(|| format!("{} has {lines} lines", source.path))
}

fn banned_problems(source: &Source) -> Vec<String> {
    let mut problems = Vec::new();
    let everywhere = BANNED_EVERYWHERE
        .iter()
        .map(|(left, right)| (format!("{left}{right}"), "it names a machine"));
    let in_rust = BANNED_IN_RUST
        .iter()
        .map(|(left, right, why)| (format!("{left}{right}"), *why));
    for (word, why) in everywhere.chain(in_rust.filter(|_| source.is_rust())) {
        if let Some(number) = source.text.lines().position(|line| line.contains(&word)) {
            problems.push(format!("{}:{} holds {word}: {why}", source.path, number + 1));
        }
    }
    problems
}

fn sleep_problem(source: &Source) -> Option<String> {
    if !source.is_rust() || SLEEPERS.iter().any(|(path, _)| *path == source.path) {
        return None;
    }
    let words = [
        concat!("sle", "ep("),
        concat!("sleep_", "until("),
        concat!("time::int", "erval("),
    ];
    let line = source
        .test_code()
        .lines()
        .find(|line| words.iter().any(|word| line.contains(word)))?;
    Some(format!("{} sleeps in a test: {}", source.path, line.trim()))
}

fn body_problem(source: &Source) -> Option<String> {
    if !source.is_rust() {
        return None;
    }
    let unbounded =
        |line: &&str| line.contains(concat!(".collect()", ".await")) && !line.contains("Limited::new(");
    let line = source.code().lines().find(unbounded)?;
    Some(format!(
        "{} reads a body without a limit: {}",
        source.path,
        line.trim()
    ))
}

#[test]
fn every_file_begins_by_saying_what_it_is_for() {
    none(&sources().iter().filter_map(opening_problem).collect::<Vec<_>>());
}

#[test]
fn no_file_is_too_long() {
    none(&sources().iter().filter_map(length_problem).collect::<Vec<_>>());
}

#[test]
fn nothing_banned_is_written() {
    none(&sources().iter().flat_map(banned_problems).collect::<Vec<_>>());
}

#[test]
fn tests_wait_for_states_and_not_for_time() {
    none(&sources().iter().filter_map(sleep_problem).collect::<Vec<_>>());
}

#[test]
fn no_body_is_read_without_a_limit() {
    none(&sources().iter().filter_map(body_problem).collect::<Vec<_>>());
}

#[test]
fn excuses_are_for_files_that_are_there() {
    let excused = LONG.iter().chain(&SLEEPERS).map(|(path, _)| *path);
    let gone = excused.filter(|path| !root().join(path).exists());
    none(
        &gone
            .map(|path| format!("{path} is excused but gone"))
            .collect::<Vec<_>>(),
    );
}

fn source(path: &str, text: impl Into<String>) -> Source {
    Source {
        path: path.to_owned(),
        text: text.into(),
    }
}

#[test]
fn a_file_without_an_opening_is_a_problem() {
    assert!(opening_problem(&source("a.rs", "use std::io;\n")).is_some());
    assert!(opening_problem(&source("a.rs", "//! What it is for.\n")).is_none());
    assert!(opening_problem(&source("a.toml", "[package]\n")).is_none());
}

#[test]
fn a_file_that_is_too_long_is_a_problem() {
    assert!(length_problem(&source("a.rs", "a\n".repeat(LINES_MAX))).is_none());
    assert!(length_problem(&source("a.rs", "a\n".repeat(LINES_MAX + 1))).is_some());
    assert!(length_problem(&source("a.lua", "a\n".repeat(LINES_MAX + 1))).is_none());
}

#[test]
fn a_banned_word_is_a_problem() {
    let ignored = concat!("#[ign", "ore]\nfn f() {}\n");
    assert_eq!(banned_problems(&source("a.rs", ignored)).len(), 1);
    assert!(banned_problems(&source("a.md", ignored)).is_empty());
    let path = concat!("see /ho", "me/someone/notes and crates", ".io\n");
    assert_eq!(banned_problems(&source("a.md", path)).len(), 2);
}

#[test]
fn a_sleep_in_a_test_is_a_problem_and_one_in_the_code_is_not() {
    let sleep = concat!("    tokio::time::sle", "ep(second).await;\n");
    assert!(sleep_problem(&source("tests/a.rs", sleep)).is_some());
    assert!(sleep_problem(&source("crates/x/tests/it/a.rs", sleep)).is_some());
    assert!(sleep_problem(&source("crates/x/src/a.rs", sleep)).is_none());
    let foot = format!("fn f() {{}}\n\n#[cfg(test)]\nmod tests {{\n{sleep}}}\n");
    assert!(sleep_problem(&source("crates/x/src/a.rs", foot)).is_some());
    assert!(sleep_problem(&source("crates/testbed/src/poll.rs", sleep)).is_none());
    let foot = format!("#[cfg(test)]\nmod far;\n{sleep}\n#[cfg(test)]\n#[allow(x)]\nmod tests {{\n}}\n");
    assert!(sleep_problem(&source("crates/x/src/a.rs", foot)).is_none());
}

#[test]
fn an_unlimited_body_is_a_problem() {
    let line = concat!("let all = body.collect()", ".await;\n");
    assert!(body_problem(&source("a.rs", line)).is_some());
    let line = concat!("let all = Limited::new(body, MAX).collect()", ".await;\n");
    assert!(body_problem(&source("a.rs", line)).is_none());
}
