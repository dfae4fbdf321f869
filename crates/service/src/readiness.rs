//! What `/readyz` shows: whether a process can do its work, what keeps it from it, and what is worth a note.
//!
//! It decides nothing; who composes a process joins what its parts say.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

/// Says whether the process can do its work now, everything that keeps it from it, and what is worth a note. Called at
/// each `/readyz`; it must not block.
pub type ReadyFn = Arc<dyn Fn() -> Readiness + Send + Sync>;

/// What `/readyz` shows. Several parts of one process add theirs with [`Readiness::merge`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// What keeps the process from its work; it is ready when nothing does.
    pub reasons: Vec<NotReady>,
    /// What an operator should know although the process may be ready.
    pub notes: Vec<Note>,
}

/// One reason not to be ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotReady {
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

/// Something that keeps nobody from work and should be looked at all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// For programs, each beside the code under its own name.
    #[serde(flatten)]
    pub figures: BTreeMap<&'static str, u64>,
}

impl Readiness {
    /// Whether the process can do its work.
    pub fn is_ready(&self) -> bool {
        self.reasons.is_empty()
    }

    /// Both together: ready is who has no reason on either side.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.reasons.extend(other.reasons);
        self.notes.extend(other.notes);
        self
    }
}

impl From<Vec<NotReady>> for Readiness {
    fn from(reasons: Vec<NotReady>) -> Self {
        Self {
            reasons,
            notes: Vec::new(),
        }
    }
}

impl NotReady {
    /// A reason.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}
