//! Watches whether signatures match at all, and says why one does not where that can be known.
//!
//! A 401 is final for Ring. So when nothing matches any more, a wrong key is assumed: 503, until something matches. Forged
//! requests can bring that about while Ring is silent; they are then refused with another number, and nothing else
//! changes: what matches is stored as ever. A good request costs one comparison and one look at a flag.

pub(crate) mod breaker;

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use porchlight_event::diagnosis::{BODY_BYTES_MAX, Claim, Finding};
use porchlight_service::{LogGate, Note};
use tokio::time::Instant;

use crate::health_metrics::HealthMetrics;
use crate::keys::ActiveKeys;
use crate::moment::{Moment, Timekeeper};
use crate::outage::page::{DiagnosisFacts, KeyFacts, RejectedFacts};
use crate::outage::words;
use breaker::{BreakerRules, KeyBreaker, Rejected};

/// Refused signatures that are looked into: so many at once, and one more each [`LOOKS_EVERY_MS`]. One costs some
/// milliseconds at most, so that strangers cannot make much work of it.
const LOOKS_MAX: i64 = 5;
const LOOKS_EVERY_MS: i64 = 5_000;
/// Of a body this much goes into what tells requests from each other, in bytes.
const TOLD_APART_BYTES: usize = 4 * 1024;
/// Times that the breaker was open that are remembered.
const RESTORED_MAX: usize = 16;
/// Before the first match.
const NEVER: i64 = i64::MIN;

/// How the keys of this process do; shared by all connections.
#[derive(Debug)]
pub(crate) struct KeyHealth {
    /// Whether it may answer 503 in place of 401.
    may_open: bool,
    /// Whether a match has anything to put right: all that a good request looks at.
    in_doubt: AtomicBool,
    /// On the forward clock, in milliseconds; exact to a second.
    last_match_ms: AtomicI64,
    state: Mutex<State>,
    hasher: RandomState,
    log_gate: LogGate,
    time: Timekeeper,
    metrics: Arc<HealthMetrics>,
}

#[derive(Debug)]
struct State {
    breaker: KeyBreaker,
    looks: Looks,
    found: Option<(Finding, Moment)>,
    /// What was rejected before and while the breaker was open, each time; the newest first.
    restored: VecDeque<RejectedFacts>,
}

/// What is left of the looks into refused signatures.
#[derive(Debug, Clone, Copy)]
struct Looks {
    left: i64,
    refilled_ms: i64,
}

impl KeyHealth {
    pub(crate) fn new(
        may_open: bool,
        rules: BreakerRules,
        time: Timekeeper,
        metrics: Arc<HealthMetrics>,
    ) -> Self {
        let state = State {
            breaker: KeyBreaker::new(rules),
            looks: Looks {
                left: LOOKS_MAX,
                refilled_ms: 0,
            },
            found: None,
            restored: VecDeque::new(),
        };
        Self {
            may_open,
            in_doubt: AtomicBool::new(false),
            last_match_ms: AtomicI64::new(NEVER),
            state: Mutex::new(state),
            hasher: RandomState::new(),
            log_gate: LogGate::default(),
            time,
            metrics,
        }
    }

    /// A signature matched, of a request that began at `began`; the wall says `now_ms`.
    pub(crate) fn matched(&self, began: Instant, now_ms: i64) {
        // Written once a second and not at each request, which many threads would have to pass around.
        let second = now_ms / 1_000;
        if self.metrics.last_match.get() != second {
            self.metrics.last_match.set(second);
            self.last_match_ms.store(self.time.at(began), Relaxed);
        }
        if self.in_doubt.load(Relaxed) {
            self.restore();
        }
    }

    fn restore(&self) {
        let closed = {
            let mut state = self.state();
            self.in_doubt.store(false, Relaxed);
            self.metrics.key_breaker_open.set(0);
            state.found = None;
            let closed = state.breaker.matched();
            if let Some((_, rejected)) = closed {
                // What was answered 401 is lost unless somebody asks for it, and the match does not bring it back.
                state.restored.push_front(facts_of(rejected));
                state.restored.truncate(RESTORED_MAX);
            }
            closed
        };
        if let Some((since, rejected)) = closed {
            let lasted = words(self.time.now().since(since));
            tracing::warn!(
                rejected = rejected.count,
                refused = rejected.refused,
                "key health: a signature matches again, after {lasted}; others are answered 401 as ever"
            );
        }
    }

    /// No key matched a well-formed signature. Whether that is to be answered 503 in place of 401.
    pub(crate) fn mismatched(&self, claim: &Claim, body: &[u8], active: &ActiveKeys) -> bool {
        self.metrics.ring_shaped_rejected.inc();
        let now = self.time.now();
        let request = self.told_apart(claim, body);
        let last_match = Some(self.last_match_ms.load(Relaxed)).filter(|at| *at != NEVER);
        let (opens, is_open) = {
            let mut state = self.state();
            let opens = state.breaker.failed(request, last_match, self.may_open, now);
            self.in_doubt.store(true, Relaxed);
            (opens, state.breaker.open_since().is_some())
        };
        if opens {
            self.metrics.key_breaker_open.set(1);
            tracing::error!(
                cause = "key_health",
                "key health: no signature matches any more, so the signing keys may be wrong: such requests are answered 503 and not 401, until one matches; compare PORCHLIGHT_SIGNING_KEYS with Ring's developer portal"
            );
        }
        if self.may_look(body.len(), now) {
            self.explain(claim, body, active, now);
        }
        is_open
    }

    /// A header that is not what Ring sends but holds a digest, if it may be looked into now; its body is then worth
    /// reading, as long as it is declared to have at most this many bytes.
    pub(crate) fn worth_a_look(&self, header: &[u8], declared_bytes: Option<u64>) -> Option<Claim> {
        let claim = Claim::read(header)?;
        let bytes = usize::try_from(declared_bytes?).unwrap_or(usize::MAX);
        self.may_look(bytes, self.time.now()).then_some(claim)
    }

    /// Looks why a refused signature is refused, and says so if it can.
    pub(crate) fn look(&self, claim: &Claim, body: &[u8], active: &ActiveKeys) {
        self.explain(claim, body, active, self.time.now());
    }

    fn explain(&self, claim: &Claim, body: &[u8], active: &ActiveKeys, now: Moment) {
        let Some(finding) = claim.diagnose(body, &active.keys, active.removed()) else {
            return;
        };
        let (code, advice) = (finding.diagnosis.code(), finding.diagnosis.advice());
        self.metrics.diagnosed(finding.diagnosis).inc();
        if let Some(suppressed) = self.log_gate.admit(code) {
            let key = &finding.key;
            tracing::error!(diagnosis = code, key, suppressed, "signature refused: {advice}");
        }
        self.state().found = Some((finding, now));
    }

    fn may_look(&self, body_bytes: usize, now: Moment) -> bool {
        body_bytes <= BODY_BYTES_MAX && self.state().looks.take(now.mono_ms)
    }

    /// A number for a request; seeded, so that nobody can choose it.
    fn told_apart(&self, claim: &Claim, body: &[u8]) -> u64 {
        if !self.state().breaker.counts_requests() {
            return 0;
        }
        let beginning = &body[..body.len().min(TOLD_APART_BYTES)];
        self.hasher.hash_one((claim, beginning))
    }

    /// The note of `/readyz` while no signature matches any more. It is no reason not to be ready: nobody else would
    /// know better, and strangers must not be able to take an ingress out of service.
    pub(crate) fn readiness_note(&self) -> Option<Note> {
        if !self.in_doubt.load(Relaxed) {
            return None;
        }
        let state = self.state();
        let since = state.breaker.open_since()?;
        let seconds = self.time.now().since(since) / 1_000;
        let rejected = state.breaker.rejected().map_or(0, |rejected| rejected.count);
        let why = state
            .found
            .as_ref()
            .map(|(finding, _)| format!("; with the key {}: {}", finding.key, finding.diagnosis.advice()));
        Some(Note {
            code: "key_health",
            message: format!(
                "no signature matches any more: are the signing keys right? Such requests are answered 503 and not 401{}",
                why.unwrap_or_default()
            ),
            figures: [("rejected", rejected), ("seconds", seconds.unsigned_abs())].into(),
        })
    }

    /// For the page `/outages`.
    pub(crate) fn facts(&self) -> KeyFacts {
        let state = self.state();
        let open_since = state.breaker.open_since();
        let matched = self.metrics.last_match.get();
        let breaker = match (open_since, self.may_open) {
            (Some(_), _) => "open",
            (None, true) => "closed",
            (None, false) => "off",
        };
        KeyFacts {
            breaker: breaker.to_owned(),
            open_since_ms: open_since.map(|moment| moment.wall_ms),
            last_match_at_ms: (matched > 0).then_some(matched * 1_000),
            rejected: state.breaker.rejected().map(facts_of),
            restored: state.restored.iter().cloned().collect(),
            diagnosis: state.found.as_ref().map(|(finding, at)| DiagnosisFacts {
                code: finding.diagnosis.code().to_owned(),
                key: finding.key.clone(),
                text: finding.diagnosis.advice().to_owned(),
                at_ms: at.wall_ms,
            }),
        }
    }

    /// What an earlier process wrote down.
    pub(crate) fn remember(&self, keys: KeyFacts) {
        // A breaker that was open when it ended is closed now; what it refused is lost all the same.
        let open = keys.rejected.filter(|_| keys.open_since_ms.is_some());
        let all = open.into_iter().chain(keys.restored).take(RESTORED_MAX);
        self.state().restored = all.collect();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn facts_of(rejected: Rejected) -> RejectedFacts {
    RejectedFacts {
        count: rejected.count,
        answers_401: rejected.refused,
        first_at_ms: rejected.first.wall_ms,
        last_at_ms: rejected.last.wall_ms,
    }
}

impl Looks {
    fn take(&mut self, now_ms: i64) -> bool {
        let refill = (now_ms - self.refilled_ms) / LOOKS_EVERY_MS;
        self.left = (self.left + refill).min(LOOKS_MAX);
        self.refilled_ms += refill * LOOKS_EVERY_MS;
        let may = self.left > 0;
        self.left -= i64::from(may);
        may
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use porchlight_event::{SigningKey, SigningKeys};

    const BODY: &[u8] = br#"{"data":{}}"#;

    fn health(may_open: bool) -> KeyHealth {
        let rules = BreakerRules {
            over_ms: 0,
            silence_ms: 0,
            ..BreakerRules::default()
        };
        KeyHealth::new(
            may_open,
            rules,
            Timekeeper::begin(),
            Arc::new(HealthMetrics::default()),
        )
    }

    fn active() -> ActiveKeys {
        ActiveKeys::for_tests(SigningKeys::parse_list("ring=k1").unwrap())
    }

    /// Whether the `n`th request with a wrong signature is answered 503.
    fn fails(health: &KeyHealth, n: u32) -> bool {
        let header = SigningKey::new("x", b"stranger").sign(&n.to_be_bytes());
        health.mismatched(&Claim::read(header.as_bytes()).unwrap(), BODY, &active())
    }

    #[test]
    fn it_answers_503_from_the_tenth_different_request_to_the_next_match() {
        let health = health(true);
        let answers: Vec<bool> = (0..12).map(|n| fails(&health, n)).collect();
        assert_eq!(answers.iter().position(|is_503| *is_503), Some(9));
        assert!(answers[9..].iter().all(|is_503| *is_503));
        assert_eq!(health.metrics.key_breaker_open.get(), 1);
        assert_eq!(health.readiness_note().unwrap().figures["rejected"], 12);
        let facts = health.facts();
        assert_eq!(
            (facts.breaker.as_str(), facts.rejected.unwrap().answers_401),
            ("open", 9)
        );

        health.matched(Instant::now(), 1_771_025_567_000);
        assert!(
            !fails(&health, 99),
            "one failure after a match is refused as ever"
        );
        assert_eq!(health.metrics.key_breaker_open.get(), 0);
        assert_eq!(health.metrics.last_match.get(), 1_771_025_567);
        assert!(health.readiness_note().is_none());
        let facts = health.facts();
        assert_eq!(facts.breaker, "closed");
        assert_eq!(
            facts.restored[0].answers_401, 9,
            "they are lost unless Ring is asked"
        );
        let after = self::health(true);
        after.remember(facts.clone());
        assert_eq!(after.facts().restored, facts.restored);
    }

    #[test]
    fn the_same_request_over_and_over_and_a_breaker_that_is_off_are_answered_401() {
        let health_on = health(true);
        assert!((0..100).all(|_| !fails(&health_on, 1)));
        let health_off = health(false);
        assert!((0..100).all(|n| !fails(&health_off, n)));
        assert_eq!(health_off.facts().breaker, "off");
        assert_eq!(health_off.metrics.ring_shaped_rejected.get(), 100);
    }

    #[test]
    fn few_signatures_are_looked_into_and_no_long_body() {
        let mut looks = Looks {
            left: LOOKS_MAX,
            refilled_ms: 0,
        };
        assert_eq!((0..100).filter(|_| looks.take(4_999)).count(), 5);
        assert_eq!((0..100).filter(|_| looks.take(5_000)).count(), 1);
        assert_eq!((0..100).filter(|_| looks.take(3_600_000)).count(), 5);
        let health = health(true);
        let digits = "ab".repeat(32);
        assert!(health.worth_a_look(digits.as_bytes(), None).is_none());
        assert!(health.worth_a_look(digits.as_bytes(), Some(1 << 20)).is_none());
        assert!(health.worth_a_look(b"nonsense", Some(10)).is_none());
        assert!(health.worth_a_look(digits.as_bytes(), Some(10)).is_some());
    }

    #[test]
    fn a_finding_is_counted_and_shown() {
        let health = health(true);
        let header = SigningKey::new("x", b"k1\n").sign(BODY);
        health.mismatched(&Claim::read(header.as_bytes()).unwrap(), BODY, &active());
        let found = health.facts().diagnosis.unwrap();
        assert_eq!((found.code.as_str(), found.key.as_str()), ("key_ending", "ring"));
        let counted = health
            .metrics
            .diagnosed(porchlight_event::diagnosis::Diagnosis::KeyEnding);
        assert_eq!(counted.get(), 1);
    }
}
