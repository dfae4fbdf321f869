//! Tests of what follows from outages, with times instead of clocks.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use porchlight_ingress::outage::page::{KeyFacts, OutageFacts, OutagesPage, RejectedFacts};

use super::*;
use crate::outage::facts::ByHand;
use crate::outage::times;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

fn at(text: &str) -> i64 {
    times::parse(text).unwrap()
}

fn outage(from_ms: i64, until_ms: Option<i64>) -> OutageFacts {
    OutageFacts {
        started_at_ms: from_ms,
        ended_at_ms: until_ms,
        recovered_at_ms: until_ms,
        answers_5xx: 1_234,
        causes: [
            ("queue_unavailable".to_owned(), 1_200),
            ("confirm_timeout".to_owned(), 34),
        ]
        .into(),
        ..OutageFacts::default()
    }
}

fn page(outages: Vec<OutageFacts>) -> OutagesPage {
    OutagesPage {
        webhook_path: "/hook".to_owned(),
        outages,
        ..OutagesPage::default()
    }
}

fn report(pages: Vec<OutagesPage>, by_hand: Option<ByHand>, now_ms: i64) -> Report {
    let named = pages
        .into_iter()
        .enumerate()
        .map(|(index, page)| (format!("http://ingress-{}:9090", index + 1), page));
    Report::new(&Facts::gather(named, by_hand, None, now_ms))
}

fn window(from: &str, until: &str) -> Window {
    Window {
        from: iso(at(from)),
        until: iso(at(until)),
    }
}

#[test]
fn without_an_outage_nothing_needs_asking() {
    let report = report(vec![page(Vec::new())], None, at("2026-02-13T10:00"));
    assert_eq!(report.verdict(), Verdict::Nothing);
    assert_eq!(report.lines(), ["No outage is remembered: nothing needs asking."]);
}

#[test]
fn an_outage_that_ring_outlasts_needs_no_letter() {
    let (from, until) = (at("2026-02-13T10:00"), at("2026-02-13T11:10"));
    let report = report(
        vec![page(vec![outage(from, Some(until))])],
        None,
        until + 10 * MINUTE,
    );
    assert_eq!(report.verdict(), Verdict::Nothing);
    assert!(report.letter.is_none());
    let text = report.lines().join("\n");
    assert!(text.contains("no outage outlasted Ring's repetitions"), "{text}");
    assert!(text.contains("until 2026-02-13 12:22:36 UTC"), "{text}");
    assert!(
        text.contains("2026-02-13 10:00:00 UTC  1h 10m long  1234 answered 5xx (queue_unavailable 1200, confirm_timeout 34)"),
        "{text}"
    );
}

#[test]
fn while_it_is_on_the_time_that_is_left_is_told() {
    let from = at("2026-02-13T10:00");
    let report = report(vec![page(vec![outage(from, None)])], None, from + 30 * MINUTE);
    assert_eq!(report.verdict(), Verdict::Wait);
    let text = report.lines().join("\n");
    assert!(
        text.contains("An outage has been on since 2026-02-13 10:00:00 UTC, for 30m 0s."),
        "{text}"
    );
    assert!(
        text.contains("the first event at 2026-02-13 11:12:36 UTC, in 42m 36s."),
        "{text}"
    );
    assert!(report.letter.is_none());
}

#[test]
fn a_long_outage_makes_a_letter_with_all_that_ring_must_know() {
    let (from, until) = (at("2026-02-13T10:00"), at("2026-02-13T14:00"));
    let report = report(vec![page(vec![outage(from, Some(until))])], None, until + HOUR);
    assert_eq!(report.verdict(), Verdict::Ask);
    assert_eq!(report.lost, [window("2026-02-13T10:00", "2026-02-13T12:47:24")]);
    assert_eq!(report.ask_for, [window("2026-02-13T09:55", "2026-02-13T14:05")]);
    assert_eq!(
        report.kept_until,
        Some(window("2026-02-16T11:12:36", "2026-02-16T14:00"))
    );
    let letter = report.letter.clone().unwrap();
    for part in [
        "endpoint:  https://YOUR_HOST/hook",
        "  from   2026-02-13 10:00:00 UTC\n  until  2026-02-13 14:00:00 UTC, that is 4h 0m; since then it takes them again",
        "It answered 503 to 1234 requests (queue_unavailable 1200, confirm_timeout 34).",
        "  from   2026-02-13 10:00:00 UTC\n  until  2026-02-13 12:47:24 UTC\n",
        "  from   2026-02-13 09:55:00 UTC\n  until  2026-02-13 14:05:00 UTC\n",
        "until 2026-02-16 11:12:36 UTC and the last until\n2026-02-16 14:00:00 UTC",
    ] {
        assert!(letter.contains(part), "{part}\n---\n{letter}");
    }
    assert!(
        report
            .lines()
            .join("\n")
            .contains("the first until 2026-02-16 11:12:36 UTC, in 2d 20h")
    );
}

#[test]
fn while_a_long_outage_is_on_the_letter_waits_for_its_end() {
    let from = at("2026-02-13T10:00");
    let report = report(vec![page(vec![outage(from, None)])], None, from + 3 * HOUR);
    assert_eq!(report.verdict(), Verdict::Ask);
    let text = report.lines().join("\n");
    assert!(text.contains("Mend the outage first"), "{text}");
    assert!(text.contains("until  now; it is being mended"), "{text}");
    assert_eq!(report.lost, [window("2026-02-13T10:00", "2026-02-13T11:47:24")]);
}

#[test]
fn several_ingresses_are_one_endpoint_and_a_time_by_hand_counts_with_them() {
    let from = at("2026-02-13T10:00");
    let one = page(vec![outage(from, Some(from + 40 * MINUTE))]);
    let other = page(vec![outage(from + 30 * MINUTE, Some(from + 80 * MINUTE))]);
    let now = from + 5 * HOUR;
    assert_eq!(report(vec![one.clone()], None, now).verdict(), Verdict::Nothing);
    let both = report(vec![one.clone(), other], None, now);
    assert_eq!(both.lost, [window("2026-02-13T10:00", "2026-02-13T10:07:24")]);
    let by_hand = ByHand::Outage(Span {
        from_ms: from + 40 * MINUTE,
        until_ms: from + 80 * MINUTE,
    });
    assert_eq!(report(vec![one], Some(by_hand), now).lost, both.lost);
    let alone = report(
        Vec::new(),
        Some(ByHand::Outage(Span {
            from_ms: from,
            until_ms: from + 2 * HOUR,
        })),
        now,
    );
    assert!(
        alone
            .letter
            .unwrap()
            .contains("It answered 5xx, or nothing at all.")
    );
}

#[test]
fn what_ring_has_forgotten_is_told_and_not_asked_for() {
    let (from, until) = (at("2026-02-13T10:00"), at("2026-02-13T14:00"));
    let report = |now| report(vec![page(vec![outage(from, Some(until))])], None, now);
    let part = report(at("2026-02-16T13:00"));
    assert_eq!(part.verdict(), Verdict::Ask);
    assert!(
        part.lines()
            .join("\n")
            .contains("which is over; ask all the same")
    );
    let late = report(at("2026-02-16T14:01"));
    assert_eq!(late.verdict(), Verdict::Nothing);
    assert!(late.lines().join("\n").contains("it has forgotten by now"));
}

#[test]
fn requests_that_were_answered_401_for_a_wrong_key_are_asked_for() {
    let now = at("2026-02-13T14:00");
    let rejected = RejectedFacts {
        count: 20,
        answers_401: 12,
        first_at_ms: now - 20 * MINUTE,
        last_at_ms: now - MINUTE,
    };
    let with = |breaker: &str| OutagesPage {
        keys: KeyFacts {
            breaker: breaker.to_owned(),
            rejected: Some(rejected.clone()),
            ..KeyFacts::default()
        },
        ..page(Vec::new())
    };
    assert_eq!(
        report(vec![with("closed")], None, now).verdict(),
        Verdict::Nothing,
        "strangers are refused every day"
    );
    let open = report(vec![with("open")], None, now);
    assert_eq!(open.verdict(), Verdict::Ask);
    assert!(open.letter.unwrap().contains("it answered 401 to 12 requests"));
    let closed_again = |now_ms| {
        let mut page = with("closed");
        page.keys.restored.extend(page.keys.rejected.take());
        report(vec![page], None, now_ms).verdict()
    };
    assert_eq!(
        closed_again(now),
        Verdict::Ask,
        "a match does not bring them back"
    );
    assert_eq!(closed_again(now + 72 * HOUR), Verdict::Nothing);
}

#[test]
fn a_time_by_hand_in_which_events_were_answered_401_is_asked_for_however_short() {
    let from = at("2026-02-13T10:00");
    let until_ms = from + 2 * MINUTE;
    let named = |by_hand| report(Vec::new(), Some(by_hand), from + HOUR);
    let span = Span {
        from_ms: from,
        until_ms,
    };
    assert_eq!(named(ByHand::Outage(span)).verdict(), Verdict::Nothing);
    let refused = named(ByHand::Refused(span));
    assert_eq!(refused.verdict(), Verdict::Ask);
    assert_eq!(refused.ask_for, [window("2026-02-13T09:55", "2026-02-13T10:07")]);
    assert!(
        refused
            .lines()
            .join("\n")
            .starts_with("Events were answered 401 from 2026-02-13 10:00:00 UTC on")
    );
    let letter = refused.letter.unwrap();
    assert!(letter.contains("it answered 401 to your webhooks"), "{letter}");
    let on_still = Span {
        until_ms: i64::MAX,
        ..span
    };
    let goes_on = named(ByHand::Refused(on_still));
    assert_eq!(goes_on.ask_for, [window("2026-02-13T09:55", "2026-02-13T11:05")]);
    let hurries = |report: &Report| {
        report
            .lines()
            .join("\n")
            .contains("Put the right key in force first")
    };
    assert!(hurries(&goes_on) && !hurries(&named(ByHand::Refused(span))));
}

#[test]
fn a_process_that_has_just_begun_is_said_not_to_know_everything() {
    let now = at("2026-02-13T14:00");
    let young = |started_ago| OutagesPage {
        process_started_at_ms: now - started_ago,
        ..page(Vec::new())
    };
    let noted = |page| {
        report(vec![page], None, now)
            .lines()
            .join("\n")
            .contains("--since TIME")
    };
    assert!(noted(young(70 * HOUR)) && !noted(young(80 * HOUR)));
}
