//! The tables, the schema's number, and the look at a file before it is trusted.
//!
//! The tables themselves stand beside the code that uses them.

use rusqlite::{Connection, TransactionBehavior};

use crate::config::{JournalConfig, Purpose, Role};
use crate::error::{OpenError, WorkError};
use crate::file::Opener;
use crate::{ledger, queue};

/// The newest schema; `PRAGMA user_version` of the file.
const VERSION: i64 = 1;
/// `PRAGMA application_id`, "PrLt" and "PrLs": tell a journal from every other SQLite file, and what it is for.
const STANDALONE: i64 = 0x5072_4c74;
const SPOOL: i64 = 0x5072_4c73;
/// Facts about the journal itself: `clean_end` is 1 while nobody has it open that could crash; `bytes_max` is the limit of
/// the daemon that opened it last, for whoever looks from outside.
const OWN_TABLES: &str = "
    CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO facts VALUES ('clean_end', 1), ('taken_through', 0);
    CREATE TABLE probe (id INTEGER PRIMARY KEY, filler BLOB NOT NULL) STRICT;
";
const TABLES: [&str; 3] = [
    OWN_TABLES,
    include_str!("queue/schema.sql"),
    include_str!("ledger/schema.sql"),
];

/// Refuses what is neither ours nor empty, and what is newer. True when the tables are still to be made.
pub(crate) fn recognise(
    connection: &Connection,
    opener: &Opener,
    purpose: Purpose,
    role: Role,
) -> Result<bool, OpenError> {
    let path = || opener.path.clone();
    let number = |sql: &str| {
        let asked = connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        asked.map_err(|error| opener.explain(error))
    };
    let (version, application) = (number("PRAGMA user_version")?, number("PRAGMA application_id")?);
    let is_ours = application == STANDALONE || application == SPOOL;
    if is_ours && application != number_of(purpose) {
        return Err(OpenError::OtherPurpose {
            path: path(),
            found: if application == SPOOL {
                "an ingress's spool"
            } else {
                "a standalone's data"
            },
        });
    }
    if is_ours && (1..=VERSION).contains(&version) {
        return Ok(false);
    }
    if is_ours {
        return Err(OpenError::Newer {
            path: path(),
            found: version,
            known: VERSION,
        });
    }
    if application != 0 || version != 0 || number("SELECT count(*) FROM sqlite_schema")? > 0 {
        return Err(OpenError::Foreign {
            path: path(),
            found: "it is another program's database",
        });
    }
    match role {
        Role::Daemon => Ok(true),
        Role::Tool => Err(OpenError::Missing { path: path() }),
    }
}

fn number_of(purpose: Purpose) -> i64 {
    match purpose {
        Purpose::Standalone => STANDALONE,
        Purpose::Spool => SPOOL,
    }
}

/// Makes the tables, all or none.
pub(crate) fn create(connection: &mut Connection, purpose: Purpose) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for tables in TABLES {
        transaction.execute_batch(tables)?;
    }
    transaction.pragma_update(None, "application_id", number_of(purpose))?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// Charges what a crash had in hand, lets go of what the life before had claimed, and notes that from here on an end may
/// be a crash. Whether the end before was clean.
pub(crate) fn begin_life(connection: &mut Connection, config: &JournalConfig) -> Result<bool, WorkError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let clean: i64 =
        transaction.query_row("SELECT value FROM facts WHERE name = 'clean_end'", [], |row| {
            row.get(0)
        })?;
    if clean == 0 {
        if let Some(returns_max) = config.returns_max {
            queue::charge_taken(&transaction, returns_max, queue::now_ms())?;
        }
        queue::set_fact(&transaction, "taken_through", 0)?;
    }
    ledger::release_claimed(&transaction)?;
    transaction.execute("UPDATE facts SET value = 0 WHERE name = 'clean_end'", [])?;
    let bytes_max = i64::try_from(config.bytes_max).unwrap_or(i64::MAX);
    transaction.execute("REPLACE INTO facts VALUES ('bytes_max', ?1)", [bytes_max])?;
    transaction.commit()?;
    Ok(clean == 1)
}

/// Reads every page once. A backlog makes it slower, but work on a damaged file could answer 200 for what is lost.
pub(crate) fn check(connection: &Connection, opener: &Opener) -> Result<(), OpenError> {
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| opener.explain(error))?;
    if found == "ok" {
        return Ok(());
    }
    Err(OpenError::Damaged {
        path: opener.path.clone(),
        detail: found,
    })
}
