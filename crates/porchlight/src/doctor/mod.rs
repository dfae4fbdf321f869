//! `porchlight doctor`: looks over everything that Porchlight stands on, and says what is wrong, why it matters and what
//! mends it.
//!
//! It changes nothing; the one thing it writes is the ledger's probe, a key that ends by itself. Each part is a file:
//! what is asked there is also judged there, by functions that are given what was seen.

mod broker;
mod certificate;
mod clock;
mod data;
mod finding;
mod keys;
mod management;
mod policies;
mod redis;
mod settings;
mod together;
mod web;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use porchlight_broker::BrokerUrls;
use porchlight_journal::Purpose;
use porchlight_management::{Management, ManagementUrl};
use porchlight_service::client::Target;
use porchlight_store::Store;

use crate::failure::Failure;
use crate::output::Output;
use crate::place::{QueueArgs, Whole};
use crate::servers::given;
use finding::{Finding, Report, Severity};

/// For one question to the management API, connecting included.
const MANAGEMENT_MAX: Duration = Duration::from_secs(8);

const EXIT_CODES: &str = "\
Exit codes:
  0   all is well, or there are notes alone
  1   there are warnings
  2   there are errors
  64  a flag is wrong; nothing was looked at
";

/// Looks over settings, servers, data, keys, clocks and certificates: what is wrong, why it matters, what mends it.
///
/// Give it the variables that the daemons have, on a machine that is where they are:
/// `set -a; . ./FILE; porchlight doctor`. In the scaled form it looks at RabbitMQ and Redis, with --management-url also at
/// policies, alarms and nodes; of a standalone at its data directory. It changes nothing. Each check has a name, such as
/// redis.eviction; deploy/OPERATING.md lists them.
#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct DoctorArgs {
    /// RabbitMQ's management API, for what AMQP does not show: http://USER:PASSWORD@HOST:15672; the user needs the tag
    /// monitoring
    #[arg(
        long,
        value_name = "URL",
        env = "PORCHLIGHT_MANAGEMENT_URL",
        hide_env_values = true,
        help_heading = "Servers"
    )]
    management_url: Option<String>,
    /// Also ask the admin listener of a daemon whether it is ready; may be given several times, as a variable
    /// comma-separated
    #[arg(
        long = "ingress",
        value_name = "URL",
        env = "PORCHLIGHT_INGRESS_ADMIN_URLS",
        hide_env_values = true,
        value_delimiter = ','
    )]
    ingresses: Vec<String>,
    /// Also look at the address that Ring posts to, as Ring does: its certificate, and who answers there
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    #[command(flatten)]
    place: QueueArgs,
}

/// The addresses that flags gave, checked.
struct Addresses {
    management: Option<Result<Management, String>>,
    admins: Vec<Target>,
    public: Option<Target>,
}

/// Looks at everything.
pub(crate) async fn run(args: DoctorArgs, output: Output) -> Result<(), Failure> {
    let addresses = Addresses::check(&args)?;
    let report = match args.place.whole()? {
        Whole::Servers { amqp, store, spool } => scaled(amqp, store, spool, addresses).await,
        Whole::Directory(dir) => alone(&dir, addresses).await,
        Whole::Api(target) => api(target, addresses).await,
    };
    report.print(output);
    match report.worst() {
        Severity::Ok | Severity::Note => Ok(()),
        Severity::Warning => Err(Failure::told()),
        Severity::Error => Err(Failure::told_errors()),
    }
}

impl Addresses {
    fn check(args: &DoctorArgs) -> Result<Self, Failure> {
        let target = |setting: &str, url: &str| {
            Target::parse(url).map_err(|error| Failure::usage(setting).because(&error))
        };
        let admins = args
            .ingresses
            .iter()
            .map(|url| url.trim())
            .filter(|url| !url.is_empty());
        let admins = admins.map(|url| target("PORCHLIGHT_INGRESS_ADMIN_URLS (--ingress)", url));
        let public = given(&args.public_url).map(|url| target("--public-url", url));
        // A wrong variable is what somebody calls the doctor for.
        let management = given(&args.management_url).map(|url| {
            let url = ManagementUrl::parse(url).map_err(|error| error.to_string())?;
            Management::new(url, MANAGEMENT_MAX).map_err(|error| error.to_string())
        });
        Ok(Self {
            management,
            admins: admins.collect::<Result<_, _>>()?,
            public: public.transpose()?,
        })
    }

    async fn look(self) -> Vec<Finding> {
        let public = async {
            match self.public {
                Some(target) => web::public(target).await,
                None => Vec::new(),
            }
        };
        let (mut findings, public) = tokio::join!(web::admins(&self.admins), public);
        findings.extend(public);
        findings
    }
}

async fn scaled(
    amqp: Result<BrokerUrls, Failure>,
    store: Result<Store, Failure>,
    spool: Option<PathBuf>,
    mut addresses: Addresses,
) -> Report {
    let checked = settings::scaled();
    let management = addresses.management.take();
    let place = format!(
        "RabbitMQ {} and Redis {}",
        amqp.as_ref()
            .map_or_else(|_| "(no address)".to_owned(), ToString::to_string),
        store.as_ref().map_or("(no address)", Store::address)
    );
    let spooled = async {
        match &spool {
            Some(dir) => data::check(dir, Purpose::Spool).await,
            None => Vec::new(),
        }
    };
    let (rabbitmq, redis, spooled, local, rest) = tokio::join!(
        rabbitmq(amqp, management),
        ledger(store),
        spooled,
        local(checked),
        addresses.look()
    );
    let all = [local, rabbitmq, redis, spooled, rest];
    Report::new(place, all.into_iter().flatten().collect())
}

/// RabbitMQ over both its protocols.
async fn rabbitmq(
    amqp: Result<BrokerUrls, Failure>,
    management: Option<Result<Management, String>>,
) -> Vec<Finding> {
    let amqp = match amqp {
        Ok(amqp) => amqp,
        Err(failure) => {
            return vec![
                Finding::error("broker.reach", failure.line())
                    .mend("correct PORCHLIGHT_AMQP_URL: amqp://USER:PASSWORD@HOST:5672/%2f"),
            ];
        }
    };
    let seen = broker::check(&amqp).await;
    let context = policies::Context {
        vhost: seen.vhost.unwrap_or_else(|| amqp.vhost().to_owned()),
        major: seen.version.as_ref().map_or(0, |version| version.major),
        limited: seen.limited,
    };
    let mut findings = seen.findings;
    findings.extend(match management {
        None => management::not_given(&context),
        Some(Err(why)) => vec![Finding::error(
            "broker.management",
            format!("PORCHLIGHT_MANAGEMENT_URL {why}"),
        )],
        Some(Ok(management)) => management::check(&management, &context).await,
    });
    for (_, endpoint) in amqp.each().into_iter().filter(|(_, endpoint)| endpoint.tls) {
        if let Some(target) = certificate::target(&endpoint.host, endpoint.port) {
            findings.extend(certificate::served("certificate.broker", "RabbitMQ", &target, None).await);
        }
    }
    findings
}

async fn ledger(store: Result<Store, Failure>) -> Vec<Finding> {
    let store = match store {
        Ok(store) => store,
        Err(failure) => {
            return vec![
                Finding::error("redis.reach", failure.line())
                    .mend("correct PORCHLIGHT_REDIS_URL: redis://:PASSWORD@HOST:6379"),
            ];
        }
    };
    let mut findings = redis::check(&store).await;
    if let Some(target) = store
        .tls_endpoint()
        .and_then(|(host, port)| certificate::target(host, port))
    {
        findings.extend(certificate::served("certificate.redis", "Redis", &target, None).await);
    }
    findings
}

async fn alone(dir: &Path, addresses: Addresses) -> Report {
    let checked = settings::alone();
    let place = std::path::absolute(dir);
    let place = format!("the directory {}", place.as_deref().unwrap_or(dir).display());
    let (local, data, rest) = tokio::join!(
        local(checked),
        data::check(dir, Purpose::Standalone),
        addresses.look()
    );
    Report::new(place, [local, data, rest].into_iter().flatten().collect())
}

/// A standalone elsewhere tells of itself what its admin listener does.
async fn api(target: Target, addresses: Addresses) -> Report {
    let place = format!("the standalone at {}", target.address());
    let targets = [target];
    let (mut findings, rest) = tokio::join!(web::admins(&targets), addresses.look());
    let what = "settings, data, keys and certificates of another machine cannot be seen from here";
    findings.push(Finding::note("place.remote", what).mend("run the doctor there, with --data-dir DIR"));
    findings.extend(rest);
    Report::new(place, findings)
}

/// What is on this machine: settings, keys, certificate files; and the receivers that the settings name.
async fn local(checked: settings::Checked) -> Vec<Finding> {
    let mut findings = checked.findings;
    findings.extend(settings::secrets());
    findings.extend(keys::check());
    if let Some(path) = variable("PORCHLIGHT_TLS_CERT_FILE") {
        findings.extend(certificate::in_file(Path::new(&path), None));
    }
    if let Some(callback) = &checked.callback {
        let ca_file = variable("PORCHLIGHT_CALLBACK_CA_FILE");
        findings.extend(web::receivers(callback, ca_file.as_deref().map(Path::new)).await);
    }
    findings
}

/// A variable of this environment; one that is empty counts as not set.
fn variable(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
}

/// Whether a host is this machine, as far as its name tells.
fn is_local(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeSet;

    const PARTS: [&str; 11] = [
        "broker",
        "callback",
        "certificate",
        "clock",
        "daemon",
        "data",
        "keys",
        "place",
        "public",
        "redis",
        "settings",
    ];

    /// The words of a text that are names of checks, between these marks.
    fn names(text: &str, mark: char) -> BTreeSet<String> {
        let is_name = |word: &&str| {
            let known = word.split_once('.').filter(|(part, _)| PARTS.contains(part));
            known.is_some_and(|(_, rest)| {
                !rest.is_empty() && rest.chars().all(|c| c.is_ascii_lowercase() || c == '_')
            })
        };
        text.split(mark).filter(is_name).map(str::to_owned).collect()
    }

    #[test]
    fn the_operators_page_lists_every_check_and_no_other() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctor");
        let files = std::fs::read_dir(root).unwrap().map(|file| file.unwrap().path());
        let code: BTreeSet<String> = files
            .flat_map(|path| names(&std::fs::read_to_string(path).unwrap(), '"'))
            .collect();
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/OPERATING.md");
        let page = std::fs::read_to_string(page).unwrap();
        let (_, page) = page.split_once("## Checks of the doctor").unwrap();
        let page = page.split("\n## ").next().unwrap();
        // Rows alone: what is said around them may name other things.
        let rows: String = page.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(names(&rows, '`'), code);
        assert!(code.len() > 40);
    }
}
