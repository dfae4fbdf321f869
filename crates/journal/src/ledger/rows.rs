//! What a row's packed columns hold: a device with its history, an account, an operation, an owed command.
//!
//! It does not touch the file. Every body begins with its version. An id of Ring's mostly begins with the device's own,
//! which is then left out.

use porchlight_device::news::TimeSource;
use porchlight_device::operation::State;
use porchlight_device::records::Line;
use porchlight_device::view::{DeviceSummary, HISTORY_ENTRIES_MAX, HistoryEntry};
use porchlight_device::{
    AccountRegisters, Action, Cause, Command, Device, Operation, Order, Outcome, Reason, Status,
};
use porchlight_event::TraceParent;

use super::pack::{Packer, Unpacker};

const VERSION: u8 = 1;
/// A device's body is filled up to a multiple of this, so that it seldom changes its size: a row of the same size is
/// overwritten in place, and its neighbours need not move.
const BODY_STEP: usize = 128;
/// Types of events that are stored as their place in this list; only ever appended to.
const KINDS: [&str; 10] = [
    "device_online",
    "device_offline",
    "device_added",
    "device_removed",
    "motion_detected",
    "button_press",
    "app_integration_added",
    "app_integration_removed",
    "subscription_activated",
    "subscription_deactivated",
];
/// The stored number of a type that is not in the list, before its text.
const OTHER_KIND: u8 = u8::MAX;
const TIME_SOURCES: [TimeSource; 3] = [TimeSource::Timestamp, TimeSource::MetaTime, TimeSource::Receipt];

/// A device as read, and where in the body its history begins.
pub(super) struct Unpacked {
    pub(super) device: Device,
    pub(super) operations: u64,
    pub(super) history_at: usize,
}

/// Packs a device; `history` is what [`lengthened`] gave, or the bytes from the former body.
pub(super) fn pack_device(device: &Device, history: &[u8]) -> Vec<u8> {
    let id = &device.device_id;
    let mut packer = Packer::default();
    packer.bytes.reserve(512 + history.len());
    packer.byte(VERSION);
    packer.text(id);
    packer.byte(place_in(&Status::ALL, &device.status));
    packer.maybe(device.status_since_ms, Packer::signed);
    packer.maybe(device.account_id.as_deref(), Packer::text);
    packer.number(device.operations.len() as u64);
    packer.number(device.generation_floor);
    let registers = [
        &device.account_order,
        &device.account.added,
        &device.account.removed,
        &device.added,
        &device.removed,
    ];
    for register in registers {
        packer.maybe(register.as_ref(), |packer, order| pack_order(packer, order, id));
    }
    packer.maybe(device.news.as_ref(), |packer, (order, status)| {
        pack_order(packer, order, id);
        packer.byte(place_in(&Status::ALL, status));
    });
    packer.raw(history);
    let filled = packer.bytes.len().next_multiple_of(BODY_STEP);
    packer.bytes.resize(filled, 0);
    packer.bytes
}

/// Reads a device but for its operations and history.
pub(super) fn unpack_device(body: &[u8]) -> Option<Unpacked> {
    let mut read = Unpacker { rest: body };
    let summary = unpack_head(&mut read)?;
    let mut device = Device::new(summary.device_id);
    device.status = Status::from_code(&summary.status)?;
    device.status_since_ms = summary.status_since;
    device.account_id = summary.account_id;
    let operations = read.number()?;
    device.generation_floor = read.number()?;
    let id = device.device_id.clone();
    let mut register = || read.maybe(|read| unpack_order(read, &id));
    device.account_order = register()?;
    device.account = AccountRegisters {
        added: register()?,
        removed: register()?,
    };
    device.added = register()?;
    device.removed = register()?;
    device.news = read.maybe(|read| Some((unpack_order(read, &id)?, pick(&Status::ALL, read.byte()?)?)))?;
    Some(Unpacked {
        device,
        operations,
        history_at: body.len() - read.rest.len(),
    })
}

/// Reads only what a page shows.
pub(super) fn unpack_summary(body: &[u8]) -> Option<DeviceSummary> {
    unpack_head(&mut Unpacker { rest: body })
}

/// Reads only the id.
pub(super) fn unpack_id(body: &[u8]) -> Option<&str> {
    let mut read = Unpacker { rest: body };
    (read.byte()? == VERSION).then(|| read.text())?
}

fn unpack_head(read: &mut Unpacker) -> Option<DeviceSummary> {
    if read.byte()? != VERSION {
        return None;
    }
    Some(DeviceSummary {
        device_id: read.text()?.to_owned(),
        status: pick(&Status::ALL, read.byte()?)?.code().to_owned(),
        status_since: read.maybe(Unpacker::signed)?,
        account_id: read.maybe(Unpacker::text)?.map(str::to_owned),
    })
}

/// The history with one more line at its head and at most [`HISTORY_ENTRIES_MAX`] lines: their count, and each with its
/// length before it.
pub(super) fn lengthened(history: &[u8], line: &Line, device_id: &str) -> Option<Vec<u8>> {
    let mut lines = Unpacker { rest: history };
    let known = if history.is_empty() { 0 } else { lines.byte()? };
    let kept = usize::from(known).min(HISTORY_ENTRIES_MAX - 1);
    let mut end = lines;
    for _ in 0..kept {
        let length = usize::try_from(end.number()?).ok()?;
        end.raw(length)?;
    }
    let kept_bytes = &lines.rest[..lines.rest.len() - end.rest.len()];
    let entry = pack_line(line, device_id);
    let mut packer = Packer::default();
    packer.bytes.reserve(entry.len() + kept_bytes.len() + 8);
    packer.byte(u8::try_from(kept + 1).ok()?);
    packer.number(entry.len() as u64);
    packer.raw(&entry);
    packer.raw(kept_bytes);
    Some(packer.bytes)
}

/// Reads a history, newest first.
pub(super) fn unpack_history(history: &[u8], device_id: &str) -> Option<Vec<HistoryEntry>> {
    let mut lines = Unpacker { rest: history };
    let count = if history.is_empty() { 0 } else { lines.byte()? };
    let entry = |_| {
        let length = usize::try_from(lines.number()?).ok()?;
        let mut read = Unpacker {
            rest: lines.raw(length)?,
        };
        Some(HistoryEntry {
            at: read.signed()?,
            event_id: unpack_id_of(&mut read, device_id)?,
            request_id: unpack_request(&mut read)?,
            kind: unpack_kind(&mut read)?,
            timestamp: read.signed()?,
            time_source: pick(&TIME_SOURCES, read.byte()?)?.code().to_owned(),
            outcome: pick(&Outcome::ALL, read.byte()?)?.code().to_owned(),
            reason: pick(&Reason::ALL, read.byte()?)?.code().to_owned(),
        })
    };
    (0..count).map(entry).collect()
}

pub(super) fn pack_account(registers: &AccountRegisters) -> Vec<u8> {
    let mut packer = Packer::default();
    packer.byte(VERSION);
    for register in [&registers.added, &registers.removed] {
        packer.maybe(register.as_ref(), |packer, order| packer.text(order.as_str()));
    }
    packer.bytes
}

pub(super) fn unpack_account(body: &[u8]) -> Option<AccountRegisters> {
    let mut read = Unpacker { rest: body };
    if read.byte()? != VERSION {
        return None;
    }
    let mut register = || read.maybe(|read| Order::from_stored(read.text()?.to_owned()));
    Some(AccountRegisters {
        added: register()?,
        removed: register()?,
    })
}

/// An operation but for its id, which has a column of its own.
pub(super) fn pack_operation(operation: &Operation) -> Vec<u8> {
    let mut packer = Packer::default();
    packer.byte(VERSION);
    packer.byte(place_in(&State::ALL, &operation.state));
    packer.number(operation.generation);
    packer.text(&operation.kind);
    packer.maybe(operation.account_id.as_deref(), Packer::text);
    packer.text(&operation.params);
    packer.bytes
}

pub(super) fn unpack_operation(id: String, body: &[u8]) -> Option<Operation> {
    let mut read = Unpacker { rest: body };
    if read.byte()? != VERSION {
        return None;
    }
    Some(Operation {
        id,
        state: pick(&State::ALL, read.byte()?)?,
        generation: read.number()?,
        kind: read.text()?.to_owned(),
        account_id: read.maybe(Unpacker::text)?.map(str::to_owned),
        params: read.text()?.to_owned(),
    })
}

pub(super) fn pack_command(command: &Command) -> Vec<u8> {
    let mut packer = Packer::default();
    packer.byte(VERSION);
    packer.byte(place_in(&Action::ALL, &command.action));
    packer.number(command.generation);
    packer.text(&command.operation_id);
    packer.text(&command.kind);
    packer.text(&command.params);
    packer.text(&command.device_id);
    packer.maybe(command.account_id.as_deref(), Packer::text);
    packer.text(&command.cause.event_id);
    packer.maybe(command.cause.request_id.as_deref(), Packer::text);
    packer.text(&command.cause.kind);
    packer.signed(command.cause.timestamp);
    packer.signed(command.issued_at_ms);
    // Left out where there is none: such a row is as it always was.
    if let Some(traceparent) = &command.cause.traceparent {
        packer.text(traceparent.as_str());
    }
    packer.bytes
}

pub(super) fn unpack_command(body: &[u8]) -> Option<Command> {
    let mut read = Unpacker { rest: body };
    if read.byte()? != VERSION {
        return None;
    }
    let mut command = Command {
        action: pick(&Action::ALL, read.byte()?)?,
        generation: read.number()?,
        operation_id: read.text()?.to_owned(),
        kind: read.text()?.to_owned(),
        params: read.text()?.to_owned(),
        device_id: read.text()?.to_owned(),
        account_id: read.maybe(Unpacker::text)?.map(str::to_owned),
        cause: Cause {
            event_id: read.text()?.to_owned(),
            request_id: read.maybe(Unpacker::text)?.map(str::to_owned),
            kind: read.text()?.to_owned(),
            timestamp: read.signed()?,
            traceparent: None,
        },
        issued_at_ms: read.signed()?,
    };
    command.cause.traceparent = read.text().and_then(TraceParent::parse);
    Some(command)
}

fn pack_line(line: &Line, device_id: &str) -> Vec<u8> {
    let news = line.news;
    let mut packer = Packer::default();
    packer.bytes.reserve(128);
    packer.signed(line.at_ms);
    pack_id_of(&mut packer, &news.event_id, device_id);
    pack_request(&mut packer, news.request_id.as_deref());
    pack_kind(&mut packer, &news.event_type);
    packer.signed(news.timestamp_ms);
    packer.byte(place_in(&TIME_SOURCES, &news.time_source));
    packer.byte(place_in(&Outcome::ALL, &line.outcome));
    packer.byte(place_in(&Reason::ALL, &line.reason));
    packer.bytes
}

/// The two numbers at an order's head as eight bytes each, then what follows.
fn pack_order(packer: &mut Packer, order: &Order, device_id: &str) {
    let (first, second, tail) = order.parts();
    packer.raw(&first.to_be_bytes());
    packer.raw(&second.to_be_bytes());
    pack_id_of(packer, tail, device_id);
}

fn unpack_order(read: &mut Unpacker, device_id: &str) -> Option<Order> {
    let mut number = || Some(u64::from_be_bytes(read.raw(8)?.try_into().ok()?));
    let (first, second) = (number()?, number()?);
    let tail = unpack_id_of(read, device_id)?;
    Some(Order::from_parts(first, second, &tail))
}

fn pack_id_of(packer: &mut Packer, id: &str, device_id: &str) {
    let tail = id.strip_prefix(device_id);
    packer.byte(u8::from(tail.is_some()));
    packer.text(tail.unwrap_or(id));
}

fn unpack_id_of(read: &mut Unpacker, device_id: &str) -> Option<String> {
    match (read.byte()?, read.text()?) {
        (0, whole) => Some(whole.to_owned()),
        (1, tail) => Some([device_id, tail].concat()),
        _ => None,
    }
}

/// A request id mostly is a UUID in its usual spelling, which are sixteen bytes.
fn pack_request(packer: &mut Packer, request_id: Option<&str>) {
    match (request_id, request_id.and_then(uuid_bytes)) {
        (None, _) => packer.byte(0),
        (_, Some(uuid)) => {
            packer.byte(2);
            packer.raw(&uuid);
        }
        (Some(other), None) => {
            packer.byte(1);
            packer.text(other);
        }
    }
}

fn unpack_request(read: &mut Unpacker) -> Option<Option<String>> {
    match read.byte()? {
        0 => Some(None),
        1 => Some(Some(read.text()?.to_owned())),
        2 => Some(Some(uuid_text(read.raw(16)?))),
        _ => None,
    }
}

fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    let mut digits = [0; 32];
    let mut count = 0;
    for (at, byte) in text.bytes().enumerate() {
        match (at, byte) {
            (8 | 13 | 18 | 23, b'-') => {}
            (8 | 13 | 18 | 23, _) => return None,
            (_, b'0'..=b'9' | b'a'..=b'f') => {
                *digits.get_mut(count)? = byte;
                count += 1;
            }
            _ => return None,
        }
    }
    let mut uuid = [0; 16];
    (text.len() == 36).then(|| hex::decode_to_slice(digits, &mut uuid).ok())??;
    Some(uuid)
}

fn uuid_text(uuid: &[u8]) -> String {
    let mut text = hex::encode(uuid);
    for at in [8, 13, 18, 23] {
        text.insert(at, '-');
    }
    text
}

fn pack_kind(packer: &mut Packer, kind: &str) {
    match KINDS.iter().position(|known| *known == kind) {
        Some(place) => packer.byte(u8::try_from(place).unwrap_or(OTHER_KIND)),
        None => {
            packer.byte(OTHER_KIND);
            packer.text(kind);
        }
    }
}

fn unpack_kind(read: &mut Unpacker) -> Option<String> {
    match read.byte()? {
        OTHER_KIND => read.text().map(str::to_owned),
        place => pick(&KINDS, place).map(str::to_owned),
    }
}

/// Values are stored as their place among all of their type, which is therefore only ever appended to.
pub(super) fn place_in<T: PartialEq>(all: &[T], value: &T) -> u8 {
    let place = all.iter().position(|known| known == value);
    place
        .and_then(|place| u8::try_from(place).ok())
        .unwrap_or(u8::MAX)
}

fn pick<T: Copy>(all: &[T], place: u8) -> Option<T> {
    all.get(usize::from(place)).copied()
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
