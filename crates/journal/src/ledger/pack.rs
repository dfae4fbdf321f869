//! Numbers and texts packed one after the other, and read back.
//!
//! It does not know what they mean. Numbers take as many bytes as they need, seven bits in each.

/// What is being packed.
#[derive(Debug, Default)]
pub(super) struct Packer {
    pub(super) bytes: Vec<u8>,
}

/// What is being read. Each step gives `None` when the bytes are not what it reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unpacker<'a> {
    pub(super) rest: &'a [u8],
}

impl Packer {
    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.bytes.push(number.to_le_bytes()[0]);
    }

    /// Small numbers of either sign are short.
    pub(super) fn signed(&mut self, number: i64) {
        self.number((number << 1 ^ number >> 63).cast_unsigned());
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.raw(text.as_bytes());
    }

    pub(super) fn maybe<T>(&mut self, value: Option<T>, pack: impl FnOnce(&mut Self, T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            pack(self, value);
        }
    }
}

impl<'a> Unpacker<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    pub(super) fn raw(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()?).ok()?;
        std::str::from_utf8(self.raw(length)?).ok()
    }

    pub(super) fn maybe<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.byte()? {
            0 => Some(None),
            1 => read(self).map(Some),
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_packed_reads_back(
            number in any::<u64>(), signed in any::<i64>(), small in -70_i64..70, text in ".{0,200}",
            maybe in any::<Option<u64>>(),
        ) {
            let mut packer = Packer::default();
            packer.number(number);
            packer.signed(signed);
            packer.signed(small);
            packer.text(&text);
            packer.maybe(maybe, Packer::number);
            let mut read = Unpacker { rest: &packer.bytes };
            prop_assert_eq!(read.number(), Some(number));
            prop_assert_eq!(read.signed(), Some(signed));
            prop_assert_eq!(read.signed(), Some(small));
            prop_assert_eq!(read.text(), Some(text.as_str()));
            prop_assert_eq!(read.maybe(Unpacker::number), Some(maybe));
            prop_assert!(read.rest.is_empty());
        }

        #[test]
        fn bytes_of_any_kind_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut read = Unpacker { rest: &bytes };
            while read.number().is_some() && read.text().is_some() && read.maybe(Unpacker::signed).is_some() {}
        }
    }

    #[test]
    fn small_numbers_take_one_byte_and_the_largest_ten() {
        let length = |number| {
            let mut packer = Packer::default();
            packer.signed(number);
            packer.bytes.len()
        };
        assert_eq!(
            [0, -64, 63, 64, i64::MIN, i64::MAX].map(length),
            [1, 1, 1, 2, 10, 10]
        );
    }
}
