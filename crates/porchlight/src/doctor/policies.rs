//! What policies do to our queues: some bound them, and some delete what must stay.
//!
//! It asks nothing; the queues are given with the policies that are in force on them.

use porchlight_broker::topology;
use porchlight_management::QueueStats;

use super::finding::{Finding, shell};

/// Returns that a queue of work bears; the smaller of argument and policy counts.
const DELIVERY_LIMIT: i64 = 20;
/// What can only be found out together with what AMQP shows.
#[derive(Default)]
pub(super) struct Context {
    pub(super) vhost: String,
    /// The first number of the broker's version.
    pub(super) major: u32,
    /// Queues whose delivery limit a policy has to lift.
    pub(super) limited: Vec<&'static str>,
}

/// Why a limit on what is stored matters.
pub(super) const LIMITED_WHY: &str = "After 20 returns a message is deleted for good, and each look at the dead letters that ends \
                           badly is one.";

/// The command that lifts the delivery limit of a queue.
pub(super) fn lift(queue: &str, Context { vhost, .. }: &Context) -> String {
    format!(
        "rabbitmqctl set_policy -p {} --apply-to queues --priority 10 {queue}-unlimited '^{}$' '{{\"delivery-limit\":-1}}'",
        shell(vhost),
        queue.replace('.', "\\.")
    )
}

/// What the policies in force do to our queues.
pub(super) fn judge(queues: &[QueueStats], context: &Context) -> Vec<Finding> {
    let id = "broker.policies";
    let mut findings = Vec::new();
    for queue in queues
        .iter()
        .filter(|queue| topology::QUEUES.contains(&queue.name.as_str()))
    {
        findings.extend(policy_faults(queue, context));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(id, "no policy takes away what keeps events safe"));
    }
    let bounded = |queue: &QueueStats| {
        let keys = ["max-length", "max-length-bytes"];
        keys.iter().any(|key| queue.effective_policy.contains_key(*key))
    };
    if let Some(events) = queues.iter().find(|queue| queue.name == topology::EVENTS) {
        findings.push(if bounded(events) {
            Finding::ok("broker.sizes", "a policy bounds porchlight.events")
        } else {
            Finding::note("broker.sizes", "no policy bounds porchlight.events")
                .why("It grows until a node raises its alarm, which holds up all that publishes; at its own bound only \
                      new events are answered 503.")
                .mend(format!(
                    "rabbitmqctl set_policy -p {} --apply-to queues --priority 5 porchlight-sizes \
                     '^porchlight\\.(events|commands|retry\\.1m|retry\\.10m)$' '{{\"max-length-bytes\":10000000000}}'    # a third of the disk",
                    shell(&context.vhost)
                ))
        });
    }
    findings
}

fn policy_faults(queue: &QueueStats, context: &Context) -> Vec<Finding> {
    let mut faults = Vec::new();
    let name = queue.name.as_str();
    let is_store = matches!(name, topology::DEAD | topology::UNROUTED);
    let is_work = matches!(name, topology::EVENTS | topology::COMMANDS);
    let policy = &queue.effective_policy;
    let number = |key: &str| policy.get(key).and_then(serde_json::Value::as_i64);
    let mut fault = |severity: fn(&'static str, String) -> Finding, what: String, why: &str| {
        let finding = severity("broker.policies", format!("{name}: {what}"));
        faults.push(finding.why(why).mend(change(queue, context)));
    };
    if let Some(ms) = number("expires") {
        let what = format!("the policy deletes the queue when nobody uses it for {ms} ms (expires)");
        fault(Finding::error, what, "All that is in it goes with it.");
    }
    match number("message-ttl") {
        Some(ms) if is_store => fault(
            Finding::error,
            format!("the policy deletes what is older than {ms} ms (message-ttl)"),
            "Dead letters are to stay until somebody has looked at them.",
        ),
        Some(ms) if is_work => fault(
            Finding::error,
            format!("the policy makes dead letters of what waits for longer than {ms} ms (message-ttl)"),
            "During an outage of the workers everything that waits would die.",
        ),
        Some(ms) => fault(
            Finding::warning,
            format!("the policy shortens the wait to {ms} ms at most (message-ttl)"),
            "Five tries are to last long enough for what is wrong to pass.",
        ),
        None => {}
    }
    let bound = ["max-length", "max-length-bytes"]
        .into_iter()
        .find(|key| policy.contains_key(*key));
    if let Some(bound) = bound.filter(|_| is_store) {
        let refuses = policy.get("overflow").and_then(|value| value.as_str()) == Some("reject-publish");
        if refuses {
            let what = format!("the policy bounds it and refuses what is beyond ({bound})");
            fault(
                Finding::warning,
                what,
                "What cannot be put away stays where it was, and the queue of events grows.",
            );
        } else {
            let what = format!("the policy bounds it and deletes the oldest ({bound}, overflow drop-head)");
            fault(
                Finding::error,
                what,
                "Dead letters are deleted that nobody has looked at.",
            );
        }
    }
    let limit = number("delivery-limit");
    if is_store && limit.is_some_and(|limit| limit >= 0) {
        fault(
            Finding::error,
            format!("the policy sets a delivery limit of {}", limit.unwrap_or(0)),
            LIMITED_WHY,
        );
    } else if is_work && limit.is_some_and(|limit| (0..DELIVERY_LIMIT).contains(&limit)) {
        fault(
            Finding::warning,
            format!("the policy lowers the delivery limit to {}", limit.unwrap_or(0)),
            "Each crash of a worker charges every event that it holds with one return.",
        );
    }
    if is_store && limit.is_none() && context.limited.contains(&name) {
        let what = format!(
            "{name} has RabbitMQ {}'s default delivery limit of 20",
            context.major
        );
        let finding = Finding::error("broker.policies", what);
        faults.push(finding.why(LIMITED_WHY).mend(lift(name, context)));
    }
    faults
}

/// The command that takes the policy in force away.
fn change(queue: &QueueStats, Context { vhost, .. }: &Context) -> String {
    let vhost = shell(vhost);
    let clear = |verb: &str, name: &String| format!("rabbitmqctl {verb} -p {vhost} {}", shell(name));
    let policy = queue.policy.as_ref().map(|name| clear("clear_policy", name));
    let operator = queue
        .operator_policy
        .as_ref()
        .map(|name| clear("clear_operator_policy", name));
    let commands: Vec<String> = policy.into_iter().chain(operator).collect();
    format!(
        "{}    # or let its pattern not match {}",
        commands.join("; "),
        queue.name
    )
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

    fn policy_severity(name: &str, policy: &serde_json::Value) -> Option<Severity> {
        let context = Context {
            limited: vec![topology::UNROUTED],
            major: 4,
            ..Context::default()
        };
        let faults = policy_faults(&queue(name, policy), &context);
        faults.iter().map(|finding| finding.severity).max()
    }

    #[test]
    fn a_policy_that_deletes_is_an_error_and_one_that_bounds_the_work_is_none() {
        let (warning, error) = (Some(Severity::Warning), Some(Severity::Error));
        for (name, policy, severity) in [
            (topology::EVENTS, json!({ "max-length-bytes": 1000 }), None),
            (topology::EVENTS, json!({ "message-ttl": 1000 }), error),
            (topology::EVENTS, json!({ "delivery-limit": 5 }), warning),
            (topology::EVENTS, json!({ "delivery-limit": 50 }), None),
            (topology::COMMANDS, json!({ "expires": 1000 }), error),
            (topology::RETRY_1M, json!({ "message-ttl": 1000 }), warning),
            (topology::DEAD, json!({ "max-length": 5 }), error),
            (
                topology::DEAD,
                json!({ "max-length": 5, "overflow": "reject-publish" }),
                warning,
            ),
            (topology::DEAD, json!({ "message-ttl": 1000 }), error),
            (topology::DEAD, json!({ "delivery-limit": 20 }), error),
            (topology::DEAD, json!({}), None),
            (topology::UNROUTED, json!({}), error),
            (topology::UNROUTED, json!({ "delivery-limit": -1 }), None),
        ] {
            assert_eq!(policy_severity(name, &policy), severity, "{name} {policy}");
        }
        let finding = policy_faults(
            &queue(topology::DEAD, &json!({ "expires": 1 })),
            &Context {
                vhost: "a b".to_owned(),
                ..Context::default()
            },
        );
        let mend = finding[0].mend.as_deref().unwrap();
        assert!(
            mend.starts_with("rabbitmqctl clear_policy -p 'a b' sizes"),
            "{mend}"
        );
    }
}
