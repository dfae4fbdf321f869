//! Why a signature that is refused may be right all the same: another encoding, a key of yesterday, a changed byte.
//!
//! For the operator's log only: it accepts nothing, and shows neither key nor digest. Every comparison is constant-time.

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use crate::signature::{DIGEST_BYTES, KeySlip, SigningKey, SigningKeys, parse_header};

/// Largest body that is looked into, in bytes. Ring's are a few hundred; each key costs some ten digests over it.
pub const BODY_BYTES_MAX: usize = 16 * 1024;

const ALPHABETS: [GeneralPurpose; 4] = [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD];
/// What a proxy or an editor adds to a body, or takes from its end.
const ENDINGS: [&[u8]; 3] = [b"\n", b"\r\n", b" "];
/// Longest header value that is looked into, in bytes: a prefix and a digest in any encoding.
const HEADER_BYTES_MAX: usize = 128;

/// What is wrong although the digest is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Diagnosis {
    /// The digest is in Base64.
    Base64,
    /// The digest has no `sha256=` before it.
    NoPrefix,
    /// The digest has something else before it.
    OtherPrefix,
    /// The key was among the settings until a while ago.
    RemovedKey,
    /// White space at the end of the body was added or taken on the way.
    BodyEnding,
    /// The key has white space at its end at one side only.
    KeyEnding,
    /// The key is set with quotation marks around it.
    KeyQuoted,
}

/// A digest as somebody sent it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    digest: [u8; DIGEST_BYTES],
    /// What its form is called if it is not the right one.
    form: Option<Diagnosis>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub diagnosis: Diagnosis,
    /// The name of the key that gives the digest.
    pub key: String,
}

impl Diagnosis {
    /// All that there are.
    pub const ALL: [Self; 7] = [
        Self::Base64,
        Self::NoPrefix,
        Self::OtherPrefix,
        Self::RemovedKey,
        Self::BodyEnding,
        Self::KeyEnding,
        Self::KeyQuoted,
    ];

    /// For programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Base64 => "base64",
            Self::NoPrefix => "no_prefix",
            Self::OtherPrefix => "other_prefix",
            Self::RemovedKey => "removed_key",
            Self::BodyEnding => "body_ending",
            Self::KeyEnding => "key_ending",
            Self::KeyQuoted => "key_quoted",
        }
    }

    /// For the person who can mend it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Base64 => {
                "the digest is right but in Base64: it must be sha256= and hex digits; who sends, or what stands in between, encodes it otherwise than Ring does for webhooks"
            }
            Self::NoPrefix => {
                "the digest is right but has no sha256= before it: something on the way cuts the header"
            }
            Self::OtherPrefix => "the digest is right but what stands before it is not sha256=",
            Self::RemovedKey => {
                "signed with a key that was taken out of the settings: put it back until nothing is signed with it any more"
            }
            Self::BodyEnding => {
                "the digest is right for a body with other white space at its end: something on the way changes bodies"
            }
            Self::KeyEnding => {
                "the digest is right for this key with white space at its end: copy the key again"
            }
            Self::KeyQuoted => "the digest is right for this key without the quotation marks around it",
        }
    }
}

impl Claim {
    /// The digest that a header value holds in whatever form; `None` where there is none to be found.
    pub fn read(value: &[u8]) -> Option<Self> {
        if let Ok(digest) = parse_header(value) {
            return Some(Self { digest, form: None });
        }
        let value = value.trim_ascii();
        if value.len() > HEADER_BYTES_MAX {
            return None;
        }
        // The whole value first: Base64 may end in the same sign that ends a prefix.
        let after_prefix = value
            .iter()
            .position(|byte| *byte == b'=')
            .map(|at| &value[at + 1..]);
        let prefixed = after_prefix.map(|rest| (rest, Diagnosis::OtherPrefix));
        for (text, form) in std::iter::once((value, Diagnosis::NoPrefix)).chain(prefixed) {
            let mut digest = [0; DIGEST_BYTES];
            if hex::decode_to_slice(text, &mut digest).is_ok() {
                return Some(Self {
                    digest,
                    form: Some(form),
                });
            }
            if let Some(digest) = from_base64(text) {
                return Some(Self {
                    digest,
                    form: Some(Diagnosis::Base64),
                });
            }
        }
        None
    }

    /// The claim of a well-formed header.
    pub fn of(digest: [u8; DIGEST_BYTES]) -> Self {
        Self { digest, form: None }
    }

    /// Whether the form is the one that is asked for, so that only key or body can be wrong.
    pub fn is_well_formed(&self) -> bool {
        self.form.is_none()
    }

    /// What is wrong with this claim about `body`, as far as it can be known: the first key that gives its digest in one
    /// of the ways that are known. Costs some ten digests for each key; give no body over [`BODY_BYTES_MAX`].
    pub fn diagnose<'k>(
        &self,
        body: &[u8],
        keys: &'k SigningKeys,
        removed: impl Iterator<Item = &'k SigningKey>,
    ) -> Option<Finding> {
        let found = |diagnosis, key: &SigningKey| {
            Some(Finding {
                diagnosis,
                key: key.name().to_owned(),
            })
        };
        if let Some(form) = self.form
            && let Some(key) = keys.iter().find(|key| key.gives(&self.digest, &[body]))
        {
            return found(form, key);
        }
        for key in removed {
            if key.gives(&self.digest, &[body]) {
                return found(self.form.unwrap_or(Diagnosis::RemovedKey), key);
            }
        }
        if self.form.is_some() {
            return None;
        }
        for key in keys.iter() {
            if let Some(slip) = key.slip_giving(&self.digest, body) {
                let diagnosis = match slip {
                    KeySlip::Ending => Diagnosis::KeyEnding,
                    KeySlip::Quoted => Diagnosis::KeyQuoted,
                };
                return found(diagnosis, key);
            }
            let added = ENDINGS
                .iter()
                .any(|ending| key.gives(&self.digest, &[body, ending]));
            let bare = body.trim_ascii_end();
            if added || (bare.len() < body.len() && key.gives(&self.digest, &[bare])) {
                return found(Diagnosis::BodyEnding, key);
            }
        }
        None
    }
}

/// Shows the form only.
impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim")
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

fn from_base64(text: &[u8]) -> Option<[u8; DIGEST_BYTES]> {
    let decoded = ALPHABETS.iter().find_map(|alphabet| alphabet.decode(text).ok())?;
    decoded.try_into().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    // Chosen so that its digest has a sign in Base64 that the two alphabets write differently.
    const BODY: &[u8] = br#"{"data":{"type":"device_online"}}2"#;

    fn keys() -> SigningKeys {
        SigningKeys::parse_file("first=k1\nsecond=\"k2\"\n").unwrap()
    }

    fn digest(key: &[u8], body: &[u8]) -> [u8; DIGEST_BYTES] {
        parse_header(SigningKey::new("x", key).sign(body).as_bytes()).unwrap()
    }

    fn diagnosed(header: &[u8], body: &[u8]) -> Option<(Diagnosis, String)> {
        let removed = SigningKey::new("gone", b"k0");
        let found = Claim::read(header)?.diagnose(body, &keys(), std::iter::once(&removed))?;
        Some((found.diagnosis, found.key))
    }

    fn as_first(diagnosis: Diagnosis) -> Option<(Diagnosis, String)> {
        Some((diagnosis, "first".to_owned()))
    }

    #[test]
    fn base64_of_either_alphabet_with_or_without_padding_and_prefix_is_known() {
        let digest = digest(b"k1", BODY);
        for alphabet in ALPHABETS {
            let text = alphabet.encode(digest);
            for header in [text.clone(), format!("sha256={text}"), format!(" {text}")] {
                assert_eq!(
                    diagnosed(header.as_bytes(), BODY),
                    as_first(Diagnosis::Base64),
                    "{header}"
                );
            }
        }
    }

    #[test]
    fn a_digest_without_its_prefix_or_with_another_is_known() {
        let digits = hex::encode(digest(b"k1", BODY));
        assert_eq!(diagnosed(digits.as_bytes(), BODY), as_first(Diagnosis::NoPrefix));
        for prefix in ["SHA256=", "v1=", "sha1="] {
            let header = format!("{prefix}{digits}");
            assert_eq!(
                diagnosed(header.as_bytes(), BODY),
                as_first(Diagnosis::OtherPrefix),
                "{prefix}"
            );
        }
    }

    #[test]
    fn a_key_that_was_removed_is_named() {
        let header = SigningKey::new("x", b"k0").sign(BODY);
        let expected = Some((Diagnosis::RemovedKey, "gone".to_owned()));
        assert_eq!(diagnosed(header.as_bytes(), BODY), expected);
    }

    #[test]
    fn a_body_whose_end_was_changed_is_known() {
        let header = SigningKey::new("x", b"k1").sign(BODY);
        let longer = [BODY, b"\r\n"].concat();
        assert_eq!(
            diagnosed(header.as_bytes(), &longer),
            as_first(Diagnosis::BodyEnding)
        );
        let header = SigningKey::new("x", b"k1").sign(&longer);
        assert_eq!(
            diagnosed(header.as_bytes(), BODY),
            as_first(Diagnosis::BodyEnding)
        );
    }

    #[test]
    fn a_key_with_a_slip_is_known() {
        for key in [&b"k1\n"[..], b"k1 ", b"k1\r\n"] {
            let header = SigningKey::new("x", key).sign(BODY);
            assert_eq!(diagnosed(header.as_bytes(), BODY), as_first(Diagnosis::KeyEnding));
        }
        let header = SigningKey::new("x", b"k2").sign(BODY);
        let expected = Some((Diagnosis::KeyQuoted, "second".to_owned()));
        assert_eq!(diagnosed(header.as_bytes(), BODY), expected);
    }

    #[test]
    fn what_is_wrong_in_no_known_way_and_what_is_right_have_no_diagnosis() {
        let other = SigningKey::new("x", b"stranger").sign(BODY);
        assert_eq!(diagnosed(other.as_bytes(), BODY), None);
        let digits = other.trim_start_matches("sha256=");
        assert_eq!(diagnosed(digits.as_bytes(), BODY), None);
        for header in [
            &b""[..],
            b"sha256=",
            b"=",
            b"\xff",
            &[b'a'; 4096],
            &[b'='; 100],
            b"sha256=abc",
        ] {
            assert!(Claim::read(header).is_none());
        }
        let right = SigningKey::new("x", b"k1").sign(BODY);
        assert_eq!(diagnosed(right.as_bytes(), BODY), None);
    }

    #[test]
    fn nothing_shows_a_digest() {
        let header = SigningKey::new("x", b"k1").sign(BODY);
        let claim = Claim::read(header.as_bytes()).unwrap();
        assert!(claim.is_well_formed());
        assert_eq!(format!("{claim:?}"), "Claim { form: None, .. }");
    }
}
