//! No child outlives the test process, even when that is killed with -9.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use porchlight_testbed::{RabbitMq, Redis, wait_for};

/// Set for the process that is to be killed; it then only starts servers and waits.
const VICTIM: &str = "PORCHLIGHT_TESTBED_VICTIM";

/// A process that waits for a slow disk ends when that has answered.
const GONE_WITHIN: Duration = Duration::from_secs(90);

/// Processes whose environment or arguments name the root directory of test process `pid`.
fn children_of(pid: u32) -> Vec<String> {
    let root = format!("porchlight-testbed-{pid}-");
    let processes = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let belongs = |path: &Path| {
        let folder = std::fs::read_link(path.join("cwd")).unwrap_or_default();
        let arguments = std::fs::read(path.join("cmdline")).unwrap_or_default();
        !arguments.is_empty()
            && (folder.to_string_lossy().contains(&root)
                || String::from_utf8_lossy(&arguments).contains(&root))
    };
    processes
        .filter(|path| belongs(path))
        .map(|path| {
            String::from_utf8_lossy(&std::fs::read(path.join("comm")).unwrap_or_default())
                .trim()
                .to_owned()
        })
        .collect()
}

/// The process to be killed: this test, started again with the variable set.
async fn be_the_victim(ready: &str) {
    let _broker = RabbitMq::start().await.unwrap();
    let _redis = Redis::start().await.unwrap();
    std::fs::write(ready, b"").unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn nothing_is_left_when_the_test_process_is_killed() {
    if let Ok(ready) = std::env::var(VICTIM) {
        return be_the_victim(&ready).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "mortality::nothing_is_left_when_the_test_process_is_killed",
    ]);
    command
        .env(VICTIM, &ready)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut victim = command.spawn().unwrap();
    let pid = victim.id();
    let started = async || {
        let ended = victim.try_wait().unwrap();
        assert!(ended.is_none(), "the victim ended by itself");
        if ready.exists() {
            Ok(())
        } else {
            Err(format!("{:?}", children_of(pid)))
        }
    };
    wait_for("the victim's servers", Duration::from_secs(600), started)
        .await
        .unwrap();
    let running = children_of(pid);
    for name in ["beam.smp", "redis-server", "epmd"] {
        assert!(
            running.iter().any(|known| known == name),
            "{name} is not among {running:?}"
        );
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
    let gone = async || match children_of(pid) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    };
    wait_for("the victim's servers to be gone", GONE_WITHIN, gone)
        .await
        .unwrap();
    let root = format!("porchlight-testbed-{pid}-");
    let swept = async || {
        let entries = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
        let left = entries
            .map(|entry| entry.file_name())
            .find(|name| name.to_string_lossy().starts_with(&root));
        left.map_or(Ok(()), |name| Err(format!("{} is there", name.display())))
    };
    wait_for("its directory to be gone", GONE_WITHIN, swept)
        .await
        .unwrap();
}
