//! A faulty network between a client and a server: a TCP relay on loopback whose faults are switched while it runs.
//!
//! It does not understand what it carries. It lives in the runtime of the test that started it and ends with it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Bytes carried at once in one direction of one connection.
const CHUNK_BYTES: usize = 64 * 1024;
/// How long the server behind may take to accept.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries to take the port again: a process that is being started keeps a copy of the old listener until it runs.
const BIND_PAUSE: Duration = Duration::from_millis(5);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    ToServer,
    /// From the server.
    ToClient,
}

/// What becomes of the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Pass,
    Stall,
    Drop,
    /// Pass so many more, then cut every connection.
    CutAfter(usize),
}

#[derive(Debug, Clone)]
struct Mode {
    to_server: Flow,
    to_client: Flow,
    refuse: bool,
    latency: Duration,
    /// Cancelled to cut the connections that exist now; replaced for those to come.
    cut: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    mode: watch::Sender<Mode>,
    open: AtomicUsize,
    accepted: AtomicUsize,
    dropped: AtomicUsize,
}

/// A running relay. Dropping it cuts everything and closes its port.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Relay {
    /// Starts a relay to `target`, which need not be there yet.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, crate::ports::free_port())).await?;
        let address = listener.local_addr()?;
        let mode = Mode {
            to_server: Flow::Pass,
            to_client: Flow::Pass,
            refuse: false,
            latency: Duration::ZERO,
            cut: CancellationToken::new(),
        };
        let shared = Arc::new(Shared {
            mode: watch::Sender::new(mode),
            open: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
        });
        let stop = CancellationToken::new();
        let run = accept(listener, address, target, Arc::clone(&shared));
        tokio::spawn(stop.clone().run_until_cancelled_owned(run));
        Ok(Self {
            address,
            shared,
            stop,
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Carries everything again, in both directions, without delay, and accepts connections. Connections that were
    /// cut stay cut; bytes that were dropped stay lost; bytes that were held go on.
    pub fn pass(&self) {
        self.change(|mode| {
            mode.to_server = Flow::Pass;
            mode.to_client = Flow::Pass;
            mode.refuse = false;
            mode.latency = Duration::ZERO;
        });
    }

    /// Holds all bytes of both directions; connections stay open and new ones are accepted.
    pub fn stall(&self) {
        self.stall_one(Direction::ToServer);
        self.stall_one(Direction::ToClient);
    }

    /// Holds the bytes of one direction.
    pub fn stall_one(&self, direction: Direction) {
        self.change(|mode| *mode.flow_mut(direction) = Flow::Stall);
    }

    /// Reads the bytes of one direction and throws them away.
    pub fn drop_bytes(&self, direction: Direction) {
        self.change(|mode| *mode.flow_mut(direction) = Flow::Drop);
    }

    /// Closes every connection now. New ones are accepted, unless refused.
    pub fn cut(&self) {
        self.change(Mode::cut);
    }

    /// Carries so many more bytes of one direction, over all connections together, then cuts all, once.
    pub fn cut_after(&self, direction: Direction, bytes: usize) {
        self.change(|mode| *mode.flow_mut(direction) = Flow::CutAfter(bytes));
    }

    /// Closes the port, or opens it again. Connections that exist are not touched.
    pub fn refuse(&self, refuse: bool) {
        self.change(|mode| mode.refuse = refuse);
    }

    /// Delays each chunk (at most 64 KiB) of each direction by `latency`; throughput is bounded by that.
    pub fn delay(&self, latency: Duration) {
        self.change(|mode| mode.latency = latency);
    }

    /// How many connections are open.
    pub fn open_count(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How many connections were accepted so far.
    pub fn accepted_count(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many bytes were thrown away so far.
    pub fn dropped_bytes(&self) -> usize {
        self.shared.dropped.load(Ordering::SeqCst)
    }

    fn change(&self, change: impl FnOnce(&mut Mode)) {
        self.shared.mode.send_modify(change);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.cancel();
        self.cut();
    }
}

impl Mode {
    fn flow_mut(&mut self, direction: Direction) -> &mut Flow {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }

    fn flow(&self, direction: Direction) -> Flow {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }

    fn cut(&mut self) {
        std::mem::replace(&mut self.cut, CancellationToken::new()).cancel();
    }
}

impl Shared {
    /// Takes up to `wanted` bytes from what may still pass; the second value says whether to cut after them.
    fn take(&self, direction: Direction, wanted: usize) -> (usize, bool) {
        let mut taken = (wanted, false);
        self.mode.send_if_modified(|mode| {
            let Flow::CutAfter(left) = mode.flow(direction) else {
                return false;
            };
            taken = (wanted.min(left), wanted >= left);
            *mode.flow_mut(direction) = if taken.1 {
                Flow::Pass
            } else {
                Flow::CutAfter(left - wanted)
            };
            // The pumps need not wake for a count; a pump that stalls must not miss anything else either.
            false
        });
        taken
    }
}

async fn accept(listener: TcpListener, address: SocketAddr, target: SocketAddr, shared: Arc<Shared>) {
    let mut mode = shared.mode.subscribe();
    let mut listener = Some(listener);
    loop {
        let refuse = mode.borrow_and_update().refuse;
        if refuse {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None if refuse => std::future::pending().await,
                None => {
                    tokio::time::sleep(BIND_PAUSE).await;
                    Err(io::ErrorKind::AddrInUse.into())
                }
            }
        };
        tokio::select! {
            biased;
            changed = mode.changed() => if changed.is_err() { return },
            accepted = accepted => if let Ok((client, _)) = accepted {
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                // Whoever cuts from now on means this connection, too.
                let cut = shared.mode.borrow().cut.clone();
                tokio::spawn(carry(client, target, cut, Arc::clone(&shared)));
            },
        }
    }
}

async fn carry(client: TcpStream, target: SocketAddr, cut: CancellationToken, shared: Arc<Shared>) {
    shared.open.fetch_add(1, Ordering::SeqCst);
    let both = async {
        let Ok(Ok(server)) = tokio::time::timeout(CONNECT_PATIENCE, TcpStream::connect(target)).await else {
            return;
        };
        // Only the delay that was asked for.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        tokio::join!(
            pump(client_read, server_write, Direction::ToServer, &shared),
            pump(server_read, client_write, Direction::ToClient, &shared),
        );
    };
    cut.run_until_cancelled(both).await;
    shared.open.fetch_sub(1, Ordering::SeqCst);
}

/// Carries one direction of one connection until its end; both ends close when the future is dropped.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, direction: Direction, shared: &Shared) {
    let mut mode = shared.mode.subscribe();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        if mode
            .wait_for(|mode| mode.flow(direction) != Flow::Stall)
            .await
            .is_err()
        {
            return;
        }
        let read = tokio::select! {
            biased;
            changed = mode.changed() => if changed.is_err() { return } else { continue },
            read = from.read(&mut chunk) => read,
        };
        let Ok(length @ 1..) = read else { break };
        let latency = mode.borrow().latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        // What was read before the switch must not slip through after it.
        if mode
            .wait_for(|mode| mode.flow(direction) != Flow::Stall)
            .await
            .is_err()
        {
            return;
        }
        if mode.borrow().flow(direction) == Flow::Drop {
            shared.dropped.fetch_add(length, Ordering::SeqCst);
            continue;
        }
        let (passed, cut) = shared.take(direction, length);
        if to.write_all(&chunk[..passed]).await.is_err() {
            break;
        }
        if cut {
            shared.mode.send_modify(Mode::cut);
            return;
        }
    }
    // The other direction goes on, as on a real half-closed connection.
    let _ = to.shutdown().await;
}
