//! One child process: started through the keeper, signalled, waited for, and killed when it is dropped.
//!
//! It does not know what the process is. Output goes to files, never to the terminal of the test run.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::directory::tail;
use crate::poll::{WaitError, wait_for};
use crate::{directory, keeper};

/// Lines of a log that go into an error.
const TAIL_LINES: usize = 20;
/// How long a process may take to stand still once it was told to stop.
const FREEZE_PATIENCE: Duration = Duration::from_secs(10);
const FREEZE_PAUSE: Duration = Duration::from_millis(1);

/// Why a server or daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program is not installed, or the machine refuses to run it.
    #[error("cannot run {program}; on Debian it is in the package {package}")]
    NotRunnable {
        /// The program.
        program: String,
        /// Where it is found.
        package: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Its directory or configuration could not be written.
    #[error("cannot write the files of {program}")]
    Files {
        /// The program.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("{program} ended with {status} before it was ready; its log ends:\n{log}")]
    Died {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// It did not become ready in time.
    #[error("{program} is not ready; its log ends:\n{log}")]
    NotReady {
        /// The program.
        program: String,
        /// The end of its log.
        log: String,
        /// What was seen last.
        #[source]
        source: WaitError,
    },
    /// Our own binary could not be built.
    #[error("cannot build the binary {binary}:\n{output}")]
    NotBuilt {
        /// Its name.
        binary: String,
        /// The end of the compiler's output.
        output: String,
    },
}

/// The signals tests send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Asks for a graceful stop.
    Terminate,
    /// What Ctrl-C sends.
    Interrupt,
    /// Asks to read settings again.
    HangUp,
    /// Freezes the process; it keeps its sockets and answers nothing.
    Stop,
    /// Thaws it.
    Continue,
    /// Ends it at once.
    Kill,
}

/// A running (or ended) child.
#[derive(Debug)]
pub(crate) struct Process {
    program: String,
    child: Mutex<Child>,
    stdin: Mutex<Option<ChildStdin>>,
    pid: u32,
    log: PathBuf,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Terminate => "TERM",
            Self::Interrupt => "INT",
            Self::HangUp => "HUP",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
            Self::Kill => "KILL",
        }
    }
}

impl Process {
    /// Starts `command`, with its output appended to `log`.
    pub(crate) fn start(program: &str, mut command: Command, log: PathBuf) -> Result<Self, StartError> {
        let files = |source| StartError::Files {
            program: program.to_owned(),
            source,
        };
        let output = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(files)?;
        let errors = output.try_clone().map_err(files)?;
        command.stdin(Stdio::piped()).stdout(output).stderr(errors);
        Self::spawn(program, command, log)
    }

    /// Starts `command` with the input and output that it has been given already.
    pub(crate) fn spawn(program: &str, command: Command, log: PathBuf) -> Result<Self, StartError> {
        // What is started is setpriv; a missing program behind it shows as an early death with the reason in the log.
        let not_runnable = |source| StartError::NotRunnable {
            program: "setpriv".to_owned(),
            package: "util-linux",
            source,
        };
        let mut child = keeper::spawn(command).map_err(not_runnable)?;
        let stdin = Mutex::new(child.stdin.take());
        let pid = child.id();
        Ok(Self {
            program: program.to_owned(),
            child: Mutex::new(child),
            stdin,
            pid,
            log,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Writes to the child's standard input.
    pub(crate) fn write(&self, text: &str) -> io::Result<()> {
        let mut stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        let pipe = stdin
            .as_mut()
            .ok_or_else(|| io::Error::other("standard input is closed"))?;
        io::Write::write_all(pipe, text.as_bytes())
    }

    /// How it ended, if it has.
    pub(crate) fn exit_status(&self) -> Option<ExitStatus> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // A child that cannot be waited for has been reaped already, which nobody but us does.
        child.try_wait().unwrap_or_else(|_| Some(ExitStatus::from_raw(0)))
    }

    /// Sends a signal; a process that has ended is left alone. One that is to stop has stopped when this returns.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.exit_status().is_some() {
            return Ok(());
        }
        send(signal, &self.pid.to_string())?;
        if signal == Signal::Stop {
            self.wait_until_frozen();
        }
        Ok(())
    }

    /// The kernel tells one thread, and that tells the others when it comes to run: until then they go on answering.
    fn wait_until_frozen(&self) {
        let deadline = Instant::now() + FREEZE_PATIENCE;
        while !is_frozen(self.pid) && self.exit_status().is_none() && Instant::now() < deadline {
            #[expect(
                clippy::disallowed_methods,
                reason = "the test's next step must not meet a thread that still runs"
            )]
            std::thread::sleep(FREEZE_PAUSE);
        }
    }

    /// SIGKILL, and waits until the kernel has taken it away.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // Both fail only for a child that is gone.
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn wait(&self, patience: Duration) -> Result<ExitStatus, WaitError> {
        let what = format!("{} to end", self.program);
        wait_for(&what, patience, async || {
            self.exit_status().ok_or_else(|| "still running".to_owned())
        })
        .await
    }

    /// Waits until `look` succeeds, but not longer than the process lives.
    pub(crate) async fn wait_ready<T>(
        &self,
        patience: Duration,
        mut look: impl AsyncFnMut() -> Result<T, String>,
    ) -> Result<T, StartError> {
        let what = format!("{} to be ready", self.program);
        let seen = wait_for(&what, patience, async || match self.exit_status() {
            Some(status) => Ok(Err(status)),
            None => look().await.map(Ok),
        });
        match seen.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(status)) => Err(StartError::Died {
                program: self.program.clone(),
                status,
                log: self.log_tail(),
            }),
            Err(source) => Err(StartError::NotReady {
                program: self.program.clone(),
                log: self.log_tail(),
                source,
            }),
        }
    }

    fn log_tail(&self) -> String {
        tail(&self.log, TAIL_LINES)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether every thread of the process stands still.
fn is_frozen(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    // The state follows the name, which is in parentheses and may hold any character. A thread that has ended is no obstacle.
    let stands = |stat: String| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with(['T', 't', 'Z', 'X']))
    };
    threads
        .flatten()
        .all(|thread| std::fs::read_to_string(thread.path().join("stat")).map_or(true, stands))
}

/// Sends a signal to the process of this number.
pub(crate) fn send(signal: Signal, pid: &str) -> io::Result<()> {
    // Safe Rust has no call for this; every Debian has a shell.
    let script = r#"kill -s "$1" "$2""#;
    let sent = Command::new("sh")
        .args(["-c", script, "sh", signal.name(), pid])
        .status()?;
    if sent.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("kill ended with {sent}")))
    }
}

/// Writes `content` to `path` for `program`.
pub(crate) fn write_file(program: &str, path: &std::path::Path, content: &str) -> Result<(), StartError> {
    std::fs::write(path, content).map_err(|source| StartError::Files {
        program: program.to_owned(),
        source,
    })
}

/// A fresh folder for `program`.
pub(crate) fn folder(program: &str) -> Result<directory::Directory, StartError> {
    directory::Directory::new(program).map_err(|source| StartError::Files {
        program: program.to_owned(),
        source,
    })
}
