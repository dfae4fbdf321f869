//! The lock by which one daemon has a directory, and by which others see that it has.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::error::OpenError;
use crate::file::{Opener, at};

const LOCK: &str = "porchlight.lock";
/// In the lock's file: the directory holds a journal.
const USED: &[u8] = b"porchlight.db beside this file holds a journal\n";
/// A tool that looks who holds the directory is in the way for less than a millisecond, one that empties a long log for as
/// long as the disk takes for some 50 MiB; a daemon waits for 2 s.
const TRIES: u32 = 100;
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// A lock that is held. It ends with this value, and with the process, however that ends.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that another thread is just starting has a copy of the handle until
        // its program runs, and would keep the lock for as long. Where this fails, closing is what remains.
        drop(self.0.unlock());
    }
}

impl Lock {
    /// Takes the directory for a daemon.
    #[expect(
        clippy::disallowed_methods,
        reason = "opening blocks anyway, once, before the process has anything else to do"
    )]
    pub(crate) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(LOCK);
        let opened = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let file = opened.map_err(at(&path))?;
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) => std::thread::sleep(TRY_AGAIN),
                Err(TryLockError::Error(source)) => return Err(OpenError::Path { path, source }),
            }
        }
        Err(OpenError::InUse { path: dir.to_owned() })
    }

    /// Keeps daemons from the directory for as long as this is held; `None` when one has it. Any number may do so at once.
    pub(crate) fn keep_daemons_away(dir: &Path) -> std::io::Result<Option<Self>> {
        let file = File::open(dir.join(LOCK))?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Refuses an empty file in a directory that has held a journal: it was cut to nothing, or removed and made again.
    pub(crate) fn expect_new(&self, opener: &Opener) -> Result<(), OpenError> {
        if !self.is_marked().map_err(at(&opener.path))? {
            return Ok(());
        }
        Err(OpenError::Damaged {
            path: opener.path.clone(),
            detail: "it is empty, and there has been a journal; to begin anew, remove porchlight.lock, too"
                .to_owned(),
        })
    }

    /// Notes beside the file that it holds a journal from here on.
    pub(crate) fn mark(&self, opener: &Opener) -> Result<(), OpenError> {
        if self.is_marked().map_err(at(&opener.path))? {
            return Ok(());
        }
        let marked = (&self.0).write_all(USED).and_then(|()| self.0.sync_all());
        marked.map_err(at(&opener.path))
    }

    fn is_marked(&self) -> std::io::Result<bool> {
        Ok(self.0.metadata()?.len() > 0)
    }
}

/// Whether a daemon holds the directory.
pub(crate) fn is_held(dir: &Path) -> std::io::Result<bool> {
    match Lock::keep_daemons_away(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        kept => Ok(kept?.is_none()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_let_go_is_free_though_a_starting_process_still_has_its_handle() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_held(dir.path()).unwrap());
        let lock = Lock::take(dir.path()).unwrap();
        assert!(is_held(dir.path()).unwrap());
        // What fork(2) does to every handle.
        let copy = lock.0.try_clone().unwrap();
        drop(lock);
        assert!(!is_held(dir.path()).unwrap());

        let kept = Lock::keep_daemons_away(dir.path()).unwrap().unwrap();
        let second = Lock::keep_daemons_away(dir.path()).unwrap().unwrap();
        let copies = [copy, kept.0.try_clone().unwrap()];
        drop((kept, second));
        Lock::take(dir.path()).unwrap();
        drop(copies);
    }
}
