//! `porchlight dead replay`: sends dead letters round again, each gone only when its copy is confirmed.
//!
//! Without `--yes` it says what that would do now, and changes nothing. It never shows or writes a body.

use porchlight_event::replay::{Action, Wish};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::doing::{DoingArgs, Picker, Report, do_it};
use super::facts::Row;
use super::forecast::{Forecast, Outlook};
use super::letters::{Letters, Look, Peeked, Sight};
use super::list::held_max;
use super::predict::{BATCH_LETTERS, Predictor, ask_standalone};
use crate::confirm::YesArgs;
use crate::failure::Failure;
use crate::keys::KeySourceArgs;
use crate::output::{Output, Table, bar};
use crate::place::QueueArgs;

/// Digits of a message id in a list; `dead show` takes a beginning.
const ID_DIGITS: usize = 12;
/// Most letters that are told one by one: what this process remembers of them.
const LIMIT_MAX: i64 = 100_000;

/// Sends dead letters back to the queue that they came from; without --yes it only says what that would do now.
///
/// Repair the cause first, or they come back: without --yes each letter is decided as a worker would decide it, and the
/// ledger is asked what it would do, which changes nothing.
///
/// A letter is gone from the dead letters only when its copy is confirmed, so a run that is cut off loses nothing; on
/// RabbitMQ it may leave a copy of up to 20 letters beside them, which the workers take for what it is, a duplicate.
/// Ctrl-C lets what is under way be settled; the same command again goes on. Letters that die while it runs are not
/// touched. A command that no receiver took is owed again under its own id, or dropped when a newer one has overtaken
/// it. For each letter one line of JSON goes to --audit-file, or to standard error.
#[derive(clap::Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    doing: DoingArgs,
    #[command(flatten)]
    yes: YesArgs,
    /// Also letters that were replayed 3 times already
    #[arg(long)]
    force: bool,
    /// Without --yes: most letters whose prediction is told one by one; all are summed up
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(0..=LIMIT_MAX))]
    limit: i64,
    #[command(flatten)]
    keys: KeySourceArgs,
    #[command(flatten)]
    place: QueueArgs,
}

/// What a replay would do.
#[derive(Serialize)]
struct DryRun {
    #[serde(flatten)]
    report: Report,
    /// What would become of those that would be replayed, summed up.
    prediction: Outlook,
    /// And one by one, the first of them.
    letters: Vec<Foretold>,
}

/// What would become of one letter.
#[derive(Serialize)]
struct Foretold {
    message_id: String,
    reason: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    device_id: Option<String>,
    replays: u32,
    prediction: Forecast,
}

/// Replays, or says what that would do.
pub(crate) async fn run(args: ReplayArgs, output: Output, stop: &CancellationToken) -> Result<(), Failure> {
    let letters = Letters::at(args.place.place()?);
    if let Some(consent) = args.yes.given() {
        let done = do_it(&args.doing, Action::Replay, args.force, &letters, stop, consent);
        return done.await?.tell(output);
    }
    let dry = DryRun::of(&args, &letters, stop).await?;
    dry.print(output);
    if dry.report.stopped_by.is_some() {
        Err(Failure::told())
    } else {
        Ok(())
    }
}

impl DryRun {
    async fn of(args: &ReplayArgs, letters: &Letters, stop: &CancellationToken) -> Result<Self, Failure> {
        let keys = args.keys.all()?;
        let mut dry = Self {
            report: Report::dry(Action::Replay),
            prediction: Outlook::default(),
            letters: Vec::new(),
        };
        let sight = Sight {
            text: args.doing.filter.text().map(str::to_owned),
            full: false,
        };
        let mut look = letters.look(sight).await?;
        dry.report.ready = look.ready();
        let limit = usize::try_from(args.limit).unwrap_or(0);
        let looked = match letters {
            Letters::Direct(direct) => {
                let mut predictor = Predictor::new(&direct.ledger, letters.form(), keys.as_ref());
                dry.go(args, &mut look, stop, async |dry, picked| {
                    for Peeked { row, letter, .. } in picked {
                        if let Some(letter) = letter {
                            predictor.push(row, &letter);
                        }
                        if predictor.is_full() {
                            dry.add(predictor.flush().await, limit);
                        }
                    }
                    dry.add(predictor.flush().await, limit);
                    Ok(())
                })
                .await
            }
            Letters::Remote(api) => {
                dry.go(args, &mut look, stop, async |dry, mut picked| {
                    while !picked.is_empty() {
                        let rest = picked.split_off(picked.len().min(BATCH_LETTERS));
                        let part = std::mem::replace(&mut picked, rest);
                        let keys = part.iter().filter_map(|peeked| peeked.key.clone()).collect();
                        let told = ask_standalone(api, keys).await?;
                        let rows = part.into_iter().map(|peeked| peeked.row);
                        let told = rows.zip(told).filter_map(|(row, told)| Some((row, told?)));
                        dry.add(told, limit);
                    }
                    Ok(())
                })
                .await
            }
        };
        dry.report.stopped_by = look.held_max().map(held_max);
        look.close().await;
        looked?;
        if stop.is_cancelled() {
            let signal = || "a signal".to_owned();
            dry.report.stopped_by.get_or_insert_with(signal);
        }
        Ok(dry)
    }

    /// Looks at every letter, and gives those that would be replayed to `predict`, page by page.
    async fn go(
        &mut self,
        args: &ReplayArgs,
        look: &mut Look<'_>,
        stop: &CancellationToken,
        mut predict: impl AsyncFnMut(&mut Self, Vec<Peeked>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut picker = Picker::new(&args.doing, Action::Replay, args.force);
        let bar = bar(self.report.ready as u64, "letters");
        let mut is_enough = false;
        while !is_enough && !stop.is_cancelled() {
            let page = look.page().await?;
            if page.is_empty() {
                break;
            }
            let mut picked = Vec::new();
            for peeked in page {
                match picker.wish(&peeked.row) {
                    Wish::Enough => {
                        is_enough = true;
                        break;
                    }
                    Wish::Leave => self.report.unwanted += 1,
                    Wish::Take if picker.would_be_refused(&peeked.row) => self.report.refused += 1,
                    Wish::Take => {
                        self.report.matching += 1;
                        self.report.by_reason.add(&peeked.row.reason);
                        picked.push(peeked);
                    }
                }
                self.report.looked_at += 1;
            }
            predict(self, picked).await?;
            bar.set_position(self.report.looked_at as u64);
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn add(&mut self, told: impl IntoIterator<Item = (Row, Forecast)>, limit: usize) {
        for (row, prediction) in told {
            self.prediction.add(&prediction);
            if self.letters.len() < limit {
                self.letters.push(Foretold {
                    message_id: row.message_id,
                    reason: row.reason,
                    kind: row.kind,
                    device_id: row.device_id,
                    replays: row.replays,
                    prediction,
                });
            }
        }
    }

    fn print(&self, output: Output) {
        if output.is_json() {
            return output.document(self);
        }
        if !self.letters.is_empty() {
            let mut table = Table::new(["ID", "TYPE", "DIED OF", "WOULD BE NOW"]);
            for letter in &self.letters {
                table.row(&[
                    letter.message_id.chars().take(ID_DIGITS).collect(),
                    letter.kind.clone().unwrap_or_else(|| "-".to_owned()),
                    letter.reason.clone(),
                    letter.prediction.short(),
                ]);
            }
            table.print(output);
            let more = self.report.matching - self.letters.len();
            if more > 0 {
                output.line(format_args!("{more} more are not told one by one; see --limit"));
            }
            output.line("");
        }
        self.report.print(output);
        if self.report.matching > 0 {
            output.line("what would become of them now:");
            self.prediction.print(output);
            output.line("nothing was changed; add --yes to replay them");
        }
    }
}
