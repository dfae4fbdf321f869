//! A connection that cannot be held for ever: deadlines on its head, its idle time, its writes and its end.
//!
//! It knows where one request ends and the next begins only because the service says so; it parses nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long each phase of a connection may last.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// From opening, or from the first byte of a request, until its head is whole.
    pub head: Duration,
    /// Without a byte after an answer. Behind a proxy longer than the proxy's own idle time, or it reuses a connection
    /// that is just being closed.
    pub idle: Duration,
    /// Without progress while an answer is being written.
    pub write: Duration,
    /// Of reading and discarding after an answer that was given before the whole request was read: closing at once
    /// would reset the connection and could take the answer away from the client.
    pub linger: Duration,
}

/// Where a connection stands, shared between its I/O and the service that answers on it.
#[derive(Debug)]
pub struct ConnectionPhase {
    opened_at: Instant,
    phase: AtomicU8,
    /// Of the phase, in nanoseconds after `opened_at`.
    since_ns: AtomicU64,
    lingers: AtomicBool,
}

/// A request in work; the connection counts as idle from when this is dropped.
#[derive(Debug)]
pub struct RequestMark {
    phase: Arc<ConnectionPhase>,
    first_byte_at: Instant,
}

/// A stream with deadlines.
#[derive(Debug)]
pub struct GuardedIo<I> {
    inner: I,
    phase: Arc<ConnectionPhase>,
    limits: ConnectionLimits,
    reading: Timer,
    writing: Timer,
    write_stalled_at: Option<Instant>,
    closed_at: Option<Instant>,
}

/// A sleep that is moved as seldom as possible: it may fire early, and is then moved to where it belongs.
#[derive(Debug, Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

/// Nothing was read yet.
const FRESH: u8 = 0;
/// A head has begun.
const HEAD: u8 = 1;
/// The service has a request.
const REQUEST: u8 = 2;
/// Answered, and nothing read since.
const IDLE: u8 = 3;

impl ConnectionPhase {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            opened_at: Instant::now(),
            phase: AtomicU8::new(FRESH),
            since_ns: AtomicU64::new(0),
            lingers: AtomicBool::new(false),
        })
    }

    /// The service has a whole head; call it once for each request.
    pub fn begin_request(self: &Arc<Self>) -> RequestMark {
        let first_byte_at = match self.phase.load(Relaxed) {
            HEAD => self.since(),
            // The head was read together with the request before it.
            _ => Instant::now(),
        };
        self.phase.store(REQUEST, Relaxed);
        RequestMark {
            phase: Arc::clone(self),
            first_byte_at,
        }
    }

    /// Whether nothing was read yet; the first request may be on its way.
    pub fn is_fresh(&self) -> bool {
        self.phase.load(Relaxed) == FRESH
    }

    /// Since when it has no request in work: since it was opened, since a head began, or since the last answer.
    pub fn quiet_since(&self) -> Option<Instant> {
        (self.phase.load(Relaxed) != REQUEST).then(|| self.since())
    }

    fn enter(&self, phase: u8) {
        let ns = u64::try_from(self.opened_at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.since_ns.store(ns, Relaxed);
        self.phase.store(phase, Relaxed);
    }

    fn since(&self) -> Instant {
        self.opened_at + Duration::from_nanos(self.since_ns.load(Relaxed))
    }

    fn bytes_came(&self) {
        if matches!(self.phase.load(Relaxed), FRESH | IDLE) {
            self.enter(HEAD);
        }
    }
}

impl RequestMark {
    /// When the first byte of this request was read.
    pub fn first_byte_at(&self) -> Instant {
        self.first_byte_at
    }

    /// The answer is given before the whole request was read, and the connection ends with it.
    pub fn linger(&self) {
        self.phase.lingers.store(true, Relaxed);
    }
}

impl Drop for RequestMark {
    fn drop(&mut self) {
        self.phase.enter(IDLE);
    }
}

impl<I> GuardedIo<I> {
    /// Guards `inner` from now on.
    pub fn new(inner: I, limits: ConnectionLimits) -> Self {
        Self {
            inner,
            phase: ConnectionPhase::new(),
            limits,
            reading: Timer::default(),
            writing: Timer::default(),
            write_stalled_at: None,
            closed_at: None,
        }
    }

    /// What the service needs to say where requests begin and end.
    pub fn phase(&self) -> Arc<ConnectionPhase> {
        Arc::clone(&self.phase)
    }

    fn poll_read_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let since = self.phase.since();
        match self.phase.phase.load(Relaxed) {
            REQUEST => Poll::Pending,
            IDLE => {
                ready!(self.reading.poll_at(since + self.limits.idle, cx));
                // No bytes means the end of the stream: the connection is closed in good order.
                Poll::Ready(Ok(()))
            }
            _ => {
                ready!(self.reading.poll_at(since + self.limits.head, cx));
                Poll::Ready(Err(timed_out("the head of a request was not whole in time")))
            }
        }
    }

    /// Passes a result of writing on, unless writing has stalled for too long.
    fn watch_write<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.write_stalled_at = None;
            return result;
        }
        let stalled_at = *self.write_stalled_at.get_or_insert_with(Instant::now);
        ready!(self.writing.poll_at(stalled_at + self.limits.write, cx));
        Poll::Ready(Err(timed_out("the client does not read its answer")))
    }
}

impl Timer {
    fn poll_at(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

fn timed_out(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, text)
}

impl<I: AsyncRead + Unpin> AsyncRead for GuardedIo<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let filled = buf.filled().len();
        match Pin::new(&mut this.inner).poll_read(cx, buf) {
            Poll::Pending => this.poll_read_deadline(cx),
            ready => {
                if buf.filled().len() > filled {
                    this.phase.bytes_came();
                }
                ready
            }
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for GuardedIo<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.watch_write(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.watch_write(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_flush(cx);
        this.watch_write(cx, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closed_at.is_none() {
            let result = Pin::new(&mut this.inner).poll_shutdown(cx);
            ready!(this.watch_write(cx, result))?;
            this.closed_at = Some(Instant::now());
        }
        if !this.phase.lingers.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let until = this.closed_at.unwrap_or_else(Instant::now) + this.limits.linger;
        let mut discarded = [0; 4096];
        loop {
            if Instant::now() >= until {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut discarded);
            match Pin::new(&mut this.inner).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return this.reading.poll_at(until, cx).map(Ok),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    const LIMITS: ConnectionLimits = ConnectionLimits {
        head: Duration::from_secs(4),
        idle: Duration::from_secs(75),
        write: Duration::from_secs(5),
        linger: Duration::from_secs(1),
    };

    fn pair() -> (DuplexStream, GuardedIo<DuplexStream>) {
        let (client, server) = duplex(64);
        (client, GuardedIo::new(server, LIMITS))
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_trickles_is_cut_off_after_the_head_limit() {
        let (mut client, mut server) = pair();
        let began = Instant::now();
        let trickle = async {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let read = async {
            let mut buf = [0; 8];
            loop {
                if let Err(error) = server.read(&mut buf).await {
                    return error;
                }
            }
        };
        let error = tokio::select! { error = read => error, () = trickle => unreachable!() };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_never_speaks_has_the_head_limit_too() {
        let (_client, mut server) = pair();
        assert_eq!(
            server.read_u8().await.unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_closed_in_good_order_after_the_idle_limit() {
        let (mut client, mut server) = pair();
        client.write_all(b"request").await.unwrap();
        server.read_exact(&mut [0; 7]).await.unwrap();
        drop(server.phase().begin_request());
        let began = Instant::now();
        assert_eq!(server.read(&mut [0; 7]).await.unwrap(), 0);
        assert_eq!(began.elapsed().as_secs(), 75);
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_head_on_a_connection_has_a_limit_of_its_own() {
        let (mut client, mut server) = pair();
        client.write_all(b"request").await.unwrap();
        server.read_exact(&mut [0; 7]).await.unwrap();
        drop(server.phase().begin_request());
        tokio::time::sleep(Duration::from_secs(60)).await;
        client.write_all(b"r").await.unwrap();
        server.read_u8().await.unwrap();
        let began = Instant::now();
        assert_eq!(
            server.read_u8().await.unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
        assert_eq!(began.elapsed().as_secs(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_in_work_has_no_limit_here_and_knows_its_first_byte() {
        let (mut client, mut server) = pair();
        client.write_all(b"x").await.unwrap();
        server.read_u8().await.unwrap();
        let first_byte_at = Instant::now();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mark = server.phase().begin_request();
        assert_eq!(mark.first_byte_at(), first_byte_at);
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, server.read_u8()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_cut_off_after_the_write_limit() {
        let (_client, mut server) = pair();
        let began = Instant::now();
        let error = server.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!(
            (error.kind(), began.elapsed().as_secs()),
            (io::ErrorKind::TimedOut, 5)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn lingering_discards_what_still_comes_but_not_for_long() {
        let (mut client, mut server) = pair();
        server.phase().begin_request().linger();
        let sending = tokio::spawn(async move {
            while client.write_all(&[0; 64]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let began = Instant::now();
        server.shutdown().await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 1);
        drop(server);
        sending.await.unwrap();
    }
}
