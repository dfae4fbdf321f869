//! Packed columns read back, and nothing else reads as one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use porchlight_device::{News, Registration};
use porchlight_event::RingEvent;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const DEVICE: &str = "ava1.ring.device.porch";

fn news(event_type: &str, event_id: &str, request_id: Option<&str>, at: i64) -> News {
    let body = json!({
        "meta": { "request_id": request_id, "account_id": "acct", "time": "2026-02-13T23:32:51.123456789Z" },
        "data": {
            "id": event_id, "type": event_type,
            "attributes": { "source": DEVICE, "source_type": "devices", "timestamp": at },
        },
    });
    News::new(&RingEvent::parse(body.to_string().as_bytes()).unwrap(), 0).unwrap()
}

fn whole() -> Device {
    let mut device = Device::new(DEVICE);
    for (kind, at) in [
        ("device_added", 1),
        ("device_removed", 2),
        ("device_added", 3),
        ("device_online", i64::MAX),
        ("device_offline", i64::MIN),
    ] {
        device.apply(
            &news(kind, &format!("{DEVICE}_{kind}"), None, at),
            &AccountRegisters::default(),
            5,
        );
    }
    device.account.removed = Some(Order::new(7, Some(-3), "", "app"));
    device.generation_floor = u64::MAX;
    device
}

#[test]
fn a_device_reads_back_and_its_body_seldom_changes_its_size() {
    let blank = Device::new("");
    assert_eq!(unpack_device(&pack_device(&blank, &[])).unwrap().device, blank);
    let device = whole();
    let body = pack_device(&device, &[]);
    assert_eq!(body.len() % BODY_STEP, 0);
    let read = unpack_device(&body).unwrap();
    assert_eq!((read.device, read.operations), (device.clone(), 0));
    assert_eq!(unpack_id(&body), Some(DEVICE));
    let summary = unpack_summary(&body).unwrap();
    assert_eq!(
        (
            summary.device_id.as_str(),
            summary.status.as_str(),
            summary.status_since
        ),
        (DEVICE, device.status.code(), device.status_since_ms)
    );
}

#[test]
fn a_history_keeps_its_newest_lines_whatever_their_ids() {
    let ids = [
        (
            format!("{DEVICE}_device_online_1"),
            Some("6f9619ff-8b86-d011-b42d-00cf4fc964ff"),
        ),
        (DEVICE.to_owned(), Some("6F9619FF-8B86-D011-B42D-00CF4FC964FF")),
        ("other\0".to_owned(), Some("6f9619ff-8b86-d011-b42d-00cf4fc964f-")),
        ("\u{1f600}".repeat(1024), Some("r\0")),
        ("x".to_owned(), None),
    ];
    let mut history = Vec::new();
    let mut wanted = Vec::new();
    for n in 0..47_i64 {
        let (event_id, request_id) = &ids[usize::try_from(n).unwrap() % ids.len()];
        let kind = if n % 3 == 0 {
            "something_new"
        } else {
            "device_online"
        };
        let news = news(kind, event_id, *request_id, -n);
        let line = Line {
            news: &news,
            outcome: Outcome::Stale,
            reason: Reason::RemovedLater,
            at_ms: n,
        };
        history = lengthened(&history, &line, DEVICE).unwrap();
        wanted.insert(
            0,
            (
                n,
                event_id.clone(),
                request_id.map(str::to_owned),
                kind.to_owned(),
                -n,
            ),
        );
        // What is filled up behind a history does not belong to it.
        history.resize(history.len() + 5, 0);
    }
    let read = unpack_history(&history, DEVICE).unwrap();
    assert_eq!(read.len(), HISTORY_ENTRIES_MAX);
    for (entry, wanted) in read.into_iter().zip(wanted) {
        let source = (
            entry.time_source.as_str(),
            entry.outcome.as_str(),
            entry.reason.as_str(),
        );
        assert_eq!(source, ("timestamp", "stale", "removed_later"));
        assert_eq!(
            (
                entry.at,
                entry.event_id,
                entry.request_id,
                entry.kind,
                entry.timestamp
            ),
            wanted
        );
    }
    assert_eq!(unpack_history(&[], DEVICE), Some(vec![]));
}

#[test]
fn operations_commands_and_accounts_read_back() {
    let mut device = whole();
    device.generation_floor = u64::MAX >> 1;
    let registration = Registration {
        operation_id: "op\0".to_owned(),
        account_id: None,
        kind: "snap".to_owned(),
        params: r#"{"a": "\u0000"}"#.to_owned(),
    };
    device.news = Some((Order::new(i64::MAX, None, "", ""), Status::Offline));
    device.account.removed = None;
    device.status = device.derived_status();
    let command = device.register(&registration, i64::MIN).unwrap().unwrap();
    let operation = &device.operations["op\0"];
    assert_eq!(
        unpack_operation("op\0".to_owned(), &pack_operation(operation)).as_ref(),
        Some(operation)
    );
    for command in [
        command.clone(),
        Command {
            account_id: None,
            generation: u64::MAX,
            ..command.clone()
        },
        Command {
            cause: Cause {
                traceparent: TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
                ..command.cause.clone()
            },
            ..command
        },
    ] {
        assert_eq!(unpack_command(&pack_command(&command)), Some(command));
    }
    let registers = AccountRegisters {
        added: None,
        removed: device.removed.clone(),
    };
    assert_eq!(unpack_account(&pack_account(&registers)), Some(registers));
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), cut in 0_usize..400) {
        let mut device = pack_device(&whole(), &[1, 2, 3, 4]);
        device.truncate(cut.min(device.len()));
        for bytes in [[&[VERSION], bytes.as_slice()].concat(), bytes, device] {
            let _ = (unpack_device(&bytes), unpack_history(&bytes, "d"), unpack_account(&bytes));
            let _ = (unpack_operation(String::new(), &bytes), unpack_command(&bytes), unpack_summary(&bytes));
        }
    }
}
