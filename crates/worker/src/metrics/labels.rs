//! The labels of the worker's metrics, each from a closed set, so that nobody outside can make new series.
//!
//! It counts nothing.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// A label whose values are all known when the program is built, or are Ring's own type names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Word(pub(super) &'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct EventLabels {
    pub(super) r#type: Word,
    pub(super) outcome: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DeadLabels {
    pub(super) reason: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CommandLabels {
    pub(super) action: Word,
    pub(super) result: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CallLabels {
    pub(super) call: Word,
    pub(super) status: u16,
}

/// What became of one try to send a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommandResult {
    /// Delivered, and the ledger knows it.
    Sent,
    /// Delivered, but the ledger could not be told: it will be sent again under the same identity.
    Unnoted,
    /// Not known to be delivered: the sweeper tries again.
    Failed,
    /// Left to the sweeper: too many were waiting, or its receiver is left alone for a while.
    Left,
    /// Let go of, because the same or a newer one of its operation was in hand.
    Overtaken,
    /// Failed for so long that it is among the dead letters now, and owed no longer.
    GivenUp,
}

impl CommandResult {
    pub(super) const ALL: [Self; 6] = [
        Self::Sent,
        Self::Unnoted,
        Self::Failed,
        Self::Left,
        Self::Overtaken,
        Self::GivenUp,
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Unnoted => "unnoted",
            Self::Failed => "failed",
            Self::Left => "left",
            Self::Overtaken => "overtaken",
            Self::GivenUp => "given_up",
        }
    }
}

/// Every type with a label of its own.
pub(super) const TYPES: [&str; 10] = [
    "device_online",
    "device_offline",
    "device_added",
    "device_removed",
    "motion_detected",
    "button_press",
    "app_integration_added",
    "app_integration_removed",
    "subscription_activated",
    "subscription_deactivated",
];
/// The label of a type that is not known.
pub(super) const OTHER: &str = "other";
/// The label of what was no event.
const NO_TYPE: &str = "none";
/// What a settled event can have become, besides dead.
const OUTCOMES: [&str; 6] = ["applied", "duplicate", "stale", "refused", "recorded", "later"];
/// The outcome of an event that is among the dead letters.
const DEAD: &str = "dead";
/// Why a worker dead-letters.
pub(super) const REASONS: [&str; 11] = [
    "not_json",
    "wrong_shape",
    "no_type",
    "no_id",
    "no_device",
    "no_account",
    "future",
    "bad_signature",
    "ledger_refused",
    "panic",
    "callback_gave_up",
];
/// What a command says.
pub(super) const ACTIONS: [&str; 3] = ["pause", "resume", "cancel"];

/// Every pair of type and outcome that can occur.
pub(super) fn settlements() -> impl Iterator<Item = (&'static str, &'static str)> {
    let types = TYPES.into_iter().chain([OTHER]);
    let pairs = types.flat_map(|kind| {
        OUTCOMES
            .into_iter()
            .chain([DEAD])
            .map(move |outcome| (kind, outcome))
    });
    pairs.chain([(NO_TYPE, DEAD)])
}

/// A type's label: Ring's own names as they are, `other` for all to come, so that no sender can make labels.
pub(crate) fn type_label(event_type: &str) -> &'static str {
    TYPES
        .into_iter()
        .find(|known| *known == event_type)
        .unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use porchlight_device::Outcome;
    use porchlight_event::EventType;

    #[test]
    fn every_documented_type_has_its_own_label() {
        for known in EventType::KNOWN {
            assert_eq!(type_label(known.as_str()), known.label());
        }
        assert_eq!(type_label("device_onlin"), "other");
    }

    #[test]
    fn every_reason_that_a_page_asks_for_is_one() {
        let pages = [
            include_str!("../../../../README.md"),
            include_str!("../../../../deploy/OPERATING.md"),
        ];
        let asked: Vec<&str> = pages
            .iter()
            .flat_map(|page| page.split("--reason").skip(1))
            .map(|rest| {
                let rest = rest.trim_start();
                let end = rest.find(|c: char| c != '_' && !c.is_ascii_lowercase());
                &rest[..end.unwrap_or(rest.len())]
            })
            .filter(|reason| !reason.is_empty())
            .collect();
        assert!(asked.contains(&"future"), "{asked:?}");
        for reason in asked {
            // The only one of the broker's own.
            assert!(
                REASONS.contains(&reason) || reason == "delivery_limit",
                "{reason}"
            );
        }
    }

    #[test]
    fn every_outcome_is_among_those_that_are_shown_from_the_start() {
        for outcome in Outcome::ALL {
            assert!(
                settlements().any(|(_, word)| word == outcome.code()),
                "{outcome:?}"
            );
        }
    }
}
