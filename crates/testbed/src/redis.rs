//! A private Redis server: own port, own directory; killed, frozen, filled and restarted at will.
//!
//! There is no shared one: a server starts in some 50 ms, and a test that owns it may do anything to it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use crate::resp::Reply;

use crate::directory::Directory;
use crate::keeper::mortal;
use crate::poll::WaitError;
use crate::ports::free_port;
use crate::process::{Process, Signal, StartError, folder};
use crate::resp::ask;

/// How long a server may take to start, with the data of a long test to load.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// How long an orderly stop may take.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// When the append-only file is synced to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before each reply: what was answered survives a kill.
    Always,
    /// Once a second: a second of answers may be lost.
    EverySecond,
}

/// A private server. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    fsync: Fsync,
    memory_bytes_max: Option<u64>,
    // Before the directory: the process must be gone when the data are removed.
    process: Mutex<Option<Process>>,
    directory: Directory,
}

impl Redis {
    /// Starts a server that syncs always and has no limit of memory.
    ///
    /// # Errors
    /// [`StartError`] when Redis is not installed or does not start; the end of its log is in it.
    pub async fn start() -> Result<Self, StartError> {
        Self::start_with(Fsync::Always, None).await
    }

    /// Starts a server; a write beyond `memory_bytes_max` is refused, nothing is ever evicted.
    ///
    /// # Errors
    /// [`StartError`], as for [`Self::start`].
    pub async fn start_with(fsync: Fsync, memory_bytes_max: Option<u64>) -> Result<Self, StartError> {
        let server = Self::prepare(fsync, memory_bytes_max)?;
        server.start_again().await?;
        Ok(server)
    }

    /// Chooses port and directory; starts nothing. For tests in which Redis comes later.
    ///
    /// # Errors
    /// [`StartError`] when the directory cannot be made.
    pub fn prepare(fsync: Fsync, memory_bytes_max: Option<u64>) -> Result<Self, StartError> {
        let directory = folder("redis")?;
        Ok(Self {
            port: free_port(),
            fsync,
            memory_bytes_max,
            process: Mutex::new(None),
            directory,
        })
    }

    /// Starts it on its port with the data it had. Does nothing when it runs.
    ///
    /// # Errors
    /// [`StartError`] with the end of the log.
    pub async fn start_again(&self) -> Result<(), StartError> {
        if self.is_running() {
            return Ok(());
        }
        let log = self.directory.path().join("output.log");
        let process = Process::start("redis-server", self.start_command(), log)?;
        let ready = process.wait_ready(START_PATIENCE, async || match self.command_bytes(&[b"PING"]) {
            Ok(Reply::Status(_)) => Ok(()),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        });
        ready.await?;
        *self.slot() = Some(process);
        Ok(())
    }

    /// SIGKILL: what was not synced may be lost.
    pub fn kill(&self) {
        if let Some(process) = self.slot().take() {
            process.kill();
        }
    }

    /// An orderly stop.
    ///
    /// # Errors
    /// [`WaitError`] when it had to be killed; it is gone then, too.
    pub async fn stop(&self) -> Result<(), WaitError> {
        let Some(process) = self.slot().take() else {
            return Ok(());
        };
        process
            .signal(Signal::Terminate)
            .expect("an own child can be signalled");
        process.wait(STOP_PATIENCE).await.map(drop)
    }

    /// SIGKILL, if it runs, and a start on the same port with the same data.
    ///
    /// # Errors
    /// [`StartError`] with the end of the log.
    pub async fn restart(&self) -> Result<(), StartError> {
        self.kill();
        self.start_again().await
    }

    /// Freezes it: it keeps its connections and answers nothing from when this returns.
    pub fn pause(&self) {
        self.signal(Signal::Stop);
    }

    /// Thaws it.
    pub fn resume(&self) {
        self.signal(Signal::Continue);
    }

    /// Whether its process is there.
    pub fn is_running(&self) -> bool {
        self.slot()
            .as_ref()
            .is_some_and(|process| process.exit_status().is_none())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Its URL.
    pub fn url(&self) -> String {
        Self::url_at(self.address())
    }

    /// The URL of a server as seen through a relay at `address`.
    pub fn url_at(address: SocketAddr) -> String {
        format!("redis://{address}")
    }

    /// Where its data and log lie; `appendonlydir` is below it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Asks the server one thing, over a connection of its own.
    ///
    /// # Errors
    /// When it cannot be reached or does not answer within 20 s. An error the server words itself is a
    /// [`Reply::Error`].
    pub fn command(&self, words: &[&str]) -> io::Result<Reply> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.command_bytes(&words)
    }

    /// As [`Self::command`], for words that are not text.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn command_bytes(&self, words: &[&[u8]]) -> io::Result<Reply> {
        ask(self.address(), words)
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = self.slot().as_ref() {
            process.signal(signal).expect("an own child can be signalled");
        }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_command(&self) -> Command {
        let mut command = mortal("redis-server");
        command.current_dir(self.directory.path());
        command.args([
            "--port",
            &self.port.to_string(),
            "--bind",
            "127.0.0.1",
            "--daemonize",
            "no",
        ]);
        command.args([
            "--save",
            "",
            "--appendonly",
            "yes",
            "--maxmemory-policy",
            "noeviction",
        ]);
        let fsync = match self.fsync {
            Fsync::Always => "always",
            Fsync::EverySecond => "everysec",
        };
        command.args(["--appendfsync", fsync]);
        if let Some(bytes) = self.memory_bytes_max {
            command.args(["--maxmemory", &bytes.to_string()]);
        }
        command
    }
}
