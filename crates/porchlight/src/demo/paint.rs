//! How the demo looks: a little colour and a few signs, where whoever reads can see them.
//!
//! It knows nothing of what is shown.

use std::io::IsTerminal as _;

/// Which means there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    colour: bool,
    unicode: bool,
}

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Strong,
    Quiet,
    Good,
    Bad,
    Odd,
    Command,
}

impl Paint {
    /// What standard output can show: colour on a terminal, unless `NO_COLOR` is set or the terminal is dumb; signs
    /// beyond ASCII where the locale has them.
    pub(super) fn of_stdout() -> Self {
        let given = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let dumb = given("TERM").is_none_or(|terminal| terminal == "dumb");
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(given);
        Self {
            colour: std::io::stdout().is_terminal() && !dumb && given("NO_COLOR").is_none(),
            unicode: locale.is_some_and(|locale| is_unicode(&locale)),
        }
    }

    /// Nothing but ASCII.
    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self {
            colour: false,
            unicode: false,
        }
    }

    /// `text` in its tone.
    pub(super) fn tone(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Strong => "1",
            Tone::Quiet => "2",
            Tone::Good => "32",
            Tone::Bad => "1;31",
            Tone::Odd => "33",
            Tone::Command => "36",
        };
        if self.colour && !text.is_empty() {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// The sign of something that is as it must be, or not.
    pub(super) fn mark(self, right: bool) -> String {
        match (self.unicode, right) {
            (true, true) => self.tone(Tone::Good, "✓"),
            (true, false) => self.tone(Tone::Bad, "✗"),
            (false, true) => self.tone(Tone::Good, "ok"),
            (false, false) => self.tone(Tone::Bad, "WRONG"),
        }
    }

    /// The sign of what follows from the line above.
    pub(super) fn arrow(self) -> &'static str {
        if self.unicode { "→" } else { "->" }
    }
}

fn is_unicode(locale: &str) -> bool {
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_and_signs_are_only_where_they_can_be_seen() {
        let plain = Paint::plain();
        assert_eq!(
            plain.tone(Tone::Bad, "x") + &plain.mark(true) + plain.arrow(),
            "xok->"
        );
        let rich = Paint {
            colour: true,
            unicode: true,
        };
        assert_eq!(rich.mark(true), "\u{1b}[32m✓\u{1b}[0m");
        assert_eq!(rich.tone(Tone::Plain, "x"), "x");
    }

    #[test]
    fn a_locale_says_whether_there_are_signs_beyond_ascii() {
        assert!(is_unicode("C.UTF-8") && is_unicode("de_DE.utf8"));
        assert!(!is_unicode("C") && !is_unicode("POSIX"));
    }
}
