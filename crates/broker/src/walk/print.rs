//! What tells a letter apart from all others, so that a walk knows it again when it comes round.
//!
//! Where letters go that are given back is not known here.

use porchlight_event::{envelope::header, queue::DeadLetter};

/// What a letter is known again by when it comes back.
#[derive(Debug, Clone)]
pub(super) struct Print {
    message_id: String,
    /// Every publish of ours has another one, so that copies of one event that died together are told apart.
    publish_id: Option<String>,
    dead_at_ms: Option<i64>,
    body_bytes: usize,
    returned: u64,
}

impl Print {
    pub(super) fn of(letter: &DeadLetter) -> Self {
        Self {
            message_id: letter.envelope.message_id.clone(),
            publish_id: publish_id_of(letter).map(str::to_owned),
            dead_at_ms: letter.dead_at_ms,
            body_bytes: letter.envelope.body.len(),
            returned: letter.delivery_count,
        }
    }

    /// Whether this is the letter after it was given back once.
    pub(super) fn is_of(&self, letter: &DeadLetter) -> bool {
        letter.delivery_count == self.returned + 1
            && letter.envelope.message_id == self.message_id
            && publish_id_of(letter) == self.publish_id.as_deref()
            && letter.dead_at_ms == self.dead_at_ms
            && letter.envelope.body.len() == self.body_bytes
    }
}

fn publish_id_of(letter: &DeadLetter) -> Option<&str> {
    let mut headers = letter.headers.iter();
    headers
        .find(|(name, _)| name == header::PUBLISH_ID)
        .map(|(_, id)| id.as_str())
}
