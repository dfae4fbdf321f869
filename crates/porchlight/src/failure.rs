//! How a command ends: the exit codes, and one error line with its causes and what to try.
//!
//! It prints nothing of a body, a key or a password: whoever makes a failure writes what is shown.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// The exit codes, as the help of every command shows them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0   done, and everything is as it should be
  1   done, but something asked for failed or an outcome is wrong
  64  a flag or a setting is wrong; nothing was done
  69  a server cannot be reached, or refuses to work
";

/// Which exit code a failure has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Something asked for failed, or an outcome is wrong.
    Failed = 1,
    /// What was looked at has errors; the doctor's alone, whose help says so.
    Errors = 2,
    /// A flag or a setting is wrong.
    Usage = 64,
    /// A server is away.
    Unavailable = 69,
}

/// Why a command could not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    line: Option<String>,
    advice: Option<String>,
}

impl Failure {
    /// Something asked for failed.
    pub(crate) fn failed(what: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, what)
    }

    /// A flag or a setting is wrong.
    pub(crate) fn usage(what: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// A server is away.
    pub(crate) fn unavailable(what: impl fmt::Display) -> Self {
        Self::new(Exit::Unavailable, what)
    }

    /// The outcome is wrong and the output has said so already.
    pub(crate) fn told() -> Self {
        Self {
            exit: Exit::Failed,
            line: None,
            advice: None,
        }
    }

    /// What was looked at has errors, and the output has said so already.
    pub(crate) fn told_errors() -> Self {
        Self {
            exit: Exit::Errors,
            ..Self::told()
        }
    }

    fn new(exit: Exit, what: impl fmt::Display) -> Self {
        Self {
            exit,
            line: Some(what.to_string()),
            advice: None,
        }
    }

    /// Adds an error and everything that caused it to the line.
    #[must_use]
    pub(crate) fn because(mut self, error: &dyn Error) -> Self {
        if let Some(line) = &mut self.line {
            line.push_str(": ");
            line.push_str(&chain(error));
        }
        self
    }

    /// Adds what the reader can try.
    #[must_use]
    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// The line, for who shows it among others.
    pub(crate) fn words(&self) -> &str {
        self.line.as_deref().unwrap_or("failed")
    }

    /// The line, for whoever tells it in another form.
    pub(crate) fn line(&self) -> &str {
        self.line.as_deref().unwrap_or_default()
    }

    /// Tells it on standard error; the code to exit with.
    #[expect(
        clippy::print_stderr,
        reason = "the reader of a failed command is at standard error"
    )]
    pub(crate) fn report(&self) -> ExitCode {
        if let Some(line) = &self.line {
            eprintln!("error: {}", crate::output::plain(line));
        }
        if let Some(advice) = &self.advice {
            eprintln!("try:   {}", crate::output::plain(advice));
        }
        ExitCode::from(self.exit as u8)
    }
}

#[cfg(test)]
impl Failure {
    /// The code, for a test.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

/// An error and its causes in one line. A cause that its parent quotes already is left out.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the outer step failed")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_failure_is_one_line_with_its_causes() {
        let failure = Failure::unavailable("cannot look").because(&Outer(std::io::Error::other("no route")));
        assert_eq!(failure.line(), "cannot look: the outer step failed: no route");
        assert_eq!(failure.exit(), Exit::Unavailable);
    }

    #[test]
    fn every_exit_code_is_in_the_help() {
        for exit in [Exit::Failed, Exit::Usage, Exit::Unavailable] {
            assert!(EXIT_CODES.contains(&format!("\n  {} ", exit as u8)), "{exit:?}");
        }
    }
}
