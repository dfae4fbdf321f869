//! Asks a node through its own Erlang shell: an expression goes in on standard input, the answer comes as a file.
//!
//! It knows the protocol, not the questions. Each expression runs in a process of its own inside the node, so one
//! that waits does not hold up the next.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::control::ControlError;
use crate::poll::wait_for;
use crate::process::Process;

/// How long a question may take: a loaded node with two schedulers answers slowly, but it does answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// Returns when the node has started all it starts.
pub(super) const AWAIT_BOOT: &str = "(fun Wait() -> case catch rabbit_boot_state:get() of \
     ready -> []; _ -> timer:sleep(10), Wait() end end)()";

/// Writes to disk which queues there are. RabbitMQ does so every half second.
const SYNC_DECLARATIONS: &str = "[dets:sync(Table) || Table <- dets:all()], []";
/// How long that may take before it is given up: a slow disk takes its time, and without it a queue is missing afterwards.
const SYNC_PATIENCE: Duration = Duration::from_secs(15);
const SYNC_PAUSE: Duration = Duration::from_millis(1);

/// The way to one node, across its restarts.
#[derive(Debug)]
pub(super) struct Shell {
    folder: PathBuf,
    count: AtomicU32,
}

/// An answer on its way.
pub(super) struct Answer {
    path: PathBuf,
    /// Why the question was not even asked.
    unasked: Option<String>,
}

impl Shell {
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            count: AtomicU32::new(0),
        }
    }

    /// Evaluates an expression whose value is text (an Erlang iolist) and returns that text.
    pub(super) async fn ask(&self, process: &Process, expression: &str) -> Result<String, ControlError> {
        let answer = self.begin(process, expression);
        let what = format!("the node's answer to {expression}");
        let seen = wait_for(&what, ANSWER_PATIENCE, async || match process.exit_status() {
            Some(status) => Ok(Err(format!("the node ended with {status}"))),
            None => answer.poll(),
        });
        seen.await?.map_err(ControlError::Refused)
    }

    /// Makes sure that the queues declared so far survive a crash, as those of a broker older than a second do.
    /// It blocks, for some milliseconds: a crash happens between two steps of a test, not beside them.
    pub(super) fn sync_declarations(&self, process: &Process) {
        let answer = self.begin(process, SYNC_DECLARATIONS);
        let deadline = Instant::now() + SYNC_PATIENCE;
        // A node that has ended by itself answers nothing any more.
        while answer.poll().is_err() && process.exit_status().is_none() && Instant::now() < deadline {
            #[expect(
                clippy::disallowed_methods,
                reason = "the crash must come before the test's next step"
            )]
            std::thread::sleep(SYNC_PAUSE);
        }
    }

    /// Sends an expression without waiting.
    pub(super) fn begin(&self, process: &Process, expression: &str) -> Answer {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("answer-{number}"));
        let unfinished = string(&format!("{}.part", path.display()));
        let finished = string(&path.display().to_string());
        // Renamed when whole, so that no half an answer is read.
        let line = format!(
            "spawn(fun() -> Answer = try [$+, begin {expression} end] \
             catch Class:Reason -> [$-, io_lib:format(\"~0p:~0p\", [Class, Reason])] end, \
             ok = file:write_file({unfinished}, unicode:characters_to_binary(Answer)), \
             ok = file:rename({unfinished}, {finished}) end).\n"
        );
        let unasked = process
            .write(&line)
            .err()
            .map(|error| format!("the node's shell is closed: {error}"));
        Answer { path, unasked }
    }
}

impl Answer {
    /// The answer, if it is there: the text, or what went wrong in the node.
    pub(super) fn poll(&self) -> Result<Result<String, String>, String> {
        if let Some(reason) = &self.unasked {
            return Ok(Err(reason.clone()));
        }
        let text = std::fs::read_to_string(&self.path).map_err(|_| "no answer yet".to_owned())?;
        // Read once; a folder of answers is of no use to anyone.
        let _ = std::fs::remove_file(&self.path);
        match text.split_at_checked(1) {
            Some(("+", value)) => Ok(Ok(value.to_owned())),
            Some((_, reason)) => Ok(Err(reason.to_owned())),
            None => Ok(Err("an empty answer".to_owned())),
        }
    }
}

/// An Erlang binary with these bytes, whatever they are.
pub(super) fn binary(text: &str) -> String {
    format!("<<{}>>", bytes(text))
}

/// An Erlang string with these bytes.
fn string(text: &str) -> String {
    format!("[{}]", bytes(text))
}

fn bytes(text: &str) -> String {
    let numbers: Vec<String> = text.bytes().map(|byte| byte.to_string()).collect();
    numbers.join(",")
}
