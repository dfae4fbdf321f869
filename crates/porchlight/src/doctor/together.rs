//! Settings of one process that do not go together, or that leave something open.
//!
//! Each by itself is right; that was checked before.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use porchlight_ingress::EdgeSettings;
use porchlight_service::process::open_files_limit;
use porchlight_worker::{CallbackSettings, WorkSettings};

use super::finding::Finding;
use crate::output::span;

/// What whoever supervises a daemon is told to give it for its stop.
const STOP_USUAL: Duration = Duration::from_secs(60);
/// For the last step of a standalone's stop.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// Files that are open besides connections.
const OTHER_FILES: usize = 128;
/// The parts of a process that a stop is made of, and that may get in each other's way.
pub(super) struct Process<'a> {
    pub(super) name: &'static str,
    pub(super) edge: Option<&'a EdgeSettings>,
    pub(super) work: Option<&'a WorkSettings>,
    pub(super) callback: Option<&'a CallbackSettings>,
    pub(super) admin_listen: SocketAddr,
    pub(super) has_token: bool,
}

impl Process<'_> {
    /// Everything that does not go together, or that one finding says it does.
    pub(super) fn judge(&self, findings: &mut Vec<Finding>) {
        let before = findings.len();
        self.stop(findings);
        self.addresses(findings);
        self.work(findings);
        self.edge(findings);
        if findings[before..]
            .iter()
            .all(|finding| finding.id != "settings.together")
        {
            let what = format!("the settings of {} go together", self.name);
            findings.push(Finding::ok("settings.together", what));
        }
    }

    /// The longest that a stop may take, by the process's own deadlines.
    fn stop_max(&self) -> Duration {
        let edge = self.edge.map_or(Duration::ZERO, |edge| {
            edge.drain_delay() + 2 * edge.shutdown_grace()
        });
        let work = self.work.map_or(Duration::ZERO, |work| 2 * work.stop_grace);
        let close = if self.edge.is_some() && self.work.is_some() {
            CLOSE_MAX
        } else {
            Duration::ZERO
        };
        edge + work + close
    }

    fn stop(&self, findings: &mut Vec<Finding>) {
        let longest = self.stop_max();
        if longest > STOP_USUAL {
            let what = format!("a stop of {} may take {}", self.name, span(longest));
            findings.push(
                Finding::warning("settings.together", what)
                    .why("Who supervises it usually waits 60 s and then kills: connections break, and what was in hand is done again.")
                    .mend(format!(
                        "TimeoutStopSec={0} (systemd), terminationGracePeriodSeconds: {0} (Kubernetes), stop_grace_period: {0}s (compose); or lower PORCHLIGHT_DRAIN_DELAY, PORCHLIGHT_SHUTDOWN_GRACE, PORCHLIGHT_STOP_GRACE",
                        longest.as_secs() + 5
                    )),
            );
        }
    }

    fn addresses(&self, findings: &mut Vec<Finding>) {
        let admin = self.admin_listen;
        if let Some(edge) = self.edge.filter(|edge| overlap(edge.listen, admin)) {
            let what = format!(
                "{} is to listen for webhooks at {} and for admin at {admin}",
                self.name, edge.listen
            );
            findings.push(
                Finding::error("settings.together", what)
                    .why("Only one of the two can have the port, so it does not start.")
                    .mend("set another port in PORCHLIGHT_ADMIN_LISTEN"),
            );
        }
        if admin.ip().is_unspecified() {
            let what = format!(
                "the admin listener of {} is open to every network ({admin})",
                self.name
            );
            findings.push(
                Finding::note("settings.admin", what)
                    .why("Metrics and health are shown to whoever reaches it. In a container it has to be so; then only \
                          the network keeps others out.")
                    .mend("PORCHLIGHT_ADMIN_LISTEN=127.0.0.1:9090, or a network policy"),
            );
        }
        if self.work.is_some() && !self.has_token {
            findings.push(
                Finding::note("settings.admin", format!("{} has no control API", self.name))
                    .why("Operations can be registered by the tool alone.")
                    .mend("PORCHLIGHT_ADMIN_TOKEN=$(openssl rand -hex 24)"),
            );
        }
    }

    fn work(&self, findings: &mut Vec<Finding>) {
        let id = "settings.together";
        let Some(work) = self.work else { return };
        let pieces = work.batch_size * work.batches_max;
        if usize::from(work.prefetch) < pieces {
            let what = format!(
                "PORCHLIGHT_PREFETCH is {}, and {pieces} events could be worked on at once",
                work.prefetch
            );
            findings.push(
                Finding::note(id, what)
                    .why("The batches are never full, so events are applied more slowly than they could be.")
                    .mend(format!("PORCHLIGHT_PREFETCH={}", pieces.min(2000))),
            );
        }
        let Some(callback) = self.callback else { return };
        if callback.timeout > work.stop_grace {
            let what = format!(
                "a callback may take {}, and a stop waits {} for it",
                span(callback.timeout),
                span(work.stop_grace)
            );
            findings.push(
                Finding::note(id, what)
                    .why("A call that is cut at a stop is made again, under the same id.")
                    .mend("PORCHLIGHT_STOP_GRACE at least as long as PORCHLIGHT_CALLBACK_TIMEOUT"),
            );
        }
        if callback.give_up <= work.settle {
            let what = format!(
                "a resume waits {} for its device to settle, and is given up {} after it was issued",
                span(work.settle),
                span(callback.give_up)
            );
            findings.push(
                Finding::error(id, what)
                    .why("The first call of a resume that fails makes it a dead letter: it is never tried again.")
                    .mend("PORCHLIGHT_CALLBACK_GIVE_UP longer than PORCHLIGHT_SETTLE by hours"),
            );
        }
        if callback.inflight_max > work.commands_inflight_max {
            let what = format!(
                "PORCHLIGHT_CALLBACK_INFLIGHT_MAX is {}, and only {} commands may be sent at once",
                callback.inflight_max, work.commands_inflight_max
            );
            findings.push(
                Finding::note(id, what)
                    .why(
                        "The larger of the two is never reached, and one slow receiver can hold every place.",
                    )
                    .mend("PORCHLIGHT_COMMANDS_INFLIGHT_MAX larger than the other"),
            );
        }
    }

    fn edge(&self, findings: &mut Vec<Finding>) {
        let Some(edge) = self.edge else { return };
        let [answer, body] = edge.answer_and_body_timeouts();
        if body >= answer {
            let what = format!(
                "a body may take {}, and the whole answer {}",
                span(body),
                span(answer)
            );
            findings.push(
                Finding::warning("settings.together", what)
                    .why("A body that comes slowly leaves no time to store it: it is answered 503 although it came.")
                    .mend("PORCHLIGHT_BODY_TIMEOUT at most half of PORCHLIGHT_ANSWER_TIMEOUT"),
            );
        }
        if edge.tls.is_none() && !edge.listen.ip().is_loopback() {
            let what = format!("{} speaks plain HTTP at {}", self.name, edge.listen);
            findings.push(
                Finding::note("settings.tls", what)
                    .why("Ring posts to https alone, so something in front must end TLS.")
                    .mend("a balancer or ingress with a certificate; or PORCHLIGHT_TLS_CERT_FILE and PORCHLIGHT_TLS_KEY_FILE"),
            );
        }
        if let Some(limit) = open_files_limit().filter(|limit| *limit < edge.connections_max() + OTHER_FILES)
        {
            let what = format!(
                "{limit} files may be open here, and PORCHLIGHT_CONNECTIONS_MAX is {}",
                edge.connections_max()
            );
            findings.push(
                Finding::note("settings.files", what)
                    .why("Fewer connections are taken than set. The daemon's own limit may be another than that of this shell.")
                    .mend(format!("LimitNOFILE={} (systemd), ulimits (compose)", edge.connections_max() + OTHER_FILES)),
            );
        }
    }
}

/// Whether two sockets want the same port of the same address.
fn overlap(left: SocketAddr, right: SocketAddr) -> bool {
    let any = |ip: IpAddr| ip.is_unspecified();
    left.port() == right.port()
        && left.port() != 0
        && (left.ip() == right.ip() || any(left.ip()) || any(right.ip()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use porchlight_event::WebhookSecrets;
    use porchlight_worker::ReceiverSettings;

    fn callback() -> CallbackSettings {
        let secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let receivers = ReceiverSettings::parse_list("http://h/").unwrap();
        CallbackSettings::new(receivers, WebhookSecrets::parse(secret).unwrap())
    }

    /// What is wrong with a worker's settings.
    fn judged(work: &WorkSettings, callback: &CallbackSettings) -> Vec<Severity> {
        let mut findings = Vec::new();
        let process = Process {
            name: "the worker",
            edge: None,
            work: Some(work),
            callback: Some(callback),
            admin_listen: "127.0.0.1:9091".parse().unwrap(),
            has_token: true,
        };
        process.judge(&mut findings);
        let severities = findings.iter().map(|finding| finding.severity);
        severities.collect()
    }

    #[test]
    fn the_defaults_go_together_and_each_contradiction_is_told() {
        assert_eq!(judged(&WorkSettings::default(), &callback()), [Severity::Ok]);
        let with = |change: &dyn Fn(&mut WorkSettings, &mut CallbackSettings)| {
            let (mut work, mut callback) = (WorkSettings::default(), callback());
            change(&mut work, &mut callback);
            judged(&work, &callback)
        };
        let seconds = Duration::from_secs;
        assert_eq!(with(&|work, _| work.prefetch = 100), [Severity::Note]);
        assert_eq!(
            with(&|work, _| work.stop_grace = seconds(40)),
            [Severity::Warning]
        );
        assert_eq!(
            with(&|_, callback| callback.timeout = seconds(30)),
            [Severity::Note]
        );
        assert_eq!(with(&|_, callback| callback.inflight_max = 256), [Severity::Note]);
        let settle = with(&|work, callback| {
            work.settle = seconds(600);
            callback.give_up = seconds(60);
        });
        assert_eq!(settle, [Severity::Error]);
    }

    #[test]
    fn two_sockets_cannot_have_one_port() {
        let both = |left: &str, right: &str| overlap(left.parse().unwrap(), right.parse().unwrap());
        assert!(both("0.0.0.0:8080", "127.0.0.1:8080") && both("127.0.0.1:1", "127.0.0.1:1"));
        assert!(!both("0.0.0.0:8080", "127.0.0.1:9090") && !both("127.0.0.1:0", "127.0.0.1:0"));
    }
}
