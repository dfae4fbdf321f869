//! Carrying marks out and in: page by page, and into the generation that they came from.
//!
//! How marks lie says [`crate::marks`]. Marks that nobody looks up any more are neither given nor taken.

use crate::keys::Partition;
use crate::marks::{FILL_MAX, LEVEL_FACTOR, LEVEL_MAX, Shape, Span};
use crate::script::{Call, Script};
use crate::{PageError, Store, StoreError, reply};
use porchlight_device::carry::{CarriedMarks, Page};
use porchlight_device::marks::{generation, unused_from_ms};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Buckets read in one round trip: some thousands of marks.
const BUCKETS_AT_ONCE: u64 = 32;
/// Marks given to one script: some milliseconds of it.
const MARKS_AT_ONCE: usize = 512;
/// Attempts to agree on a shape with the workers, for one script's marks.
const ROUNDS_MAX: usize = 12;
/// How full sets are that are made for many marks at once, so that there is room for more.
const FILL_WANTED: u64 = 300;

/// Where a page of marks begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    partition: u8,
    generation: i64,
    level: u8,
    bucket: u64,
}

impl Cursor {
    fn read(text: &str) -> Option<Self> {
        let mut numbers = text.split(':');
        let cursor = Self {
            partition: numbers.next()?.parse().ok()?,
            generation: numbers.next()?.parse().ok()?,
            level: numbers.next()?.parse().ok()?,
            bucket: numbers.next()?.parse().ok()?,
        };
        numbers.next().is_none().then_some(cursor)
    }

    fn text(self) -> String {
        format!(
            "{}:{}:{}:{}",
            self.partition, self.generation, self.level, self.bucket
        )
    }
}

impl Store {
    /// Some marks that lie together.
    ///
    /// # Errors
    /// [`PageError`]
    pub async fn carry_marks(&self, cursor: Option<&str>) -> Result<Page<CarriedMarks>, PageError> {
        let from = match cursor {
            Some(text) => Some(Cursor::read(text).ok_or(PageError::BadCursor)?),
            None => None,
        };
        let first = from.map_or(0, |cursor| cursor.partition);
        let shard = self.any_shard();
        for partition in Partition::all().skip(usize::from(first)) {
            let shape = self
                .run_one(shard, Call::plain("GET").arg(partition.shape()))
                .await?;
            let shape = Shape::parse(reply::optional_text(shape)?.unwrap_or_default())?;
            let here = from.filter(|cursor| usize::from(cursor.partition) == partition.index());
            if let Some(at) = at_or_after(partition, &shape, here) {
                let end = (at.bucket + BUCKETS_AT_ONCE).min(buckets(at.level));
                let marks = self.members(shard, partition, at, end).await?;
                let next = if end < buckets(at.level) {
                    Cursor { bucket: end, ..at }
                } else {
                    Cursor {
                        level: at.level + 1,
                        bucket: 0,
                        ..at
                    }
                };
                return Ok(Page {
                    rows: marks.into_iter().collect(),
                    next_cursor: Some(next.text()),
                });
            }
        }
        Ok(Page {
            rows: Vec::new(),
            next_cursor: None,
        })
    }

    async fn members(
        &self,
        shard: usize,
        partition: Partition,
        at: Cursor,
        end: u64,
    ) -> Result<Option<CarriedMarks>, StoreError> {
        let read = |bucket| Call::plain("SMEMBERS").arg(partition.bucket(at.generation, at.level, bucket));
        let mut marks = Vec::new();
        for answer in self.run(shard, (at.bucket..end).map(read).collect()).await {
            let members = match answer? {
                redis::Value::Set(members) => members,
                other => reply::list(other)?,
            };
            for member in members {
                marks.push(reply::number(&member)?);
            }
        }
        let carried = CarriedMarks {
            partition: at.partition,
            generation: at.generation,
            marks,
        };
        Ok(Some(carried).filter(|carried| !carried.marks.is_empty()))
    }

    /// Takes marks into their generation; whether anybody still looks them up. Marks of a clock that was ahead of ours
    /// count as of now.
    ///
    /// # Errors
    /// [`StoreError`]; taking them in again is right.
    pub async fn restore_marks(&self, carried: &CarriedMarks, now_ms: i64) -> Result<bool, StoreError> {
        let into = carried.generation.min(generation(now_ms));
        if unused_from_ms(into) <= now_ms {
            return Ok(false);
        }
        let Some(partition) = Partition::all().nth(usize::from(carried.partition)) else {
            return Err(StoreError::Unreadable("a partition"));
        };
        let shard = self.any_shard();
        for marks in carried.marks.chunks(MARKS_AT_ONCE) {
            let mut left = marks;
            let mut rounds = 0;
            while !left.is_empty() {
                let shape = self
                    .shape_with(shard, partition, into, carried.marks.len())
                    .await?;
                let Some(span) = shape.span(into) else {
                    return Err(StoreError::Contended);
                };
                let call = restore_call(partition, &shape, span, left, now_ms);
                match usize::try_from(reply::number(&self.run_one(shard, call).await?)?) {
                    Err(_) => self.marks().forget(partition),
                    Ok(done) if done < left.len() => {
                        left = &left[done..];
                        self.next_level(shard, partition, &shape, span).await?;
                    }
                    Ok(_) => break,
                }
                rounds += 1;
                if rounds > ROUNDS_MAX {
                    return Err(StoreError::Contended);
                }
            }
        }
        Ok(true)
    }

    /// The partition's shape with `generation` in it; a generation that is new begins at a level with room for `count`.
    async fn shape_with(
        &self,
        shard: usize,
        partition: Partition,
        generation: i64,
        count: usize,
    ) -> Result<Arc<Shape>, StoreError> {
        for _ in 0..ROUNDS_MAX {
            let shape = match self.marks().shape(partition) {
                Some(shape) => shape,
                None => {
                    let text = self
                        .run_one(shard, Call::plain("GET").arg(partition.shape()))
                        .await?;
                    self.marks()
                        .set(partition, reply::optional_text(text)?.unwrap_or_default())?
                }
            };
            if shape.span(generation).is_some() {
                return Ok(shape);
            }
            let has_room = |level: &u8| buckets(*level) * FILL_WANTED >= count as u64;
            let level = (0..LEVEL_MAX).find(has_room).unwrap_or(LEVEL_MAX);
            let span = Span {
                generation,
                first: level,
                last: level,
            };
            self.set_shape(shard, partition, &shape, span).await?;
        }
        Err(StoreError::Contended)
    }

    async fn next_level(
        &self,
        shard: usize,
        partition: Partition,
        shape: &Shape,
        span: Span,
    ) -> Result<(), StoreError> {
        if span.last >= LEVEL_MAX {
            return Err(StoreError::Full);
        }
        let last = span.last + 1;
        self.set_shape(shard, partition, shape, Span { last, ..span })
            .await
    }

    async fn set_shape(
        &self,
        shard: usize,
        partition: Partition,
        known: &Shape,
        span: Span,
    ) -> Result<(), StoreError> {
        let call = Script::Shape
            .call(&[partition.shape()])
            .arg(known.text())
            .arg(known.with(span));
        let text = reply::text(self.run_one(shard, call).await?)?;
        self.marks().set(partition, text).map(drop)
    }
}

/// Where the first bucket of a partition is that is not before `from`.
fn at_or_after(partition: Partition, shape: &Shape, from: Option<Cursor>) -> Option<Cursor> {
    let mut spans = shape.spans().to_vec();
    spans.sort_by_key(|span| span.generation);
    let firsts = spans.iter().flat_map(|span| {
        (span.first..=span.last).map(|level| Cursor {
            partition: u8::try_from(partition.index()).unwrap_or(u8::MAX),
            generation: span.generation,
            level,
            bucket: 0,
        })
    });
    let place = |cursor: &Cursor| (cursor.generation, cursor.level);
    match from {
        None => firsts.min_by_key(place),
        Some(from) => {
            let mut later = firsts.filter(|first| place(first) >= place(&from));
            later.next().map(|first| {
                if place(&first) == place(&from) {
                    from
                } else {
                    first
                }
            })
        }
    }
}

fn buckets(level: u8) -> u64 {
    LEVEL_FACTOR.pow(u32::from(level))
}

fn restore_call(partition: Partition, shape: &Shape, span: Span, marks: &[i64], now_ms: i64) -> Call {
    // The first is the one to insert into.
    let levels: Vec<u8> = std::iter::once(span.last).chain(span.first..span.last).collect();
    let mut keys = vec![partition.shape()];
    let mut places = BTreeMap::new();
    let mut arguments = Vec::with_capacity(marks.len() * (levels.len() + 1));
    for mark in marks {
        arguments.push(mark.to_string());
        for level in &levels {
            let bucket = mark.cast_unsigned() % buckets(*level);
            let place = *places.entry((*level, bucket)).or_insert_with(|| {
                keys.push(partition.bucket(span.generation, *level, bucket));
                keys.len()
            });
            arguments.push(place.to_string());
        }
    }
    let ttl_s = unused_from_ms(span.generation).saturating_sub(now_ms) / 1000;
    Script::RestoreMarks
        .call(&keys)
        .arg(shape.text())
        .arg(ttl_s.max(1))
        .arg(FILL_MAX)
        .arg(levels.len())
        .arg(arguments)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_walk_meets_every_level_of_every_generation_once_and_ends() {
        let partition = Partition::all().nth(7).unwrap();
        let shape = Shape::parse("5:0:1,4:2:2".to_owned()).unwrap();
        let mut from = None;
        let mut met = Vec::new();
        while let Some(at) = at_or_after(partition, &shape, from) {
            met.push((at.generation, at.level));
            let next = Cursor {
                level: at.level + 1,
                ..at
            };
            from = Some(Cursor::read(&next.text()).unwrap());
        }
        assert_eq!(met, [(4, 2), (5, 0), (5, 1)]);
        assert_eq!(Cursor::read("256:0:0:0"), None);
        assert_eq!(Cursor::read("1:0:0"), None);
    }
}
