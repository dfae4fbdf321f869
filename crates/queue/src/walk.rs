//! A walk over dead letters, one after the other, in RabbitMQ or in SQLite.
//!
//! It decides nothing about a letter and sends none anywhere.

use std::time::Duration;

use porchlight_broker::{self as broker, BrokerUrls, walk::HELD_MAX};
use porchlight_event::queue::DeadLetter;
use porchlight_journal::{self as journal, JournalError};
use tokio::time::Instant;

use crate::DeadLettersError;

/// For SQLite to answer one question.
const READ_MAX: Duration = Duration::from_secs(5);
/// Letters read at once.
const PAGE: usize = 64;

/// A letter that a walk has come by, and where it lies.
#[derive(Debug)]
pub struct Found {
    /// The letter.
    pub letter: DeadLetter,
    pub(crate) spot: Spot,
}

/// Where a letter lies.
#[derive(Debug)]
pub(crate) enum Spot {
    RabbitMq {
        tag: u64,
        remains: Box<broker::dead_letter::Remains>,
    },
    Sqlite {
        seq: i64,
    },
}

/// A walk over the letters that were there when it began, oldest first; what dies later is not come by.
///
/// Neither side holds more than a page of letters. In RabbitMQ they go round meanwhile; see [`broker::Walk`].
pub struct Walk {
    way: Way,
}

enum Way {
    RabbitMq(Box<broker::Walk>),
    Sqlite(Pages),
}

impl Walk {
    pub(crate) async fn in_rabbitmq(urls: &BrokerUrls, role: &str) -> Result<Self, DeadLettersError> {
        let walk = broker::Walk::open(urls, role).await?;
        Ok(Self {
            way: Way::RabbitMq(Box::new(walk)),
        })
    }

    pub(crate) async fn in_sqlite(queue: &journal::Queue) -> Result<Self, DeadLettersError> {
        let mut pages = Pages {
            queue: queue.clone(),
            waiting: Vec::new().into_iter(),
            after: 0,
            at_first: None,
        };
        pages.read().await?;
        Ok(Self {
            way: Way::Sqlite(pages),
        })
    }

    /// Letters there were when it began.
    #[must_use]
    pub fn ready(&self) -> usize {
        match &self.way {
            Way::RabbitMq(walk) => walk.ready(),
            Way::Sqlite(pages) => pages.at_first.map_or(0, |(ready, _)| ready),
        }
    }

    /// Letters that are held, where the walk has ended because no more may be: the queue has a delivery limit.
    #[must_use]
    pub fn held_max(&self) -> Option<usize> {
        match &self.way {
            Way::RabbitMq(walk) => walk.is_full().then_some(HELD_MAX),
            Way::Sqlite(_) => None,
        }
    }

    /// The next letter; `None` at the end. Say of each what becomes of it, with [`Walk::leave`] at least.
    ///
    /// # Errors
    /// [`DeadLettersError`]; no letter is lost.
    ///
    /// # Cancel safety
    /// Not safe: only [`Walk::close`] may follow.
    pub async fn next(&mut self) -> Result<Option<Found>, DeadLettersError> {
        match &mut self.way {
            Way::RabbitMq(walk) => Ok(walk.next().await?.map(|taken| Found {
                letter: taken.letter,
                spot: Spot::RabbitMq {
                    tag: taken.tag,
                    remains: Box::new(taken.remains),
                },
            })),
            Way::Sqlite(pages) => Ok(pages.next().await?.map(|next| Found {
                letter: next.letter,
                spot: Spot::Sqlite { seq: next.seq },
            })),
        }
    }

    /// Up to `count_max` letters, and no more than fit `bytes_max` of bodies, but at least one; all of them stay. Empty
    /// at the end.
    ///
    /// # Errors
    /// As [`Walk::next`].
    pub async fn page(
        &mut self,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<DeadLetter>, DeadLettersError> {
        let (mut page, mut bytes) = (Vec::new(), 0);
        while page.len() < count_max
            && bytes < bytes_max
            && let Some(found) = self.next().await?
        {
            self.leave(&found);
            bytes += found.letter.envelope.body.len();
            page.push(found.letter);
        }
        Ok(page)
    }

    /// Lets a letter stay.
    pub fn leave(&mut self, found: &Found) {
        if let (Way::RabbitMq(walk), Spot::RabbitMq { tag, .. }) = (&mut self.way, &found.spot) {
            walk.leave(*tag, &found.letter);
        }
    }

    /// A letter in RabbitMQ is done with.
    pub(crate) async fn remove(&mut self, tag: u64) -> Result<(), DeadLettersError> {
        if let Way::RabbitMq(walk) = &mut self.way {
            walk.remove(tag);
            walk.settle().await?;
        }
        Ok(())
    }

    /// Ends it; takes some seconds at most. A walk that is dropped instead loses nothing either.
    pub async fn close(self) {
        if let Way::RabbitMq(walk) = self.way {
            walk.close().await;
        }
    }

    /// Ends it, and sees to it that what was done with is gone.
    pub(crate) async fn finish(self) -> Result<(), DeadLettersError> {
        if let Way::RabbitMq(walk) = self.way {
            walk.finish().await?;
        }
        Ok(())
    }
}

/// Pages of SQLite, of which only the letters that were there at the first look count.
struct Pages {
    queue: journal::Queue,
    waiting: std::vec::IntoIter<journal::Numbered>,
    after: i64,
    /// Letters and the newest one's number at the first look.
    at_first: Option<(usize, i64)>,
}

impl Pages {
    async fn next(&mut self) -> Result<Option<journal::Numbered>, JournalError> {
        if self.waiting.as_slice().is_empty() {
            self.read().await?;
        }
        let last = self.at_first.map_or(0, |(_, last)| last);
        Ok(self.waiting.next().filter(|next| next.seq <= last))
    }

    async fn read(&mut self) -> Result<(), JournalError> {
        let page = self
            .queue
            .letters(self.after, PAGE, Instant::now() + READ_MAX)
            .await?;
        self.after = page.letters.last().map_or(self.after, |last| last.seq);
        let ready = usize::try_from(page.total).unwrap_or(usize::MAX);
        self.at_first.get_or_insert((ready, page.last_seq));
        self.waiting = page.letters.into_iter();
        Ok(())
    }
}
