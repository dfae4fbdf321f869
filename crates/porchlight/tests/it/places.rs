//! Which place a command stands on: what overrules what, what is refused, and what is said where there is nothing.

use std::time::Duration;

use porchlight_journal::{Journal, JournalConfig, Role};
use porchlight_testbed::{Daemon, free_port, http};

use crate::site::{Form, PATIENCE, Site, TOKEN};
use crate::tool::{command, run};

#[tokio::test]
async fn two_flags_for_two_places_are_refused_in_words() {
    let place = ["--data-dir", "x"];
    for (command, other) in [
        (&["status"][..], ["--amqp-url", "amqp://h"]),
        (&["status"], ["--redis-url", "redis://h"]),
        (&["dead", "list"], ["--api", "http://h"]),
        (&["devices", "list"], ["--redis-url", "redis://h"]),
        (&["operations", "list", "d"], ["--api", "http://h"]),
    ] {
        let ran = run(&[command, &place, &other].concat(), &[]).await.expect(64);
        assert!(
            ran.stderr.contains("the flags name two places"),
            "{command:?} {ran:?}"
        );
    }
    let ran = run(
        &["dead", "list", "--api", "http://h", "--amqp-url", "amqp://h"],
        &[],
    )
    .await
    .expect(64);
    assert!(ran.stderr.contains("the flags name two places"), "{ran:?}");
}

#[tokio::test]
async fn a_flag_overrules_variables_and_an_empty_variable_counts_as_none() {
    let site = Site::start(Form::Directory).await;
    let dir = site.dir();
    let dir = dir.to_str().unwrap();
    let away = format!("redis://127.0.0.1:{}", free_port());
    let elsewhere = [
        ("PORCHLIGHT_REDIS_URL", away.as_str()),
        ("PORCHLIGHT_AMQP_URL", "amqp://127.0.0.1:1"),
        ("PORCHLIGHT_API_URL", "http://127.0.0.1:1"),
    ];
    for command in [&["status"][..], &["dead", "list"], &["devices", "list"]] {
        run(&[command, &["--data-dir", dir]].concat(), &elsewhere)
            .await
            .expect(0);
    }
    let here = [
        ("PORCHLIGHT_DATA_DIR", dir),
        ("PORCHLIGHT_REDIS_URL", " "),
        ("PORCHLIGHT_AMQP_URL", ""),
    ];
    run(&["status"], &here).await.expect(0);
    let ran = run(&["devices", "list", "--redis-url", &away], &here)
        .await
        .expect(69);
    assert!(ran.stderr.contains("Redis"), "{ran:?}");
    // An address of an API beside a directory is most likely the same standalone.
    run(
        &["devices", "list"],
        &[("PORCHLIGHT_DATA_DIR", dir), elsewhere[2]],
    )
    .await
    .expect(0);
}

#[tokio::test]
async fn variables_for_two_forms_are_refused_until_a_flag_decides() {
    let site = Site::start(Form::Directory).await;
    let dir = site.dir();
    let both = [
        ("PORCHLIGHT_DATA_DIR", dir.to_str().unwrap()),
        ("PORCHLIGHT_AMQP_URL", "amqp://127.0.0.1:1"),
        ("PORCHLIGHT_REDIS_URL", "redis://127.0.0.1:1"),
    ];
    for command in [
        &["status"][..],
        &["dead", "replay", "--yes"],
        &["devices", "list"],
    ] {
        let ran = run(command, &both).await.expect(64);
        assert!(
            ran.stderr.contains("the variables name two places") && ran.stderr.contains("--data-dir"),
            "{ran:?}"
        );
    }
    run(&["status", "--data-dir", dir.to_str().unwrap()], &both)
        .await
        .expect(0);
}

#[tokio::test]
async fn a_directory_without_a_standalone_is_told_with_what_to_try_and_nothing_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    for dir in [folder.path(), &missing] {
        for command in [&["status"][..], &["dead", "list"], &["operations", "list", "d"]] {
            let ran = run(&[command, &["--data-dir", dir.to_str().unwrap()]].concat(), &[])
                .await
                .expect(64);
            assert!(ran.stderr.contains("PORCHLIGHT_DATA_DIR (--data-dir)"), "{ran:?}");
            assert!(
                ran.stderr.contains("try:   ") && ran.stderr.contains("porchlight standalone"),
                "{ran:?}"
            );
        }
    }
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
    std::fs::write(
        folder.path().join("porchlight.db"),
        "something else, long enough to be looked at",
    )
    .unwrap();
    let ran = run(&["status", "--data-dir", folder.path().to_str().unwrap()], &[])
        .await
        .expect(64);
    assert!(ran.stderr.contains("not an SQLite database"), "{ran:?}");
}

#[tokio::test]
async fn the_directory_of_a_standalone_in_the_current_folder_needs_no_name() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("porchlight-data");
    let journal = Journal::open(JournalConfig::new(&dir), Role::Daemon).unwrap();
    journal.close(PATIENCE).await;
    let mut status = command(&["status", "--json"], &[]);
    status.current_dir(folder.path());
    let output = tokio::task::spawn_blocking(move || status.output())
        .await
        .unwrap()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["standalone"]["address"], dir.to_str().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_the_scaled_form_is_no_place_for_dead_letters_and_that_is_said() {
    let admin = format!("127.0.0.1:{}", free_port());
    let nowhere = format!("127.0.0.1:{}", free_port());
    let worker = Daemon::of("porchlight-worker")
        .env("PORCHLIGHT_ADMIN_LISTEN", &admin)
        .env("PORCHLIGHT_ADMIN_TOKEN", TOKEN)
        .env("PORCHLIGHT_AMQP_URL", format!("amqp://{nowhere}"))
        .env("PORCHLIGHT_REDIS_URL", format!("redis://{nowhere}"))
        .start()
        .unwrap();
    let address = admin.parse().unwrap();
    let alive = async || {
        http::get(address, "/livez")
            .await
            .map_err(|error| error.to_string())
    };
    worker.ready(Duration::from_secs(60), alive).await.unwrap();
    let url = format!("http://{admin}");
    let variables = [
        ("PORCHLIGHT_API_URL", url.as_str()),
        ("PORCHLIGHT_ADMIN_TOKEN", TOKEN),
    ];
    for command in [
        &["status"][..],
        &["dead", "list"],
        &["dead", "show", "x"],
        &["dead", "replay", "--yes"],
    ] {
        let ran = run(command, &variables).await.expect(64);
        assert!(
            ran.stderr.contains("this daemon is no standalone"),
            "{command:?} {ran:?}"
        );
        assert!(ran.stderr.contains("--amqp-url"), "{command:?} {ran:?}");
    }
    let wrong = [variables[0], ("PORCHLIGHT_ADMIN_TOKEN", "another-token-of-16")];
    let ran = run(&["status"], &wrong).await.expect(64);
    assert!(ran.stderr.contains("PORCHLIGHT_ADMIN_TOKEN"), "{ran:?}");
    let ran = run(&["status"], &variables[..1]).await.expect(64);
    assert!(ran.stderr.contains("needs a token"), "{ran:?}");
}
