//! What callbacks need to know: receivers, secrets, deadlines; and how that is read from text.
//!
//! It calls nobody; only the certificates that are trusted are read here, so that a wrong file is told at once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use porchlight_event::WebhookSecrets;
use porchlight_service::Checker;
use porchlight_service::client::{Target, TargetError, TlsConnector, connector};

use super::BreakerBounds;
use crate::outlet::CallbackArgs;

/// Most receivers: each has a share of the commands in flight, and a label in the metrics.
const RECEIVERS_MAX: usize = 16;

const URL: &str = "PORCHLIGHT_CALLBACK_URL";
const SECRET: &str = "PORCHLIGHT_CALLBACK_SECRET";
const CA_FILE: &str = "PORCHLIGHT_CALLBACK_CA_FILE";

/// Everything that was checked.
#[derive(Debug, Clone)]
pub struct CallbackSettings {
    /// Who receives what; at least one.
    pub receivers: Vec<ReceiverSettings>,
    /// What every callback is signed with.
    pub secrets: WebhookSecrets,
    /// For one whole call.
    pub timeout: Duration,
    /// How long after it was issued a command that fails once more is given up.
    pub give_up: Duration,
    /// Calls under way to one receiver.
    pub inflight_max: usize,
    /// When a receiver is left alone.
    pub breaker: BreakerBounds,
    /// Whose certificates are trusted.
    pub tls: Trust,
}

/// One receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverSettings {
    /// The kind of operation; `None` is every kind that has no receiver of its own.
    pub kind: Option<String>,
    /// Where it is.
    pub target: Arc<Target>,
}

/// Whose certificates are trusted; nobody's where every receiver is plain http.
#[derive(Clone, Default)]
pub struct Trust(Option<TlsConnector>);

/// Why text is no list of receivers. Names the entry and never shows it: a URL may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiverError {
    /// There is none.
    #[error("holds no URL")]
    Empty,
    /// More than each could have a share for.
    #[error("holds more than {RECEIVERS_MAX} URLs")]
    TooMany,
    /// A URL that cannot be called.
    #[error("entry {0} {1}")]
    Target(usize, TargetError),
    /// A kind, or all others, twice.
    #[error("entry {0} is for a kind that an earlier entry is for")]
    Repeated(usize),
}

impl ReceiverSettings {
    /// Reads one URL, or several `kind=URL` between commas, where a bare URL or `*=URL` is for all other kinds.
    ///
    /// # Errors
    /// [`ReceiverError`], with entries counted from 1.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, ReceiverError> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let mut receivers: Vec<Self> = Vec::new();
        for (number, entry) in (1..).zip(entries) {
            // A URL may hold an equals sign, too, but only after a colon.
            let (kind, url) = match entry.split_once('=') {
                Some(("*", url)) => (None, url),
                Some((kind, url)) if is_kind(kind.trim()) => (Some(kind.trim().to_owned()), url),
                _ => (None, entry),
            };
            let target = Target::parse(url).map_err(|error| ReceiverError::Target(number, error))?;
            if receivers.iter().any(|known| known.kind == kind) {
                return Err(ReceiverError::Repeated(number));
            }
            let target = Arc::new(target);
            receivers.push(Self { kind, target });
        }
        match receivers.len() {
            0 => Err(ReceiverError::Empty),
            count if count > RECEIVERS_MAX => Err(ReceiverError::TooMany),
            _ => Ok(receivers),
        }
    }

    pub(super) fn label(&self) -> &str {
        self.kind.as_deref().unwrap_or("default")
    }
}

fn is_kind(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    !text.is_empty() && text.chars().all(word)
}

impl CallbackSettings {
    /// With every default.
    #[must_use]
    pub fn new(receivers: Vec<ReceiverSettings>, secrets: WebhookSecrets) -> Self {
        Self {
            receivers,
            secrets,
            timeout: Duration::from_secs(10),
            give_up: Duration::from_secs(24 * 3600),
            inflight_max: 16,
            breaker: BreakerBounds::default(),
            tls: Trust::default(),
        }
    }

    /// Checks the flags; what is wrong is noted with `checker`. `None` when no URL is given, or a wrong one.
    pub fn check(checker: &mut Checker, args: &CallbackArgs) -> Option<Self> {
        let second = Duration::from_secs(1);
        let timeout = checker.duration(
            "PORCHLIGHT_CALLBACK_TIMEOUT",
            &args.callback_timeout,
            Duration::from_millis(100)..=60 * second,
        );
        let give_up = checker.duration(
            "PORCHLIGHT_CALLBACK_GIVE_UP",
            &args.callback_give_up,
            60 * second..=7 * 24 * 3600 * second,
        );
        let inflight_max = checker.count(
            "PORCHLIGHT_CALLBACK_INFLIGHT_MAX",
            &args.callback_inflight_max,
            1..=256,
        );
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.trim().is_empty());
        match (given(&args.callback_url), given(&args.callback_secret)) {
            (true, false) => checker.problem(SECRET, format!("is needed where {URL} is given")),
            (false, true) => checker.problem(URL, format!("is missing, and {SECRET} is given")),
            _ => {}
        }
        let receivers =
            checker.optional_parsed(URL, args.callback_url.as_deref(), ReceiverSettings::parse_list);
        let secrets = checker.optional_parsed(SECRET, args.callback_secret.as_deref(), WebhookSecrets::parse);
        let ca_file = checker.optional_path(args.callback_ca_file.as_deref());
        let mut settings = Self::new(receivers?, secrets?);
        (settings.timeout, settings.give_up) = (timeout, give_up);
        settings.inflight_max = inflight_max;
        if let Err(error) = settings.trust(ca_file.as_deref()) {
            checker.problem(if ca_file.is_some() { CA_FILE } else { URL }, error);
        }
        Some(settings)
    }

    /// Reads the certificates that https receivers are checked with; a file that no receiver needs is read, too.
    fn trust(&mut self, ca_file: Option<&Path>) -> Result<(), String> {
        let https = |receiver: &&ReceiverSettings| receiver.target.is_https();
        let Some(receiver) = self.receivers.iter().find(https) else {
            return if ca_file.is_some() {
                Err("is given, and no receiver is https".to_owned())
            } else {
                Ok(())
            };
        };
        let tls = connector(&receiver.target, ca_file).map_err(|error| error.to_string())?;
        self.tls = Trust(tls);
        Ok(())
    }
}

impl Trust {
    pub(super) fn connector(&self) -> Option<TlsConnector> {
        self.0.clone()
    }
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trust({})", if self.0.is_some() { "tls" } else { "none" })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn receivers(text: &str) -> Vec<(Option<String>, String)> {
        let list = ReceiverSettings::parse_list(text).unwrap();
        list.into_iter()
            .map(|receiver| (receiver.kind, receiver.target.to_string()))
            .collect()
    }

    #[test]
    fn receivers_are_one_url_or_one_for_each_kind() {
        let kind = |kind: &str| Some(kind.to_owned());
        assert_eq!(
            receivers("https://h/p?a=b"),
            [(None, "https://h/p?a=b".to_owned())]
        );
        assert_eq!(
            receivers("snapshot=http://a:1/x, live-view = http://b:2/ ,*=http://c:3/"),
            [
                (kind("snapshot"), "http://a:1/x".to_owned()),
                (kind("live-view"), "http://b:2/".to_owned()),
                (None, "http://c:3/".to_owned()),
            ]
        );
    }

    #[test]
    fn what_is_no_list_of_receivers_is_named_by_its_place_and_never_shown() {
        let refused = |text: &str| ReceiverSettings::parse_list(text).unwrap_err();
        assert_eq!(refused(" ,"), ReceiverError::Empty);
        assert_eq!(
            refused("http://h/,a=http://u:hush@h/"),
            ReceiverError::Target(2, TargetError::Credentials)
        );
        assert_eq!(
            refused("a=ftp://h/"),
            ReceiverError::Target(1, TargetError::Scheme)
        );
        assert_eq!(
            refused("a=http://h/,b=http://h/,a=http://i/"),
            ReceiverError::Repeated(3)
        );
        assert_eq!(refused("http://h/,*=http://i/"), ReceiverError::Repeated(2));
        let many: Vec<_> = (0..=RECEIVERS_MAX).map(|n| format!("k{n}=http://h/")).collect();
        assert_eq!(refused(&many.join(",")), ReceiverError::TooMany);
    }
}
