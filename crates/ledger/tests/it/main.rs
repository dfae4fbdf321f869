//! One suite for both ledgers: Redis on private servers, SQLite in directories of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

/// Runs each of these tests once for each ledger.
macro_rules! for_both {
    ($($test:ident),* $(,)?) => {
        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::support::Place::redis().await).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::support::Place::sqlite()).await;
            })*
        }
    };
}

mod accounts;
mod carry;
mod ids;
mod marks;
mod model;
mod orders;
mod outbox;
mod pages;
mod predict;
mod races;
mod support;
