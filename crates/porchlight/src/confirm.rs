//! Consent: the proof that an operator wants something changed for good.
//!
//! What changes or removes asks for a [`Consent`] in its signature, so the check cannot be forgotten.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use crate::failure::Failure;

/// Proof that the operator agreed. Only this module makes one.
#[derive(Debug)]
pub(crate) struct Consent(());

/// The flag that gives consent.
#[derive(clap::Args)]
pub(crate) struct YesArgs {
    /// Really do it
    #[arg(long)]
    yes: bool,
}

impl YesArgs {
    /// The proof, when `--yes` was given.
    pub(crate) fn given(&self) -> Option<Consent> {
        self.yes.then_some(Consent(()))
    }

    /// The proof, when `--yes` was given or somebody at the terminal agrees to `question`.
    pub(crate) fn given_or_asked(&self, question: &str) -> Result<Consent, Failure> {
        if let Some(consent) = self.given() {
            return Ok(consent);
        }
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Err(Failure::usage(format!(
                "{} needs --yes",
                question.trim_end_matches('?')
            )));
        }
        // Where nothing can be written nobody reads the question, and no answer is a no.
        let _ = write!(std::io::stderr(), "{} [y/N] ", crate::output::plain(question));
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
            Ok(Consent(()))
        } else {
            Err(Failure::failed("nothing was changed"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_consent() {
        assert!(YesArgs { yes: false }.given().is_none());
        assert!(YesArgs { yes: true }.given().is_some());
    }
}
