//! The lines of an export, and what they stand for, both ways.
//!
//! Nothing is read or written here. Texts stay as they are, marks are 16 hex digits each: every number comes back as it
//! was. A field that is not known is an error: it would be lost.

use porchlight_device::carry::{CarriedAccount, CarriedDevice, CarriedMarks};
use porchlight_device::view::HistoryEntry;
use porchlight_device::{AccountRegisters, Action, Cause, Command, Device, Operation, Order, State, Status};
use porchlight_event::Envelope;
use porchlight_event::queue::DeadLetter;
use serde::{Deserialize, Serialize};

use super::letters::{Event, Letter};

/// The name in the first line.
pub(crate) const FORMAT: &str = "porchlight-export";
/// The version in the first line: files of another major version are not read.
pub(crate) const VERSION: &str = "1.0";

/// Largest number of something that was counted: a ledger's scripts count in doubles, and go on from here.
const COUNT_MAX: u64 = 1 << 52;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "lowercase")]
pub(crate) enum Line {
    Header(Header),
    Account(Account),
    Device(Box<DeviceLine>),
    Marks(Marks),
    Letter(Letter),
    Event(Event),
    End(End),
}

/// The first line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) format: String,
    pub(crate) version: String,
    /// The form it was made of.
    pub(crate) from: Form,
    /// When it was begun, in milliseconds since the epoch.
    pub(crate) at: i64,
    /// The version of the program that wrote it.
    pub(crate) program: String,
}

/// The two ways to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Form {
    Standalone,
    Scaled,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    #[serde(flatten)]
    pub(crate) counts: Counts,
    /// Of everything before this line, in hex.
    pub(crate) sha256: String,
}

/// How much there is of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) accounts: u64,
    pub(crate) devices: u64,
    pub(crate) marks: u64,
    pub(crate) letters: u64,
    pub(crate) events: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Account {
    id: String,
    added: Option<String>,
    removed: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceLine {
    id: String,
    account_id: Option<String>,
    account_order: Option<String>,
    account_added: Option<String>,
    account_removed: Option<String>,
    news: Option<News>,
    added: Option<String>,
    removed: Option<String>,
    status: String,
    status_since: Option<i64>,
    generation_floor: u64,
    operations: Vec<OperationLine>,
    history: Vec<HistoryEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct News {
    order: String,
    status: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OperationLine {
    id: String,
    kind: String,
    params: String,
    account_id: Option<String>,
    state: String,
    generation: u64,
    owed: Option<Owed>,
}

/// The command that an operation owes: its action and generation are the operation's.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Owed {
    action: String,
    kind: String,
    params: String,
    account_id: Option<String>,
    cause: Cause,
    issued_at: i64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Marks {
    partition: u8,
    generation: i64,
    marks: String,
}

/// What a line stands for.
#[derive(Debug)]
pub(crate) enum Thing {
    Account(CarriedAccount),
    Device(Box<CarriedDevice>),
    Marks(CarriedMarks),
    Letter(Box<DeadLetter>),
    /// An event, and when its time has come where it was put off.
    Event(Box<Envelope>, Option<i64>),
}

/// What in a line is not what it should be; without any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Odd(pub(super) &'static str);

impl Line {
    /// What it stands for; `None` for the first and the last line.
    pub(crate) fn thing(self, header: &Header) -> Result<Option<Thing>, Odd> {
        Ok(Some(match self {
            Self::Header(_) | Self::End(_) => return Ok(None),
            Self::Account(line) => Thing::Account(line.try_into()?),
            Self::Device(line) => Thing::Device(Box::new((*line).try_into()?)),
            Self::Marks(line) => Thing::Marks(line.try_into()?),
            Self::Letter(line) => Thing::Letter(Box::new(line.read(header.at)?)),
            Self::Event(line) => {
                let (envelope, due_at) = line.read()?;
                Thing::Event(Box::new(envelope), due_at)
            }
        }))
    }
}

impl Thing {
    /// How many things it counts for.
    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::Marks(marks) => marks.marks.len() as u64,
            _ => 1,
        }
    }
}

/// A number that something was counted up to. One that nothing counts to would stop who goes on counting.
pub(crate) fn counted(number: u64) -> Result<u64, Odd> {
    if number <= COUNT_MAX {
        Ok(number)
    } else {
        Err(Odd("a number that nothing counts to"))
    }
}

fn order(text: Option<String>) -> Result<Option<Order>, Odd> {
    text.map(|text| Order::from_stored(text).ok_or(Odd("a register that is no order of events")))
        .transpose()
}

fn text(order: Option<&Order>) -> Option<String> {
    order.map(|order| order.as_str().to_owned())
}

fn status(code: &str) -> Result<Status, Odd> {
    Status::from_code(code).ok_or(Odd("an unknown status"))
}

impl From<&CarriedAccount> for Account {
    fn from(account: &CarriedAccount) -> Self {
        Self {
            id: account.account_id.clone(),
            added: text(account.registers.added.as_ref()),
            removed: text(account.registers.removed.as_ref()),
        }
    }
}

impl TryFrom<Account> for CarriedAccount {
    type Error = Odd;

    fn try_from(line: Account) -> Result<Self, Odd> {
        Ok(Self {
            account_id: line.id,
            registers: AccountRegisters {
                added: order(line.added)?,
                removed: order(line.removed)?,
            },
        })
    }
}

impl From<CarriedDevice> for DeviceLine {
    fn from(carried: CarriedDevice) -> Self {
        let CarriedDevice { mut device, history } = carried;
        let operation = |operation: Operation| OperationLine {
            // One that does not say what its operation is in was overtaken.
            owed: device
                .owed
                .remove(&operation.id)
                .filter(|owed| fits(owed, &operation))
                .map(Owed::from),
            id: operation.id,
            kind: operation.kind,
            params: operation.params,
            account_id: operation.account_id,
            state: operation.state.code().to_owned(),
            generation: operation.generation,
        };
        Self {
            operations: device.operations.into_values().map(operation).collect(),
            id: device.device_id,
            account_id: device.account_id,
            account_order: text(device.account_order.as_ref()),
            account_added: text(device.account.added.as_ref()),
            account_removed: text(device.account.removed.as_ref()),
            news: device.news.map(|(order, status)| News {
                order: order.as_str().to_owned(),
                status: status.code().to_owned(),
            }),
            added: text(device.added.as_ref()),
            removed: text(device.removed.as_ref()),
            status: device.status.code().to_owned(),
            status_since: device.status_since_ms,
            generation_floor: device.generation_floor,
            history,
        }
    }
}

fn fits(owed: &Command, operation: &Operation) -> bool {
    (owed.generation, owed.action.state()) == (operation.generation, operation.state)
}

impl From<Command> for Owed {
    fn from(command: Command) -> Self {
        Self {
            action: command.action.code().to_owned(),
            kind: command.kind,
            params: command.params,
            account_id: command.account_id,
            cause: command.cause,
            issued_at: command.issued_at_ms,
        }
    }
}

impl TryFrom<DeviceLine> for CarriedDevice {
    type Error = Odd;

    fn try_from(line: DeviceLine) -> Result<Self, Odd> {
        let mut device = Device::new(line.id);
        device.account_id = line.account_id;
        device.account_order = order(line.account_order)?;
        device.account = AccountRegisters {
            added: order(line.account_added)?,
            removed: order(line.account_removed)?,
        };
        if let Some(news) = line.news {
            let order = order(Some(news.order))?.ok_or(Odd("news without an order"))?;
            device.news = Some((order, status(&news.status)?));
        }
        device.added = order(line.added)?;
        device.removed = order(line.removed)?;
        device.status = status(&line.status)?;
        device.status_since_ms = line.status_since;
        device.generation_floor = counted(line.generation_floor)?;
        for operation in line.operations {
            operation.enter(&mut device)?;
        }
        Ok(Self {
            device,
            history: line.history,
        })
    }
}

impl OperationLine {
    fn enter(self, device: &mut Device) -> Result<(), Odd> {
        let operation = Operation {
            id: self.id,
            kind: self.kind,
            params: self.params,
            account_id: self.account_id,
            state: State::from_code(&self.state).ok_or(Odd("an operation in an unknown state"))?,
            generation: counted(self.generation)?,
        };
        if let Some(owed) = self.owed {
            let command = Command {
                action: Action::from_code(&owed.action).ok_or(Odd("an unknown action"))?,
                generation: operation.generation,
                operation_id: operation.id.clone(),
                kind: owed.kind,
                params: owed.params,
                device_id: device.device_id.clone(),
                account_id: owed.account_id,
                cause: owed.cause,
                issued_at_ms: owed.issued_at,
            };
            if !fits(&command, &operation) {
                return Err(Odd("an owed command that does not belong to its operation"));
            }
            device.owed.insert(operation.id.clone(), command);
        }
        device.operations.insert(operation.id.clone(), operation);
        Ok(())
    }
}

impl From<&CarriedMarks> for Marks {
    fn from(carried: &CarriedMarks) -> Self {
        let bytes: Vec<u8> = carried.marks.iter().flat_map(|mark| mark.to_be_bytes()).collect();
        Self {
            partition: carried.partition,
            generation: carried.generation,
            marks: hex::encode(bytes),
        }
    }
}

impl TryFrom<Marks> for CarriedMarks {
    type Error = Odd;

    fn try_from(line: Marks) -> Result<Self, Odd> {
        const ODD: Odd = Odd("marks that are not 16 hex digits each");
        let bytes = hex::decode(line.marks).map_err(|_| ODD)?;
        let (marks, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(ODD);
        }
        Ok(Self {
            partition: line.partition,
            generation: line.generation,
            marks: marks.iter().map(|mark| i64::from_be_bytes(*mark)).collect(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(line: Value) -> Result<Option<Thing>, Odd> {
        let header = Header {
            format: FORMAT.to_owned(),
            version: VERSION.to_owned(),
            from: Form::Scaled,
            at: 1,
            program: String::new(),
        };
        serde_json::from_value::<Line>(line).unwrap().thing(&header)
    }

    fn device(floor: u64, generation: u64) -> Value {
        let operation = json!({
            "id": "o", "kind": "k", "params": "null", "state": "running", "generation": generation,
        });
        json!({
            "line": "device", "id": "d", "status": "online", "generation_floor": floor,
            "operations": [operation], "history": [],
        })
    }

    fn letter(delivery_count: u64) -> Value {
        let envelope = json!({ "message_id": "m", "body": "", "attempt": 0, "replay": 0 });
        json!({
            "line": "letter", "origin": "event", "routing_key": "", "reason": "r",
            "delivery_count": delivery_count, "envelope": envelope,
        })
    }

    #[test]
    fn numbers_that_nothing_counts_to_are_refused_before_anything_is_changed() {
        for line in [device(7, 7), device(1 << 52, 1 << 52), letter(1 << 52)] {
            assert!(read(line).is_ok());
        }
        for line in [device(u64::MAX, 7), device(7, u64::MAX), letter(u64::MAX)] {
            assert!(read(line.clone()).is_err(), "{line}");
        }
    }
}
