//! What the tests share: a place for a ledger, ledgers on it, and events.

use std::time::Duration;

use porchlight_device::{Decision, News, Registration};
use porchlight_event::RingEvent;
use porchlight_journal::{Journal, JournalConfig, LedgerConfig, Role};
use porchlight_ledger::{Ledger, LedgerError};
use porchlight_store::{Store, StoreConfig};
use porchlight_testbed::Redis;
use porchlight_testbed::redis::{Fsync, Reply};
use serde_json::json;
use tempfile::TempDir;

/// What Redis may take to connect and to answer: only a failure, however busy machine and disk are. A call that was given up
/// has its effect all the same, and the next one would find it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a ledger lies. Several can work on one place, as several processes would.
pub(crate) enum Place {
    Redis(Redis),
    Sqlite { journal: Journal, directory: TempDir },
}

impl Place {
    pub(crate) async fn redis() -> Self {
        Self::Redis(Redis::start_with(Fsync::EverySecond, None).await.unwrap())
    }

    pub(crate) fn sqlite() -> Self {
        // In memory where the system has such a place: these tests are about what is decided, not about the disk.
        let directory = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let journal = Journal::open(JournalConfig::new(directory.path()), Role::Daemon).unwrap();
        Self::Sqlite { journal, directory }
    }

    /// The ledger as a daemon has it.
    pub(crate) fn ledger(&self) -> Ledger {
        self.ledger_with(Duration::ZERO)
    }

    pub(crate) fn ledger_with(&self, settle: Duration) -> Ledger {
        match self {
            Self::Redis(redis) => {
                let config = StoreConfig {
                    settle,
                    connect_timeout: PATIENCE,
                    response_timeout: PATIENCE,
                    ..StoreConfig::new(redis.url())
                };
                Ledger::Redis(Store::connect(&config).unwrap())
            }
            Self::Sqlite { journal, .. } => {
                let config = LedgerConfig {
                    settle,
                    ..LedgerConfig::default()
                };
                Ledger::Sqlite(porchlight_journal::Ledger::new(journal.clone(), config))
            }
        }
    }

    /// The same ledger as another process has it: a second worker, or the operator's command.
    pub(crate) fn other(&self) -> Ledger {
        match self {
            Self::Redis(_) => self.ledger(),
            Self::Sqlite { directory, .. } => {
                let journal = Journal::open(JournalConfig::new(directory.path()), Role::Tool).unwrap();
                Ledger::Sqlite(porchlight_journal::Ledger::new(journal, LedgerConfig::default()))
            }
        }
    }

    /// Everything that is stored, with the times at which it expires: equal when nothing has changed.
    pub(crate) fn dump(&self) -> Vec<String> {
        match self {
            Self::Redis(redis) => dump_of_redis(redis),
            Self::Sqlite { directory, .. } => dump_of_file(&directory.path().join("porchlight.db")),
        }
    }

    /// A ledger on which nothing ever happened.
    pub(crate) fn emptied(&mut self) -> Ledger {
        match self {
            Self::Redis(redis) => {
                redis.command(&["FLUSHALL"]).unwrap();
            }
            Self::Sqlite { .. } => *self = Self::sqlite(),
        }
        self.ledger()
    }
}

/// Not by `DUMP`: a hash may change its inner order while it is read.
const DUMP: &str = "\
    local read = { string = {'GET'}, list = {'LRANGE', 0, -1}, set = {'SMEMBERS'}, hash = {'HGETALL'}, \
        zset = {'ZRANGE', 0, -1, 'WITHSCORES'} } \
    local found = {} \
    for _, key in ipairs(redis.call('KEYS', '*')) do \
        local kind = redis.call('TYPE', key).ok \
        local held = redis.call(read[kind][1], key, unpack(read[kind], 2)) \
        local parts = type(held) == 'table' and held or { held } \
        if kind == 'hash' then \
            local pairs_of = {} \
            for i = 1, #held, 2 do pairs_of[#pairs_of + 1] = held[i] .. '=' .. held[i + 1] end \
            parts = pairs_of \
        end \
        if kind == 'hash' or kind == 'set' then table.sort(parts) end \
        found[#found + 1] = key .. ' ' .. redis.call('PEXPIRETIME', key) .. ' ' .. table.concat(parts, ' ') \
    end \
    return found";

fn dump_of_redis(redis: &Redis) -> Vec<String> {
    let reply = redis.command(&["EVAL", DUMP, "0"]).unwrap();
    let mut found: Vec<_> = reply.list().iter().map(Reply::text).collect();
    found.sort();
    found
}

fn dump_of_file(path: &std::path::Path) -> Vec<String> {
    let file =
        rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut tables = file
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        .unwrap();
    let tables: Vec<String> = tables
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let mut found = Vec::new();
    for table in tables {
        let mut all = file.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
        let columns = all.column_count();
        let mut rows = all.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<_> = (0..columns).map(|at| row.get_ref(at).unwrap()).collect();
            found.push(format!("{table} {values:?}"));
        }
    }
    found
}

/// An event as Ring would send it.
#[derive(Debug, Clone)]
pub(crate) struct Event<'a> {
    pub(crate) event_type: &'a str,
    pub(crate) device_id: &'a str,
    pub(crate) account_id: Option<&'a str>,
    pub(crate) at: i64,
    pub(crate) request_id: Option<&'a str>,
}

impl Event<'_> {
    pub(crate) fn news(&self) -> News {
        let is_account = self.event_type.starts_with("app_");
        let subject = if is_account {
            self.account_id.unwrap()
        } else {
            self.device_id
        };
        let is_other = self.event_type.starts_with("something_");
        let source_type = match (is_account, is_other) {
            (true, _) => "users",
            (_, true) => "subscriptions",
            _ => "devices",
        };
        let body = json!({
            "meta": { "request_id": self.request_id, "account_id": self.account_id },
            "data": {
                "id": format!("{subject}_{}_{}", self.event_type, self.at),
                "type": self.event_type,
                "attributes": {
                    "source": subject,
                    "source_type": source_type,
                    "timestamp": self.at,
                },
            },
        });
        News::new(&RingEvent::parse(body.to_string().as_bytes()).unwrap(), 0).unwrap()
    }
}

/// An event of `device_id` in account `acct`.
pub(crate) fn news(event_type: &str, device_id: &str, at: i64) -> News {
    news_of(event_type, device_id, "acct", at)
}

/// An event of `device_id` in this account.
pub(crate) fn news_of(event_type: &str, device_id: &str, account_id: &str, at: i64) -> News {
    Event {
        event_type,
        device_id,
        account_id: Some(account_id),
        at,
        request_id: None,
    }
    .news()
}

pub(crate) async fn apply(ledger: &Ledger, news: &News, now_ms: i64) -> Result<Decision, LedgerError> {
    ledger
        .apply_batch(0, std::slice::from_ref(news), now_ms)
        .await
        .remove(0)
}

pub(crate) fn registration(operation_id: &str) -> Registration {
    Registration {
        operation_id: operation_id.to_owned(),
        account_id: None,
        kind: "snapshot".to_owned(),
        params: r#"{"every":"night"}"#.to_owned(),
    }
}

/// A device that is online, with an operation.
pub(crate) async fn with_operation(ledger: &Ledger, device: &str) {
    apply(ledger, &news("device_online", device, 10), 0)
        .await
        .unwrap();
    ledger.register(device, &registration("op"), 0).await.unwrap();
}
