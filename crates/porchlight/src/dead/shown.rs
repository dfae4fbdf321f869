//! One dead letter in full, as `dead show` and the control API show it.
//!
//! A body is in it only where it was asked for.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use porchlight_event::queue::DeadLetter;
use serde::{Deserialize, Serialize};

use super::facts::Row;
use crate::output::{Output, date, plain, short};

/// A letter with its headers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Shown {
    #[serde(flatten)]
    row: Row,
    routing_key: String,
    deaths: Vec<ShownDeath>,
    returned: u64,
    headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// A body that is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body_hex: Option<String>,
    /// The body as the control API carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ShownDeath {
    queue: String,
    reason: String,
    count: u64,
    at: Option<i64>,
}

impl Shown {
    /// Without its body.
    pub(super) fn of(letter: &DeadLetter) -> Self {
        let deaths = letter.deaths.iter().map(|death| ShownDeath {
            queue: death.queue.clone(),
            reason: death.reason.clone(),
            count: death.count,
            at: death.at_ms,
        });
        Self {
            row: Row::of(letter),
            routing_key: letter.routing_key.clone(),
            deaths: deaths.collect(),
            returned: letter.delivery_count,
            headers: letter.headers.iter().cloned().collect(),
            body: None,
            body_hex: None,
            body_base64: None,
        }
    }

    /// With its body where that is wanted, for the control API.
    pub(crate) fn in_base64(letter: &DeadLetter, with_body: bool) -> Self {
        Self {
            body_base64: with_body.then(|| STANDARD.encode(&letter.envelope.body)),
            ..Self::of(letter)
        }
    }

    /// With its body as a person reads it.
    #[must_use]
    pub(super) fn with_body(mut self, body: &[u8]) -> Self {
        match std::str::from_utf8(body) {
            Ok(text) => self.body = Some(text.to_owned()),
            Err(_) => self.body_hex = Some(hex(body)),
        }
        self
    }

    /// What the control API gave, as a person reads it.
    #[must_use]
    pub(super) fn out_of_base64(mut self) -> Self {
        match self.body_base64.take().map(|text| STANDARD.decode(text)) {
            Some(Ok(body)) => self.with_body(&body),
            _ => self,
        }
    }

    pub(super) fn print(&self, output: Output) {
        let row = &self.row;
        let line = |name: &str, value: Option<&str>| {
            output.line(format_args!(
                "{name:<12} {}",
                value.map_or_else(|| "-".to_owned(), short)
            ));
        };
        line("id", Some(&row.message_id));
        line("reason", Some(&row.reason));
        line("stage", row.stage.as_deref());
        line("detail", row.detail.as_deref());
        line("died at", Some(&date(row.dead_at)));
        line("origin", Some(&row.origin));
        line("type", row.kind.as_deref());
        line("event id", row.event_id.as_deref());
        line("device", row.device_id.as_deref());
        line("account", row.account_id.as_deref());
        line("replays", Some(&row.replays.to_string()));
        line("body", Some(&format!("{} bytes", row.body_bytes)));
        for death in &self.deaths {
            let ShownDeath {
                queue,
                reason,
                count,
                at,
            } = death;
            line(
                "death",
                Some(&format!(
                    "{reason} in {queue}, {count} times, first {}",
                    date(*at)
                )),
            );
        }
        for (name, value) in &self.headers {
            output.line(format_args!("  {}: {}", short(name), plain(value)));
        }
        if let Some(body) = self.body.as_ref().or(self.body_hex.as_ref()) {
            output.line("");
            for text in body.lines() {
                output.line(plain(text));
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
