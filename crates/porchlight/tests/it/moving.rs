//! `export` and `import` between a directory and private servers: up, back, twice, cut off and changed.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use porchlight_broker::{Consumer, ConsumerConfig, Publisher, PublisherConfig, QueueState};
use porchlight_device::command::command_id;
use porchlight_device::{Action, Outcome};
use porchlight_event::queue::Origin;
use porchlight_journal::{Journal, JournalConfig, Role};
use porchlight_ledger::Ledger;
use porchlight_queue::{DeadLetters, Deadlines, Queue};
use porchlight_testbed::wait_for;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::ends::{
    Dir, PATIENCE, Servers, export, import, ledger_in, letter, letters, live, register, shown, take,
};
use crate::tool::command;

#[tokio::test]
async fn everything_moves_up_and_back_and_stays_the_same() {
    let (below, servers, back) = (Dir::new(), Servers::start().await, Dir::new());
    below.with(live).await;
    let (devices, dead) = below
        .with(async |ledger, queue| {
            let Queue::Sqlite(rows) = queue else {
                panic!("no rows")
            };
            (
                shown(ledger).await,
                letters(&DeadLetters::Sqlite(rows.clone())).await,
            )
        })
        .await;
    assert_eq!((devices["devices"].as_array().unwrap().len(), dead.len()), (8, 4));

    let written = export(&below.flags(), &below.file(), &[]).await.expect(0).json();
    for (what, count) in [("accounts", 1), ("devices", 8), ("letters", 4), ("events", 2)] {
        assert_eq!(written[what], count, "{what} {written}");
    }
    assert!(written["marks"].as_u64().unwrap() > 20, "{written}");
    let mode = std::fs::metadata(below.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let planned = import(&servers.flags(), &below.file(), &[])
        .await
        .expect(0)
        .json();
    assert_eq!(
        (&planned["dry_run"], &planned["devices_known"]),
        (&true.into(), &0.into())
    );
    assert_eq!(shown(&servers.ledger()).await["devices"], json!([]));

    let up = import(&servers.flags(), &below.file(), &["--yes"])
        .await
        .expect(0)
        .json();
    assert_eq!((&up["dry_run"], &up["letters_known"]), (&false.into(), &0.into()));
    assert_eq!(shown(&servers.ledger()).await, devices);
    let in_rabbitmq = DeadLetters::in_rabbitmq(servers.urls(), "test");
    assert_eq!(letters(&in_rabbitmq).await, dead);
    assert_eq!(
        (
            servers.ready("porchlight.events").await,
            servers.ready("porchlight.retry.10m").await
        ),
        (1, 1)
    );

    // Again: nothing of it changes, but that the events wait twice.
    let again = import(&servers.flags(), &below.file(), &["--yes"])
        .await
        .expect(0)
        .json();
    assert_eq!(
        (&again["letters_known"], &again["commands_newly_owed"]),
        (&4.into(), &0.into())
    );
    assert_eq!(shown(&servers.ledger()).await, devices);
    assert_eq!(letters(&in_rabbitmq).await, dead);
    let planned = import(&servers.flags(), &below.file(), &[])
        .await
        .expect(0)
        .json();
    assert_eq!(planned["devices_known"], 8);

    // Waiting events cannot be looked at in RabbitMQ.
    let waiting = export(&servers.flags(), &back.file(), &[]).await.expect(1);
    assert!(waiting.stderr.contains("events wait"), "{waiting:?}");
    assert!(!Path::new(&back.file()).exists());
    let without = ["--without-waiting-events"];
    let written = export(&servers.flags(), &back.file(), &without)
        .await
        .expect(0)
        .json();
    assert!(
        written["warnings"][0].as_str().unwrap().contains("stay there"),
        "{written}"
    );
    for queue in ["porchlight.events", "porchlight.retry.10m"] {
        servers.node.purge(&servers.vhost, queue).await.unwrap();
    }
    let written = export(&servers.flags(), &back.file(), &["--force"])
        .await
        .expect(0)
        .json();
    assert_eq!(written["warnings"], json!([]));

    for known in [0, 4] {
        let down = import(&back.flags(), &back.file(), &["--yes"])
            .await
            .expect(0)
            .json();
        assert_eq!(down["letters_known"], known);
    }
    back.with(async |ledger, queue| {
        assert_eq!(shown(ledger).await, devices);
        let Queue::Sqlite(rows) = queue else {
            panic!("no rows")
        };
        assert_eq!(letters(&DeadLetters::Sqlite(rows.clone())).await, dead);
        goes_on(ledger).await;
    })
    .await;
    goes_on(&servers.ledger()).await;
}

/// What was seen before is a duplicate, and the device that comes back is resumed once, under the right identity.
async fn goes_on(ledger: &Ledger) {
    let seen = take(ledger, "device_offline", "offline", "a", 20).await;
    assert_eq!(seen.outcome, Outcome::Duplicate);
    let back = take(ledger, "device_online", "offline", "a", 70).await;
    let ids: Vec<String> = back.commands.iter().map(porchlight_device::Command::id).collect();
    assert_eq!(ids, [command_id("offline", "nightly", 1, Action::Resume)]);
    assert!(
        take(ledger, "device_online", "offline", "a", 71)
            .await
            .commands
            .is_empty()
    );
    let fenced = take(ledger, "device_online", "of-c", "c", 45).await;
    assert_eq!(fenced.outcome, Outcome::Refused);
}

#[tokio::test]
async fn a_file_that_was_cut_or_changed_is_refused_and_nothing_happens() {
    let (from, to) = (Dir::new(), Dir::new());
    from.with(live).await;
    export(&from.flags(), &from.file(), &[]).await.expect(0);
    let whole = std::fs::read(from.file()).unwrap();
    let text = String::from_utf8(whole.clone()).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let without = |line: usize| {
        let kept = lines.iter().enumerate().filter(|(number, _)| *number != line);
        kept.map(|(_, line)| *line).collect::<String>().into_bytes()
    };
    let last = lines.len() - 1;
    let strange = format!("{}{{\"line\":\"spaceship\"}}\n{}", lines[0], lines[1..].concat());
    let newer = text.replacen("\"version\":\"1.0\"", "\"version\":\"2.0\"", 1);
    let more = text.replacen("\"generation_floor\":", "\"colour\":1,\"generation_floor\":", 1);
    let bad = [
        (whole[..whole.len() / 2].to_vec(), ""),
        (without(last), "ends too early"),
        (whole[..whole.len() - 1].to_vec(), "ends too early"),
        (without(2), "sum"),
        (flipped(whole.len() / 3), ""),
        (flipped(whole.len() - 20), ""),
        ([&whole[..], b"\n"].concat(), "follows"),
        (strange.into_bytes(), "spaceship"),
        (newer.into_bytes(), "version 2.0"),
        (more.into_bytes(), "cannot be read"),
        (b"hello\n".to_vec(), "not an export"),
        (Vec::new(), "not an export"),
    ];
    for (number, (bytes, word)) in bad.into_iter().enumerate() {
        std::fs::write(to.file(), bytes).unwrap();
        let refused = import(&to.flags(), &to.file(), &["--yes"]).await.expect(64);
        let told = refused.stderr.contains("nothing was changed") && refused.stderr.contains(word);
        assert!(told, "{number} {word} {refused:?}");
        assert!(!to.path().exists(), "{number}");
    }
    std::fs::write(to.file(), whole).unwrap();
    import(&to.flags(), &to.file(), &["--yes"]).await.expect(0);
}

#[tokio::test]
async fn a_directory_whose_daemon_runs_is_left_alone() {
    let dir = Dir::new();
    dir.with(live).await;
    export(&dir.flags(), &dir.file(), &[]).await.expect(0);
    let journal = dir.hold();
    let other = dir.folder.path().join("other.jsonl").display().to_string();
    for ran in [
        export(&dir.flags(), &other, &[]).await,
        import(&dir.flags(), &dir.file(), &["--yes"]).await,
    ] {
        let ran = ran.expect(69);
        assert!(
            ran.stderr.contains("in use") && ran.stderr.contains("stop its standalone"),
            "{ran:?}"
        );
    }
    assert!(!Path::new(&other).exists());
    // A look is no harm.
    let planned = import(&dir.flags(), &dir.file(), &[]).await.expect(0).json();
    assert_eq!(planned["devices_known"], 8);
    journal.close(PATIENCE).await;
}

#[tokio::test]
async fn a_file_that_is_there_is_not_overwritten_and_none_is_left_half_written() {
    let dir = Dir::new();
    let none = export(&dir.flags(), &dir.file(), &[]).await.expect(64);
    assert!(none.stderr.contains("--data-dir"), "{none:?}");
    dir.with(async |ledger, _| register(ledger, "d", "o").await).await;
    std::fs::write(dir.file(), "mine").unwrap();
    let refused = export(&dir.flags(), &dir.file(), &[]).await.expect(64);
    assert!(refused.stderr.contains("--force"), "{refused:?}");
    assert_eq!(std::fs::read(dir.file()).unwrap(), b"mine");
    let nowhere = dir.folder.path().join("no/such/file").display().to_string();
    export(&dir.flags(), &nowhere, &[]).await.expect(1);
    export(&dir.flags(), &dir.file(), &["--force"]).await.expect(0);
    let names: BTreeSet<String> = std::fs::read_dir(dir.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, BTreeSet::from(["data", "moved.jsonl"].map(str::to_owned)));
}

#[tokio::test]
async fn what_is_no_plain_file_is_never_replaced() {
    let dir = Dir::new();
    dir.with(async |ledger, _| register(ledger, "d", "o").await).await;
    let path = |name: &str| dir.folder.path().join(name).display().to_string();
    std::os::unix::fs::symlink("nowhere", path("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    for name in ["link", "socket", "data"] {
        for flags in [&[][..], &["--force"]] {
            let refused = export(&dir.flags(), &path(name), flags).await.expect(64);
            assert!(refused.stderr.contains("no plain file"), "{name} {refused:?}");
        }
        assert!(
            !std::fs::symlink_metadata(path(name)).unwrap().is_file(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn workers_that_run_are_told_of() {
    let (servers, dir) = (Servers::start().await, Dir::new());
    let consumer = Consumer::start(
        ConsumerConfig::new(servers.urls(), "test"),
        CancellationToken::new(),
    );
    let mut state = consumer.state();
    tokio::time::timeout(PATIENCE, state.wait_for(QueueState::is_ready))
        .await
        .unwrap()
        .unwrap();
    let refused = export(&servers.flags(), &dir.file(), &[]).await.expect(1);
    assert!(
        refused.stderr.contains("workers") && refused.stderr.contains("--live"),
        "{refused:?}"
    );
    let written = export(&servers.flags(), &dir.file(), &["--live"])
        .await
        .expect(0)
        .json();
    assert!(
        written["warnings"][0]
            .as_str()
            .unwrap()
            .contains("may be missing"),
        "{written}"
    );
    consumer.close().await;
}

#[tokio::test]
async fn more_letters_than_are_held_at_once_are_all_carried_and_all_known_again() {
    const LETTERS: usize = 1_234;
    let (servers, dir) = (Servers::start().await, Dir::new());
    let publisher = Publisher::start(
        PublisherConfig::new(servers.urls(), "test"),
        CancellationToken::new(),
    );
    let mut state = publisher.state();
    tokio::time::timeout(PATIENCE, state.wait_for(QueueState::is_ready))
        .await
        .unwrap()
        .unwrap();
    let queue = Queue::RabbitMq(publisher.clone());
    let bury = async |number: i64| {
        let letter = letter(Origin::Event, number, number.to_string().as_bytes(), Some("read"));
        queue
            .bring_letter(&letter, Deadlines::within(PATIENCE))
            .await
            .unwrap();
    };
    for from in (0..i64::try_from(LETTERS).unwrap()).step_by(100) {
        let some = (from..from + 100).take_while(|number| *number < LETTERS as i64);
        futures_util::future::join_all(some.map(bury)).await;
    }
    export(&servers.flags(), &dir.file(), &[]).await.expect(0);
    let known = import(&servers.flags(), &dir.file(), &["--yes"]).await.expect(0);
    assert_eq!(known.json()["letters_known"], LETTERS, "{known:?}");
    servers.wait_for_ready("porchlight.dead", LETTERS as u64).await;
    publisher.close(PATIENCE).await;
}

/// Runs the tool until the kernel kills it, which it does when a file would grow beyond so many bytes.
async fn killed_at(bytes: u64, arguments: &[&str]) {
    let script = format!("ulimit -c 0; ulimit -f {}; exec \"$0\" \"$@\"", bytes >> 9);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_porchlight")]);
    shell.args(arguments).env_clear();
    let ran = tokio::task::spawn_blocking(move || shell.output())
        .await
        .unwrap()
        .unwrap();
    // SIGXFSZ everywhere but on MIPS.
    assert_eq!(ran.status.signal(), Some(25), "{ran:?}");
}

#[tokio::test]
async fn an_import_that_is_killed_is_mended_by_another() {
    const DEVICES: usize = 1_500;
    let (from, to) = (Dir::new(), Dir::new());
    let wanted = from
        .with(async |ledger, queue| {
            live(ledger, queue).await;
            for number in 0..DEVICES {
                let device = format!("d{number}");
                register(ledger, &device, "nightly").await;
                take(ledger, "device_offline", &device, "a", 20).await;
            }
            shown(ledger).await
        })
        .await;
    export(&from.flags(), &from.file(), &[]).await.expect(0);
    let file = from.file();
    let in_one_go = Dir::new();
    import(&in_one_go.flags(), &file, &["--yes"]).await.expect(0);
    let bytes = std::fs::metadata(in_one_go.path().join("porchlight.db")).unwrap();
    let flags = to.flags();
    let arguments = ["import", "--from", &file, &flags[0], &flags[1], "--yes"];
    killed_at(bytes.len() / 2, &arguments).await;
    let known: u64 = to.look().counts().await.unwrap().values().sum();
    assert!((1..DEVICES as u64).contains(&known), "{known}");
    // And at other moments; one that is quick has ended by itself.
    for _ in 0..2 {
        let before = to.path().join("porchlight.db").is_file().then(|| to.look());
        let known = match &before {
            Some(ledger) => ledger.counts().await.unwrap().values().sum(),
            None => 0_u64,
        };
        let mut child = command(&arguments, &[]).spawn().unwrap();
        let look = async || {
            if child.try_wait().unwrap().is_some() {
                return Ok(());
            }
            match Journal::open(JournalConfig::new(to.path()), Role::Tool) {
                Ok(journal)
                    if ledger_in(&journal)
                        .counts()
                        .await
                        .is_ok_and(|counts| counts.values().sum::<u64>() > known + 50) =>
                {
                    Ok(())
                }
                _ => Err("nothing yet".to_owned()),
            }
        };
        wait_for("some devices", PATIENCE, look).await.unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
    import(&to.flags(), &file, &["--yes"]).await.expect(0);
    to.with(async |ledger, _| assert_eq!(shown(ledger).await, wanted))
        .await;
}
