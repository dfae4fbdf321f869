//! Which dead letters are meant: every given condition must hold; of a repeated flag one value is enough.
//!
//! Pure: the time is passed in.

use std::ops::RangeInclusive;
use std::time::Duration;

use porchlight_service::settings::parse;
use serde_json::{Value, json};

use super::facts::Row;

/// Longest text that is looked for, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// The conditions.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct FilterArgs {
    /// Why it died: not_json, no_device, bad_signature, delivery_limit, …; may be given several times
    #[arg(long, value_name = "CODE", help_heading = "Which letters")]
    reason: Vec<String>,
    /// Which step gave up; may be given several times
    #[arg(long, value_name = "CODE", help_heading = "Which letters")]
    stage: Vec<String>,
    /// Type of the event, such as device_online; may be given several times
    #[arg(long = "type", value_name = "TYPE", help_heading = "Which letters")]
    kind: Vec<String>,
    /// The device it is about, by its whole id
    #[arg(long, value_name = "ID", help_heading = "Which letters")]
    device: Option<String>,
    /// The account it is about, by its whole id
    #[arg(long, value_name = "ID", help_heading = "Which letters")]
    account: Option<String>,
    /// Dead for longer than this: ms, s, m or h
    #[arg(long, value_name = "SPAN", value_parser = parse::duration, help_heading = "Which letters")]
    older_than: Option<Duration>,
    /// Dead for less than this: ms, s, m or h
    #[arg(long, value_name = "SPAN", value_parser = parse::duration, help_heading = "Which letters")]
    newer_than: Option<Duration>,
    /// Beginning of the message id
    #[arg(long, value_name = "ID", help_heading = "Which letters")]
    id: Option<String>,
    /// How often it was replayed: N, or from N.. , or ..M, or N..M with both ends
    #[arg(long, value_name = "N..M", value_parser = counts, help_heading = "Which letters")]
    replays: Option<RangeInclusive<u32>>,
    /// Text found in its body, byte for byte, 1 to 256 bytes; the body is what Ring sent about somebody's home
    #[arg(long, value_name = "TEXT", value_parser = text, help_heading = "Which letters")]
    text: Option<String>,
}

fn counts(given: &str) -> Result<RangeInclusive<u32>, String> {
    let number = |text: &str, empty| match text {
        "" => Ok(empty),
        text => text.parse().map_err(|_| format!("'{text}' is no count")),
    };
    let range = match given.split_once("..") {
        Some((from, to)) => number(from, 0)?..=number(to.trim_start_matches('='), u32::MAX)?,
        None if given.is_empty() => return Err("a count, such as 3, 1.. or 0..2".to_owned()),
        None => number(given, 0)?..=number(given, 0)?,
    };
    if range.is_empty() {
        return Err("no count lies between these two".to_owned());
    }
    Ok(range)
}

fn text(given: &str) -> Result<String, String> {
    if (1..=TEXT_BYTES_MAX).contains(&given.len()) {
        Ok(given.to_owned())
    } else {
        Err(format!("1 to {TEXT_BYTES_MAX} bytes"))
    }
}

impl FilterArgs {
    /// Whether it picks every letter.
    pub(crate) fn is_empty(&self) -> bool {
        let lists = [&self.reason, &self.stage, &self.kind];
        let texts = [&self.device, &self.account, &self.id, &self.text];
        lists.iter().all(|list| list.is_empty())
            && texts.iter().all(|text| text.is_none())
            && self.older_than.or(self.newer_than).is_none()
            && self.replays.is_none()
    }

    /// What is looked for in the bodies.
    pub(crate) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// The conditions for an audit. A text is told by its length: it may be personal data.
    pub(crate) fn told(&self) -> Value {
        let seconds = |span: Option<Duration>| span.map(|span| span.as_secs_f64());
        let all = json!({
            "reason": self.reason, "stage": self.stage, "type": self.kind, "device": self.device,
            "account": self.account, "older_than_s": seconds(self.older_than),
            "newer_than_s": seconds(self.newer_than), "id": self.id,
            "replays": self.replays.as_ref().map(|range| format!("{}..{}", range.start(), range.end())),
            "text_bytes": self.text.as_ref().map(String::len),
        });
        let Value::Object(all) = all else { return all };
        let is_given =
            |value: &Value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty());
        all.into_iter().filter(|(_, value)| is_given(value)).collect()
    }

    /// Whether a letter is meant.
    pub(crate) fn wants(&self, row: &Row, now_ms: i64) -> bool {
        let among = |wanted: &[String], value: Option<&str>| {
            wanted.is_empty() || value.is_some_and(|value| wanted.iter().any(|one| one == value))
        };
        // A letter without a time of death is neither older nor newer than anything.
        let age = row
            .dead_at
            .map(|at| Duration::from_millis(now_ms.saturating_sub(at).max(0).unsigned_abs()));
        among(&self.reason, Some(&row.reason))
            && among(&self.stage, row.stage.as_deref())
            && among(&self.kind, row.kind.as_deref())
            && self
                .device
                .as_ref()
                .is_none_or(|device| row.device_ids.contains(device))
            && self
                .account
                .as_ref()
                .is_none_or(|account| row.account_id.as_ref() == Some(account))
            && self
                .older_than
                .is_none_or(|span| age.is_some_and(|age| age > span))
            && self
                .newer_than
                .is_none_or(|span| age.is_some_and(|age| age < span))
            && self
                .id
                .as_ref()
                .is_none_or(|id| row.message_id.starts_with(id.as_str()))
            && self
                .replays
                .as_ref()
                .is_none_or(|range| range.contains(&row.replays))
            && (self.text.is_none() || row.has_text == Some(true))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Wrapper {
        #[command(flatten)]
        filter: FilterArgs,
    }

    const NOW_MS: i64 = 10_000_000;

    fn holds(line: &str) -> bool {
        let args = std::iter::once("list").chain(line.split_whitespace());
        let filter = Wrapper::try_parse_from(args).unwrap().filter;
        let row = Row {
            message_id: "abcdef".to_owned(),
            origin: "event".to_owned(),
            reason: "no_device".to_owned(),
            stage: Some("read".to_owned()),
            detail: None,
            dead_at: Some(NOW_MS - 60_000),
            kind: Some("device_online".to_owned()),
            event_id: None,
            device_id: Some("d1".to_owned()),
            device_ids: vec!["d1".to_owned(), "d2".to_owned()],
            account_id: Some("a".to_owned()),
            body_bytes: 0,
            replays: 2,
            has_text: filter.text().map(|text| "a body".contains(text)),
        };
        filter.wants(&row, NOW_MS)
    }

    #[test]
    fn each_condition_alone_decides() {
        for (line, expected) in [
            ("", true),
            ("--reason not_json --reason no_device", true),
            ("--reason not_json", false),
            ("--stage read", true),
            ("--stage decide", false),
            ("--type device_online", true),
            ("--type device_offline", false),
            ("--device d2", true),
            ("--device d", false),
            ("--account a", true),
            ("--account b", false),
            ("--older-than 59s", true),
            ("--older-than 61s", false),
            ("--newer-than 2m", true),
            ("--newer-than 1m", false),
            ("--id abc", true),
            ("--id bc", false),
            ("--replays 2", true),
            ("--replays 1", false),
            ("--replays 2..", true),
            ("--replays 3..", false),
            ("--replays ..2", true),
            ("--replays ..1", false),
            ("--replays 1..2", true),
            ("--text body", true),
            ("--text corpse", false),
            ("--reason no_device --device d1 --newer-than 2m", true),
            ("--reason no_device --device d1 --newer-than 1s", false),
        ] {
            assert_eq!(holds(line), expected, "{line}");
        }
    }

    #[test]
    fn a_range_without_a_count_and_a_text_without_bytes_are_refused() {
        for line in ["--replays 2..1", "--replays x", "--replays -1", "--replays ="] {
            let args = std::iter::once("list").chain(line.split_whitespace());
            assert!(Wrapper::try_parse_from(args).is_err(), "{line}");
        }
        assert!(text("").is_err() && text(&"x".repeat(257)).is_err() && text(&"x".repeat(256)).is_ok());
    }

    #[test]
    fn an_audit_tells_what_was_given_and_of_a_text_only_how_long_it_is() {
        let filter = |line: &str| {
            let args = std::iter::once("list").chain(line.split_whitespace());
            Wrapper::try_parse_from(args).unwrap().filter
        };
        assert!(filter("").is_empty());
        assert_eq!(filter("").told(), json!({}));
        let some = filter("--reason a --replays 3.. --newer-than 2m --text secret");
        assert!(!some.is_empty());
        let told =
            json!({ "reason": ["a"], "replays": "3..4294967295", "newer_than_s": 120.0, "text_bytes": 6 });
        assert_eq!(some.told(), told);
    }
}
