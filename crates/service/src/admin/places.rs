//! The places for connections: bounded, and never held by who does nothing while somebody else waits for one.
//!
//! It closes nothing by itself; a connection that is asked to leave does so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::guarded_io::ConnectionPhase;

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    guests: HashMap<u64, Guest>,
}

/// Who has a place.
#[derive(Debug)]
struct Guest {
    phase: Arc<ConnectionPhase>,
    leave: CancellationToken,
}

/// A place for one connection, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    _permit: OwnedSemaphorePermit,
    number: Option<u64>,
}

impl Places {
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(count)),
            taken: Mutex::default(),
        })
    }

    /// How many are free.
    pub(super) fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// The next free place. When there is none, whoever has been quiet for longest is asked to leave; while all have
    /// requests in work one waits for the first that ends.
    ///
    /// # Cancel safety
    /// Safe; somebody may have been asked to leave.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Place> {
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.make_room();
                Arc::clone(&self.free).acquire_owned().await.ok()?
            }
        };
        Some(Place {
            places: Arc::clone(self),
            _permit: permit,
            number: None,
        })
    }

    fn make_room(&self) {
        let taken = self.lock();
        let staying = taken.guests.values().filter(|guest| !guest.leave.is_cancelled());
        let quiet = staying.filter_map(|guest| Some((guest.phase.quiet_since()?, guest)));
        if let Some((_, guest)) = quiet.min_by_key(|(since, _)| *since) {
            guest.leave.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The connection that is here; the token asks it to leave.
    pub(super) fn seat(&mut self, phase: Arc<ConnectionPhase>) -> CancellationToken {
        let leave = CancellationToken::new();
        let mut taken = self.places.lock();
        let number = taken.next;
        taken.next += 1;
        taken.guests.insert(
            number,
            Guest {
                phase,
                leave: leave.clone(),
            },
        );
        drop(taken);
        self.number = Some(number);
        leave
    }

    pub(super) fn places(&self) -> Arc<Places> {
        Arc::clone(&self.places)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.places.lock().guests.remove(&number);
        }
    }
}
