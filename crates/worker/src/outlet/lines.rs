//! Commands as lines of JSON on standard output, or on anything that takes bytes.
//!
//! It retries nothing. Writing may block for as long as it likes: it happens on a thread of its own.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use porchlight_device::Command;
use porchlight_service::LogGate;
use porchlight_service::trace::Kind;
use tokio::sync::{mpsc, oneshot};

use super::Undelivered;
use crate::spans::Sending;

/// Lines that wait for the thread.
const WAITING_MAX: usize = 256;
/// For one line to be written and flushed; later the sweeper takes the command.
const WRITE_MAX: Duration = Duration::from_secs(5);

/// The way to the thread that writes. It ends with the last handle, as soon as it does not block.
#[derive(Debug, Clone)]
pub struct Lines {
    sender: mpsc::Sender<Line>,
    write_max: Duration,
    log_gate: Arc<LogGate>,
}

#[derive(Debug)]
struct Line {
    bytes: Vec<u8>,
    written: oneshot::Sender<Result<(), io::ErrorKind>>,
}

struct Writer<W> {
    to: W,
    /// Whether the last line broke off in its middle.
    torn: bool,
}

impl Lines {
    /// Lines on standard output.
    ///
    /// # Errors
    /// When there is none, or no thread.
    pub fn stdout() -> io::Result<Self> {
        use std::os::fd::AsFd as _;
        // Not std's own writer: what that could not write it keeps, and writes with a later line.
        let stdout = io::stdout().as_fd().try_clone_to_owned()?;
        Self::start(std::fs::File::from(stdout))
    }

    /// Lines on `to`, which should not buffer.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn start(to: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, mut receiver) = mpsc::channel::<Line>(WAITING_MAX);
        let write = move || {
            let mut writer = Writer { to, torn: false };
            while let Some(line) = receiver.blocking_recv() {
                // Nobody waits for it any more; the command stays owed.
                if line.written.is_closed() {
                    continue;
                }
                let written = writer.line(&line.bytes).map_err(|error| error.kind());
                // Whoever waited may be gone by now.
                let _ = line.written.send(written);
            }
        };
        std::thread::Builder::new()
            .name("lines".to_owned())
            .spawn(write)?;
        Ok(Self {
            sender,
            write_max: WRITE_MAX,
            log_gate: Arc::default(),
        })
    }

    pub(super) async fn send(&self, command: &Command) -> Result<(), Undelivered> {
        let mut sending = Sending::begin(command, Kind::Producer);
        let mut bytes = command.body();
        bytes.push(b'\n');
        let (written, answer) = oneshot::channel();
        let line = Line { bytes, written };
        let writing = async {
            self.sender.send(line).await.ok()?;
            answer.await.ok()
        };
        let words = match tokio::time::timeout(self.write_max, writing).await {
            Ok(Some(Ok(()))) => return Ok(()),
            Ok(Some(Err(kind))) => format!("the output does not take lines: {kind}"),
            Ok(None) => "the thread that writes is gone".to_owned(),
            Err(_) => "the output did not take the line in time".to_owned(),
        };
        sending.failed("not_written");
        // Nobody else notices when the program that reads has ended.
        if let Some(suppressed) = self.log_gate.admit("lines") {
            tracing::warn!(
                error = words,
                suppressed,
                "a command could not be written; it stays owed"
            );
        }
        Err(Undelivered::Failed(words))
    }
}

impl<W: Write> Writer<W> {
    fn line(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.torn {
            self.to.write_all(b"\n")?;
            self.torn = false;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.to.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    rest = &rest[count..];
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.to.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::outlet::tests::command;
    use std::io::Read as _;

    #[tokio::test]
    async fn each_command_is_one_line() {
        let (mut reader, writer) = io::pipe().unwrap();
        let lines = Lines::start(writer).unwrap();
        for generation in 1..=3 {
            lines.send(&command("snapshot", generation)).await.unwrap();
        }
        drop(lines);
        let mut written = String::new();
        reader.read_to_string(&mut written).unwrap();
        let generations: Vec<u64> = written
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["generation"].as_u64())
            .map(Option::unwrap)
            .collect();
        assert_eq!(generations, [1, 2, 3]);
    }

    #[tokio::test]
    async fn a_closed_pipe_is_a_failure_each_time_and_no_panic() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let lines = Lines::start(writer).unwrap();
        for _ in 0..2 {
            let Err(Undelivered::Failed(words)) = lines.send(&command("snapshot", 1)).await else {
                panic!("it was delivered")
            };
            assert_eq!(words, "the output does not take lines: broken pipe");
        }
    }

    #[tokio::test]
    async fn an_output_that_blocks_costs_the_deadline_and_nothing_else() {
        struct Blocked(std::sync::mpsc::Receiver<()>);
        impl Write for Blocked {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                // Once the sender is gone nothing blocks any more.
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, blocked) = std::sync::mpsc::sync_channel(0);
        let mut lines = Lines::start(Blocked(blocked)).unwrap();
        lines.write_max = Duration::from_millis(50);
        let Err(Undelivered::Failed(words)) = lines.send(&command("snapshot", 1)).await else {
            panic!("it was delivered")
        };
        assert_eq!(words, "the output did not take the line in time");
        drop(release);
        lines.write_max = Duration::from_secs(30);
        lines.send(&command("snapshot", 2)).await.unwrap();
    }

    #[test]
    fn a_line_after_a_torn_one_begins_anew() {
        struct Narrow(Vec<u8>, usize);
        impl Write for Narrow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let count = bytes.len().min(self.1);
                self.1 -= count;
                self.0.extend_from_slice(&bytes[..count]);
                if count == 0 {
                    Err(io::ErrorKind::StorageFull.into())
                } else {
                    Ok(count)
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = Writer {
            to: Narrow(Vec::new(), 2),
            torn: false,
        };
        assert!(writer.line(b"one\n").is_err());
        writer.to.1 = 100;
        writer.line(b"two\n").unwrap();
        assert_eq!(writer.to.0, b"on\ntwo\n");
    }
}
