//! Binaries of the workspace as children.

use std::time::Duration;

use porchlight_testbed::{Daemon, binary, http, wait_for};

/// Long enough for a program that is read from a slow disk; a wait that succeeds never takes it.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_binary_is_run_to_its_end_and_its_output_read() {
    let help = Daemon::of("porchlight-loadgen").arg("--help").start().unwrap();
    assert!(help.wait(PATIENCE).await.unwrap().success());
    assert!(help.logs().contains("--connections"), "{}", help.logs());
    let wrong = Daemon::of("porchlight-loadgen")
        .args(["--url", "ftp://x", "--key", "k"])
        .start()
        .unwrap();
    assert_eq!(wrong.wait(PATIENCE).await.unwrap().code(), Some(2));
    assert!(binary("porchlight-none").is_err());
}

#[tokio::test]
async fn a_binary_that_runs_on_is_stopped() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let start = || {
        let run = Daemon::of("porchlight-loadgen").args([
            "--url",
            url.as_str(),
            "--seconds",
            "60",
            "--connections",
            "1",
        ]);
        run.env("PORCHLIGHT_LOADGEN_KEY", "secret").start().unwrap()
    };
    let asked = start();
    // It has sent a request, so it is past its start.
    drop(
        tokio::time::timeout(PATIENCE, listener.accept())
            .await
            .unwrap()
            .unwrap(),
    );
    asked.terminate(PATIENCE).await.unwrap();
    let killed = start();
    killed.kill9();
    assert!(killed.exit_status().is_some());
    assert!(http::get("127.0.0.1:1".parse().unwrap(), "/").await.is_err());
    wait_for("nothing", Duration::ZERO, async || Ok(()))
        .await
        .unwrap();
}
