//! Watching the queues from within a daemon: depths are read again and again, and the last reading is shown as metrics.
//!
//! It judges nothing and takes nothing from a queue. Nobody waits for it: a scrape shows what was read last, and the
//! work goes on whatever a server does.
//!
//! - [`WatchArgs`] and [`ManagementArgs`]: what can be set.
//! - [`QueueWatch`]: the task that reads.
//! - `shown`: the figures, under `porchlight_queue_`.

mod args;
mod beat;
mod queues;
mod shown;

pub use args::{ManagementArgs, WatchArgs};
pub use beat::Beat;
pub use porchlight_management::Management;
pub use queues::QueueWatch;
