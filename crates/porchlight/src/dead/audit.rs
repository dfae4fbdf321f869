//! The audit of a replay: one line of JSON for each letter, on standard error or in a file.
//!
//! It names a letter and what became of it, and shows nothing of its body.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use indicatif::ProgressBar;
use serde::Serialize;

use super::wire::{Fate, Replayed};
use crate::clock::now_ms;
use crate::failure::Failure;

/// Where audit lines go.
pub(super) enum Audit {
    Stderr,
    File(File),
}

#[derive(Serialize)]
struct AuditLine<'a> {
    at: i64,
    message_id: Option<&'a str>,
    reason: Option<&'a str>,
    replays: u32,
    fate: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl Audit {
    /// Standard error, or the end of this file.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self::Stderr);
        };
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.map(Self::File)
            .map_err(|error| Failure::usage(format_args!("--audit-file {}", path.display())).because(&error))
    }

    /// Writes what became of one letter.
    pub(super) fn write(&mut self, bar: &ProgressBar, settled: &Replayed) {
        let line = AuditLine {
            at: now_ms(),
            message_id: settled.message_id.as_deref(),
            reason: settled.reason.as_deref(),
            replays: settled.replays,
            fate: settled.fate.code(),
            error: match &settled.fate {
                Fate::Kept(error) => Some(error),
                _ => None,
            },
        };
        let line = serde_json::to_string(&line).unwrap_or_default();
        // A replay that is confirmed cannot be taken back because its line cannot be written.
        let _ = match self {
            Self::File(file) => writeln!(file, "{line}"),
            Self::Stderr => bar.suspend(|| writeln!(std::io::stderr(), "{line}")),
        };
    }
}
