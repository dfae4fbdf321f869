//! Directories of servers: one root per test process, one folder per instance, gone when they are no longer needed.
//!
//! A folder outlives its instance only when a test has panicked, so that the logs can be read; what is kept is
//! swept away when the next test process starts. Nothing outside our own prefix is ever removed.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const PREFIX: &str = "porchlight-testbed-";
/// A file in the root that tells the sweeper to leave it alone.
const KEEP: &str = "keep";
/// Waits until this process is gone (its end of the pipe closes), gives the children a moment to be killed, and
/// removes the root unless a test failed. A child that waits for a slow disk dies later, and may still write until then.
const SWEEPER: &str = r#"read -r _; tries=0
while [ -e "$1" ] && [ ! -e "$1/keep" ] && [ "$tries" -lt 60 ]; do
  sleep 1; rm -rf -- "$1"; tries=$((tries + 1))
done"#;

static ROOT: OnceLock<PathBuf> = OnceLock::new();
static COUNT: AtomicU32 = AtomicU32::new(0);
static PANICKED: AtomicBool = AtomicBool::new(false);

/// The folder of one instance.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// A fresh folder whose name begins with `kind`.
    pub(crate) fn new(kind: &str) -> io::Result<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = root().join(format!("{kind}-{number}"));
        std::fs::create_dir_all(&path)?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !PANICKED.load(Ordering::Relaxed) {
            // A folder that cannot be removed now is removed with the root.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// The last `lines` lines of a file, for an error; says so when there is none.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    if let Err(error) = read {
        return format!("no log: {error}");
    }
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn root() -> &'static Path {
    ROOT.get_or_init(|| {
        sweep_the_dead();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let made = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir()
            .expect("a temporary directory can be made");
        let path = made.keep();
        start_sweeper(&path);
        keep_on_panic(path.clone());
        path
    })
}

/// Removes the roots of test processes that no longer run.
fn sweep_the_dead() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another user's root stays; it is theirs to remove.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn start_sweeper(root: &Path) {
    let mut command = Command::new("sh");
    command.args(["-c", SWEEPER, "sweeper"]).arg(root);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let sweeper = command.spawn().expect("sh can be started");
    // The pipe must stay open until this process ends, and the sweeper must outlive it: nobody may drop or wait.
    std::mem::forget(sweeper);
}

/// Keeps everything from the first panic on and says once where it lies.
fn keep_on_panic(root: PathBuf) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        if !PANICKED.swap(true, Ordering::Relaxed) {
            let kept = std::fs::write(root.join(KEEP), b"");
            #[expect(clippy::print_stderr, reason = "the reader of a failed test is at a terminal")]
            if kept.is_ok() {
                eprintln!("logs and data of the servers are kept in {}", root.display());
            }
        }
    }));
}
