//! RabbitMQ through its management API: what policies add, bindings, members, nodes and alarms, and its clock.
//!
//! Without an address of the API it says what could not be checked.

use std::time::Instant;

use porchlight_broker::topology;
use porchlight_management::{AskError, Binding, Management, Node, QueueStats};

use super::clock::{self, HEADER_GRAIN, Reading};
use super::finding::Finding;
use super::policies::{self, Context, LIMITED_WHY, lift};
use crate::failure::chain;
use crate::output::size;

/// What every name of ours begins with.
const PREFIX: &str = "porchlight.";
/// RabbitMQ's own default for free disk, in bytes: far too little to go on with.
const DISK_FREE_LIMIT_DEFAULT: u64 = 50_000_000;
/// From so many percent of its memory or files on a node is near its alarm.
const NEAR_PERCENT: u64 = 80;
/// Free disk is near the alarm when it is less than so many times its limit.
const DISK_NEAR: u64 = 2;
/// Nodes with which a majority is left when one is lost.
const NODES_SAFE: usize = 3;
/// Where each exchange of ours must lead, with which key.
const BINDINGS: [(&str, &str); 4] = [
    (topology::EVENTS, ""),
    (topology::DEAD, ""),
    (topology::UNROUTED, ""),
    (topology::COMMANDS, "#"),
];

/// What is said without the API.
pub(super) fn not_given(context: &Context) -> Vec<Finding> {
    let what = "not asked: policies, bindings, alarms, nodes and members of queues were not checked";
    let mend = "PORCHLIGHT_MANAGEMENT_URL=http://USER:PASSWORD@HOST:15672 porchlight doctor    # user with the tag monitoring";
    let mut findings = vec![Finding::note("broker.management", what).mend(mend)];
    let unknown = context.limited.iter().map(|queue| {
        let what = format!("{queue} needs a policy that lifts RabbitMQ 4's default delivery limit; whether there is one was not checked");
        Finding::warning("broker.policies", what).why(LIMITED_WHY).mend(lift(queue, context))
    });
    findings.extend(unknown);
    findings
}

/// Asks and judges.
pub(super) async fn check(management: &Management, context: &Context) -> Vec<Finding> {
    let asked = Instant::now();
    let overview = match management.overview().await {
        Ok(overview) => overview,
        Err(error) => return vec![unreachable(management, &error)],
    };
    let took = asked.elapsed();
    let what = format!("the management API answers at {}", management.url());
    let mut findings = vec![Finding::ok("broker.management", what)];
    if let Some(theirs) = overview.clock {
        let reading = Reading::now(theirs, took, HEADER_GRAIN);
        findings.push(clock::judge("clock.broker", "RabbitMQ", reading));
    }
    let (nodes, queues) = tokio::join!(management.nodes(), management.queues(&context.vhost, PREFIX));
    let node_count = nodes.as_ref().map_or(0, Vec::len);
    match nodes {
        Ok(nodes) => findings.extend(judge_nodes(&nodes)),
        Err(error) => findings.push(unseen("broker.alarms", management, &error)),
    }
    match queues {
        Ok(queues) => {
            findings.extend(policies::judge(&queues, context));
            findings.extend(judge_members(&queues, node_count));
        }
        Err(error) => findings.push(unseen("broker.policies", management, &error)),
    }
    findings.push(bindings(management, context).await);
    findings
}

fn unreachable(management: &Management, error: &AskError) -> Finding {
    let finding = Finding::warning("broker.management", chain(error))
        .why("Policies, alarms, nodes and members could not be checked; nor can the daemons show what consumers hold.");
    finding.mend(match error {
        AskError::Login { user } | AskError::Forbidden { user, .. } => format!(
            "rabbitmqctl authenticate_user {user} PASSWORD; rabbitmqctl set_user_tags {user} monitoring    # or correct PORCHLIGHT_MANAGEMENT_URL"
        ),
        _ => format!(
            "rabbitmq-plugins enable rabbitmq_management; curl -i http://{}/api/overview    # is PORCHLIGHT_MANAGEMENT_URL right?",
            management.url().target().address()
        ),
    })
}

fn unseen(id: &'static str, management: &Management, error: &AskError) -> Finding {
    Finding::note(id, format!("not checked: {}", chain(error))).mend(format!(
        "rabbitmqctl set_user_tags {} monitoring",
        management.url().user()
    ))
}

fn judge_nodes(nodes: &[Node]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut well = true;
    for node in nodes {
        let found = alarms(node);
        well &= found.is_empty();
        findings.extend(found);
    }
    if well {
        findings.push(Finding::ok(
            "broker.alarms",
            "no node has an alarm or is near one",
        ));
    }
    let split: Vec<_> = nodes.iter().filter(|node| !node.partitions.is_empty()).collect();
    if let Some(node) = split.first() {
        let what = format!("{} is cut off from {}", node.name, node.partitions.join(", "));
        findings.push(
            Finding::error("broker.nodes", what)
                .why("Each side goes on by itself: queues without a majority take nothing.")
                .mend("rabbitmqctl cluster_status    # then restart the side with fewer nodes"),
        );
    }
    let down: Vec<_> = nodes
        .iter()
        .filter(|node| !node.running)
        .map(|node| node.name.as_str())
        .collect();
    if !down.is_empty() {
        findings.push(
            Finding::error("broker.nodes", format!("does not run: {}", down.join(", ")))
                .why("One more that is lost, and queues have no majority: ingresses answer 503.")
                .mend("systemctl start rabbitmq-server    # there; or, if it is gone for good: rabbitmqctl forget_cluster_node NODE"),
        );
    }
    findings.push(match nodes.len() {
        1 => Finding::note("broker.nodes", "one node")
            .why("A confirm means that this one disk has the event; when the node is away, ingresses answer 503.")
            .mend("three nodes in production: deploy/OPERATING.md, Sizing"),
        count if count < NODES_SAFE => Finding::warning("broker.nodes", format!("{count} nodes"))
            .why("With two, the loss of either stops the queues: this is less safe than one.")
            .mend("rabbitmqctl join_cluster rabbit@HOST    # on a third node"),
        count => Finding::ok("broker.nodes", format!("{count} nodes, {} of them run", count - down.len())),
    });
    findings
}

/// What raises an alarm on a node, or soon will. A node that does not run tells nothing.
fn alarms(node: &Node) -> Vec<Finding> {
    let id = "broker.alarms";
    let name = &node.name;
    let why = "Publishers of the whole cluster are held up: ingresses answer 503 until it is over.";
    let mut findings = Vec::new();
    if node.memory_alarm {
        let what = format!("{name} has a memory alarm");
        findings.push(Finding::error(id, what).why(why).mend(format!(
            "rabbitmq-diagnostics -n {name} memory_breakdown    # give it more memory, or let workers empty the queues"
        )));
    } else if is_near(node.memory_used, node.memory_limit) {
        let (used, limit) = (node.memory_used.unwrap_or(0), node.memory_limit.unwrap_or(0));
        let what = format!(
            "{name} uses {} of the {} at which it raises the alarm",
            size(used),
            size(limit)
        );
        findings.push(
            Finding::warning(id, what)
                .why(why)
                .mend(format!("rabbitmq-diagnostics -n {name} memory_breakdown")),
        );
    }
    let (free, limit) = (node.disk_free, node.disk_free_limit);
    if node.disk_alarm {
        let what = format!("{name} has a disk alarm: {} free", size(free.unwrap_or(0)));
        findings.push(Finding::error(id, what).why(why).mend(format!(
            "df -h    # on {name}: make room, or give it a larger disk; it goes on by itself"
        )));
    } else if let Some((free, limit)) = free
        .zip(limit)
        .filter(|(free, limit)| *free < limit.saturating_mul(DISK_NEAR))
    {
        let what = format!(
            "{name} has {} of disk free, and raises the alarm at {}",
            size(free),
            size(limit)
        );
        findings.push(
            Finding::warning(id, what)
                .why(why)
                .mend(format!("df -h    # on {name}")),
        );
    }
    if node.running && limit == Some(DISK_FREE_LIMIT_DEFAULT) {
        let what = format!("{name} raises its alarm for the disk at 50 MB only, RabbitMQ's default");
        findings.push(
            Finding::warning(id, what)
                .why("A node writes 50 MB in less than a second; it then dies of a full disk before any alarm.")
                .mend("disk_free_limit.absolute = 2GB    # in rabbitmq.conf; now: rabbitmqctl set_disk_free_limit 2GB"),
        );
    }
    if is_near(node.files_used, node.files_max) {
        let what = format!(
            "{name} has {} of {} files open",
            node.files_used.unwrap_or(0),
            node.files_max.unwrap_or(0)
        );
        findings.push(
            Finding::warning(id, what)
                .why("At the limit it takes no connection any more.")
                .mend("LimitNOFILE=65536    # in the unit of rabbitmq-server, or ulimits of its container"),
        );
    }
    findings
}

fn is_near(used: Option<u64>, limit: Option<u64>) -> bool {
    match (used, limit) {
        (Some(used), Some(limit)) if limit > 0 => {
            used.saturating_mul(100) >= limit.saturating_mul(NEAR_PERCENT)
        }
        _ => false,
    }
}

/// Whether each queue has a copy on enough nodes, and a majority of them runs.
fn judge_members(queues: &[QueueStats], node_count: usize) -> Vec<Finding> {
    let id = "broker.members";
    let mut findings = Vec::new();
    let wanted = node_count.min(NODES_SAFE);
    for queue in queues.iter().filter(|queue| !queue.members.is_empty()) {
        let (name, members, online) = (&queue.name, queue.members.len(), queue.online.len());
        if online * 2 <= members {
            findings.push(
                Finding::error(
                    id,
                    format!("{name}: {online} of its {members} members run, which is no majority"),
                )
                .why("It takes nothing and gives nothing until more of them run.")
                .mend("rabbitmqctl cluster_status    # start the nodes that do not run"),
            );
        } else if members < wanted {
            findings.push(
                Finding::warning(id, format!("{name}: {members} members on {node_count} nodes"))
                    .why("It was declared when there were fewer nodes; the loss of one may stop it.")
                    .mend(format!("rabbitmq-queues grow NODE all --queue-pattern '^{}$'    # for each node that has none", name.replace('.', "\\."))),
            );
        } else if online < members {
            findings.push(
                Finding::warning(id, format!("{name}: {online} of its {members} members run"))
                    .why("The loss of one more may stop it.")
                    .mend("rabbitmqctl cluster_status"),
            );
        }
    }
    if findings.is_empty() && !queues.is_empty() {
        findings.push(Finding::ok(id, "every queue has all its members"));
    }
    findings
}

async fn bindings(management: &Management, context: &Context) -> Finding {
    let id = "broker.bindings";
    let (mut missing, mut extra) = (Vec::new(), Vec::new());
    for (name, key) in BINDINGS {
        match management.bindings_from(&context.vhost, name).await {
            Ok(bindings) => {
                if !bindings.iter().any(|binding| is_own(binding, name, key)) {
                    missing.push(name);
                }
                // Others may listen to commands and to what died; the work must have one way alone.
                let others = bindings.iter().filter(|binding| !is_own(binding, name, key));
                extra.extend(
                    others
                        .filter(|_| name == topology::EVENTS)
                        .map(|binding| binding.destination.clone()),
                );
            }
            // That the exchange is missing is told where the topology is.
            Err(AskError::Missing { .. }) => {}
            Err(error) => return unseen(id, management, &error),
        }
    }
    if !missing.is_empty() {
        return Finding::error(
            id,
            format!("no binding from exchange to queue: {}", missing.join(", ")),
        )
        .why("What is published there goes to porchlight.unrouted, where nobody works on it.")
        .mend("restart one worker: it binds again what it declares");
    }
    if !extra.is_empty() {
        return Finding::warning(id, format!("porchlight.events leads to {} as well", extra.join(", ")))
            .why("An event that reaches any queue counts as routed: if the way to the queue of events is lost, nobody \
                  notices, and Ring is told 200.")
            .mend("let the other one read an exchange of its own: bind that one in front of porchlight.events");
    }
    Finding::ok(id, "every exchange leads to its queue")
}

fn is_own(binding: &Binding, name: &str, key: &str) -> bool {
    binding.destination_type == "queue" && binding.destination == name && binding.routing_key == key
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use serde_json::json;

    fn queue(name: &str, policy: &serde_json::Value) -> QueueStats {
        let members = ["a", "b", "c"];
        serde_json::from_value(json!({
            "name": name, "type": "quorum", "policy": "sizes", "effective_policy_definition": policy,
            "members": members, "online": members,
        }))
        .unwrap()
    }

    fn node(fields: &serde_json::Value) -> Node {
        let mut whole = json!({
            "name": "rabbit@a", "running": true, "mem_used": 10, "mem_limit": 1000, "disk_free": 90_000_000_000_u64,
            "disk_free_limit": 2_000_000_000_u64, "fd_used": 10, "fd_total": 1000,
        });
        whole
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn an_alarm_is_an_error_and_what_comes_near_one_a_warning() {
        assert!(alarms(&node(&json!({}))).is_empty());
        for (fields, severity) in [
            (json!({ "mem_alarm": true }), Severity::Error),
            (json!({ "mem_used": 900 }), Severity::Warning),
            (json!({ "disk_free_alarm": true }), Severity::Error),
            (json!({ "disk_free": 3_000_000_000_u64 }), Severity::Warning),
            (json!({ "disk_free_limit": 50_000_000 }), Severity::Warning),
            (json!({ "fd_used": 900 }), Severity::Warning),
        ] {
            let found = alarms(&node(&fields));
            assert_eq!((found.len(), found[0].severity), (1, severity), "{fields}");
        }
    }

    #[test]
    fn nodes_are_three_and_run() {
        let worst = |nodes: &[Node]| judge_nodes(nodes).iter().map(|finding| finding.severity).max();
        let named = |name: &str, running: bool| node(&json!({ "name": name, "running": running }));
        let three = |running| [named("a", true), named("b", true), named("c", running)];
        assert_eq!(worst(&three(true)), Some(Severity::Ok));
        assert_eq!(worst(&three(false)), Some(Severity::Error));
        assert_eq!(worst(&three(true)[..2]), Some(Severity::Warning));
        assert_eq!(worst(&three(true)[..1]), Some(Severity::Note));
        assert_eq!(
            worst(&[node(&json!({ "partitions": ["b"] }))]),
            Some(Severity::Error)
        );
    }

    #[test]
    fn members_that_are_too_few_or_do_not_run_are_told() {
        let judged = |members: &[&str], online: &[&str]| {
            let mut queue = queue(topology::EVENTS, &json!({}));
            queue.members = members.iter().map(|name| (*name).to_owned()).collect();
            queue.online = online.iter().map(|name| (*name).to_owned()).collect();
            judge_members(&[queue], 3)[0].severity
        };
        assert_eq!(judged(&["a", "b", "c"], &["a", "b", "c"]), Severity::Ok);
        assert_eq!(judged(&["a", "b", "c"], &["a", "b"]), Severity::Warning);
        assert_eq!(judged(&["a", "b", "c"], &["a"]), Severity::Error);
        assert_eq!(judged(&["a"], &["a"]), Severity::Warning);
    }
}
