//! Carrying everything out of one ledger and into another, of the same kind or the other one.

use std::collections::BTreeSet;

use porchlight_device::carry::{CarriedAccount, CarriedDevice, CarriedMarks, Page};
use porchlight_device::view::DeviceView;
use porchlight_device::{Device, Outcome, State};
use porchlight_ledger::{Ledger, PageError};
use porchlight_testbed::redis::Reply;

use crate::support::{Place, apply, news, news_of, registration, with_operation};

const HOUR: i64 = 60 * 60 * 1000;
const GENERATION: i64 = 96 * HOUR;
/// Marks of one partition: more than fit the first levels of a generation in Redis.
const MANY: i64 = 6_000;

for_both! {
    everything_is_the_same_in_redis_afterwards,
    everything_is_the_same_in_sqlite_afterwards,
    history_is_brought_only_where_there_is_none,
    an_older_export_moves_nothing_back,
    an_account_that_comes_removed_cancels_what_is_known_here,
    a_device_brings_what_it_was_told_of_its_account,
    marks_live_as_long_as_they_would_have,
    many_marks_are_all_known_and_lie_as_they_should,
    a_cursor_of_no_page_is_told,
}

#[derive(Debug, Default, PartialEq)]
struct Carried {
    accounts: Vec<CarriedAccount>,
    devices: Vec<CarriedDevice>,
    marks: Vec<CarriedMarks>,
}

async fn all<T>(page: impl AsyncFn(Option<&str>) -> Result<Page<T>, PageError>) -> Result<Vec<T>, PageError> {
    let (mut rows, mut cursor) = (Vec::new(), None);
    loop {
        let next = page(cursor.as_deref()).await?;
        rows.extend(next.rows);
        cursor = next.next_cursor;
        if cursor.is_none() {
            return Ok(rows);
        }
    }
}

async fn carry_out(from: &Ledger) -> Carried {
    let mut carried = Carried {
        accounts: all(async |cursor| from.carry_accounts(cursor).await)
            .await
            .unwrap(),
        devices: all(async |cursor| from.carry_devices(cursor).await)
            .await
            .unwrap(),
        marks: all(async |cursor| from.carry_marks(cursor).await).await.unwrap(),
    };
    carried.accounts.sort_by(|a, b| a.account_id.cmp(&b.account_id));
    carried
        .devices
        .sort_by(|a, b| a.device.device_id.cmp(&b.device.device_id));
    carried
}

async fn carry_in(carried: &Carried, into: &Ledger, now_ms: i64) {
    for account in &carried.accounts {
        into.restore_account(account, now_ms).await.unwrap();
    }
    for device in &carried.devices {
        into.restore_device(device, now_ms).await.unwrap();
    }
    for marks in &carried.marks {
        into.restore_marks(marks, now_ms).await.unwrap();
    }
}

/// Each mark with where it is, however they were cut into runs.
fn each_mark(carried: &Carried) -> BTreeSet<(u8, i64, i64)> {
    let each = |run: &CarriedMarks| {
        let (partition, generation) = (run.partition, run.generation);
        run.marks
            .clone()
            .into_iter()
            .map(move |mark| (partition, generation, mark))
    };
    carried.marks.iter().flat_map(each).collect()
}

/// Devices in every status, operations in every state, commands delivered and not, a device that moved.
async fn lived_in(ledger: &Ledger) {
    for device in ["online", "offline", "back", "gone", "moved", "of-gone", "many"] {
        with_operation(ledger, device).await;
    }
    for number in 0..70 {
        let id = format!("op-{number}");
        ledger.register("many", &registration(&id), 5).await.unwrap();
        apply(ledger, &news("motion_detected", &format!("bell-{number}"), 3), 5)
            .await
            .unwrap();
    }
    for (device, paused) in [("offline", 1), ("back", 1), ("many", 71)] {
        let owed = apply(ledger, &news("device_offline", device, 20), 20)
            .await
            .unwrap();
        assert_eq!(owed.commands.len(), paused);
        if device == "back" {
            ledger.confirm(0, &owed.commands).await.remove(0).unwrap();
            apply(ledger, &news("device_online", device, 30), 30)
                .await
                .unwrap();
        }
    }
    apply(ledger, &news("device_removed", "gone", 20), 20)
        .await
        .unwrap();
    apply(ledger, &news_of("device_online", "moved", "b", 40), 20)
        .await
        .unwrap();
    apply(ledger, &news_of("device_online", "of-gone", "c", 40), 20)
        .await
        .unwrap();
    apply(ledger, &news_of("app_integration_removed", "-", "c", 50), 20)
        .await
        .unwrap();
    ledger
        .register("many", &registration("forgotten"), 5)
        .await
        .unwrap();
    assert!(ledger.forget("many", "forgotten").await.unwrap());
}

async fn views(ledger: &Ledger, carried: &Carried) -> Vec<DeviceView> {
    let mut views = Vec::new();
    for device in &carried.devices {
        views.push(
            ledger
                .device_view(&device.device.device_id)
                .await
                .unwrap()
                .unwrap(),
        );
    }
    views
}

async fn everything_is_the_same_in(from: &Ledger, into: &Ledger) {
    lived_in(from).await;
    let carried = carry_out(from).await;
    assert_eq!((carried.accounts.len(), carried.devices.len()), (1, 77));
    carry_in(&carried, into, 1_000).await;
    let arrived = carry_out(into).await;
    assert_eq!(arrived.accounts, carried.accounts);
    assert_eq!(arrived.devices, carried.devices);
    assert_eq!(each_mark(&arrived), each_mark(&carried));
    assert_eq!(views(into, &carried).await, views(from, &carried).await);
    assert_eq!(into.counts().await.unwrap(), from.counts().await.unwrap());
    let commands = |backlog: porchlight_device::ledger::Backlog| backlog.commands;
    assert_eq!(
        commands(into.backlog().await.unwrap()),
        commands(from.backlog().await.unwrap())
    );
    let claim = async |ledger: &Ledger| {
        let mut claimed = ledger.claim(i64::MAX / 2, 1_000).await.unwrap();
        claimed.sort_by_key(porchlight_device::Command::id);
        claimed
    };
    assert_eq!(claim(into).await, claim(from).await);
    carry_in(&carried, into, 2_000).await;
    let again = carry_out(into).await;
    assert_eq!(
        (again.accounts, again.devices),
        (arrived.accounts, arrived.devices)
    );
    assert_eq!(
        again.marks.iter().map(|run| run.marks.len()).sum::<usize>(),
        arrived.marks.iter().map(|run| run.marks.len()).sum::<usize>()
    );
    // What was seen there is a duplicate here, and what comes next resumes under the identity it would have had.
    let seen = apply(into, &news("device_offline", "offline", 20), 2_000)
        .await
        .unwrap();
    assert_eq!(seen.outcome, Outcome::Duplicate);
    let resumed = |decision: porchlight_device::Decision| {
        let ids = decision.commands.iter().map(porchlight_device::Command::id);
        ids.collect::<Vec<_>>()
    };
    let online = news("device_online", "offline", 60);
    let here = resumed(apply(into, &online, 2_000).await.unwrap());
    assert_eq!(here, resumed(apply(from, &online, 2_000).await.unwrap()));
    assert_eq!(here.len(), 1);
    // An account that was removed there fences its devices here.
    let late = apply(into, &news_of("device_online", "new", "c", 45), 2_000)
        .await
        .unwrap();
    assert_eq!(late.outcome, Outcome::Refused);
}

async fn everything_is_the_same_in_redis_afterwards(from: Place) {
    everything_is_the_same_in(&from.ledger(), &Place::redis().await.ledger()).await;
}

async fn everything_is_the_same_in_sqlite_afterwards(from: Place) {
    everything_is_the_same_in(&from.ledger(), &Place::sqlite().ledger()).await;
}

async fn history_is_brought_only_where_there_is_none(place: Place) {
    let (from, into) = (Place::sqlite().ledger(), place.ledger());
    apply(&from, &news("device_online", "d", 10), 7).await.unwrap();
    apply(&from, &news("device_offline", "d", 20), 8).await.unwrap();
    apply(&from, &news("device_online", "new", 20), 8).await.unwrap();
    apply(&into, &news("device_added", "d", 5), 9).await.unwrap();
    let carried = carry_out(&from).await;
    carry_in(&carried, &into, 10).await;
    let lines = async |device: &str| {
        let view = into.device_view(device).await.unwrap().unwrap();
        view.history
            .into_iter()
            .map(|line| (line.at, line.kind))
            .collect::<Vec<_>>()
    };
    assert_eq!(lines("d").await, [(9, "device_added".to_owned())]);
    assert_eq!(lines("new").await, [(8, "device_online".to_owned())]);
}

async fn an_older_export_moves_nothing_back(place: Place) {
    let ledger = place.ledger();
    with_operation(&ledger, "d").await;
    let paused = apply(&ledger, &news("device_offline", "d", 20), 20)
        .await
        .unwrap();
    let old = carry_out(&ledger).await;
    ledger.confirm(0, &paused.commands).await.remove(0).unwrap();
    let resumed = apply(&ledger, &news("device_online", "d", 30), 30).await.unwrap();
    ledger.confirm(0, &resumed.commands).await.remove(0).unwrap();
    let before = carry_out(&ledger).await;
    carry_in(&old, &ledger, 40).await;
    assert_eq!(carry_out(&ledger).await, before);
    assert_eq!(ledger.backlog().await.unwrap().commands, 0);
}

async fn an_account_that_comes_removed_cancels_what_is_known_here(place: Place) {
    let (from, into) = (Place::sqlite().ledger(), place.ledger());
    apply(&from, &news_of("app_integration_removed", "-", "acct", 50), 20)
        .await
        .unwrap();
    with_operation(&into, "d").await;
    carry_in(&carry_out(&from).await, &into, 60).await;
    let device = into.device("d").await.unwrap().unwrap();
    assert_eq!(device.operations["op"].state, State::Cancelled);
    assert_eq!(device.owed["op"].cause.kind, "import");
    let view = into.device_view("d").await.unwrap().unwrap();
    assert_eq!(view.history[0].kind, "import");
}

async fn a_device_brings_what_it_was_told_of_its_account(place: Place) {
    let (from, into) = (Place::sqlite().ledger(), place.ledger());
    with_operation(&from, "d").await;
    with_operation(&into, "d").await;
    apply(&from, &news_of("app_integration_removed", "-", "acct", 50), 20)
        .await
        .unwrap();
    // An export beside a daemon that runs may have read the account before, and the device after it was told.
    for device in &carry_out(&from).await.devices {
        let owed = into.restore_device(device, 60).await.unwrap();
        assert_eq!(owed.len(), 0);
    }
    let device = into.device("d").await.unwrap().unwrap();
    assert_eq!(device.status.code(), "removed");
    assert_eq!(device.operations["op"].state, State::Cancelled);
    assert_eq!(device.owed["op"].cause.kind, "app_integration_removed");
}

async fn marks_live_as_long_as_they_would_have(place: Place) {
    let (from, into) = (Place::sqlite().ledger(), place.ledger());
    let then = 1_000 * GENERATION + 10 * HOUR;
    let event = news("motion_detected", "d", 1);
    apply(&from, &event, then).await.unwrap();
    let carried = carry_out(&from).await;
    let now = then + GENERATION;
    for marks in &carried.marks {
        assert!(into.restore_marks(marks, now).await.unwrap());
        assert!(
            !into
                .restore_marks(marks, then + 2 * GENERATION + HOUR)
                .await
                .unwrap()
        );
        // A clock that was ahead of ours makes no mark that nobody finds.
        let ahead = CarriedMarks {
            generation: marks.generation + 7,
            partition: marks.partition,
            marks: vec![77],
        };
        assert!(into.restore_marks(&ahead, now).await.unwrap());
    }
    let outcome = async |now_ms| apply(&into, &event, now_ms).await.unwrap().outcome;
    assert_eq!(outcome(now).await, Outcome::Duplicate);
    assert_eq!(
        outcome(then + 2 * GENERATION - 10 * HOUR - 1).await,
        Outcome::Duplicate
    );
    assert_ne!(outcome(then + 2 * GENERATION + HOUR).await, Outcome::Duplicate);
    let arrived = carry_out(&into).await;
    assert!(
        each_mark(&arrived)
            .iter()
            .any(|mark| (mark.1, mark.2) == (1_001, 77))
    );
}

async fn many_marks_are_all_known_and_lie_as_they_should(place: Place) {
    let ledger = place.ledger();
    let partition = porchlight_device::Place::of("d").partition;
    let now = 1_000 * GENERATION + 10 * HOUR;
    // Somebody who takes events already knows another shape of this partition.
    let worker = place.other();
    apply(&worker, &news("device_online", "d", 1), now).await.unwrap();
    let spread = |number: i64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed());
    let marks: Vec<i64> = (1..=MANY).map(spread).collect();
    for (generation, some) in [(1_000, &marks[..4_000]), (999, &marks[4_000..])] {
        for some in some.chunks(1_500) {
            let run = CarriedMarks {
                partition,
                generation,
                marks: some.to_vec(),
            };
            for _ in 0..2 {
                assert!(ledger.restore_marks(&run, now).await.unwrap());
            }
        }
    }
    let arrived = carry_out(&ledger).await;
    let count: usize = arrived.marks.iter().map(|run| run.marks.len()).sum();
    // The worker's event has one.
    assert_eq!(count, marks.len() + 1);
    for number in [0, 479, 480, 3_999, 4_000, marks.len() - 1] {
        let mut event = news("motion_detected", "d", 2);
        event.identity_mark = marks[number];
        let outcome = apply(&worker, &event, now).await.unwrap().outcome;
        assert_eq!(outcome, Outcome::Duplicate, "{number}");
    }
    if let Place::Redis(redis) = &place {
        let script = "local sizes = {} for _, k in ipairs(redis.call('KEYS', '*:dd:*')) do \
             sizes[#sizes + 1] = redis.call('SCARD', k) .. ' ' .. redis.call('TTL', k) end return sizes";
        let Reply::List(sizes) = redis.command(&["EVAL", script, "0"]).unwrap() else {
            panic!("no list");
        };
        assert!(sizes.len() > 16, "{sizes:?}");
        for size in sizes {
            let text = size.text();
            let (size, ttl) = text.split_once(' ').unwrap();
            assert!(
                size.parse::<u64>().unwrap() <= 480 && ttl.parse::<i64>().unwrap() > 0,
                "{text}"
            );
        }
    }
}

async fn a_cursor_of_no_page_is_told(place: Place) {
    let ledger = place.ledger();
    assert_eq!(ledger.carry_devices(Some("x")).await, Err(PageError::BadCursor));
    assert_eq!(ledger.carry_marks(Some("x")).await, Err(PageError::BadCursor));
    let blank = CarriedDevice {
        device: Device::new("blank"),
        history: Vec::new(),
    };
    ledger.restore_device(&blank, 0).await.unwrap();
    assert_eq!(carry_out(&ledger).await.devices, [blank]);
}
