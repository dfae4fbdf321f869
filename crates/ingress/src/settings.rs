//! The ingress's settings: flags and variables as text, checked all at once, then taken apart for those who need them.
//!
//! Checking reads the files that settings name, and does nothing else to the world.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::CommandFactory as _;
use porchlight_broker::{BrokerUrls, PublisherConfig};
use porchlight_monitor::Management;
use porchlight_service::telemetry::LogSettings;
use porchlight_service::trace::TraceSettings;
use porchlight_service::{Checker, Problems, Secret};

pub use crate::args::{Args, EdgeArgs};
use crate::args::{BrokerArgs, SpoolArgs};
use crate::key_health::breaker::BreakerRules;
use crate::keys::KeySource;
use crate::outage::clock::QUIET_MS;
use crate::receive::ReceiveLimits;
use crate::server::ServerLimits;
use crate::tls::TlsFiles;

/// Files that are open besides the public connections: admin connections, the broker, the log, the runtime's own.
const OTHER_FILES: usize = 128;
/// Ring waits for 5 s; what is left is for the way there and back.
const ANSWER_TIMEOUT_MAX: Duration = millis(4300);
/// Fewest characters of a token that is worth guarding anything.
const TOKEN_BYTES_MIN: usize = 16;

/// Everything checked, in pieces; each part of the process gets its own.
#[derive(Debug)]
pub struct Settings {
    /// The public side.
    pub edge: EdgeSettings,
    /// Where events are stored.
    pub broker: BrokerSettings,
    /// Where they are stored while that is away.
    pub spool: Option<SpoolSettings>,
    /// What is shown of the queues.
    pub watch: WatchSettings,
    /// Where health and metrics are shown.
    pub admin_listen: SocketAddr,
    /// The control API's token.
    pub admin_token: Option<Secret>,
    /// Where traces go, if anywhere.
    pub trace: Option<TraceSettings>,
}

/// What the public side goes by, whatever stores the events.
#[derive(Debug)]
pub struct EdgeSettings {
    /// Where webhooks arrive.
    pub listen: SocketAddr,
    /// Certificate and key, where HTTPS is served.
    pub tls: Option<TlsFiles>,
    pub(crate) keys: KeySource,
    pub(crate) receive: ReceiveLimits,
    pub(crate) server: ServerLimits,
    pub(crate) health: HealthSettings,
}

/// When answers are taken for an outage, or for a sign of wrong keys.
#[derive(Debug, Clone)]
pub(crate) struct HealthSettings {
    /// Whether 503 may take the place of 401 when no signature matches any more.
    pub(crate) key_breaker: bool,
    pub(crate) breaker_rules: BreakerRules,
    pub(crate) outage_quiet_ms: i64,
    /// Where outages are written down for the process after this one.
    pub(crate) book_dir: Option<PathBuf>,
}

/// How events get to RabbitMQ.
#[derive(Debug)]
pub struct BrokerSettings {
    /// How they are published.
    pub publisher: PublisherConfig,
    /// Longest wait for a place in the window.
    pub slot_timeout: Duration,
}

/// How the queues are watched.
#[derive(Debug)]
pub struct WatchSettings {
    /// Between two readings.
    pub interval: Duration,
    /// The broker's management API, where one is named.
    pub management: Option<Management>,
}

/// Where and how much the spool keeps.
#[derive(Debug, Clone)]
pub struct SpoolSettings {
    /// The directory, this process's alone.
    pub dir: PathBuf,
    /// Bytes in use at which no more is taken.
    pub bytes_max: u64,
}

impl Settings {
    /// Checks everything, reads the files that settings name, and takes the log's settings apart from the rest.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn check(args: &Args) -> Result<(Self, LogSettings), Problems> {
        let mut checker = Checker::new(&Args::command());
        let c = &mut checker;
        let operation = &args.operation;
        let log = LogSettings::read(c, &operation.log, &operation.log_format);
        let broker = BrokerSettings::check(c, &args.broker);
        let spool = SpoolSettings::check(c, &args.spool);
        let watch = WatchSettings {
            interval: operation.watch.interval(c),
            management: args.broker.management.management(c),
        };
        let edge = EdgeSettings::check(c, &args.edge);
        let admin_listen = c.address("PORCHLIGHT_ADMIN_LISTEN", &operation.admin_listen);
        let admin_token = c.optional_secret(
            "PORCHLIGHT_ADMIN_TOKEN",
            operation.admin_token.as_deref(),
            TOKEN_BYTES_MIN,
        );
        let trace = TraceSettings::check(c, &args.trace);
        checker.finish()?;
        // Without problems there are URLs: the setting has a default.
        let Some(broker) = broker else {
            unreachable!("a list that is not parsed is a problem")
        };
        let settings = Self {
            edge,
            broker,
            spool,
            watch,
            admin_listen,
            admin_token,
            trace,
        };
        Ok((settings, log))
    }
}

impl EdgeSettings {
    /// Checks the public side's settings, and reads the files that they name. What is wrong is noted in `checker`, made
    /// for the command that `args` were read by; use the result only once [`Checker::finish`] found nothing.
    pub fn check(checker: &mut Checker, args: &EdgeArgs) -> Self {
        let c = checker;
        let listen = c.address("PORCHLIGHT_LISTEN", &args.listen);
        let keys_file = c.optional_path(args.signing_keys_file.as_deref());
        let keys = KeySource::check(c, args.signing_keys.as_deref(), keys_file);
        let cert_file = c.optional_path(args.tls_cert_file.as_deref());
        let key_file = c.optional_path(args.tls_key_file.as_deref());
        let tls = TlsFiles::check(c, cert_file, key_file);
        let receive = check_receive(c, args);
        let server = check_server(c, args, receive.answer_timeout);
        let switch = [("on", true), ("off", false)];
        let health = HealthSettings {
            key_breaker: c.choice("PORCHLIGHT_KEY_BREAKER", &args.key_breaker, &switch),
            breaker_rules: BreakerRules::default(),
            outage_quiet_ms: QUIET_MS,
            book_dir: None,
        };
        Self {
            listen,
            tls,
            keys,
            receive,
            server,
            health,
        }
    }

    /// Writes outages down in this directory, which is there and this process's alone, and goes on with those that are
    /// written there.
    pub fn keep_outages_in(&mut self, dir: &Path) {
        self.health.book_dir = Some(dir.to_owned());
    }

    /// Shortens what the watching of answers waits for: how long an outage must have been over, and how long signatures
    /// must fail. For tests, which cannot wait for minutes; no setting does this.
    #[doc(hidden)]
    pub fn hasten(&mut self, quiet: Duration, failing: Duration, silence: Duration) {
        let ms = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let rules = &mut self.health.breaker_rules;
        (rules.over_ms, rules.silence_ms) = (ms(failing), ms(silence));
        self.health.outage_quiet_ms = ms(quiet);
    }

    /// Lengthens what one request may take, each where a time is given: to the answer, to the end of its head, and from
    /// there to the end of its body. For tests about something else, on machines that are busy; no setting allows this.
    #[doc(hidden)]
    pub fn lengthen(&mut self, answer: Option<Duration>, head: Option<Duration>, body: Option<Duration>) {
        let limits = [
            (&mut self.receive.answer_timeout, answer),
            (&mut self.server.head_timeout, head),
            (&mut self.receive.body_timeout, body),
        ];
        for (limit, longer) in limits {
            *limit = longer.unwrap_or(*limit);
        }
    }

    /// The path that Ring posts to.
    pub fn webhook_path(&self) -> &str {
        &self.receive.path
    }

    /// From a request's first byte to its answer, and to the end of its body.
    pub fn answer_and_body_timeouts(&self) -> [Duration; 2] {
        [self.receive.answer_timeout, self.receive.body_timeout]
    }

    /// Open connections at most.
    pub fn connections_max(&self) -> usize {
        self.server.connections_max
    }

    /// Stopping: how long to go on serving while not ready.
    pub fn drain_delay(&self) -> Duration {
        self.server.drain_delay
    }

    /// Stopping: how long what is owed may take.
    pub fn shutdown_grace(&self) -> Duration {
        self.server.shutdown_grace
    }

    /// Takes fewer connections where the system allows too few open files, and warns: strangers could otherwise use up
    /// what the queue, the health checks and the key files need.
    pub fn fit_to_open_files(&mut self) {
        let asked = self.server.connections_max;
        if let Some(limit) = porchlight_service::process::open_files_limit() {
            self.server.connections_max = fit(asked, limit);
        }
        if self.server.connections_max < asked {
            tracing::warn!(
                setting = "PORCHLIGHT_CONNECTIONS_MAX",
                asked,
                taken = self.server.connections_max,
                needed_open_files = asked + OTHER_FILES,
                "fewer connections than set: the limit of open files (ulimit -n) is too low"
            );
        }
    }
}

impl BrokerSettings {
    /// `None` when there is no URL to work with, which is a problem already.
    fn check(c: &mut Checker, args: &BrokerArgs) -> Option<Self> {
        let urls = c.parsed("PORCHLIGHT_AMQP_URL", &args.amqp_url, BrokerUrls::parse);
        let window = c.count("PORCHLIGHT_PUBLISH_WINDOW", &args.publish_window, 1..=4096);
        let channels = c.count("PORCHLIGHT_PUBLISH_CHANNELS", &args.publish_channels, 1..=16);
        let slot = seconds(0)..=seconds(2);
        let slot_timeout = c.duration("PORCHLIGHT_SLOT_TIMEOUT", &args.slot_timeout, slot);
        let mut publisher = PublisherConfig::new(urls?, "ingress");
        publisher.channel_count = channels;
        publisher.inflight_max = window;
        Some(Self {
            publisher,
            slot_timeout,
        })
    }
}

impl SpoolSettings {
    fn check(c: &mut Checker, args: &SpoolArgs) -> Option<Self> {
        let bytes_max = c.bytes(
            "PORCHLIGHT_SPOOL_BYTES_MAX",
            &args.spool_bytes_max,
            16 << 20..=1 << 40,
        );
        Some(Self {
            dir: c.optional_path(args.data_dir.as_deref())?,
            bytes_max: bytes_max as u64,
        })
    }
}

/// As many of the connections asked for as leave room for other files.
fn fit(asked: usize, open_files_max: usize) -> usize {
    asked.min(open_files_max.saturating_sub(OTHER_FILES).max(1))
}

fn check_receive(c: &mut Checker, args: &EdgeArgs) -> ReceiveLimits {
    let answer = c.duration(
        "PORCHLIGHT_ANSWER_TIMEOUT",
        &args.answer_timeout,
        millis(100)..=ANSWER_TIMEOUT_MAX,
    );
    let body_bytes_max = c.bytes(
        "PORCHLIGHT_BODY_BYTES_MAX",
        &args.body_bytes_max,
        1 << 10..=16 << 20,
    );
    let memory = body_bytes_max..=2 << 30;
    ReceiveLimits {
        path: c
            .parsed("PORCHLIGHT_WEBHOOK_PATH", &args.webhook_path, parse_path)
            .unwrap_or_default(),
        body_bytes_max,
        body_memory_max: c.bytes("PORCHLIGHT_BODY_MEMORY_MAX", &args.body_memory_max, memory),
        body_timeout: c.duration(
            "PORCHLIGHT_BODY_TIMEOUT",
            &args.body_timeout,
            millis(50)..=seconds(4),
        ),
        answer_timeout: answer,
    }
}

fn check_server(c: &mut Checker, args: &EdgeArgs, answer_timeout: Duration) -> ServerLimits {
    let handshake = millis(100)..=seconds(30);
    // An answer timeout that is wrong has been told, and must not make the other wrong as well.
    let head_max = match c.is_wrong("PORCHLIGHT_ANSWER_TIMEOUT") {
        true => ANSWER_TIMEOUT_MAX,
        false => answer_timeout,
    };
    let head = millis(100)..=head_max;
    let grace = millis(100)..=seconds(300);
    ServerLimits {
        connections_max: c.count("PORCHLIGHT_CONNECTIONS_MAX", &args.connections_max, 1..=65_536),
        head_bytes_max: c.bytes(
            "PORCHLIGHT_HEAD_BYTES_MAX",
            &args.head_bytes_max,
            8 << 10..=64 << 10,
        ),
        head_timeout: c.duration("PORCHLIGHT_HEAD_TIMEOUT", &args.head_timeout, head),
        idle_timeout: c.duration(
            "PORCHLIGHT_IDLE_TIMEOUT",
            &args.idle_timeout,
            seconds(1)..=seconds(3600),
        ),
        handshake_timeout: c.duration(
            "PORCHLIGHT_TLS_HANDSHAKE_TIMEOUT",
            &args.tls_handshake_timeout,
            handshake,
        ),
        drain_delay: c.duration(
            "PORCHLIGHT_DRAIN_DELAY",
            &args.drain_delay,
            seconds(0)..=seconds(120),
        ),
        shutdown_grace: c.duration("PORCHLIGHT_SHUTDOWN_GRACE", &args.shutdown_grace, grace),
    }
}

fn parse_path(text: &str) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#');
    if text.starts_with('/') && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err("must begin with / and have no space, query or fragment")
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn check(flags: &[&str]) -> Result<Settings, String> {
        let args = Args::try_parse_from(std::iter::once(&"t").chain(flags)).unwrap();
        Settings::check(&args)
            .map(|(settings, _)| settings)
            .map_err(|problems| problems.to_string())
    }

    #[test]
    fn connections_leave_room_for_other_files() {
        assert_eq!(
            [fit(4096, 20_000), fit(4096, 1024), fit(4096, 100)],
            [4096, 896, 1]
        );
    }

    #[test]
    fn every_flag_has_its_variable_and_its_help() {
        assert_eq!(
            porchlight_service::settings::inconsistent_flags(&Args::command()),
            Vec::<String>::new()
        );
        Args::command().debug_assert();
        let about = Args::command().get_about().unwrap().to_string();
        assert!(about.starts_with("Receives Ring's webhooks"), "{about}");
    }

    #[test]
    fn keys_are_all_that_must_be_given() {
        let settings = check(&["--signing-keys", "ring=k"]).unwrap();
        assert_eq!(settings.edge.webhook_path(), "/webhooks/ring");
        assert_eq!(settings.broker.publisher.inflight_max, 256);
        let problems = check(&[]).unwrap_err();
        assert!(
            problems.contains("PORCHLIGHT_SIGNING_KEYS (--signing-keys)"),
            "{problems}"
        );
    }

    #[test]
    fn there_is_a_spool_only_where_a_directory_is_named() {
        let keys = ["--signing-keys", "ring=k"];
        assert!(check(&keys).unwrap().spool.is_none());
        let spool = check(&[&keys[..], &["--data-dir", "/d"]].concat())
            .unwrap()
            .spool
            .unwrap();
        assert_eq!((spool.dir, spool.bytes_max), ("/d".into(), 1 << 30));
        let problems = check(&[&keys[..], &["--spool-bytes-max", "1MiB"]].concat()).unwrap_err();
        assert!(problems.contains("it must be 16MiB to 1TiB"), "{problems}");
    }

    #[test]
    fn a_wrong_answer_timeout_makes_no_other_setting_wrong() {
        let problems = check(&["--signing-keys", "ring=secret", "--answer-timeout", "9s"]).unwrap_err();
        assert!(problems.contains("PORCHLIGHT_ANSWER_TIMEOUT"), "{problems}");
        assert!(!problems.contains("PORCHLIGHT_HEAD_TIMEOUT"), "{problems}");
    }

    #[test]
    fn every_wrong_setting_is_named_at_once_and_no_secret_shown() {
        let problems = check(&[
            "--signing-keys",
            "hunter2",
            "--amqp-url",
            "http://u:hunter2@h",
            "--admin-token",
            "hunter2",
            "--listen",
            "8080",
            "--body-timeout",
            "2",
            "--webhook-path",
            "ring",
            "--tls-cert-file",
            "/nowhere/cert.pem",
            "--log",
            "inof",
        ])
        .unwrap_err();
        assert!(problems.contains("8 settings are wrong"), "{problems}");
        for name in [
            "SIGNING_KEYS",
            "AMQP_URL",
            "ADMIN_TOKEN",
            "LISTEN",
            "BODY_TIMEOUT",
            "WEBHOOK_PATH",
            "TLS_KEY_FILE",
            "LOG",
        ] {
            assert!(
                problems.contains(&format!("PORCHLIGHT_{name} ")),
                "{name}: {problems}"
            );
        }
        assert!(!problems.contains("hunter2"), "{problems}");
    }

    #[test]
    fn a_head_may_not_take_longer_than_the_answer() {
        let problems = check(&[
            "--signing-keys",
            "a=b",
            "--answer-timeout",
            "1s",
            "--head-timeout",
            "2s",
        ]);
        assert!(
            problems
                .unwrap_err()
                .contains("2s is out of bounds; it must be 100ms to 1s")
        );
    }

    #[test]
    fn the_memory_for_bodies_holds_at_least_one() {
        let flags = [
            "--signing-keys",
            "a=b",
            "--body-bytes-max",
            "2MiB",
            "--body-memory-max",
            "1MiB",
        ];
        assert!(check(&flags).unwrap_err().contains("it must be 2MiB to 2GiB"));
    }
}
