//! Reads one request's body: bounded in size, in time and in memory shared with all others, and fed to the signature
//! check piece by piece.
//!
//! It knows nothing of what the body says.

use std::error::Error;
use std::io;

use bytes::{Buf as _, Bytes};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// First memory taken for a body that does not fill it at once: a client may declare much and send little.
const FIRST_BYTES: usize = 16 * 1024;

/// Memory that all bodies share, in bytes.
#[derive(Debug)]
pub(crate) struct BodyMemory {
    free: Semaphore,
    bytes_max: usize,
}

/// A part of the shared memory, given back on drop.
#[derive(Debug)]
pub(crate) struct Share<'m> {
    memory: &'m BodyMemory,
    bytes: usize,
}

/// Bounds of one body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// Bytes.
    pub(crate) bytes_max: usize,
    /// When it must be whole.
    pub(crate) until: Instant,
}

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body is larger than the limit")]
    TooLarge,
    #[error("the body was not whole in time")]
    Slow,
    #[error("no memory is left for bodies")]
    MemoryFull,
    #[error("the body's framing is malformed")]
    Malformed,
    #[error("the connection broke within the body")]
    Broken,
}

impl BodyMemory {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            free: Semaphore::new(bytes_max),
            bytes_max,
        }
    }

    /// Bytes taken now.
    pub(crate) fn taken(&self) -> usize {
        self.bytes_max.saturating_sub(self.free.available_permits())
    }

    fn share(&self) -> Share<'_> {
        Share {
            memory: self,
            bytes: 0,
        }
    }
}

impl Share<'_> {
    fn grow(&mut self, more: usize) -> Result<(), BodyError> {
        let permits = u32::try_from(more).map_err(|_| BodyError::MemoryFull)?;
        let permit = self
            .memory
            .free
            .try_acquire_many(permits)
            .map_err(|_| BodyError::MemoryFull)?;
        // Given back by our own drop, which counts in bytes rather than in pieces.
        permit.forget();
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.memory.free.add_permits(self.bytes);
    }
}

/// Reads the whole of `body`, gives each piece to `feed`, and returns the bytes with their share of the memory.
///
/// # Errors
/// [`BodyError`]; the rest of the body is unread then.
pub(crate) async fn read<'m, B>(
    body: B,
    limits: BodyLimits,
    memory: &'m BodyMemory,
    feed: impl FnMut(&[u8]),
) -> Result<(Bytes, Share<'m>), BodyError>
where
    B: Body + Unpin,
    B::Error: Error + 'static,
{
    let whole = collect(body, limits.bytes_max, memory, feed);
    timeout_at(limits.until, whole)
        .await
        .unwrap_or(Err(BodyError::Slow))
}

async fn collect<'m, B>(
    mut body: B,
    bytes_max: usize,
    memory: &'m BodyMemory,
    mut feed: impl FnMut(&[u8]),
) -> Result<(Bytes, Share<'m>), BodyError>
where
    B: Body + Unpin,
    B::Error: Error + 'static,
{
    let mut share = memory.share();
    let mut bytes = Vec::new();
    let declared = usize::try_from(body.size_hint().lower())
        .unwrap_or(usize::MAX)
        .min(bytes_max);
    // A declared length is exact; growing beyond it would take memory from other bodies for nothing.
    let ceiling = body
        .size_hint()
        .upper()
        .and_then(|upper| usize::try_from(upper).ok());
    let ceiling = ceiling.unwrap_or(bytes_max).min(bytes_max);
    while let Some(frame) = body.frame().await {
        // What follows the body (trailers) is not signed and is dropped.
        let Ok(mut piece) = frame.map_err(|error| classify(&error))?.into_data() else {
            continue;
        };
        let needed = bytes.len() + piece.remaining();
        if needed > bytes_max {
            return Err(BodyError::TooLarge);
        }
        if needed > bytes.capacity() {
            let doubled = (2 * bytes.capacity()).min(ceiling);
            let capacity = needed.max(doubled).max(declared.min(FIRST_BYTES));
            share.grow(capacity - bytes.capacity())?;
            bytes.reserve_exact(capacity - bytes.len());
        }
        // Copied, so that the connection's read buffer is free for the next request.
        while piece.has_remaining() {
            let part = piece.chunk();
            feed(part);
            bytes.extend_from_slice(part);
            let read = part.len();
            piece.advance(read);
        }
    }
    Ok((bytes.into(), share))
}

/// A wrong chunk size or extension shows as invalid input; everything else is the connection's fault.
fn classify(error: &(dyn Error + 'static)) -> BodyError {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => BodyError::Malformed,
                _ => BodyError::Broken,
            };
        }
        cause = error.source();
    }
    BodyError::Broken
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;
    use std::time::Duration;

    fn pieces(pieces: &[&'static str]) -> impl Body<Data = Bytes, Error = io::Error> + Unpin {
        let frames: Vec<_> = pieces
            .iter()
            .map(|piece| Ok(Frame::data(Bytes::from(*piece))))
            .collect();
        StreamBody::new(stream::iter(frames))
    }

    fn limits(bytes_max: usize) -> BodyLimits {
        BodyLimits {
            bytes_max,
            until: Instant::now() + Duration::from_secs(2),
        }
    }

    #[tokio::test]
    async fn every_byte_is_kept_and_fed_once() {
        let memory = BodyMemory::new(1 << 20);
        let mut fed = Vec::new();
        let feed = |part: &[u8]| fed.extend_from_slice(part);
        let (bytes, share) = read(pieces(&["one ", "", "two"]), limits(7), &memory, feed)
            .await
            .unwrap();
        assert_eq!(bytes, "one two");
        assert_eq!(fed, b"one two");
        assert!(memory.taken() >= 7);
        drop(share);
        assert_eq!(memory.taken(), 0);
    }

    #[tokio::test]
    async fn one_byte_too_many_is_refused_and_all_memory_given_back() {
        let memory = BodyMemory::new(1 << 20);
        let error = read(pieces(&["one ", "two"]), limits(6), &memory, |_| {})
            .await
            .unwrap_err();
        assert!(matches!(error, BodyError::TooLarge));
        assert_eq!(memory.taken(), 0);
    }

    #[tokio::test]
    async fn bodies_share_one_memory() {
        let memory = BodyMemory::new(10);
        let (_, first) = read(pieces(&["seven b"]), limits(10), &memory, |_| {})
            .await
            .unwrap();
        let error = read(pieces(&["four"]), limits(10), &memory, |_| {})
            .await
            .unwrap_err();
        assert!(matches!(error, BodyError::MemoryFull));
        drop(first);
        assert!(read(pieces(&["four"]), limits(10), &memory, |_| {}).await.is_ok());
    }

    #[tokio::test]
    async fn memory_taken_is_memory_used() {
        let memory = BodyMemory::new(1 << 20);
        let whole = Full::new(Bytes::from(vec![0; 600]));
        let (_, share) = read(whole, limits(1 << 20), &memory, |_| {}).await.unwrap();
        assert_eq!(memory.taken(), 600);
        drop(share);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_is_slow() {
        let memory = BodyMemory::new(1 << 20);
        let never = StreamBody::new(stream::pending::<Result<Frame<Bytes>, io::Error>>());
        let error = read(never, limits(10), &memory, |_| {}).await.unwrap_err();
        assert!(matches!(error, BodyError::Slow));
    }

    #[tokio::test]
    async fn wrong_framing_and_a_broken_connection_are_told_apart() {
        for (kind, malformed) in [
            (io::ErrorKind::InvalidInput, true),
            (io::ErrorKind::UnexpectedEof, false),
        ] {
            let memory = BodyMemory::new(1 << 20);
            let frames = [Err::<Frame<Bytes>, _>(io::Error::from(kind))];
            let error = read(StreamBody::new(stream::iter(frames)), limits(10), &memory, |_| {})
                .await
                .unwrap_err();
            assert_eq!(matches!(error, BodyError::Malformed), malformed);
        }
    }
}
