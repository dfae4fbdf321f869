//! Saying what would become of events and commands now: the same steps, on a connection that only reads.
//!
//! It decides nothing, and nothing of it is stored.

use porchlight_device::predict as steps;
use porchlight_device::{Command, News, OweAgain, Prediction};
use rusqlite::Connection;

use super::records::Rows;
use super::{Ledger, deadline, each};
use crate::error::{JournalError, WorkError};

impl Ledger {
    /// Says what [`Ledger::apply_batch`] would answer about each event now, as if it were the only one. Nothing changes.
    /// 64 to 256 at once keep its cost for each small. The commands that would be owed are counted with those that wait
    /// for their device to settle, on all devices of an account.
    ///
    /// # Errors
    /// Each event has its own: `Unreadable` is about one of them; any other is everybody's.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn predict(&self, news: &[News], now_ms: i64) -> Vec<Result<Prediction, JournalError>> {
        let events = news.to_vec();
        let predict = move |rows: &mut Rows, news: &News| steps::predict(rows, news, now_ms);
        self.look_at_each(events, now_ms, predict).await
    }

    /// Says what [`Ledger::owe_again`] would answer about each command now. Nothing changes.
    ///
    /// # Errors
    /// Each command has its own: `Unreadable` is about one of them; any other is everybody's.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn predict_owe_again(
        &self,
        commands: &[Command],
        now_ms: i64,
    ) -> Vec<Result<OweAgain, JournalError>> {
        let commands = commands.to_vec();
        let predict =
            move |rows: &mut Rows, command: &Command| steps::predict_owe_again(rows, command, now_ms);
        self.look_at_each(commands, now_ms, predict).await
    }

    /// One answer for each, all about the same state.
    async fn look_at_each<A: Send + 'static, T: Clone + Send + 'static>(
        &self,
        all: Vec<A>,
        now_ms: i64,
        step: impl FnMut(&mut Rows, &A) -> Result<T, WorkError> + Send + 'static,
    ) -> Vec<Result<T, JournalError>> {
        let (count, times) = (all.len(), self.times(now_ms));
        let look = move |connection: &Connection| {
            let mut rows = Rows::new(connection, times)?;
            each(&mut rows, &all, step)
        };
        match self.journal.read(deadline(), look).await {
            Ok(answers) => answers,
            Err(error) => vec![Err(error); count],
        }
    }
}
