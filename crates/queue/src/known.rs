//! Which dead letters are in a queue already, remembered in few bytes each.
//!
//! It keeps no letter.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use porchlight_event::queue::DeadLetter;

use crate::{DeadLetters, DeadLettersError, Queue};

/// The letters that were there at one moment: some 20 MB for a million. What is new is taken for known once in many
/// billions, which nobody can bring about: the sums are of this process alone.
#[derive(Debug)]
pub struct Known {
    sums: HashSet<u64>,
    state: RandomState,
    held_max: Option<usize>,
}

impl DeadLetters {
    /// Looks at every letter, and remembers which are there: by id, time and reason of death.
    ///
    /// # Errors
    /// [`DeadLettersError`]
    pub async fn known(&self) -> Result<Known, DeadLettersError> {
        let mut known = Known {
            sums: HashSet::new(),
            state: RandomState::new(),
            held_max: None,
        };
        let mut walk = self.walk().await?;
        while let Some(found) = walk.next().await? {
            known.sums.insert(known.sum(&found.letter));
            walk.leave(&found);
        }
        known.held_max = walk.held_max();
        walk.close().await;
        Ok(known)
    }

    /// Where letters are brought in. Close what it holds of RabbitMQ at the end.
    ///
    /// # Errors
    /// [`DeadLettersError`]
    pub async fn queue(&self) -> Result<Queue, DeadLettersError> {
        Ok(match self {
            Self::RabbitMq(config) => Queue::RabbitMq(crate::work::ready_publisher(config).await?),
            Self::Sqlite(queue) => Queue::Sqlite(queue.clone()),
        })
    }
}

impl Known {
    /// Whether a letter was there.
    #[must_use]
    pub fn has(&self, letter: &DeadLetter) -> bool {
        self.sums.contains(&self.sum(letter))
    }

    /// Letters that were held when the look had to end, before it had seen all.
    #[must_use]
    pub fn held_max(&self) -> Option<usize> {
        self.held_max
    }

    fn sum(&self, letter: &DeadLetter) -> u64 {
        let DeadLetter {
            envelope,
            dead_at_ms,
            reason,
            ..
        } = letter;
        self.state.hash_one((&envelope.message_id, dead_at_ms, reason))
    }
}
