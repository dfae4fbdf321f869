//! Ends a lapin connection for certain, by cutting the socket under it.
//!
//! A polite close is the connection's; this is for when nobody answers one.

use std::{
    io,
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
};

/// A second handle on the socket under a lapin connection.
///
/// lapin gives up a connection by asking the peer to close it, and its thread lives until the peer answers or the
/// kernel loses patience. Cutting the socket ends both at once, however dead the peer is.
#[derive(Clone, Default)]
pub(crate) struct Cutter {
    sockets: Arc<Mutex<Vec<TcpStream>>>,
}

impl Cutter {
    pub(crate) fn hold(&self, socket: &impl AsFd) -> io::Result<()> {
        let socket = TcpStream::from(socket.as_fd().try_clone_to_owned()?);
        self.sockets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(socket);
        Ok(())
    }

    pub(crate) fn cut(&self) {
        for socket in self
            .sockets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            // It fails only when the socket is already gone, which is what is wanted.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Cuts unless disarmed: a connect that is dropped half-way must not leave lapin's thread behind.
pub(crate) struct CutOnDrop(pub(crate) Option<Cutter>);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        if let Some(cutter) = self.0.take() {
            cutter.cut();
        }
    }
}
