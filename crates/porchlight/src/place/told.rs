//! Flags together with how each was given: on the command line, in the environment, or not at all.
//!
//! It knows no flag by name; what follows from it is decided in [`super`].

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Id};

/// The arguments `A`, and which of them stood on the command line.
#[derive(Debug)]
pub(crate) struct Told<A> {
    pub(crate) args: A,
    on_command_line: Vec<Id>,
}

impl<A> Told<A> {
    /// Whether this flag, by the name of its field, stood on the command line.
    pub(crate) fn is_flag(&self, field: &str) -> bool {
        self.on_command_line.iter().any(|id| id.as_str() == field)
    }
}

fn on_command_line(matches: &ArgMatches) -> Vec<Id> {
    let typed = |id: &&Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    matches.ids().filter(typed).cloned().collect()
}

impl<A: FromArgMatches> FromArgMatches for Told<A> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Ok(Self {
            args: A::from_arg_matches(matches)?,
            on_command_line: on_command_line(matches),
        })
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        // Reading takes the values out, so this is to be looked at before.
        let on_command_line = on_command_line(matches);
        Ok(Self {
            args: A::from_arg_matches_mut(matches)?,
            on_command_line,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.on_command_line = on_command_line(matches);
        self.args.update_from_arg_matches(matches)
    }
}

impl<A: Args> Args for Told<A> {
    fn augment_args(command: Command) -> Command {
        A::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        A::augment_args_for_update(command)
    }

    fn group_id() -> Option<Id> {
        A::group_id()
    }
}
