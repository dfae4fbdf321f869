//! The Erlang port mapper of this test process, in the foreground and on a port of its own.
//!
//! A node would start one as a daemon if it found none, and that one would outlive the tests.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::directory::Directory;
use crate::keeper::mortal;
use crate::ports::free_port;
use crate::process::{Process, StartError, folder};

/// How long it may take to start; it takes milliseconds, but the machine may be busy with everything else.
const START_PATIENCE: Duration = Duration::from_secs(60);

struct PortMapper {
    port: u16,
    _process: Process,
    _directory: Directory,
}

static SHARED: OnceCell<PortMapper> = OnceCell::const_new();

/// The port on which the mapper listens; it is started by the first node.
pub(super) async fn shared() -> Result<u16, StartError> {
    SHARED.get_or_try_init(start).await.map(|mapper| mapper.port)
}

async fn start() -> Result<PortMapper, StartError> {
    let port = free_port();
    let directory = folder("epmd")?;
    let mut command = mortal(program());
    command
        .args(["-port", &port.to_string(), "-address", "127.0.0.1"])
        .current_dir(directory.path());
    let process = Process::start("epmd", command, directory.path().join("output.log"))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let connect = async || {
        TcpStream::connect_timeout(&address, Duration::from_secs(1))
            .map(drop)
            .map_err(|error| error.to_string())
    };
    process.wait_ready(START_PATIENCE, connect).await?;
    Ok(PortMapper {
        port,
        _process: process,
        _directory: directory,
    })
}

/// On the path in Debian's packages; beside the runtime in others.
fn program() -> PathBuf {
    let runtimes = ["/usr/lib/erlang", "/usr/local/lib/erlang"];
    let beside = runtimes
        .iter()
        .filter_map(|runtime| std::fs::read_dir(runtime).ok())
        .flatten()
        .flatten();
    let found = beside
        .map(|entry| entry.path().join("bin/epmd"))
        .find(|path| path.exists());
    found.unwrap_or_else(|| PathBuf::from("epmd"))
}
