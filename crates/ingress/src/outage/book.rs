//! Keeps the page `/outages` in a file over a restart, and for who looks at the directory from outside.
//!
//! Best effort: a disk that is full may be the very outage. Nothing depends on the file; one that cannot be read is as
//! none.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::page::{OutageFacts, OutagesPage, RejectedFacts};

/// The file's name within its directory.
pub const FILE_NAME: &str = "outages.json";
/// Largest file that is read, in bytes; the page is a few KiB.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// The latest time that is believed, in milliseconds since the epoch: the end of the year 9999. And the largest count.
const TIME_MAX: i64 = 253_402_300_799_999;
const COUNT_MAX: u64 = 1 << 52;

/// One file, or none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    path: Option<PathBuf>,
}

impl Book {
    /// The book in this directory; without one nothing is kept.
    pub(crate) fn within(dir: Option<&Path>) -> Self {
        Self {
            path: dir.map(|dir| dir.join(FILE_NAME)),
        }
    }

    /// What the process before wrote; blocks.
    pub(crate) fn read(&self) -> Option<OutagesPage> {
        let path = self.path.as_ref()?;
        match read(path) {
            Ok(page) => Some(page),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "earlier outages are not known");
                None
            }
        }
    }

    /// Writes the page, whole or not at all.
    pub(crate) async fn write(&self, page: OutagesPage) {
        let Some(path) = self.path.clone() else { return };
        let shown = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || write(&path, &page)).await;
        if let Ok(Err(error)) = written {
            tracing::debug!(file = shown, %error, "the outage is not written down");
        }
    }
}

fn read(path: &Path) -> io::Result<OutagesPage> {
    let file = std::fs::File::open(path)?;
    let text = io::read_to_string(io::Read::take(file, FILE_BYTES_MAX))?;
    let page: OutagesPage = serde_json::from_str(&text)?;
    if !is_plausible(&page) {
        let why = "it holds times or counts that no process wrote";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(page)
}

/// Whether one can reckon with its numbers. Only what is taken over is looked at.
fn is_plausible(page: &OutagesPage) -> bool {
    let is_time = |ms: i64| (0..=TIME_MAX).contains(&ms);
    let is_outage = |outage: &OutageFacts| {
        let times = [
            outage.started_at_ms,
            outage.last_failed_at_ms,
            outage.first_loss_at_ms,
        ];
        let mut counts = outage.causes.values().chain([&outage.answers_200]);
        times.into_iter().chain(outage.recovered_at_ms).all(is_time)
            && counts.all(|count| *count <= COUNT_MAX)
    };
    let is_rejection = |rejected: &RejectedFacts| {
        is_time(rejected.first_at_ms) && is_time(rejected.last_at_ms) && rejected.count <= COUNT_MAX
    };
    let keys = &page.keys;
    page.outages.iter().all(is_outage) && keys.rejected.iter().chain(&keys.restored).all(is_rejection)
}

fn write(path: &Path, page: &OutagesPage) -> io::Result<()> {
    let beside = path.with_extension("json.new");
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(&serde_json::to_vec_pretty(page)?)?;
    // Not synced: after a cut of power the file may be old or empty, and an old or empty one is no harm.
    drop(file);
    std::fs::rename(beside, path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read_again_and_what_is_damaged_is_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let book = Book::within(Some(directory.path()));
        assert_eq!(book.read(), None);
        let page = OutagesPage {
            now_ms: 7,
            webhook_path: "/hook".to_owned(),
            ..OutagesPage::default()
        };
        book.write(page.clone()).await;
        assert_eq!(book.read(), Some(page));
        std::fs::write(directory.path().join(FILE_NAME), "{").unwrap();
        assert_eq!(book.read(), None);
        for odd in [
            r#"{"outages":[{"started_at_ms":-9223372036854775808}]}"#,
            r#"{"outages":[{"first_loss_at_ms":9223372036854775807}]}"#,
            r#"{"outages":[{"causes":{"a":18446744073709551615,"b":5}}]}"#,
            r#"{"keys":{"restored":[{"last_at_ms":9223372036854775807}]}}"#,
        ] {
            std::fs::write(directory.path().join(FILE_NAME), odd).unwrap();
            assert_eq!(book.read(), None, "{odd}");
        }
        let none = Book::within(None);
        none.write(OutagesPage::default()).await;
        assert_eq!(none.read(), None);
    }
}
