//! What each long-running process needs: settings, logs, metrics, stop and the admin listener.
//!
//! Nothing here knows an event, a queue or a device; this crate depends on no other of the workspace.

pub mod admin;
pub mod client;
pub mod follow;
pub mod guarded_io;
pub mod http;
pub mod log_gate;
pub mod metrics;
pub mod process;
pub mod readiness;
pub mod settings;
pub mod stop;
pub mod telemetry;
pub mod trace;

pub use admin::{Admin, AdminLimits, ApiFn, ApiRequest, ApiResponse, BoxFuture, Page, PageFn};
pub use log_gate::LogGate;
pub use metrics::Metrics;
pub use readiness::{NotReady, Note, Readiness, ReadyFn};
pub use settings::{Checker, Problems, Secret};

/// How a process says how it ended.
pub mod exit {
    /// A clean stop, or help and version shown.
    pub const OK: u8 = 0;
    /// It could not start (an address that is taken, for example), or did not stop cleanly.
    pub const FAILED: u8 = 1;
    /// A flag or a setting is wrong; nothing was started.
    pub const BAD_SETTINGS: u8 = 64;
}
