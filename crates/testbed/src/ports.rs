//! Free loopback ports that stay free until the server that was promised one has bound it.
//!
//! It does not hold a port: it hands each out once per process, from a range below the one the kernel picks
//! outgoing ports from, and begins at a place derived from the process id, so that two test processes rarely meet.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::TcpSocket;

/// The first port handed out; the usual servers' own ports that lie in the range are skipped.
const FIRST: u32 = 10_000;
/// How many ports there are: up to 32 000, below Linux's range for outgoing connections (32 768 and up).
const COUNT: u32 = 22_000;
/// Ports that programs on the machine may expect to find a well-known server at.
const WELL_KNOWN: [u16; 6] = [15_671, 15_672, 15_692, 16_379, 25_672, 27_017];
/// A step between the starting points of neighbouring process ids, larger than what one process needs.
const STRIDE: u32 = 211;

static HANDED_OUT: AtomicU32 = AtomicU32::new(0);

/// A loopback port nobody listens on, which this process has not been given before.
///
/// # Panics
/// When no port of the range is free, which no test can go on without.
pub fn free_port() -> u16 {
    let offset = std::process::id().wrapping_mul(STRIDE);
    for _ in 0..COUNT {
        let step = HANDED_OUT.fetch_add(1, Ordering::Relaxed);
        let candidate = FIRST + offset.wrapping_add(step) % COUNT;
        let port = u16::try_from(candidate).expect("the range ends below 65 536");
        if !WELL_KNOWN.contains(&port) && try_bind(port).is_ok() {
            return port;
        }
    }
    panic!("no loopback port between {FIRST} and {} is free", FIRST + COUNT);
}

/// Binds the port for a moment, without listening: a process that another test is starting just then keeps a copy of the
/// handle until it runs, and a copy that listens would keep the server out for which the port is meant.
fn try_bind(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use std::collections::HashSet;
    use std::net::TcpListener;

    #[test]
    fn no_port_is_handed_out_twice() {
        let ports: HashSet<u16> = (0..200).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 200);
    }

    #[test]
    fn a_port_that_somebody_listens_at_is_not_free_and_one_that_was_tried_is() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();
        assert!(try_bind(taken.local_addr().unwrap().port()).is_err());
        // As a process that is being started keeps it.
        let port = free_port();
        let _copy = try_bind(port).unwrap();
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
    }
}
