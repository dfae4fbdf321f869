//! What tests need around them: private RabbitMQ, Redis and Prometheus servers, a faulty network, our own daemons, and waiting.
//!
//! Nothing here ships, and nothing here knows queues or keys of ours. Servers are private to the test process: own
//! ports, own directory, own cookie; a broker that already runs on the machine is never touched. Every child dies
//! with the test process, however that ends.
//!
//! - [`RabbitMq`] and [`Redis`]: start, kill, pause, restart with the data kept, look inside.
//! - [`Prometheus`]: scrapes what a test names, and is asked.
//! - [`Relay`]: stands between a client and a server and stalls, drops, delays or cuts.
//! - [`Daemon`]: one of this workspace's binaries as a child process.
//! - [`http`]: raw requests, byte by byte where a test needs that; [`LoadGenerator`]: many signed ones.
//! - [`Receiver`]: a partner's service that receives callbacks, or refuses to.
//! - [`Collector`]: takes traces, and shows their spans.
//! - [`Terminal`]: a program in a terminal, with its screen.
//! - [`wait_for`]: the only way a test waits.

pub mod daemon;
mod directory;
pub mod http;
mod keeper;
pub mod load;
pub mod poll;
pub mod ports;
mod process;
pub mod prometheus;
pub mod rabbitmq;
pub mod receiver;
pub mod redis;
pub mod relay;
pub mod report;
mod resp;
pub mod spans;
pub mod terminal;

pub use daemon::{Daemon, binary};
pub use load::{LoadGenerator, RingSchedule};
pub use poll::{WaitError, wait_for};
pub use ports::free_port;
pub use process::{Signal, StartError};
pub use prometheus::Prometheus;
pub use rabbitmq::RabbitMq;
pub use receiver::Receiver;
pub use redis::Redis;
pub use relay::{Direction, Relay};
pub use report::Report;
pub use spans::{Collector, SeenSpan};
pub use terminal::Terminal;
