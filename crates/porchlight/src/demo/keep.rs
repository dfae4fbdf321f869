//! `demo --keep`: leaves the demo running, says how to look at it with the tool, and shows commands as they come.
//!
//! What it prints works as it stands, in any shell of this user on this machine.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::facts::CommandFacts;
use super::paint::{Paint, Tone};
use super::stage::Stage;
use crate::failure::Failure;
use crate::output::{Output, short};

/// Between two looks for new commands.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A device of the story that is online and has an operation.
const DEVICE: &str = "ava1.ring.device.front-door";
/// Its account; an event of another one would move it there.
const ACCOUNT: &str = "ava1.ring.account.home";

/// Where a program finds what runs.
#[derive(Serialize)]
pub(super) struct Running {
    webhook_url: String,
    admin_url: String,
    data_dir: PathBuf,
    /// To be read by a shell; it sets what the tool needs.
    env_file: PathBuf,
}

impl Running {
    /// What runs on this stage.
    pub(super) fn of(stage: &Stage) -> Self {
        Self {
            webhook_url: stage.webhook_url(),
            admin_url: stage.admin_url(),
            data_dir: stage.data_dir(),
            env_file: env_file(stage),
        }
    }
}

/// Stays until `stop`.
pub(super) async fn keep(
    stage: &Stage,
    output: Output,
    paint: Paint,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    write_env(stage).map_err(|error| Failure::failed("the demo's settings").because(&error))?;
    let mut seen = count(&stage.receiver.commands());
    super::tell(output, || invitation(&env_file(stage), paint));
    loop {
        let waited = stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await;
        let commands = stage.receiver.commands();
        if count(&commands) != seen && !output.is_json() {
            for command in commands.iter().skip(seen) {
                output.line(told(command, paint));
            }
        }
        seen = count(&commands);
        if waited.is_none() {
            return Ok(());
        }
    }
}

fn count(commands: &[CommandFacts]) -> usize {
    commands.len()
}

fn told(command: &CommandFacts, paint: Paint) -> String {
    let text = format!(
        "{} {} {}, generation {}",
        paint.arrow(),
        short(&command.action),
        short(&command.operation),
        command.generation
    );
    format!(
        "  {}  of {}",
        paint.tone(Tone::Command, &text),
        short(&command.device_id)
    )
}

fn invitation(env: &Path, paint: Paint) -> Vec<String> {
    let mut lines = vec![
        paint.tone(Tone::Strong, "It stays until Ctrl-C. In a second terminal:"),
        String::new(),
    ];
    lines.push(format!("    . {}", env.display()));
    for command in commands() {
        lines.push(format!("    {command}"));
    }
    lines.push(String::new());
    lines.push("Commands that the receiver gets from now on:".to_owned());
    lines
}

/// What to try, in this order. Each works as it stands.
fn commands() -> Vec<String> {
    vec![
        "porchlight status".to_owned(),
        format!("porchlight devices show {DEVICE}"),
        "porchlight simulate --type device_offline \\".to_owned(),
        format!("    --device {DEVICE} --account {ACCOUNT}"),
        "porchlight simulate --type device_online --duplicates 5 \\".to_owned(),
        format!("    --device {DEVICE} --account {ACCOUNT}"),
        format!("porchlight operations list {DEVICE}"),
        "porchlight devices list".to_owned(),
        "porchlight dead list".to_owned(),
        "curl -H \"Authorization: Bearer $PORCHLIGHT_ADMIN_TOKEN\" \\".to_owned(),
        format!("    $DEMO_ADMIN_URL/v1/devices/{DEVICE}"),
        "curl $DEMO_ADMIN_URL/metrics".to_owned(),
    ]
}

fn env_file(stage: &Stage) -> PathBuf {
    stage.directory().join("env")
}

/// For the owner alone: it holds the demo's secrets.
fn write_env(stage: &Stage) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(env_file(stage))?;
    let tool = std::env::current_exe()?;
    let folder = tool.parent().unwrap_or(Path::new("."));
    let settings = [
        ("PORCHLIGHT_DATA_DIR", stage.data_dir().display().to_string()),
        ("PORCHLIGHT_URL", stage.webhook_url()),
        ("PORCHLIGHT_SIGNING_KEYS", stage.secrets.signing_keys()),
        (
            "PORCHLIGHT_ADMIN_TOKEN",
            stage.secrets.admin_token.expose().to_owned(),
        ),
        ("DEMO_ADMIN_URL", stage.admin_url()),
    ];
    let mut text = format!(
        "export PATH={}:\"$PATH\"\n",
        quoted(&folder.display().to_string())
    );
    for (name, value) in settings {
        text.push_str(&format!("export {name}={}\n", quoted(&value)));
    }
    file.write_all(text.as_bytes())
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// How this program was called, as far as a person would type it.
pub(super) fn invocation() -> &'static str {
    match (std::env::var_os("CARGO").is_some(), cfg!(debug_assertions)) {
        (true, false) => "cargo run --release --",
        (true, true) => "cargo run --",
        (false, _) => "porchlight",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_word_whatever_is_in_it() {
        assert_eq!(quoted("a b'c$"), r"'a b'\''c$'");
    }

    #[test]
    fn what_is_printed_to_be_pasted_fits_a_narrow_terminal() {
        for command in commands() {
            assert!(command.len() + 4 <= super::super::show::WIDTH, "{command}");
        }
    }
}
