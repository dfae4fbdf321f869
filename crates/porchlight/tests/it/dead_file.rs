//! `dead export`, `drop` and `import` in each form: what is gone comes back from the file, once, and damage is told.

use std::path::Path;

use serde_json::Value;

use crate::site::{Form, Site};

const LETTERS: u64 = 150;

/// What stays of a letter, whichever place it is in.
async fn letters(site: &Site) -> Vec<[Value; 5]> {
    let listed = site
        .run(&["dead", "list", "--json", "--limit", "1000"])
        .await
        .expect(0)
        .json();
    let fields = |letter: &Value| {
        ["message_id", "reason", "dead_at", "replays", "device_id"].map(|field| letter[field].clone())
    };
    let mut letters: Vec<_> = listed["letters"].as_array().unwrap().iter().map(fields).collect();
    letters.sort_by_key(|letter| letter[0].to_string());
    letters
}

async fn filled(form: Form) -> Site {
    let site = Site::start(form).await;
    for number in 0..LETTERS {
        let reason = if number % 3 == 0 { "not_json" } else { "no_device" };
        site.bury(number, reason, u32::from(number == 7)).await;
    }
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_and_dropped_comes_back_once() {
    for form in [Form::Scaled, Form::Directory, Form::Api] {
        let site = filled(form).await;
        let before = letters(&site).await;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (file, audit) = (path("letters"), path("audit"));

        let some = site
            .run(&["dead", "export", &path("some"), "--reason", "not_json", "--json"])
            .await;
        assert_eq!(some.expect(0).json()["exported"], LETTERS / 3, "{form:?}");
        site.run(&["dead", "export", &file, "--audit-file", &audit])
            .await
            .expect(0);
        site.run(&["dead", "export", &file]).await.expect(64);
        assert_eq!(letters(&site).await, before, "{form:?}");

        site.run(&["dead", "drop", "--yes"]).await.expect(64);
        site.run(&["dead", "drop", "--yes", "--all", "--reason", "not_json"])
            .await
            .expect(64);
        let dry = site
            .run(&["dead", "drop", "--reason", "not_json"])
            .await
            .expect(0)
            .stdout;
        assert!(
            dry.starts_with("50 of 150 dead letters would be dropped for good"),
            "{form:?} {dry}"
        );
        assert_eq!(letters(&site).await, before, "{form:?}");
        let drop = [
            "dead",
            "drop",
            "--reason",
            "not_json",
            "--yes",
            "--json",
            "--audit-file",
            &audit,
        ];
        let dropped = site.run(&drop).await.expect(0).json();
        assert_eq!(
            (&dropped["dropped"], &dropped["unwanted"]),
            (&50.into(), &100.into()),
            "{form:?}"
        );
        let rest = letters(&site).await;
        assert!(
            rest.len() == 100 && rest.iter().all(|letter| letter[1] == "no_device"),
            "{form:?}"
        );

        let import = ["dead", "import", &file, "--audit-file", &audit, "--json"];
        let dry = site.run(&import).await.expect(0).json();
        assert_eq!(
            (&dry["letters"], &dry["imported"]),
            (&LETTERS.into(), &0.into()),
            "{form:?}"
        );
        let import = [&import[..], &["--yes"]].concat();
        let done = site.run(&import).await.expect(0).json();
        assert_eq!(
            (&done["imported"], &done["known"]),
            (&50.into(), &100.into()),
            "{form:?}"
        );
        assert_eq!(letters(&site).await, before, "{form:?}");
        let again = site.run(&import).await.expect(0).json();
        assert_eq!(
            (&again["imported"], &again["known"]),
            (&0.into(), &LETTERS.into()),
            "{form:?}"
        );
        written_down(&audit, form);
    }
}

/// Every action has a line at its beginning and at its end, and each dropped letter one of its own.
fn written_down(audit: &str, form: Form) {
    let lines = std::fs::read_to_string(audit).unwrap();
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |action: &str, step: &str| {
        let meant = |line: &&Value| line["action"] == action && line["step"] == step;
        lines.iter().filter(meant).count()
    };
    for (action, times) in [("export", 1), ("drop", 1), ("import", 2)] {
        assert_eq!(
            (of(action, "begin"), of(action, "end")),
            (times, times),
            "{form:?} {action}"
        );
    }
    let dropped = lines.iter().filter(|line| line["fate"] == "dropped").count();
    assert_eq!(dropped, 50, "{form:?}");
    assert!(
        lines
            .iter()
            .all(|line| !line.to_string().contains("relationships"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_told_line_by_line_and_changes_nothing_unless_that_is_wanted() {
    let site = filled(Form::Directory).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters");
    let name = file.to_str().unwrap();
    site.run(&["dead", "export", name]).await.expect(0);
    site.run(&["dead", "drop", "--all", "--yes"]).await.expect(0);
    damage(&file);
    let refused = site.run(&["dead", "import", name, "--yes"]).await.expect(64);
    assert!(
        refused.stderr.contains("line 3 ") && refused.stderr.contains("line 8 "),
        "{refused:?}"
    );
    assert_eq!(letters(&site).await.len(), 0);
    let skipped = site
        .run(&["dead", "import", name, "--yes", "--skip-bad", "--json"])
        .await
        .expect(0)
        .json();
    // The sum does not match either.
    assert_eq!(
        (&skipped["imported"], &skipped["bad_lines"]),
        (&(LETTERS - 2).into(), &3.into())
    );
    assert_eq!(letters(&site).await.len() as u64, LETTERS - 2);
    std::fs::write(&file, "no export at all\n").unwrap();
    site.run(&["dead", "import", name, "--yes", "--skip-bad"])
        .await
        .expect(64);
}

fn damage(file: &Path) {
    let text = std::fs::read_to_string(file).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines[2].truncate(40);
    lines[7] = lines[7].replace("\"origin\":\"event\"", "\"origin\":\"stranger\"");
    std::fs::write(file, lines.join("\n") + "\n").unwrap();
}
