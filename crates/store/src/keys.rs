//! Every key of ours: how it is spelled, what it holds and how long it lives. No other file spells one.
//!
//! It does not talk to the server. Each key begins `porchlight:{NNN}:`, where the braces make the partition's number
//! the part that a cluster hashes: all keys of one partition lie in one slot.
//!
//! | key | type | holds | lives |
//! |---|---|---|---|
//! | `d:<h>` | hash | a device: `id`, `acct` account, `ao` order of the event that named it, `s` newest online or offline order and `v` which, `ad` added, `rm` removed, `aa` `ar` the account's registers, `st` status and `si` since when, `fl` generation floor, `no` count of operations, `x:<h>` registers of an account that it may be on its way to | for ever |
//! | `o:<h>` | hash | operation id to its record | for ever |
//! | `h:<h>` | list | lines of history, newest first | for ever, 24 lines at most |
//! | `ob` | hash | `<h>:<operation id>` to the command it owes | until confirmed |
//! | `due` | sorted set | the same members by when they are to be sent | until confirmed |
//! | `ow` | sorted set | the same members by since when they are owed | until confirmed |
//! | `n` | hash | status to count of devices | for ever |
//! | `ix` | sorted set | `<h>` of every device, for pages | for ever |
//! | `ac:<h>` | hash | an account: `id`, `added`, `removed` | for ever |
//! | `am:<h>` | sorted set | `NNN<h>` of every device that ever belonged to it | for ever |
//! | `fan` | hash | `<h>` of each account whose devices must be told of its registers, with the news | until told |
//! | `dl` | string | the shape of the marks, see [`crate::marks`] | for ever |
//! | `dd:<generation>:<level>:<bucket>` | set of integers | marks of seen events | see [`crate::marks`] |
//! | `probe` | string | when the store was last proved writable | a minute |
//!
//! `<h>` is 32 hex digits of a hash of the id, which may have any length and alphabet; the id itself is inside.
//! Devices stay in `am` after they left: striking one off would race with its return, and few ever leave.

use std::fmt::Write;

pub(crate) use porchlight_device::place::PARTITIONS;

/// One of the [`PARTITIONS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Partition(u8);

/// Where the keys of one device, account or other subject lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) partition: Partition,
    hash: [u8; 16],
}

impl Partition {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    fn key(self, rest: &str) -> String {
        format!("porchlight:{{{:03}}}:{rest}", self.0)
    }

    pub(crate) fn outbox(self) -> String {
        self.key("ob")
    }

    pub(crate) fn due(self) -> String {
        self.key("due")
    }

    pub(crate) fn owed_since(self) -> String {
        self.key("ow")
    }

    pub(crate) fn counts(self) -> String {
        self.key("n")
    }

    pub(crate) fn index_of_devices(self) -> String {
        self.key("ix")
    }

    pub(crate) fn accounts_to_tell(self) -> String {
        self.key("fan")
    }

    pub(crate) fn shape(self) -> String {
        self.key("dl")
    }

    pub(crate) fn probe(self) -> String {
        self.key("probe")
    }

    pub(crate) fn bucket(self, generation: i64, level: u8, bucket: u64) -> String {
        let mut key = String::with_capacity(40);
        // Writing to a string cannot fail.
        let _ = write!(
            key,
            "porchlight:{{{:03}}}:dd:{generation}:{level}:{bucket}",
            self.0
        );
        key
    }
}

impl Place {
    /// The place of a device, account or other subject.
    pub(crate) fn of(id: &str) -> Self {
        let porchlight_device::Place { partition, hash } = porchlight_device::Place::of(id);
        Self {
            partition: Partition(partition),
            hash,
        }
    }

    /// Reads back what [`Place::member`] gave.
    pub(crate) fn from_member(member: &str) -> Option<Self> {
        let (partition, hash) = member.split_at_checked(3)?;
        if !partition.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Self::at(Partition(partition.parse().ok()?), hash)
    }

    /// The place of a device in the index of `partition`.
    pub(crate) fn at(partition: Partition, hash: &str) -> Option<Self> {
        let mut half = [0; 16];
        hex::decode_to_slice(hash, &mut half).ok()?;
        Some(Self {
            partition,
            hash: half,
        })
    }

    /// Names it where the partition is not known: `NNN<h>`.
    pub(crate) fn member(&self) -> String {
        format!("{:03}{}", self.partition.0, self.hash())
    }

    pub(crate) fn hash(&self) -> String {
        hex::encode(self.hash)
    }

    fn key(&self, kind: &str) -> String {
        self.partition.key(&format!("{kind}:{}", self.hash()))
    }

    pub(crate) fn device(&self) -> String {
        self.key("d")
    }

    pub(crate) fn operations(&self) -> String {
        self.key("o")
    }

    pub(crate) fn history(&self) -> String {
        self.key("h")
    }

    pub(crate) fn account(&self) -> String {
        self.key("ac")
    }

    pub(crate) fn devices_of_account(&self) -> String {
        self.key("am")
    }

    /// The eight keys that every script which moves a device is given.
    pub(crate) fn device_keys(&self) -> [String; 8] {
        let partition = self.partition;
        [
            self.device(),
            self.operations(),
            self.history(),
            partition.outbox(),
            partition.due(),
            partition.owed_since(),
            partition.counts(),
            partition.index_of_devices(),
        ]
    }

    /// The member of the outbox for one operation.
    pub(crate) fn outbox_member(&self, operation_id: &str) -> String {
        format!("{}:{operation_id}", self.hash())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_device_carry_the_tag_of_its_partition() {
        for id in ["", "a", "\0", "a}{b", "\u{1f600}", &"x".repeat(10_000)] {
            let place = Place::of(id);
            let tag = format!("porchlight:{{{:03}}}:", place.partition.index());
            assert!(
                place
                    .device_keys()
                    .iter()
                    .all(|key| key.starts_with(&tag) && key.len() < 64)
            );
            assert_eq!(Place::from_member(&place.member()), Some(place));
        }
    }

    #[test]
    fn what_is_no_member_does_not_read_back() {
        for text in [
            "",
            "12",
            "999",
            "+12",
            "0010",
            "001zz",
            "256aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "ä1",
        ] {
            assert_eq!(Place::from_member(text), None, "{text}");
        }
    }
}
