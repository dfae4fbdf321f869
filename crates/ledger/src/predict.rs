//! Asking the ledger what would become of events and commands now, whichever it is, and changing nothing in it.
//!
//! What an answer is worth is written at [`porchlight_device::predict`].

use porchlight_device::{Command, News, OweAgain, Prediction};

use crate::ledger::each;
use crate::{Ledger, LedgerError};

impl Ledger {
    /// Says what [`Ledger::apply_batch`] would answer about each event now, as if it were the only one. Nothing changes:
    /// no mark, no history, no account, no time to live. 64 to 256 at once keep its cost for each small. The commands that
    /// would be owed are all counted, also those that would wait for their device to settle.
    ///
    /// # Errors
    /// Each event has its own [`LedgerError`].
    pub async fn predict(&self, news: &[News], now_ms: i64) -> Vec<Result<Prediction, LedgerError>> {
        match self {
            Self::Redis(store) => each(store.predict(news, now_ms).await),
            Self::Sqlite(ledger) => each(ledger.predict(news, now_ms).await),
        }
    }

    /// Says what [`Ledger::owe_again`] would answer about each command now. Nothing changes.
    ///
    /// # Errors
    /// Each command has its own [`LedgerError`].
    pub async fn predict_owe_again(
        &self,
        commands: &[Command],
        now_ms: i64,
    ) -> Vec<Result<OweAgain, LedgerError>> {
        match self {
            Self::Redis(store) => each(store.predict_owe_again(commands, now_ms).await),
            Self::Sqlite(ledger) => each(ledger.predict_owe_again(commands, now_ms).await),
        }
    }
}
