//! The rules of the house, held by a machine: walls between crates, licences, the shape of files, the top of the tree.
//!
//! Each rule is a function from what it looks at to a list of problems, and is itself tested on something wrong.
//! Nothing here needs a server.

mod licences;
mod sources;
mod tree;
mod walls;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace")
        .to_owned()
}

/// What cargo knows of the workspace and everything it depends on, on this platform.
fn metadata() -> &'static Value {
    static METADATA: OnceLock<Value> = OnceLock::new();
    METADATA.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let mut command = Command::new(cargo);
        command.args(["metadata", "--offline", "--locked", "--format-version", "1"]);
        command
            .args(["--filter-platform", platform.as_str()])
            .current_dir(root());
        let output = command.output().expect("cargo can be run");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).expect("cargo speaks JSON")
    })
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
