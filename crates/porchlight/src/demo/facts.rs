//! What the demo saw: each request with its answer, what became of it, and the commands that came of it.
//!
//! It judges nothing. The JSON of `demo --json` is made of these.

use serde::Serialize;

/// Everything that was seen.
#[derive(Debug, Default, Serialize)]
pub(super) struct Facts {
    pub(super) scenes: Vec<SceneFacts>,
    /// How many events the worker settled, in all its lives together.
    pub(super) settled: u64,
    /// Commands under identities that no request of the story leads to.
    pub(super) strange_commands: Vec<CommandFacts>,
}

/// One scene.
#[derive(Debug, Default, Serialize)]
pub(super) struct SceneFacts {
    pub(super) name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) device_id: Option<String>,
    pub(super) steps: Vec<StepFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) end: Option<EndFacts>,
    /// What is not as it must be, in words.
    pub(super) differences: Vec<String>,
}

/// One thing that happened.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StepFacts {
    /// A request.
    Request(RequestFacts),
    /// Something else, in words.
    Note(&'static str),
}

/// One request and what came of it.
#[derive(Debug, Default, Serialize)]
pub(super) struct RequestFacts {
    /// Before (`-`) or after (`+`) the demo's start, in minutes and seconds.
    pub(super) happened: String,
    pub(super) sent: &'static str,
    /// The answer's status; `None` without an answer.
    pub(super) status: Option<u16>,
    pub(super) latency_ms: f64,
    /// A ledger's outcome, or `not_stored`, `later`, `dead`.
    pub(super) outcome: String,
    pub(super) reason: String,
    pub(super) commands: Vec<CommandFacts>,
}

/// One command, as the receiver knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct CommandFacts {
    pub(super) id: String,
    pub(super) action: String,
    pub(super) device_id: String,
    pub(super) operation: String,
    pub(super) generation: u64,
    /// How often it came and was refused, because the receiver was busy.
    pub(super) refused: u32,
    /// How often it came and was taken.
    pub(super) taken: u32,
    /// Whether the signature was right each time, and the body and the headers told of the same command.
    pub(super) verified: bool,
}

/// How a device stood at the end of its scene.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct EndFacts {
    pub(super) status: String,
    pub(super) operation: String,
    pub(super) state: String,
    pub(super) generation: u64,
}

impl Facts {
    /// Every request.
    pub(super) fn requests(&self) -> impl Iterator<Item = &RequestFacts> {
        let steps = self.scenes.iter().flat_map(|scene| &scene.steps);
        steps.filter_map(|step| match step {
            StepFacts::Request(request) => Some(request),
            StepFacts::Note(_) => None,
        })
    }

    /// Every command that a request led to.
    pub(super) fn commands(&self) -> impl Iterator<Item = &CommandFacts> {
        self.requests().flat_map(|request| &request.commands)
    }

    /// How many requests had this outcome.
    pub(super) fn count(&self, outcome: &str) -> usize {
        self.requests()
            .filter(|request| request.outcome == outcome)
            .count()
    }

    /// How many requests were answered with this status.
    pub(super) fn answered(&self, status: u16) -> usize {
        self.requests()
            .filter(|request| request.status == Some(status))
            .count()
    }

    /// How many things are not as they must be.
    pub(super) fn wrong(&self) -> usize {
        self.scenes.iter().map(|scene| scene.differences.len()).sum()
    }

    /// The slowest answer, in milliseconds.
    pub(super) fn slowest_ms(&self) -> f64 {
        self.requests()
            .map(|request| request.latency_ms)
            .fold(0.0, f64::max)
    }
}
