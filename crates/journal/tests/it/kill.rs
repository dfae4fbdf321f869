//! A kill at any moment: a child writes and tells what was answered; all of that is there when it is gone.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use porchlight_event::Envelope;
use porchlight_journal::{Limits, Queue};

use crate::{PATIENCE, drain, open};

/// In a child's environment: the directory to write to, and which of the children it is.
const DIR: &str = "PORCHLIGHT_JOURNAL_TEST_DIR";
const ROUND: &str = "PORCHLIGHT_JOURNAL_TEST_ROUND";
const WRITERS: usize = 16;
const ROUNDS: usize = 12;
/// What a child has told at least before it is killed, however slow the disk is.
const ANSWERED_MIN: usize = 10;

#[tokio::test]
async fn whatever_was_answered_before_a_kill_is_there_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut answered_in_all = 0;
    for round in 0..ROUNDS {
        let life = Duration::from_millis(30 + 37 * (round as u64 % 7));
        // Beside the runtime: tasks of the journal before must be able to end, and let go of the directory.
        let path = dir.path().to_owned();
        let child = tokio::task::spawn_blocking(move || write_and_kill(&path, round, life));
        let answered = child.await.unwrap();
        answered_in_all += answered.len();
        let journal = open(dir.path());
        assert!(!journal.ended_cleanly());
        let found = drain(&journal).await;
        for line in &answered {
            assert!(
                found.contains(line),
                "round {round}: {line} of {} is missing",
                answered.len()
            );
        }
        // Each writer went on only after an answer, so what is there of it has no gap either.
        for writer in 0..WRITERS {
            let prefix = format!("{round} {writer} ");
            let own: Vec<_> = found
                .iter()
                .filter_map(|line| line.strip_prefix(&prefix))
                .collect();
            let wanted: Vec<_> = (0..own.len()).map(|number| number.to_string()).collect();
            assert_eq!(own, wanted, "round {round}, writer {writer}");
        }
        // Every other time the next child finds what a crash left, and not a clean end.
        if round % 2 == 0 {
            journal.close(PATIENCE).await;
        } else {
            drop(journal);
        }
    }
    assert!(answered_in_all >= ROUNDS * ANSWERED_MIN, "{answered_in_all}");
}

fn write_and_kill(dir: &Path, round: usize, life: Duration) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "kill::the_child_writes_until_it_is_killed",
            "--exact",
            "--nocapture",
        ])
        .env(DIR, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut answered = Vec::new();
    let mut first = None;
    for line in &mut lines {
        let line = line.unwrap();
        // The test runner's own lines come first.
        let Some(told) = line.strip_prefix("answered ") else {
            continue;
        };
        answered.push(told.to_owned());
        let is_old = first.get_or_insert_with(Instant::now).elapsed() >= life;
        if is_old && answered.len() >= ANSWERED_MIN {
            child.kill().unwrap();
            break;
        }
    }
    // What it told before the kill reached it; a last line may be torn.
    let rest = lines
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix("answered ").map(str::to_owned));
    let mut rest: Vec<String> = rest.collect();
    rest.pop();
    answered.extend(rest);
    child.wait().unwrap();
    answered
}

/// The part of a child process: without the directory it is told there is nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_child_writes_until_it_is_killed() {
    let (Some(dir), Ok(round)) = (std::env::var_os(DIR).map(PathBuf::from), std::env::var(ROUND)) else {
        return;
    };
    let journal = loop {
        // The one before may still be letting go.
        if let Ok(journal) = porchlight_journal::Journal::open(
            porchlight_journal::JournalConfig::new(&dir),
            porchlight_journal::Role::Daemon,
        ) {
            break journal;
        }
        tokio::task::yield_now().await;
    };
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (queue, round) = (Queue::new(&journal), round.clone());
        writers.spawn(async move {
            for number in 0_u64.. {
                let body = format!("{round} {writer} {number}");
                let envelope = Envelope::bare(Bytes::from(body.clone()));
                queue.accept(&envelope, Limits::within(PATIENCE)).await.unwrap();
                writeln!(std::io::stdout().lock(), "answered {body}").unwrap();
            }
        });
    }
    writers.join_next().await;
}
