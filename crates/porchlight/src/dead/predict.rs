//! Predicting what a replay would do now, letter by letter: the worker's own decision first, then a question to the
//! ledger that changes nothing.
//!
//! Each letter is predicted by itself, as if it were the only one that is replayed.

use bytes::Bytes;
use porchlight_device::{Command, News, OweAgain};
use porchlight_event::SigningKeys;
use porchlight_event::queue::{DeadLetter, Origin, RetryTier};
use porchlight_ledger::{Ledger, LedgerError};
use porchlight_worker::decide::{Decision, decide};
use serde::{Deserialize, Serialize};

use super::forecast::{Forecast, Fortune};
use crate::clock::now_ms;
use crate::control_api::{ControlApi, read_of_standalone};
use crate::failure::{Failure, chain};

/// Letters that the ledger is asked about at once: enough for round trips not to count, and few megabytes of news.
pub(crate) const BATCH_LETTERS: usize = 128;
/// What a letter died of whose signature a worker did not accept.
const BAD_SIGNATURE: &str = "bad_signature";

/// Where a replay would take letters; tells what a worker there does with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// RabbitMQ and workers: commands have a queue of their own, and a worker may verify signatures again.
    Scaled,
    /// One process: commands are owed by the ledger, and what the edge accepted is trusted.
    Standalone,
}

impl Form {
    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Scaled => "scaled",
            Self::Standalone => "standalone",
        }
    }
}

/// Predicts letters in batches; each comes back with what it was given under.
pub(crate) struct Predictor<'a, T> {
    ledger: &'a Ledger,
    form: Form,
    keys: Option<&'a SigningKeys>,
    waiting: Vec<(T, Case)>,
    /// Why the ledger is not asked any more.
    away: Option<String>,
}

/// A letter as far as it can be predicted from its bytes alone.
#[derive(Debug)]
enum Case {
    Settled(Forecast),
    Event(Box<News>),
    Command(Box<Command>),
}

/// The body of `POST /v1/dead/predict`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with keys")]
pub(crate) struct PredictRequest {
    /// Letters by the keys that a page gave.
    pub(crate) keys: Vec<String>,
}

/// The answer to `POST /v1/dead/predict`, in the order of the keys.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PredictAnswer {
    pub(crate) results: Vec<Predicted>,
}

/// What a replay of one letter would do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Predicted {
    pub(crate) key: String,
    /// Nothing when the letter is gone.
    pub(crate) prediction: Option<Forecast>,
}

impl<'a, T> Predictor<'a, T> {
    /// One that asks this ledger. `keys` are those that the workers verify with, where they are known.
    pub(crate) fn new(ledger: &'a Ledger, form: Form, keys: Option<&'a SigningKeys>) -> Self {
        Self {
            ledger,
            form,
            keys,
            waiting: Vec::new(),
            away: None,
        }
    }

    /// Takes one letter; nothing of its body is kept but what the ledger is asked.
    pub(crate) fn push(&mut self, under: T, letter: &DeadLetter) {
        let case = case(letter, self.form, self.keys, now_ms());
        self.waiting.push((under, case));
    }

    /// Whether it is time to [`Predictor::flush`].
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= BATCH_LETTERS
    }

    /// Predicts the letters that were taken, in order. After a fault of the ledger it is not asked again: the rest
    /// cannot be said, and nobody waits for that.
    pub(crate) async fn flush(&mut self) -> Vec<(T, Forecast)> {
        let waiting = std::mem::take(&mut self.waiting);
        let (mut news, mut commands) = (Vec::new(), Vec::new());
        for (_, case) in &waiting {
            match case {
                Case::Event(event) => news.push(News::clone(event)),
                Case::Command(command) => commands.push(Command::clone(command)),
                Case::Settled(_) => {}
            }
        }
        let now_ms = now_ms();
        let mut events = self
            .ask(&news, self.ledger.predict(&news, now_ms))
            .await
            .into_iter();
        let mut owings = self
            .ask(&commands, self.ledger.predict_owe_again(&commands, now_ms))
            .await
            .into_iter();
        let unsaid = || Forecast::new(Fortune::Unknown, "unasked", "the ledger gave no answer");
        let settled = waiting.into_iter().map(|(under, case)| {
            let forecast = match case {
                Case::Settled(forecast) => forecast,
                Case::Event(_) => events.next().map_or_else(unsaid, |answer| match answer {
                    Ok(prediction) => Forecast::of(&prediction),
                    Err(forecast) => forecast,
                }),
                Case::Command(_) => owings.next().map_or_else(unsaid, |answer| match answer {
                    Ok(again) => of_command(again),
                    Err(forecast) => forecast,
                }),
            };
            (under, forecast)
        });
        settled.collect()
    }

    /// One answer for each that is asked about.
    async fn ask<A, R>(
        &mut self,
        all: &[A],
        answers: impl Future<Output = Vec<Result<R, LedgerError>>>,
    ) -> Vec<Result<R, Forecast>> {
        if all.is_empty() {
            return Vec::new();
        }
        if let Some(why) = &self.away {
            return all.iter().map(|_| Err(away(why))).collect();
        }
        let mut read = Vec::with_capacity(all.len());
        for answer in answers.await {
            read.push(answer.map_err(|error| {
                if error.is_fault() {
                    let why = chain(&error);
                    let forecast = away(&why);
                    self.away.get_or_insert(why);
                    forecast
                } else {
                    let why = format!("the ledger fails on it: {}", chain(&error));
                    Forecast::new(Fortune::Poison, "ledger_refused", why)
                }
            }));
        }
        read
    }
}

/// Asks a standalone about letters by their keys; nothing for a letter that is gone.
pub(crate) async fn ask_standalone(
    api: &ControlApi,
    keys: Vec<String>,
) -> Result<Vec<Option<Forecast>>, Failure> {
    let count = keys.len();
    let body = serde_json::to_vec(&PredictRequest { keys })
        .map_err(|error| Failure::failed("the request").because(&error))?;
    let answer = api.call("POST", "/v1/dead/predict", Bytes::from(body)).await?;
    let answer: PredictAnswer = read_of_standalone(&answer, "what a replay would do")?;
    let mut forecasts: Vec<_> = answer.results.into_iter().map(|one| one.prediction).collect();
    forecasts.resize(count, None);
    Ok(forecasts)
}

fn away(why: &str) -> Forecast {
    Forecast::new(
        Fortune::Unknown,
        "ledger_away",
        format!("the ledger could not be asked: {why}"),
    )
}

fn case(letter: &DeadLetter, form: Form, keys: Option<&SigningKeys>, now_ms: i64) -> Case {
    match (letter.origin, form) {
        (Origin::Event, _) => event_case(letter, form, keys, now_ms),
        (Origin::Command, Form::Scaled) => {
            let why = "it goes back to the queue of commands, whatever its operation does by now";
            Case::Settled(Forecast::new(Fortune::SentAgain, "command", why))
        }
        (Origin::Command | Origin::Callback, _) => match Command::from_body(&letter.envelope.body) {
            Ok(command) => Case::Command(Box::new(command)),
            Err(error) => Case::Settled(Forecast::new(Fortune::Kept, "unreadable", chain(&error))),
        },
    }
}

fn event_case(letter: &DeadLetter, form: Form, keys: Option<&SigningKeys>, now_ms: i64) -> Case {
    // Whether workers verify is their own setting. What died of it shows that they do; anything else got past it.
    let verified = form == Form::Scaled && letter.reason == BAD_SIGNATURE;
    if verified && keys.is_none() {
        let why =
            "workers there verify signatures, and with which keys is not known here: give --signing-keys";
        return Case::Settled(Forecast::new(Fortune::Unknown, "keys_not_given", why));
    }
    match decide(&letter.envelope, keys.filter(|_| verified), now_ms) {
        Decision::Apply(news) => Case::Event(news),
        Decision::PutOff { tier, .. } => {
            let why = match tier {
                RetryTier::OneMinute => {
                    "it claims to happen in the future, and would be tried again in a minute"
                }
                RetryTier::TenMinutes => {
                    "it claims to happen in the future, and would be tried again in ten minutes"
                }
            };
            Case::Settled(Forecast::new(Fortune::Later, "future", why))
        }
        Decision::Bury(death) => Case::Settled(Forecast::new(Fortune::Poison, death.reason, death.detail)),
    }
}

fn of_command(again: OweAgain) -> Forecast {
    match again {
        OweAgain::Owed => Forecast::new(
            Fortune::OwedAgain,
            "still_true",
            "its operation still waits for it",
        ),
        OweAgain::Overtaken => Forecast::new(
            Fortune::Overtaken,
            "overtaken",
            "its operation is gone or went on, so nothing would be sent",
        ),
    }
}

#[cfg(test)]
#[path = "predict_tests.rs"]
mod tests;
