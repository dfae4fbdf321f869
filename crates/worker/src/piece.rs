//! Pieces: what is applied together, cut from what was taken together, in the order of arrival.
//!
//! Pure; it neither takes nor applies anything.

use std::collections::VecDeque;

use porchlight_broker::{Batch, Delivery};

/// Returns to the queue from which on a delivery is applied alone. A crash charges everything in hand, so twenty
/// crashes would bury innocents with the culprit; alone, with all before it acked, it can only charge what comes after.
const RETURNS_SUSPICIOUS: u64 = 3;

/// Deliveries of one incarnation that are applied in one go and acked with one ack.
#[derive(Debug)]
pub(crate) struct Piece {
    /// The channel they came on.
    pub(crate) incarnation: u64,
    /// At least one, in the order of their tags.
    pub(crate) deliveries: Vec<Delivery>,
    /// Nothing else may be at work at the same time.
    pub(crate) alone: bool,
}

impl Piece {
    /// The tag to ack up to when all is done.
    pub(crate) fn last_tag(&self) -> u64 {
        self.deliveries.last().map_or(0, |delivery| delivery.tag)
    }
}

/// Cuts a batch before and after every suspicious delivery.
pub(crate) fn cut(batch: Batch) -> VecDeque<Piece> {
    let incarnation = batch.incarnation;
    let mut pieces: VecDeque<Piece> = VecDeque::new();
    for delivery in batch.deliveries {
        let alone = delivery.delivery_count >= RETURNS_SUSPICIOUS;
        match pieces.back_mut() {
            Some(piece) if !alone && !piece.alone => piece.deliveries.push(delivery),
            _ => pieces.push_back(Piece {
                incarnation,
                deliveries: vec![delivery],
                alone,
            }),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use porchlight_event::Envelope;

    fn tags(counts: &[u64]) -> Vec<(Vec<u64>, bool)> {
        let delivery = |(tag, count): (u64, &u64)| Delivery {
            envelope: Envelope::bare(Bytes::new()),
            tag,
            delivery_count: *count,
            redelivered: *count > 0,
        };
        let batch = Batch {
            incarnation: 7,
            deliveries: (1..).zip(counts).map(delivery).collect(),
        };
        let pieces = cut(batch);
        assert!(pieces.iter().all(|piece| piece.incarnation == 7));
        pieces
            .iter()
            .map(|p| (p.deliveries.iter().map(|d| d.tag).collect(), p.alone))
            .collect()
    }

    #[test]
    fn a_delivery_returned_three_times_goes_alone_and_keeps_its_place() {
        assert_eq!(tags(&[0, 1, 2]), [(vec![1, 2, 3], false)]);
        assert_eq!(
            tags(&[0, 3, 0, 0]),
            [(vec![1], false), (vec![2], true), (vec![3, 4], false)]
        );
        assert_eq!(tags(&[9, 4]), [(vec![1], true), (vec![2], true)]);
    }
}
