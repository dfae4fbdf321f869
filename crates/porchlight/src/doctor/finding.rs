//! What the doctor finds: a check's name, how grave it is, what is wrong, why it matters and what mends it.
//!
//! It looks at nothing itself.

use std::fmt::Display;

use serde::Serialize;

use crate::output::{Output, plain};

/// Columns of a terminal that lines are broken for.
const WIDTH: usize = 100;
/// Columns before the text of a finding.
const INDENT: usize = 9;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing; or it could not be checked.
    Note,
    /// Works, and will hurt one day.
    Warning,
    /// Something does not work, or loses something.
    Error,
}

/// One check's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The check; listed in the operator's pages.
    pub(super) id: &'static str,
    pub(super) severity: Severity,
    /// What is, or what is wrong.
    pub(super) what: String,
    /// Why that matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
    /// What mends it: a command where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mend: Option<String>,
}

/// All findings of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// What was looked at.
    place: String,
    summary: Summary,
    findings: Vec<Finding>,
}

/// How many of each.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
struct Summary {
    errors: usize,
    warnings: usize,
    notes: usize,
    ok: usize,
}

impl Finding {
    /// A check that passed.
    pub(super) fn ok(id: &'static str, what: impl Display) -> Self {
        Self::new(id, Severity::Ok, what)
    }

    /// Something worth knowing.
    pub(super) fn note(id: &'static str, what: impl Display) -> Self {
        Self::new(id, Severity::Note, what)
    }

    /// Something that will hurt.
    pub(super) fn warning(id: &'static str, what: impl Display) -> Self {
        Self::new(id, Severity::Warning, what)
    }

    /// Something that is broken.
    pub(super) fn error(id: &'static str, what: impl Display) -> Self {
        Self::new(id, Severity::Error, what)
    }

    fn new(id: &'static str, severity: Severity, what: impl Display) -> Self {
        Self {
            id,
            severity,
            what: what.to_string(),
            why: None,
            mend: None,
        }
    }

    /// Adds why it matters.
    #[must_use]
    pub(super) fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// Adds what mends it.
    #[must_use]
    pub(super) fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    /// Puts names in place of words in capitals in the command that mends it, so that it can be copied as it is.
    pub(super) fn fill(&mut self, names: &[(&str, &str)]) {
        if let Some(mend) = &mut self.mend {
            for (word, name) in names {
                *mend = mend.replace(word, &shell(name));
            }
        }
    }

    fn print(&self, output: Output) {
        let word = match self.severity {
            Severity::Error => "ERROR",
            Severity::Warning => "WARNING",
            Severity::Note => "note",
            Severity::Ok => "ok",
        };
        let mut head = format!("{word:<INDENT$}");
        for line in wrapped(&format!("{}: {}", self.id, plain(&self.what))) {
            output.line(format_args!("{head}{line}"));
            head = " ".repeat(INDENT);
        }
        if let Some(why) = &self.why {
            self.print_part("why", &plain(why), true, output);
        }
        if let Some(mend) = &self.mend {
            // A command stays on one line, so that it can be copied.
            self.print_part("mend", &plain(mend), false, output);
        }
    }

    fn print_part(&self, word: &str, text: &str, breaks: bool, output: Output) {
        let mut head = format!("{:INDENT$}{word:<5} ", "");
        let lines = if breaks {
            wrapped(text)
        } else {
            vec![text.to_owned()]
        };
        for line in lines {
            output.line(format_args!("{head}{line}"));
            head = " ".repeat(INDENT + 6);
        }
    }
}

impl Report {
    /// Puts the gravest first, and counts.
    pub(super) fn new(place: String, mut findings: Vec<Finding>) -> Self {
        // Stable, so that what belongs together stays together.
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let count = |severity| {
            let same = findings.iter().filter(|finding| finding.severity == severity);
            same.count()
        };
        let summary = Summary {
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            notes: count(Severity::Note),
            ok: count(Severity::Ok),
        };
        Self {
            place,
            summary,
            findings,
        }
    }

    /// The gravest of all.
    pub(super) fn worst(&self) -> Severity {
        let first = self.findings.first();
        first.map_or(Severity::Ok, |finding| finding.severity)
    }

    pub(super) fn print(&self, output: Output) {
        if output.is_json() {
            return output.document(self);
        }
        output.line(plain(&self.place));
        let mut last = None;
        for finding in &self.findings {
            // What needs somebody stands apart; what is well is a plain list.
            if finding.severity >= Severity::Note || last != Some(Severity::Ok) {
                output.line("");
            }
            finding.print(output);
            last = Some(finding.severity);
        }
        let Summary {
            errors,
            warnings,
            notes,
            ok,
        } = self.summary;
        output.line("");
        output.line(format_args!(
            "{}, {}, {}, {ok} ok",
            many(errors, "error"),
            many(warnings, "warning"),
            many(notes, "note")
        ));
    }
}

/// One word to a shell, whatever is in it.
pub(super) fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ':' | '@');
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

fn many(count: usize, word: &str) -> String {
    match count {
        1 => format!("1 {word}"),
        _ => format!("{count} {word}s"),
    }
}

/// Text as lines that fit beside the indent.
fn wrapped(text: &str) -> Vec<String> {
    let width = WIDTH - INDENT - 6;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_comes_first_and_what_is_alike_keeps_its_order() {
        let findings = vec![
            Finding::ok("a", "x"),
            Finding::warning("b", "x"),
            Finding::error("c", "x"),
            Finding::ok("d", "x"),
            Finding::error("e", "x"),
        ];
        let report = Report::new("here".to_owned(), findings);
        let order: Vec<_> = report.findings.iter().map(|finding| finding.id).collect();
        assert_eq!(order, ["c", "e", "b", "a", "d"]);
        assert_eq!(report.worst(), Severity::Error);
        assert_eq!(Report::new(String::new(), Vec::new()).worst(), Severity::Ok);
    }

    #[test]
    fn a_name_in_a_command_is_one_word_to_a_shell() {
        let mut finding = Finding::ok("a", "x").mend("rabbitmqctl list_queues -p VHOST");
        finding.fill(&[("VHOST", "it's $HOME")]);
        assert_eq!(
            finding.mend.as_deref(),
            Some("rabbitmqctl list_queues -p 'it'\\''s $HOME'")
        );
        assert_eq!([shell("/"), shell("")], ["/", "''"]);
    }

    #[test]
    fn long_text_is_broken_between_words_and_nothing_of_it_is_lost() {
        let text = "word ".repeat(60);
        let lines = wrapped(text.trim());
        assert!(lines.len() > 2 && lines.iter().all(|line| line.len() <= WIDTH - INDENT - 6));
        assert_eq!(lines.join(" "), text.trim());
    }
}
