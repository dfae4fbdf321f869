//! Settings: each daemon's own check of them, run on this environment, and what does not go together.
//!
//! Flags that a daemon is started with are not known here, only variables.

use clap::{CommandFactory as _, Parser as _};
use porchlight_service::Problems;
use porchlight_service::settings::{Problem, UnknownVariable, unknown_variables};
use porchlight_worker::CallbackSettings;

use super::finding::Finding;
use super::together::Process;
use super::{is_local, keys, variable};
use crate::cli::{Cli, Command};
use crate::standalone;

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

/// Both daemons of the scaled form.
pub(super) fn scaled() -> Checked {
    let mut checked = Checked::default();
    let ingress = porchlight_ingress::settings::Args::try_parse_from(with_keys("porchlight-ingress", &[]));
    match ingress.map(|args| porchlight_ingress::Settings::check(&args)) {
        Ok(Ok((settings, _))) => {
            checked.well("settings.ingress", "the ingress");
            checked.webhook_path = Some(settings.edge.webhook_path().to_owned());
            Process {
                name: "the ingress",
                edge: Some(&settings.edge),
                work: None,
                callback: None,
                admin_listen: settings.admin_listen,
                has_token: settings.admin_token.is_some(),
            }
            .judge(&mut checked.findings);
        }
        Ok(Err(problems)) => checked.wrong("settings.ingress", "an ingress", &problems),
        Err(error) => checked.unread("settings.ingress", &error),
    }
    match porchlight_worker::Args::try_parse_from(["porchlight-worker"])
        .map(|args| porchlight_worker::Settings::check(&args))
    {
        Ok(Ok(settings)) => {
            checked.well("settings.worker", "the worker");
            Process {
                name: "the worker",
                edge: None,
                work: Some(&settings.work),
                callback: settings.callback.as_ref(),
                admin_listen: settings.admin_listen,
                has_token: settings.admin_token.is_some(),
            }
            .judge(&mut checked.findings);
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
            Process {
                name: "the standalone",
                edge: Some(&settings.edge),
                work: Some(&settings.work),
                callback: settings.callback.as_ref(),
                admin_listen: settings.admin_listen,
                has_token: settings.admin_token.is_some(),
            }
            .judge(&mut checked.findings);
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
        self.findings
            .push(Finding::error(id, first).mend("correct the variable; what it may be: README, Settings"));
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
