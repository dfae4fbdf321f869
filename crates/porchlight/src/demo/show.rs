//! The demo's lines for a person: each scene as it was seen, then the summary.
//!
//! It prints nothing and judges nothing; what is wrong was found before.

use super::check::Verdict;
use super::facts::{CommandFacts, EndFacts, Facts, RequestFacts, SceneFacts, StepFacts};
use super::paint::{Paint, Tone};
use crate::output::short;

/// Columns of a terminal that every line fits in.
pub(super) const WIDTH: usize = 80;
/// Columns of a scene's name with the space after it.
const NAME: usize = 13;
/// Columns of what was sent, unless a scene has longer words.
const SENT: usize = 15;
/// Columns before what was sent: two of indent, the time, two of space.
const BEFORE_SENT: usize = 10;
/// Columns of answer and outcome with the spaces around them.
const BETWEEN: usize = 20;

/// The head of the columns.
pub(super) fn head(paint: Paint) -> String {
    let line = format!(
        "  {:>6}  {:<SENT$}  {:<3}  {:<11}  why",
        "when", "event", "", "became"
    );
    paint.tone(Tone::Quiet, &line)
}

/// One scene: its title, what was sent and became, how the device stands, and whether all is right.
pub(super) fn scene(title: &str, seen: &SceneFacts, paint: Paint) -> Vec<String> {
    let mut lines = vec![format!(
        "{}{title}",
        paint.tone(Tone::Strong, &format!("{:<NAME$}", seen.name))
    )];
    let sent = seen.steps.iter().filter_map(|step| match step {
        StepFacts::Request(request) => Some(request.sent.len()),
        StepFacts::Note(_) => None,
    });
    let width = sent.max().unwrap_or_default().max(SENT);
    for step in &seen.steps {
        match step {
            StepFacts::Request(request) => lines.extend(request_lines(request, width, paint)),
            StepFacts::Note(note) => {
                lines.push(paint.tone(Tone::Odd, &format!("{:BEFORE_SENT$}{note}", "")));
            }
        }
    }
    if seen.differences.is_empty() {
        let end = seen.end.as_ref().map_or("as it must be".to_owned(), standing);
        lines.push(format!("  {} {end}", paint.mark(true)));
    }
    for difference in &seen.differences {
        let wrapped = wrap(&short(difference), WIDTH - 8);
        for (number, part) in wrapped.iter().enumerate() {
            lines.push(if number == 0 {
                format!("  {} {part}", paint.mark(false))
            } else {
                format!("        {part}")
            });
        }
    }
    lines
}

fn request_lines(request: &RequestFacts, width: usize, paint: Paint) -> Vec<String> {
    let status = request.status.map_or("-".to_owned(), |status| status.to_string());
    let status_tone = match request.status {
        Some(200) => Tone::Good,
        _ => Tone::Odd,
    };
    let (word, tone) = outcome(&request.outcome);
    let begin = format!(
        "  {:>6}  {:<width$}  {}  {}  ",
        request.happened,
        request.sent,
        paint.tone(status_tone, &format!("{status:<3}")),
        paint.tone(tone, &format!("{word:<11}")),
    );
    let indent = BEFORE_SENT + width + BETWEEN;
    let reasons = wrap(&short(&request.reason), WIDTH - indent);
    let mut lines = vec![begin];
    for (number, reason) in reasons.iter().enumerate() {
        if number > 0 {
            lines.push(" ".repeat(indent));
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(&paint.tone(Tone::Quiet, reason));
        }
    }
    lines.extend(
        request
            .commands
            .iter()
            .map(|command| command_line(command, paint)),
    );
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

fn command_line(command: &CommandFacts, paint: Paint) -> String {
    let told = format!(
        "{} {} {}, generation {}",
        paint.arrow(),
        short(&command.action),
        short(&command.operation),
        command.generation
    );
    let again = match command.refused {
        0 => "",
        1 => " (refused once, and sent again)",
        _ => " (refused, and sent again)",
    };
    format!("{:BEFORE_SENT$}{}{again}", "", paint.tone(Tone::Command, &told))
}

fn standing(end: &EndFacts) -> String {
    short(&format!(
        "{}; {} {}, generation {}",
        end.status, end.operation, end.state, end.generation
    ))
}

fn outcome(code: &str) -> (&str, Tone) {
    match code {
        "applied" => ("applied", Tone::Good),
        "later" => ("waits", Tone::Odd),
        "dead" => ("dead letter", Tone::Odd),
        "not_stored" => ("not stored", Tone::Odd),
        "" => ("nothing yet", Tone::Bad),
        other => (other, Tone::Plain),
    }
}

/// What all of it comes to.
pub(super) fn summary(facts: &Facts, verdicts: &[Verdict], seconds: f64, paint: Paint) -> Vec<String> {
    let (stored, refused) = (facts.answered(200), facts.answered(401));
    let requests = facts.requests().count();
    let words = [
        ("applied", "applied"),
        ("duplicate", "duplicate"),
        ("stale", "stale"),
        ("refused", "refused"),
        ("recorded", "recorded"),
        ("later", "waiting"),
        ("dead", "dead letter"),
    ];
    let became: Vec<String> = words
        .iter()
        .map(|(code, word)| (facts.count(code), word))
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    let commands: Vec<&CommandFacts> = facts.commands().collect();
    let verified = commands.iter().filter(|command| command.verified).count();
    let mut lines = vec![
        paint.tone(Tone::Strong, "Summary"),
        format!("  requests  {requests}: {stored} answered 200, {refused} answered 401"),
        became_line(&became),
        format!(
            "  commands  {}, {verified} of them with a right signature",
            commands.len()
        ),
        format!("  took      {seconds:.1} s"),
        String::new(),
        paint.tone(Tone::Strong, "Promises"),
    ];
    let width = verdicts
        .iter()
        .map(|verdict| verdict.promise.len())
        .max()
        .unwrap_or_default();
    lines.extend(verdicts.iter().map(|verdict| {
        format!(
            "  {} {:<width$}  {}",
            paint.mark(verdict.kept),
            verdict.promise,
            verdict.figure
        )
    }));
    lines
}

/// What the stored ones became, over as many lines as it takes.
fn became_line(became: &[String]) -> String {
    let lines = wrap(&became.join(", "), WIDTH - 12);
    format!("  became    {}", lines.join("\n            "))
}

/// Words in lines of at most `width` columns; a longer word has a line of its own.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
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
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::demo::check::{differences, right_facts, verdicts};

    fn all(paint: Paint) -> Vec<String> {
        let (scenes, facts) = right_facts();
        let told = scenes
            .iter()
            .zip(&facts.scenes)
            .flat_map(|(story, seen)| scene(story.title, seen, paint));
        let verdicts = verdicts(&scenes, &facts);
        std::iter::once(head(paint))
            .chain(told)
            .chain(summary(&facts, &verdicts, 2.04, paint))
            .flat_map(|line| line.split('\n').map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn every_line_fits_and_none_ends_with_spaces() {
        for line in all(Paint::plain()) {
            assert!(
                line.chars().count() <= WIDTH && line.trim_end() == line,
                "{line:?} has {}",
                line.chars().count()
            );
            assert!(line.is_ascii(), "{line:?}");
        }
    }

    #[test]
    fn a_scene_tells_what_was_sent_and_what_came_of_it() {
        let lines = all(Paint::plain());
        let begin = lines
            .iter()
            .position(|line| line.starts_with("front-door"))
            .unwrap();
        let wanted = [
            "front-door   goes offline and comes back; Ring says so three times",
            "   -9:00  device_offline   200  applied      the newest news of its kind",
            "          -> pause nightly-snapshot, generation 1",
            "   -7:30  device_online    200  applied      the newest news of its kind",
            "          -> resume nightly-snapshot, generation 1",
            "   -7:30  the same again   200  duplicate    the same event or request was seen",
            "                                             before",
        ];
        assert_eq!(lines[begin..begin + wanted.len()], wanted);
        assert!(lines.contains(&"  ok online; nightly-snapshot running, generation 1".to_owned()));
    }

    #[test]
    fn what_is_wrong_stands_under_its_scene() {
        let (scenes, mut facts) = right_facts();
        facts.scenes[0].end = None;
        facts.scenes[0].differences = differences(&scenes[0], &facts.scenes[0]);
        let lines = scene(scenes[0].title, &facts.scenes[0], Paint::plain());
        let last = lines[lines.len() - 2..].join("\n");
        assert!(
            last.starts_with("  WRONG at the end it must be online") && last.ends_with("is not known"),
            "{last}"
        );
        assert!(
            lines.iter().all(|line| line.chars().count() <= WIDTH),
            "{lines:?}"
        );
    }

    #[test]
    fn words_wrap_and_a_long_one_stands_alone() {
        assert_eq!(wrap("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrap("a loooong b", 4), ["a", "loooong", "b"]);
    }
}
