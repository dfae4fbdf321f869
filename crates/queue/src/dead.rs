//! Dead letters, wherever they lie: looking at them without consuming any.
//!
//! Sending them round again stands in [`crate::work`].

use std::ops::ControlFlow;

use porchlight_broker::{self as broker, BrokerUrls, PublisherConfig};
use porchlight_event::queue::DeadLetter;
use porchlight_journal::{self as journal, JournalError};

pub use crate::known::Known;
pub use crate::walk::{Found, Walk};
pub use porchlight_broker::dead_letter::Listed;

/// Where dead letters lie.
#[derive(Debug, Clone)]
pub enum DeadLetters {
    /// RabbitMQ: `porchlight.dead`. The configuration says where, under which role, and which topology is published to.
    RabbitMq(Box<PublisherConfig>),
    /// SQLite.
    Sqlite(journal::Queue),
}

/// Why dead letters could not be read or replayed.
#[derive(Debug, thiserror::Error)]
pub enum DeadLettersError {
    /// RabbitMQ could not be read.
    #[error(transparent)]
    RabbitMq(#[from] broker::DeadLetterError),
    /// RabbitMQ takes no copies.
    #[error("no connection to publish on came about{}", .0.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    NotReady(Option<String>),
    /// SQLite could not be read or written.
    #[error(transparent)]
    Sqlite(#[from] JournalError),
}

impl DeadLettersError {
    /// Whether there is no place for letters at all: no daemon has ever connected to this broker.
    #[must_use]
    pub fn is_no_queue(&self) -> bool {
        matches!(self, Self::RabbitMq(broker::DeadLetterError::NoQueue))
    }
}

impl DeadLetters {
    /// Those of this broker.
    #[must_use]
    pub fn in_rabbitmq(urls: BrokerUrls, role: &str) -> Self {
        Self::RabbitMq(Box::new(PublisherConfig::new(urls, role)))
    }

    /// Begins a walk over the letters that are there now, oldest first. None is consumed, whatever crashes.
    ///
    /// # Errors
    /// [`DeadLettersError`]
    pub async fn walk(&self) -> Result<Walk, DeadLettersError> {
        match self {
            Self::RabbitMq(config) => Walk::in_rabbitmq(&config.urls, &config.role).await,
            Self::Sqlite(queue) => Walk::in_sqlite(queue).await,
        }
    }

    /// Shows up to `count_max` letters, oldest first; `visit` may break off. None is consumed, whatever crashes.
    ///
    /// # Errors
    /// [`DeadLettersError`]; letters already visited stay valid.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn list(
        &self,
        count_max: usize,
        mut visit: impl FnMut(DeadLetter) -> ControlFlow<()>,
    ) -> Result<Listed, DeadLettersError> {
        let mut walk = self.walk().await?;
        let mut seen = 0;
        while seen < count_max
            && let Some(found) = walk.next().await?
        {
            seen += 1;
            walk.leave(&found);
            if visit(found.letter).is_break() {
                break;
            }
        }
        let ready = walk.ready();
        walk.close().await;
        Ok(Listed { ready, seen })
    }
}
