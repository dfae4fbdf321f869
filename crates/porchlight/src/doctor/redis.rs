//! Redis or Valkey: reachable, of a version that works, keeping what it is given, with room and close by.
//!
//! What is asked is the store's; here it is judged. Nothing is changed but one key of a probe, which ends by itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use porchlight_store::{ServerReport, Store, StoreError};

use super::clock::{self, Reading};
use super::finding::Finding;
use crate::failure::chain;
use crate::output::size;

/// For everything about Redis; each question has a shorter deadline of its own.
const ASK_MAX: Duration = Duration::from_secs(20);
/// The first version that is supported; before it scripts could run beyond the limit of memory.
const VERSION_MIN: (u64, u64) = (7, 0);
/// From so many percent of its memory on somebody should make room.
const MEMORY_WARNING_PERCENT: u64 = 75;
/// From so many percent on writes will be refused soon.
const MEMORY_ERROR_PERCENT: u64 = 90;
/// From so many percent of the connections it takes on.
const CLIENTS_WARNING_PERCENT: u64 = 80;
/// A worker makes one round trip for each batch: from here on that is what bounds it.
const ROUND_TRIP_WARNING: Duration = Duration::from_millis(10);
/// How far a replica may lag behind, in bytes of the replication stream.
const LAG_WARNING_BYTES: u64 = 16 << 20;

/// Asks and judges.
pub(super) async fn check(store: &Store) -> Vec<Finding> {
    let checks = async {
        let report = match store.report().await {
            Ok(report) => report,
            Err(error) => return vec![unreachable(store, &error)],
        };
        let mut findings = vec![Finding::ok(
            "redis.reach",
            format!("Redis answers at {}", store.address()),
        )];
        judge(&report, &mut findings);
        findings.push(probe(store).await);
        findings.push(match store.server_clock().await {
            Ok(clock) => clock::judge(
                "clock.redis",
                "Redis",
                Reading::from_micros(clock.at_us, clock.took),
            ),
            Err(error) => Finding::note("clock.redis", format!("not checked: {error}")),
        });
        findings.push(match store.round_trip().await {
            Ok(took) => latency(took),
            Err(error) => Finding::note("redis.latency", format!("not checked: {error}")),
        });
        findings
    };
    let slow = |_| {
        let what = format!(
            "Redis at {} takes longer than {} s to answer",
            store.address(),
            ASK_MAX.as_secs()
        );
        vec![
            Finding::error("redis.reach", what).mend("redis-cli SLOWLOG GET 10; redis-cli INFO commandstats"),
        ]
    };
    tokio::time::timeout(ASK_MAX, checks).await.unwrap_or_else(slow)
}

fn unreachable(store: &Store, error: &StoreError) -> Finding {
    let what = format!("Redis at {}: {}", store.address(), chain(error));
    let finding = Finding::error("redis.reach", what);
    match error {
        StoreError::Denied(_) => finding
            .why("Workers hold every event until they are let in; the queue grows.")
            .mend("set name and password in PORCHLIGHT_REDIS_URL=redis://USER:PASSWORD@HOST:6379; the user needs: ~porchlight:* +@all -@dangerous +info"),
        StoreError::Loading => finding
            .why("It reads its data after a start; workers wait for it.")
            .mend("redis-cli INFO persistence | grep loading    # wait, and look again"),
        _ => finding
            .why("Workers hold every event until it is back; the queue grows.")
            .mend("redis-cli -u \"$PORCHLIGHT_REDIS_URL\" PING    # is it running, and is PORCHLIGHT_REDIS_URL right?"),
    }
}

/// Everything that the server's own report tells.
fn judge(report: &ServerReport, findings: &mut Vec<Finding>) {
    findings.push(version(report));
    findings.push(role(report));
    findings.extend(cluster(report));
    findings.push(eviction(report));
    findings.push(persistence(report));
    findings.push(last_write(report));
    findings.push(memory(report));
    findings.extend(clients(report));
    findings.extend(replicas(report));
}

fn version(report: &ServerReport) -> Finding {
    let id = "redis.version";
    if let Some(version) = report.text("valkey_version") {
        return Finding::ok(id, format!("Valkey {version}"));
    }
    let Some(text) = report.text("redis_version") else {
        return Finding::note(id, "the server does not tell its version");
    };
    let mut numbers = text.split('.').map(|part| part.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < VERSION_MIN {
        return Finding::error(id, format!("Redis {text} is too old"))
            .why("Before 7.0 a script that runs out of memory half-way leaves half of its effects behind.")
            .mend("install Redis 7.2 or newer, or Valkey 8, on a copy of the data; it reads the old files");
    }
    Finding::ok(id, format!("Redis {text}"))
}

fn role(report: &ServerReport) -> Finding {
    let id = "redis.role";
    match report.text("role") {
        Some("master") => Finding::ok(id, "a primary, which takes writes"),
        Some(_) => Finding::error(id, "this server is a replica")
            .why("It takes no writes, so no event can be applied.")
            .mend(format!(
                "point PORCHLIGHT_REDIS_URL to the primary, which is {}:{}; or, if that one is gone for good: redis-cli REPLICAOF NO ONE",
                report.text("master_host").unwrap_or("unknown"),
                report.text("master_port").unwrap_or("6379"),
            )),
        None => Finding::note(id, "the server does not tell whether it is a primary"),
    }
}

fn cluster(report: &ServerReport) -> Option<Finding> {
    let id = "redis.cluster";
    if report.text("cluster_enabled") != Some("1") {
        return None;
    }
    let (state, covered) = (report.text("cluster_state")?, report.number("cluster_slots_ok")?);
    let shards = report.number("cluster_size").unwrap_or(1);
    Some(if state != "ok" || covered < 16_384 {
        Finding::error(
            id,
            format!("the cluster is {state}, and {covered} of its 16384 slots are served"),
        )
        .why("Events of devices in the other slots cannot be applied.")
        .mend("redis-cli --cluster check HOST:PORT; redis-cli --cluster fix HOST:PORT")
    } else if shards > 1 {
        Finding::error(id, format!("a cluster of {shards} shards"))
            .why("Workers speak to the one server that is named; keys that lie on another shard are refused (MOVED), \
                  and those events are held for ever.")
            .mend("use one primary with replicas, or a cluster with one shard; one shard takes tens of thousands of events a second")
    } else {
        Finding::ok(id, "a cluster with one shard, all slots served")
    })
}

fn eviction(report: &ServerReport) -> Finding {
    let id = "redis.eviction";
    match report.text("maxmemory_policy") {
        Some("noeviction") => Finding::ok(id, "maxmemory-policy is noeviction"),
        Some(policy) => Finding::error(id, format!("maxmemory-policy is {policy}"))
            .why("When its memory is full Redis drops keys of its choice: marks of events that were seen, which are then \
                  applied again, or devices with their operations.")
            .mend("redis-cli CONFIG SET maxmemory-policy noeviction && redis-cli CONFIG REWRITE"),
        None => Finding::note(id, "the server does not tell its maxmemory-policy; it must be noeviction"),
    }
}

fn persistence(report: &ServerReport) -> Finding {
    let id = "redis.persistence";
    if report.text("aof_enabled") == Some("0") {
        return Finding::error(id, "there is no append-only file (appendonly no)")
            .why("A restart forgets everything since the last snapshot, or everything: devices, operations, and which \
                  events were seen. What was acked to the queue by then is gone.")
            .mend("redis-cli CONFIG SET appendonly yes && redis-cli CONFIG REWRITE");
    }
    match report.fsync.as_deref() {
        Some("no") => Finding::error(id, "the append-only file is synced when the system likes (appendfsync no)")
            .why("A crash of the machine loses some 30 seconds of events that were acked to the queue.")
            .mend("redis-cli CONFIG SET appendfsync always && redis-cli CONFIG REWRITE"),
        Some("always") => Finding::ok(id, "append-only file, synced before each answer"),
        Some(other) => Finding::note(id, format!("append-only file, synced by {other}"))
            .why("A crash of the machine may lose the last second of events that were acked to the queue. `always` \
                  loses none and still takes tens of thousands of events a second.")
            .mend("redis-cli CONFIG SET appendfsync always && redis-cli CONFIG REWRITE"),
        None => Finding::note(id, "append-only file; how it is synced the server does not tell"),
    }
}

fn last_write(report: &ServerReport) -> Finding {
    let id = "redis.writes";
    let ways = [
        ("aof_last_write_status", "append"),
        ("aof_last_bgrewrite_status", "rewrite of the append-only file"),
        ("rdb_last_bgsave_status", "snapshot"),
    ];
    let failed: Vec<_> = ways
        .iter()
        .filter(|(name, _)| report.text(name).is_some_and(|status| status != "ok"))
        .map(|(_, what)| *what)
        .collect();
    if failed.is_empty() {
        return Finding::ok(id, "the last append, rewrite and snapshot went well");
    }
    Finding::error(id, format!("the last {} failed", failed.join(" and the last ")))
        .why("What is written from now on may not survive a restart, and Redis may refuse writes altogether (MISCONF).")
        .mend("df -h \"$(redis-cli CONFIG GET dir | tail -1)\"; redis-cli INFO persistence    # is the disk full, or the directory not writable?")
}

fn memory(report: &ServerReport) -> Finding {
    let id = "redis.memory";
    let Some(used) = report.number("used_memory") else {
        return Finding::note(id, "the server does not tell how much memory it uses");
    };
    let limit = report.number("maxmemory").unwrap_or(0);
    let machine = report.number("total_system_memory").filter(|bytes| *bytes > 0);
    if limit == 0 {
        let what = format!("{} in use, and no limit (maxmemory 0)", size(used));
        return Finding::warning(id, what)
            .why("It grows until the system kills it, in place of refusing writes, which workers wait for in peace.")
            .mend(format!(
                "redis-cli CONFIG SET maxmemory {} && redis-cli CONFIG REWRITE    # half of the memory that it may have: a rewrite of the append-only file may copy all of it",
                machine.map_or_else(|| "BYTES".to_owned(), |bytes| (bytes / 2).to_string()),
            ));
    }
    let percent = used.saturating_mul(100) / limit;
    let what = format!("{} of {} in use ({percent} %)", size(used), size(limit));
    let why = "Full, it refuses every write; workers hold their events and the queue grows.";
    let mend = "redis-cli CONFIG SET maxmemory BYTES && redis-cli CONFIG REWRITE    # after the machine or its container got more";
    if percent >= MEMORY_ERROR_PERCENT {
        Finding::error(id, what).why(why).mend(mend)
    } else if percent >= MEMORY_WARNING_PERCENT {
        Finding::warning(id, what).why(why).mend(mend)
    } else if machine.is_some_and(|bytes| limit > bytes) {
        Finding::warning(
            id,
            format!("maxmemory is {}, and the machine has less", size(limit)),
        )
        .why("The system kills it before the limit is met.")
        .mend(mend)
    } else {
        Finding::ok(id, what)
    }
}

fn clients(report: &ServerReport) -> Option<Finding> {
    let (clients, most) = (report.number("connected_clients")?, report.number("maxclients")?);
    let what = format!("{clients} of {most} connections in use");
    if clients.saturating_mul(100) >= most.saturating_mul(CLIENTS_WARNING_PERCENT) {
        return Some(
            Finding::warning("redis.clients", what)
                .why("Beyond the limit a worker that starts is not let in.")
                .mend("redis-cli CLIENT LIST; redis-cli CONFIG SET maxclients 10000"),
        );
    }
    Some(Finding::ok("redis.clients", what))
}

/// A primary's replicas. None is no fault: one server with `always` keeps what it acked.
fn replicas(report: &ServerReport) -> Option<Finding> {
    let id = "redis.replicas";
    let count = report.number("connected_slaves").filter(|count| *count > 0)?;
    let offset = report.number("master_repl_offset")?;
    // `slave0:ip=…,port=…,state=online,offset=…,lag=…`
    let behind = (0..count).filter_map(|index| {
        let line = report.text(&format!("slave{index}"))?;
        let field = |name: &str| {
            line.split(',')
                .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        };
        let is_online = field("state") == Some("online");
        let at: u64 = field("offset")?.parse().ok()?;
        let host = field("ip").unwrap_or("unknown");
        (!is_online || offset.saturating_sub(at) > LAG_WARNING_BYTES).then(|| {
            format!(
                "{host} ({}, {} behind)",
                field("state").unwrap_or("?"),
                size(offset.saturating_sub(at))
            )
        })
    });
    let behind: Vec<String> = behind.collect();
    if behind.is_empty() {
        return Some(Finding::ok(id, format!("{count} replicas keep up")));
    }
    Some(
        Finding::warning(id, format!("replicas that do not keep up: {}", behind.join(", ")))
            .why("A failover to one of them forgets what it has not seen.")
            .mend(
                "redis-cli INFO replication    # on both sides; then look at network and disk of the replica",
            ),
    )
}

async fn probe(store: &Store) -> Finding {
    let id = "redis.write";
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match store.probe(i64::try_from(now.as_millis()).unwrap_or(i64::MAX)).await {
        Ok(()) => Finding::ok(id, "a script may write, as events do"),
        Err(error) => Finding::error(id, format!("a script cannot write: {}", chain(&error)))
            .why("Events are applied by scripts: workers hold them all, and the queue grows.")
            .mend(match error {
                StoreError::Denied(_) => "redis-cli ACL SETUSER NAME '~porchlight:*' +@all -@dangerous +info    # keys and commands that it needs",
                StoreError::Full => "redis-cli CONFIG SET maxmemory BYTES    # or make room",
                _ => "redis-cli INFO persistence; redis-cli INFO replication",
            }),
    }
}

fn latency(took: Duration) -> Finding {
    let id = "redis.latency";
    let what = format!("a round trip takes {:.1} ms", took.as_secs_f64() * 1_000.0);
    if took >= ROUND_TRIP_WARNING {
        return Finding::warning(id, what)
            .why("Workers make one for each batch: with four batches of 64 at once that bounds each of them.")
            .mend("redis-cli --latency -h HOST; redis-cli SLOWLOG GET 10    # move it near the workers, or look what blocks it");
    }
    Finding::ok(id, what)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    const GOOD: [(&str, &str); 12] = [
        ("redis_version", "7.2.4"),
        ("role", "master"),
        ("maxmemory_policy", "noeviction"),
        ("aof_enabled", "1"),
        ("aof_last_write_status", "ok"),
        ("rdb_last_bgsave_status", "ok"),
        ("used_memory", "1000"),
        ("maxmemory", "100000"),
        ("total_system_memory", "1000000"),
        ("connected_clients", "3"),
        ("maxclients", "10000"),
        ("cluster_enabled", "0"),
    ];

    /// What is found when some facts are otherwise, without what is well.
    fn wrong(facts: &[(&str, &str)], fsync: &str) -> Vec<(&'static str, Severity)> {
        let all = GOOD.map(|(name, value)| {
            let other = facts.iter().find(|(other, _)| *other == name);
            (name, other.map_or(value, |(_, value)| *value))
        });
        let mut report = ServerReport::from(all);
        report.fsync = Some(fsync.to_owned());
        let mut findings = Vec::new();
        judge(&report, &mut findings);
        let wrong = findings.iter().filter(|finding| finding.severity > Severity::Ok);
        wrong.map(|finding| (finding.id, finding.severity)).collect()
    }

    #[test]
    fn a_good_server_is_well_and_each_fault_is_told_apart() {
        assert_eq!(wrong(&[], "always"), []);
        for (fact, id, severity) in [
            (("redis_version", "6.2.1"), "redis.version", Severity::Error),
            (("role", "slave"), "redis.role", Severity::Error),
            (
                ("maxmemory_policy", "allkeys-lru"),
                "redis.eviction",
                Severity::Error,
            ),
            (("aof_enabled", "0"), "redis.persistence", Severity::Error),
            (("rdb_last_bgsave_status", "err"), "redis.writes", Severity::Error),
            (("maxmemory", "0"), "redis.memory", Severity::Warning),
            (("maxmemory", "1100"), "redis.memory", Severity::Error),
            (("maxmemory", "1300"), "redis.memory", Severity::Warning),
            (("maxmemory", "2000000"), "redis.memory", Severity::Warning),
            (("maxclients", "3"), "redis.clients", Severity::Warning),
        ] {
            assert_eq!(wrong(&[fact], "always"), [(id, severity)], "{fact:?}");
        }
        assert_eq!(wrong(&[], "everysec"), [("redis.persistence", Severity::Note)]);
        assert_eq!(wrong(&[], "no"), [("redis.persistence", Severity::Error)]);
    }

    #[test]
    fn a_cluster_is_well_only_whole_and_with_one_shard() {
        let cluster_of = |state: &str, slots: &str, shards: &str| {
            let report = ServerReport::from([
                ("cluster_enabled", "1"),
                ("cluster_state", state),
                ("cluster_slots_ok", slots),
                ("cluster_size", shards),
            ]);
            cluster(&report).map(|finding| finding.severity)
        };
        assert_eq!(cluster_of("ok", "16384", "1"), Some(Severity::Ok));
        assert_eq!(cluster_of("ok", "16384", "3"), Some(Severity::Error));
        assert_eq!(cluster_of("fail", "16384", "1"), Some(Severity::Error));
        assert_eq!(cluster_of("ok", "9000", "1"), Some(Severity::Error));
    }

    #[test]
    fn a_replica_that_lags_is_named() {
        let line = |offset: &str| format!("ip=10.0.0.2,port=6379,state=online,offset={offset},lag=0");
        let replicas_at = |offset: &str| {
            replicas(&ServerReport::from([
                ("connected_slaves", "1"),
                ("master_repl_offset", "50000000"),
                ("slave0", line(offset).as_str()),
            ]))
        };
        let severity = |finding: Option<Finding>| finding.map(|finding| finding.severity);
        assert_eq!(severity(replicas_at("49999999")), Some(Severity::Ok));
        assert_eq!(severity(replicas_at("1000")), Some(Severity::Warning));
        assert!(replicas(&ServerReport::from([("connected_slaves", "0")])).is_none());
    }
}
