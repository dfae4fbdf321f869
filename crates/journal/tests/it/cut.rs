//! A power cut: whatever part of the log reached the disk, what was answered before that part's end is there.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use porchlight_event::Envelope;
use porchlight_journal::{Limits, Queue};
use rusqlite::Connection;

use crate::{PATIENCE, drain, open};

const LOG: &str = "porchlight.db-wal";
const FILE: &str = "porchlight.db";
const COMMITS: usize = 40;

/// How the tail of the log is lost.
#[derive(Debug, Clone, Copy)]
enum Tail {
    /// The file ends there.
    Missing,
    /// The file has its length, but these blocks were never written.
    Zeros,
    /// One bit is wrong there.
    Flipped,
}

#[tokio::test]
async fn a_log_cut_anywhere_keeps_every_commit_that_was_complete() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let queue = Queue::new(&journal);
    // Who reads keeps the log as it is, also while nobody writes for long.
    let reader = Connection::open(dir.path().join(FILE)).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM facts").unwrap();
    let length = || usize::try_from(fs::metadata(dir.path().join(LOG)).unwrap().len()).unwrap();
    // Where the log ended when a commit was answered; the first is what opening wrote.
    let mut ends = vec![length()];
    for number in 0..COMMITS {
        // Some of one page, some of several.
        let body = format!("{number} {}", "x".repeat((number % 5) * 3000));
        let envelope = Envelope::bare(Bytes::from(body));
        queue.accept(&envelope, Limits::within(PATIENCE)).await.unwrap();
        ends.push(length());
    }
    let (file, log) = (
        fs::read(dir.path().join(FILE)).unwrap(),
        fs::read(dir.path().join(LOG)).unwrap(),
    );
    assert!(
        ends.is_sorted_by(|a, b| a < b),
        "a checkpoint came in between: {ends:?}"
    );
    assert_eq!(log.len(), ends[COMMITS]);
    let mut cuts: Vec<usize> = ends.iter().flat_map(|end| [end - 1, *end, end + 1]).collect();
    cuts.extend((0..log.len()).step_by(log.len() / 40));
    cuts.retain(|cut| *cut < log.len());
    for (turn, cut) in cuts.into_iter().enumerate() {
        let tail = [Tail::Missing, Tail::Zeros, Tail::Flipped][turn % 3];
        let complete = ends[1..].iter().filter(|end| **end <= cut).count();
        let copy = tempfile::tempdir().unwrap();
        fs::write(copy.path().join(FILE), &file).unwrap();
        fs::write(copy.path().join(LOG), spoiled(&log, cut, tail)).unwrap();
        let found = numbers(copy.path()).await;
        let wanted: Vec<usize> = (0..complete).collect();
        assert_eq!(found, wanted, "{tail:?} at {cut} of {}", log.len());
    }
}

fn spoiled(log: &[u8], cut: usize, tail: Tail) -> Vec<u8> {
    let mut spoiled = log.to_vec();
    match tail {
        Tail::Missing => spoiled.truncate(cut),
        Tail::Zeros => spoiled[cut..].fill(0),
        Tail::Flipped => spoiled[cut] ^= 0x10,
    }
    spoiled
}

async fn numbers(dir: &Path) -> Vec<usize> {
    let journal = open(dir);
    let number = |text: String| text.split_once(' ').unwrap().0.parse().unwrap();
    let found = drain(&journal).await.into_iter().map(number).collect();
    journal.close(PATIENCE).await;
    found
}
