//! Settings: each daemon's own check of them, run on this environment, and what does not go together.
//!
//! Flags that a daemon is started with are not known here, only variables.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use porchlight_ingress::EdgeSettings;
use porchlight_service::Problems;
use porchlight_service::process::open_files_limit;
use porchlight_service::settings::{Problem, UnknownVariable, unknown_variables};
use porchlight_worker::{CallbackSettings, WorkSettings};

use super::finding::Finding;
use super::{is_local, keys, variable};
use crate::cli::{Cli, Command};
use crate::output::span;
use crate::standalone;

/// What whoever supervises a daemon is told to give it for its stop.
const STOP_USUAL: Duration = Duration::from_secs(60);
/// For the last step of a standalone's stop.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// Files that are open besides connections.
const OTHER_FILES: usize = 128;
/// Stands in for keys where there are none, so that the rest can be checked.
const NO_KEYS: &str = "--signing-keys=none=none";

/// What the checked settings of a process tell the other checks.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) findings: Vec<Finding>,
    /// Callbacks, with the name of whoever sends them.
    pub(super) callback: Option<CallbackSettings>,
    /// Where Ring posts to.
    pub(super) webhook_path: Option<String>,
}

/// The parts of a process that a stop is made of, and that may get in each other's way.
struct Process<'a> {
    name: &'static str,
    edge: Option<&'a EdgeSettings>,
    work: Option<&'a WorkSettings>,
    callback: Option<&'a CallbackSettings>,
    admin_listen: SocketAddr,
    has_token: bool,
}

/// Both daemons of the scaled form.
pub(super) fn scaled() -> Checked {
    let mut checked = Checked::default();
    let ingress = porchlight_ingress::settings::Args::try_parse_from(with_keys("porchlight-ingress", &[]));
    match ingress.map(|args| porchlight_ingress::Settings::check(&args)) {
        Ok(Ok((settings, _))) => {
            checked.well("settings.ingress", "the ingress");
            checked.webhook_path = Some(settings.edge.webhook_path().to_owned());
            checked.judge(&Process {
                name: "the ingress",
                edge: Some(&settings.edge),
                work: None,
                callback: None,
                admin_listen: settings.admin_listen,
                has_token: settings.admin_token.is_some(),
            });
        }
        Ok(Err(problems)) => checked.wrong("settings.ingress", "an ingress", &problems),
        Err(error) => checked.unread("settings.ingress", &error),
    }
    match porchlight_worker::Args::try_parse_from(["porchlight-worker"])
        .map(|args| porchlight_worker::Settings::check(&args))
    {
        Ok(Ok(settings)) => {
            checked.well("settings.worker", "the worker");
            checked.judge(&Process {
                name: "the worker",
                edge: None,
                work: Some(&settings.work),
                callback: settings.callback.as_ref(),
                admin_listen: settings.admin_listen,
                has_token: settings.admin_token.is_some(),
            });
            checked.callback = settings.callback;
        }
        Ok(Err(problems)) => checked.wrong("settings.worker", "a worker", &problems),
        Err(error) => checked.unread("settings.worker", &error),
    }
    let known = [
        porchlight_ingress::settings::Args::command(),
        porchlight_worker::Args::command(),
    ];
    checked.unknown(&known);
    checked
}

/// The one process of a standalone.
pub(super) fn alone() -> Checked {
    let mut checked = Checked::default();
    let id = "settings.standalone";
    let args = match Cli::try_parse_from(with_keys("porchlight", &["standalone"])) {
        Ok(Cli {
            command: Command::Standalone(args),
            log,
            ..
        }) => (args, log),
        Ok(_) => return checked,
        Err(error) => {
            checked.unread(id, &error);
            return checked;
        }
    };
    match standalone::Settings::check(&args.0, args.1.as_deref()) {
        Ok((settings, _)) => {
            checked.well(id, "the standalone");
            checked.webhook_path = Some(settings.edge.webhook_path().to_owned());
            checked.judge(&Process {
                name: "the standalone",
                edge: Some(&settings.edge),
                work: Some(&settings.work),
                callback: settings.callback.as_ref(),
                admin_listen: settings.admin_listen,
                has_token: settings.admin_token.is_some(),
            });
            checked.callback = settings.callback;
        }
        Err(problems) => checked.wrong(id, "a standalone", &problems),
    }
    checked.unknown(&[standalone::command()]);
    checked
}

/// The command line of a daemon that is given nothing, but for keys where the environment has none.
fn with_keys(program: &'static str, command: &[&'static str]) -> Vec<&'static str> {
    let keys = (!keys::are_given()).then_some(NO_KEYS);
    std::iter::once(program)
        .chain(command.iter().copied())
        .chain(keys)
        .collect()
}

impl Checked {
    fn well(&mut self, id: &'static str, whom: &str) {
        self.findings.push(Finding::ok(
            id,
            format!("every variable that {whom} knows is right"),
        ));
    }

    fn wrong(&mut self, id: &'static str, whom: &str, problems: &Problems) {
        self.findings
            .extend(problems.iter().map(|Problem { name, text }| {
                Finding::error(id, format!("{name} {text}"))
                    .why(format!(
                        "{whom} with these variables does not start: it names what is wrong and ends with 64."
                    ))
                    .mend(format!("correct {name}; what it may be: README, Settings"))
            }));
    }

    fn unread(&mut self, id: &'static str, error: &clap::Error) {
        let first = error.to_string().lines().next().unwrap_or_default().to_owned();
        self.findings.push(Finding::error(id, first));
    }

    /// Variables that look like ours and belong to none of these, nor to the tool.
    fn unknown(&mut self, daemons: &[clap::Command]) {
        let id = "settings.unknown";
        let tool = Cli::command();
        let commands: Vec<_> = daemons.iter().chain([&tool]).flat_map(with_inner).collect();
        let is_known = |name: &String| commands.iter().any(|command| knows(command, name));
        let present = std::env::vars_os().filter(|(_, value)| !value.is_empty());
        let present = present.filter_map(|(name, _)| name.into_string().ok());
        let present: Vec<String> = present.filter(|name| !is_known(name)).collect();
        // Each command knows other names that may have been meant.
        let mut found: Vec<UnknownVariable> = Vec::new();
        for unknown in commands
            .iter()
            .flat_map(|command| unknown_variables(command, present.iter().cloned()))
        {
            match found.iter_mut().find(|known| known.name == unknown.name) {
                Some(known) => known.meant = known.meant.take().or(unknown.meant),
                None => found.push(unknown),
            }
        }
        if found.is_empty() {
            self.findings.push(Finding::ok(
                id,
                "no variable that begins with PORCHLIGHT_ is unknown",
            ));
        }
        self.findings
            .extend(found.into_iter().map(|UnknownVariable { name, meant }| {
                match meant {
                    Some(meant) => Finding::warning(id, format!("{name} is unknown; is {meant} meant?"))
                        .why("It is ignored, and the default is in force.")
                        .mend(format!("rename it to {meant}")),
                    None => Finding::note(id, format!("{name} is unknown and is ignored")),
                }
            }));
    }

    fn judge(&mut self, process: &Process<'_>) {
        let before = self.findings.len();
        process.stop(&mut self.findings);
        process.addresses(&mut self.findings);
        process.work(&mut self.findings);
        process.edge(&mut self.findings);
        if self.findings[before..]
            .iter()
            .all(|finding| finding.id != "settings.together")
        {
            let what = format!("the settings of {} go together", process.name);
            self.findings.push(Finding::ok("settings.together", what));
        }
    }
}

/// A command and those within it.
fn with_inner(command: &clap::Command) -> Vec<&clap::Command> {
    let inner = command.get_subcommands().flat_map(with_inner);
    std::iter::once(command).chain(inner).collect()
}

fn knows(command: &clap::Command, name: &str) -> bool {
    let mut names = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str());
    names.any(|known| known == name)
}

impl Process<'_> {
    /// The longest that a stop may take, by the process's own deadlines.
    fn stop_max(&self) -> Duration {
        let edge = self.edge.map_or(Duration::ZERO, |edge| {
            edge.drain_delay() + 2 * edge.shutdown_grace()
        });
        let work = self.work.map_or(Duration::ZERO, |work| 2 * work.stop_grace);
        let close = if self.edge.is_some() && self.work.is_some() {
            CLOSE_MAX
        } else {
            Duration::ZERO
        };
        edge + work + close
    }

    fn stop(&self, findings: &mut Vec<Finding>) {
        let longest = self.stop_max();
        if longest > STOP_USUAL {
            let what = format!("a stop of {} may take {}", self.name, span(longest));
            findings.push(
                Finding::warning("settings.together", what)
                    .why("Who supervises it usually waits 60 s and then kills: connections break, and what was in hand is done again.")
                    .mend(format!(
                        "TimeoutStopSec={0} (systemd), terminationGracePeriodSeconds: {0} (Kubernetes), stop_grace_period: {0}s (compose); or lower PORCHLIGHT_DRAIN_DELAY, PORCHLIGHT_SHUTDOWN_GRACE, PORCHLIGHT_STOP_GRACE",
                        longest.as_secs() + 5
                    )),
            );
        }
    }

    fn addresses(&self, findings: &mut Vec<Finding>) {
        let admin = self.admin_listen;
        if let Some(edge) = self.edge.filter(|edge| overlap(edge.listen, admin)) {
            let what = format!(
                "{} is to listen for webhooks at {} and for admin at {admin}",
                self.name, edge.listen
            );
            findings.push(
                Finding::error("settings.together", what)
                    .why("Only one of the two can have the port, so it does not start.")
                    .mend("set another port in PORCHLIGHT_ADMIN_LISTEN"),
            );
        }
        if admin.ip().is_unspecified() {
            let what = format!(
                "the admin listener of {} is open to every network ({admin})",
                self.name
            );
            findings.push(
                Finding::note("settings.admin", what)
                    .why("Metrics and health are shown to whoever reaches it. In a container it has to be so; then only \
                          the network keeps others out.")
                    .mend("PORCHLIGHT_ADMIN_LISTEN=127.0.0.1:9090, or a network policy"),
            );
        }
        if self.work.is_some() && !self.has_token {
            findings.push(
                Finding::note("settings.admin", format!("{} has no control API", self.name))
                    .why("Operations can be registered by the tool alone.")
                    .mend("PORCHLIGHT_ADMIN_TOKEN=$(openssl rand -hex 24)"),
            );
        }
    }

    fn work(&self, findings: &mut Vec<Finding>) {
        let id = "settings.together";
        let Some(work) = self.work else { return };
        let pieces = work.batch_size * work.batches_max;
        if usize::from(work.prefetch) < pieces {
            let what = format!(
                "PORCHLIGHT_PREFETCH is {}, and {pieces} events could be worked on at once",
                work.prefetch
            );
            findings.push(
                Finding::note(id, what)
                    .why("The batches are never full, so events are applied more slowly than they could be.")
                    .mend(format!("PORCHLIGHT_PREFETCH={}", pieces.min(2000))),
            );
        }
        let Some(callback) = self.callback else { return };
        if callback.timeout > work.stop_grace {
            let what = format!(
                "a callback may take {}, and a stop waits {} for it",
                span(callback.timeout),
                span(work.stop_grace)
            );
            findings.push(
                Finding::note(id, what)
                    .why("A call that is cut at a stop is made again, under the same id.")
                    .mend("PORCHLIGHT_STOP_GRACE at least as long as PORCHLIGHT_CALLBACK_TIMEOUT"),
            );
        }
        if callback.give_up <= work.settle {
            let what = format!(
                "a resume waits {} for its device to settle, and is given up {} after it was issued",
                span(work.settle),
                span(callback.give_up)
            );
            findings.push(
                Finding::error(id, what)
                    .why("The first call of a resume that fails makes it a dead letter: it is never tried again.")
                    .mend("PORCHLIGHT_CALLBACK_GIVE_UP longer than PORCHLIGHT_SETTLE by hours"),
            );
        }
        if callback.inflight_max > work.commands_inflight_max {
            let what = format!(
                "PORCHLIGHT_CALLBACK_INFLIGHT_MAX is {}, and only {} commands may be sent at once",
                callback.inflight_max, work.commands_inflight_max
            );
            findings.push(
                Finding::note(id, what)
                    .why(
                        "The larger of the two is never reached, and one slow receiver can hold every place.",
                    )
                    .mend("PORCHLIGHT_COMMANDS_INFLIGHT_MAX larger than the other"),
            );
        }
    }

    fn edge(&self, findings: &mut Vec<Finding>) {
        let Some(edge) = self.edge else { return };
        let [answer, body] = edge.answer_and_body_timeouts();
        if body >= answer {
            let what = format!(
                "a body may take {}, and the whole answer {}",
                span(body),
                span(answer)
            );
            findings.push(
                Finding::warning("settings.together", what)
                    .why("A body that comes slowly leaves no time to store it: it is answered 503 although it came.")
                    .mend("PORCHLIGHT_BODY_TIMEOUT at most half of PORCHLIGHT_ANSWER_TIMEOUT"),
            );
        }
        if edge.tls.is_none() && !edge.listen.ip().is_loopback() {
            let what = format!("{} speaks plain HTTP at {}", self.name, edge.listen);
            findings.push(
                Finding::note("settings.tls", what)
                    .why("Ring posts to https alone, so something in front must end TLS.")
                    .mend("a balancer or ingress with a certificate; or PORCHLIGHT_TLS_CERT_FILE and PORCHLIGHT_TLS_KEY_FILE"),
            );
        }
        if let Some(limit) = open_files_limit().filter(|limit| *limit < edge.connections_max() + OTHER_FILES)
        {
            let what = format!(
                "{limit} files may be open here, and PORCHLIGHT_CONNECTIONS_MAX is {}",
                edge.connections_max()
            );
            findings.push(
                Finding::note("settings.files", what)
                    .why("Fewer connections are taken than set. The daemon's own limit may be another than that of this shell.")
                    .mend(format!("LimitNOFILE={} (systemd), ulimits (compose)", edge.connections_max() + OTHER_FILES)),
            );
        }
    }
}

/// Whether two sockets want the same port of the same address.
fn overlap(left: SocketAddr, right: SocketAddr) -> bool {
    let any = |ip: IpAddr| ip.is_unspecified();
    left.port() == right.port()
        && left.port() != 0
        && (left.ip() == right.ip() || any(left.ip()) || any(right.ip()))
}

/// Secrets that everybody knows, or that travel in the clear.
pub(super) fn secrets() -> Vec<Finding> {
    let id = "settings.secrets";
    let names = [
        "PORCHLIGHT_ADMIN_TOKEN",
        "PORCHLIGHT_AMQP_URL",
        "PORCHLIGHT_REDIS_URL",
        "PORCHLIGHT_MANAGEMENT_URL",
    ];
    let given: Vec<_> = names
        .iter()
        .filter_map(|name| Some((*name, variable(name)?)))
        .collect();
    let known = given
        .iter()
        .filter(|(_, value)| keys::DEMO_WORDS.iter().any(|words| value.contains(words)));
    let mut findings: Vec<Finding> = known
        .map(|(name, _)| {
            Finding::error(id, format!("{name} holds the secret of the examples"))
                .why("It is public.")
                .mend("openssl rand -hex 24")
        })
        .collect();
    if let Some((_, url)) = given.iter().find(|(name, _)| *name == "PORCHLIGHT_REDIS_URL") {
        let rest = url
            .strip_prefix("redis://")
            .or_else(|| url.strip_prefix("valkey://"));
        let host = rest.map(|rest| rest.rsplit_once('@').map_or(rest, |(_, host)| host));
        let host = host
            .and_then(|host| host.split([':', '/', '?']).next())
            .filter(|host| !host.is_empty());
        if let Some(host) = host.filter(|host| !is_local(host)) {
            findings.push(
                Finding::note(id, format!("Redis at {host} is spoken to without TLS"))
                    .why("Password and device ids can be read on the network between.")
                    .mend("PORCHLIGHT_REDIS_URL=rediss://…, unless the network itself encrypts"),
            );
        }
    }
    if findings.is_empty() && !given.is_empty() {
        findings.push(Finding::ok(id, "no secret of the examples is in use"));
    }
    findings
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use porchlight_event::WebhookSecrets;
    use porchlight_worker::ReceiverSettings;

    fn callback() -> CallbackSettings {
        let secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let receivers = ReceiverSettings::parse_list("http://h/").unwrap();
        CallbackSettings::new(receivers, WebhookSecrets::parse(secret).unwrap())
    }

    /// What is wrong with a worker's settings.
    fn judged(work: &WorkSettings, callback: &CallbackSettings) -> Vec<Severity> {
        let mut checked = Checked::default();
        checked.judge(&Process {
            name: "the worker",
            edge: None,
            work: Some(work),
            callback: Some(callback),
            admin_listen: "127.0.0.1:9091".parse().unwrap(),
            has_token: true,
        });
        let severities = checked.findings.iter().map(|finding| finding.severity);
        severities.collect()
    }

    #[test]
    fn the_defaults_go_together_and_each_contradiction_is_told() {
        assert_eq!(judged(&WorkSettings::default(), &callback()), [Severity::Ok]);
        let with = |change: &dyn Fn(&mut WorkSettings, &mut CallbackSettings)| {
            let (mut work, mut callback) = (WorkSettings::default(), callback());
            change(&mut work, &mut callback);
            judged(&work, &callback)
        };
        let seconds = Duration::from_secs;
        assert_eq!(with(&|work, _| work.prefetch = 100), [Severity::Note]);
        assert_eq!(
            with(&|work, _| work.stop_grace = seconds(40)),
            [Severity::Warning]
        );
        assert_eq!(
            with(&|_, callback| callback.timeout = seconds(30)),
            [Severity::Note]
        );
        assert_eq!(with(&|_, callback| callback.inflight_max = 256), [Severity::Note]);
        let settle = with(&|work, callback| {
            work.settle = seconds(600);
            callback.give_up = seconds(60);
        });
        assert_eq!(settle, [Severity::Error]);
    }

    #[test]
    fn two_sockets_cannot_have_one_port() {
        let both = |left: &str, right: &str| overlap(left.parse().unwrap(), right.parse().unwrap());
        assert!(both("0.0.0.0:8080", "127.0.0.1:8080") && both("127.0.0.1:1", "127.0.0.1:1"));
        assert!(!both("0.0.0.0:8080", "127.0.0.1:9090") && !both("127.0.0.1:0", "127.0.0.1:0"));
    }
}
