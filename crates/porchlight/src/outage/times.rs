//! Times as a person writes and reads them, in UTC.
//!
//! Inside, a time is milliseconds since the epoch.

use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

/// Without a zone, which is UTC then.
const FORMS: [&[BorrowedFormatItem<'_>]; 2] = [
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]"),
    format_description!("[year]-[month]-[day]T[hour]:[minute]"),
];

/// Reads a time; a space may stand for the `T`.
pub(super) fn parse(text: &str) -> Result<i64, String> {
    let text = text.trim().replacen(' ', "T", 1);
    let zoned = OffsetDateTime::parse(&text, &Rfc3339).ok();
    let plain = || {
        FORMS
            .iter()
            .find_map(|form| PrimitiveDateTime::parse(&text, form).ok())
    };
    let date = zoned.or_else(|| plain().map(PrimitiveDateTime::assume_utc));
    let date = date.ok_or("write a time as 2026-02-13T22:10, in UTC, or as 2026-02-13T23:10:30+01:00")?;
    i64::try_from(date.unix_timestamp_nanos() / 1_000_000).map_err(|_| "too far away".to_owned())
}

/// `2026-02-13 22:10:00 UTC`
pub(super) fn shown(ms: i64) -> String {
    let iso = iso(ms);
    format!("{} UTC", iso[..19].replacen('T', " ", 1))
}

/// `2026-02-13T22:10:00.000Z`
pub(super) fn iso(ms: i64) -> String {
    porchlight_device::command::iso_milliseconds(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_a_zone_is_utc() {
        let expected = Ok(1_771_020_600_000);
        for text in [
            "2026-02-13T22:10",
            "2026-02-13 22:10",
            " 2026-02-13T22:10:00 ",
            "2026-02-13T22:10:00Z",
            "2026-02-13T23:10:00+01:00",
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(shown(1_771_020_600_000), "2026-02-13 22:10:00 UTC");
        for text in ["", "yesterday", "2026-02-13", "2026-02-30T22:10", "22:10"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
