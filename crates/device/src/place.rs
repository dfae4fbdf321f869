//! Where a subject's records and marks are kept: a hash of its id, and one of 256 partitions.
//!
//! Both ledgers use the same, so marks can be carried from one to the other without knowing whose they are.

use porchlight_event::ids::hash_parts;

/// Partitions: enough that a cluster or a sweeper can share them out, few enough to visit all in one round trip.
pub const PARTITIONS: usize = 256;

/// The place of a device, account or other subject. The three never meet: each kind of record has keys of its own,
/// and marks are hashes that include what kind of subject it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Where its marks are.
    pub partition: u8,
    /// Stands for the id, which may have any length and alphabet.
    pub hash: [u8; 16],
}

impl Place {
    /// The place of the subject with this id.
    pub fn of(id: &str) -> Self {
        let whole = hash_parts(&[id.as_bytes()]);
        let mut hash = [0; 16];
        hash.copy_from_slice(&whole[..16]);
        Self {
            partition: whole[31],
            hash,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_never_changes_because_ledgers_keep_it() {
        let place = Place::of("ava1.ring.device.porch");
        let twin = hash_parts(&[b"ava1.ring.device.porch"]);
        assert_eq!((place.partition, &place.hash[..]), (twin[31], &twin[..16]));
        assert_ne!(Place::of("a"), Place::of("a\0"));
    }
}
