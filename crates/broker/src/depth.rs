//! How much waits in each of our queues and who consumes it, asked without touching a message.
//!
//! It shows ready messages only; what consumers hold unacked is not visible over AMQP.

use std::{io, time::Duration};

use lapin::{
    Channel, ErrorKind,
    options::QueueDeclareOptions,
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::FieldTable,
};
use tokio::time::Instant;

use crate::{
    connection::{ConnectError, Dialer, Link, REQUEST_MAX, within},
    topology,
    urls::BrokerUrls,
    wire::short,
};

/// An answer of no messages and no consumers that took this long may stand for none: below RabbitMQ's quarter of a second.
const SLOW_NOTHING: Duration = Duration::from_millis(200);

/// One queue of ours at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueDepth {
    /// The queue's name.
    pub queue: &'static str,
    /// What the broker says of it; `None` when there is no such queue.
    pub counts: Option<QueueCounts>,
}

/// What a passive declare tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueCounts {
    /// Messages ready for delivery.
    pub ready: u32,
    /// Consumers.
    pub consumers: u32,
}

/// Why the depths are not known.
#[derive(Debug, thiserror::Error)]
pub enum DepthError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The broker refused, or the connection ended.
    #[error("asking for queue '{queue}' failed")]
    Ask {
        /// The queue asked for.
        queue: &'static str,
        /// What lapin said.
        source: lapin::Error,
    },
}

/// Reads the depths over a connection that it keeps between readings.
pub struct DepthReader {
    dialer: Dialer,
    open: Option<(Link, Channel)>,
}

impl DepthReader {
    /// Connects at the first reading.
    #[must_use]
    pub fn new(urls: BrokerUrls, role: &str) -> Self {
        Self {
            dialer: Dialer::new(urls, role),
            open: None,
        }
    }

    /// Asks for every queue of ours, in the order of [`topology::QUEUES`]. A missing queue is part of the answer.
    ///
    /// # Errors
    /// [`DepthError`]; the next reading connects anew.
    ///
    /// # Cancel safety
    /// Safe; the connection is given up when the future is dropped half-way.
    pub async fn read(&mut self) -> Result<Vec<QueueDepth>, DepthError> {
        let (link, mut channel) = match self.open.take() {
            Some((link, channel)) if link.is_connected() && channel.status().connected() => (link, channel),
            _ => self.connect().await?,
        };
        let mut depths = Vec::with_capacity(topology::QUEUES.len());
        for queue in topology::QUEUES {
            let counts = match ready_in(&channel, queue).await {
                Ok(counts) => Some(counts),
                Err(error) if is_not_found(&error) => {
                    // The refusal closed the channel.
                    channel = link
                        .open_channel()
                        .await
                        .map_err(|source| DepthError::Ask { queue, source })?;
                    None
                }
                Err(source) => return Err(DepthError::Ask { queue, source }),
            };
            depths.push(QueueDepth { queue, counts });
        }
        self.open = Some((link, channel));
        Ok(depths)
    }

    /// Says goodbye to the broker, which would otherwise log a client that went away. Takes 2 s at most.
    pub async fn close(self) {
        if let Some((link, _)) = self.open {
            link.close().await;
        }
    }

    async fn connect(&mut self) -> Result<(Link, Channel), DepthError> {
        let link = self.dialer.dial().await?;
        let channel = link.open_channel().await.map_err(|source| DepthError::Ask {
            queue: topology::EVENTS,
            source,
        })?;
        Ok((link, channel))
    }
}

/// Ready messages and consumers of one queue.
///
/// RabbitMQ gives a quorum queue a quarter of a second or more to tell, by its version, and answers 0 and 0 when it has
/// not (`stat` in rabbit_quorum_queue, 3.10 to 4.x). So a slow nothing is no answer, and the queue is asked again. A queue
/// without a leader is answered so at once, and cannot be told from an empty one here.
pub(crate) async fn ready_in(channel: &Channel, queue: &str) -> Result<QueueCounts, lapin::Error> {
    let until = Instant::now() + REQUEST_MAX;
    loop {
        let asked_at = Instant::now();
        let passive = QueueDeclareOptions::durable().passive();
        let asked = channel.queue_declare(short(queue), passive, FieldTable::default());
        let told = within(until.saturating_duration_since(asked_at), asked).await?;
        let counts = QueueCounts {
            ready: told.message_count(),
            consumers: told.consumer_count(),
        };
        let is_nothing = counts.ready == 0 && counts.consumers == 0;
        if !is_nothing || asked_at.elapsed() < SLOW_NOTHING {
            return Ok(counts);
        }
        // Ends by the deadline of the next question at the latest.
    }
}

pub(crate) fn is_not_found(error: &lapin::Error) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(refusal) => {
            matches!(refusal.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND))
        }
        ErrorKind::IOError(error) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

impl std::fmt::Debug for DepthReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DepthReader")
            .field("connected", &self.open.is_some())
            .finish_non_exhaustive()
    }
}
