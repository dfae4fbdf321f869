//! What `status` says of a ledger: commands owed, devices by status, and what is dangerous in its set-up.
//!
//! The same for every ledger.

use std::collections::BTreeMap;
use std::time::Duration;

use porchlight_device::ledger::Backlog;
use porchlight_ledger::Ledger;
use serde::{Deserialize, Serialize};

use crate::clock::now_ms;
use crate::failure::chain;
use crate::output::{Output, plain, span};

/// A command is owed for seconds; after this long somebody should look.
const OWED_MAX: Duration = Duration::from_secs(60);

/// The state of a ledger.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct LedgerState {
    pub(super) commands_owed: u64,
    pub(super) oldest_owed_seconds: Option<u64>,
    pub(super) accounts_to_tell: u64,
    pub(super) devices: BTreeMap<String, u64>,
    /// What is dangerous in the server's own settings.
    pub(super) warnings: Vec<String>,
}

impl LedgerState {
    /// Asks. The error is one line for a person.
    pub(super) async fn ask(ledger: &Ledger) -> Result<Self, String> {
        let Backlog {
            commands,
            oldest_ms,
            accounts_to_tell,
        } = ledger.backlog().await.map_err(|error| chain(&error))?;
        let counts = ledger.counts().await.map_err(|error| chain(&error))?;
        // A server may deny the question about itself; that says nothing about the ledger.
        let warnings = ledger.warnings().await.unwrap_or_default();
        Ok(Self {
            commands_owed: commands,
            oldest_owed_seconds: oldest_ms.map(age_seconds),
            accounts_to_tell,
            devices: counts
                .into_iter()
                .map(|(status, count)| (status.code().to_owned(), count))
                .collect(),
            warnings: warnings.into_iter().map(str::to_owned).collect(),
        })
    }

    /// What somebody should look at; `nobody_sends` says why a command may stay owed.
    pub(super) fn attention(&self, nobody_sends: &str, found: &mut Vec<String>) {
        found.extend(self.warnings.iter().cloned());
        let age = self
            .oldest_owed_seconds
            .map(Duration::from_secs)
            .filter(|age| *age > OWED_MAX);
        if let Some(age) = age {
            found.push(format!(
                "a command is owed for {}: {nobody_sends}, or a device must settle",
                span(age)
            ));
        }
    }

    pub(super) fn print(&self, output: Output) {
        let age = self
            .oldest_owed_seconds
            .map(|age| format!(", the oldest for {}", span(Duration::from_secs(age))));
        output.line(format_args!(
            "  commands owed      {}{}",
            self.commands_owed,
            age.unwrap_or_default()
        ));
        output.line(format_args!("  accounts to tell   {}", self.accounts_to_tell));
        let devices: Vec<_> = self
            .devices
            .iter()
            .map(|(status, count)| format!("{count} {}", plain(status)))
            .collect();
        output.line(format_args!("  devices            {}", devices.join(", ")));
    }
}

/// Whole seconds since a time in milliseconds; 0 for one to come.
pub(super) fn age_seconds(at_ms: i64) -> u64 {
    now_ms().saturating_sub(at_ms).max(0).unsigned_abs() / 1_000
}
