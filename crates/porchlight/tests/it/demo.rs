//! `demo` as a newcomer meets it: one command, an outcome that it judges itself, and nothing left behind.

use std::path::Path;
use std::time::{Duration, Instant};

use porchlight_testbed::{Daemon, Signal, wait_for};

use crate::tool::run;

/// What is promised of a demo on any machine.
const DEMO_MAX: Duration = Duration::from_secs(30);
/// For the commands that a kept demo prints.
const PATIENCE: Duration = Duration::from_secs(60);

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test]
async fn a_demo_tells_what_became_of_everything_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    // Settings of a service that might run here: a demo must not care.
    let variables = [
        ("TMPDIR", folder.path().to_str().unwrap()),
        ("PORCHLIGHT_DATA_DIR", "/nowhere/at/all"),
        ("PORCHLIGHT_TLS_CERT_FILE", "/nowhere/cert.pem"),
        ("PORCHLIGHT_SETTLE", "1h"),
    ];
    let ran = run(&["demo"], &variables).await.expect(0);
    assert!(begun.elapsed() < DEMO_MAX, "{:?}", begun.elapsed());
    assert_eq!(ran.stderr, "");
    assert_eq!(entries(folder.path()), 0);
    for wanted in [
        "front-door   goes offline and comes back",
        "-> pause nightly-snapshot, generation 1",
        "-> resume plate-reader, generation 2",
        "(refused once, and sent again)",
        "newer news of its kind is",
        "the device is removed and",
        "the account is removed",
        "401  not stored   the signature does not",
        "200  dead letter  not_json",
        "ok online; nightly-snapshot running, generation 1",
        "became    13 applied, 3 duplicate, 1 stale, 2 refused, 2 recorded, 1 waiting,",
        "ok Every event answered 200 became exactly one thing",
        "demo --keep",
    ] {
        assert!(
            ran.stdout.contains(wanted),
            "{wanted:?} is not in\n{}",
            ran.stdout
        );
    }
    assert!(!ran.stdout.contains("WRONG"), "{}", ran.stdout);
    let steers = |c: char| c.is_control() && c != '\n';
    assert!(!ran.stdout.contains(steers), "{}", ran.stdout);
    let widest = ran.stdout.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{widest:?}\n{}", ran.stdout);
}

#[tokio::test]
async fn a_demo_for_a_program_is_one_document() {
    let folder = tempfile::tempdir().unwrap();
    let variables = [("TMPDIR", folder.path().to_str().unwrap())];
    let document = run(&["demo", "--json"], &variables).await.expect(0).json();
    assert_eq!(document["ok"], true);
    assert_eq!(
        (&document["requests"], &document["settled"]),
        (&24.into(), &23.into())
    );
    let scenes = document["scenes"].as_array().unwrap();
    assert!(
        scenes
            .iter()
            .all(|scene| scene["differences"] == serde_json::json!([]))
    );
    let first = &scenes[0]["steps"][0]["request"];
    assert_eq!(
        (&first["status"], &first["outcome"]),
        (&200.into(), &"applied".into())
    );
    assert_eq!(first["commands"][0]["verified"], true);
    let promises = document["promises"].as_array().unwrap();
    assert!(promises.len() == 5 && promises.iter().all(|promise| promise["kept"] == true));
}

#[tokio::test]
async fn a_demo_that_cannot_begin_says_why() {
    let ran = run(&["demo"], &[("TMPDIR", "/nowhere/at/all")]).await.expect(1);
    assert!(
        ran.stderr
            .starts_with("error: the demo cannot begin: No such file"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn a_demo_whose_disk_gives_out_says_what_differs_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    // No file may grow past this bound, which the data does in the middle of the story.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" demo", 500 << 10 >> 9);
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", &script, env!("CARGO_BIN_EXE_porchlight")])
        .env_clear()
        .env("TMPDIR", folder.path());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(1), "{stdout}{stderr}");
    assert!(
        stdout.contains("the answer must be 200 and is 503") && stderr.contains("not as they must be"),
        "{stdout}{stderr}"
    );
    assert_eq!(entries(folder.path()), 0);
}

/// What these lines print in a shell, which ends at the first that fails: output and errors.
async fn in_shell(lines: &[&str]) -> (String, String) {
    let script = format!("set -eux\n{}\n", lines.join("\n"));
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &script]).env_clear();
    shell.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let ran = tokio::task::spawn_blocking(move || shell.output())
        .await
        .unwrap()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = (text(&ran.stdout), text(&ran.stderr));
    assert!(ran.status.success(), "{said:?}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_is_kept_can_be_looked_at_with_what_it_prints() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Daemon::of("porchlight")
        .args(["demo", "--keep"])
        .env("TMPDIR", folder.path())
        .start()
        .unwrap();
    let told = async || {
        let logs = demo.logs();
        if logs.contains("gets from now on:") {
            Ok(logs)
        } else {
            Err(logs)
        }
    };
    let told = demo.ready(PATIENCE, told).await.unwrap();
    let begin = told.find("It stays until Ctrl-C").unwrap();
    let printed: Vec<&str> = told[begin..]
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    assert!(printed.len() >= 8, "{told}");
    let shown = async |wanted: &str| {
        let look = async || {
            let logs = demo.logs();
            logs.contains(wanted).then_some(()).ok_or(logs)
        };
        wait_for(&format!("{wanted:?} in the demo's terminal"), PATIENCE, look)
            .await
            .unwrap();
    };
    let sends = |line: &&str| line.starts_with("porchlight simulate --type device_online");
    let back = printed.iter().position(sends).unwrap();
    let (mut stdout, mut stderr) = in_shell(&printed[..back]).await;
    // A resume that is owed before the pause is sent takes its place.
    shown("-> pause nightly-snapshot, generation 2").await;
    let rest = in_shell(&[&printed[..1], &printed[back..]].concat()).await;
    shown("-> resume nightly-snapshot, generation 2").await;
    stdout.push_str(&rest.0);
    stderr.push_str(&rest.1);
    for wanted in [
        "nightly-snapshot",
        "not_json",
        "porchlight_worker_events_total",
        "front-door",
    ] {
        assert!(stdout.contains(wanted), "{wanted} is not in {stdout}{stderr}");
    }
    demo.signal(Signal::Interrupt);
    let status = demo.wait(PATIENCE).await.unwrap();
    assert!(status.success(), "{status} {}", demo.logs());
    assert_eq!(entries(folder.path()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_is_interrupted_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Daemon::of("porchlight")
        .arg("demo")
        .env("TMPDIR", folder.path())
        .start()
        .unwrap();
    let begun = async || match entries(folder.path()) {
        0 => Err("no directory yet".to_owned()),
        _ => Ok(()),
    };
    demo.ready(PATIENCE, begun).await.unwrap();
    demo.signal(Signal::Interrupt);
    demo.wait(PATIENCE).await.unwrap();
    assert_eq!(entries(folder.path()), 0);
}
