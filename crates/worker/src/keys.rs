//! The optional signing keys: read at the start, and again when their file changes or a person asks for it.
//!
//! It verifies nothing; the keys in force are handed out as one shared value.

use std::path::PathBuf;
use std::sync::Arc;

use porchlight_event::SigningKeys;
use porchlight_service::Checker;
use porchlight_service::follow::{self, Reading};
use porchlight_service::stop::Hangups;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The keys in force; `None` when none were given, and the queue is trusted then.
pub type KeysInForce = watch::Receiver<Option<Arc<SigningKeys>>>;

/// Where keys come from, and those that were there at the start.
#[derive(Debug, Default)]
pub struct KeySource {
    listed: Option<SigningKeys>,
    file: Option<(PathBuf, Reading)>,
    first: Option<Arc<SigningKeys>>,
}

impl KeySource {
    /// Reads list and file; a file that cannot be read is a problem of its setting.
    pub fn check(checker: &mut Checker, list: Option<&str>, file: Option<PathBuf>) -> Self {
        let listed = checker.optional_parsed("PORCHLIGHT_SIGNING_KEYS", list, SigningKeys::parse_list);
        let mut source = Self {
            first: listed.clone().map(Arc::new),
            listed,
            file: None,
        };
        if let Some(path) = file {
            let reading = follow::read(&path);
            match source.load(&reading) {
                Ok(keys) => source.first = Some(keys),
                Err(problem) => checker.problem("PORCHLIGHT_SIGNING_KEYS_FILE", problem),
            }
            source.file = Some((path, reading));
        }
        source
    }

    /// Whether there are keys at all.
    pub fn is_given(&self) -> bool {
        self.first.is_some()
    }

    /// The keys in force from now on, kept up to date by a task until `stop`. Without a file `hangups` is not looked
    /// at.
    pub fn watch(self, hangups: Hangups, stop: CancellationToken) -> KeysInForce {
        let (sender, keys) = watch::channel(self.first.clone());
        if let Some((path, reading)) = self.file.clone() {
            let apply = move |readings: &[Reading]| {
                if let Some(reading) = readings.first() {
                    self.put_in_force(reading, &sender);
                }
            };
            let following = follow::follow(vec![path], vec![reading], hangups, apply);
            tokio::spawn(stop.run_until_cancelled_owned(following));
        }
        keys
    }

    fn load(&self, reading: &Reading) -> Result<Arc<SigningKeys>, String> {
        let text = reading
            .as_ref()
            .map_err(|error| format!("cannot be read: {error}"))?;
        let filed = SigningKeys::parse_file(text).map_err(|error| error.to_string())?;
        let all = match self.listed.clone() {
            Some(listed) => listed.join(filed).map_err(|error| error.to_string())?,
            None => filed,
        };
        Ok(Arc::new(all))
    }

    fn put_in_force(&self, reading: &Reading, sender: &watch::Sender<Option<Arc<SigningKeys>>>) {
        match self.load(reading) {
            Ok(keys) => {
                let names = keys.names().collect::<Vec<_>>().join(",");
                sender.send_replace(Some(keys));
                // Whoever reads this may rely on it.
                tracing::info!(keys = names, "signing keys read again");
            }
            Err(problem) => {
                tracing::error!(problem, "signing keys are unchanged: their file is not usable")
            }
        }
    }
}
