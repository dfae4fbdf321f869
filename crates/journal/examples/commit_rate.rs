//! How fast this disk syncs by itself, and how fast a journal on it accepts events.
//!
//! `cargo run --release -p porchlight-journal --example commit_rate [DIR] [SECONDS] [GATHER_US]`; the directory is made
//! and left.
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::error::Error;
use std::fs::{File, create_dir_all, remove_file};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use porchlight_event::Envelope;
use porchlight_journal::{Journal, JournalConfig, Limits, Queue, Role};

/// About what an event of Ring's takes.
const BODY_BYTES: usize = 716;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap_or_else(|| "commit-rate".to_owned());
    let seconds: u64 = args.next().map_or(Ok(5), |text| text.parse())?;
    let gather: u64 = args.next().map_or(Ok(2000), |text| text.parse())?;
    let (dir, span) = (Path::new(&dir), Duration::from_secs(seconds));
    create_dir_all(dir)?;
    bare(dir, span)?;
    for waiters in [1, 64, 256] {
        accept(
            &dir.join(format!("journal-{waiters}")),
            waiters,
            span,
            Duration::from_micros(gather),
        )
        .await?;
    }
    Ok(())
}

fn bare(dir: &Path, span: Duration) -> Result<(), Box<dyn Error>> {
    let path = dir.join("bare");
    let mut file = File::create(&path)?;
    let (page, began) = ([7; 4096], Instant::now());
    let mut took = Vec::new();
    while began.elapsed() < span {
        let one = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        took.push(one.elapsed());
    }
    show("append 4 KiB, fdatasync", began.elapsed(), &mut took);
    Ok(remove_file(path)?)
}

async fn accept(
    dir: &Path,
    waiters: usize,
    span: Duration,
    gather_max: Duration,
) -> Result<(), Box<dyn Error>> {
    let config = JournalConfig {
        bytes_max: 8 << 30,
        gather_max,
        ..JournalConfig::new(dir)
    };
    let journal = Journal::open(config, Role::Daemon)?;
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for waiter in 0..waiters {
        let queue = Queue::new(&journal);
        tasks.spawn(async move {
            let mut took = Vec::new();
            while began.elapsed() < span {
                let mut body = vec![b'x'; BODY_BYTES];
                body[..8].copy_from_slice(&waiter.to_le_bytes());
                let envelope = Envelope::bare(Bytes::from(body));
                let one = Instant::now();
                let stored = queue
                    .accept(&envelope, Limits::within(Duration::from_secs(30)))
                    .await;
                stored.map(|()| took.push(one.elapsed()))?;
            }
            Ok::<_, porchlight_journal::JournalError>(took)
        });
    }
    let mut took = Vec::new();
    while let Some(done) = tasks.join_next().await {
        took.extend(done??);
    }
    let elapsed = began.elapsed();
    let stats = journal.stats();
    show(&format!("accept, {waiters} waiting"), elapsed, &mut took);
    println!(
        "{:>26}  {:.1} a commit, {:.0} commits/s",
        "",
        took.len() as f64 / stats.commits_total.max(1) as f64,
        stats.commits_total as f64 / elapsed.as_secs_f64()
    );
    journal.close(Duration::from_secs(30)).await;
    Ok(())
}

fn show(what: &str, elapsed: Duration, took: &mut [Duration]) {
    took.sort();
    let at = |percent: usize| {
        took.get(took.len().saturating_sub(1) * percent / 100)
            .copied()
            .unwrap_or_default()
    };
    println!(
        "{what:>26}: {:>8.0}/s, p50 {:?}, p99 {:?}",
        took.len() as f64 / elapsed.as_secs_f64(),
        at(50),
        at(99)
    );
}
