//! When Ring tries again, and until when it keeps what it could not deliver: arithmetic on spans of time.
//!
//! It knows no clock and no outage by itself; the caller says when nothing was taken.

use std::time::Duration;

/// Pauses before Ring's second to seventh attempt, each after the attempt before.
pub const PAUSES: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(600),
    Duration::from_secs(3_600),
];
/// From the first attempt to the last one, in milliseconds: 72 min 36 s. What fails then, Ring no longer sends by itself.
pub const LADDER_MS: i64 = 4_356_000;
/// For how long after the last attempt Ring keeps an event and can send it again when it is asked to, in milliseconds.
pub const KEPT_MS: i64 = 72 * 3_600_000;
/// Two outages with less than this between them count as one, in milliseconds: attempts do not come to the second, and
/// each waits up to 5 s for its answer.
pub const GAP_MS: i64 = 60_000;

/// Some time, in milliseconds since the epoch: from its first to before its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its first millisecond.
    pub from_ms: i64,
    /// The first millisecond after it; `i64::MAX` while it goes on.
    pub until_ms: i64,
}

impl Span {
    fn earlier(self, by_ms: i64) -> Self {
        Self {
            from_ms: self.from_ms.saturating_sub(by_ms),
            until_ms: match self.until_ms {
                i64::MAX => i64::MAX,
                until => until.saturating_sub(by_ms),
            },
        }
    }
}

/// When events must have been sent first so that each of Ring's attempts fell into one of `outages`: those it no longer
/// sends by itself. In order of time; empty when every event gets through.
pub fn given_up(outages: &[Span]) -> Vec<Span> {
    let away = joined(outages);
    let mut lost = away.clone();
    let mut after_ms = 0;
    for pause in PAUSES {
        after_ms += i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
        let shifted: Vec<Span> = away.iter().map(|span| span.earlier(after_ms)).collect();
        lost = common(&lost, &shifted);
    }
    lost
}

/// When the first event is given up if the outage that began at `began_ms` goes on; `before` are the outages before it.
pub fn first_loss_ms(began_ms: i64, before: &[Span]) -> i64 {
    let now = Span {
        from_ms: began_ms,
        until_ms: i64::MAX,
    };
    let outages: Vec<Span> = before.iter().copied().chain([now]).collect();
    // Its last attempt must fall into this outage; what was given up in an earlier one is that one's.
    let own = Span {
        from_ms: began_ms.saturating_sub(LADDER_MS),
        until_ms: i64::MAX,
    };
    let first = common(&given_up(&outages), &[own])
        .first()
        .map(|span| span.from_ms);
    first.unwrap_or(began_ms).saturating_add(LADDER_MS)
}

/// The same times in order, where those that touch, or nearly do, are one.
pub fn joined(spans: &[Span]) -> Vec<Span> {
    let mut sorted = spans.to_vec();
    sorted.sort_by_key(|span| span.from_ms);
    let mut joined: Vec<Span> = Vec::new();
    for span in sorted {
        match joined.last_mut() {
            Some(last) if span.from_ms < last.until_ms.saturating_add(GAP_MS) => {
                last.until_ms = last.until_ms.max(span.until_ms);
            }
            _ => joined.push(span),
        }
    }
    joined
}

/// What two lists have in common, each in order and without overlap.
fn common(left: &[Span], right: &[Span]) -> Vec<Span> {
    let mut found = Vec::new();
    for a in left {
        for b in right {
            let both = Span {
                from_ms: a.from_ms.max(b.from_ms),
                until_ms: a.until_ms.min(b.until_ms),
            };
            if both.from_ms < both.until_ms {
                found.push(both);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn span(from_ms: i64, until_ms: i64) -> Span {
        Span { from_ms, until_ms }
    }

    #[test]
    fn the_ladder_is_the_sum_of_its_pauses() {
        let whole: Duration = PAUSES.iter().sum();
        assert_eq!(i64::try_from(whole.as_millis()), Ok(LADDER_MS));
        assert_eq!(whole, Duration::from_secs(72 * 60 + 36));
    }

    #[test]
    fn an_outage_that_is_shorter_than_the_ladder_loses_nothing() {
        assert_eq!(given_up(&[]), []);
        assert_eq!(given_up(&[span(0, LADDER_MS)]), []);
    }

    #[test]
    fn a_longer_outage_loses_what_was_sent_first_more_than_a_ladder_before_its_end() {
        let end = LADDER_MS + 10 * MINUTE;
        assert_eq!(given_up(&[span(0, end)]), [span(0, 10 * MINUTE)]);
        assert_eq!(given_up(&[span(5, i64::MAX)]), [span(5, i64::MAX)]);
    }

    #[test]
    fn two_short_outages_lose_what_has_every_attempt_in_one_of_them() {
        // The sixth attempt is 12 min 36 s after the first, the seventh an hour after that.
        let (first, second) = (span(0, 20 * MINUTE), span(70 * MINUTE, 90 * MINUTE));
        let until = 20 * MINUTE - 756_000;
        assert_eq!(given_up(&[second, first]), [span(0, until)]);
        assert_eq!(given_up(&[span(0, 12 * MINUTE), second]), []);
        assert_eq!(given_up(&[first, span(100 * MINUTE, 110 * MINUTE)]), []);
    }

    #[test]
    fn a_gap_that_no_attempt_is_sure_to_meet_is_none() {
        let (a, b) = (span(0, 40 * MINUTE), span(40 * MINUTE + GAP_MS - 1, 80 * MINUTE));
        assert_eq!(given_up(&[a, b]), [span(0, 80 * MINUTE - LADDER_MS)]);
        assert_eq!(joined(&[b, a]), [span(0, 80 * MINUTE)]);
    }

    #[test]
    fn the_first_loss_is_a_ladder_after_the_begin_unless_an_outage_just_before_shortens_it() {
        assert_eq!(first_loss_ms(1_000, &[]), 1_000 + LADDER_MS);
        let long_ago = span(-100 * LADDER_MS, -98 * LADDER_MS);
        assert_eq!(first_loss_ms(1_000, &[long_ago]), 1_000 + LADDER_MS);
        // An event of the first minute of the one before has its last attempt 72 min 36 s later: in this one.
        let before = span(0, 20 * MINUTE);
        assert_eq!(first_loss_ms(60 * MINUTE, &[before]), LADDER_MS);
        assert_eq!(first_loss_ms(75 * MINUTE, &[before]), 75 * MINUTE);
    }
}
