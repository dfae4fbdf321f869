//! The flags of `simulate`, and how they become a plan.
//!
//! It sends nothing; the only thing read here is the file that `--from-file` names.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use porchlight_service::settings::parse;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::plan::{Devices, Plan, Recipe, Source, Types, split_bodies};
use crate::failure::Failure;
use crate::keys::KeyArgs;

/// Largest file of bodies, in bytes: it is held in memory.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// What the ingress listens on unless told otherwise.
const URL: &str = "http://127.0.0.1:8080/webhooks/ring";
const OFFLINE_ONLINE: [&str; 2] = ["device_offline", "device_online"];

/// Signs events as Ring does and sends them to an ingress.
///
/// Events are made in rounds, one event for each device in each round; every round happens a little after the one
/// before, and the last one happens now. With --rate the load is open: an answer that is late does not slow the
/// sending down, and its latency counts from the moment the request was due.
#[derive(clap::Args)]
pub(crate) struct SimulateArgs {
    /// Where to send
    #[arg(long, value_name = "URL", env = "PORCHLIGHT_URL", hide_env_values = true, default_value = URL)]
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    /// Certificates (PEM) that https trusts [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,

    /// Event type, any name; given several times, each device gets them in turn; `mix` is an everyday mix of
    /// motion_detected, device_online, device_offline and button_press
    #[arg(
        long = "type",
        value_name = "TYPE",
        default_value = "mix",
        help_heading = "Events"
    )]
    types: Vec<String>,
    /// How many devices the events are about
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000_000), help_heading = "Events")]
    devices: u64,
    /// Beginning of the devices' ids; a number from 1 follows
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "ava1.ring.device.SIM",
        help_heading = "Events"
    )]
    device_prefix: String,
    /// The id of one device, whole; may be given several times
    #[arg(long = "device", value_name = "ID", conflicts_with_all = ["devices", "device_prefix"], help_heading = "Events")]
    named_devices: Vec<String>,
    /// The account of all events
    #[arg(
        long,
        value_name = "ID",
        default_value = "ava1.ring.account.SIM",
        help_heading = "Events"
    )]
    account: String,
    /// How many different events [default: one of each --type for each device]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000), help_heading = "Events")]
    count: Option<u64>,
    /// Instead of --type and --count: this many pairs of offline and online for each device
    #[arg(long, value_name = "PAIRS", conflicts_with_all = ["types", "count"], value_parser = clap::value_parser!(u64).range(1..=1_000_000), help_heading = "Events")]
    flaps: Option<u64>,
    /// When the first round happened, as 2026-02-13T23:32:47Z [default: such that the last one happens now]
    #[arg(long, value_name = "TIME", value_parser = start_time, help_heading = "Events")]
    start_time: Option<i64>,
    /// Time between one round and the next, in the events' timestamps: ms, s, m or h
    #[arg(long, value_name = "SPAN", default_value = "1ms", value_parser = parse::duration, help_heading = "Events")]
    spacing: Duration,
    /// Send the bodies of a file, as they are: one JSON value, or one body a line; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["types", "devices", "device_prefix", "named_devices", "account", "count", "flaps", "start_time", "spacing"], help_heading = "Events")]
    from_file: Option<PathBuf>,

    /// How often each event is sent, byte for byte the same
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000), help_heading = "Sending")]
    duplicates: u64,
    /// Send in a random order instead of the order of happening
    #[arg(long, help_heading = "Sending")]
    shuffle: bool,
    /// Makes request ids, the mix and the order repeatable [default: random, and shown]
    #[arg(long, value_name = "NUMBER", help_heading = "Sending")]
    seed: Option<u64>,
    /// Requests per second [default: as fast as answers come]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Sending")]
    pub(crate) rate: Option<u32>,
    /// Connections, each with one request at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4_096), help_heading = "Sending")]
    pub(crate) concurrency: u16,
    /// How long to wait for an answer: ms, s or m; Ring waits 5s
    #[arg(long, value_name = "SPAN", default_value = "5s", value_parser = parse::duration, help_heading = "Sending")]
    pub(crate) timeout: Duration,
    /// Send nothing; print each body with its signature as a JSON line
    #[arg(long, help_heading = "Sending")]
    pub(crate) dry_run: bool,
}

impl SimulateArgs {
    /// The plan, and the seed that repeats it. `now_ms` is the time of the last round.
    pub(crate) fn plan(&self, now_ms: i64) -> Result<(Plan, u64), Failure> {
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(0..1 << 48));
        let source = match &self.from_file {
            Some(path) => Source::Given(read_bodies(path)?),
            None => Source::Made(self.recipe(now_ms, seed)?),
        };
        let plan = Plan {
            source,
            duplicates: self.duplicates,
            shuffle: self.shuffle.then_some(seed),
        };
        Ok((plan, seed))
    }

    fn recipe(&self, now_ms: i64, seed: u64) -> Result<Recipe, Failure> {
        let devices = if self.named_devices.is_empty() {
            Devices::Numbered(self.device_prefix.clone(), self.devices)
        } else {
            Devices::Named(self.named_devices.clone())
        };
        let (types, each) = match self.flaps {
            Some(pairs) => (
                Types::InTurn(OFFLINE_ONLINE.map(str::to_owned).to_vec()),
                pairs * 2,
            ),
            None => (self.types()?, self.types.len() as u64),
        };
        let count = self.count.unwrap_or_else(|| each.saturating_mul(devices.len()));
        let spacing_ms = i64::try_from(self.spacing.as_millis()).unwrap_or(i64::MAX);
        let last_round = i64::try_from(Recipe::rounds(count, &devices).saturating_sub(1)).unwrap_or(i64::MAX);
        let start_ms = self
            .start_time
            .unwrap_or_else(|| now_ms.saturating_sub(last_round.saturating_mul(spacing_ms)));
        Ok(Recipe {
            count,
            devices,
            account: self.account.clone(),
            types,
            start_ms,
            spacing_ms,
            seed,
        })
    }

    fn types(&self) -> Result<Types, Failure> {
        if self.types == ["mix"] {
            return Ok(Types::Mixed);
        }
        if self.types.iter().any(|name| name == "mix" || name.is_empty()) {
            return Err(Failure::usage("--type mix stands alone, and a type is not empty"));
        }
        Ok(Types::InTurn(self.types.clone()))
    }
}

fn start_time(text: &str) -> Result<i64, String> {
    let date = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "is no time; write for example 2026-02-13T23:32:47Z")?;
    Ok(date.unix_timestamp() * 1_000 + i64::from(date.millisecond()))
}

fn read_bodies(path: &Path) -> Result<Vec<Bytes>, Failure> {
    let failed = || Failure::usage(format!("--from-file {}", path.display()));
    let mut content = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut content)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content))
    };
    read.map_err(|error| failed().because(&error))?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(failed().advise(format!("split the file; at most {FILE_BYTES_MAX} bytes are read")));
    }
    let bodies = split_bodies(&Bytes::from(content));
    if bodies.is_empty() {
        Err(failed().advise("the file holds no body"))
    } else {
        Ok(bodies)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use clap::Parser;

    const NOW_MS: i64 = 1_771_025_567_000;

    #[derive(clap::Parser)]
    struct Wrapper {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn parse_args(line: &str) -> Result<SimulateArgs, clap::Error> {
        Wrapper::try_parse_from(std::iter::once("simulate").chain(line.split_whitespace()))
            .map(|cli| cli.args)
    }

    fn recipe(line: &str) -> Recipe {
        match parse_args(line).unwrap().plan(NOW_MS).unwrap().0.source {
            Source::Made(recipe) => recipe,
            Source::Given(_) => panic!("made events were asked for"),
        }
    }

    #[test]
    fn each_device_gets_each_type_once_unless_a_count_is_given() {
        assert_eq!(
            recipe("--type device_offline --type device_online --devices 5").count,
            10
        );
        assert_eq!(recipe("--type device_offline --devices 5 --count 12").count, 12);
        assert_eq!(recipe("--device a --device b").count, 2);
    }

    #[test]
    fn flaps_are_pairs_and_the_last_round_happens_now() {
        let recipe = recipe("--flaps 3 --devices 4 --spacing 2s");
        assert_eq!((recipe.count, recipe.start_ms), (24, NOW_MS - 10_000));
        assert!(matches!(&recipe.types, Types::InTurn(types) if *types == OFFLINE_ONLINE));
    }

    #[test]
    fn one_seed_and_start_make_the_same_bytes() {
        let line = "--devices 3 --count 30 --shuffle --seed 5 --start-time 2026-02-13T23:32:47.5Z";
        let bodies = |line: &str| {
            let plan = parse_args(line).unwrap().plan(NOW_MS).unwrap().0;
            (0..plan.len()).map(|at| plan.body(at)).collect::<Vec<_>>()
        };
        assert_eq!(bodies(line), bodies(line));
        assert_eq!(recipe(line).start_ms, 1_771_025_567_500);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for line in [
            "--flaps 2 --type device_online",
            "--from-file x --devices 2",
            "--devices 0",
            "--spacing 5",
            "--start-time yesterday",
        ] {
            assert!(parse_args(line).is_err(), "{line}");
        }
        assert!(
            parse_args("--type mix --type device_online")
                .unwrap()
                .plan(NOW_MS)
                .is_err()
        );
    }
}
