//! The worker's settings: flags and variables as text, then checked values, taken apart for the parts that use them.
//!
//! It starts nothing. Which settings there are, with unit, bounds and default, is what `--help` says.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{CommandFactory as _, Parser};
use porchlight_broker::BrokerUrls;
use porchlight_service::telemetry::LogSettings;
use porchlight_service::{Checker, Problems, Secret};

use crate::keys::KeySource;

/// Fewest bytes of the control API's token: what a person would guess is shorter.
const TOKEN_BYTES_MIN: usize = 16;

/// The flags. Each has a variable of the same name, which the flag overrides.
#[derive(Debug, Parser)]
#[command(
    name = "porchlight-worker",
    version,
    about = "Takes Ring's events from the queue, applies each once to the ledger, and sends the commands they owe.",
    long_about = "Takes Ring's events from RabbitMQ, applies each once to the ledger in Redis, and sends the commands \
                  (pause, resume, cancel) that they owe to the exchange porchlight.commands.\n\nAn event leaves the \
                  queue only after the ledger has it. While Redis is away the worker holds what it has and takes \
                  nothing new; it never gives events back one by one. What can never be applied goes to \
                  porchlight.dead with the reason. Any number of workers may run at once.",
    after_help = "Every flag can be given as its variable instead; an empty value means the default.\n\nExit codes: 0 \
                  stopped cleanly, with nothing left unacknowledged; 1 could not start or not stop cleanly; 64 a \
                  setting is wrong; 130 or 143 a second SIGINT or SIGTERM ended it at once."
)]
pub struct Args {
    /// Health, metrics and control API; never make it public [IP address and port]
    #[arg(
        long,
        env = "PORCHLIGHT_ADMIN_LISTEN",
        hide_env_values = true,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9091"
    )]
    admin_listen: String,
    /// Bearer token of the control API; without one that API is off [at least 16 characters]
    #[arg(
        long,
        env = "PORCHLIGHT_ADMIN_TOKEN",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    admin_token: Option<String>,
    /// RabbitMQ; several addresses, separated by commas, are tried in turn
    #[arg(
        long,
        env = "PORCHLIGHT_AMQP_URL",
        hide_env_values = true,
        value_name = "URL",
        default_value = "amqp://guest:guest@127.0.0.1:5672/%2f"
    )]
    amqp_url: String,
    /// Redis 7 or Valkey, with an append-only file and without eviction
    #[arg(
        long,
        env = "PORCHLIGHT_REDIS_URL",
        hide_env_values = true,
        value_name = "URL",
        default_value = "redis://127.0.0.1:6379"
    )]
    redis_url: String,
    /// Optional: verify each event's stored signature again, with any of these keys [name=key, separated by commas].
    ///
    /// Without keys whatever is on the queue is trusted, as only the ingresses may write there. With keys an event
    /// that no key matches, or that carries no signature, goes to the dead letters as `bad_signature`. Keep an old key
    /// here until neither queue nor dead letters hold an event that it signed.
    #[arg(
        long,
        env = "PORCHLIGHT_SIGNING_KEYS",
        hide_env_values = true,
        value_name = "KEYS"
    )]
    signing_keys: Option<String>,
    /// Optional: more such keys in a file, one `name=key` a line; read again on SIGHUP and when it changes
    #[arg(
        long,
        env = "PORCHLIGHT_SIGNING_KEYS_FILE",
        hide_env_values = true,
        value_name = "PATH"
    )]
    signing_keys_file: Option<String>,
    /// How long a device must stay online before its operations are resumed [0s to 1h]
    #[arg(
        long,
        env = "PORCHLIGHT_SETTLE",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "0s"
    )]
    settle: String,
    /// Events taken from the broker in advance; each may hold up to 1 MiB of memory [8 to 2000]
    #[arg(
        long,
        env = "PORCHLIGHT_PREFETCH",
        hide_env_values = true,
        value_name = "COUNT",
        default_value = "512"
    )]
    prefetch: String,
    /// How long a connection must have been good before the full prefetch; a crash charges each event in hand with a
    /// delivery, so until then only 8 are [0s to 10m]
    #[arg(
        long,
        env = "PORCHLIGHT_PREFETCH_RAMP",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "30s"
    )]
    prefetch_ramp: String,
    /// Events applied in one round trip to the ledger [1 to 512]
    #[arg(
        long,
        env = "PORCHLIGHT_BATCH_SIZE",
        hide_env_values = true,
        value_name = "COUNT",
        default_value = "64"
    )]
    batch_size: String,
    /// Round trips to the ledger at once [1 to 16]
    #[arg(
        long,
        env = "PORCHLIGHT_BATCHES_MAX",
        hide_env_values = true,
        value_name = "COUNT",
        default_value = "4"
    )]
    batches_max: String,
    /// How long events are held and tried again while the ledger or the broker fails, before they are left to the
    /// broker [1s to 10m]
    #[arg(
        long,
        env = "PORCHLIGHT_HOLD_MAX",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "60s"
    )]
    hold_max: String,
    /// Commands being sent at once [1 to 1024]
    #[arg(
        long,
        env = "PORCHLIGHT_COMMANDS_INFLIGHT_MAX",
        hide_env_values = true,
        value_name = "COUNT",
        default_value = "64"
    )]
    commands_inflight_max: String,
    /// How often commands that are still owed are looked for [100ms to 1m]
    #[arg(
        long,
        env = "PORCHLIGHT_SWEEP_INTERVAL",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "1s"
    )]
    sweep_interval: String,
    /// How long a stop may take, for each of: events in hand, commands in hand [1s to 5m]
    #[arg(
        long,
        env = "PORCHLIGHT_STOP_GRACE",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "10s"
    )]
    stop_grace: String,
    /// What is logged: a level (off, error, warn, info, debug, trace), or parts such as info,porchlight_broker=debug
    #[arg(
        long,
        env = "PORCHLIGHT_LOG",
        hide_env_values = true,
        value_name = "FILTER",
        default_value = "info"
    )]
    log: String,
    /// The form of a log line [text or json]
    #[arg(
        long,
        env = "PORCHLIGHT_LOG_FORMAT",
        hide_env_values = true,
        value_name = "FORM",
        default_value = "text"
    )]
    log_format: String,
}

/// Everything that was checked.
#[derive(Debug)]
pub struct Settings {
    /// How to log.
    pub log: LogSettings,
    /// Where health, metrics and control API are.
    pub admin_listen: SocketAddr,
    /// The control API's token.
    pub admin_token: Option<Secret>,
    /// The broker's addresses.
    pub amqp: BrokerUrls,
    /// The ledger's address; it may hold a password.
    pub redis: Secret,
    /// Keys to verify each event with once more.
    pub keys: KeySource,
    /// The work itself.
    pub work: WorkSettings,
}

/// Bounds and spans of the work.
#[derive(Debug, Clone, Copy)]
pub struct WorkSettings {
    /// How long a device must stay online before its operations are resumed.
    pub settle: Duration,
    /// Events taken from the broker in advance.
    pub prefetch: u16,
    /// How long a connection must have been good before the full prefetch.
    pub prefetch_ramp: Duration,
    /// Events applied in one round trip.
    pub batch_size: usize,
    /// Round trips at once.
    pub batches_max: usize,
    /// How long events are held while a server fails.
    pub hold_max: Duration,
    /// Commands being sent at once.
    pub commands_inflight_max: usize,
    /// Between two looks for owed commands.
    pub sweep_interval: Duration,
    /// For each of the two parts of a stop.
    pub stop_grace: Duration,
}

impl Default for WorkSettings {
    fn default() -> Self {
        Self {
            settle: Duration::ZERO,
            prefetch: 512,
            prefetch_ramp: Duration::from_secs(30),
            batch_size: 64,
            batches_max: 4,
            hold_max: Duration::from_secs(60),
            commands_inflight_max: 64,
            sweep_interval: Duration::from_secs(1),
            stop_grace: Duration::from_secs(10),
        }
    }
}

impl Settings {
    /// Checks every flag.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn check(args: &Args) -> Result<Self, Problems> {
        let mut checker = Checker::new(&Args::command());
        let log = LogSettings::read(&mut checker, &args.log, &args.log_format);
        let admin_listen = checker.address("PORCHLIGHT_ADMIN_LISTEN", &args.admin_listen);
        let token = args.admin_token.as_deref();
        let admin_token = checker.optional_secret("PORCHLIGHT_ADMIN_TOKEN", token, TOKEN_BYTES_MIN);
        let amqp = checker.parsed("PORCHLIGHT_AMQP_URL", &args.amqp_url, BrokerUrls::parse);
        let redis = checker.parsed("PORCHLIGHT_REDIS_URL", &args.redis_url, redis_url);
        let file = checker.optional_path(args.signing_keys_file.as_deref());
        let keys = KeySource::check(&mut checker, args.signing_keys.as_deref(), file);
        let work = WorkSettings::check(&mut checker, args);
        // Where one of the two is missing its problem was noted, so `finish` fails first.
        let addresses = amqp.zip(redis);
        checker.finish()?;
        let (amqp, redis) = addresses.expect("a missing address is a problem");
        Ok(Self {
            log,
            admin_listen,
            admin_token,
            amqp,
            redis,
            keys,
            work,
        })
    }
}

impl WorkSettings {
    fn check(checker: &mut Checker, args: &Args) -> Self {
        let second = Duration::from_secs(1);
        let millis = Duration::from_millis;
        let prefetch = checker.count("PORCHLIGHT_PREFETCH", &args.prefetch, 8..=2000);
        Self {
            settle: checker.duration("PORCHLIGHT_SETTLE", &args.settle, Duration::ZERO..=3600 * second),
            prefetch: u16::try_from(prefetch).unwrap_or(u16::MAX),
            prefetch_ramp: checker.duration(
                "PORCHLIGHT_PREFETCH_RAMP",
                &args.prefetch_ramp,
                Duration::ZERO..=600 * second,
            ),
            batch_size: checker.count("PORCHLIGHT_BATCH_SIZE", &args.batch_size, 1..=512),
            batches_max: checker.count("PORCHLIGHT_BATCHES_MAX", &args.batches_max, 1..=16),
            hold_max: checker.duration("PORCHLIGHT_HOLD_MAX", &args.hold_max, second..=600 * second),
            commands_inflight_max: checker.count(
                "PORCHLIGHT_COMMANDS_INFLIGHT_MAX",
                &args.commands_inflight_max,
                1..=1024,
            ),
            sweep_interval: checker.duration(
                "PORCHLIGHT_SWEEP_INTERVAL",
                &args.sweep_interval,
                millis(100)..=60 * second,
            ),
            stop_grace: checker.duration("PORCHLIGHT_STOP_GRACE", &args.stop_grace, second..=300 * second),
        }
    }
}

/// The form only; the store takes it apart.
fn redis_url(text: &str) -> Result<Secret, &'static str> {
    let known = [
        "redis://",
        "rediss://",
        "unix://",
        "redis+unix://",
        "valkey://",
        "valkeys://",
    ];
    if known
        .iter()
        .any(|scheme| text.starts_with(scheme) && text.len() > scheme.len())
    {
        Ok(Secret::new(text))
    } else {
        Err("is not an address of Redis; write for example redis://127.0.0.1:6379")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn check(flags: &[&str]) -> Result<Settings, Problems> {
        let args = Args::try_parse_from(["worker"].iter().chain(flags)).unwrap();
        Settings::check(&args)
    }

    #[test]
    fn every_flag_has_its_variable_and_its_help() {
        let found = porchlight_service::settings::inconsistent_flags(&Args::command());
        assert_eq!(found, Vec::<String>::new());
        Args::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_right_and_equal_to_those_of_the_type() {
        let settings = check(&[]).unwrap();
        assert_eq!(settings.admin_listen.port(), 9091);
        assert!(settings.admin_token.is_none() && !settings.keys.is_given());
        assert_eq!(
            format!("{:?}", settings.work),
            format!("{:?}", WorkSettings::default())
        );
    }

    #[test]
    fn every_mistake_is_told_at_once_and_no_secret_with_it() {
        let problems = check(&[
            "--admin-token=hush",
            "--amqp-url=http://u:hush@h",
            "--redis-url=hush",
            "--signing-keys=hush",
            "--prefetch=7",
            "--settle=2h",
        ]);
        let shown = problems.unwrap_err().to_string();
        assert!(
            shown.contains("6 settings are wrong") && !shown.contains("hush"),
            "{shown}"
        );
    }
}
