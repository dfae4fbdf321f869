//! As much of Redis' protocol as a test needs to ask a server something: one command out, one reply in.
//!
//! It keeps no connection: a test that has killed its server must not stumble over a stale one.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for a reply: a frozen server must not freeze the test, and one that syncs to a slow disk does answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A status such as `OK`.
    Status(String),
    /// An error, as the server words it.
    Error(String),
    /// A number.
    Number(i64),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Nothing there.
    Nil,
    /// A list.
    List(Vec<Reply>),
}

impl Reply {
    /// The reply as text, for a status or bytes; empty for anything else.
    pub fn text(&self) -> String {
        match self {
            Self::Status(text) => text.clone(),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        }
    }

    /// The reply as a number, also where it is spelled as text.
    pub fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            other => other.text().parse().ok(),
        }
    }

    /// The entries of a list; none for anything else.
    pub fn list(&self) -> &[Reply] {
        match self {
            Self::List(entries) => entries,
            _ => &[],
        }
    }
}

/// Sends one command and reads its reply.
pub(crate) fn ask(address: SocketAddr, words: &[&[u8]]) -> io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
    stream.write_all(&request)?;
    read_reply(&mut BufReader::new(stream))
}

fn read_reply(reader: &mut impl BufRead) -> io::Result<Reply> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let line = line.trim_end();
    let odd = || io::Error::new(io::ErrorKind::InvalidData, format!("not a reply: {line:?}"));
    let (kind, rest) = line.split_at_checked(1).ok_or_else(odd)?;
    match kind {
        "+" => Ok(Reply::Status(rest.to_owned())),
        "-" => Ok(Reply::Error(rest.to_owned())),
        ":" => Ok(Reply::Number(rest.parse().map_err(|_| odd())?)),
        "$" | "*" if rest == "-1" => Ok(Reply::Nil),
        "$" => {
            let length: usize = rest.parse().map_err(|_| odd())?;
            let mut bytes = vec![0; length + 2];
            reader.read_exact(&mut bytes)?;
            bytes.truncate(length);
            Ok(Reply::Bytes(bytes))
        }
        "*" => {
            let count: usize = rest.parse().map_err(|_| odd())?;
            (0..count)
                .map(|_| read_reply(reader))
                .collect::<io::Result<_>>()
                .map(Reply::List)
        }
        _ => Err(odd()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_nested_reply_is_read_whole() {
        let mut wire: &[u8] = b"*3\r\n:-4\r\n$3\r\na\r\n\r\n*2\r\n$-1\r\n+OK\r\n";
        let inner = Reply::List(vec![Reply::Nil, Reply::Status("OK".to_owned())]);
        let expected = Reply::List(vec![Reply::Number(-4), Reply::Bytes(b"a\r\n".to_vec()), inner]);
        assert_eq!(read_reply(&mut wire).unwrap(), expected);
    }

    #[test]
    fn a_reply_that_is_none_is_an_error() {
        for wire in ["", "\r\n", "?\r\n", ":x\r\n", "$5\r\nab"] {
            assert!(read_reply(&mut wire.as_bytes()).is_err(), "{wire:?}");
        }
    }
}
