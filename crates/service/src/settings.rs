//! Settings: text from flags and variables becomes checked values, and all mistakes of a start are told at once.
//!
//! It knows no setting by name and reads no variable itself: the command line's parser (`clap`, with `env` on every
//! flag) hands over the text, and each daemon names its own settings.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

pub mod parse;
mod unknown;

pub use unknown::{UnknownVariable, unknown_variables, warn_of_unknown_variables};

/// What every variable's name begins with.
pub const PREFIX: &str = "PORCHLIGHT_";

/// Most characters of a wrong value that a problem shows.
const SHOWN_CHARS_MAX: usize = 60;

/// Checks settings one by one, remembers what is wrong, and tells it all in [`Checker::finish`].
///
/// Settings are named by their variable; the flag is the same name without prefix, in lower case with dashes. A value
/// that is empty counts as not given, so that `NAME=` in an environment file means the default.
/// After a problem a method returns a placeholder inside the bounds; `finish` keeps it from being used.
#[derive(Debug)]
pub struct Checker {
    defaults: BTreeMap<String, String>,
    problems: Vec<Problem>,
}

/// One setting that is wrong. Never holds a secret's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The variable's name.
    pub name: String,
    /// What is wrong and what to write instead.
    pub text: String,
}

/// All settings that are wrong; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

/// A value that no log, error or `Debug` output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Checker {
    /// A checker for the flags of `command`; it takes the defaults from there, so that the help tells the truth.
    pub fn new(command: &clap::Command) -> Self {
        let default = |arg: &clap::Arg| {
            let name = arg.get_env()?.to_str()?.to_owned();
            Some((name, arg.get_default_values().first()?.to_str()?.to_owned()))
        };
        Self {
            defaults: command.get_arguments().filter_map(default).collect(),
            problems: Vec::new(),
        }
    }

    /// A span of time: `250ms`, `5s`, `2m`, `1h`.
    pub fn duration(
        &mut self,
        name: &'static str,
        given: &str,
        bounds: RangeInclusive<Duration>,
    ) -> Duration {
        let value = self
            .value(name, given, parse::duration)
            .unwrap_or(*bounds.start());
        let show = |value: &Duration| parse::show_duration(*value);
        self.within(name, value, &bounds, show)
    }

    /// A number of bytes: `64KiB`, `1MiB`, or a plain number.
    pub fn bytes(&mut self, name: &'static str, given: &str, bounds: RangeInclusive<usize>) -> usize {
        let value = self.value(name, given, parse::bytes).unwrap_or(*bounds.start());
        self.within(name, value, &bounds, |value| parse::show_bytes(*value))
    }

    /// A plain number.
    pub fn count(&mut self, name: &'static str, given: &str, bounds: RangeInclusive<usize>) -> usize {
        let value = self.value(name, given, parse::count).unwrap_or(*bounds.start());
        self.within(name, value, &bounds, usize::to_string)
    }

    /// An IP address with a port: `0.0.0.0:8080`, `[::1]:9090`. Port 0 lets the system choose.
    pub fn address(&mut self, name: &'static str, given: &str) -> SocketAddr {
        self.value(name, given, parse::address)
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, name: &'static str, given: &str, choices: &[(&str, T)]) -> T {
        let text = self.text(name, given);
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return *value;
        }
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        self.problem(name, format!("{} is none of {}", shown(&text), words.join(", ")));
        choices[0].1
    }

    /// A file or folder; whether it exists is for its user to find out.
    pub fn path(&mut self, name: &'static str, given: &str) -> PathBuf {
        let text = self.text(name, given);
        if text.is_empty() {
            self.problem(name, "is empty; write a path");
        }
        PathBuf::from(text)
    }

    /// A file or folder that may be left out.
    pub fn optional_path(&mut self, given: Option<&str>) -> Option<PathBuf> {
        given.filter(|text| !text.trim().is_empty()).map(PathBuf::from)
    }

    /// A secret that may be left out, with the fewest bytes that are worth the name.
    pub fn optional_secret(
        &mut self,
        name: &'static str,
        given: Option<&str>,
        bytes_min: usize,
    ) -> Option<Secret> {
        let text = given.map(str::trim).filter(|text| !text.is_empty())?;
        if text.len() < bytes_min {
            self.problem(
                name,
                format!("is too short for a secret; use at least {bytes_min} characters"),
            );
        }
        Some(Secret::new(text))
    }

    /// Anything else, with its own parser. The parser's error is shown, the value is not: it may hold a password.
    pub fn parsed<T, E: fmt::Display>(
        &mut self,
        name: &'static str,
        given: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(name, given);
        parse(&text)
            .map_err(|error| self.problem(name, error.to_string()))
            .ok()
    }

    /// Like [`Checker::parsed`], for a setting that may be left out.
    pub fn optional_parsed<T, E: fmt::Display>(
        &mut self,
        name: &'static str,
        given: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = given.map(str::trim).filter(|text| !text.is_empty())?;
        parse(text)
            .map_err(|error| self.problem(name, error.to_string()))
            .ok()
    }

    /// Notes a problem found elsewhere: two settings that do not go together, a file that cannot be read.
    pub fn problem(&mut self, name: &'static str, text: impl Into<String>) {
        self.problems.push(Problem {
            name: name.to_owned(),
            text: text.into(),
        });
    }

    /// Whether something was found wrong with this setting.
    #[must_use]
    pub fn is_wrong(&self, name: &str) -> bool {
        self.problems.iter().any(|problem| problem.name == name)
    }

    /// The end of checking.
    ///
    /// # Errors
    /// Everything that was wrong, in the order found.
    pub fn finish(self) -> Result<(), Problems> {
        if self.problems.is_empty() {
            Ok(())
        } else {
            Err(Problems(self.problems))
        }
    }

    fn text(&self, name: &str, given: &str) -> String {
        match given.trim() {
            "" => self.defaults.get(name).cloned().unwrap_or_default(),
            text => text.to_owned(),
        }
    }

    fn value<T>(
        &mut self,
        name: &'static str,
        given: &str,
        parse: fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(name, given);
        parse(&text)
            .map_err(|hint| self.problem(name, format!("{} {hint}", shown(&text))))
            .ok()
    }

    fn within<T: PartialOrd + Copy>(
        &mut self,
        name: &'static str,
        value: T,
        bounds: &RangeInclusive<T>,
        show: impl Fn(&T) -> String,
    ) -> T {
        if bounds.contains(&value) {
            return value;
        }
        let (from, to) = (show(bounds.start()), show(bounds.end()));
        self.problem(
            name,
            format!("{} is out of bounds; it must be {from} to {to}", show(&value)),
        );
        *bounds.start()
    }
}

/// A value as a problem shows it: quoted, without control characters, cut where it is long.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if cut.len() < text.len() {
        format!("{cut:?}…")
    } else {
        format!("{cut:?}")
    }
}

impl Problems {
    /// Each problem, in the order found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// Tells them all on standard error, and which variables look like mistyped ones of `command`; the code to exit
    /// with.
    #[expect(clippy::print_stderr, reason = "the log's own settings may be what is wrong")]
    pub fn report(&self, command: &clap::Command) -> ExitCode {
        eprint!("{self}{}", unknown::mistyped_variables(command));
        ExitCode::from(crate::exit::BAD_SETTINGS)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => writeln!(f, "error: a setting is wrong:")?,
            count => writeln!(f, "error: {count} settings are wrong:")?,
        }
        for Problem { name, text } in &self.0 {
            writeln!(f, "  {name} ({}): {text}", flag(name))?;
        }
        writeln!(
            f,
            "\nNothing was started. Each setting, its unit and its default: --help"
        )
    }
}

impl std::error::Error for Problems {}

impl Secret {
    /// Wraps a secret value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `other` is the same, in a time that tells nothing but the length.
    pub fn matches(&self, other: &[u8]) -> bool {
        let own = self.0.as_bytes();
        if own.len() != other.len() {
            return false;
        }
        let differing = own
            .iter()
            .zip(other)
            .fold(0, |seen, (a, b)| std::hint::black_box(seen | (a ^ b)));
        differing == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The flag of a variable: `PORCHLIGHT_ADMIN_LISTEN` is `--admin-listen`.
pub fn flag(variable: &str) -> String {
    let bare = variable.strip_prefix(PREFIX).unwrap_or(variable);
    format!("--{}", bare.to_ascii_lowercase().replace('_', "-"))
}

/// Reads the command line and the environment into `T`.
///
/// # Errors
/// The code to exit with, after the parser's own words were printed: 0 for help and version, 64 for a wrong flag.
pub fn parse_args<T: clap::Parser>() -> Result<T, ExitCode> {
    T::try_parse().map_err(|error| {
        // Nothing is left to do where even the terminal is gone.
        let _ = error.print();
        ExitCode::from(if error.use_stderr() {
            crate::exit::BAD_SETTINGS
        } else {
            crate::exit::OK
        })
    })
}

/// What is inconsistent in a daemon's flags, for a test: each must have its variable, hide the variable's value in the
/// help, and say what it means.
pub fn inconsistent_flags(command: &clap::Command) -> Vec<String> {
    let mut found = Vec::new();
    for arg in command.get_arguments() {
        let Some(long) = arg.get_long() else { continue };
        if matches!(long, "help" | "version") {
            continue;
        }
        match arg.get_env().and_then(|name| name.to_str()) {
            Some(name) if flag(name) == format!("--{long}") && name.starts_with(PREFIX) => {}
            other => found.push(format!("--{long} goes with {other:?}")),
        }
        if !arg.is_hide_env_values_set() {
            found.push(format!("--{long} shows its variable's value in the help"));
        }
        if arg.get_help().is_none() {
            found.push(format!("--{long} has no help"));
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use clap::{Arg, Command};

    fn command() -> Command {
        let arg = |name: &'static str, env: &'static str| {
            Arg::new(name).long(name).env(env).hide_env_values(true).help("h")
        };
        Command::new("t")
            .arg(arg("body-timeout", "PORCHLIGHT_BODY_TIMEOUT").default_value("2s"))
            .arg(arg("admin-token", "PORCHLIGHT_ADMIN_TOKEN"))
    }

    #[test]
    fn all_problems_are_told_at_once_with_variable_and_flag() {
        let mut checker = Checker::new(&command());
        let second = Duration::from_secs(1);
        checker.duration("PORCHLIGHT_BODY_TIMEOUT", "5", second..=second * 9);
        checker.count("PORCHLIGHT_CONNECTIONS_MAX", "many", 1..=9);
        checker.address("PORCHLIGHT_LISTEN", "localhost");
        let shown = checker.finish().unwrap_err().to_string();
        assert!(shown.contains("3 settings are wrong"), "{shown}");
        assert!(
            shown.contains("PORCHLIGHT_BODY_TIMEOUT (--body-timeout): \"5\""),
            "{shown}"
        );
        assert!(
            shown.contains("--connections-max") && shown.contains("--listen"),
            "{shown}"
        );
    }

    #[test]
    fn an_empty_value_means_the_default_of_the_flag() {
        let mut checker = Checker::new(&command());
        let bounds = Duration::ZERO..=Duration::from_secs(9);
        assert_eq!(
            checker.duration("PORCHLIGHT_BODY_TIMEOUT", " ", bounds),
            Duration::from_secs(2)
        );
        assert_eq!(
            checker.optional_secret("PORCHLIGHT_ADMIN_TOKEN", Some(""), 16),
            None
        );
        checker.finish().unwrap();
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_with_both_bounds() {
        let mut checker = Checker::new(&command());
        checker.bytes("PORCHLIGHT_BODY_BYTES_MAX", "3GiB", 1024..=1024 * 1024);
        let shown = checker.finish().unwrap_err().to_string();
        assert!(
            shown.contains("3GiB is out of bounds; it must be 1KiB to 1MiB"),
            "{shown}"
        );
    }

    #[test]
    fn no_secret_is_ever_shown() {
        let mut checker = Checker::new(&command());
        checker.optional_secret("PORCHLIGHT_ADMIN_TOKEN", Some("hush"), 16);
        checker.parsed("PORCHLIGHT_AMQP_URL", "hush", |_| {
            Err::<(), _>("is not an address")
        });
        let problems = checker.finish().unwrap_err();
        assert!(!format!("{problems} {problems:?} {:?}", Secret::new("hush")).contains("hush"));
    }

    #[test]
    fn a_secret_matches_itself_only() {
        let secret = Secret::new("correct horse");
        assert!(secret.matches(b"correct horse"));
        for wrong in [
            "",
            "correct hors",
            "correct horse ",
            "correct_horse",
            "Correct horse",
        ] {
            assert!(!secret.matches(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn flags_and_variables_have_the_same_name() {
        assert_eq!(flag("PORCHLIGHT_ADMIN_LISTEN"), "--admin-listen");
        assert_eq!(inconsistent_flags(&command()), Vec::<String>::new());
        let odd = Command::new("t").arg(Arg::new("a").long("listen").env("PORCHLIGHT_LISTN").help("h"));
        assert_eq!(inconsistent_flags(&odd).len(), 2);
    }

    #[test]
    fn a_choice_is_one_of_its_words() {
        let mut checker = Checker::new(&command());
        let choices = [("text", 1), ("json", 2)];
        assert_eq!(checker.choice("PORCHLIGHT_LOG_FORMAT", "json", &choices), 2);
        checker.choice("PORCHLIGHT_LOG_FORMAT", "xml", &choices);
        assert!(
            checker
                .finish()
                .unwrap_err()
                .to_string()
                .contains("\"xml\" is none of text, json")
        );
    }
}
