//! Finds variables that begin like ours and are none of ours: a mistyped setting would otherwise be ignored in silence.
//!
//! It is no error: a shared environment file may hold the settings of every daemon.

use super::PREFIX;

/// Most single-letter edits between a mistyped name and the one that was meant.
const EDITS_MAX: usize = 2;

/// A variable with our prefix that this process does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// The known name it resembles, if there is one.
    pub meant: Option<String>,
}

/// The variables among `present` that begin with `PORCHLIGHT_` and belong to no flag of `command`.
pub fn unknown_variables(
    command: &clap::Command,
    present: impl IntoIterator<Item = String>,
) -> Vec<UnknownVariable> {
    let known: Vec<&str> = command
        .get_arguments()
        .filter_map(|arg| arg.get_env().and_then(|name| name.to_str()))
        .collect();
    let mut found: Vec<_> = present
        .into_iter()
        .filter(|name| name.starts_with(PREFIX) && !known.contains(&name.as_str()))
        .map(|name| {
            let near = known.iter().map(|known| (edits(&name, known), *known)).min();
            let meant = near
                .filter(|(edits, _)| *edits <= EDITS_MAX)
                .map(|(_, known)| known.to_owned());
            UnknownVariable { name, meant }
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Logs what [`unknown_variables`] finds in this process's environment: a likely typing mistake as a warning, the rest
/// for information. Values are not read.
pub fn warn_of_unknown_variables(command: &clap::Command) {
    for UnknownVariable { name, meant } in unknown_variables(command, present()) {
        match meant {
            Some(meant) => tracing::warn!(
                setting = name,
                meant,
                "unknown setting in the environment is ignored"
            ),
            None => tracing::info!(
                setting = name,
                "setting in the environment is not used by this process"
            ),
        }
    }
}

/// The same for a start that failed, where there may be no log: each likely typing mistake as a line, or nothing. A
/// setting that is required and missing may well be there under a wrong name.
pub(super) fn mistyped_variables(command: &clap::Command) -> String {
    unknown_variables(command, present())
        .into_iter()
        .filter_map(|UnknownVariable { name, meant }| Some((name, meant?)))
        .map(|(name, meant)| format!("{name} is unknown and was ignored; is {meant} meant?\n"))
        .collect()
}

/// The names in this process's environment; one that is empty counts as not set.
fn present() -> impl Iterator<Item = String> {
    std::env::vars_os()
        .filter(|(_, value)| !value.is_empty())
        .filter_map(|(name, _)| name.into_string().ok())
}

/// Single-letter insertions, deletions and replacements between two names.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (line, a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_variable_is_found_with_what_was_meant() {
        let arg = |name: &'static str| clap::Arg::new(name).env(name);
        let command = clap::Command::new("t")
            .arg(arg("PORCHLIGHT_LISTEN"))
            .arg(arg("PORCHLIGHT_SIGNING_KEYS"));
        let present = [
            "PORCHLIGHT_SIGNING_KEY",
            "PORCHLIGHT_REDIS_URL",
            "PORCHLIGHT_LISTEN",
            "HOME",
        ];
        let found = unknown_variables(&command, present.map(str::to_owned));
        let expected = [
            ("PORCHLIGHT_REDIS_URL", None),
            ("PORCHLIGHT_SIGNING_KEY", Some("PORCHLIGHT_SIGNING_KEYS")),
        ];
        let expected = expected.map(|(name, meant)| UnknownVariable {
            name: name.to_owned(),
            meant: meant.map(str::to_owned),
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits("abc", "abc"), 0);
        assert_eq!(edits("abc", "abd"), 1);
        assert_eq!(edits("abc", "ab"), 1);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
