//! What is SQLite's own: rows that cannot be read, places that collide, old marks, and what a batch is.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use porchlight_device::marks::GENERATION_MS;
use porchlight_device::{Outcome, State};
use porchlight_event::RingEvent;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::config::{JournalConfig, Role};

const NOW: i64 = 1_000 * GENERATION_MS + 7;

fn ledger() -> (TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(JournalConfig::new(dir.path()), Role::Daemon).unwrap();
    (dir, Ledger::new(journal, LedgerConfig::default()))
}

fn news(event_type: &str, device_id: &str, at: i64) -> News {
    let is_account = event_type.starts_with("app_");
    let (source, source_type) = if is_account {
        ("acct", "users")
    } else {
        (device_id, "devices")
    };
    let body = json!({
        "meta": { "account_id": "acct" },
        "data": {
            "id": format!("{source}{event_type}{at}"), "type": event_type,
            "attributes": { "source": source, "source_type": source_type, "timestamp": at },
        },
    });
    News::new(&RingEvent::parse(body.to_string().as_bytes()).unwrap(), 0).unwrap()
}

fn registration() -> Registration {
    Registration {
        operation_id: "op".to_owned(),
        account_id: None,
        kind: "snapshot".to_owned(),
        params: "{}".to_owned(),
    }
}

async fn sql(ledger: &Ledger, sql: &'static str) {
    let work = move |connection: &Connection| Ok(connection.execute_batch(sql)?);
    ledger.journal.write(deadline(), work).await.unwrap();
}

async fn number(ledger: &Ledger, sql: &'static str) -> i64 {
    let look = move |connection: &Connection| Ok(connection.query_row(sql, [], |row| row.get(0))?);
    ledger.journal.read(deadline(), look).await.unwrap()
}

async fn outcomes(ledger: &Ledger, events: &[News]) -> Vec<Result<Outcome, JournalError>> {
    let results = ledger.apply_batch(events, NOW).await;
    results
        .into_iter()
        .map(|result| result.map(|decision| decision.outcome))
        .collect()
}

fn spoil(device: &str) -> &'static str {
    let place = records::number_of(device);
    Box::leak(format!("UPDATE devices SET body = x'ff00' WHERE place = {place}").into_boxed_str())
}

#[tokio::test]
async fn a_device_that_cannot_be_read_fails_its_own_events_only_and_leaves_no_mark() {
    let (_dir, ledger) = ledger();
    outcomes(
        &ledger,
        &[news("device_online", "a", 1), news("device_online", "b", 1)],
    )
    .await;
    let marks = number(&ledger, "SELECT count(*) FROM marks").await;
    sql(&ledger, spoil("a")).await;
    let events = ["b", "a", "c"].map(|device| news("device_offline", device, 2));
    let unreadable = Err(JournalError::Unreadable("a device"));
    let got = outcomes(&ledger, &events).await;
    assert_eq!(
        got,
        [Ok(Outcome::Applied), unreadable.clone(), Ok(Outcome::Applied)]
    );
    assert!(!JournalError::Unreadable("a device").is_fault());
    assert_eq!(number(&ledger, "SELECT count(*) FROM marks").await, marks + 2);
    assert_eq!(outcomes(&ledger, &events[1..2]).await, [unreadable]);
    assert!(ledger.device("a").await.is_err());
    assert_eq!(ledger.counts().await.unwrap()[&Status::Offline], 2);
}

#[tokio::test]
async fn news_of_an_account_with_a_device_that_cannot_be_read_changes_none_of_its_devices() {
    let (_dir, ledger) = ledger();
    let online: Vec<News> = (0..20)
        .map(|n| news("device_online", &format!("dev-{n}"), 1))
        .collect();
    outcomes(&ledger, &online).await;
    ledger.register("dev-13", &registration(), NOW).await.unwrap();
    sql(&ledger, "UPDATE operations SET body = x'0199'").await;
    let removal = [news("app_integration_removed", "", 5)];
    let unreadable = JournalError::Unreadable("an operation");
    let batch = [news("motion_detected", "dev-1", 4), removal[0].clone()];
    assert_eq!(
        outcomes(&ledger, &batch).await,
        [Ok(Outcome::Recorded), Err(unreadable)]
    );
    assert_eq!(ledger.counts().await.unwrap()[&Status::Online], 20);
    assert_eq!(number(&ledger, "SELECT count(*) FROM accounts").await, 0);
    assert_eq!(ledger.forget("dev-12", "op").await, Ok(false));
    sql(&ledger, "DELETE FROM operations").await;
    assert_eq!(outcomes(&ledger, &removal).await, [Ok(Outcome::Applied)]);
    assert_eq!(ledger.counts().await.unwrap()[&Status::Removed], 20);
}

#[tokio::test]
async fn an_owed_command_that_cannot_be_read_does_not_stand_in_the_way_of_a_sweep() {
    let (_dir, ledger) = ledger();
    for device in ["a", "b", "c"] {
        outcomes(&ledger, &[news("device_online", device, 1)]).await;
        ledger.register(device, &registration(), NOW).await.unwrap();
        outcomes(&ledger, &[news("device_offline", device, 2)]).await;
    }
    sql(
        &ledger,
        "UPDATE operations SET owed = x'ff', due = due - 5 WHERE place = (SELECT max(place) FROM operations)",
    )
    .await;
    assert_eq!(
        ledger.claim(NOW + 10_000, 1).await.unwrap().len(),
        0,
        "the spoiled one is the first"
    );
    assert_eq!(ledger.claim(NOW + 10_000, 2).await.unwrap().len(), 2);
    assert_eq!(ledger.claim(NOW + 10_000, 10).await.unwrap().len(), 0);
    assert_eq!(ledger.backlog().await.unwrap().commands, 3);
}

#[tokio::test]
async fn a_daemon_that_starts_lets_go_of_what_was_claimed_but_not_of_what_has_to_settle() {
    let dir = tempfile::tempdir().unwrap();
    let config = LedgerConfig {
        settle: Duration::from_secs(600),
        ..LedgerConfig::default()
    };
    let open = |role| {
        Ledger::new(
            Journal::open(JournalConfig::new(dir.path()), role).unwrap(),
            config,
        )
    };
    let ledger = open(Role::Daemon);
    for device in ["a", "b"] {
        outcomes(&ledger, &[news("device_online", device, 1)]).await;
        ledger.register(device, &registration(), NOW).await.unwrap();
        outcomes(&ledger, &[news("device_offline", device, 2)]).await;
    }
    let late = NOW + 3_600_000;
    let claimed = ledger.claim(late, 10).await.unwrap();
    assert_eq!(claimed.len(), 2);
    assert_eq!(ledger.confirm(&claimed[..1]).await, [Ok(true)]);
    let online = [news("device_online", &claimed[0].device_id, 3)];
    assert!(
        ledger.apply_batch(&online, late).await[0]
            .as_ref()
            .unwrap()
            .commands
            .is_empty(),
        "it has to settle"
    );
    let beside = open(Role::Tool);
    assert_eq!(
        beside.claim(late, 10).await,
        Ok(vec![]),
        "a tool lets go of nothing"
    );
    ledger.journal.close(Duration::from_secs(20)).await;
    let again = open(Role::Daemon);
    assert_eq!(again.claim(late, 10).await.unwrap(), claimed[1..]);
    assert_eq!(again.claim(late + 599_999, 1).await.unwrap(), claimed[1..]);
    let resumed = again.claim(late + 600_000, 10).await.unwrap();
    assert_eq!(resumed.len(), 1);
    assert_eq!(resumed[0].action, Action::Resume);
}

#[tokio::test]
async fn a_command_is_sent_also_when_the_clock_was_set_back_after_it_was_owed() {
    let (_dir, ledger) = ledger();
    outcomes(&ledger, &[news("device_online", "a", 1)]).await;
    ledger.register("a", &registration(), NOW).await.unwrap();
    outcomes(&ledger, &[news("device_offline", "a", 2)]).await;
    assert_eq!(ledger.claim(NOW + 2_000, 10).await.unwrap().len(), 1);
    let back = NOW - 12 * 3_600_000;
    assert_eq!(ledger.claim(back, 10).await.unwrap().len(), 1);
    assert_eq!(
        ledger.claim(back, 10).await.unwrap().len(),
        0,
        "held back as ever"
    );
    assert_eq!(ledger.claim(back + 6_251, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn two_devices_with_one_place_are_told_apart() {
    let (_dir, ledger) = ledger();
    outcomes(&ledger, &[news("device_online", "a", 1)]).await;
    ledger.register("a", &registration(), NOW).await.unwrap();
    // The row of "a" goes to where "b" and "c" belong, as if their ids had its hash.
    let (from, to, next) = (
        records::number_of("a"),
        records::number_of("b"),
        records::number_of("c"),
    );
    let moved = format!(
        "UPDATE devices SET place = {to} WHERE place = {from};
         INSERT INTO devices SELECT {next}, account, body FROM devices;"
    );
    sql(&ledger, Box::leak(moved.into_boxed_str())).await;
    for device in ["b", "c"] {
        assert_eq!(ledger.device(device).await, Ok(None));
        assert_eq!(ledger.register(device, &registration(), NOW).await, Ok(None));
        let events = [
            news("device_offline", device, 2),
            news("device_online", device, 3),
        ];
        let applied = ledger.apply_batch(&events, NOW).await;
        let owed: Vec<_> = applied
            .into_iter()
            .flat_map(|result| result.unwrap().commands)
            .collect();
        assert_eq!(owed.len(), 2);
        let resume = &owed[1..];
        assert_eq!(ledger.owe_again(&resume[0], NOW).await, Ok(OweAgain::Owed));
        assert_eq!(ledger.claim(NOW, 10).await.unwrap(), resume);
        assert_eq!(ledger.confirm(resume).await, [Ok(true)]);
        let known = ledger.device(device).await.unwrap().unwrap();
        assert_eq!(
            (known.device_id.as_str(), known.operations["op"].state),
            (device, State::Running)
        );
    }
    assert_eq!(number(&ledger, "SELECT count(*) FROM devices").await, 4);
}

#[tokio::test]
async fn old_marks_are_deleted_a_few_at_a_time_once_nobody_looks_them_up() {
    let (_dir, ledger) = ledger();
    let events: Vec<News> = (0..600)
        .map(|at| news("motion_detected", &format!("dev-{at}"), at))
        .collect();
    for some in events.chunks(100) {
        outcomes(&ledger, some).await;
    }
    let count = "SELECT count(*) FROM marks";
    assert_eq!(number(&ledger, count).await, 600);
    let unused = marks_unused_from();
    ledger.apply_batch(&events[..1], unused - 1).await;
    assert_eq!(
        number(&ledger, count).await,
        601,
        "the generation of its own is new, the others stay"
    );
    let mut left = vec![];
    for n in 1..5 {
        ledger.apply_batch(&events[n..=n], unused).await;
        left.push(number(&ledger, count).await);
    }
    assert_eq!(left, [601 - 256 + 1, 601 - 512 + 2, 1 + 3, 1 + 4]);
}

fn marks_unused_from() -> i64 {
    porchlight_device::marks::unused_from_ms(NOW.div_euclid(GENERATION_MS))
}

#[tokio::test]
async fn a_full_file_refuses_a_batch_whole() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig {
        pages_max: Some(60),
        ..JournalConfig::new(dir.path())
    };
    let journal = Journal::open(config, Role::Daemon).unwrap();
    let ledger = Ledger::new(journal, LedgerConfig::default());
    let mut taken = Vec::new();
    let full = loop {
        let at = i64::try_from(taken.len()).unwrap();
        let batch: Vec<News> = (at..at + 32)
            .map(|n| news("device_online", &format!("dev-{n}"), 1))
            .collect();
        let results = outcomes(&ledger, &batch).await;
        if results.iter().any(Result::is_err) {
            break results;
        }
        taken.extend(batch);
    };
    assert!(
        full.iter().all(|result| *result == Err(JournalError::Full)),
        "{full:?}"
    );
    assert!(taken.len() >= 32);
    let known = number(&ledger, "SELECT count(*) FROM devices").await;
    assert_eq!(usize::try_from(known).unwrap(), taken.len());
    assert_eq!(
        ledger.counts().await.unwrap()[&Status::Online],
        taken.len() as u64
    );
    let again = outcomes(&ledger, &taken[..32]).await;
    assert!(again.iter().all(|result| *result == Ok(Outcome::Duplicate)));
}

#[tokio::test]
async fn what_was_answered_is_there_when_the_journal_opens_again() {
    let (dir, ledger) = ledger();
    outcomes(&ledger, &[news("device_online", "a", 1)]).await;
    ledger.register("a", &registration(), NOW).await.unwrap();
    let owed = ledger
        .apply_batch(&[news("device_offline", "a", 2)], NOW)
        .await
        .remove(0)
        .unwrap()
        .commands;
    let before = ledger.device_view("a").await.unwrap();
    ledger.journal.close(Duration::from_secs(20)).await;
    assert_eq!(ledger.probe(NOW).await, Err(JournalError::Stopping));
    drop(ledger);
    let journal = Journal::open(JournalConfig::new(dir.path()), Role::Daemon).unwrap();
    let ledger = Ledger::new(journal, LedgerConfig::default());
    assert_eq!(ledger.device_view("a").await.unwrap(), before);
    assert_eq!(ledger.claim(NOW + 5_000, 10).await.unwrap(), owed);
    assert_eq!(ledger.probe(NOW).await, Ok(()));
    assert_eq!(ledger.warnings(), [""; 0]);
    assert!(ledger.address().ends_with("porchlight.db"));
}
