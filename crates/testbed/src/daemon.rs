//! One of this workspace's own binaries as a child process: started with settings, killed, stopped, its output read.
//!
//! It does not know what the binary does. The binaries are built once per test process, as `cargo build` would.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::Duration;

use crate::directory::Directory;
use crate::keeper::mortal;
use crate::poll::WaitError;
use crate::process::{Process, Signal, StartError, folder};

/// Lines of the compiler's output that go into an error.
const BUILD_LINES: usize = 40;

static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// A running (or ended) binary of ours. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    log: PathBuf,
    _directory: Directory,
}

/// What a binary is started with.
#[derive(Debug)]
pub struct DaemonBuilder {
    binary: String,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
}

impl Daemon {
    /// Begins to describe a run of `binary`, such as `porchlight-ingress`. It sees only the variables it is given,
    /// and of the environment of the test no more than `PATH`.
    pub fn of(binary: &str) -> DaemonBuilder {
        DaemonBuilder {
            binary: binary.to_owned(),
            arguments: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// SIGKILL; it is gone when this returns.
    pub fn kill9(&self) {
        self.process.kill();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process
            .signal(signal)
            .expect("an own child can be signalled");
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// [`WaitError`] when it still runs after `patience`.
    pub async fn terminate(&self, patience: Duration) -> Result<ExitStatus, WaitError> {
        self.signal(Signal::Terminate);
        self.wait(patience).await
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// [`WaitError`] when it still runs after `patience`.
    pub async fn wait(&self, patience: Duration) -> Result<ExitStatus, WaitError> {
        self.process.wait(patience).await
    }

    /// Waits until `look` succeeds, but not longer than the process lives.
    ///
    /// # Errors
    /// [`StartError`] with the end of the output, when it ended or is not ready within `patience`.
    pub async fn ready<T>(
        &self,
        patience: Duration,
        look: impl AsyncFnMut() -> Result<T, String>,
    ) -> Result<T, StartError> {
        self.process.wait_ready(patience, look).await
    }

    /// How it ended, if it has.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.process.exit_status()
    }

    /// What it has written so far, standard output and error together.
    pub fn logs(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

impl DaemonBuilder {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Sets several.
    #[must_use]
    pub fn envs<N: Into<OsString>, V: Into<OsString>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.variables.extend(
            variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into())),
        );
        self
    }

    /// Starts it; it is not ready yet, see [`Daemon::ready`].
    ///
    /// # Errors
    /// [`StartError`] when it cannot be built or started.
    pub fn start(self) -> Result<Daemon, StartError> {
        let path = binary(&self.binary)?;
        let directory = folder(&self.binary)?;
        let log = directory.path().join("output.log");
        let mut command = mortal(path);
        command
            .args(self.arguments)
            .env_clear()
            .current_dir(directory.path());
        command
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("RUST_BACKTRACE", "1");
        command.envs(self.variables);
        let process = Process::start(&self.binary, command, log.clone())?;
        Ok(Daemon {
            process,
            log,
            _directory: directory,
        })
    }
}

/// The path of one of the workspace's binaries, built if it is missing or stale, in the profile of the running test.
///
/// # Errors
/// [`StartError::NotBuilt`] with the end of the compiler's output.
pub fn binary(name: &str) -> Result<PathBuf, StartError> {
    let not_built = |output: &str| StartError::NotBuilt {
        binary: name.to_owned(),
        output: output.to_owned(),
    };
    let folder = BUILT
        .get_or_init(build)
        .as_ref()
        .map_err(|output| not_built(output))?;
    let path = folder.join(name);
    if path.exists() {
        Ok(path)
    } else {
        Err(not_built("the workspace has no such binary"))
    }
}

/// Builds all binaries and returns their folder, or the end of the compiler's output.
fn build() -> Result<PathBuf, String> {
    let test = std::env::current_exe().map_err(|error| error.to_string())?;
    // target/<profile>/deps/<test>, or target/<profile>/<binary> for the load generator itself.
    let folder = test
        .ancestors()
        .skip(1)
        .find(|path| !path.ends_with("deps"))
        .ok_or("the test has no folder")?;
    let profile = folder
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or("the profile has no name")?;
    // A test executable run by hand knows no cargo; the one on the path is meant then.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .ok_or("the crate has no workspace")?;
    let mut command = Command::new(cargo);
    command
        .args([
            "build",
            "--workspace",
            "--bins",
            "--offline",
            "--locked",
            "--quiet",
        ])
        .current_dir(workspace);
    // What cargo tells a test of its package. A build script that watches these would run again here, and once more in
    // the next build, with half of the workspace behind it.
    for (name, _) in std::env::vars_os() {
        let is_of_package =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(is_of_package) {
            command.env_remove(name);
        }
    }
    if profile != "debug" {
        command.args(["--profile", profile]);
    }
    if let Some(target) = folder.parent() {
        command.arg("--target-dir").arg(target);
    }
    let output = command
        .output()
        .map_err(|error| format!("cargo cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(folder.to_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    Err(lines[lines.len().saturating_sub(BUILD_LINES)..].join("\n"))
}
