//! Asks an address for the server's greeting: proof that a broker answers there, and its version.
//!
//! No session is opened; lapin does that afterwards, and keeps neither of the two facts.

use std::{io, time::Duration};

use futures_util::io::{AsyncReadExt, AsyncWriteExt};
use lapin::{
    protocol::{AMQPClass, connection::AMQPMethod, parse_class},
    tcp::{AMQPUriTcpExt, OwnedTLSConfig},
    types::AMQPValue,
    uri::AMQPUri,
};

/// What an AMQP 0-9-1 client says first.
const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
/// Type, channel and size in front of every frame.
const FRAME_HEAD_BYTES: usize = 7;
/// RabbitMQ's greeting is under 600 bytes; anything much larger is not a greeting.
const GREETING_BYTES_MAX: usize = 16 * 1024;

/// Connects, TLS included, waits for the greeting and hangs up. Returns the server's version text.
///
/// A frozen broker, whose kernel still accepts connections, fails here by the caller's deadline. A lapin connect
/// would leave a thread behind for as long as the kernel waits. The price is one line in the broker's log, that a
/// client closed its connection unexpectedly.
pub(crate) async fn ask(uri: &AMQPUri, connect_max: Duration) -> io::Result<String> {
    let runtime = lapin::runtime::default_runtime().map_err(io::Error::other)?;
    let tls = OwnedTLSConfig::default();
    let connecting = uri.connect_with_config_async(tls.as_ref(), &runtime);
    let mut stream = tokio::time::timeout(connect_max, connecting)
        .await
        .map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no connection within {connect_max:?}"),
            )
        })??;
    stream.write_all(PROTOCOL_HEADER).await?;
    stream.flush().await?;
    let mut head = [0_u8; FRAME_HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    if head[0] != 1 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the peer does not speak AMQP 0-9-1",
        ));
    }
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    if size > GREETING_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the peer's greeting is too long",
        ));
    }
    let mut payload = vec![0_u8; size];
    stream.read_exact(&mut payload).await?;
    version_in(&payload)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the peer's greeting names no version"))
}

fn version_in(payload: &[u8]) -> Option<String> {
    let (_, class) = parse_class(payload).ok()?;
    let AMQPClass::Connection(AMQPMethod::Start(start)) = class else {
        return None;
    };
    match start.server_properties.inner().get("version")? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        _ => None,
    }
}
