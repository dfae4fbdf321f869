//! Which dead letters are meant: every given condition must hold; of a repeated flag one value is enough.
//!
//! Pure: the time is passed in.

use std::time::Duration;

use porchlight_service::settings::parse;

use super::facts::Row;

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
}

impl FilterArgs {
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
            replays: 0,
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
            ("--reason no_device --device d1 --newer-than 2m", true),
            ("--reason no_device --device d1 --newer-than 1s", false),
        ] {
            assert_eq!(holds(line), expected, "{line}");
        }
    }
}
