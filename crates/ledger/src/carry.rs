//! Carrying a ledger out and into another one, whichever the two are.
//!
//! What taking in does is written at [`porchlight_device::merge`]; it may be done again at any time.

use porchlight_device::Command;
use porchlight_device::carry::{CarriedAccount, CarriedDevice, CarriedMarks, Page};

use crate::{Ledger, LedgerError, PageError};

impl Ledger {
    /// Some accounts with their registers. One may come twice while others write.
    ///
    /// # Errors
    /// [`PageError`]
    pub async fn carry_accounts(&self, cursor: Option<&str>) -> Result<Page<CarriedAccount>, PageError> {
        match self {
            Self::Redis(store) => Ok(store.carry_accounts(cursor).await?),
            Self::Sqlite(ledger) => Ok(ledger.carry_accounts(cursor).await?),
        }
    }

    /// Some devices, whole, with their histories.
    ///
    /// # Errors
    /// [`PageError`]
    pub async fn carry_devices(&self, cursor: Option<&str>) -> Result<Page<CarriedDevice>, PageError> {
        match self {
            Self::Redis(store) => Ok(store.carry_devices(cursor).await?),
            Self::Sqlite(ledger) => Ok(ledger.carry_devices(cursor).await?),
        }
    }

    /// Some marks.
    ///
    /// # Errors
    /// [`PageError`]
    pub async fn carry_marks(&self, cursor: Option<&str>) -> Result<Page<CarriedMarks>, PageError> {
        match self {
            Self::Redis(store) => Ok(store.carry_marks(cursor).await?),
            Self::Sqlite(ledger) => Ok(ledger.carry_marks(cursor).await?),
        }
    }

    /// Takes in what another ledger knew of an account, and tells its devices where that moved a register; what they
    /// owe then is in the outbox.
    ///
    /// # Errors
    /// [`LedgerError`]; taking it in again is right.
    pub async fn restore_account(&self, account: &CarriedAccount, now_ms: i64) -> Result<(), LedgerError> {
        match self {
            Self::Redis(store) => Ok(store.restore_account(account, now_ms).await?),
            Self::Sqlite(ledger) => Ok(ledger.restore_account(account, now_ms).await?),
        }
    }

    /// Takes in what another ledger knew of a device; its history only where there is none. Gives what is newly owed
    /// because of it, which is in the outbox.
    ///
    /// # Errors
    /// [`LedgerError`]; taking it in again is right.
    pub async fn restore_device(
        &self,
        carried: &CarriedDevice,
        now_ms: i64,
    ) -> Result<Vec<Command>, LedgerError> {
        match self {
            Self::Redis(store) => Ok(store.restore_device(carried, now_ms).await?),
            Self::Sqlite(ledger) => Ok(ledger.restore_device(carried, now_ms).await?),
        }
    }

    /// Takes marks into their generation, so that they live as long as they would have; false when nobody would look
    /// them up any more.
    ///
    /// # Errors
    /// [`LedgerError`]; taking them in again is right.
    pub async fn restore_marks(&self, carried: &CarriedMarks, now_ms: i64) -> Result<bool, LedgerError> {
        match self {
            Self::Redis(store) => Ok(store.restore_marks(carried, now_ms).await?),
            Self::Sqlite(ledger) => Ok(ledger.restore_marks(carried, now_ms).await?),
        }
    }
}
