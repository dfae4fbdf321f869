//! The help of every command, and what a wrong command line is answered with.

use crate::tool::run;

/// Every command, and a variable that its help must name.
const COMMANDS: [(&[&str], &str); 13] = [
    (&["demo"], "--keep"),
    (&["standalone"], "PORCHLIGHT_DATA_DIR"),
    (&["status"], "PORCHLIGHT_REDIS_URL"),
    (&["simulate"], "PORCHLIGHT_SIGNING_KEYS"),
    (&["devices", "list"], "PORCHLIGHT_REDIS_URL"),
    (&["devices", "show"], "PORCHLIGHT_API_URL"),
    (&["operations", "add"], "PORCHLIGHT_ADMIN_TOKEN"),
    (&["operations", "list"], "PORCHLIGHT_DATA_DIR"),
    (&["operations", "remove"], "--yes"),
    (&["dead", "list"], "PORCHLIGHT_DATA_DIR"),
    (&["dead", "show"], "--body"),
    (&["dead", "replay"], "--yes"),
    (&["health"], "PORCHLIGHT_LOG"),
];

#[tokio::test]
async fn every_command_has_a_help_that_says_how_it_ends() {
    for (command, word) in COMMANDS {
        let ran = run(&[command, &["--help"]].concat(), &[]).await.expect(0);
        for wanted in [word, "Usage:", "Exit codes:", "--json"] {
            assert!(
                ran.stdout.contains(wanted),
                "{command:?} lacks {wanted}:\n{}",
                ran.stdout
            );
        }
        let widest = ran.stdout.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{command:?} is {widest:?} wide");
    }
}

#[tokio::test]
async fn every_command_is_listed_in_the_help_of_its_parent() {
    let parents = [vec![], vec!["devices"], vec!["operations"], vec!["dead"]];
    for parent in parents {
        let ran = run(&[&parent[..], &["--help"]].concat(), &[]).await.expect(0);
        for (command, _) in COMMANDS
            .iter()
            .filter(|(command, _)| command.starts_with(&parent[..]))
        {
            let name = command[parent.len()];
            assert!(
                ran.stdout.contains(&format!("\n  {name} ")),
                "{parent:?} lacks {name}"
            );
        }
    }
}

#[tokio::test]
async fn secrets_in_the_environment_are_not_shown() {
    let variables = [
        ("PORCHLIGHT_SIGNING_KEYS", "a=hunter2"),
        ("PORCHLIGHT_ADMIN_TOKEN", "hunter2"),
        ("PORCHLIGHT_REDIS_URL", "wrong://u:hunter2@h"),
        ("PORCHLIGHT_AMQP_URL", "wrong://u:hunter2@h"),
        ("PORCHLIGHT_API_URL", "http://u:hunter2@h"),
    ];
    for (command, _) in COMMANDS {
        let help = run(&[command, &["--help"]].concat(), &variables).await;
        let ran = run(&[command, &["--json"][..], &["x", "y"][..]].concat(), &variables).await;
        let shown = format!("{help:?} {ran:?}");
        assert!(!shown.contains("hunter2"), "{command:?}: {shown}");
    }
    for command in [&["status"][..], &["dead", "list"], &["devices", "list"]] {
        let ran = run(command, &variables).await.expect(64);
        assert!(
            ran.stderr.contains("PORCHLIGHT_") && !ran.stderr.contains("hunter2"),
            "{ran:?}"
        );
    }
}

#[tokio::test]
async fn a_wrong_command_line_ends_with_64_and_says_why() {
    for wrong in [
        &["simulat"][..],
        &["simulate", "--devices", "none"],
        &["devices", "show"],
        &["status", "--log", "inof"],
    ] {
        let ran = run(wrong, &[]).await.expect(64);
        assert!(
            ran.stderr.starts_with("error: ") && ran.stdout.is_empty(),
            "{ran:?}"
        );
    }
}
