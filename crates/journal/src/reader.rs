//! The threads that read: each has a connection of its own and looks at one consistent state at a time.
//!
//! They never write; in a write-ahead log readers and the writer do not wait for each other.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use crate::error::{JournalError, spoils_connection};
use crate::file::{Access, Opener};
use crate::work::{Piece, Ran};

/// One reading thread.
pub(crate) struct Reader {
    pub(crate) opener: Opener,
    pub(crate) connection: Option<Connection>,
    pub(crate) requests: Arc<Mutex<Receiver<Box<dyn Piece>>>>,
}

impl Reader {
    /// Ends when nobody can ask any more.
    pub(crate) fn run(mut self) {
        loop {
            let next = self
                .requests
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .recv();
            let Ok(mut piece) = next else {
                return;
            };
            if piece.is_left() {
                piece.answer(Some(JournalError::TimedOut));
                continue;
            }
            let trouble = self.look(piece.as_mut());
            piece.answer(trouble);
        }
    }

    fn look(&mut self, piece: &mut dyn Piece) -> Option<JournalError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => match self.opener.try_connect(Access::Read) {
                Ok(connection) => connection,
                Err(error) => return Some((&error).into()),
            },
        };
        // One transaction, so that several questions see the same state.
        if let Err(error) = connection.execute_batch("BEGIN") {
            if !spoils_connection(&error) {
                self.connection = Some(connection);
            }
            return Some((&error).into());
        }
        let ran = piece.run(&connection);
        let ended = connection.execute_batch("COMMIT");
        if ended.is_ok() && !matches!(ran, Ran::Spoiled(_)) {
            self.connection = Some(connection);
        }
        None
    }
}
