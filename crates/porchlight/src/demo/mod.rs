//! `porchlight demo`: everything at work in some seconds, with nothing installed and nothing left behind.
//!
//! It runs the real process over real HTTP on free ports, and judges the outcome itself. It touches no other service.

mod check;
mod control;
mod directory;
mod facts;
mod keep;
mod paint;
mod play;
mod receiver;
mod show;
mod stage;
mod story;

use std::time::Instant;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::failure::{EXIT_CODES, Failure};
use crate::output::{Output, date};
use check::{Verdict, differences, verdicts};
use facts::Facts;
use paint::{Paint, Tone};
use play::Player;
use stage::Stage;
use story::{Scene, scenes};

/// Shows everything at work in some seconds, and checks that it is right. Nothing needs to be installed.
///
/// Starts `standalone` in this process on free ports, with a temporary directory and secrets of its own, and a small
/// receiver of commands. Then some minutes of Ring's life are sent as Ring sends them, signed, over HTTP, and what
/// became of each event is shown and compared with what must become of it. Nothing is left behind.
#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct DemoArgs {
    /// Leave it running until Ctrl-C, and print commands to look further
    #[arg(long)]
    keep: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    ok: bool,
    /// The time that the story is told from.
    start: String,
    seconds: f64,
    requests: usize,
    slowest_ms: f64,
    #[serde(flatten)]
    facts: &'a Facts,
    promises: &'a [Verdict],
    #[serde(skip_serializing_if = "Option::is_none")]
    running: Option<keep::Running>,
}

/// Plays the story and tells it. Fails when anything is not as it must be.
pub(crate) async fn run(args: DemoArgs, output: Output, stop: CancellationToken) -> Result<(), Failure> {
    let mut stage = Stage::set().await?;
    let ended = on(&mut stage, &args, output, &stop).await;
    // What the story shows comes first, how the process ended second.
    let closed = stage.close().await;
    ended.and(closed)
}

async fn on(
    stage: &mut Stage,
    args: &DemoArgs,
    output: Output,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let paint = Paint::of_stdout();
    let played = stop.run_until_cancelled(play(stage, args, output, paint)).await;
    let wrong =
        played.unwrap_or_else(|| Err(Failure::failed("stopped by a signal; nothing is left behind")))?;
    if args.keep {
        keep::keep(stage, output, paint, stop).await?;
    } else if wrong == 0 {
        tell(output, || further(paint));
    }
    match wrong {
        0 => Ok(()),
        1 => Err(Failure::failed(
            "one thing is not as it must be; it is marked above",
        )),
        count => Err(Failure::failed(format_args!(
            "{count} things are not as they must be; they are marked above"
        ))),
    }
}

/// Plays the story, up to the first scene in which something is not as it must be; how many things are not.
async fn play(stage: &mut Stage, args: &DemoArgs, output: Output, paint: Paint) -> Result<usize, Failure> {
    let (begun, start_ms, scenes) = (Instant::now(), now_ms(), scenes());
    tell(output, || introduction(stage, &scenes, paint));
    let mut facts = Facts::default();
    let mut player = Player::new(stage, start_ms)?;
    player.register(&scenes).await?;
    for scene in &scenes {
        let mut seen = player.scene(scene).await?;
        seen.differences = differences(scene, &seen);
        tell(output, || show::scene(scene.title, &seen, paint));
        facts.scenes.push(seen);
        // What comes after it would only go wrong for the same reason.
        if facts.wrong() > 0 {
            break;
        }
    }
    player.finish(&mut facts).await?;
    let verdicts = match facts.wrong() {
        0 => verdicts(&scenes, &facts),
        _ => Vec::new(),
    };
    let wrong = facts.wrong() + verdicts.iter().filter(|verdict| !verdict.kept).count();
    let seconds = begun.elapsed().as_secs_f64();
    if output.is_json() {
        output.document(&Document {
            ok: wrong == 0,
            start: date(Some(start_ms)),
            seconds,
            requests: facts.requests().count(),
            slowest_ms: facts.slowest_ms(),
            facts: &facts,
            promises: &verdicts,
            running: args.keep.then(|| keep::Running::of(stage)),
        });
    }
    if facts.wrong() == 0 {
        tell(output, || show::summary(&facts, &verdicts, seconds, paint));
    }
    Ok(wrong)
}

/// Prints lines for a person, with an empty one after them.
fn tell(output: Output, lines: impl FnOnce() -> Vec<String>) {
    if !output.is_json() {
        for line in lines() {
            output.line(line);
        }
        output.line("");
    }
}

fn introduction(stage: &Stage, scenes: &[Scene], paint: Paint) -> Vec<String> {
    let devices = scenes.iter().filter(|scene| scene.actor.is_some()).count();
    vec![
        paint.tone(Tone::Strong, "Porchlight in some seconds, with nothing installed"),
        String::new(),
        format!("{devices} devices, each with an operation that must rest while its device is away."),
        "Everything here is real: requests over HTTP, signed as Ring signs them; one".to_owned(),
        "process that stores them in one SQLite file; and a small receiver of commands".to_owned(),
        "that checks the signature of each. Times are minutes before now.".to_owned(),
        String::new(),
        format!("  webhooks  {}", stage.webhook_url()),
        format!("  commands  {}", stage.receiver.url()),
        format!("  data      {}", stage.data_dir().display()),
        String::new(),
        show::head(paint),
    ]
}

fn further(paint: Paint) -> Vec<String> {
    let program = keep::invocation();
    vec![
        paint.tone(Tone::Strong, "Look further"),
        format!("  {program} demo --keep"),
        "      leaves it running, and prints commands to try on it".to_owned(),
        format!("  {program} standalone --help"),
        "      the same process, for your own devices".to_owned(),
    ]
}
