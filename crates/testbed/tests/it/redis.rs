//! A private Redis: kill and restart with the data kept, frozen, full.

use porchlight_testbed::Redis;
use porchlight_testbed::redis::{Fsync, Reply};

#[tokio::test]
async fn what_was_written_survives_a_kill() {
    let redis = Redis::start().await.unwrap();
    assert_eq!(
        redis.command(&["SET", "name", "value"]).unwrap(),
        Reply::Status("OK".to_owned())
    );
    redis.kill();
    assert!(!redis.is_running() && redis.command(&["PING"]).is_err());
    redis.start_again().await.unwrap();
    assert_eq!(redis.command(&["GET", "name"]).unwrap().text(), "value");
    redis.stop().await.unwrap();
    redis.restart().await.unwrap();
    assert_eq!(redis.command(&["GET", "name"]).unwrap().text(), "value");
}

#[tokio::test]
async fn two_servers_know_nothing_of_each_other() {
    let (first, second) = (Redis::start().await.unwrap(), Redis::start().await.unwrap());
    first.command(&["INCR", "count"]).unwrap();
    assert_eq!(first.command(&["GET", "count"]).unwrap().number(), Some(1));
    assert_eq!(second.command(&["GET", "count"]).unwrap(), Reply::Nil);
}

#[tokio::test]
async fn a_full_server_refuses_writes_and_evicts_nothing() {
    let redis = Redis::start_with(Fsync::EverySecond, Some(3_000_000))
        .await
        .unwrap();
    redis.command(&["SET", "first", "kept"]).unwrap();
    let large = "x".repeat(1_000_000);
    let refused = (0..20).map(|number| {
        redis
            .command(&["SET", &format!("large-{number}"), &large])
            .unwrap()
    });
    assert!(
        refused
            .into_iter()
            .any(|reply| matches!(reply, Reply::Error(text) if text.starts_with("OOM")))
    );
    assert_eq!(redis.command(&["GET", "first"]).unwrap().text(), "kept");
}

#[tokio::test]
async fn a_frozen_server_answers_after_it_is_thawed() {
    let redis = Redis::start().await.unwrap();
    redis.pause();
    let address = redis.address();
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(std::time::Duration::from_millis(200)))
            .unwrap();
        std::io::Write::write_all(&mut stream, b"PING\r\n").unwrap();
        std::io::Read::read(&mut stream, &mut [0; 16]).map_err(|error| error.kind())
    });
    assert_eq!(asked.await.unwrap(), Err(std::io::ErrorKind::WouldBlock));
    redis.resume();
    assert_eq!(redis.command(&["PING"]).unwrap().text(), "PONG");
}
