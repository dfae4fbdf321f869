//! Waiting for a state: look often, give up late, and say what was seen last.
//!
//! It does not wait for a time to pass: a test that guesses a delay is slow on one machine and flaky on the next.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause between two looks; each next one is half as long again.
const PAUSE_FIRST: Duration = Duration::from_millis(2);
/// The longest pause: short enough that no test feels it, long enough to leave the processor to the servers.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// A state that did not come.
#[derive(Debug, Clone, thiserror::Error)]
#[error("waited {} ms for {what}; last seen: {last}", patience.as_millis())]
pub struct WaitError {
    /// The state that was waited for.
    pub what: String,
    /// How long it was waited for.
    pub patience: Duration,
    /// What the last look saw.
    pub last: String,
}

/// Calls `look` until it gives `Ok`, and returns that value.
///
/// `look` says in its `Err` what it saw instead. A look that takes longer than what is left of `patience` is
/// dropped, so it must be cancel safe. It is called at least once.
///
/// # Errors
/// [`WaitError`] with the last status when `patience` is over.
pub async fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, WaitError> {
    let deadline = Instant::now() + patience;
    let mut pause = PAUSE_FIRST;
    let mut last = String::from("nothing, the first look did not return");
    loop {
        match tokio::time::timeout_at(deadline, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => last = seen,
            Err(_) => {
                return Err(WaitError {
                    what: what.to_owned(),
                    patience,
                    last,
                });
            }
        }
        if Instant::now() >= deadline {
            return Err(WaitError {
                what: what.to_owned(),
                patience,
                last,
            });
        }
        tokio::time::sleep(pause.min(deadline - Instant::now())).await;
        pause = (pause * 3 / 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[tokio::test]
    async fn a_state_that_comes_later_is_returned() {
        let mut looks = 0;
        let seen = wait_for("the third look", Duration::from_secs(60), async || {
            looks += 1;
            if looks == 3 {
                Ok(looks)
            } else {
                Err(format!("look {looks}"))
            }
        });
        assert_eq!(seen.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_state_that_never_comes_is_reported_with_what_was_seen_last() {
        let never = wait_for("rain", Duration::from_millis(20), async || {
            Err::<(), _>("sunshine".to_owned())
        });
        let error = never.await.unwrap_err().to_string();
        assert_eq!(error, "waited 20 ms for rain; last seen: sunshine");
    }

    #[tokio::test]
    async fn a_look_that_hangs_does_not_outlast_the_patience() {
        let hung = wait_for("an answer", Duration::from_millis(20), async || {
            std::future::pending::<Result<(), String>>().await
        });
        let ended = tokio::time::timeout(Duration::from_secs(60), hung).await;
        assert!(ended.expect("the patience ends it").is_err());
    }
}
