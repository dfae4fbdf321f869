//! Stopping: signals become a token, and a drain has a deadline and says whether it met it.
//!
//! The token is passed on by whoever composes the process; there is no global flag.

use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Drained {
    /// Everything ended in time.
    Met {
        /// How long it took.
        took: Duration,
    },
    /// The grace ran out.
    Missed {
        /// How many tasks were still at work.
        left: usize,
    },
}

/// SIGHUP, the wish that files be read again. Every clone sees every signal.
#[derive(Debug, Clone)]
pub struct Hangups(watch::Receiver<u64>);

/// Cancels the returned token on the first SIGTERM or SIGINT. A second one ends the process at once, with the
/// customary code 128 plus the signal's number.
///
/// # Errors
/// When the system lets no signal be listened for.
pub fn on_signals() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        let name = next(&mut terminate, &mut interrupt).await.0;
        tracing::info!(
            signal = name,
            "stopping; a second signal ends the process at once"
        );
        token.cancel();
        let (name, number) = next(&mut terminate, &mut interrupt).await;
        tracing::warn!(signal = name, "second signal: ending without waiting");
        std::process::exit(128 + number);
    });
    Ok(stop)
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = terminate.recv() => ("SIGTERM", SignalKind::terminate().as_raw_value()),
        _ = interrupt.recv() => ("SIGINT", SignalKind::interrupt().as_raw_value()),
    }
}

impl Hangups {
    /// Listens from here on. Without a listener SIGHUP would end the process.
    ///
    /// # Errors
    /// When the system lets no signal be listened for.
    pub fn listen() -> io::Result<Self> {
        let mut signals = signal(SignalKind::hangup())?;
        let (count, hangups) = watch::channel(0);
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                count.send_modify(|count| *count += 1);
            }
        });
        Ok(Self(hangups))
    }

    /// Comes from `count` instead of the system: one for each change of the number.
    pub fn counted(count: watch::Receiver<u64>) -> Self {
        Self(count)
    }

    /// The next SIGHUP; several in a row may count as one.
    ///
    /// # Cancel safety
    /// Safe: a signal that arrives in between is seen by the next call.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Waits until every task of `tasks` has ended, at most `grace`. No new one is expected.
pub async fn drain(tasks: &TaskTracker, grace: Duration) -> Drained {
    tasks.close();
    match within(grace, tasks.wait()).await {
        Some(((), took)) => Drained::Met { took },
        None => Drained::Missed { left: tasks.len() },
    }
}

/// What `work` gives and how long it took, or nothing if it takes longer than `grace`; it is dropped then.
pub async fn within<T>(grace: Duration, work: impl Future<Output = T>) -> Option<(T, Duration)> {
    let began = Instant::now();
    tokio::time::timeout(grace, work)
        .await
        .ok()
        .map(|value| (value, began.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_says_whether_it_was_met() {
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        tasks.spawn(stop.clone().cancelled_owned());
        assert_eq!(
            drain(&tasks, Duration::from_millis(1)).await,
            Drained::Missed { left: 1 }
        );
        stop.cancel();
        assert!(matches!(
            drain(&tasks, Duration::from_secs(10)).await,
            Drained::Met { .. }
        ));
    }
}
