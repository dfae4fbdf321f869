//! The sweeper: looks for commands that are still owed and accounts whose devices were not all told, and finishes both.
//!
//! It sends nothing itself; the dispatcher does. It is what makes the fast path free to drop anything.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::clerk::Clerk;
use crate::dispatch::Dispatch;
use crate::metrics::WorkerMetrics;

/// Sweeps between two counts of the backlog, which visits every partition for a gauge.
const SLOW_EVERY: u64 = 5;

/// The sweeper's task.
pub(crate) struct Sweeper {
    pub(crate) clerk: Arc<Clerk>,
    pub(crate) dispatch: Dispatch,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) interval: Duration,
}

impl Sweeper {
    /// Sweeps until `stop`; a sweep under way is dropped, since whatever it claimed stays owed.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let sweeping = async {
            for sweep in 0_u64.. {
                ticks.tick().await;
                if sweep.is_multiple_of(SLOW_EVERY) {
                    self.look_slowly().await;
                }
                self.send_due().await;
            }
        };
        stop.run_until_cancelled(sweeping).await;
    }

    async fn look_slowly(&self) {
        if let Some(backlog) = self.clerk.backlog().await {
            self.metrics.set_backlog(&backlog);
            if backlog.accounts_to_tell > 0 {
                self.clerk.finish_spreads().await;
            }
        }
    }

    async fn send_due(&self) {
        // A claim holds a command back from every other worker, so one that cannot send must not claim.
        if !self.dispatch.is_ready() {
            return;
        }
        for command in self.clerk.claim().await {
            self.dispatch.give(command).await;
        }
    }
}
