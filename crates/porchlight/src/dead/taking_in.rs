//! Taking letters in, wherever they go: each comes once, as far as the place can know.
//!
//! It reads no file.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use porchlight_event::queue::DeadLetter;
use porchlight_queue::dead::Known;
use porchlight_queue::{DeadLetters, Deadlines, Queue};

use super::direct::unreadable;
use super::letters::Letters;
use super::wire::{ImportAnswer, ImportRequest};
use crate::control_api::{ControlApi, read_of_standalone};
use crate::failure::{Failure, chain};
use crate::moving::LetterLine;

/// Letters that are stored at once: they share a round trip or a commit.
const BATCH_LETTERS: usize = 128;
/// Bytes of their bodies together; a single larger letter goes alone.
const BATCH_BYTES: usize = 4 << 20;
/// For one letter to be stored.
const STORE_MAX: Duration = Duration::from_secs(30);
/// For what a publisher has under way at the end.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Takes letters in.
pub(super) enum Taker<'a> {
    /// The queue, and what is in it already, where it cannot tell by itself.
    Direct(Queue, Option<Known>),
    Remote(&'a ControlApi),
}

impl<'a> Taker<'a> {
    pub(super) async fn open(letters: &'a Letters) -> Result<Self, Failure> {
        let direct = match letters {
            Letters::Direct(direct) => &direct.letters,
            Letters::Remote(api) => return Ok(Self::Remote(api)),
        };
        let known = match direct {
            DeadLetters::RabbitMq(_) => Some(direct.known().await.map_err(|error| unreadable(&error))?),
            DeadLetters::Sqlite(_) => None,
        };
        if let Some(most) = known.as_ref().and_then(Known::held_max) {
            return Err(Failure::failed(super::list::held_max(most)).advise("porchlight doctor"));
        }
        let queue = direct.queue().await.map_err(|error| unreadable(&error))?;
        Ok(Self::Direct(queue, known))
    }

    /// Whether so many letters are to be taken in before more are read.
    pub(super) fn is_enough(&self, letters: usize, bytes: usize) -> bool {
        letters >= BATCH_LETTERS || bytes >= BATCH_BYTES
    }

    /// How many of them were not there yet.
    pub(super) async fn take(&self, letters: Vec<DeadLetter>) -> Result<u64, Failure> {
        match self {
            Self::Direct(queue, known) => {
                let is_new = |letter: &DeadLetter| known.as_ref().is_none_or(|known| !known.has(letter));
                let letters = letters.into_iter().filter(is_new);
                let mut under_way: FuturesUnordered<_> =
                    letters
                        .map(|letter| async move {
                            queue.bring_letter(&letter, Deadlines::within(STORE_MAX)).await
                        })
                        .collect();
                let mut new = 0;
                while let Some(brought) = under_way.next().await {
                    new += u64::from(brought.map_err(|error| cut_off(&chain(&error)))?);
                }
                Ok(new)
            }
            Self::Remote(api) => {
                let letters = letters.iter().map(LetterLine::from).collect();
                let body = serde_json::to_vec(&ImportRequest { letters })
                    .map_err(|error| Failure::failed("the request").because(&error))?;
                let answer = api.call("POST", "/v1/dead/import", body.into()).await?;
                let answer: ImportAnswer = read_of_standalone(&answer, "the dead letters")?;
                Ok(answer.is_new.iter().filter(|is_new| **is_new).count() as u64)
            }
        }
    }

    pub(super) async fn close(self) {
        if let Self::Direct(Queue::RabbitMq(publisher), _) = self {
            publisher.close(DRAIN_MAX).await;
        }
    }
}

fn cut_off(why: &str) -> Failure {
    Failure::unavailable(format_args!("the import ended half-way: {why}"))
        .advise("run it again: what is in already stays as it is")
}
