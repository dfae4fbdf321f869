//! The written forms of single values: spans of time, bytes, numbers and addresses.
//!
//! Pure: no bound is checked here, and an error is the half sentence that follows the quoted value.

use std::net::SocketAddr;
use std::time::Duration;

const UNITS_OF_TIME: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
const UNITS_OF_SIZE: [(&str, usize); 5] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// `250ms`, `5s`, `2m` or `1h`; a number needs its unit, since seconds and milliseconds are easily confused.
///
/// # Errors
/// What is wrong and what to write instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let Ok(number) = number.parse::<u64>() else {
        return Err("is not a span of time; write for example 250ms, 5s or 2m".to_owned());
    };
    if unit.is_empty() {
        return Err(format!("has no unit; write {number}s or {number}ms"));
    }
    let Some((_, millis)) = UNITS_OF_TIME.iter().find(|(name, _)| *name == unit) else {
        return Err("has an unknown unit; the units are ms, s, m and h".to_owned());
    };
    let millis = number.checked_mul(*millis).ok_or("is too long")?;
    Ok(Duration::from_millis(millis))
}

/// `64KiB`, `1MiB`, `2GiB`, or a plain number of bytes.
///
/// # Errors
/// What is wrong and what to write instead.
pub fn bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = split(text);
    let Ok(number) = number.parse::<usize>() else {
        return Err("is not a size; write for example 64KiB or 1MiB".to_owned());
    };
    let unit = if unit.is_empty() { "B" } else { unit };
    let Some((_, factor)) = UNITS_OF_SIZE.iter().find(|(name, _)| *name == unit) else {
        return Err("has an unknown unit; the units are B, KiB, MiB, GiB and TiB".to_owned());
    };
    number
        .checked_mul(*factor)
        .ok_or_else(|| "is too large".to_owned())
}

/// A plain number.
///
/// # Errors
/// What is wrong.
pub fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "is not a whole number".to_owned())
}

/// An IP address and a port. A host name is refused: it may mean several addresses, and one is listened on.
///
/// # Errors
/// What is wrong and what to write instead.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "is not an IP address with a port; write for example 0.0.0.0:8080".to_owned())
}

/// A span of time in its largest whole unit.
pub fn show_duration(value: Duration) -> String {
    let millis = value.as_millis();
    let whole = |unit: &&(&str, u64)| millis.is_multiple_of(u128::from(unit.1)) && millis > 0;
    let (name, factor) = UNITS_OF_TIME
        .iter()
        .rev()
        .find(whole)
        .unwrap_or(&UNITS_OF_TIME[1]);
    format!("{}{name}", millis / u128::from(*factor))
}

/// A size in its largest whole unit.
pub fn show_bytes(value: usize) -> String {
    let whole = |unit: &&(&str, usize)| value.is_multiple_of(unit.1) && value > 0;
    let (name, factor) = UNITS_OF_SIZE
        .iter()
        .rev()
        .find(whole)
        .unwrap_or(&UNITS_OF_SIZE[0]);
    format!("{}{name}", value / factor)
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_need_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("2 m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("5").unwrap_err(), "has no unit; write 5s or 5ms");
        for wrong in [
            "",
            "s",
            "-1s",
            "1.5s",
            "5sec",
            "5S",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(bytes("1048576"), Ok(1 << 20));
        assert_eq!(bytes("64KiB"), Ok(64 << 10));
        assert_eq!(bytes("1 MiB"), Ok(1 << 20));
        for wrong in ["", "MiB", "1MB", "1M", "-1", "1.5MiB", "18446744073709551615GiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_are_shown_in_the_form_they_are_read() {
        for millis in [0, 1, 999, 1_000, 1_500, 60_000, 90_000, 7_200_000] {
            let value = Duration::from_millis(millis);
            assert_eq!(duration(&show_duration(value)), Ok(value));
        }
        assert_eq!(show_duration(Duration::from_secs(120)), "2m");
        for size in [0, 1, 1_023, 1_024, 1 << 20, 3 << 30] {
            assert_eq!(bytes(&show_bytes(size)), Ok(size));
        }
    }

    #[test]
    fn an_address_needs_a_port_and_no_name() {
        assert!(address("0.0.0.0:8080").is_ok() && address("[::1]:0").is_ok());
        assert!(address("localhost:80").is_err() && address("127.0.0.1").is_err());
    }
}
