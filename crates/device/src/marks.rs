//! How long a mark is known: at least 96 hours and at most 192, by the clock of whoever takes events.
//!
//! It keeps no marks. A *generation* is 96 hours of arrival. A mark goes into the current one and is looked up in the
//! current and the one before, whatever the event's own timestamp says. For an hour around a turn the neighbour on
//! the other side is looked up too, for processes whose clocks differ.

/// One generation, in milliseconds.
pub const GENERATION_MS: i64 = 96 * 60 * 60 * 1000;
/// How far the clocks of two processes may differ, in milliseconds.
pub const SKEW_MS: i64 = 60 * 60 * 1000;

/// The generation that an event which arrives now goes into.
pub fn generation(now_ms: i64) -> i64 {
    now_ms.div_euclid(GENERATION_MS)
}

/// The generations besides the current one in which a mark may be.
pub fn neighbours(now_ms: i64) -> impl Iterator<Item = i64> {
    let current = generation(now_ms);
    let age_ms = now_ms.rem_euclid(GENERATION_MS);
    let older = (age_ms < SKEW_MS).then_some(current - 2);
    let newer = (age_ms >= GENERATION_MS - SKEW_MS).then_some(current + 1);
    std::iter::once(current - 1).chain(older).chain(newer)
}

/// The time from which on nobody looks a generation up, in milliseconds since the epoch.
pub fn unused_from_ms(generation: i64) -> i64 {
    generation
        .saturating_add(2)
        .saturating_mul(GENERATION_MS)
        .saturating_add(2 * SKEW_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn around_a_turn_the_neighbour_on_the_other_side_is_looked_up_too() {
        let turn = 7 * GENERATION_MS;
        let at = |now_ms| neighbours(now_ms).collect::<Vec<_>>();
        assert_eq!(at(turn - SKEW_MS - 1), [5]);
        assert_eq!(at(turn - SKEW_MS), [5, 7]);
        assert_eq!(at(turn + SKEW_MS - 1), [6, 5]);
        assert_eq!(at(turn + SKEW_MS), [6]);
        assert_eq!(at(-1), [-2, 0]);
    }

    #[test]
    fn nobody_looks_up_what_is_unused() {
        for now_ms in [0, SKEW_MS - 1, SKEW_MS, GENERATION_MS - 1, GENERATION_MS] {
            // The slowest clock that still counts, when this one deletes.
            for slow in [now_ms, now_ms - SKEW_MS] {
                assert!(neighbours(slow).all(|known| unused_from_ms(known) > now_ms));
            }
        }
        assert_eq!(unused_from_ms(5), 7 * GENERATION_MS + 2 * SKEW_MS);
    }
}
