//! Which place is meant, from how each was named: a flag, a variable, or nothing.
//!
//! Pure: it opens nothing and knows no address.

use crate::failure::Failure;

/// How something was named; the later overrules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Named {
    No,
    Variable,
    Flag,
}

/// Everything that may name a place, and what each command makes of variables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wishes {
    pub(super) data_dir: Named,
    pub(super) api: Named,
    pub(super) servers: Named,
    /// Of two variables, whether the API's counts more than the servers'.
    pub(super) api_before_servers: bool,
    /// Whether a standalone has run in the default directory.
    pub(super) is_default_dir: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Servers,
    Directory,
    DefaultDirectory,
    Api,
}

impl Wishes {
    /// The one place that is meant.
    pub(super) fn choose(self) -> Result<Choice, Failure> {
        let Self {
            data_dir,
            api,
            servers,
            ..
        } = self;
        let flagged = [data_dir, api, servers]
            .iter()
            .filter(|named| **named == Named::Flag)
            .count();
        if flagged > 1 {
            return Err(Failure::usage(
                "the flags name two places: --data-dir is one, --api is one, --amqp-url and --redis-url are one",
            )
            .advise("leave out all but one"));
        }
        let strongest = data_dir.max(api).max(servers);
        if strongest == Named::Variable && data_dir == strongest && servers == strongest {
            return Err(Failure::usage(
                "the variables name two places: PORCHLIGHT_DATA_DIR is a standalone, PORCHLIGHT_AMQP_URL and \
                 PORCHLIGHT_REDIS_URL are the scaled form",
            )
            .advise("say which with a flag, such as --data-dir DIR, or empty one: PORCHLIGHT_DATA_DIR= porchlight …"));
        }
        Ok(match strongest {
            Named::No if self.is_default_dir => Choice::DefaultDirectory,
            Named::No => Choice::Servers,
            _ if data_dir == strongest => Choice::Directory,
            _ if api == strongest && (servers < strongest || self.api_before_servers) => Choice::Api,
            _ => Choice::Servers,
        })
    }
}

/// How a setting was named.
pub(super) fn named(is_given: bool, is_flag: bool) -> Named {
    match (is_given, is_flag) {
        (false, _) => Named::No,
        (true, false) => Named::Variable,
        (true, true) => Named::Flag,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use Named::{Flag, No, Variable};

    /// What is chosen from (directory, API, servers), by a command about queues or about devices.
    fn choice(data_dir: Named, api: Named, servers: Named, api_before_servers: bool) -> Option<Choice> {
        let wishes = Wishes {
            data_dir,
            api,
            servers,
            api_before_servers,
            is_default_dir: false,
        };
        wishes.choose().ok()
    }

    #[test]
    fn a_flag_overrules_every_variable() {
        for first in [true, false] {
            assert_eq!(choice(Flag, Variable, Variable, first), Some(Choice::Directory));
            assert_eq!(choice(Variable, Flag, Variable, first), Some(Choice::Api));
            assert_eq!(choice(Variable, Variable, Flag, first), Some(Choice::Servers));
        }
    }

    #[test]
    fn two_flags_for_two_places_are_refused() {
        for (data_dir, api, servers) in [
            (Flag, Flag, No),
            (Flag, No, Flag),
            (No, Flag, Flag),
            (Flag, Flag, Flag),
        ] {
            assert_eq!(
                choice(data_dir, api, servers, true),
                None,
                "{data_dir:?} {api:?} {servers:?}"
            );
        }
    }

    #[test]
    fn of_variables_a_directory_and_a_server_are_refused_and_the_rest_has_an_order() {
        for first in [true, false] {
            assert_eq!(choice(Variable, No, Variable, first), None);
            assert_eq!(choice(Variable, Variable, Variable, first), None);
            assert_eq!(choice(Variable, Variable, No, first), Some(Choice::Directory));
            assert_eq!(choice(No, Variable, No, first), Some(Choice::Api));
        }
        assert_eq!(choice(No, Variable, Variable, true), Some(Choice::Api));
        assert_eq!(choice(No, Variable, Variable, false), Some(Choice::Servers));
    }

    #[test]
    fn with_nothing_named_a_default_directory_comes_before_default_servers() {
        assert_eq!(choice(No, No, No, false), Some(Choice::Servers));
        let wishes = |servers| Wishes {
            data_dir: No,
            api: No,
            servers,
            api_before_servers: true,
            is_default_dir: true,
        };
        assert_eq!(wishes(No).choose().unwrap(), Choice::DefaultDirectory);
        assert_eq!(wishes(Variable).choose().unwrap(), Choice::Servers);
    }
}
