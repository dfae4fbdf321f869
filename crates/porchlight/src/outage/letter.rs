//! The letter to the contact at Ring: when, what was answered, which events, until when.
//!
//! Plain text; whoever sends it fills in the names.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use porchlight_event::ring_schedule::Span;

use super::facts::Facts;
use super::report::{Loss, causes, span_of};
use super::times::shown;

/// Drafts it. There is something to ask for.
pub(super) fn draft(facts: &Facts, loss: &Loss) -> String {
    let mut text = String::new();
    let (from, until) = match (loss.ask_for.first(), loss.ask_for.last()) {
        (Some(first), Some(last)) => (first.from_ms, last.until_ms),
        _ => (facts.now_ms, facts.now_ms),
    };
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "Subject: Please send undelivered webhook events again, {} to {}\n",
        shown(from),
        shown(until)
    );
    let _ = writeln!(text, "Hello,\n");
    let _ = writeln!(text, "partner:   YOUR_PARTNER_NAME, app YOUR_APP_ID");
    let _ = writeln!(text, "endpoint:  {}\n", facts.endpoint);
    if !loss.lost.is_empty() {
        put_outage(&mut text, facts, loss);
    }
    put_refused(&mut text, facts);
    let _ = writeln!(
        text,
        "Please send again, to the endpoint above, all undelivered events of all types"
    );
    for window in &loss.ask_for {
        let _ = writeln!(
            text,
            "\n  from   {}\n  until  {}",
            shown(window.from_ms),
            shown(window.until_ms)
        );
    }
    let _ = writeln!(
        text,
        "\nThese times have a margin of 5 minutes. We recognise events that we have already, so please rather send too\n\
         many than too few; their order does not matter."
    );
    if let Some((first, last)) = loss.kept_until_ms() {
        let _ = writeln!(
            text,
            "\nTo our knowledge you keep the first of them until {} and the last until\n{} (72 hours after the last attempt), \
             so we would be glad to have this soon.",
            shown(first),
            if loss.is_on {
                "72 hours after the end of the outage".to_owned()
            } else {
                shown(last)
            }
        );
    }
    let _ = writeln!(text, "\nThank you");
    text
}

fn put_outage(text: &mut String, facts: &Facts, loss: &Loss) {
    let overlaps = |span: &Span| {
        let asked = |window: &Span| span.from_ms < window.until_ms && window.from_ms < span.until_ms;
        loss.ask_for.iter().any(asked)
    };
    let counted: Vec<_> = facts
        .outages
        .iter()
        .filter(|outage| overlaps(&outage.span))
        .collect();
    let _ = writeln!(text, "our endpoint could not take your webhooks:\n");
    for span in
        porchlight_event::ring_schedule::joined(&counted.iter().map(|outage| outage.span).collect::<Vec<_>>())
    {
        if span.until_ms > facts.now_ms {
            let _ = writeln!(
                text,
                "  from   {}\n  until  now; it is being mended",
                shown(span.from_ms)
            );
        } else {
            let lasted = span_of(span.until_ms - span.from_ms);
            let _ = writeln!(
                text,
                "  from   {}\n  until  {}, that is {lasted}; since then it takes them again",
                shown(span.from_ms),
                shown(span.until_ms)
            );
        }
    }
    let mut all = BTreeMap::new();
    for (cause, count) in counted.iter().flat_map(|outage| &outage.causes) {
        *all.entry(cause.clone()).or_insert(0) += count;
    }
    match all.values().sum::<u64>() {
        0 => {
            let _ = writeln!(text, "\nIt answered 5xx, or nothing at all.");
        }
        total => {
            let _ = writeln!(text, "\nIt answered 503 to {total} requests{}.", causes(&all));
        }
    }
    let _ = writeln!(
        text,
        "Of events that you first sent in these times, all seven attempts over 72 min 36 s have failed:\n"
    );
    for span in &loss.lost {
        let _ = writeln!(
            text,
            "  from   {}\n  until  {}",
            shown(span.from_ms),
            shown(span.until_ms)
        );
    }
    let _ = writeln!(text);
}

fn put_refused(text: &mut String, facts: &Facts) {
    for refused in &facts.refused {
        let requests = match refused.answers_401 {
            0 => "your webhooks".to_owned(),
            count => format!("{count} requests"),
        };
        let _ = writeln!(
            text,
            "From {} until {} it answered 401 to {requests},\n\
             because our signing key was wrong. That was a mistake of ours; if you can send those events\n\
             again, too, please do.\n",
            shown(refused.first_at_ms),
            shown(refused.last_at_ms),
        );
    }
}
