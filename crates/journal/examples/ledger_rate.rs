//! How many events a second the ledger takes with durable commits, what each costs in processor time, and how many bytes
//! on disk a remembered event takes.
//!
//! It proves nothing by itself; it is run by hand, in release mode: `cargo run --release -p porchlight-journal --example
//! apply_rate -- [events] [directory]`. The directory decides which disk is measured.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measurement run by hand"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use porchlight_device::{News, Registration};
use porchlight_event::RingEvent;
use porchlight_event::sample::Sample;
use porchlight_journal::{Journal, JournalConfig, Ledger, LedgerConfig, Role};

/// Events in one call.
const BATCH: usize = 64;
/// Calls at once.
const LANES: usize = 4;
/// Devices the events are about.
const DEVICES: usize = 2000;
/// What the worker's clock says.
const NOW_MS: i64 = 1_771_025_600_000;

/// Devices take turns, and go offline and online in turns.
fn event(n: usize) -> News {
    let at = i64::try_from(n).unwrap();
    let device_id = device(n % DEVICES);
    let request_id = format!("6f9619ff-8b86-d011-b42d-{n:012x}");
    let sample = Sample {
        event_type: if (n / DEVICES).is_multiple_of(2) {
            "device_online"
        } else {
            "device_offline"
        },
        device_id: &device_id,
        account_id: &format!("ava1.ring.account.{}", n % DEVICES / 4),
        timestamp_ms: 1_771_025_567_000 + at,
        sent_at_ms: 1_771_025_567_500 + at,
        request_id: &request_id,
    };
    News::new(&RingEvent::parse(&sample.body()).unwrap(), 0).unwrap()
}

fn device(n: usize) -> String {
    format!("ava1.ring.device.0a1b2c3d4e5f60718293{n:012}")
}

/// An event that leaves nothing but its marks.
fn marks_only(n: usize) -> News {
    let body = format!(
        r#"{{"meta":{{"request_id":"r-{n}"}},"data":{{"id":"e-{n}","type":"something_new",
            "attributes":{{"source":"subject-{}","source_type":"subscriptions"}}}}}}"#,
        n % 5000
    );
    News::new(&RingEvent::parse(body.as_bytes()).unwrap(), 0).unwrap()
}

async fn take(ledger: &Ledger, events: &[News]) -> Duration {
    let began = Instant::now();
    let lane = |lane: usize| {
        let chunks = events.chunks(BATCH).skip(lane).step_by(LANES);
        let mine: Vec<Vec<News>> = chunks.map(<[News]>::to_vec).collect();
        let ledger = ledger.clone();
        tokio::spawn(async move {
            for some in mine {
                let results = ledger.apply_batch(&some, NOW_MS).await;
                assert!(results.iter().all(Result::is_ok));
                let owed: Vec<_> = results
                    .into_iter()
                    .flat_map(|result| result.unwrap().commands)
                    .collect();
                if !owed.is_empty() {
                    let confirmed = ledger.confirm(&owed).await;
                    assert!(confirmed.iter().all(Result::is_ok));
                }
            }
        })
    };
    let lanes: Vec<_> = (0..LANES).map(lane).collect();
    for lane in lanes {
        lane.await.unwrap();
    }
    began.elapsed()
}

/// Processor time of this process, in microseconds.
fn own_cpu_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10_000
}

fn open(dir: &Path) -> (Journal, Ledger) {
    let journal = Journal::open(JournalConfig::new(dir), Role::Daemon).unwrap();
    let ledger = Ledger::new(journal.clone(), LedgerConfig::default());
    (journal, ledger)
}

fn folder() -> tempfile::TempDir {
    match std::env::args().nth(2).map(PathBuf::from) {
        Some(parent) => tempfile::tempdir_in(parent).unwrap(),
        None => tempfile::tempdir().unwrap(),
    }
}

async fn rate(name: &str, events: &[News], operations: usize) {
    let dir = folder();
    let (journal, ledger) = open(dir.path());
    // The devices exist already, as they do on any day but the first.
    let (first, rest) = events.split_at(DEVICES);
    take(&ledger, first).await;
    for n in 0..operations * DEVICES {
        let wanted = Registration {
            operation_id: "nightly-snapshot".to_owned(),
            account_id: None,
            kind: "snapshot".to_owned(),
            params: r#"{"hour":3}"#.to_owned(),
        };
        if n % 500 == 0 {
            println!("{name}: {n} operations registered");
        }
        ledger.register(&device(n), &wanted, NOW_MS).await.unwrap();
    }
    let (cpu, before) = (own_cpu_us(), journal.stats());
    let taken = take(&ledger, rest).await;
    let (cpu, after) = (own_cpu_us() - cpu, journal.stats());
    let many = rest.len() as f64;
    println!(
        "{name}: {:.0} events/s, {:.1} us of processor time each, {:.1} events for each commit",
        many / taken.as_secs_f64(),
        cpu as f64 / many,
        many / (after.commits_total - before.commits_total) as f64,
    );
    journal.close(Duration::from_secs(60)).await;
    let size = std::fs::metadata(dir.path().join("porchlight.db")).unwrap().len();
    println!(
        "{name}: a file of {:.1} MB for {} devices and {} events",
        size as f64 / 1e6,
        DEVICES,
        events.len()
    );
}

async fn remembered(count: usize) {
    let dir = folder();
    let (journal, ledger) = open(dir.path());
    journal.close(Duration::from_secs(60)).await;
    let size = || std::fs::metadata(dir.path().join("porchlight.db")).unwrap().len();
    let before = size();
    drop((journal, ledger));
    let (journal, ledger) = open(dir.path());
    let events: Vec<News> = (0..count).map(marks_only).collect();
    let cpu = own_cpu_us();
    take(&ledger, &events).await;
    let cpu = own_cpu_us() - cpu;
    journal.close(Duration::from_secs(60)).await;
    println!(
        "{:.1} bytes on disk for each of {count} remembered events, and {:.1} us each",
        (size() - before) as f64 / count as f64,
        cpu as f64 / count as f64,
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let count = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let count: usize = count.unwrap_or(200_000);
    let events: Vec<News> = (0..count).map(event).collect();
    rate("no operations", &events, 0).await;
    rate("one operation each", &events, 1).await;
    remembered(count).await;
}
