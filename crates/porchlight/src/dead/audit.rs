//! The audit of what is done to dead letters: lines of JSON, on standard error or at the end of a file.
//!
//! One line says that an action begins, who does it and to which letters; one says what became of each letter; the last
//! one how it ended. They name letters and show nothing of a body.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::{Value, json};

use super::wire::{Fate, Replayed};
use crate::clock::now_ms;
use crate::failure::Failure;

/// Where audit lines go.
#[derive(clap::Args)]
pub(crate) struct AuditArgs {
    /// Append the audit lines to this file; without one they go to standard error
    #[arg(
        long,
        value_name = "FILE",
        env = "PORCHLIGHT_AUDIT_FILE",
        hide_env_values = true,
        help_heading = "Audit"
    )]
    audit_file: Option<PathBuf>,
}

/// An action that is written down.
pub(super) struct Audit {
    file: Option<File>,
    /// Holds the lines of one action together.
    run: String,
    action: &'static str,
    bar: ProgressBar,
}

#[derive(Serialize)]
struct LetterLine<'a> {
    at: i64,
    run: &'a str,
    action: &'static str,
    message_id: Option<&'a str>,
    reason: Option<&'a str>,
    replays: u32,
    fate: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl AuditArgs {
    /// Writes that `action` begins, with what it is about. Nothing is to be done when that cannot be written.
    pub(super) fn begin(
        &self,
        action: &'static str,
        about: &Value,
        bar: &ProgressBar,
    ) -> Result<Audit, Failure> {
        let path = self
            .audit_file
            .as_ref()
            .filter(|path| !path.as_os_str().is_empty());
        let unwritten = |error: std::io::Error| {
            let path = path.map(|path| path.display().to_string()).unwrap_or_default();
            Failure::usage(format_args!("PORCHLIGHT_AUDIT_FILE (--audit-file) {path}")).because(&error)
        };
        let file = path.map(|path| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(path)
        });
        let mut audit = Audit {
            file: file.transpose().map_err(unwritten)?,
            run: format!("{:08x}", fastrand::u32(..)),
            action,
            bar: bar.clone(),
        };
        let line = json!({
            "at": now_ms(), "run": audit.run, "action": action, "step": "begin", "by": by(), "about": about,
        });
        audit.put(&line).map_err(unwritten)?;
        Ok(audit)
    }
}

impl Audit {
    /// Writes what became of one letter.
    pub(super) fn letter(&mut self, settled: &Replayed) {
        let line = LetterLine {
            at: now_ms(),
            run: &self.run,
            action: self.action,
            message_id: settled.message_id.as_deref(),
            reason: settled.reason.as_deref(),
            replays: settled.replays,
            fate: settled.fate.code(),
            error: match &settled.fate {
                Fate::Kept(error) | Fate::Unusable(error) => Some(error),
                _ => None,
            },
        };
        let text = serde_json::to_string(&line).unwrap_or_default();
        // What is done cannot be taken back because its line cannot be written.
        let _ = self.put_text(&text);
    }

    /// Writes how it ended.
    pub(super) fn end(mut self, outcome: &impl Serialize) {
        let line = json!({
            "at": now_ms(), "run": self.run, "action": self.action, "step": "end", "outcome": outcome,
        });
        let _ = self.put(&line);
        if let Some(file) = &self.file {
            let _ = file.sync_all();
        }
    }

    fn put(&mut self, line: &Value) -> std::io::Result<()> {
        self.put_text(&line.to_string())
    }

    fn put_text(&mut self, line: &str) -> std::io::Result<()> {
        // A file is read in a terminal, too, sooner or later.
        let mut line = crate::output::steerless(line);
        line.push('\n');
        match &mut self.file {
            // In one write, so that two tools on one file do not mix their lines.
            Some(file) => file.write_all(line.as_bytes()),
            None => self.bar.suspend(|| std::io::stderr().write_all(line.as_bytes())),
        }
    }
}

/// Who does it: the user of this process, who became that by sudo, and the machine.
fn by() -> Value {
    let uid = rustix::process::getuid().as_raw();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    json!({
        "user": user_of(uid), "uid": uid, "sudo_user": std::env::var("SUDO_USER").ok(),
        "host": host.trim(), "pid": std::process::id(),
    })
}

/// The name that the system's own list has for it.
fn user_of(uid: u32) -> Option<String> {
    let list = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let fields = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.parse::<u32>().ok()?))
    };
    let found = list.lines().filter_map(fields).find(|(_, number)| *number == uid);
    found.map(|(name, _)| name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_written_with_who_does_it_and_a_file_that_cannot_be_written_stops_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        let bar = ProgressBar::hidden();
        let args = AuditArgs {
            audit_file: Some(path.clone()),
        };
        let mut audit = args.begin("drop", &json!({ "filter": {} }), &bar).unwrap();
        audit.letter(&Replayed {
            message_id: Some("\u{9b}2J\n{\"forged\":1}\u{202e}".to_owned()),
            ..Replayed::gone("7".to_owned())
        });
        audit.end(&json!({ "dropped": 0 }));
        let lines = std::fs::read_to_string(&path).unwrap();
        assert!(lines.is_ascii(), "an id steers no terminal that shows the file");
        let lines: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines
                .iter()
                .all(|line| line["run"] == lines[0]["run"] && line["action"] == "drop")
        );
        assert_eq!(
            (&lines[0]["step"], &lines[1]["fate"], &lines[2]["step"]),
            (&"begin".into(), &"gone".into(), &"end".into())
        );
        assert_eq!(lines[0]["by"]["uid"], rustix::process::getuid().as_raw());
        let nowhere = AuditArgs {
            audit_file: Some(folder.path().to_owned()),
        };
        assert!(nowhere.begin("drop", &Value::Null, &bar).is_err());
    }
}
