//! A private RabbitMQ node: own ports, own directory, own cookie, own port mapper; killed, frozen and restarted at will.
//!
//! It does not start the management plugin: what a test asks of the broker goes to the node's own Erlang shell (see
//! `shell`), which halves the start and answers in milliseconds. The plugin is there for tests of what uses it
//! ([`RabbitMq::management_url`]). It knows no queue of ours.

mod control;
mod port_mapper;
mod shell;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

pub use control::{ControlError, QueueState};

use crate::directory::Directory;
use crate::keeper::mortal;
use crate::poll::WaitError;
use crate::ports::free_port;
use crate::process::{Process, Signal, StartError, folder, write_file};

/// How long a node may take to start. It takes 6 to 12 s of processor time, and two test processes may share a core.
const START_PATIENCE: Duration = Duration::from_secs(300);
/// How long one attempt to connect may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// How long an orderly stop may take before the node is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(120);
/// Memory at which a node raises its alarm by itself: far above what tests fill.
const MEMORY_BYTES_MAX: u64 = 4_000_000_000;
/// Free disk below which a node raises its alarm by itself.
const DISK_FREE_BYTES_MIN: u64 = 50_000_000;
/// Size of the quorum queues' log before it is cut into segments; the default, 512 MB, is for large machines.
const LOG_BYTES_MAX: u64 = 64_000_000;
/// How often figures are gathered for the management plugin, where it runs; the default, 5 s, is a long wait in a test.
const GATHERING_MS: u32 = 500;
/// Where packages put the start script that replaces itself by the node.
const SCRIPTS: [&str; 3] = [
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/opt/rabbitmq/sbin/rabbitmq-server",
    "/usr/local/sbin/rabbitmq-server",
];

static SHARED: OnceCell<RabbitMq> = OnceCell::const_new();
static VHOSTS: AtomicU32 = AtomicU32::new(0);

/// A private node. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct RabbitMq {
    script: PathBuf,
    node_name: String,
    port: u16,
    dist_port: u16,
    management_port: u16,
    management: OnceCell<()>,
    // Before the directory: the process must be gone when the data are removed.
    process: Mutex<Option<Arc<Process>>>,
    frozen: AtomicBool,
    shell: shell::Shell,
    directory: Directory,
}

impl RabbitMq {
    /// Starts a node of this test's own. Takes 6 to 12 s; tests that do not break the broker use [`Self::shared`].
    ///
    /// # Errors
    /// [`StartError`] when RabbitMQ is not installed or the node does not start; the end of its log is in it.
    pub async fn start() -> Result<Self, StartError> {
        let node = Self::prepare()?;
        node.start_again().await?;
        Ok(node)
    }

    /// The node that all tests of this process share; it is started by the first that asks. Take a fresh
    /// [`Self::vhost`] and never do anything to the node as a whole: no kill, no pause, no alarm.
    ///
    /// # Panics
    /// When the node does not start: no test that needs it can go on.
    pub async fn shared() -> &'static Self {
        let start = async || {
            Self::start()
                .await
                .unwrap_or_else(|error| panic!("the shared RabbitMQ: {error}"))
        };
        SHARED.get_or_init(start).await
    }

    /// Chooses ports and writes the configuration; starts nothing. For tests in which the broker comes later:
    /// [`Self::url`] is already right, [`Self::start_again`] starts it.
    ///
    /// # Errors
    /// [`StartError`] when RabbitMQ is not installed or its files cannot be written.
    pub fn prepare() -> Result<Self, StartError> {
        let script = SCRIPTS.iter().map(PathBuf::from).find(|path| path.exists());
        let missing = || StartError::NotRunnable {
            program: "rabbitmq-server".to_owned(),
            package: "rabbitmq-server",
            source: std::io::ErrorKind::NotFound.into(),
        };
        let script = script.ok_or_else(missing)?;
        let directory = folder("rabbitmq")?;
        let path = directory.path();
        let (port, dist_port, management_port) = (free_port(), free_port(), free_port());
        let node_name = format!("porchlight-{}-{port}@localhost", std::process::id());
        write_file(
            "rabbitmq",
            &path.join("rabbitmq.config"),
            &configuration(port, management_port),
        )?;
        write_file("rabbitmq", &path.join("enabled_plugins"), "[].\n")?;
        let shell = shell::Shell::new(path);
        Ok(Self {
            script,
            node_name,
            port,
            dist_port,
            management_port,
            management: OnceCell::new(),
            process: Mutex::new(None),
            frozen: AtomicBool::new(false),
            shell,
            directory,
        })
    }

    /// Starts the node on its ports with the data it had, and waits until it accepts connections. Does nothing
    /// when it runs.
    ///
    /// # Errors
    /// [`StartError`] with the end of the log.
    pub async fn start_again(&self) -> Result<(), StartError> {
        if self.is_running() {
            return Ok(());
        }
        let mapper = port_mapper::shared().await?;
        let log = self.log_path();
        let process = Arc::new(Process::start("rabbitmq-server", self.command(mapper), log)?);
        *self.slot() = Some(Arc::clone(&process));
        let booted = self.shell.begin(&process, shell::AWAIT_BOOT);
        let address = self.address();
        process
            .wait_ready(START_PATIENCE, async || booted.poll()?)
            .await?;
        let connect = async || {
            TcpStream::connect_timeout(&address, CONNECT_PATIENCE).map_err(|error| error.to_string())
        };
        process.wait_ready(START_PATIENCE, connect).await.map(drop)
    }

    /// SIGKILL: no message is flushed, no client is told. Only the list of queues is written out before: RabbitMQ
    /// loses a queue declared less than half a second before a crash, and tests declare late and crash early.
    pub fn kill(&self) {
        let process = self.slot().take();
        if let Some(process) = process {
            if !self.frozen.swap(false, Ordering::SeqCst) {
                self.shell.sync_declarations(&process);
            }
            process.kill();
        }
    }

    /// An orderly stop: queues are synced, clients are told.
    ///
    /// # Errors
    /// [`WaitError`] when the node had to be killed; it is gone then, too.
    pub async fn stop(&self) -> Result<(), WaitError> {
        let Some(process) = self.slot().take() else {
            return Ok(());
        };
        // A node that cannot read this any more is ending already.
        let _ = process.write("init:stop().\n");
        process.wait(STOP_PATIENCE).await.map(drop)
    }

    /// An orderly stop, if it runs, and a start on the same ports with the same data.
    ///
    /// # Errors
    /// [`StartError`] with the end of the log.
    pub async fn restart(&self) -> Result<(), StartError> {
        if let Err(error) = self.stop().await {
            let log = crate::directory::tail(&self.log_path(), 20);
            return Err(StartError::NotReady {
                program: "rabbitmq-server".to_owned(),
                log,
                source: error,
            });
        }
        self.start_again().await
    }

    /// Freezes the node: it keeps its connections and answers nothing from when this returns.
    pub fn pause(&self) {
        self.frozen.store(true, Ordering::SeqCst);
        self.signal(Signal::Stop);
    }

    /// Thaws it.
    pub fn resume(&self) {
        self.signal(Signal::Continue);
        self.frozen.store(false, Ordering::SeqCst);
    }

    /// Whether the node's process is there.
    pub fn is_running(&self) -> bool {
        self.slot()
            .as_ref()
            .is_some_and(|process| process.exit_status().is_none())
    }

    /// Where it listens for AMQP.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The AMQP URL of the default virtual host.
    pub fn url(&self) -> String {
        self.url_for_vhost("/")
    }

    /// The AMQP URL of a virtual host.
    pub fn url_for_vhost(&self, vhost: &str) -> String {
        Self::url_at(self.address(), vhost)
    }

    /// The AMQP URL of a virtual host as seen through a relay at `address`.
    pub fn url_at(address: SocketAddr, vhost: &str) -> String {
        format!(
            "amqp://guest:guest@{address}/{}",
            vhost.replace('%', "%25").replace('/', "%2f")
        )
    }

    /// The URL of the management API, with name and password. The plugin is started by the first who asks, within a
    /// second, and is there after every later start, too.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn management_url(&self) -> Result<String, ControlError> {
        // Two at once get into each other's way.
        self.management
            .get_or_try_init(|| self.enable_management())
            .await?;
        Ok(format!("http://guest:guest@127.0.0.1:{}", self.management_port))
    }

    /// A name for a virtual host that this process has not used before.
    fn vhost_name() -> String {
        format!("test-{}", VHOSTS.fetch_add(1, Ordering::Relaxed))
    }

    /// The node's log, whole.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Where its data and logs lie.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("output.log")
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = self.slot().as_ref() {
            process.signal(signal).expect("an own child can be signalled");
        }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Process>>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn command(&self, mapper_port: u16) -> Command {
        let home = self.directory.path();
        let mut command = mortal(&self.script);
        command.env_clear().current_dir(home);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", home).env("LANG", "C.UTF-8");
        command.env("ERL_EPMD_PORT", mapper_port.to_string());
        command.env("RABBITMQ_NODENAME", &self.node_name);
        command.env("RABBITMQ_DIST_PORT", self.dist_port.to_string());
        command.env("RABBITMQ_CONF_ENV_FILE", "/dev/null");
        command.env("RABBITMQ_CONFIG_FILE", home.join("rabbitmq.config"));
        command.env("RABBITMQ_ENABLED_PLUGINS_FILE", home.join("enabled_plugins"));
        command.env("RABBITMQ_MNESIA_BASE", home.join("data"));
        command.env("RABBITMQ_LOG_BASE", home.join("log"));
        command.env("RABBITMQ_PID_FILE", home.join("pid"));
        // The script then replaces itself by the node, whose shell reads our commands.
        command.env("RABBITMQ_ALLOW_INPUT", "1");
        // Two schedulers that do not spin: the machine's cores belong to all tests at once.
        let flags = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none \
                     -setcookie porchlight-testbed -kernel inet_dist_use_interface {127,0,0,1}";
        command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", flags);
        command
    }
}

/// In Erlang's own terms, not the newer format, whose schemas cost another second to load.
fn configuration(port: u16, management_port: u16) -> String {
    format!(
        "[{{rabbit, [{{tcp_listeners, [{{\"127.0.0.1\", {port}}}]}}, {{heartbeat, 10}},\n\
         \x20 {{vm_memory_high_watermark, {{absolute, {MEMORY_BYTES_MAX}}}}},\n\
         \x20 {{disk_free_limit, {DISK_FREE_BYTES_MIN}}}, {{collect_statistics_interval, {GATHERING_MS}}},\n\
         \x20 {{log, [{{console, [{{enabled, true}}, {{level, info}}]}}, {{file, [{{file, false}}]}}]}}]}},\n\
         \x20{{rabbitmq_management, [{{tcp_config, [{{ip, \"127.0.0.1\"}}, {{port, {management_port}}}]}}]}},\n\
         \x20{{ra, [{{wal_max_size_bytes, {LOG_BYTES_MAX}}}]}}].\n"
    )
}
