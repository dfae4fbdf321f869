//! Commands to the topic exchange of the broker, each with a confirm.
//!
//! The publisher is shared with those who store dead letters; it is not closed here.

use std::time::Duration;

use bytes::Bytes;
use porchlight_broker::{Outgoing, PublishDeadlines, Publisher};
use porchlight_device::Command;
use porchlight_event::envelope::header;
use porchlight_service::trace::Kind;

use super::Undelivered;
use crate::spans::Sending;

/// Header with the operation's generation. Commands may arrive late and in any order, so a receiver remembers the
/// largest (generation, action) it acted on, where pause < resume < cancel, and ignores what is not larger.
const GENERATION: &str = "x-porchlight-generation";
/// For one command to be confirmed. Later the sweeper takes it.
const CONFIRM_MAX: Duration = Duration::from_secs(5);

pub(super) async fn send(publisher: &Publisher, command: &Command) -> Result<(), Undelivered> {
    let deadlines = PublishDeadlines::within(CONFIRM_MAX);
    let mut sending = Sending::begin(command, Kind::Producer);
    let mut outgoing = outgoing(command);
    if let Some(traceparent) = sending.traceparent(command) {
        outgoing.headers_mut().set_text(header::TRACEPARENT, &traceparent);
    }
    match publisher.publish(outgoing, deadlines).await {
        Ok(_) => Ok(()),
        Err(error) => {
            sending.failed("not_confirmed");
            Err(Undelivered::Failed(error.to_string()))
        }
    }
}

fn outgoing(command: &Command) -> Outgoing {
    let (id, body) = (command.id(), Bytes::from(command.body()));
    let mut outgoing = Outgoing::command(
        &id,
        command.action.code(),
        &command.kind,
        body,
        command.issued_at_ms,
    );
    let generation = i64::try_from(command.generation).unwrap_or(i64::MAX);
    outgoing.headers_mut().set_int(GENERATION, generation);
    outgoing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outlet::tests::command;

    #[test]
    fn a_command_carries_its_generation_in_a_header() {
        let mut sent = outgoing(&command("snapshot", 3));
        assert_eq!(sent.headers_mut().int("x-porchlight-generation"), Some(3));
    }
}
