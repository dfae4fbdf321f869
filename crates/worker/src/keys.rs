//! The optional signing keys: read at the start, and again when their file changes or a person asks for it.
//!
//! It verifies nothing; the keys in force are handed out as one shared value.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use porchlight_event::SigningKeys;
use porchlight_service::Checker;
use porchlight_service::stop::Hangups;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often the file's time and size are looked at: a change of keys is prepared days ahead.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The keys in force; `None` when none were given, and the queue is trusted then.
pub type KeysInForce = watch::Receiver<Option<Arc<SigningKeys>>>;

/// Where keys come from, and those that were there at the start.
#[derive(Debug, Default)]
pub struct KeySource {
    listed: Option<SigningKeys>,
    file: Option<PathBuf>,
    first: Option<Arc<SigningKeys>>,
}

impl KeySource {
    /// Reads list and file; a file that cannot be read is a problem of its setting.
    pub fn check(checker: &mut Checker, list: Option<&str>, file: Option<PathBuf>) -> Self {
        let listed = checker.optional_parsed("PORCHLIGHT_SIGNING_KEYS", list, SigningKeys::parse_list);
        let mut source = Self {
            listed,
            file,
            first: None,
        };
        match source.read() {
            Ok(keys) => source.first = keys,
            Err(problem) => checker.problem("PORCHLIGHT_SIGNING_KEYS_FILE", problem),
        }
        source
    }

    /// Whether there are keys at all.
    pub fn is_given(&self) -> bool {
        self.first.is_some()
    }

    /// The keys in force from now on, kept up to date by a task until `stop`.
    pub fn watch(self, hangups: Hangups, stop: CancellationToken) -> KeysInForce {
        let (sender, keys) = watch::channel(self.first.clone());
        tokio::spawn(async move { stop.run_until_cancelled(self.follow(hangups, sender)).await });
        keys
    }

    fn read(&self) -> Result<Option<Arc<SigningKeys>>, String> {
        let Some(file) = &self.file else {
            return Ok(self.listed.clone().map(Arc::new));
        };
        let text =
            std::fs::read_to_string(file).map_err(|error| format!("cannot be read: {}", error.kind()))?;
        let filed = SigningKeys::parse_file(&text).map_err(|error| error.to_string())?;
        let all = match self.listed.clone() {
            Some(listed) => listed.join(filed).map_err(|error| error.to_string())?,
            None => filed,
        };
        Ok(Some(Arc::new(all)))
    }

    async fn follow(self, mut hangups: Hangups, sender: watch::Sender<Option<Arc<SigningKeys>>>) {
        let mut seen = self.file.as_deref().and_then(stamp);
        loop {
            // SIGHUP is listened for even without a file: it would end the process otherwise.
            let asked = tokio::select! {
                () = hangups.next() => true,
                () = tokio::time::sleep(LOOK_INTERVAL), if self.file.is_some() => false,
            };
            let now = self.file.as_deref().and_then(stamp);
            if self.file.is_none() || (!asked && now == seen) {
                continue;
            }
            seen = now;
            match self.read() {
                Ok(keys) => {
                    let names = keys
                        .iter()
                        .flat_map(|keys| keys.names())
                        .collect::<Vec<_>>()
                        .join(",");
                    tracing::info!(keys = names, "signing keys read again");
                    sender.send_replace(keys);
                }
                Err(problem) => {
                    tracing::error!(problem, "signing keys are unchanged: their file is not usable")
                }
            }
        }
    }
}

/// What tells one content of the file from the next.
fn stamp(file: &Path) -> Option<(SystemTime, u64)> {
    let found = std::fs::metadata(file).ok()?;
    Some((found.modified().ok()?, found.len()))
}
