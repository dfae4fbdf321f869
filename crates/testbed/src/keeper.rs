//! The thread that starts every child process, so that none outlives the test process.
//!
//! It does not watch the children. The kernel kills a child that asked for it (`setpriv --pdeathsig`) when the
//! *thread* that started it ends; a test's own thread ends with the test, so one thread that never ends starts all.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Orders that may wait; whoever asks while it is full waits for those before, as it would for its own.
const ORDERS_MAX: usize = 16;

struct Order {
    command: Command,
    reply: SyncSender<io::Result<Child>>,
}

static KEEPER: OnceLock<Mutex<SyncSender<Order>>> = OnceLock::new();

/// A command that runs `program` and is killed by the kernel when this process ends, by whatever cause.
pub(crate) fn mortal(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Starts `command` on the keeper thread.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    let keeper = KEEPER.get_or_init(|| {
        let (orders, inbox) = sync_channel::<Order>(ORDERS_MAX);
        let run = move || {
            for mut order in inbox {
                // The one who asked may have gone; the child is then dropped and dies with the process.
                let _ = order.reply.send(order.command.spawn());
            }
        };
        std::thread::Builder::new()
            .name("testbed-keeper".to_owned())
            .spawn(run)
            .expect("a thread can be started");
        Mutex::new(orders)
    });
    let (reply, answer) = sync_channel(1);
    let order = Order { command, reply };
    keeper
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send(order)
        .map_err(io::Error::other)?;
    answer.recv().map_err(io::Error::other)?
}
