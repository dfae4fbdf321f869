//! The worker's settings: checked values, taken apart for the parts that use them.
//!
//! It starts nothing. Which settings there are, with unit, bounds and default, is what `--help` says: [`crate::args`].

use std::net::SocketAddr;
use std::time::Duration;

use clap::CommandFactory as _;
use porchlight_broker::BrokerUrls;
use porchlight_monitor::Management;
use porchlight_service::telemetry::LogSettings;
use porchlight_service::trace::TraceSettings;
use porchlight_service::{Checker, Problems, Secret};

use crate::args::{Args, WorkArgs};
use crate::keys::KeySource;
use crate::outlet::CallbackSettings;

/// Fewest bytes of the control API's token: what a person would guess is shorter.
const TOKEN_BYTES_MIN: usize = 16;

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
    /// How long a connection to the broker must have been good before the full prefetch.
    pub prefetch_ramp: Duration,
    /// The broker's management API, where one is named.
    pub management: Option<Management>,
    /// Where traces go, if anywhere.
    pub trace: Option<TraceSettings>,
    /// The work itself.
    pub work: WorkSettings,
    /// Callbacks in place of the broker's exchange.
    pub callback: Option<CallbackSettings>,
}

/// Bounds and spans of the work.
#[derive(Debug, Clone, Copy)]
pub struct WorkSettings {
    /// How long a device must stay online before its operations are resumed.
    pub settle: Duration,
    /// Events taken from the queue in advance.
    pub prefetch: u16,
    /// Events applied in one round trip.
    pub batch_size: usize,
    /// Round trips at once.
    pub batches_max: usize,
    /// How long events are held while ledger or queue fails.
    pub hold_max: Duration,
    /// Commands being sent at once.
    pub commands_inflight_max: usize,
    /// Between two looks for owed commands.
    pub sweep_interval: Duration,
    /// For each of the two parts of a stop.
    pub stop_grace: Duration,
    /// Between two readings of what is watched: queue depths, devices by status, the ledger's own figures.
    pub watch_interval: Duration,
}

impl Default for WorkSettings {
    fn default() -> Self {
        Self {
            settle: Duration::ZERO,
            prefetch: 512,
            batch_size: 64,
            batches_max: 4,
            hold_max: Duration::from_secs(60),
            commands_inflight_max: 64,
            sweep_interval: Duration::from_secs(1),
            stop_grace: Duration::from_secs(10),
            watch_interval: Duration::from_secs(10),
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
        let log = LogSettings::read(&mut checker, &args.log.log, &args.log.log_format);
        let admin_listen = checker.address("PORCHLIGHT_ADMIN_LISTEN", &args.admin.admin_listen);
        let token = args.admin.admin_token.as_deref();
        let admin_token = checker.optional_secret("PORCHLIGHT_ADMIN_TOKEN", token, TOKEN_BYTES_MIN);
        let amqp = checker.parsed("PORCHLIGHT_AMQP_URL", &args.servers.amqp_url, BrokerUrls::parse);
        let redis = checker.parsed("PORCHLIGHT_REDIS_URL", &args.servers.redis_url, redis_url);
        let file = checker.optional_path(args.keys.signing_keys_file.as_deref());
        let keys = KeySource::check(&mut checker, args.keys.signing_keys.as_deref(), file);
        let prefetch_ramp = checker.duration(
            "PORCHLIGHT_PREFETCH_RAMP",
            &args.servers.prefetch_ramp,
            Duration::ZERO..=Duration::from_secs(600),
        );
        let management = args.servers.management.management(&mut checker);
        let trace = TraceSettings::check(&mut checker, &args.trace);
        let work = WorkSettings::check(&mut checker, &args.work);
        let callback = CallbackSettings::check(&mut checker, &args.callback);
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
            prefetch_ramp,
            management,
            trace,
            work,
            callback,
        })
    }
}

impl WorkSettings {
    /// Checks the flags; what is wrong is noted with `checker`.
    pub fn check(checker: &mut Checker, args: &WorkArgs) -> Self {
        let second = Duration::from_secs(1);
        let millis = Duration::from_millis;
        let prefetch = checker.count("PORCHLIGHT_PREFETCH", &args.prefetch, 8..=2000);
        Self {
            settle: checker.duration("PORCHLIGHT_SETTLE", &args.settle, Duration::ZERO..=3600 * second),
            prefetch: u16::try_from(prefetch).unwrap_or(u16::MAX),
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
            watch_interval: args.watch.interval(checker),
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
    use clap::Parser as _;

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
            "--callback-url=https://u:hush@h/?hush",
            "--callback-secret=hush",
            "--callback-give-up=1s",
        ]);
        let shown = problems.unwrap_err().to_string();
        assert!(
            shown.contains("9 settings are wrong") && !shown.contains("hush"),
            "{shown}"
        );
    }

    #[test]
    fn callbacks_need_both_url_and_secret() {
        let secret = "--callback-secret=whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        for (flags, wanted) in [
            (
                vec!["--callback-url=http://h/"],
                "PORCHLIGHT_CALLBACK_SECRET (--callback-secret): is needed where PORCHLIGHT_CALLBACK_URL is given",
            ),
            (
                vec![secret],
                "PORCHLIGHT_CALLBACK_URL (--callback-url): is missing, and PORCHLIGHT_CALLBACK_SECRET is given",
            ),
            (
                vec!["--callback-url=http://h/", secret, "--callback-ca-file=/nowhere"],
                "PORCHLIGHT_CALLBACK_CA_FILE (--callback-ca-file): is given, and no receiver is https",
            ),
            (
                vec!["--callback-url=https://h/", secret, "--callback-ca-file=/nowhere"],
                "cannot read the certificates in /nowhere",
            ),
        ] {
            let shown = check(&flags).unwrap_err().to_string();
            assert!(shown.contains(wanted), "{shown}");
        }
        let settings = check(&["--callback-url=a=http://h/,http://i/", secret]).unwrap();
        let callback = settings.callback.unwrap();
        let default = CallbackSettings::new(callback.receivers.clone(), callback.secrets.clone());
        assert_eq!(format!("{callback:?}"), format!("{default:?}"));
        assert!(check(&["--callback-url="]).unwrap().callback.is_none());
    }
}
