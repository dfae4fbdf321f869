//! `doctor` on servers and directories that are wrong on purpose: each fault is told, with what mends it, and no secret.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use porchlight_broker::{BrokerUrls, Consumer, ConsumerConfig, Link, TopologyConfig, topology};
use porchlight_testbed::{RabbitMq, Redis, free_port, wait_for};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use tokio_util::sync::CancellationToken;

use crate::site::Alone;
use crate::tool::{Ran, run};

const PATIENCE: Duration = Duration::from_secs(60);
/// How long an answer takes is for the machine to say on which the tests run.
const OF_THE_MACHINE: [&str; 2] = ["broker.latency", "redis.latency"];
/// A day of this long is enough for any test.
const DAY: Duration = Duration::from_secs(86_400);

/// A virtual host in which everything is declared, and what the tool needs to find it.
struct Broker {
    node: &'static RabbitMq,
    vhost: String,
    amqp: String,
    management: String,
}

impl Broker {
    async fn declared() -> Self {
        let node = RabbitMq::shared().await;
        let vhost = node.vhost().await.unwrap();
        let amqp = node.url_for_vhost(&vhost);
        let link = Link::connect(&BrokerUrls::parse(&amqp).unwrap(), "test")
            .await
            .unwrap();
        topology::declare(&link, &TopologyConfig::default())
            .await
            .unwrap();
        Self {
            management: node.management_url().await.unwrap(),
            node,
            vhost,
            amqp,
        }
    }
}

/// The worst severity of each check, but for what the machine decides.
fn worst(ran: &Ran) -> BTreeMap<String, String> {
    let rank = |severity: &str| {
        ["ok", "note", "warning", "error"]
            .iter()
            .position(|word| *word == severity)
    };
    let report = ran.json();
    let mut worst = BTreeMap::new();
    for finding in report["findings"].as_array().unwrap() {
        let text = |key: &str| finding[key].as_str().unwrap().to_owned();
        let (id, severity) = (text("id"), text("severity"));
        if OF_THE_MACHINE.contains(&id.as_str()) {
            continue;
        }
        if severity != "ok" && severity != "note" {
            assert!(finding["mend"].is_string(), "{finding}");
        }
        let known = worst.entry(id).or_insert_with(|| severity.clone());
        if rank(&severity) > rank(known) {
            *known = severity;
        }
    }
    worst
}

/// The findings that are as grave as this.
fn with<'w>(worst: &'w BTreeMap<String, String>, severity: &str) -> Vec<&'w str> {
    let those = worst.iter().filter(|(_, known)| *known == severity);
    those.map(|(id, _)| id.as_str()).collect()
}

fn no_secret(ran: &Ran) {
    let shown = format!("{ran:?}");
    for secret in [
        "hunter2",
        "guest:guest",
        "never-use-in-production",
        "a-long-and-random",
    ] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
}

#[tokio::test]
async fn servers_that_are_wrong_in_many_ways_are_told_one_by_one_and_well_once_mended() {
    let broker = Broker::declared().await;
    let (node, vhost) = (broker.node, broker.vhost.as_str());
    let redis = Redis::start().await.unwrap();
    let url = redis.url();
    node.set_policy(vhost, "short", "^porchlight\\.dead$", r#"{"max-length": 5}"#)
        .await
        .unwrap();
    node.unbind(vhost, "porchlight.commands", "porchlight.commands")
        .await
        .unwrap();
    redis
        .command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .unwrap();
    redis.command(&["CONFIG", "SET", "appendonly", "no"]).unwrap();
    let mut variables = vec![
        ("PORCHLIGHT_AMQP_URL", broker.amqp.as_str()),
        ("PORCHLIGHT_REDIS_URL", url.as_str()),
        ("PORCHLIGHT_MANAGEMENT_URL", broker.management.as_str()),
        (
            "PORCHLIGHT_SIGNING_KEYS",
            "demo=porchlight-demo-key-never-use-in-production",
        ),
        ("PORCHLIGHT_ADMIN_TOKEN", "demo-token-never-use-in-production"),
        ("PORCHLIGHT_PREFETCH", "7"),
        ("PORCHLIGHT_SIGNING_KEY_FILE", "/nowhere"),
    ];
    // What a policy does is seen in the management API after a while.
    let seen = async || {
        let ran = run(&["doctor", "--json"], &variables).await;
        match worst(&ran).get("broker.policies").map(String::as_str) {
            Some("error") => Ok(ran),
            _ => Err(format!("{ran:?}")),
        }
    };
    let ran = wait_for("the policy to be seen", PATIENCE, seen)
        .await
        .unwrap()
        .expect(2);
    no_secret(&ran);
    let found = worst(&ran);
    let errors = [
        "broker.bindings",
        "broker.consumers",
        "broker.policies",
        "keys.strength",
        "redis.eviction",
        "redis.persistence",
        "settings.secrets",
        "settings.worker",
    ];
    assert_eq!(with(&found, "error"), errors, "{ran:?}");
    // The testbed's nodes have RabbitMQ's own limit for the disk, and its servers no limit of memory.
    assert_eq!(
        with(&found, "warning"),
        ["broker.alarms", "redis.memory", "settings.unknown"],
        "{ran:?}"
    );

    // Mended, as it says.
    node.clear_policy(vhost, "short").await.unwrap();
    node.set_policy(
        vhost,
        "sizes",
        "^porchlight\\.events$",
        r#"{"max-length-bytes": 1000000}"#,
    )
    .await
    .unwrap();
    for setting in [
        ["maxmemory-policy", "noeviction"],
        ["appendonly", "yes"],
        ["maxmemory", "1gb"],
    ] {
        redis.command(&["CONFIG", "SET", setting[0], setting[1]]).unwrap();
    }
    variables.truncate(3);
    variables.push(("PORCHLIGHT_SIGNING_KEYS", "ring=a-long-and-random-key-1"));
    let urls = BrokerUrls::parse(&broker.amqp).unwrap();
    // As a worker that starts: it declares and binds what is missing, and consumes.
    let stop = CancellationToken::new();
    let _consumer = Consumer::start(ConsumerConfig::new(urls, "worker"), stop.clone());
    let mended = async || {
        let ran = run(&["doctor", "--json"], &variables).await;
        let found = worst(&ran);
        let well = with(&found, "error").is_empty()
            && with(&found, "warning") == ["broker.alarms"]
            && found.get("broker.sizes").is_some_and(|severity| severity == "ok");
        if well { Ok(ran) } else { Err(format!("{ran:?}")) }
    };
    wait_for("everything to be well", PATIENCE, mended)
        .await
        .unwrap()
        .expect(1);
    stop.cancel();
}

#[tokio::test]
async fn servers_that_are_away_or_refuse_are_told_and_the_rest_is_still_looked_at() {
    let broker = Broker::declared().await;
    let narrow = format!(
        "rabbit_auth_backend_internal:add_user(<<\"narrow\">>, <<\"hunter2\">>, <<\"t\">>), \
         ok = rabbit_auth_backend_internal:set_permissions(<<\"narrow\">>, <<\"{}\">>, <<\"^porchlight\\\\.\">>, \
         <<\"^porchlight\\\\.\">>, <<\"^porchlight\\\\.\">>, <<\"t\">>), []",
        broker.vhost
    );
    broker.node.eval(&narrow).await.unwrap();
    let narrow = broker.amqp.replace("guest:guest", "narrow:hunter2");
    let away = format!("amqp://u:hunter2@127.0.0.1:{}/%2f", free_port());
    let both = format!("{away},{narrow}");
    let management = broker.management.replace("guest:guest", "guest:hunter2");
    let redis = format!("redis://:hunter2@127.0.0.1:{}", free_port());
    let variables = [
        ("PORCHLIGHT_AMQP_URL", both.as_str()),
        ("PORCHLIGHT_REDIS_URL", redis.as_str()),
        ("PORCHLIGHT_MANAGEMENT_URL", management.as_str()),
    ];
    let ran = run(&["doctor", "--json"], &variables).await.expect(2);
    no_secret(&ran);
    let found = worst(&ran);
    assert_eq!(
        with(&found, "error"),
        ["broker.consumers", "broker.permissions", "redis.reach"],
        "{ran:?}"
    );
    assert_eq!(
        with(&found, "warning"),
        ["broker.management", "broker.reach"],
        "{ran:?}"
    );
    assert!(ran.stdout.contains("publish to amq.default"), "{ran:?}");
    let grant = format!("rabbitmqctl set_permissions -p {} ", broker.vhost);
    assert!(ran.stdout.contains(&grant), "{ran:?}");

    let variables = [
        ("PORCHLIGHT_AMQP_URL", away.as_str()),
        ("PORCHLIGHT_REDIS_URL", "nonsense"),
    ];
    let ran = run(&["doctor", "--json"], &variables).await.expect(2);
    let found = worst(&ran);
    assert_eq!(
        with(&found, "error"),
        ["broker.reach", "redis.reach", "settings.worker"],
        "{ran:?}"
    );
    run(&["doctor", "--public-url", "nonsense"], &variables)
        .await
        .expect(64);
}

/// An authority in `ca.pem`, and a certificate of its that ends in so many days, in `cert.pem` and `key.pem`.
fn certificates(folder: &Path, days: u32) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let mut own = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    own.not_after = own.not_before.max(std::time::SystemTime::now().into()) + DAY * days;
    let key = KeyPair::generate().unwrap();
    let own = own.signed_by(&key, &authority).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("ca.pem", &authority.pem());
    write("cert.pem", &format!("{}{}", own.pem(), authority.pem()));
    write("key.pem", &key.serialize_pem());
}

#[tokio::test]
async fn a_standalone_is_looked_over_from_its_directory_to_its_public_address() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    certificates(folder.path(), 20);
    let tls = [
        ("PORCHLIGHT_TLS_CERT_FILE", path("cert.pem")),
        ("PORCHLIGHT_TLS_KEY_FILE", path("key.pem")),
    ];
    let alone = Alone::start(&folder.path().join("data"), &tls).await;
    std::fs::write(path("keys"), "ring=a-long-and-random-key-1\n").unwrap();
    std::fs::set_permissions(path("keys"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (data, keys, ca) = (path("data"), path("keys"), path("ca.pem"));
    let away = format!("http://127.0.0.1:{}/hunter2", free_port());
    let variables = [
        ("PORCHLIGHT_DATA_DIR", data.as_str()),
        ("PORCHLIGHT_SIGNING_KEYS_FILE", keys.as_str()),
        (tls[0].0, tls[0].1.as_str()),
        (tls[1].0, tls[1].1.as_str()),
        ("PORCHLIGHT_CALLBACK_URL", away.as_str()),
        (
            "PORCHLIGHT_CALLBACK_SECRET",
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        ),
        ("SSL_CERT_FILE", ca.as_str()),
    ];
    let (admin, public) = (
        format!("http://{}", alone.admin),
        format!("https://localhost:{}", alone.listen.port()),
    );
    let right = format!("{public}/webhooks/ring");
    let arguments = ["doctor", "--ingress", &admin, "--public-url", &right, "--json"];
    let ran = run(&arguments, &variables).await.expect(2);
    no_secret(&ran);
    let found = worst(&ran);
    assert_eq!(with(&found, "error"), ["callback.reach"], "{ran:?}");
    let warnings = with(&found, "warning");
    for id in ["certificate.file", "certificate.public", "keys.file"] {
        assert!(warnings.contains(&id), "{id}: {ran:?}");
    }
    for id in [
        "data.file",
        "data.daemon",
        "daemon.ready",
        "public.answer",
        "clock.daemon",
        "data.directory",
    ] {
        assert_eq!(found[id], "ok", "{id}: {ran:?}");
    }

    // Who does not know the authority does not trust it, and another path is lost to Ring.
    let arguments = ["doctor", "--public-url", &public, "--json"];
    let ran = run(&arguments, &variables[..6]).await.expect(2);
    assert_eq!(worst(&ran)["certificate.public"], "error", "{ran:?}");
    let found = run(&arguments, &variables).await.expect(2);
    assert_eq!(worst(&found)["public.answer"], "error", "{found:?}");

    let text = run(&["doctor"], &variables).await.expect(2).stdout;
    let first = text.lines().nth(2).unwrap_or_default();
    assert!(first.starts_with("ERROR    callback.reach: "), "{text}");
    assert!(
        text.lines().any(|line| line.trim_start().starts_with("why  ")),
        "{text}"
    );
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with("1 error, ") && last.ends_with(" ok"), "{text}");
}
