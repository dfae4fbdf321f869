//! The journal as a whole, with work of the tests' own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use porchlight_event::queue::QueueState;
use porchlight_testbed::wait_for;
use rusqlite::Connection;
use tokio::time::{Instant, timeout};

use crate::error::WorkError;
use crate::file::FILE;
use crate::{Journal, JournalConfig, JournalError, OpenError, Role};

const LONG: Duration = Duration::from_secs(60);

fn soon() -> Instant {
    Instant::now() + LONG
}

fn open(dir: &Path) -> Journal {
    Journal::open(JournalConfig::new(dir), Role::Daemon).unwrap()
}

fn note(connection: &Connection, name: &str, value: i64) -> Result<(), WorkError> {
    connection.execute("INSERT INTO facts VALUES (?1, ?2)", (name, value))?;
    Ok(())
}

async fn noted(journal: &Journal, name: &'static str) -> Option<i64> {
    let look = move |connection: &Connection| {
        let mut asked = connection.prepare("SELECT value FROM facts WHERE name = ?1")?;
        let mut rows = asked.query([name])?;
        Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
    };
    journal.read(soon(), look).await.unwrap()
}

async fn put(journal: &Journal, name: &'static str, filler: i32) -> Result<(), JournalError> {
    let work = move |connection: &Connection| {
        connection.execute("CREATE TABLE IF NOT EXISTS fill (name TEXT, body BLOB)", [])?;
        connection.execute("INSERT INTO fill VALUES (?1, zeroblob(?2))", (name, filler))?;
        Ok(())
    };
    journal.put_in(soon(), soon(), 0, work).await
}

#[tokio::test]
async fn what_was_answered_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    journal.write(soon(), |c| note(c, "one", 1)).await.unwrap();
    journal.close(LONG).await;
    assert!(journal.write(soon(), |c| note(c, "two", 2)).await == Err(JournalError::Stopping));
    let again = open(dir.path());
    assert!(again.ended_cleanly());
    assert_eq!(noted(&again, "one").await, Some(1));
    assert_eq!(noted(&again, "two").await, None);
}

#[tokio::test]
async fn every_connection_that_writes_syncs_each_commit_and_only_the_daemon_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let settings = |c: &Connection| {
        let names = [
            "synchronous",
            "fullfsync",
            "checkpoint_fullfsync",
            "wal_autocheckpoint",
            "auto_vacuum",
        ];
        let read = |name| c.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        Ok(names.map(read).into_iter().collect::<Result<Vec<_>, _>>()?)
    };
    let journal = open(dir.path());
    assert_eq!(journal.write(soon(), settings).await.unwrap(), [2, 1, 1, 4000, 2]);
    let tool = Journal::open(JournalConfig::new(dir.path()), Role::Tool).unwrap();
    assert_eq!(tool.write(soon(), settings).await.unwrap(), [2, 1, 1, 0, 2]);
}

#[tokio::test]
async fn a_request_that_fails_or_panics_is_undone_alone() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let good = journal.write(soon(), |c| note(c, "good", 1));
    let bad = journal.write(soon(), |c| {
        note(c, "half", 1)?;
        note(c, "half", 2)
    });
    let worst = journal.write(soon(), |c| -> Result<(), WorkError> {
        note(c, "panicked", 1)?;
        panic!("a bug");
    });
    let last = journal.write(soon(), |c| note(c, "last", 1));
    let (good, bad, worst, last) = tokio::join!(good, bad, worst, last);
    assert!(good.is_ok() && last.is_ok());
    assert!(matches!(bad, Err(JournalError::Failed(_))), "{bad:?}");
    assert!(matches!(worst, Err(JournalError::Failed(_))), "{worst:?}");
    for (name, wanted) in [
        ("good", Some(1)),
        ("half", None),
        ("panicked", None),
        ("last", Some(1)),
    ] {
        assert_eq!(noted(&journal, name).await, wanted, "{name}");
    }
}

#[tokio::test]
async fn a_second_daemon_is_refused_and_a_tool_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Journal::open(JournalConfig::new(dir.path()), Role::Tool);
    assert!(matches!(missing, Err(OpenError::Missing { .. })), "{missing:?}");
    let journal = open(dir.path());
    let second = Journal::open(JournalConfig::new(dir.path()), Role::Daemon);
    assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
    let tool = Journal::open(JournalConfig::new(dir.path()), Role::Tool).unwrap();
    tool.write(soon(), |c| note(c, "by hand", 7)).await.unwrap();
    assert_eq!(noted(&journal, "by hand").await, Some(7));
    tool.close(LONG).await;
    journal.close(LONG).await;
}

#[tokio::test]
async fn only_the_owner_may_read_what_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("a/b");
    let journal = open(&inner);
    journal.write(soon(), |c| note(c, "one", 1)).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inner), 0o700);
    for name in [FILE, "porchlight.db-wal", "porchlight.db-shm", "porchlight.lock"] {
        assert_eq!(mode(&inner.join(name)), 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_a_sound_journal_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    // A directory of its own for each, as they come with nothing beside them.
    let refused = |bytes: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        refused_in(dir.path(), bytes)
    };
    let text = refused(&b"not a database, only some text. ".repeat(100));
    assert!(matches!(text, OpenError::Foreign { .. }), "{text:?}");

    let other = dir.path().join("other");
    let made = Connection::open(&other).unwrap();
    made.execute_batch("CREATE TABLE other (a)").unwrap();
    let other = refused(&std::fs::read(&other).unwrap());
    assert!(matches!(other, OpenError::Foreign { .. }), "{other:?}");

    let journal = open(dir.path());
    for filler in [1 << 20, 1 << 20] {
        put(&journal, "page after page", filler).await.unwrap();
    }
    journal.close(LONG).await;
    let sound = std::fs::read(dir.path().join(FILE)).unwrap();
    let mut newer = sound.clone();
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    let newer = refused(&newer);
    assert!(matches!(newer, OpenError::Newer { found: 99, .. }), "{newer:?}");
    let cut = refused(&sound[..sound.len() / 2]);
    assert!(matches!(cut, OpenError::Damaged { .. }), "{cut:?}");
    let mut scribbled = sound.clone();
    scribbled[8192..65536].fill(0xA5);
    let scribbled = refused(&scribbled);
    assert!(matches!(scribbled, OpenError::Damaged { .. }), "{scribbled:?}");
}

fn refused_in(dir: &Path, bytes: &[u8]) -> OpenError {
    let file = dir.join(FILE);
    std::fs::write(&file, bytes).unwrap();
    let error = Journal::open(JournalConfig::new(dir), Role::Daemon).unwrap_err();
    assert!(
        std::fs::read(&file).unwrap() == bytes,
        "{error}: the file was changed"
    );
    error
}

#[tokio::test]
async fn an_empty_file_is_refused_where_a_journal_has_been() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    journal.close(LONG).await;
    let lock = std::fs::read(dir.path().join("porchlight.lock")).unwrap();
    let cut = tempfile::tempdir().unwrap();
    std::fs::write(cut.path().join("porchlight.lock"), lock).unwrap();
    let error = refused_in(cut.path(), b"");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
}

#[tokio::test]
async fn at_the_limit_events_are_refused_and_work_goes_on_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig {
        bytes_max: 2 << 20,
        ..JournalConfig::new(dir.path())
    };
    let journal = Journal::open(config, Role::Daemon).unwrap();
    let mut state = journal.state();
    while put(&journal, "one of many", 1 << 18).await.is_ok() {}
    assert_eq!(put(&journal, "too many", 1).await, Err(JournalError::Full));
    assert!(matches!(*state.borrow(), QueueState::Blocked { .. }));
    assert_eq!(*journal.working_state().borrow(), QueueState::Ready);
    let work = |c: &Connection| Ok(c.execute("DELETE FROM fill", [])?);
    assert!(journal.write(soon(), work).await.unwrap() > 4);
    timeout(LONG, state.wait_for(QueueState::is_ready))
        .await
        .unwrap()
        .unwrap();
    put(&journal, "there is room", 1).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_loses_nothing_and_is_recovered_from_without_help() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig {
        pages_max: Some(1024),
        ..JournalConfig::new(dir.path())
    };
    let journal = Journal::open(config, Role::Daemon).unwrap();
    let mut stored = 0;
    let refusal = loop {
        match put(&journal, "one of many", 1 << 16).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refusal, JournalError::Full);
    let mut state = journal.working_state();
    timeout(LONG, state.wait_for(|s| !s.is_ready()))
        .await
        .unwrap()
        .unwrap();
    let count =
        |c: &Connection| Ok(c.query_row("SELECT count(*) FROM fill", [], |row| row.get::<_, i32>(0))?);
    assert_eq!(journal.read(soon(), count).await.unwrap(), stored);
    // Nothing is put in; a deletion makes room, and the journal finds that out.
    let work = |c: &Connection| Ok(c.execute("DELETE FROM fill", [])?);
    journal.write(soon(), work).await.unwrap();
    timeout(LONG, state.wait_for(QueueState::is_ready))
        .await
        .unwrap()
        .unwrap();
    put(&journal, "there is room", 1).await.unwrap();
}

#[tokio::test]
async fn who_only_looks_writes_nothing_so_that_a_full_disk_can_be_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    // A reader keeps the daemon from emptying the log, which it would soon do as nobody writes.
    let reader = Connection::open(dir.path().join(FILE)).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM facts").unwrap();
    put(&journal, "one", 1).await.unwrap();
    let log = || std::fs::read(dir.path().join("porchlight.db-wal")).unwrap();
    let before = log();
    let tool = Journal::open(JournalConfig::new(dir.path()), Role::Tool).unwrap();
    assert!(tool.look(soon()).await.unwrap().is_held);
    tool.close(LONG).await;
    assert!(log() == before && !before.is_empty());
}

#[tokio::test]
async fn the_log_stays_short_however_much_a_tool_writes() {
    for beside_a_daemon in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let daemon = open(dir.path());
        if !beside_a_daemon {
            daemon.close(LONG).await;
        }
        let tool = Journal::open(JournalConfig::new(dir.path()), Role::Tool).unwrap();
        let log = || {
            std::fs::metadata(dir.path().join("porchlight.db-wal"))
                .unwrap()
                .len()
        };
        // Twice, since a daemon empties it after its start in any case.
        for _ in 0..2 {
            for _ in 0..70 {
                put(&tool, "a large one", 1 << 20).await.unwrap();
                assert!(beside_a_daemon || log() < 60 << 20, "{}", log());
            }
            wait_for("a short log", LONG, async || {
                (log() < 60 << 20).then_some(()).ok_or_else(|| log().to_string())
            })
            .await
            .unwrap();
        }
        tool.close(LONG).await;
    }
}

#[tokio::test]
async fn space_goes_back_to_the_disk_when_there_is_nothing_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    for _ in 0..40 {
        put(&journal, "a large one", 1 << 20).await.unwrap();
    }
    let work = |c: &Connection| Ok(c.execute("DELETE FROM fill", [])?);
    journal.write(soon(), work).await.unwrap();
    let size = |name| std::fs::metadata(dir.path().join(name)).map_or(0, |file| file.len());
    wait_for("a small file and an empty log", LONG, async || {
        let sizes = (size(FILE), size("porchlight.db-wal"));
        let at_rest = sizes.0 < (8 << 20) && sizes.1 == 0;
        at_rest.then_some(()).ok_or_else(|| format!("{sizes:?}"))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn requests_that_wait_together_share_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let mut tasks = tokio::task::JoinSet::new();
    // The first keeps the writer until all others wait, however fast the disk is and however slow they come.
    let (go_on, told) = std::sync::mpsc::sync_channel::<()>(1);
    let first = journal.clone();
    let wait = move |_: &Connection| {
        let _ = told.recv();
        Ok(())
    };
    tasks.spawn(async move { first.write(soon(), wait).await });
    for _ in 0..300 {
        let journal = journal.clone();
        tasks.spawn(async move { put(&journal, "one of many", 10).await });
    }
    wait_for("all to wait", LONG, async || match journal.stats().inflight {
        301 => Ok(()),
        fewer => Err(fewer.to_string()),
    })
    .await
    .unwrap();
    drop(go_on);
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    let stats = journal.stats();
    assert!(stats.commits_total < 10, "{stats:?}");
    assert_eq!((stats.requests_total, stats.inflight), (301, 0), "{stats:?}");
}
