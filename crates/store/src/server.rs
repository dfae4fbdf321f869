//! The server itself: whether it takes writes now, and settings of its that the ledger's promises rest on.
//!
//! It changes no setting.

use crate::keys::Partition;
use crate::script::{Call, Script};
use crate::{Store, StoreError, reply};

/// How long the key of a probe lives, in milliseconds.
const PROBE_TTL_MS: u64 = 60_000;

/// Of each way to the disk, how the last attempt went.
const WRITE_STATUSES: [&str; 3] = [
    "aof_last_write_status",
    "aof_last_bgrewrite_status",
    "rdb_last_bgsave_status",
];

/// What the server says of itself. `None` where it does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its version, such as `7.0.15`; of a Valkey the Redis version that it is compatible with.
    pub version: Option<String>,
    /// What it does when memory is full; only `noeviction` loses nothing.
    pub maxmemory_policy: Option<String>,
    /// Whether it keeps an append-only file.
    pub append_only: Option<bool>,
    /// `master`, or `slave` for a replica, which takes no writes.
    pub role: Option<String>,
    /// Changes with every start of the server.
    pub run_id: Option<String>,
    /// Bytes of memory taken for data.
    pub memory_bytes: Option<u64>,
    /// Most of them; 0 is no limit.
    pub memory_bytes_max: Option<u64>,
    /// Whether the last append to, the last rewrite of the append-only file, or the last snapshot failed.
    pub write_failed: bool,
}

impl ServerFacts {
    /// What an operator should be warned of, one sentence for each.
    pub fn warnings(&self) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        if self
            .maxmemory_policy
            .as_deref()
            .is_some_and(|policy| policy != "noeviction")
        {
            warnings.push("the store evicts keys when its memory is full; set maxmemory-policy noeviction");
        }
        if self.append_only == Some(false) {
            warnings.push(
                "the store keeps no append-only file and forgets all with a restart; set appendonly yes",
            );
        }
        if self.role.as_deref().is_some_and(|role| role != "master") {
            warnings.push("the store is a replica and takes no writes");
        }
        warnings
    }
}

impl Store {
    /// Writes a key of its own through a script: what succeeds here says that events can be taken again.
    ///
    /// # Errors
    /// [`StoreError`], as an event would meet it.
    pub async fn probe(&self, now_ms: i64) -> Result<(), StoreError> {
        let shard = self.any_shard();
        let partition = Partition::all()
            .nth(shard % crate::keys::PARTITIONS)
            .ok_or(StoreError::Contended)?;
        let call = Script::Probe
            .call(&[partition.probe()])
            .arg(now_ms)
            .arg(PROBE_TTL_MS);
        self.run_one(shard, call).await.map(drop)
    }

    /// Asks the server about itself.
    ///
    /// # Errors
    /// [`StoreError`]; a server that denies the question is [`StoreError::Denied`].
    pub async fn server_facts(&self) -> Result<ServerFacts, StoreError> {
        let shard = self.any_shard();
        let sections = ["server", "memory", "persistence", "replication"];
        let ask = sections
            .iter()
            .map(|section| Call::plain("INFO").arg(*section))
            .collect();
        let mut text = String::new();
        for answer in self.run(shard, ask).await {
            text.push_str(&match answer? {
                redis::Value::VerbatimString { text, .. } => text,
                other => reply::text(other)?,
            });
        }
        let field = |name: &str| {
            let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
            text.lines().find_map(value)
        };
        Ok(ServerFacts {
            version: field("redis_version"),
            maxmemory_policy: field("maxmemory_policy"),
            append_only: field("aof_enabled").map(|value| value == "1"),
            role: field("role"),
            run_id: field("run_id"),
            memory_bytes: field("used_memory").and_then(|value| value.parse().ok()),
            memory_bytes_max: field("maxmemory").and_then(|value| value.parse().ok()),
            write_failed: WRITE_STATUSES
                .iter()
                .any(|name| field(name).is_some_and(|status| status != "ok")),
        })
    }
}
