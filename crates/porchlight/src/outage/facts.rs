//! What all processes together say of outages, as one: spans of time in which an event may have been answered 5xx.
//!
//! Pure; it reckons nothing.

use std::collections::BTreeMap;

use porchlight_event::ring_schedule::{KEPT_MS, LADDER_MS, Span};
use porchlight_ingress::outage::page::{OutagesPage, RejectedFacts};

/// Where webhooks arrive if nobody says.
const WEBHOOK_PATH: &str = "/webhooks/ring";

/// Everything that is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) now_ms: i64,
    /// Every outage of every process, and one that was named by hand. What goes on ends at `i64::MAX`.
    pub(super) outages: Vec<Counted>,
    /// Requests that looked like Ring's and were answered 401 while no signature matched; of a time that was named by hand
    /// nobody knows how many, and their number is 0.
    pub(super) refused: Vec<RejectedFacts>,
    /// Whether they are, in a time named by hand, still.
    pub(super) refuses_still: bool,
    /// When the youngest process began, if Ring may still keep what it gave up on before: of that it may not know.
    pub(super) young_since_ms: Option<i64>,
    pub(super) endpoint: String,
}

/// What a person says of a time that no process remembers.
#[derive(Debug, Clone, Copy)]
pub(super) enum ByHand {
    /// Events were answered 5xx, or not at all.
    Outage(Span),
    /// Events were answered 401.
    Refused(Span),
}

/// One outage with what was answered in it.
#[derive(Debug, Clone)]
pub(super) struct Counted {
    pub(super) span: Span,
    /// The listener that told of it; none when a person named it.
    pub(super) address: Option<String>,
    pub(super) answers_5xx: u64,
    pub(super) answers_200: u64,
    pub(super) causes: BTreeMap<String, u64>,
}

impl Facts {
    /// Puts together what processes say and what a person named.
    pub(super) fn gather(
        pages: impl Iterator<Item = (String, OutagesPage)>,
        by_hand: Option<ByHand>,
        endpoint: Option<&str>,
        now_ms: i64,
    ) -> Self {
        let mut facts = Self {
            now_ms,
            ..Self::default()
        };
        let mut path = None;
        for (address, page) in pages {
            // A process whose clock is another's tells spans, not times; close enough for the margins of a letter.
            let started = page.process_started_at_ms;
            if started > now_ms - LADDER_MS - KEPT_MS {
                facts.young_since_ms = Some(facts.young_since_ms.map_or(started, |other| other.max(started)));
            }
            facts
                .outages
                .extend(page.outages.into_iter().map(|outage| Counted {
                    span: Span {
                        from_ms: outage.started_at_ms,
                        until_ms: outage.ended_at_ms.or(outage.recovered_at_ms).unwrap_or(i64::MAX),
                    },
                    address: Some(address.clone()),
                    answers_5xx: outage.answers_5xx,
                    answers_200: outage.answers_200,
                    causes: outage.causes,
                }));
            let is_open = page.keys.breaker == "open";
            // Long ago nobody keeps them any more, as far as is known.
            let recent = |refused: &RejectedFacts| refused.last_at_ms > now_ms - KEPT_MS;
            let restored = page.keys.restored.into_iter();
            facts
                .refused
                .extend(restored.filter(|refused| refused.answers_401 > 0 && recent(refused)));
            facts.refused.extend(
                page.keys
                    .rejected
                    .filter(|rejected| is_open && rejected.answers_401 > 0),
            );
            path.get_or_insert(page.webhook_path);
        }
        match by_hand {
            Some(ByHand::Outage(span)) => facts.outages.push(Counted {
                span,
                address: None,
                answers_5xx: 0,
                answers_200: 0,
                causes: BTreeMap::new(),
            }),
            Some(ByHand::Refused(span)) => {
                facts.refuses_still = span.until_ms > now_ms;
                facts.refused.push(RejectedFacts {
                    count: 0,
                    answers_401: 0,
                    first_at_ms: span.from_ms,
                    last_at_ms: span.until_ms.min(now_ms),
                });
            }
            None => {}
        }
        let path = path.filter(|path| !path.is_empty());
        facts.endpoint = match endpoint {
            Some(endpoint) => endpoint.to_owned(),
            None => format!("https://YOUR_HOST{}", path.as_deref().unwrap_or(WEBHOOK_PATH)),
        };
        facts
    }

    /// The spans as they are known: what goes on ends at `end_ms`.
    pub(super) fn spans(&self, end_ms: i64) -> Vec<Span> {
        let spans = self.outages.iter().map(|outage| Span {
            from_ms: outage.span.from_ms,
            until_ms: outage.span.until_ms.min(end_ms),
        });
        spans.filter(|span| span.from_ms < span.until_ms).collect()
    }

    /// Since when an outage is on, if one is.
    pub(super) fn on_since_ms(&self) -> Option<i64> {
        let on = self
            .outages
            .iter()
            .filter(|outage| outage.span.until_ms > self.now_ms);
        on.map(|outage| outage.span.from_ms).min()
    }
}
