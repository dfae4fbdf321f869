//! The desk at which one walk sits at a time.
//!
//! What a walk does there is not decided here.

use std::time::Duration;

use lapin::{
    ErrorKind,
    options::QueueDeclareOptions,
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::FieldTable,
};
use tokio::time::{Instant, sleep};

use crate::{
    connection::{Link, REQUEST_MAX, within},
    dead_letter::DeadLetterError,
    wire::short,
};

/// An exclusive queue that nothing is ever in: whoever has it is the one that walks. It goes with its connection.
const DESK: &str = "porchlight.dead.desk";
/// How long another walk may take to end, and how long to wait before looking again.
const DESK_MAX: Duration = Duration::from_secs(5);
const DESK_PAUSE: Duration = Duration::from_millis(200);

/// Waits for the desk. Where it may not be had, whoever looks at the same time sees a part.
pub(super) async fn sit_down(link: &Link) -> Result<(), DeadLetterError> {
    let until = Instant::now() + DESK_MAX;
    loop {
        let channel = link.open_channel().await?;
        let desk = channel.queue_declare(
            short(DESK),
            QueueDeclareOptions::exclusive().auto_delete(),
            FieldTable::default(),
        );
        match within(REQUEST_MAX, desk).await {
            Ok(_) => return Ok(()),
            Err(error) if is_soft(&error, &AMQPSoftError::ACCESSREFUSED) => return Ok(()),
            Err(error) if !is_soft(&error, &AMQPSoftError::RESOURCELOCKED) => return Err(error.into()),
            Err(_) if Instant::now() >= until => return Err(DeadLetterError::Busy),
            Err(_) => sleep(DESK_PAUSE).await,
        }
    }
}

fn is_soft(error: &lapin::Error, kind: &AMQPSoftError) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(refusal) => {
            matches!(refusal.kind(), AMQPErrorKind::Soft(soft) if soft == kind)
        }
        _ => false,
    }
}
