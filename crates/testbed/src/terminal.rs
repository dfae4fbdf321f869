//! A terminal with a program in it: keys go in, a screen comes out, and the modes can be compared afterwards.
//!
//! It answers no question that a program asks a terminal, as a slow line would not: a program that waits for an
//! answer is found out.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use crate::directory::Directory;
use crate::keeper::mortal;
use crate::poll::{WaitError, wait_for};
use crate::process::{Process, Signal, StartError, folder, send};

/// Leads the session, as a person's shell does: were the program the leader, its end would reset the terminal's modes.
const SHELL: &str = r#""$@"; echo "ended with $?"; read -r nothing"#;
/// Says who it is and becomes the program.
const PROGRAM: &str = r#"echo $$ > "$0"; exec "$@""#;
const ENDED: &str = "ended with ";
/// What is read from the program at once.
const READ_BYTES: usize = 4096;

/// A terminal, and the program that runs in it. Dropping it kills the program.
pub struct Terminal {
    shell: Process,
    /// The program's end, kept open so that the modes outlive the program.
    ours: OwnedFd,
    keys: File,
    emulator: Arc<Mutex<vt100::Parser>>,
    pid_file: PathBuf,
    _directory: Directory,
}

impl Terminal {
    /// Starts a program in a terminal of so many columns and rows. It sees only these variables, `PATH` and `TERM`.
    ///
    /// # Errors
    /// [`StartError`] when there is no terminal to be had, or no shell.
    pub fn start(
        program: impl AsRef<OsStr>,
        arguments: &[&str],
        variables: &[(&str, &str)],
        (columns, rows): (u16, u16),
    ) -> Result<Self, StartError> {
        let directory = folder("terminal")?;
        let pid_file = directory.path().join("pid");
        let files = |source| StartError::Files {
            program: "terminal".to_owned(),
            source,
        };
        let (keys, ours) = open(columns, rows).map_err(files)?;
        let mut command = mortal("setsid");
        command.args(["--ctty", "sh", "-c", SHELL, "sh", "sh", "-c", PROGRAM]);
        command.arg(&pid_file).arg(program).args(arguments).env_clear();
        command
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TERM", "xterm-256color")
            .envs(variables.iter().copied());
        let end = || ours.try_clone().map_err(files);
        command.stdin(end()?).stdout(end()?).stderr(end()?);
        let emulator = Arc::new(Mutex::new(vt100::Parser::new(some(rows), some(columns), 0)));
        let shown = keys.try_clone().map_err(files)?;
        let shell = Process::spawn("terminal", command, PathBuf::new())?;
        let screen = Arc::clone(&emulator);
        // It ends with the last who has the program's end open.
        std::thread::spawn(move || follow(shown, &screen));
        Ok(Self {
            shell,
            ours,
            keys,
            emulator,
            pid_file,
            _directory: directory,
        })
    }

    /// What the screen shows, its rows as lines.
    pub fn text(&self) -> String {
        self.emulator().screen().contents()
    }

    /// Whether it is the alternate screen that shows.
    pub fn is_alternate(&self) -> bool {
        self.emulator().screen().alternate_screen()
    }

    /// Whether the cursor shows.
    pub fn shows_cursor(&self) -> bool {
        !self.emulator().screen().hide_cursor()
    }

    /// Every mode of the line, for comparing with another time.
    pub fn modes(&self) -> String {
        let modes = tcgetattr(&self.ours).expect("an open terminal has modes");
        format!("{modes:?}")
    }

    /// Types.
    pub fn press(&self, keys: &str) {
        let mut terminal = &self.keys;
        terminal
            .write_all(keys.as_bytes())
            .expect("an open terminal takes keys");
    }

    /// Gives it another size; the program is told as by a real one.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.emulator().screen_mut().set_size(some(rows), some(columns));
        tcsetwinsize(&self.keys, size(columns, rows)).expect("an open terminal has a size");
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = std::fs::read_to_string(&self.pid_file).expect("a program that shows something has a pid");
        send(signal, pid.trim()).expect("an own child can be signalled");
    }

    /// Waits until the screen shows all of these; what it shows then.
    ///
    /// # Errors
    /// [`WaitError`] with the screen, when something is still missing after `patience`.
    pub async fn shows(&self, words: &[&str], patience: Duration) -> Result<String, WaitError> {
        wait_for(&format!("{words:?}"), patience, async || {
            let text = self.text();
            if words.iter().all(|words| text.contains(words)) {
                Ok(text)
            } else {
                Err(format!("\n{text}\n"))
            }
        })
        .await
    }

    /// Waits until the program has ended; its exit code, as a shell gives it.
    ///
    /// # Errors
    /// [`WaitError`] with the screen, when it still runs after `patience`.
    pub async fn ended(&self, patience: Duration) -> Result<i32, WaitError> {
        wait_for("the program to end", patience, async || {
            let text = self.text();
            let code = text.lines().find_map(|line| line.strip_prefix(ENDED));
            code.and_then(|code| code.trim().parse().ok())
                .ok_or_else(|| format!("\n{text}\n"))
        })
        .await
    }

    fn emulator(&self) -> MutexGuard<'_, vt100::Parser> {
        self.emulator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Terminal")
            .field("shell", &self.shell)
            .field("text", &self.text())
            .finish_non_exhaustive()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The kernel hangs the program up when the leader of its session ends, but a program may not care.
        if let Ok(pid) = std::fs::read_to_string(&self.pid_file)
            && !self.text().contains(ENDED)
        {
            // It may have ended meanwhile.
            let _ = send(Signal::Kill, pid.trim());
        }
        self.shell.kill();
    }
}

/// Both ends: the one a person has, and the program's.
fn open(columns: u16, rows: u16) -> io::Result<(File, OwnedFd)> {
    // The test process must not get it as its own terminal, and no other child may hold it open.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    tcsetwinsize(&ours, size(columns, rows))?;
    let programs = ioctl_tiocgptpeer(&ours, flags)?;
    Ok((File::from(ours), programs))
}

/// The emulator knows no empty screen.
fn some(cells: u16) -> NonZero<u16> {
    NonZero::new(cells).unwrap_or(NonZero::<u16>::MIN)
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Reads for as long as anybody may write: a program that nobody reads would stop.
fn follow(mut shown: File, emulator: &Mutex<vt100::Parser>) {
    let mut bytes = [0; READ_BYTES];
    while let Ok(read @ 1..) = shown.read(&mut bytes) {
        let mut emulator = emulator.lock().unwrap_or_else(PoisonError::into_inner);
        emulator.process(&bytes[..read]);
    }
}
