//! Signing keys that come and change while the ingress runs.

use std::fs;
use std::path::Path;

use porchlight_event::SigningKey;
use porchlight_testbed::http::{encode, get};
use porchlight_testbed::wait_for;

use crate::support::{BODY, Ingress, PATH, SOON, failed, passed, told};

async fn answer_to(ingress: &Ingress, key: &str) -> (u16, String) {
    let signature = SigningKey::new("any", key.as_bytes()).sign(BODY);
    told(
        &ingress
            .send(&encode("POST", PATH, &[("X-Signature", &signature)], BODY))
            .await,
    )
}

async fn becomes(ingress: &Ingress, key: &str, expected: (u16, String)) {
    wait_for(&format!("{key} is answered {expected:?}"), SOON, async || {
        let answer = answer_to(ingress, key).await;
        if answer == expected {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    })
    .await
    .unwrap();
}

/// How often a file of keys was refused.
async fn refusals(ingress: &Ingress) -> u64 {
    let refused = r#"porchlight_ingress_file_loads_total{file="signing_keys",outcome="refused"} "#;
    let shown = get(ingress.admin, "/metrics").await.unwrap().text();
    let count = shown.lines().find_map(|line| line.strip_prefix(refused));
    count.unwrap().parse().unwrap()
}

/// Waits until there are more refusals than before. A change that is noticed and asked for at once may count twice.
async fn is_refused(ingress: &Ingress, before: u64) -> u64 {
    wait_for("a refusal", SOON, async || match refusals(ingress).await {
        now if now > before => Ok(now),
        now => Err(now.to_string()),
    })
    .await
    .unwrap()
}

fn flag(path: &Path) -> [&str; 2] {
    ["--signing-keys-file", path.to_str().unwrap()]
}

#[tokio::test]
async fn until_the_key_file_is_there_events_are_answered_503_and_not_401() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let listed = [&["--signing-keys", "listed=k0"], &flag(&path)[..]].concat();
    let ingress = Ingress::start_bare(&listed).await;
    assert_eq!(answer_to(&ingress, "k1").await, failed(503, "keys_missing"));
    assert_eq!(
        answer_to(&ingress, "k0").await,
        failed(503, "keys_missing"),
        "half of the keys are not in force"
    );
    assert!(ingress.not_ready_for("keys_missing").await);
    fs::write(&path, "filed=k1\n").unwrap();
    becomes(&ingress, "k1", passed()).await;
    assert_eq!(answer_to(&ingress, "k0").await, passed());
    assert!(!ingress.not_ready_for("keys_missing").await);
}

#[tokio::test]
async fn changed_keys_are_taken_and_wrong_ones_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    fs::write(&path, "old=k1\n").unwrap();
    let ingress = Ingress::start_bare(&flag(&path)).await;
    assert_eq!(answer_to(&ingress, "k1").await, passed());
    fs::write(&path, "old=k1\nnew=k,2\n").unwrap();
    becomes(&ingress, "k,2", passed()).await;
    assert_eq!(
        answer_to(&ingress, "k1").await,
        passed(),
        "both are accepted during a change"
    );
    fs::write(&path, "new=k,2\n").unwrap();
    ingress.hang_up();
    becomes(&ingress, "k1", failed(401, "signature_mismatch")).await;

    let before = refusals(&ingress).await;
    fs::write(&path, "nonsense\n").unwrap();
    ingress.hang_up();
    let before = is_refused(&ingress, before).await;
    assert_eq!(
        answer_to(&ingress, "k,2").await,
        passed(),
        "the keys in force stay"
    );
    fs::remove_file(&path).unwrap();
    ingress.hang_up();
    is_refused(&ingress, before).await;
    assert_eq!(
        answer_to(&ingress, "k,2").await,
        passed(),
        "a missing file changes nothing"
    );
    fs::write(&path, "last=k3\n").unwrap();
    becomes(&ingress, "k3", passed()).await;
}
