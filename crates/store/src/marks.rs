//! Marks: how a repeated event is known for at least 96 hours, in as few bytes as the server can keep them.
//!
//! It does not compute a mark; an event brings two, for its identity and for its request id. Each is a 64-bit
//! number in a set of integers, which costs eight bytes and a share of the set's own 150. Measured with Redis 7.0.15:
//! 19.4 bytes for each of a million remembered events, both marks and everything around them included (16 are the
//! numbers themselves, most of the rest is the allocator's rounding).
//!
//! What a generation is and which of them are looked up says [`porchlight_device::marks`]. A set expires an hour after
//! nobody looks it up any more.
//!
//! Sets should be neither tiny, because of their share, nor above 512 numbers, where the server leaves the compact
//! form. No fixed number of sets fits both ten events a minute and a thousand a second, so the number grows with the
//! traffic: a generation begins with one *level* and, when a set of it is nearly full, goes on with the next, which
//! has four times as many sets ([`LEVEL_FACTOR`]). Marks already there stay where they are; lookups go through each
//! level in use. The next generation begins at the level where the last one ended.
//!
//! Which levels each generation has is the partition's *shape*, a text kept in the store: `generation:first:last`,
//! the newest first, joined by commas. Every worker keeps a copy and sends it along; a script given an old one does
//! nothing and says so. All workers therefore agree, whatever their age.

use crate::keys::{PARTITIONS, Partition};
use crate::script::{Call, Script};
use crate::{Store, StoreError, reply};
use porchlight_device::marks::{generation, neighbours, unused_from_ms};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Each level has this many times the sets of the one before. With four, a level that has just begun holds so few
/// marks against those of the full ones before that its sparse sets cost about a byte for each mark.
pub(crate) const LEVEL_FACTOR: u64 = 4;
/// The last level: 65 536 sets in each partition, for 4 billion events in a generation.
pub(crate) const LEVEL_MAX: u8 = 8;
/// A set this full ends its level: the server's compact form ends at 512 numbers by default, and a few more marks
/// arrive before every worker knows of the next level.
pub(crate) const FILL_MAX: i64 = 480;
/// A level whose sets are emptier than this at the end of its generation was too high for the next.
const FILL_SPARSE: i64 = 64;
/// Attempts to agree on a shape with other workers.
const ROUNDS_MAX: usize = 4;

/// Copies of the shapes of all partitions.
pub(crate) struct Marks {
    shapes: Vec<Mutex<Option<Arc<Shape>>>>,
}

/// Which levels each generation of one partition has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    text: String,
    spans: Vec<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) generation: i64,
    pub(crate) first: u8,
    pub(crate) last: u8,
}

/// What a script needs to look marks up and insert them.
pub(crate) struct Lookup {
    /// Of the identity mark, then of the request mark; of each the first is the one to insert into.
    pub(crate) buckets: Vec<String>,
    /// How many there are of each.
    pub(crate) count: usize,
    /// How long a new set lives, in seconds.
    pub(crate) ttl_s: i64,
}

impl Marks {
    pub(crate) fn new() -> Self {
        Self {
            shapes: (0..PARTITIONS).map(|_| Mutex::new(None)).collect(),
        }
    }

    pub(crate) fn shape(&self, partition: Partition) -> Option<Arc<Shape>> {
        self.slot(partition).clone()
    }

    /// Gives the copy up: someone changed the shape.
    pub(crate) fn forget(&self, partition: Partition) {
        *self.slot(partition) = None;
    }

    /// Keeps a copy of the shape as it is now, and gives it.
    pub(crate) fn set(&self, partition: Partition, text: String) -> Result<Arc<Shape>, StoreError> {
        let shape = Arc::new(Shape::parse(text)?);
        *self.slot(partition) = Some(Arc::clone(&shape));
        Ok(shape)
    }

    fn slot(&self, partition: Partition) -> std::sync::MutexGuard<'_, Option<Arc<Shape>>> {
        self.shapes[partition.index()]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lacks(&self, partition: Partition, generation: i64) -> bool {
        self.shape(partition)
            .is_none_or(|shape| shape.span(generation).is_none())
    }
}

impl Shape {
    pub(crate) fn parse(text: String) -> Result<Self, StoreError> {
        let read = |part: &str| {
            let mut numbers = part.split(':');
            let generation = numbers.next()?.parse().ok()?;
            let (first, last) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
            (first <= last && last <= LEVEL_MAX && numbers.next().is_none()).then_some(Span {
                generation,
                first,
                last,
            })
        };
        let spans: Option<Vec<Span>> = text
            .split(',')
            .filter(|part| !part.is_empty())
            .map(read)
            .collect();
        let spans = spans.ok_or(StoreError::Unreadable("the shape of a partition's marks"))?;
        Ok(Self { text, spans })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }

    pub(crate) fn span(&self, generation: i64) -> Option<Span> {
        self.spans
            .iter()
            .find(|span| span.generation == generation)
            .copied()
    }

    /// The newest generation before `generation`.
    fn before(&self, generation: i64) -> Option<Span> {
        self.spans
            .iter()
            .filter(|span| span.generation < generation)
            .max_by_key(|span| span.generation)
            .copied()
    }

    /// The text with `span` in it and without generations that nobody looks up any more.
    pub(crate) fn with(&self, span: Span) -> String {
        let kept = self.spans.iter().filter(|known| {
            known.generation != span.generation && known.generation >= span.generation.saturating_sub(2)
        });
        let mut spans: Vec<Span> = kept.copied().chain([span]).collect();
        spans.sort_by_key(|span| std::cmp::Reverse(span.generation));
        let texts: Vec<String> = spans
            .iter()
            .map(|span| format!("{}:{}:{}", span.generation, span.first, span.last))
            .collect();
        texts.join(",")
    }

    /// Where the marks of an event that arrives now are; `None` when the shape lacks the current generation.
    pub(crate) fn lookup(
        &self,
        partition: Partition,
        identity: i64,
        request: Option<i64>,
        now_ms: i64,
    ) -> Option<Lookup> {
        self.span(generation(now_ms))?;
        Some(self.look(partition, identity, request, now_ms))
    }

    /// The same for who only looks; while the shape lacks the current generation there is none to insert into.
    pub(crate) fn look(
        &self,
        partition: Partition,
        identity: i64,
        request: Option<i64>,
        now_ms: i64,
    ) -> Lookup {
        let generation = generation(now_ms);
        let mut places = Vec::new();
        if let Some(current) = self.span(generation) {
            places.push((generation, current.last));
            places.extend((current.first..current.last).map(|level| (generation, level)));
        }
        for neighbour in neighbours(now_ms) {
            let span = self.span(neighbour);
            places.extend(
                span.iter()
                    .flat_map(|span| (span.first..=span.last).map(|level| (neighbour, level))),
            );
        }
        let buckets_of = |mark: i64| {
            let bucket = move |&(generation, level): &(i64, u8)| {
                partition.bucket(
                    generation,
                    level,
                    mark.cast_unsigned() % LEVEL_FACTOR.pow(u32::from(level)),
                )
            };
            places.iter().map(bucket)
        };
        let buckets = buckets_of(identity)
            .chain(request.into_iter().flat_map(buckets_of))
            .collect();
        let ttl_s = unused_from_ms(generation).saturating_sub(now_ms) / 1000;
        Lookup {
            buckets,
            count: places.len(),
            ttl_s,
        }
    }
}

impl Store {
    /// Makes sure that the shape of each partition is known here and has the current generation.
    pub(crate) async fn prepare_marks(
        &self,
        shard: usize,
        partitions: &BTreeSet<Partition>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let generation = generation(now_ms);
        let marks = self.marks();
        for _ in 0..ROUNDS_MAX {
            let lacking: Vec<Partition> = partitions
                .iter()
                .copied()
                .filter(|partition| marks.lacks(*partition, generation))
                .collect();
            if lacking.is_empty() {
                return Ok(());
            }
            self.read_shapes(shard, &lacking).await?;
            let lacking: Vec<Partition> = lacking
                .into_iter()
                .filter(|partition| marks.lacks(*partition, generation))
                .collect();
            self.begin_generation(shard, &lacking, generation).await?;
        }
        Err(StoreError::Contended)
    }

    /// Learns the shape of each partition that is not known here, and begins no generation.
    pub(crate) async fn look_at_marks(
        &self,
        shard: usize,
        partitions: &BTreeSet<Partition>,
    ) -> Result<(), StoreError> {
        let unknown: Vec<Partition> = partitions
            .iter()
            .copied()
            .filter(|partition| self.marks().shape(*partition).is_none())
            .collect();
        self.read_shapes(shard, &unknown).await
    }

    async fn read_shapes(&self, shard: usize, partitions: &[Partition]) -> Result<(), StoreError> {
        let get = |partition: &Partition| Call::plain("GET").arg(partition.shape());
        let answers = self.run(shard, partitions.iter().map(get).collect()).await;
        for (partition, answer) in partitions.iter().zip(answers) {
            let text = reply::optional_text(answer?)?.unwrap_or_default();
            self.marks().set(*partition, text)?;
        }
        Ok(())
    }

    async fn begin_generation(
        &self,
        shard: usize,
        partitions: &[Partition],
        generation: i64,
    ) -> Result<(), StoreError> {
        let known: Vec<(Partition, Arc<Shape>)> = partitions
            .iter()
            .filter_map(|partition| Some((*partition, self.marks().shape(*partition)?)))
            .collect();
        let sample = |(partition, shape): &(Partition, Arc<Shape>)| {
            let last = shape.before(generation).unwrap_or(Span {
                generation,
                first: 0,
                last: 0,
            });
            Call::plain("SCARD").arg(partition.bucket(last.generation, last.last, 0))
        };
        let samples = self.run(shard, known.iter().map(sample).collect()).await;
        let mut calls = Vec::new();
        for ((partition, shape), sample) in known.iter().zip(samples) {
            let level = match shape.before(generation) {
                Some(last) if reply::number(&sample?)? < FILL_SPARSE => last.last.saturating_sub(1),
                Some(last) => last.last,
                None => 0,
            };
            let text = shape.with(Span {
                generation,
                first: level,
                last: level,
            });
            calls.push(
                Script::Shape
                    .call(&[partition.shape()])
                    .arg(shape.text())
                    .arg(text),
            );
        }
        for ((partition, _), answer) in known.iter().zip(self.run(shard, calls).await) {
            self.marks().set(*partition, reply::text(answer?)?)?;
        }
        Ok(())
    }

    /// Begins the next level of a partition's current generation when a set of it is as full as it should get.
    /// A failure is no harm: the next event finds the set just as full.
    pub(crate) async fn grow_marks(&self, shard: usize, partition: Partition, fill: i64, now_ms: i64) {
        let generation = generation(now_ms);
        let Some(shape) = self.marks().shape(partition) else {
            return;
        };
        let Some(span) = shape.span(generation) else {
            return;
        };
        if fill < FILL_MAX || span.last >= LEVEL_MAX {
            return;
        }
        let text = shape.with(Span {
            last: span.last + 1,
            ..span
        });
        let call = Script::Shape
            .call(&[partition.shape()])
            .arg(shape.text())
            .arg(text);
        let answer = self.run_one(shard, call).await.and_then(reply::text);
        if let Err(error) = answer.and_then(|text| self.marks().set(partition, text)) {
            tracing::debug!(%error, "the next level of marks could not begin");
        }
    }
}

/// Whether a set this full should end its level.
pub(crate) fn is_full(fill: i64) -> bool {
    fill >= FILL_MAX
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use porchlight_device::marks::GENERATION_MS;

    const HOUR: i64 = 60 * 60 * 1000;

    fn shape(text: &str) -> Shape {
        Shape::parse(text.to_owned()).unwrap()
    }

    #[test]
    fn only_a_shape_reads_as_one() {
        assert_eq!(shape("").spans, []);
        assert_eq!(shape("5:0:2,-4:1:1").spans.len(), 2);
        for text in ["5", "5:2:1", "5:0:9", "5:0:0:0", "x:0:0"] {
            assert!(Shape::parse(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mark_is_looked_up_in_every_level_of_this_and_the_last_generation() {
        let partition = Partition::all().next().unwrap();
        let now = 5 * GENERATION_MS + 10 * HOUR;
        let found = shape("5:1:3,4:2:2,3:0:0")
            .lookup(partition, 70, Some(-1), now)
            .unwrap();
        let wanted = [
            "5:3:6", "5:1:2", "5:2:6", "4:2:6", "5:3:63", "5:1:3", "5:2:15", "4:2:15",
        ];
        assert_eq!(
            found.buckets,
            wanted.map(|rest| format!("porchlight:{{000}}:dd:{rest}"))
        );
        assert_eq!((found.count, found.ttl_s), (4, (2 * 96 - 10 + 2) * 3600));
        assert!(shape("4:0:0").lookup(partition, 0, None, now).is_none());
        let found = shape("4:0:0").look(partition, 0, None, now);
        assert_eq!(found.buckets, ["porchlight:{000}:dd:4:0:0"]);
        assert_eq!(shape("").look(partition, 0, Some(0), now).count, 0);
    }

    #[test]
    fn a_shape_drops_what_nobody_looks_up() {
        let grown = shape("5:1:1,4:0:1,3:0:0").with(Span {
            generation: 5,
            first: 1,
            last: 2,
        });
        assert_eq!(grown, "5:1:2,4:0:1,3:0:0");
        assert_eq!(
            shape(&grown).with(Span {
                generation: 6,
                first: 2,
                last: 2
            }),
            "6:2:2,5:1:2,4:0:1"
        );
    }
}
