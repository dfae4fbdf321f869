//! Stable identifiers derived from bytes: the id of a queued event and short hashes for keys.
//!
//! Ring's own ids are opaque and of any length; whatever becomes a key or a message id is hashed first.

use sha2::{Digest, Sha256};

/// SHA-256 of the concatenated parts, each preceded by its length so that no two lists of parts collide.
pub fn hash_parts(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// The AMQP `message_id` of a queued event: 32 hex digits of the body's SHA-256, so that a retry of the same
/// bytes carries the same id.
pub fn message_id(body: &[u8]) -> String {
    let digest: [u8; 32] = Sha256::digest(body).into();
    hex::encode(&digest[..16])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn parts_of_different_cut_have_different_hashes() {
        assert_ne!(hash_parts(&[b"ab", b"c"]), hash_parts(&[b"a", b"bc"]));
        assert_ne!(hash_parts(&[b"a"]), hash_parts(&[b"a", b""]));
    }

    #[test]
    fn message_id_is_half_a_sha256_in_hex() {
        assert_eq!(message_id(b""), "e3b0c44298fc1c149afbf4c8996fb924");
    }
}
