//! The total order of events: `(timestamp, sent at, event id, type)`, larger wins.
//!
//! Kept as one string whose byte order is that order, so that a script compares it without parsing: a 64-bit
//! integer would lose digits in a language whose numbers are doubles.

/// Digits before the event id: twice a 64-bit number, shifted to be unsigned and padded to 20 digits.
pub const HEAD_BYTES: usize = 40;
/// The largest of the two numbers.
const NUMBER_MAX: &[u8; HEAD_BYTES / 2] = b"18446744073709551615";

/// Where an event stands among all others of its subject. Compared byte by byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order(String);

impl Order {
    /// The order of an event. `sent_at_ns` is clamped to 64 bits (the years 1677 to 2262); one that is missing
    /// stands before all others.
    ///
    /// The type comes last so that two events which share time and id still have one order everywhere.
    pub fn new(timestamp_ms: i64, sent_at_ns: Option<i128>, event_id: &str, event_type: &str) -> Self {
        let sent_at = sent_at_ns.map_or(i64::MIN, |ns| {
            i64::try_from(ns).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX })
        });
        Self(format!(
            "{:020}{:020}{event_id}\0{event_type}",
            shifted(timestamp_ms),
            shifted(sent_at)
        ))
    }

    /// The form in which a ledger keeps it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads back what [`Order::as_str`] gave; `None` for anything else.
    pub fn from_stored(text: String) -> Option<Self> {
        let head = text.as_bytes().get(..HEAD_BYTES)?;
        let fits = |digits: &[u8]| digits.iter().all(u8::is_ascii_digit) && digits <= NUMBER_MAX.as_slice();
        head.chunks(HEAD_BYTES / 2).all(fits).then_some(Self(text))
    }

    /// The two numbers at its head, in the form in which they are compared, and what follows them. For a ledger that
    /// keeps numbers shorter than digits.
    pub fn parts(&self) -> (u64, u64, &str) {
        let number = |digits: &str| digits.parse().unwrap_or_default();
        let (head, tail) = self.0.split_at(HEAD_BYTES);
        (number(&head[..20]), number(&head[20..]), tail)
    }

    /// Puts together again what [`Order::parts`] gave.
    pub fn from_parts(first: u64, second: u64, tail: &str) -> Self {
        Self(format!("{first:020}{second:020}{tail}"))
    }

    /// The timestamp in milliseconds since the epoch.
    pub fn timestamp_ms(&self) -> i64 {
        self.0[..20]
            .parse::<u64>()
            .map_or(0, |shifted| shifted.wrapping_sub(1 << 63).cast_signed())
    }
}

/// Maps the smallest 64-bit integer to zero and keeps the order.
fn shifted(number: i64) -> u64 {
    number.cast_unsigned().wrapping_add(1 << 63)
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Order({} {:?})", self.timestamp_ms(), &self.0[HEAD_BYTES..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_timestamps_win_whatever_their_sign_or_size() {
        let times = [
            i64::MIN,
            -1,
            0,
            1,
            999,
            1000,
            (1 << 53) + 1,
            (1 << 53) + 2,
            i64::MAX,
        ];
        for pair in times.windows(2) {
            assert!(
                Order::new(pair[0], None, "z", "z") < Order::new(pair[1], None, "a", "a"),
                "{pair:?}"
            );
        }
        for time in times {
            assert_eq!(Order::new(time, Some(5), "e", "t").timestamp_ms(), time);
        }
    }

    #[test]
    fn ties_fall_to_sending_time_then_id_then_type() {
        let sorted = [
            Order::new(1, None, "b", "z"),
            Order::new(1, Some(-9), "b", "z"),
            Order::new(1, Some(1), "b", "z"),
            Order::new(1, Some(2), "a", "z"),
            Order::new(1, Some(2), "b", "a"),
            Order::new(1, Some(2), "b", "b"),
            Order::new(1, Some(i128::MAX), "", ""),
        ];
        assert!(sorted.is_sorted() && sorted.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn only_what_was_stored_reads_back() {
        let order = Order::new(-7, Some(3), "e\0\u{1f600}", "t");
        assert_eq!(Order::from_stored(order.as_str().to_owned()), Some(order.clone()));
        for other in [
            "12",
            &"9".repeat(HEAD_BYTES),
            &format!("{}x", "0".repeat(HEAD_BYTES - 1)),
        ] {
            assert_eq!(Order::from_stored((*other).to_owned()), None, "{other}");
        }
        let (first, second, tail) = order.parts();
        assert_eq!(Order::from_parts(first, second, tail), order);
    }
}
