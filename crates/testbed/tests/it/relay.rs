//! The relay's modes, against an echo server.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use porchlight_testbed::{Direction, Relay, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Long enough for loopback, short enough to find out that nothing comes.
const SILENCE: Duration = Duration::from_millis(150);
/// A wait that succeeds never takes it.
const PATIENCE: Duration = Duration::from_secs(60);

async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.into_split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

async fn start() -> (Relay, TcpStream) {
    let relay = Relay::start(echo_server().await).await.unwrap();
    let client = TcpStream::connect(relay.address()).await.unwrap();
    (relay, client)
}

async fn round_trip(client: &mut TcpStream, text: &[u8]) -> io::Result<()> {
    client.write_all(text).await?;
    expect(client, text).await
}

async fn expect(client: &mut TcpStream, text: &[u8]) -> io::Result<()> {
    let mut back = vec![0; text.len()];
    timeout(PATIENCE, client.read_exact(&mut back)).await??;
    assert_eq!(back, text);
    Ok(())
}

async fn is_silent(client: &mut TcpStream) -> bool {
    timeout(SILENCE, client.read(&mut [0; 16])).await.is_err()
}

#[tokio::test]
async fn bytes_pass_and_held_bytes_go_on_after_a_stall() {
    let (relay, mut client) = start().await;
    round_trip(&mut client, b"one").await.unwrap();
    for direction in [Direction::ToServer, Direction::ToClient] {
        relay.stall_one(direction);
        client.write_all(b"two").await.unwrap();
        assert!(is_silent(&mut client).await);
        relay.pass();
        expect(&mut client, b"two").await.unwrap();
    }
    assert_eq!((relay.open_count(), relay.accepted_count()), (1, 1));
}

#[tokio::test]
async fn dropped_bytes_are_lost_and_later_ones_pass() {
    let (relay, mut client) = start().await;
    round_trip(&mut client, b"one").await.unwrap();
    relay.drop_bytes(Direction::ToClient);
    client.write_all(b"two").await.unwrap();
    wait_for("the bytes to be dropped", PATIENCE, async || {
        match relay.dropped_bytes() {
            3 => Ok(()),
            dropped => Err(dropped.to_string()),
        }
    })
    .await
    .unwrap();
    assert!(is_silent(&mut client).await);
    relay.pass();
    round_trip(&mut client, b"three").await.unwrap();
}

#[tokio::test]
async fn a_cut_closes_what_is_open_and_nothing_that_comes_later() {
    let (relay, mut client) = start().await;
    round_trip(&mut client, b"one").await.unwrap();
    relay.cut();
    let closed = timeout(PATIENCE, client.read(&mut [0; 16])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)));
    let mut second = TcpStream::connect(relay.address()).await.unwrap();
    round_trip(&mut second, b"two").await.unwrap();
}

#[tokio::test]
async fn a_cut_after_some_bytes_lets_exactly_those_pass() {
    let (relay, mut client) = start().await;
    round_trip(&mut client, b"one").await.unwrap();
    relay.cut_after(Direction::ToClient, 4);
    client.write_all(b"abcdefgh").await.unwrap();
    let mut got = Vec::new();
    let _ = timeout(PATIENCE, client.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"abcd");
    let mut second = TcpStream::connect(relay.address()).await.unwrap();
    round_trip(&mut second, b"two").await.unwrap();
}

#[tokio::test]
async fn a_closed_port_refuses_and_opens_again() {
    let (relay, mut client) = start().await;
    round_trip(&mut client, b"one").await.unwrap();
    relay.refuse(true);
    let connect = async || {
        TcpStream::connect(relay.address())
            .await
            .map_err(|error| error.to_string())
    };
    let refused = async || match connect().await {
        Ok(_) => Err("accepted".to_owned()),
        Err(_) => Ok(()),
    };
    wait_for("a refusal", PATIENCE, refused).await.unwrap();
    round_trip(&mut client, b"still").await.unwrap();
    relay.refuse(false);
    let mut second = wait_for("a connection", PATIENCE, connect).await.unwrap();
    round_trip(&mut second, b"two").await.unwrap();
}

#[tokio::test]
async fn a_delay_is_added_in_each_direction() {
    let (relay, mut client) = start().await;
    relay.delay(Duration::from_millis(40));
    let begun_at = tokio::time::Instant::now();
    round_trip(&mut client, b"slow").await.unwrap();
    assert!(begun_at.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn a_port_that_a_copy_of_the_listener_still_holds_is_taken_when_that_is_gone() {
    let (relay, mut client) = start().await;
    round_trip(&mut client, b"one").await.unwrap();
    relay.refuse(true);
    let copy = wait_for("the port to be free", PATIENCE, async || {
        let listener = std::net::TcpListener::bind(relay.address());
        listener.map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    relay.refuse(false);
    // Connections are carried, so the relay has come past its first try.
    round_trip(&mut client, b"two").await.unwrap();
    drop(copy);
    let mut second = wait_for("a connection", PATIENCE, async || {
        let connection = TcpStream::connect(relay.address()).await;
        connection.map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    round_trip(&mut second, b"three").await.unwrap();
}
