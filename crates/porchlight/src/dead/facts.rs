//! What a dead letter is about, read from its body as far as that can be read.
//!
//! A body that is no event has no facts; it is still listed, shown and replayed.

use porchlight_event::RingEvent;
use porchlight_event::queue::{DeadLetter, Origin};
use serde::{Deserialize, Serialize};

/// What a letter is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Facts {
    /// The event's type; for a command `command <action>`.
    kind: Option<String>,
    /// The event's own id; for a command the operation's.
    event_id: Option<String>,
    /// Every device it names.
    devices: Vec<String>,
    /// The account.
    account: Option<String>,
}

/// One letter as it is listed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) message_id: String,
    /// What it was: `event`, `command`, or `callback` for a command that no receiver took.
    pub(crate) origin: String,
    pub(crate) reason: String,
    pub(crate) stage: Option<String>,
    pub(crate) detail: Option<String>,
    /// In milliseconds since the epoch.
    pub(crate) dead_at: Option<i64>,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) event_id: Option<String>,
    pub(crate) device_id: Option<String>,
    /// Every device it names, the first included.
    pub(crate) device_ids: Vec<String>,
    pub(crate) account_id: Option<String>,
    pub(crate) body_bytes: usize,
    pub(crate) replays: u32,
    /// Whether the text that was looked for is in its body; absent where none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) has_text: Option<bool>,
}

#[derive(Deserialize)]
struct CommandBody {
    action: String,
    device_id: String,
    account_id: Option<String>,
    operation: CommandOperation,
}

#[derive(Deserialize)]
struct CommandOperation {
    id: String,
}

impl Facts {
    fn of(letter: &DeadLetter) -> Self {
        let body = &letter.envelope.body;
        match letter.origin {
            Origin::Event => RingEvent::parse(body).map(Self::of_event).unwrap_or_default(),
            Origin::Command | Origin::Callback => serde_json::from_slice(body)
                .map(Self::of_command)
                .unwrap_or_default(),
        }
    }

    fn of_event(event: RingEvent) -> Self {
        let about_account = event.source_type.as_deref() == Some("users");
        let (mut devices, mut account) = (event.related_devices, event.account_id);
        match event.source {
            Some(source) if about_account => account = account.or(Some(source)),
            Some(source)
                if event.source_type.as_deref() != Some("subscriptions") && source != "subscriptions" =>
            {
                devices.insert(0, source);
            }
            _ => {}
        }
        Self {
            kind: Some(event.event_type.as_str().to_owned()),
            event_id: Some(event.event_id),
            devices,
            account,
        }
    }

    fn of_command(command: CommandBody) -> Self {
        Self {
            kind: Some(format!("command {}", command.action)),
            event_id: Some(command.operation.id),
            devices: vec![command.device_id],
            account: command.account_id,
        }
    }
}

impl Row {
    /// The row of a letter.
    pub(crate) fn of(letter: &DeadLetter) -> Self {
        let facts = Facts::of(letter);
        Self {
            message_id: letter.envelope.message_id.clone(),
            origin: letter.origin.as_str().to_owned(),
            reason: letter.reason.clone(),
            stage: letter.stage.clone(),
            detail: letter.detail.clone(),
            dead_at: letter.dead_at_ms,
            kind: facts.kind,
            event_id: facts.event_id,
            device_id: facts.devices.first().cloned(),
            device_ids: facts.devices,
            account_id: facts.account,
            body_bytes: letter.envelope.body.len(),
            replays: letter.envelope.replay,
            has_text: None,
        }
    }

    /// The same, after a look for `text` in the body, byte for byte.
    pub(crate) fn looked_at(letter: &DeadLetter, text: Option<&str>) -> Self {
        let body = &letter.envelope.body;
        let holds = |text: &str| {
            body.windows(text.len().max(1))
                .any(|part| part == text.as_bytes())
        };
        Self {
            has_text: text.map(holds),
            ..Self::of(letter)
        }
    }

    /// How long its texts are together, in bytes.
    pub(crate) fn text_bytes(&self) -> usize {
        let own = [
            &self.stage,
            &self.detail,
            &self.kind,
            &self.event_id,
            &self.device_id,
            &self.account_id,
        ];
        let own = own.into_iter().flatten().map(String::len).sum::<usize>();
        own + self.message_id.len()
            + self.reason.len()
            + self.device_ids.iter().map(String::len).sum::<usize>()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use porchlight_event::sample::SAMPLES;

    #[test]
    fn every_sample_names_its_account_or_its_devices() {
        for (file, body) in SAMPLES {
            let facts = Facts::of_event(RingEvent::parse(body.as_bytes()).unwrap());
            assert_eq!(format!("{}.json", facts.kind.unwrap()), file);
            assert!(facts.account.is_some(), "{file}");
            let expected = match file {
                "app_integration_added.json" | "app_integration_removed.json" => 0,
                "subscription_activated.json" | "subscription_deactivated.json" => 2,
                _ => 1,
            };
            assert_eq!(facts.devices.len(), expected, "{file}");
        }
    }

    #[test]
    fn a_command_names_its_device() {
        let body =
            br#"{"id":"x","action":"resume","device_id":"d","account_id":null,"operation":{"id":"o"}}"#;
        let facts = Facts::of_command(serde_json::from_slice(body).unwrap());
        assert_eq!(
            (facts.kind.as_deref(), facts.devices[0].as_str()),
            (Some("command resume"), "d")
        );
    }
}
