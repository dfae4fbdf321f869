//! One request to the writer or a reader: the work, and whoever waits for its result.
//!
//! When and with which others it runs is decided elsewhere.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::error::{JournalError, WorkError, spoils_connection};

/// A request whose result's type nobody needs to know.
pub(crate) trait Piece: Send {
    /// Does the work; the result stays inside until it is answered.
    fn run(&mut self, connection: &Connection) -> Ran;
    /// Keeps a refusal instead of a result.
    fn refuse(&mut self, error: JournalError);
    /// Tells the one who waits; `Some` is what became of everybody's work and outweighs the piece's own result.
    fn answer(self: Box<Self>, overall: Option<JournalError>);
    /// Nobody waits for it any more.
    fn is_left(&self) -> bool;
    /// Adds an event, so that a full journal refuses it.
    fn grows(&self) -> bool;
    /// What it holds in memory, roughly.
    fn bytes(&self) -> usize;
}

/// What became of a piece's own work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ran {
    Done,
    /// Its work is to be undone.
    Failed,
    /// Its work is to be undone, and the disk has no room.
    Full,
    /// Its work is to be undone, and the connection is not to be trusted.
    Spoiled(JournalError),
}

/// What is known of a request beside its work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) until: Instant,
    pub(crate) grows: bool,
    pub(crate) bytes: usize,
}

struct Request<T, F> {
    work: Option<F>,
    result: Result<T, JournalError>,
    waiter: oneshot::Sender<Result<T, JournalError>>,
    shape: Shape,
    /// Its place in the window; free again when this is dropped.
    place: OwnedSemaphorePermit,
}

/// A request and the end at which its result will come out.
pub(crate) fn request<T, F>(
    work: F,
    shape: Shape,
    place: OwnedSemaphorePermit,
) -> (Box<dyn Piece>, oneshot::Receiver<Result<T, JournalError>>)
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> Result<T, WorkError> + Send + 'static,
{
    let (waiter, result) = oneshot::channel();
    let piece = Request {
        work: Some(work),
        result: Err(JournalError::Stopping),
        waiter,
        shape,
        place,
    };
    (Box::new(piece), result)
}

impl<T, F> Piece for Request<T, F>
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> Result<T, WorkError> + Send + 'static,
{
    fn run(&mut self, connection: &Connection) -> Ran {
        let Some(work) = self.work.take() else {
            return Ran::Failed;
        };
        // A panic is a bug of one request; it must not take the only writer away from all others.
        match catch_unwind(AssertUnwindSafe(|| work(connection))) {
            Ok(Ok(done)) => {
                self.result = Ok(done);
                Ran::Done
            }
            Ok(Err(error)) => {
                let spoils = matches!(&error, WorkError::Sql(error) if spoils_connection(error));
                let error = JournalError::from(error);
                self.result = Err(error.clone());
                match error {
                    JournalError::Full => Ran::Full,
                    error if spoils => Ran::Spoiled(error),
                    _ => Ran::Failed,
                }
            }
            Err(_) => {
                self.result = Err(JournalError::Failed("the work panicked".to_owned()));
                Ran::Failed
            }
        }
    }

    fn refuse(&mut self, error: JournalError) {
        self.work = None;
        self.result = Err(error);
    }

    fn answer(self: Box<Self>, overall: Option<JournalError>) {
        let Self {
            waiter,
            result,
            place,
            work,
            ..
        } = *self;
        // Whoever is told finds its place free again.
        drop((work, place));
        // Whoever left does not want to know.
        let _ = waiter.send(overall.map_or(result, Err));
    }

    fn is_left(&self) -> bool {
        self.waiter.is_closed() || self.shape.until <= Instant::now()
    }

    fn grows(&self) -> bool {
        self.shape.grows
    }

    fn bytes(&self) -> usize {
        self.shape.bytes
    }
}
