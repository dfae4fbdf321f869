//! The signing keys as the tool takes them: the same two settings as the ingress, and which key to sign with.
//!
//! No key is ever shown.

use std::path::PathBuf;

use porchlight_event::{SigningKey, SigningKeys};

use crate::failure::Failure;

/// Largest file of keys that is read, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;

/// Where keys come from.
#[derive(clap::Args)]
pub(crate) struct KeySourceArgs {
    /// Signing keys as NAME=KEY, comma-separated, as the ingress has them
    #[arg(
        long,
        value_name = "KEYS",
        env = "PORCHLIGHT_SIGNING_KEYS",
        hide_env_values = true
    )]
    signing_keys: Option<String>,
    /// A file with one NAME=KEY a line
    #[arg(
        long,
        value_name = "FILE",
        env = "PORCHLIGHT_SIGNING_KEYS_FILE",
        hide_env_values = true
    )]
    signing_keys_file: Option<PathBuf>,
}

/// The keys, and which of them signs.
#[derive(clap::Args)]
pub(crate) struct KeyArgs {
    #[command(flatten)]
    source: KeySourceArgs,
    /// Which of the keys signs [default: the first]
    #[arg(long, value_name = "NAME")]
    key_name: Option<String>,
}

impl KeyArgs {
    /// The key to sign with.
    pub(crate) fn signing_key(&self) -> Result<SigningKey, Failure> {
        let keys = self.source.all()?.ok_or_else(|| {
            Failure::usage("there is no signing key").advise(
                "set PORCHLIGHT_SIGNING_KEYS=NAME=KEY or PORCHLIGHT_SIGNING_KEYS_FILE as the ingress has it",
            )
        })?;
        let wanted = |key: &&SigningKey| self.key_name.as_deref().is_none_or(|name| key.name() == name);
        keys.iter().find(wanted).cloned().ok_or_else(|| {
            let names: Vec<_> = keys.names().collect();
            Failure::usage("--key-name names no signing key").advise(format!("one of: {}", names.join(", ")))
        })
    }
}

impl KeySourceArgs {
    /// All keys; `None` when none are given.
    pub(crate) fn all(&self) -> Result<Option<SigningKeys>, Failure> {
        let listed = match self
            .signing_keys
            .as_deref()
            .map(str::trim)
            .filter(|text| !text.is_empty())
        {
            Some(text) => Some(SigningKeys::parse_list(text).map_err(|error| {
                Failure::usage("PORCHLIGHT_SIGNING_KEYS (--signing-keys)").because(&error)
            })?),
            None => None,
        };
        let filed = match self
            .signing_keys_file
            .as_ref()
            .filter(|path| !path.as_os_str().is_empty())
        {
            Some(path) => Some(read_file(path)?),
            None => None,
        };
        match (listed, filed) {
            (Some(listed), Some(filed)) => listed
                .join(filed)
                .map(Some)
                .map_err(|error| Failure::usage("the signing keys").because(&error)),
            (keys, None) | (None, keys) => Ok(keys),
        }
    }
}

fn read_file(path: &std::path::Path) -> Result<SigningKeys, Failure> {
    let failed = || Failure::usage(format!("PORCHLIGHT_SIGNING_KEYS_FILE ({})", path.display()));
    let length = std::fs::metadata(path)
        .map_err(|error| failed().because(&error))?
        .len();
    if length > KEY_FILE_BYTES_MAX {
        return Err(failed().advise(format!("a file of keys has at most {KEY_FILE_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed().because(&error))?;
    SigningKeys::parse_file(&text).map_err(|error| failed().because(&error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn args(keys: Option<&str>, name: Option<&str>) -> KeyArgs {
        KeyArgs {
            source: KeySourceArgs {
                signing_keys: keys.map(str::to_owned),
                signing_keys_file: None,
            },
            key_name: name.map(str::to_owned),
        }
    }

    #[test]
    fn the_first_key_signs_unless_another_is_named() {
        assert_eq!(args(Some("a=x,b=y"), None).signing_key().unwrap().name(), "a");
        assert_eq!(
            args(Some("a=x,b=y"), Some("b")).signing_key().unwrap().name(),
            "b"
        );
        assert!(args(Some("a=x"), Some("c")).signing_key().is_err());
    }

    #[test]
    fn a_missing_or_wrong_key_is_told_without_showing_it() {
        assert_eq!(
            args(None, None).signing_key().unwrap_err().line(),
            "there is no signing key"
        );
        let failure = args(Some("topsecret"), None).signing_key().unwrap_err();
        assert!(failure.line().contains("PORCHLIGHT_SIGNING_KEYS") && !failure.line().contains("topsecret"));
    }
}
