//! What no key matches: refused, until it is likelier that the key is wrong; and said why, where that can be known.

use std::fs;
use std::time::Duration;

use porchlight_event::SigningKey;
use porchlight_ingress::Settings;
use porchlight_testbed::http::{Response, encode, get};
use porchlight_testbed::wait_for;
use serde_json::Value;

use crate::support::{BODY, Ingress, PATH, SOON, failed, passed, signed, told};

/// Minutes would be too long for a test.
fn hastened(settings: &mut Settings) {
    let (quiet, failing, silence) = (Duration::ZERO, Duration::from_millis(300), Duration::ZERO);
    settings.edge.hasten(quiet, failing, silence);
}

/// A request with a well-formed signature of another key; each `n` is another one.
fn forged(n: usize) -> Vec<u8> {
    let body = format!(r#"{{"n":{n}}}"#);
    let signature = SigningKey::new("x", b"not the key").sign(body.as_bytes());
    encode("POST", PATH, &[("X-Signature", &signature)], body.as_bytes())
}

/// Sends different forged requests until one is answered 503.
async fn open(ingress: &Ingress) -> Response {
    let mut sent = 0;
    wait_for("503 in place of 401", SOON, async || {
        sent += 1;
        let answer = ingress.send(&forged(sent)).await;
        if answer.status == 503 {
            assert!(sent >= 10, "after {sent} requests");
            return Ok(answer);
        }
        assert_eq!(told(&answer), failed(401, "signature_mismatch"));
        Err("401".to_owned())
    })
    .await
    .unwrap()
}

async fn page(ingress: &Ingress) -> Value {
    let answer = get(ingress.admin, "/outages").await.unwrap();
    assert_eq!(answer.status, 200);
    answer.json().unwrap()
}

#[tokio::test]
async fn when_nothing_matches_any_more_503_takes_the_place_of_401_until_something_does() {
    let ingress = Ingress::start_changed(&["--signing-keys", "test=k1"], hastened).await;
    let answer = open(&ingress).await;
    assert_eq!(told(&answer), failed(503, "key_health"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    ingress.counts("porchlight_ingress_key_breaker_open 1").await;
    ingress.counts("porchlight_ingress_outage 1").await;
    assert!(ingress.not_ready_for("key_health").await, "it is a note");
    let shown = page(&ingress).await;
    assert_eq!(
        (&shown["keys"]["breaker"], &shown["is_on"]),
        (&"open".into(), &true.into())
    );
    assert_eq!(shown["outages"][0]["causes"]["key_health"], 1);
    assert!(
        shown["keys"]["rejected"]["answers_401"].as_u64() >= Some(9),
        "{shown}"
    );

    assert_eq!(
        told(&ingress.send(&signed(BODY)).await),
        passed(),
        "what matches passes as ever"
    );
    ingress.counts("porchlight_ingress_key_breaker_open 0").await;
    assert_eq!(
        told(&ingress.send(&forged(0)).await),
        failed(401, "signature_mismatch")
    );
    let shown = page(&ingress).await;
    assert_eq!(shown["keys"]["breaker"], "closed");
    assert!(shown["keys"]["last_match_at_ms"].as_u64() > Some(0), "{shown}");
}

#[tokio::test]
async fn switched_off_it_refuses_for_ever_and_counts_all_the_same() {
    let flags = ["--signing-keys", "test=k1", "--key-breaker", "off"];
    let settings = |settings: &mut Settings| {
        settings
            .edge
            .hasten(Duration::ZERO, Duration::ZERO, Duration::ZERO);
    };
    let ingress = Ingress::start_changed(&flags, settings).await;
    for n in 0..30 {
        let answer = ingress.send(&forged(n)).await;
        assert_eq!(told(&answer), failed(401, "signature_mismatch"));
    }
    ingress
        .counts("porchlight_ingress_ring_shaped_rejected_total 30")
        .await;
    ingress.counts("porchlight_ingress_key_breaker_open 0").await;
    assert_eq!(page(&ingress).await["keys"]["breaker"], "off");
}

#[tokio::test]
async fn requests_that_are_not_ring_shaped_open_nothing() {
    let settings = |settings: &mut Settings| {
        settings
            .edge
            .hasten(Duration::ZERO, Duration::ZERO, Duration::ZERO);
    };
    let ingress = Ingress::start_changed(&["--signing-keys", "test=k1"], settings).await;
    for n in 0..30 {
        let body = format!("{n}");
        let bare = encode("POST", PATH, &[], body.as_bytes());
        assert_eq!(told(&ingress.send(&bare).await), failed(401, "signature_missing"));
        let odd = encode("POST", PATH, &[("X-Signature", "sha256=abc")], body.as_bytes());
        assert_eq!(
            told(&ingress.send(&odd).await),
            failed(401, "signature_malformed")
        );
    }
    ingress
        .counts("porchlight_ingress_ring_shaped_rejected_total 0")
        .await;
}

#[tokio::test]
async fn a_right_digest_in_the_wrong_form_is_refused_and_the_form_is_named() {
    use base64::Engine as _;
    let ingress = Ingress::start(&[]).await;
    let digest = hex::decode(crate::support::key().sign(BODY).trim_start_matches("sha256=")).unwrap();
    let form = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest);
    let answer = ingress
        .send(&encode("POST", PATH, &[("X-Signature", &form)], BODY))
        .await;
    assert_eq!(told(&answer), failed(401, "signature_malformed"));
    ingress
        .counts(r#"porchlight_ingress_signature_diagnoses_total{diagnosis="base64"} 1"#)
        .await;
    let found = &page(&ingress).await["keys"]["diagnosis"];
    assert_eq!(
        (&found["code"], &found["key"]),
        (&"base64".into(), &"test".into())
    );
    assert!(!found.to_string().contains(&form), "{found}");
}

#[tokio::test]
async fn a_key_that_was_taken_out_too_early_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    fs::write(&path, "ring-2025=k1\nring-2026=k2\n").unwrap();
    let ingress = Ingress::start_bare(&["--signing-keys-file", path.to_str().unwrap()]).await;
    assert_eq!(told(&ingress.send(&signed(BODY)).await), passed());
    fs::write(&path, "ring-2026=k2\n").unwrap();
    ingress.hang_up();
    wait_for("the key to go", SOON, async || {
        match told(&ingress.send(&signed(BODY)).await) {
            answer if answer == failed(401, "signature_mismatch") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    ingress
        .counts(r#"porchlight_ingress_signature_diagnoses_total{diagnosis="removed_key"} 1"#)
        .await;
    assert_eq!(page(&ingress).await["keys"]["diagnosis"]["key"], "ring-2025");
}
