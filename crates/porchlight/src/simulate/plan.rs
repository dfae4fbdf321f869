//! What is sent and in which order: from flags to a numbered list of bodies, made one at a time.
//!
//! Pure: it sends nothing and reads no clock.

use bytes::Bytes;
use porchlight_event::ids::hash_parts;
use porchlight_event::sample::Sample;

use super::permutation::{Permutation, mix};

/// The everyday mix, in percent. Removals are left out: they would end what the other events are about.
const MIX: [(&str, u64); 4] = [
    ("motion_detected", 40),
    ("device_online", 25),
    ("device_offline", 25),
    ("button_press", 10),
];

/// Everything that will be sent. Holds no made body: each is made when it is asked for.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) source: Source,
    /// How often each event is sent; at least 1.
    pub(crate) duplicates: u64,
    /// The order of sending; `None` sends in the order of happening.
    pub(crate) shuffle: Option<u64>,
}

/// Where bodies come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// Made from a recipe.
    Made(Recipe),
    /// Read before, untouched.
    Given(Vec<Bytes>),
}

/// How events are made: round by round, one event for each device in each round.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) count: u64,
    pub(crate) devices: Devices,
    pub(crate) account: String,
    pub(crate) types: Types,
    /// When the first round happened, in milliseconds since the epoch.
    pub(crate) start_ms: i64,
    /// Between one round and the next.
    pub(crate) spacing_ms: i64,
    /// Makes request ids and the mix; the same seed and start make the same bytes.
    pub(crate) seed: u64,
}

/// The devices that events are about.
#[derive(Debug, Clone)]
pub(crate) enum Devices {
    /// Exactly these.
    Named(Vec<String>),
    /// A prefix with the numbers from 1.
    Numbered(String, u64),
}

/// The types of events.
#[derive(Debug, Clone)]
pub(crate) enum Types {
    /// One of these in each round, in turn.
    InTurn(Vec<String>),
    /// Drawn from [`MIX`].
    Mixed,
}

impl Plan {
    /// How many requests there are.
    pub(crate) fn len(&self) -> u64 {
        self.events().saturating_mul(self.duplicates)
    }

    /// How many different events there are.
    pub(crate) fn events(&self) -> u64 {
        match &self.source {
            Source::Made(recipe) => recipe.count,
            Source::Given(bodies) => bodies.len() as u64,
        }
    }

    /// The body of the request at `position`, which is below [`Plan::len`].
    pub(crate) fn body(&self, position: u64) -> Bytes {
        let position = match self.shuffle {
            Some(seed) => Permutation::new(self.len(), seed).at(position),
            None => position,
        };
        let event = position / self.duplicates;
        match &self.source {
            Source::Made(recipe) => recipe.body(event),
            Source::Given(bodies) => {
                usize::try_from(event).map_or_else(|_| Bytes::new(), |at| bodies[at].clone())
            }
        }
    }
}

impl Recipe {
    /// How many rounds there are: the last one happens `(rounds - 1) * spacing` after the first.
    pub(crate) fn rounds(count: u64, devices: &Devices) -> u64 {
        count.div_ceil(devices.len().max(1))
    }

    fn body(&self, event: u64) -> Bytes {
        let devices = self.devices.len().max(1);
        let round = event / devices;
        let device = self.devices.id(event % devices);
        let event_type = match &self.types {
            Types::InTurn(types) => {
                usize::try_from(round % types.len() as u64).map_or("", |at| types[at].as_str())
            }
            Types::Mixed => mixed(mix(self.seed ^ event)),
        };
        let happened = i64::try_from(round)
            .unwrap_or(i64::MAX)
            .saturating_mul(self.spacing_ms);
        let timestamp_ms = self.start_ms.saturating_add(happened);
        let sample = Sample {
            event_type,
            device_id: &device,
            account_id: &self.account,
            timestamp_ms,
            sent_at_ms: timestamp_ms,
            request_id: &self.request_id(event),
        };
        Bytes::from(sample.body())
    }

    /// A UUID that depends on all that makes this event another than those of other runs.
    fn request_id(&self, event: u64) -> String {
        let hash = hash_parts(&[
            b"simulated request",
            &self.seed.to_be_bytes(),
            &self.start_ms.to_be_bytes(),
            &event.to_be_bytes(),
        ]);
        let mut bytes: [u8; 16] = std::array::from_fn(|at| hash[at]);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }
}

impl Devices {
    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Named(ids) => ids.len() as u64,
            Self::Numbered(_, count) => *count,
        }
    }

    fn id(&self, at: u64) -> String {
        match self {
            Self::Named(ids) => usize::try_from(at).map(|at| ids[at].clone()).unwrap_or_default(),
            Self::Numbered(prefix, _) => format!("{prefix}{}", at + 1),
        }
    }
}

fn mixed(draw: u64) -> &'static str {
    let mut left = draw % 100;
    for (name, percent) in MIX {
        if left < percent {
            return name;
        }
        left -= percent;
    }
    MIX[0].0
}

/// The bodies in a file: the whole of it when it is one JSON value, else each line that is not empty.
pub(crate) fn split_bodies(content: &Bytes) -> Vec<Bytes> {
    if serde_json::from_slice::<&serde_json::value::RawValue>(content).is_ok() {
        return vec![content.clone()];
    }
    let lines = content
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines
        .filter(|line| !line.trim_ascii().is_empty())
        .map(|line| content.slice_ref(line))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use porchlight_event::RingEvent;
    use std::collections::{BTreeMap, BTreeSet};

    fn plan(count: u64, devices: u64, types: &[&str]) -> Plan {
        let recipe = Recipe {
            count,
            devices: Devices::Numbered("d-".to_owned(), devices),
            account: "acct".to_owned(),
            types: Types::InTurn(types.iter().map(|name| (*name).to_owned()).collect()),
            start_ms: 1_000,
            spacing_ms: 10,
            seed: 7,
        };
        Plan {
            source: Source::Made(recipe),
            duplicates: 1,
            shuffle: None,
        }
    }

    fn events(plan: &Plan) -> Vec<RingEvent> {
        (0..plan.len())
            .map(|at| RingEvent::parse(&plan.body(at)).unwrap())
            .collect()
    }

    #[test]
    fn each_device_gets_the_types_in_turn_and_time_goes_on() {
        let events = events(&plan(6, 2, &["device_offline", "device_online"]));
        let told: Vec<_> = events
            .iter()
            .map(|event| {
                (
                    event.source.as_deref().unwrap(),
                    event.event_type.as_str(),
                    event.timestamp_ms.unwrap(),
                )
            })
            .collect();
        assert_eq!(told[0], ("d-1", "device_offline", 1_000));
        assert_eq!(told[1], ("d-2", "device_offline", 1_000));
        assert_eq!(told[2], ("d-1", "device_online", 1_010));
        assert_eq!(told[5], ("d-2", "device_offline", 1_020));
    }

    #[test]
    fn duplicates_are_the_same_bytes_and_a_shuffle_loses_none() {
        let mut plan = plan(50, 5, &["device_online"]);
        plan.duplicates = 3;
        plan.shuffle = Some(11);
        let mut seen: BTreeMap<Bytes, u32> = BTreeMap::new();
        for at in 0..plan.len() {
            *seen.entry(plan.body(at)).or_default() += 1;
        }
        assert_eq!(seen.len(), 50);
        assert!(seen.values().all(|times| *times == 3));
    }

    #[test]
    fn request_ids_are_uuids_of_their_own() {
        let ids: BTreeSet<String> = events(&plan(100, 1, &["device_online"]))
            .into_iter()
            .map(|event| event.request_id.unwrap())
            .collect();
        assert_eq!(ids.len(), 100);
        assert!(ids.iter().all(|id| id.len() == 36 && id.as_bytes()[14] == b'4'));
    }

    #[test]
    fn the_mix_holds_every_type_about_as_often_as_it_says() {
        assert_eq!(MIX.iter().map(|(_, percent)| percent).sum::<u64>(), 100);
        for (name, percent) in MIX {
            let count = (0..10_000).filter(|event| mixed(mix(*event)) == name).count() as u64;
            assert!(count.abs_diff(percent * 100) < 300, "{name} {count}");
        }
    }

    #[test]
    fn a_file_is_one_json_body_or_one_body_a_line() {
        let whole = Bytes::from_static(b"{\n \"a\": 1\n}\n");
        assert_eq!(split_bodies(&whole), vec![whole]);
        let lines = split_bodies(&Bytes::from_static(b"{\"a\":1}\r\n\n{\"a\":2}\nno json"));
        assert_eq!(lines, [&b"{\"a\":1}"[..], b"{\"a\":2}", b"no json"]);
        assert!(split_bodies(&Bytes::from_static(b"\n \n")).is_empty());
    }
}
