//! RabbitMQ over AMQP: each address reachable, a version that works, everything declared as it should be, rights, and
//! who consumes.
//!
//! What AMQP does not show is asked in [`super::management`]. Nothing is changed on the broker.

use std::time::Duration;

use porchlight_broker::examine::{self, Deed, Examined, ObjectState, Right};
use porchlight_broker::{
    BrokerUrls, ConnectError, DepthReader, Endpoint, Link, QueueDepth, ServerVersion, TopologyConfig,
    TopologyError, topology,
};

use super::finding::Finding;
use super::is_local;
use crate::failure::chain;

/// For everything about one address; each question has a shorter deadline of its own.
const ASK_MAX: Duration = Duration::from_secs(40);
/// An ingress answers when the broker has confirmed, and has four seconds for that; near by it is below 1 ms.
const ROUND_TRIP_WARNING: Duration = Duration::from_millis(50);
/// What a user's rights should be.
const GRANT: &str = "rabbitmqctl set_permissions -p VHOST USER '^porchlight\\.' '^(porchlight\\.|amq\\.default$)' '^porchlight\\.'";

/// What was seen over AMQP.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) findings: Vec<Finding>,
    /// The first address that answered told its version.
    pub(super) version: Option<ServerVersion>,
    /// And its virtual host.
    pub(super) vhost: Option<String>,
    /// Queues that do not say by themselves that they have no delivery limit, on a broker that gives them one.
    pub(super) limited: Vec<&'static str>,
}

/// Asks and judges.
pub(super) async fn check(urls: &BrokerUrls) -> Seen {
    let mut seen = Seen::default();
    let mut connected = None;
    let addresses = urls.each();
    let mut away = Vec::new();
    for (alone, endpoint) in &addresses {
        match Link::connect(alone, "doctor").await {
            Ok(link) => {
                seen.findings.push(Finding::ok(
                    "broker.reach",
                    format!("RabbitMQ answers at {alone}"),
                ));
                connected.get_or_insert((link, alone.clone(), endpoint.user.clone()));
            }
            Err(error) => away.push((endpoint, error)),
        }
        seen.findings.extend(login(alone, endpoint));
    }
    let others = connected.is_some();
    let unreachable = away
        .iter()
        .map(|(endpoint, error)| unreachable(endpoint, error, others));
    seen.findings.extend(unreachable);
    let Some((link, alone, user)) = connected else {
        return seen;
    };
    seen.version = Some(link.server_version().clone());
    seen.findings.push(version(link.server_version()));
    if tokio::time::timeout(ASK_MAX, examine_all(&link, &alone, &mut seen))
        .await
        .is_err()
    {
        seen.findings.push(lost("no answer in time"));
    }
    link.close().await;
    for finding in &mut seen.findings {
        finding.fill(&[("VHOST", alone.vhost()), ("USER", &user)]);
    }
    seen.vhost = Some(alone.vhost().to_owned());
    seen
}

async fn examine_all(link: &Link, alone: &BrokerUrls, seen: &mut Seen) {
    match examine::objects(link, &TopologyConfig::default()).await {
        Ok(objects) => seen.take_objects(objects),
        Err(error) => seen.findings.push(lost(&chain(&error))),
    }
    seen.findings.push(match examine::rights(link).await {
        Ok(rights) => permissions(&rights),
        Err(error) => lost(&chain(&error)),
    });
    seen.findings.push(match examine::round_trip(link).await {
        Ok(took) => latency(took),
        Err(error) => lost(&chain(&error)),
    });
    match DepthReader::new(alone.clone(), "doctor").read().await {
        Ok(depths) => seen.findings.extend(queues(&depths)),
        Err(error) => seen.findings.push(lost(&chain(&error))),
    }
}

fn lost(why: &str) -> Finding {
    Finding::error(
        "broker.reach",
        format!("the connection failed while it was examined: {why}"),
    )
    .mend("rabbitmq-diagnostics check_running; rabbitmq-diagnostics check_local_alarms")
}

fn unreachable(endpoint: &Endpoint, error: &ConnectError, others_answer: bool) -> Finding {
    let Endpoint { host, port, user, .. } = endpoint;
    let what = chain(error);
    let mend = if what.contains("ACCESS") || what.contains("access") {
        format!(
            "rabbitmqctl authenticate_user {user} PASSWORD; rabbitmqctl list_user_permissions {user}    # is the \
             password right, and may the user use this virtual host? guest may log in from the same machine alone"
        )
    } else if what.contains("NOT_ALLOWED") || what.contains("NotAllowed") {
        format!(
            "rabbitmqctl list_vhosts; rabbitmqctl list_user_permissions {user}    # does the virtual host exist?"
        )
    } else {
        format!(
            "rabbitmq-diagnostics check_port_listener {port}    # on {host}: is it running, and is PORCHLIGHT_AMQP_URL right?"
        )
    };
    if others_answer {
        return Finding::warning("broker.reach", what)
            .why("Another address of the list answers, so all works; but there is one fewer to go to.")
            .mend(mend);
    }
    Finding::error("broker.reach", what)
        .why("No event can be stored: ingresses answer 503, and Ring repeats each for 73 minutes.")
        .mend(mend)
}

fn login(alone: &BrokerUrls, endpoint: &Endpoint) -> Option<Finding> {
    if is_local(&endpoint.host) {
        return None;
    }
    if endpoint.is_default_login {
        return Some(
            Finding::error("broker.login", format!("{alone} is used with RabbitMQ's default name and password"))
                .why("Everybody knows them: whoever reaches the port can read events, and send commands to your services.")
                .mend("rabbitmqctl add_user porchlight PASSWORD && rabbitmqctl delete_user guest    # then PORCHLIGHT_AMQP_URL"),
        );
    }
    if !endpoint.tls {
        return Some(
            Finding::note("broker.login", format!("{alone} is spoken to without TLS"))
                .why("Password, events and commands can be read on the network between.")
                .mend("PORCHLIGHT_AMQP_URL=amqps://…:5671/…, unless the network itself encrypts"),
        );
    }
    None
}

/// Known from release notes; the newest one that was looked at is 4.3.5.
pub(super) fn version(server: &ServerVersion) -> Finding {
    let id = "broker.version";
    let text = &server.text;
    let mut numbers = text
        .split(['.', '-', '+'])
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    let (major, minor, patch) = (next(), next(), next());
    let upgrade = "upgrade to RabbitMQ 4.3.5 or newer: deploy/OPERATING.md, Moving between versions";
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return Finding::note(
            id,
            format!("RabbitMQ calls its version '{text}', of which nothing is known"),
        );
    }
    match (major, minor, patch) {
        (0..=2, _, _) | (3, 0..=9, _) => Finding::error(id, format!("RabbitMQ {text} is too old"))
            .why("Before 3.10 quorum queues know no time to live and no dead-lettering that is certain: retries and \
                  dead letters would be lost.")
            .mend(upgrade),
        (3, _, _) => Finding::note(id, format!("RabbitMQ {text}"))
            .why("It works, and gets no more corrections.")
            .mend(upgrade),
        (4, 0..=1, _) => Finding::warning(id, format!("RabbitMQ {text}"))
            .why("A message that is routed while the cluster is split may be lost on its way to a quorum queue \
                  (corrected in 4.2.0).")
            .mend(upgrade),
        (4, 2, _) | (4, 3, 0..=2) => Finding::warning(id, format!("RabbitMQ {text}"))
            .why("A leader may confirm too early, and dead-lettering may stop after a change of members (corrected in \
                  4.3.3).")
            .mend(upgrade),
        (4, _, _) => Finding::ok(id, format!("RabbitMQ {text}")),
        _ => Finding::note(id, format!("RabbitMQ {text} is newer than any that was tried")),
    }
}

impl Seen {
    /// Sorts what was examined into what is well, missing, and otherwise.
    fn take_objects(&mut self, objects: Vec<Examined>) {
        let id = "broker.topology";
        let count = objects.len();
        let (mut missing, mut faulty) = (Vec::new(), 0);
        for Examined { object, name, state } in objects {
            match state {
                ObjectState::AsDeclared => {}
                ObjectState::Missing => missing.push(object),
                ObjectState::Faulty(TopologyError::Mismatch { argument, .. })
                    if argument == "x-delivery-limit"
                        && matches!(name, topology::DEAD | topology::UNROUTED) =>
                {
                    self.limited.push(name);
                }
                ObjectState::Faulty(error) => {
                    faulty += 1;
                    self.findings.push(fault(error));
                }
            }
        }
        if missing.len() == count {
            let what = "nothing is declared in this virtual host yet";
            let finding =
                Finding::note(id, what).mend("start an ingress or a worker, which declares everything");
            return self.findings.push(finding);
        }
        if !missing.is_empty() {
            let finding = Finding::error(id, format!("missing: {}", missing.join(", ")))
                .why("What should go there is put into porchlight.unrouted, refused, or waits.")
                .mend("restart one worker: it declares what is missing");
            self.findings.push(finding);
        } else if faulty == 0 {
            let what = format!("all {count} exchanges and queues are as declared, quorum queues among them");
            self.findings.push(Finding::ok(id, what));
        }
    }
}

fn fault(error: TopologyError) -> Finding {
    let id = "broker.topology";
    match error {
        TopologyError::Mismatch {
            object,
            argument,
            wanted,
            found,
            remedy,
        } => Finding::error(
            id,
            format!("{object}: {argument} should be {wanted} and is {found}"),
        )
        .why("Daemons refuse to work with it: what is declared is what keeps events from being lost.")
        .mend(remedy),
        TopologyError::Access { object, reason } => {
            Finding::error("broker.permissions", format!("{object}: {reason}"))
                .why("Daemons declare what is missing when they start, and check what exists.")
                .mend(GRANT)
        }
        other => Finding::error(id, chain(&other)),
    }
}

fn permissions(rights: &[Right]) -> Finding {
    let id = "broker.permissions";
    let refused = rights.iter().filter(|right| right.refusal.is_some());
    let refused: Vec<String> = refused
        .map(|right| match right.deed {
            Deed::Publish => format!("publish to {}", right.name),
            Deed::Consume => format!("consume from {}", right.name),
        })
        .collect();
    if refused.is_empty() {
        return Finding::ok(id, "the user may publish and consume where daemons do");
    }
    Finding::error(id, format!("the user may not {}", refused.join(", ")))
        .why("An ingress publishes to porchlight.events; a worker consumes from it, publishes commands, dead letters, and \
              retries through amq.default. Refused, events pile up.")
        .mend(GRANT)
}

fn latency(took: Duration) -> Finding {
    let what = format!("a round trip takes {:.1} ms", took.as_secs_f64() * 1_000.0);
    if took >= ROUND_TRIP_WARNING {
        return Finding::warning("broker.latency", what)
            .why("Each event waits for one before Ring gets its 200, within the 4 s that an answer may take.")
            .mend("rabbitmq-diagnostics runtime_thread_stats; ping HOST    # move it nearer, or look what keeps it busy");
    }
    Finding::ok("broker.latency", what)
}

fn queues(depths: &[QueueDepth]) -> Vec<Finding> {
    let counts = |name: &str| depths.iter().find(|depth| depth.queue == name)?.counts;
    let mut findings = Vec::new();
    if let Some(events) = counts(topology::EVENTS) {
        findings.push(match events.consumers {
            0 => Finding::error(
                "broker.consumers",
                "nobody consumes from porchlight.events: no worker runs, or none has its ledger",
            )
            .why(format!(
                "{} events wait, and no device's operations are paused or resumed.",
                events.ready
            ))
            .mend("start a worker; if one runs, its log and its /readyz say why it does not consume"),
            count => Finding::ok(
                "broker.consumers",
                format!("{count} consumers on porchlight.events"),
            ),
        });
    }
    if let Some(commands) =
        counts(topology::COMMANDS).filter(|commands| commands.consumers == 0 && commands.ready > 0)
    {
        let what = format!(
            "{} commands wait, and nobody consumes from porchlight.commands",
            commands.ready
        );
        findings.push(
            Finding::warning("broker.consumers", what)
                .why("Nobody pauses or resumes anything.")
                .mend("start the service that acts on commands; or, with callbacks: rabbitmqctl purge_queue -p VHOST porchlight.commands"),
        );
    }
    if let Some(unrouted) = counts(topology::UNROUTED) {
        findings.push(match unrouted.ready {
            0 => Finding::ok("broker.unrouted", "porchlight.unrouted is empty"),
            ready => Finding::error("broker.unrouted", format!("porchlight.unrouted holds {ready}"))
                .why("A queue or a binding was missing when they came: nobody works on them.")
                .mend("restart one worker, which binds again; then move them with a shovel: rabbitmq-plugins enable \
                       rabbitmq_shovel && rabbitmqctl set_parameter -p VHOST shovel unrouted '{\"src-uri\":\"amqp://\",\"src-queue\":\"porchlight.unrouted\",\"dest-uri\":\"amqp://\",\
                       \"dest-exchange\":\"porchlight.events\",\"src-delete-after\":\"queue-length\"}'"),
        });
    }
    if let Some(dead) = counts(topology::DEAD) {
        findings.push(match dead.ready {
            0 => Finding::ok("broker.dead", "porchlight.dead is empty"),
            ready => Finding::warning("broker.dead", format!("porchlight.dead holds {ready}"))
                .why("Each is an event or a command that nobody could work on.")
                .mend("porchlight dead list"),
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use porchlight_broker::QueueCounts;

    #[test]
    fn versions_are_judged_by_what_is_known_of_them() {
        let judged = |text: &str| {
            let (major, text) = (0, text.to_owned());
            version(&ServerVersion { major, text }).severity
        };
        for (text, severity) in [
            ("3.9.29", Severity::Error),
            ("3.10.8", Severity::Note),
            ("3.13.7", Severity::Note),
            ("4.1.4", Severity::Warning),
            ("4.2.9", Severity::Warning),
            ("4.3.2", Severity::Warning),
            ("4.3.3", Severity::Ok),
            ("4.4.0-rc.1", Severity::Ok),
            ("5.0.0", Severity::Note),
            ("nightly", Severity::Note),
        ] {
            assert_eq!(judged(text), severity, "{text}");
        }
    }

    fn examined(name: &'static str, state: ObjectState) -> Examined {
        let object = format!("queue '{name}'");
        Examined { object, name, state }
    }

    fn mismatch(name: &'static str, argument: &str) -> Examined {
        let state = ObjectState::Faulty(TopologyError::Mismatch {
            object: format!("queue '{name}'"),
            argument: argument.to_owned(),
            wanted: "-1".to_owned(),
            found: "none".to_owned(),
            remedy: "move it".to_owned(),
        });
        examined(name, state)
    }

    #[test]
    fn what_is_missing_otherwise_or_limited_is_told_apart() {
        let judged = |objects: Vec<Examined>| {
            let mut seen = Seen::default();
            seen.take_objects(objects);
            let severities: Vec<_> = seen.findings.iter().map(|finding| finding.severity).collect();
            (severities, seen.limited)
        };
        let (good, gone) = (
            || examined(topology::EVENTS, ObjectState::AsDeclared),
            || examined(topology::DEAD, ObjectState::Missing),
        );
        assert_eq!(judged(vec![good()]), (vec![Severity::Ok], vec![]));
        assert_eq!(judged(vec![gone()]), (vec![Severity::Note], vec![]));
        assert_eq!(judged(vec![good(), gone()]), (vec![Severity::Error], vec![]));
        let faulty = mismatch(topology::EVENTS, "x-delivery-limit");
        assert_eq!(judged(vec![good(), faulty]), (vec![Severity::Error], vec![]));
        let limited = mismatch(topology::DEAD, "x-delivery-limit");
        assert_eq!(
            judged(vec![good(), limited]),
            (vec![Severity::Ok], vec![topology::DEAD])
        );
    }

    #[test]
    fn queues_that_need_somebody_are_told() {
        let depth = |queue, ready, consumers| QueueDepth {
            queue,
            counts: Some(QueueCounts { ready, consumers }),
        };
        let wrong = |depths: &[QueueDepth]| {
            let findings = queues(depths);
            let wrong = findings
                .into_iter()
                .filter(|finding| finding.severity > Severity::Ok);
            wrong.map(|finding| finding.id).collect::<Vec<_>>()
        };
        let good = [
            depth(topology::EVENTS, 5, 1),
            depth(topology::COMMANDS, 5, 1),
            depth(topology::DEAD, 0, 0),
            depth(topology::UNROUTED, 0, 0),
        ];
        assert!(wrong(&good).is_empty());
        let bad = [
            depth(topology::EVENTS, 5, 0),
            depth(topology::COMMANDS, 5, 0),
            depth(topology::DEAD, 1, 0),
            depth(topology::UNROUTED, 1, 0),
        ];
        let ids = [
            "broker.consumers",
            "broker.consumers",
            "broker.unrouted",
            "broker.dead",
        ];
        assert_eq!(wrong(&bad), ids);
    }
}
