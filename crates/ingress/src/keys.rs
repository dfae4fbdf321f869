//! The signing keys in force: from a list, a file or both, and replaced while running when the file changes.
//!
//! It verifies nothing. Wrong content never replaces keys that work, and a half of the keys is never in force: good
//! events signed with the other half would be refused for ever.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use porchlight_event::{KeyError, SigningKey, SigningKeys};
use porchlight_service::Checker;
use porchlight_service::follow::{self, Reading};
use porchlight_service::stop::Hangups;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::IngressMetrics;

const LIST: &str = "PORCHLIGHT_SIGNING_KEYS";
const FILE: &str = "PORCHLIGHT_SIGNING_KEYS_FILE";

/// How long a key that was taken out is remembered for the diagnosis of what it signed, and how many are.
const REMOVED_KEPT: Duration = Duration::from_secs(24 * 3_600);
const REMOVED_MAX: usize = 8;

/// What every request looks at; `None` until the first keys are there.
pub(crate) type KeysInForce = watch::Receiver<Option<Arc<ActiveKeys>>>;

/// Keys with a counter each, so that counting a match costs no look-up by name.
#[derive(Debug)]
pub(crate) struct ActiveKeys {
    pub(crate) keys: SigningKeys,
    matched: Vec<Counter>,
    /// The newest first; they verify nothing.
    removed: Vec<RemovedKey>,
}

/// A key that was in force.
#[derive(Debug, Clone)]
struct RemovedKey {
    key: SigningKey,
    at: Instant,
}

/// Where keys come from, and what was there at the start.
#[derive(Debug)]
pub(crate) struct KeySource {
    listed: Option<SigningKeys>,
    file: Option<(PathBuf, Reading)>,
}

/// Why the keys at hand are not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum LoadError {
    #[error("the file cannot be read: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Wrong(#[from] KeyError),
}

impl KeySource {
    /// Checks list and file. One of them must be given, and what is there must be right; a file that is missing or
    /// empty may still come, as a mounted secret does.
    pub(crate) fn check(checker: &mut Checker, list: Option<&str>, file: Option<PathBuf>) -> Self {
        let given = list.is_some_and(|list| !list.trim().is_empty());
        let listed = checker.optional_parsed(LIST, list, SigningKeys::parse_list);
        let file = file
            .map(|path| (follow::read(&path), path))
            .map(|(reading, path)| (path, reading));
        if !given && file.is_none() {
            checker.problem(
                LIST,
                format!("is required, unless {FILE} is given; write name=key"),
            );
        }
        let source = Self { listed, file };
        if let Some((_, reading)) = &source.file {
            match source.load(reading) {
                Ok(_) | Err(LoadError::Unreadable(_) | LoadError::Wrong(KeyError::Empty)) => {}
                Err(error) => checker.problem(FILE, error.to_string()),
            }
        }
        source
    }

    /// The keys in force from now on, kept up to date until `ended`.
    pub(crate) fn watch(
        self,
        metrics: Arc<IngressMetrics>,
        hangups: Hangups,
        ended: CancellationToken,
    ) -> KeysInForce {
        let first = match &self.file {
            Some((_, reading)) => self.load(reading),
            None => self.listed.clone().ok_or(LoadError::Wrong(KeyError::Empty)),
        };
        let (sender, keys) = watch::channel(None);
        put_in_force(first, &sender, &metrics);
        tokio::spawn(ended.run_until_cancelled_owned(self.follow(sender, metrics, hangups)));
        keys
    }

    async fn follow(
        self,
        sender: watch::Sender<Option<Arc<ActiveKeys>>>,
        metrics: Arc<IngressMetrics>,
        mut hangups: Hangups,
    ) {
        let Some((path, reading)) = self.file.clone() else {
            loop {
                hangups.next().await;
                tracing::info!("SIGHUP: the signing keys come from no file and stay as they are");
            }
        };
        let apply = |readings: &[Reading]| {
            if let Some(reading) = readings.first() {
                put_in_force(self.load(reading), &sender, &metrics);
            }
        };
        follow::follow(vec![path], vec![reading], hangups, apply).await;
    }

    fn load(&self, reading: &Reading) -> Result<SigningKeys, LoadError> {
        let text = reading
            .as_ref()
            .map_err(|error| LoadError::Unreadable(error.clone()))?;
        let filed = SigningKeys::parse_file(text)?;
        Ok(match &self.listed {
            Some(listed) => listed.clone().join(filed)?,
            None => filed,
        })
    }
}

fn put_in_force(
    loaded: Result<SigningKeys, LoadError>,
    sender: &watch::Sender<Option<Arc<ActiveKeys>>>,
    metrics: &IngressMetrics,
) {
    let is_ok = loaded.is_ok();
    match loaded {
        Ok(keys) => {
            let matched = keys.names().map(|name| metrics.matched(name)).collect();
            let names = keys.names().collect::<Vec<_>>().join(",");
            let before = sender.borrow().clone();
            let removed = before.map(|before| before.removed_by(&keys)).unwrap_or_default();
            sender.send_replace(Some(Arc::new(ActiveKeys {
                keys,
                matched,
                removed,
            })));
            // Whoever reads this may rely on it.
            tracing::info!(keys = names, "signing keys in force");
        }
        Err(error) if sender.borrow().is_some() => {
            tracing::error!(%error, setting = FILE, "signing keys are not usable; the ones in force stay");
        }
        Err(error) => {
            tracing::error!(%error, setting = FILE, "no signing keys yet; every event is answered 503");
        }
    }
    metrics.count_file_load("signing_keys", is_ok);
}

impl ActiveKeys {
    /// Keys that were in force within the last day and are no longer, the newest first.
    pub(crate) fn removed(&self) -> impl Iterator<Item = &SigningKey> {
        let kept = self
            .removed
            .iter()
            .filter(|removed| removed.at.elapsed() < REMOVED_KEPT);
        kept.map(|removed| &removed.key)
    }

    /// What is removed once `keys` are in force in place of these.
    fn removed_by(&self, keys: &SigningKeys) -> Vec<RemovedKey> {
        let at = Instant::now();
        let now_gone = self.keys.iter().map(|key| RemovedKey { key: key.clone(), at });
        let gone_before = self.removed.iter().cloned();
        now_gone
            .chain(gone_before)
            .filter(|removed| removed.at.elapsed() < REMOVED_KEPT)
            .filter(|removed| !keys.iter().any(|key| key.is_same_key(&removed.key)))
            .take(REMOVED_MAX)
            .collect()
    }

    /// Counts a match of the key with this name.
    pub(crate) fn count_match(&self, name: &str) {
        if let Some(index) = self.keys.names().position(|known| known == name) {
            self.matched[index].inc();
        }
    }
}

#[cfg(test)]
impl ActiveKeys {
    pub(crate) fn for_tests(keys: SigningKeys) -> Self {
        Self {
            keys,
            matched: Vec::new(),
            removed: Vec::new(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn in_force(keys: &KeysInForce) -> Arc<ActiveKeys> {
        keys.borrow().clone().unwrap()
    }

    #[test]
    fn a_key_that_is_taken_out_or_replaced_under_its_name_is_remembered_and_a_renamed_one_is_not_gone() {
        let metrics = IngressMetrics::register(&mut Default::default());
        let (sender, keys) = watch::channel(None);
        let change = |list: &str| put_in_force(Ok(SigningKeys::parse_list(list).unwrap()), &sender, &metrics);
        let removed = || {
            let active = in_force(&keys);
            active
                .removed()
                .map(|key| (key.name().to_owned(), key.sign(b"")))
                .collect::<Vec<_>>()
        };
        let signed = |name: &str, key: &[u8]| (name.to_owned(), SigningKey::new(name, key).sign(b""));
        change("a=x,b=y");
        assert_eq!(removed(), []);
        change("renamed=x,b=z");
        assert_eq!(removed(), [signed("b", b"y")]);
        change("b=w");
        assert_eq!(
            removed(),
            [signed("renamed", b"x"), signed("b", b"z"), signed("b", b"y")]
        );
        change("b=y");
        assert_eq!(removed().len(), 3, "b=y is in force again, b=w is gone");
        for n in 0..20 {
            change(&format!("b={n}"));
        }
        assert_eq!(removed().len(), REMOVED_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_key_is_forgotten_after_a_day() {
        let metrics = IngressMetrics::register(&mut Default::default());
        let (sender, keys) = watch::channel(None);
        for list in ["a=x", "a=y"] {
            put_in_force(Ok(SigningKeys::parse_list(list).unwrap()), &sender, &metrics);
        }
        assert_eq!(in_force(&keys).removed().count(), 1);
        tokio::time::advance(REMOVED_KEPT).await;
        assert_eq!(in_force(&keys).removed().count(), 0);
    }

    fn check(list: Option<&str>, file: Option<&str>) -> Result<KeySource, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
        }
        let mut checker = Checker::new(&clap::Command::new("t"));
        let source = KeySource::check(&mut checker, list, file.map(|_| path));
        checker
            .finish()
            .map(|()| source)
            .map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_file_that_is_not_there_yet_is_waited_for_with_no_half_of_the_keys_in_force() {
        let mut checker = Checker::new(&clap::Command::new("t"));
        let source = KeySource::check(&mut checker, Some("a=x"), Some("/nowhere/keys".into()));
        checker.finish().unwrap();
        let (_, reading) = source.file.as_ref().unwrap();
        assert_eq!(
            source.load(reading).unwrap_err(),
            LoadError::Unreadable("entity not found".to_owned())
        );
        assert!(check(None, Some("# soon\n")).is_ok());
    }

    #[test]
    fn list_and_file_are_joined() {
        let source = check(Some("a=x"), Some("b=y")).unwrap();
        let keys = source.load(&source.file.as_ref().unwrap().1).unwrap();
        assert_eq!(keys.names().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn wrong_keys_at_the_start_are_problems_that_show_no_key() {
        for (list, file, said) in [
            (Some("hunter2"), None, "entry 1 is not name=key"),
            (None, Some("a=x\nhunter2"), "entry 2 is not name=key"),
            (
                Some("a=hunter2"),
                Some("a=hunter2"),
                "signing key a is given twice",
            ),
            (None, None, "is required"),
        ] {
            let problems = check(list, file).unwrap_err();
            assert!(
                problems.contains(said) && !problems.contains("hunter2"),
                "{problems}"
            );
        }
    }

    #[test]
    fn wrong_content_does_not_replace_keys_in_force() {
        let metrics = IngressMetrics::register(&mut Default::default());
        let (sender, keys) = watch::channel(None);
        put_in_force(Ok(SigningKeys::parse_list("a=x").unwrap()), &sender, &metrics);
        put_in_force(Err(LoadError::Wrong(KeyError::Empty)), &sender, &metrics);
        assert_eq!(
            keys.borrow().as_ref().unwrap().keys.names().collect::<Vec<_>>(),
            ["a"]
        );
    }
}
