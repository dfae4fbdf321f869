//! What `status` says of outages and of the signing keys, as an ingress or a standalone shows them.
//!
//! It reckons no losses; `porchlight outage` does.

use std::time::Duration;

use porchlight_event::ring_schedule::{KEPT_MS, LADDER_MS};
use porchlight_ingress::outage::page::{OutageFacts, OutagesPage};

use crate::output::{Output, plain, span};

/// In a few words, for one line: whether an outage is on, and how long Ring will wait.
pub(super) fn in_short(page: &OutagesPage, now_ms: i64) -> String {
    let Some(newest) = page.outages.first() else {
        return "none".to_owned();
    };
    match newest.recovered_at_ms {
        Some(end) => format!(
            "none; the last ended {} ago, {} long",
            words(now_ms - end),
            words(end - newest.started_at_ms)
        ),
        None => going_on(newest, now_ms),
    }
}

/// Prints what there is to say, a line each.
pub(super) fn print(page: &OutagesPage, now_ms: i64, output: Output) {
    output.line(format_args!("  outage             {}", in_short(page, now_ms)));
    if let Some(at) = page.keys.last_match_at_ms {
        // It is known to the second.
        let ago = match now_ms - at {
            ..1_000 => "just now".to_owned(),
            age => format!("{} ago", words(age)),
        };
        output.line(format_args!("  last signed event  {ago}"));
    }
    if let Some(rejected) = &page.keys.rejected {
        output.line(format_args!(
            "  wrong signatures   {} since, the last {} ago; breaker {}",
            rejected.count,
            words(now_ms - rejected.last_at_ms),
            plain(&page.keys.breaker)
        ));
    }
}

/// What somebody should look at, in words; `who` shows it.
pub(super) fn attention(page: &OutagesPage, who: &str, now_ms: i64, found: &mut Vec<String>) {
    for outage in &page.outages {
        match outage.recovered_at_ms {
            None => found.push(format!("{who}: outage {}", going_on(outage, now_ms))),
            Some(end) if end > outage.first_loss_at_ms && now_ms < kept_until(outage, end) => {
                found.push(format!(
                    "{who}: Ring gave up on events of the outage that ended {} ago, and keeps the last of them for {}: porchlight outage",
                    words(now_ms - end),
                    words(kept_until(outage, end) - now_ms)
                ));
            }
            Some(_) => {}
        }
    }
    let keys = &page.keys;
    let refused = keys
        .restored
        .iter()
        .filter(|refused| refused.last_at_ms > now_ms - KEPT_MS);
    let refused: u64 = refused.map(|refused| refused.answers_401).sum();
    if refused > 0 {
        found.push(format!(
            "{who}: {refused} requests were answered 401 while a key was wrong, and Ring does not repeat those: porchlight outage"
        ));
    }
    let why = keys
        .diagnosis
        .as_ref()
        .map(|found| format!("; key {}: {}", found.key, found.text));
    if keys.open_since_ms.is_some() {
        let matched = match keys.last_match_at_ms {
            Some(at) => format!("for {}", words(now_ms - at)),
            None => "since its start".to_owned(),
        };
        found.push(format!(
            "{who}: no signature has matched {matched}, so the signing keys may be wrong; 503 in place of 401{}",
            why.unwrap_or_default()
        ));
    } else if let Some(why) = why {
        found.push(format!("{who}: signatures are refused{why}"));
    }
}

/// When Ring forgets the last event of an outage that ended at `end`: its last attempt was just before.
fn kept_until(outage: &OutageFacts, end: i64) -> i64 {
    end + (outage.forgotten_at_ms - outage.first_loss_at_ms)
}

fn going_on(outage: &OutageFacts, now_ms: i64) -> String {
    let lasted = words(now_ms - outage.started_at_ms);
    let left = outage.first_loss_at_ms - now_ms;
    let count = outage.answers_5xx;
    if left > 0 {
        format!(
            "on for {lasted}, {count} answers 5xx; Ring gives up on the first event in {}",
            words(left)
        )
    } else if -left < LADDER_MS / 72 {
        format!("on for {lasted}, {count} answers 5xx; Ring gives up on the first events now")
    } else {
        format!(
            "on for {lasted}, {count} answers 5xx; Ring has been giving up on events for {}: porchlight outage",
            words(-left)
        )
    }
}

fn words(ms: i64) -> String {
    span(Duration::from_secs(ms.max(0).unsigned_abs() / 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use porchlight_ingress::outage::page::{DiagnosisFacts, KeyFacts, RejectedFacts};

    const MINUTE: i64 = 60_000;

    fn page(from_ms: i64, until_ms: Option<i64>) -> OutagesPage {
        OutagesPage {
            outages: vec![OutageFacts {
                started_at_ms: from_ms,
                recovered_at_ms: until_ms,
                first_loss_at_ms: from_ms + LADDER_MS,
                forgotten_at_ms: from_ms + LADDER_MS + KEPT_MS,
                answers_5xx: 7,
                ..OutageFacts::default()
            }],
            ..OutagesPage::default()
        }
    }

    fn found(page: &OutagesPage, now_ms: i64) -> String {
        let mut found = Vec::new();
        attention(page, "ingress a", now_ms, &mut found);
        found.join(" | ")
    }

    #[test]
    fn without_an_outage_nobody_is_needed() {
        assert_eq!(in_short(&OutagesPage::default(), 0), "none");
        assert_eq!(found(&OutagesPage::default(), 0), "");
    }

    #[test]
    fn an_outage_tells_how_long_ring_waits() {
        let on = page(0, None);
        let text = found(&on, 12 * MINUTE);
        assert_eq!(
            text,
            "ingress a: outage on for 12m 0s, 7 answers 5xx; Ring gives up on the first event in 1h 0m"
        );
        assert!(found(&on, LADDER_MS + 1_000).contains("on the first events now"));
        assert!(
            found(&on, 3 * LADDER_MS).contains("has been giving up on events for 2h 25m: porchlight outage")
        );
    }

    #[test]
    fn one_that_is_over_needs_somebody_only_if_it_outlasted_ring_and_as_long_as_ring_keeps_what_it_gave_up_on()
     {
        assert_eq!(found(&page(0, Some(LADDER_MS)), LADDER_MS + MINUTE), "");
        assert_eq!(
            in_short(&page(0, Some(10 * MINUTE)), 40 * MINUTE),
            "none; the last ended 30m 0s ago, 10m 0s long"
        );
        let long = page(0, Some(2 * LADDER_MS));
        assert!(
            found(&long, 2 * LADDER_MS + MINUTE)
                .contains("ended 1m 0s ago, and keeps the last of them for 2d 23h")
        );
        assert_eq!(found(&long, 2 * LADDER_MS + KEPT_MS), "");
    }

    #[test]
    fn keys_in_doubt_are_named_with_what_is_wrong_with_them() {
        let keys = KeyFacts {
            open_since_ms: Some(5 * MINUTE),
            last_match_at_ms: Some(0),
            diagnosis: Some(DiagnosisFacts {
                key: "ring".to_owned(),
                text: "copy it again".to_owned(),
                ..DiagnosisFacts::default()
            }),
            ..KeyFacts::default()
        };
        let page = OutagesPage {
            keys,
            ..OutagesPage::default()
        };
        let mut later = OutagesPage::default();
        later.keys.restored.push(RejectedFacts {
            answers_401: 12,
            ..RejectedFacts::default()
        });
        assert!(found(&later, MINUTE).contains("12 requests were answered 401 while a key was wrong"));
        assert_eq!(found(&later, KEPT_MS), "");
        let text = found(&page, 9 * MINUTE);
        assert!(
            text.contains("no signature has matched for 9m 0s")
                && text.ends_with("; key ring: copy it again"),
            "{text}"
        );
    }
}
