//! Alert rules, dashboards and the page for whoever is on call: held to each other, and to daemons that really run.
//!
//! What each alert does at which figures is tested by promtool, in the files beside the rules.

mod dashboards;
mod live;
mod promql;
mod rules;
mod runbook;

use std::path::{Path, PathBuf};

/// Something in the folder `deploy`.
fn deploy(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("tests/ lies in the workspace")
        .join("deploy")
        .join(path)
}

fn read(path: &str) -> String {
    let path = deploy(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails with every problem at once.
#[track_caller]
fn none(problems: &[String]) {
    assert!(
        problems.is_empty(),
        "{} problems:\n  {}",
        problems.len(),
        problems.join("\n  ")
    );
}
