//! Follows small files that may change while the process runs: a mounted secret, a renewed certificate.
//!
//! It reads content rather than times and inodes: mounted secrets are swapped by symbolic link, and copies keep times.
//! What the content means is the caller's.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::stop::Hangups;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Between two readings of a file that has just changed.
const SETTLE_INTERVAL: Duration = Duration::from_millis(100);
/// Readings until a file that keeps changing is taken as it is.
const SETTLE_READINGS_MAX: usize = 20;
/// Largest file; a chain of certificates is a few KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What reading one file gave: its text, or why not.
pub type Reading = Result<String, String>;

/// Reads one file of at most 1 MiB; blocks.
///
/// # Errors
/// In words, without any of the content.
pub fn read(path: &Path) -> Reading {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.kind().to_string())?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| error.kind().to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

/// Calls `apply` with all readings whenever one has changed since `seen`, and on every SIGHUP. Never returns.
///
/// A change is applied only once two readings in a row agree, so that a file caught while it is being written does not
/// take half its content into force.
///
/// # Cancel safety
/// Safe: dropped, it applies nothing more.
pub async fn follow(
    paths: Vec<PathBuf>,
    mut seen: Vec<Reading>,
    mut hangups: Hangups,
    mut apply: impl FnMut(&[Reading]),
) {
    loop {
        let asked = tokio::select! {
            () = hangups.next() => true,
            () = tokio::time::sleep(LOOK_INTERVAL) => false,
        };
        let mut now = read_all(&paths).await;
        if now == seen && !asked {
            continue;
        }
        for _ in 0..SETTLE_READINGS_MAX {
            tokio::time::sleep(SETTLE_INTERVAL).await;
            let again = read_all(&paths).await;
            if again == now {
                break;
            }
            now = again;
        }
        apply(&now);
        seen = now;
    }
}

async fn read_all(paths: &[PathBuf]) -> Vec<Reading> {
    let owned = paths.to_vec();
    let reading = tokio::task::spawn_blocking(move || owned.iter().map(|path| read(path)).collect());
    // Reading does not panic, and the runtime ends no blocking task while this one runs.
    reading
        .await
        .unwrap_or_else(|_| vec![Err("reading was cut off".to_owned()); paths.len()])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use tokio::sync::{mpsc, watch};

    #[test]
    fn a_file_without_end_is_not_read() {
        assert!(read(Path::new("/dev/zero")).unwrap_err().contains("larger than"));
        assert_eq!(read(Path::new("/nowhere")).unwrap_err(), "entity not found");
    }

    #[tokio::test]
    async fn changes_and_hangups_are_applied() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, "one").unwrap();
        let (hangup, count) = watch::channel(0);
        let (applied, mut readings) = mpsc::channel(8);
        let apply = move |now: &[Reading]| applied.try_send(now.to_vec()).unwrap();
        let seen = vec![read(&path)];
        tokio::spawn(follow(vec![path.clone()], seen, Hangups::counted(count), apply));
        hangup.send_replace(1);
        assert_eq!(readings.recv().await.unwrap(), [Ok("one".to_owned())]);
        std::fs::write(&path, "two").unwrap();
        assert_eq!(readings.recv().await.unwrap(), [Ok("two".to_owned())]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            readings.recv().await.unwrap(),
            [Err("entity not found".to_owned())]
        );
    }
}
