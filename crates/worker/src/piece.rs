//! Pieces: what is applied together, cut from what was taken together, in the order of arrival.
//!
//! Pure; it neither takes nor applies anything.

use std::collections::VecDeque;

use porchlight_event::queue::{Batch, Delivery};

/// Returns to the queue from which on a delivery is applied alone. A crash charges everything in hand, so twenty
/// crashes would bury innocents with the culprit; alone, with all before it acked, it can only charge what comes after.
const RETURNS_SUSPICIOUS: u64 = 3;

/// Bytes of bodies in one piece, unless one alone has more. An id may be as long as a body and goes into a request to
/// the ledger several times; the whole request must fit the ledger's deadline and our memory. Usual events have 600.
const PIECE_BYTES_MAX: usize = 1024 * 1024;

/// Deliveries of one incarnation that are applied in one go and acked with one ack.
#[derive(Debug)]
pub(crate) struct Piece {
    /// The stretch of consuming they came in.
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

/// Cuts a batch before and after every suspicious delivery, and where a piece would become too large.
pub(crate) fn cut(batch: Batch) -> VecDeque<Piece> {
    let incarnation = batch.incarnation;
    let mut pieces: VecDeque<Piece> = VecDeque::new();
    let mut bytes: usize = 0;
    for delivery in batch.deliveries {
        let alone = delivery.delivery_count >= RETURNS_SUSPICIOUS;
        let with_it = bytes.saturating_add(delivery.envelope.body.len());
        let fits = with_it <= PIECE_BYTES_MAX;
        bytes = if fits {
            with_it
        } else {
            delivery.envelope.body.len()
        };
        match pieces.back_mut() {
            Some(piece) if fits && !alone && !piece.alone => piece.deliveries.push(delivery),
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
        let sized: Vec<_> = counts.iter().map(|count| (*count, 0)).collect();
        tags_of_sized(&sized)
    }

    fn tags_of_sized(deliveries: &[(u64, usize)]) -> Vec<(Vec<u64>, bool)> {
        let delivery = |(tag, (count, bytes)): (u64, &(u64, usize))| Delivery {
            envelope: Envelope::bare(Bytes::from(vec![0; *bytes])),
            tag,
            delivery_count: *count,
            redelivered: *count > 0,
        };
        let batch = Batch {
            incarnation: 7,
            deliveries: (1..).zip(deliveries).map(delivery).collect(),
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

    #[test]
    fn a_piece_ends_before_it_becomes_too_large() {
        let half = PIECE_BYTES_MAX / 2;
        assert_eq!(
            tags_of_sized(&[
                (0, half),
                (0, half),
                (0, 1),
                (0, 2 * PIECE_BYTES_MAX),
                (0, 1),
                (0, 1)
            ]),
            [
                (vec![1, 2], false),
                (vec![3], false),
                (vec![4], false),
                (vec![5, 6], false)
            ]
        );
    }
}
