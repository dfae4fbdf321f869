//! The signature on our own callbacks, by the Standard Webhooks scheme: HMAC-SHA256 over `id.timestamp.body`, Base64.
//!
//! It reads no clock: how old a timestamp may be is decided by who verifies. No secret is ever shown by `Debug` or an
//! error, and comparison is constant-time (`hmac`'s own).

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Most secrets at once: a change of secrets needs two, and each makes the header longer.
pub const SECRETS_MAX: usize = 8;
/// Fewest bytes of a decoded secret.
pub const SECRET_BYTES_MIN: usize = 24;
/// Most bytes of a decoded secret.
pub const SECRET_BYTES_MAX: usize = 64;

const PREFIX: &str = "whsec_";
const VERSION: &str = "v1,";
/// Secrets are pasted by people, with and without the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The secrets that a callback is signed with; at least one, and one signature for each.
#[derive(Clone)]
pub struct WebhookSecrets(Vec<Hmac<Sha256>>);

/// Why text holds no secrets. Names the entry, never the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// There is none.
    #[error("holds no secret")]
    Empty,
    /// More than [`SECRETS_MAX`].
    #[error("holds more than {SECRETS_MAX} secrets")]
    TooMany,
    /// Another beginning.
    #[error("entry {0} does not begin with whsec_")]
    NoPrefix(usize),
    /// What follows cannot be decoded.
    #[error("entry {0} is not whsec_ followed by Base64")]
    NotBase64(usize),
    /// Too short to be safe, or longer than other implementations take.
    #[error("entry {0} is not {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes long once decoded")]
    Length(usize),
}

impl WebhookSecrets {
    /// Reads `whsec_…`; several are separated by commas or spaces.
    ///
    /// # Errors
    /// [`SecretError`], with entries counted from 1.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let entries = text
            .split(|c: char| c == ',' || c.is_ascii_whitespace())
            .filter(|entry| !entry.is_empty());
        let mut keyed = Vec::new();
        for (number, entry) in (1..).zip(entries) {
            let encoded = entry.strip_prefix(PREFIX).ok_or(SecretError::NoPrefix(number))?;
            let secret = BASE64
                .decode(encoded)
                .map_err(|_| SecretError::NotBase64(number))?;
            if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
                return Err(SecretError::Length(number));
            }
            keyed.push(
                <Hmac<Sha256> as KeyInit>::new_from_slice(&secret).expect("HMAC takes a key of any length"),
            );
        }
        match keyed.len() {
            0 => Err(SecretError::Empty),
            count if count > SECRETS_MAX => Err(SecretError::TooMany),
            _ => Ok(Self(keyed)),
        }
    }

    /// The value of `webhook-signature`: a signature for each secret, in the order given, between spaces.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp_s: i64, body: &[u8]) -> String {
        let signatures: Vec<String> = self
            .macs(id, timestamp_s, body)
            .map(|mac| format!("{VERSION}{}", BASE64.encode(mac.finalize().into_bytes())))
            .collect();
        signatures.join(" ")
    }

    /// Whether any signature in the value of `webhook-signature` is by any of these secrets. Signatures of other
    /// versions are passed over.
    #[must_use]
    pub fn verify(&self, id: &str, timestamp_s: i64, body: &[u8], header: &str) -> bool {
        let digests: Vec<Vec<u8>> = header
            .split(' ')
            .filter_map(|signature| signature.strip_prefix(VERSION))
            .filter_map(|encoded| BASE64.decode(encoded).ok())
            .collect();
        self.macs(id, timestamp_s, body).any(|mac| {
            digests
                .iter()
                .any(|digest| mac.clone().verify_slice(digest).is_ok())
        })
    }

    fn macs(&self, id: &str, timestamp_s: i64, body: &[u8]) -> impl Iterator<Item = Hmac<Sha256>> {
        let head = format!("{id}.{timestamp_s}.");
        self.0.iter().map(move |keyed| {
            let mut mac = keyed.clone();
            mac.update(head.as_bytes());
            mac.update(body);
            mac
        })
    }
}

/// Shows how many there are.
impl std::fmt::Debug for WebhookSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WebhookSecrets({})", self.0.len())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// The bytes 0 to 31, and 100 to 123.
    const FIRST: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const SECOND: &str = "whsec_ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7";
    const BODY: &[u8] = br#"{"a":1}"#;
    /// What OpenSSL makes of `00ff.1771025571.{"a":1}` with each.
    const BY_FIRST: &str = "v1,v+XDiX04pwtjiK6Q+FuXld0dkUTNtYjxs2WT6EhKg/g=";
    const BY_SECOND: &str = "v1,EQivxhITbvgcxAEei5ntMy3lrD4PcWGhdPw5m5iDDOk=";

    fn secrets(text: &str) -> WebhookSecrets {
        WebhookSecrets::parse(text).unwrap()
    }

    #[test]
    fn signatures_are_those_that_other_programs_make() {
        assert_eq!(secrets(FIRST).sign("00ff", 1_771_025_571, BODY), BY_FIRST);
        let both = secrets(&format!("{FIRST}, {SECOND}")).sign("00ff", 1_771_025_571, BODY);
        assert_eq!(both, format!("{BY_FIRST} {BY_SECOND}"));
    }

    #[test]
    fn one_known_secret_among_several_is_enough_and_anything_changed_is_refused() {
        let (second, header) = (secrets(SECOND), format!("v1a,AAAA {BY_FIRST} {BY_SECOND}"));
        assert!(second.verify("00ff", 1_771_025_571, BODY, &header));
        for (id, timestamp, body, header) in [
            ("00fe", 1_771_025_571, BODY, header.as_str()),
            ("00ff", 1_771_025_572, BODY, &header),
            ("00ff", 1_771_025_571, b"{\"a\":2}", &header),
            ("00ff", 1_771_025_571, BODY, BY_FIRST),
            ("00ff", 1_771_025_571, BODY, &BY_SECOND[3..]),
            ("00ff", 1_771_025_571, BODY, "v1,"),
            ("00ff", 1_771_025_571, BODY, ""),
        ] {
            assert!(!second.verify(id, timestamp, body, header), "{id} {header}");
        }
    }

    #[test]
    fn padding_may_be_left_out() {
        let bare = secrets(FIRST.trim_end_matches('='));
        assert_eq!(bare.sign("00ff", 1_771_025_571, BODY), BY_FIRST);
    }

    #[test]
    fn what_is_no_secret_is_named_by_its_place_and_never_shown() {
        let refused = |text: &str| WebhookSecrets::parse(text).unwrap_err();
        assert_eq!(refused(" , "), SecretError::Empty);
        assert_eq!(refused(&format!("{FIRST} hush")), SecretError::NoPrefix(2));
        assert_eq!(refused("whsec_hush!"), SecretError::NotBase64(1));
        assert_eq!(refused("whsec_aHVzaA=="), SecretError::Length(1));
        assert_eq!(
            refused(&format!("whsec_{}", "AAAA".repeat(22))),
            SecretError::Length(1)
        );
        assert_eq!(refused(&format!("{FIRST} ").repeat(9)), SecretError::TooMany);
        let shown = format!("{:?}", secrets(FIRST));
        assert_eq!(shown, "WebhookSecrets(1)");
    }
}
