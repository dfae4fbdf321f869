//! Ring's signature: `X-Signature: sha256=<64 hex digits>`, HMAC-SHA256 over the raw body.
//!
//! Signing and verifying live in one file so that they cannot drift apart. Comparison is constant-time (it is
//! `hmac`'s own), and no key, digest or body is ever shown by `Debug` or an error.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes in an HMAC-SHA256 digest.
pub const DIGEST_BYTES: usize = 32;
/// Most keys that may be active at once. Each costs one MAC over every body; a change of keys needs two.
pub const KEYS_MAX: usize = 16;
/// Longest name of a key, in bytes: it travels as a header and as a metric label.
pub const KEY_NAME_BYTES_MAX: usize = 64;

const PREFIX: &[u8] = b"sha256=";

/// One named key, with the keyed state computed once and cloned for each request.
#[derive(Clone)]
pub struct SigningKey {
    name: String,
    keyed: Hmac<Sha256>,
    /// The same for what the key may have been meant to be.
    slips: Vec<(KeySlip, Hmac<Sha256>)>,
}

/// How a key may differ from the one it was meant to be, by a slip of whoever copied it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeySlip {
    /// White space at its end.
    Ending,
    /// Quotation marks around it.
    Quoted,
}

/// All keys that are accepted at this moment; at least one.
#[derive(Clone)]
pub struct SigningKeys(Vec<SigningKey>);

/// A signature in progress: feed it the body piece by piece.
pub struct Verifier<'k> {
    macs: Vec<(&'k str, Hmac<Sha256>)>,
}

/// Why a request is not Ring's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no signature header.
    #[error("the signature header is missing")]
    Missing,
    /// There are two or more; a proxy and we might pick different ones.
    #[error("the signature header is repeated")]
    Repeated,
    /// Not `sha256=` and 64 hex digits.
    #[error("the signature header is not sha256= and 64 hex digits")]
    Malformed,
    /// Well-formed, but no active key gives this digest.
    #[error("no signing key matches")]
    NoMatch,
}

/// Why a list of keys was not accepted. Names the entry, never the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing to verify with.
    #[error("no signing key is given")]
    Empty,
    /// More than [`KEYS_MAX`].
    #[error("more than {KEYS_MAX} signing keys are given")]
    TooMany,
    /// An entry without `=`.
    #[error("entry {0} is not name=key")]
    NotNamed(usize),
    /// A name that is empty, too long, or has other characters than letters, digits, `.`, `_` and `-`.
    #[error(
        "entry {0} has a name that is not 1 to {KEY_NAME_BYTES_MAX} letters, digits, dots, dashes or underscores"
    )]
    BadName(usize),
    /// A name without a key.
    #[error("signing key {0} is empty")]
    EmptyKey(String),
    /// A name given twice.
    #[error("signing key {0} is given twice")]
    Repeated(String),
}

impl SigningKey {
    /// A key from its name and the UTF-8 bytes Ring's portal shows.
    pub fn new(name: impl Into<String>, key: &[u8]) -> Self {
        let endings: [&[u8]; 3] = [b"\n", b"\r\n", b" "];
        let ended = endings.map(|ending| (KeySlip::Ending, keyed(&[key, ending].concat())));
        let unquoted = unquoted(key).map(|bare| (KeySlip::Quoted, keyed(bare)));
        Self {
            name: name.into(),
            keyed: keyed(key),
            slips: ended.into_iter().chain(unquoted).collect(),
        }
    }

    /// The name under which an operator knows this key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The header value Ring would send for `body`.
    pub fn sign(&self, body: &[u8]) -> String {
        let mut mac = self.keyed.clone();
        mac.update(body);
        format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
    }

    /// Whether both are the same key, whatever their names.
    pub fn is_same_key(&self, other: &Self) -> bool {
        let digest = other.keyed.clone().finalize().into_bytes();
        self.keyed.clone().verify_slice(&digest).is_ok()
    }

    /// Whether this key gives `digest` for a body in these pieces.
    pub(crate) fn gives(&self, digest: &[u8; DIGEST_BYTES], pieces: &[&[u8]]) -> bool {
        gives(&self.keyed, digest, pieces)
    }

    /// The slip without which this key would give `digest`.
    pub(crate) fn slip_giving(&self, digest: &[u8; DIGEST_BYTES], body: &[u8]) -> Option<KeySlip> {
        let slip = self.slips.iter().find(|(_, keyed)| gives(keyed, digest, &[body]));
        slip.map(|(slip, _)| *slip)
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn gives(keyed: &Hmac<Sha256>, digest: &[u8; DIGEST_BYTES], pieces: &[&[u8]]) -> bool {
    let mut mac = keyed.clone();
    for piece in pieces {
        mac.update(piece);
    }
    mac.verify_slice(digest).is_ok()
}

/// What stands between two quotation marks of one kind, if the key is written so.
fn unquoted(key: &[u8]) -> Option<&[u8]> {
    let bare = |mark: u8| key.strip_prefix(&[mark])?.strip_suffix(&[mark]);
    bare(b'"').or_else(|| bare(b'\''))
}

/// Shows the name only.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl SigningKeys {
    /// Parses `name=key,name=key`. Spaces around an entry are dropped; the key is everything after the first `=`.
    ///
    /// # Errors
    /// [`KeyError`], with entries counted from 1.
    pub fn parse_list(text: &str) -> Result<Self, KeyError> {
        Self::from_entries(text.split(',').map(str::trim).filter(|entry| !entry.is_empty()))
    }

    /// Parses one `name=key` a line; empty lines and lines that begin with `#` are skipped. Spaces around a line
    /// are dropped: an editor's trailing space would otherwise refuse every request of Ring's.
    ///
    /// # Errors
    /// [`KeyError`], with entries counted from 1.
    pub fn parse_file(text: &str) -> Result<Self, KeyError> {
        let lines = text.lines().map(str::trim);
        Self::from_entries(lines.filter(|line| !line.is_empty() && !line.starts_with('#')))
    }

    fn from_entries<'a>(entries: impl Iterator<Item = &'a str>) -> Result<Self, KeyError> {
        let mut keys: Vec<SigningKey> = Vec::new();
        for (index, entry) in entries.enumerate() {
            let number = index + 1;
            let (name, key) = entry.split_once('=').ok_or(KeyError::NotNamed(number))?;
            let name = name.trim();
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if name.is_empty() || name.len() > KEY_NAME_BYTES_MAX || !name.chars().all(known) {
                return Err(KeyError::BadName(number));
            }
            if key.trim().is_empty() {
                return Err(KeyError::EmptyKey(name.to_owned()));
            }
            if keys.iter().any(|known| known.name == name) {
                return Err(KeyError::Repeated(name.to_owned()));
            }
            keys.push(SigningKey::new(name, key.as_bytes()));
        }
        match keys.len() {
            0 => Err(KeyError::Empty),
            count if count > KEYS_MAX => Err(KeyError::TooMany),
            _ => Ok(Self(keys)),
        }
    }

    /// Joins two sources of keys, such as a variable and a file.
    ///
    /// # Errors
    /// [`KeyError::Repeated`] when both give the same name, [`KeyError::TooMany`] when the sum is too large.
    pub fn join(mut self, other: Self) -> Result<Self, KeyError> {
        for key in other.0 {
            if self.0.iter().any(|known| known.name == key.name) {
                return Err(KeyError::Repeated(key.name));
            }
            self.0.push(key);
        }
        if self.0.len() > KEYS_MAX {
            Err(KeyError::TooMany)
        } else {
            Ok(self)
        }
    }

    /// The keys in the order given.
    pub fn iter(&self) -> impl Iterator<Item = &SigningKey> {
        self.0.iter()
    }

    /// The names in the order given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(SigningKey::name)
    }

    /// Starts verifying one body.
    pub fn verifier(&self) -> Verifier<'_> {
        Verifier {
            macs: self
                .0
                .iter()
                .map(|key| (key.name.as_str(), key.keyed.clone()))
                .collect(),
        }
    }

    /// Verifies a whole body against a header value; the name of the key that matched.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] or [`Refusal::NoMatch`].
    pub fn verify(&self, header: &[u8], body: &[u8]) -> Result<&str, Refusal> {
        let digest = parse_header(header)?;
        let mut verifier = self.verifier();
        verifier.update(body);
        verifier.finish(&digest)
    }
}

impl<'k> Verifier<'k> {
    /// Feeds the next piece of the body.
    pub fn update(&mut self, piece: &[u8]) {
        for (_, mac) in &mut self.macs {
            mac.update(piece);
        }
    }

    /// The name of the first key whose digest is `digest`. Every key is tried, in constant time each.
    ///
    /// # Errors
    /// [`Refusal::NoMatch`].
    pub fn finish(self, digest: &[u8; DIGEST_BYTES]) -> Result<&'k str, Refusal> {
        let mut matched = None;
        for (name, mac) in self.macs {
            if mac.verify_slice(digest).is_ok() && matched.is_none() {
                matched = Some(name);
            }
        }
        matched.ok_or(Refusal::NoMatch)
    }
}

/// The digest in a header value: exactly `sha256=` and 64 hex digits of either case, nothing around them.
///
/// # Errors
/// [`Refusal::Malformed`].
pub fn parse_header(value: &[u8]) -> Result<[u8; DIGEST_BYTES], Refusal> {
    let digits = value.strip_prefix(PREFIX).ok_or(Refusal::Malformed)?;
    let mut digest = [0; DIGEST_BYTES];
    hex::decode_to_slice(digits, &mut digest).map_err(|_| Refusal::Malformed)?;
    Ok(digest)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn two_keys() -> SigningKeys {
        SigningKeys::parse_list("new=k2, old=k1").unwrap()
    }

    #[test]
    fn either_active_key_verifies_and_is_named() {
        let keys = two_keys();
        let old = SigningKey::new("anything", b"k1").sign(b"body");
        let new = SigningKey::new("anything", b"k2").sign(b"body");
        assert_eq!(keys.verify(old.as_bytes(), b"body"), Ok("old"));
        assert_eq!(keys.verify(new.as_bytes(), b"body"), Ok("new"));
    }

    #[test]
    fn one_flipped_bit_in_body_or_digest_is_refused() {
        let keys = two_keys();
        let header = SigningKey::new("x", b"k1").sign(b"body");
        assert_eq!(keys.verify(header.as_bytes(), b"bodz"), Err(Refusal::NoMatch));
        let digest = parse_header(header.as_bytes()).unwrap();
        for bit in 0..DIGEST_BYTES * 8 {
            let mut wrong = digest;
            wrong[bit / 8] ^= 1 << (bit % 8);
            let mut verifier = keys.verifier();
            verifier.update(b"body");
            assert_eq!(verifier.finish(&wrong), Err(Refusal::NoMatch));
        }
    }

    #[test]
    fn a_body_in_pieces_verifies_like_the_whole() {
        let keys = two_keys();
        let digest = parse_header(SigningKey::new("x", b"k2").sign(b"one two").as_bytes()).unwrap();
        let mut verifier = keys.verifier();
        verifier.update(b"one");
        verifier.update(b"");
        verifier.update(b" two");
        assert_eq!(verifier.finish(&digest), Ok("new"));
    }

    #[test]
    fn only_the_exact_header_form_is_read() {
        let digits = "ab".repeat(32);
        assert!(parse_header(format!("sha256={digits}").as_bytes()).is_ok());
        assert!(parse_header(format!("sha256={}", digits.to_uppercase()).as_bytes()).is_ok());
        for wrong in [
            String::new(),
            digits.clone(),
            format!("SHA256={digits}"),
            format!("sha256={digits} "),
            format!(" sha256={digits}"),
            format!("sha256={}", &digits[2..]),
            format!("sha256={digits}00"),
            format!("sha256={}g", &digits[1..]),
            format!("sha1={digits}"),
            format!("sha256={digits},sha256={digits}"),
        ] {
            assert_eq!(
                parse_header(wrong.as_bytes()),
                Err(Refusal::Malformed),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn key_lists_are_checked_and_errors_never_show_a_key() {
        assert_eq!(SigningKeys::parse_list("").unwrap_err(), KeyError::Empty);
        assert_eq!(
            SigningKeys::parse_list("topsecret").unwrap_err(),
            KeyError::NotNamed(1)
        );
        assert_eq!(
            SigningKeys::parse_list("a=x,b c=y").unwrap_err(),
            KeyError::BadName(2)
        );
        assert_eq!(
            SigningKeys::parse_list("a=").unwrap_err(),
            KeyError::EmptyKey("a".to_owned())
        );
        assert_eq!(
            SigningKeys::parse_list("a=x,a=y").unwrap_err(),
            KeyError::Repeated("a".to_owned())
        );
        let many: Vec<_> = (0..=KEYS_MAX).map(|n| format!("k{n}=x")).collect();
        assert_eq!(
            SigningKeys::parse_list(&many.join(",")).unwrap_err(),
            KeyError::TooMany
        );
        assert!(!format!("{:?}", SigningKeys::parse_list("a=topsecret").unwrap()).contains("topsecret"));
    }

    #[test]
    fn a_key_file_allows_commas_equals_signs_and_comments() {
        let keys = SigningKeys::parse_file("# current\n  a=x,y=z \r\n\nb=w\n").unwrap();
        assert_eq!(keys.names().collect::<Vec<_>>(), ["a", "b"]);
        let header = SigningKey::new("a", b"x,y=z").sign(b"");
        assert_eq!(keys.verify(header.as_bytes(), b""), Ok("a"));
    }
}
