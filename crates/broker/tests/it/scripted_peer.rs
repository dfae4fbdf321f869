//! A peer that speaks just enough AMQP to take publishes, and answers them as the test says.
//!
//! A real broker decides itself when it confirms and what it returns; here every interleaving can be had on purpose.

use std::{collections::HashMap, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinSet,
};

/// One publish, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) channel: u16,
    /// Its delivery tag: the how manieth publish of its channel, from 1.
    pub(crate) tag: u64,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct ScriptedPeer {
    address: SocketAddr,
    received: mpsc::Receiver<Received>,
    /// Frames to write, whole; to the newest connection that publishes.
    answers: mpsc::Sender<Vec<u8>>,
    _tasks: JoinSet<()>,
}

const WINDOW: usize = 4096;

impl ScriptedPeer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (report, received) = mpsc::channel(WINDOW);
        let (answers, mut to_write) = mpsc::channel::<Vec<u8>>(WINDOW);
        let mut tasks = JoinSet::new();
        let (writers, mut newest) = mpsc::channel::<OwnedWriteHalf>(16);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, report.clone(), writers.clone()));
            }
        });
        tasks.spawn(async move {
            let mut writer = newest.recv().await.unwrap();
            while let Some(frames) = to_write.recv().await {
                while let Ok(newer) = newest.try_recv() {
                    writer = newer;
                }
                // A client that has gone is part of some scripts.
                let _ = writer.write_all(&frames).await;
            }
        });
        Self {
            address,
            received,
            answers,
            _tasks: tasks,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address)
    }

    pub(crate) async fn next(&mut self) -> Received {
        tokio::time::timeout(super::support::PATIENCE, self.received.recv())
            .await
            .expect("no publish came")
            .unwrap()
    }

    /// The next publish and whatever else has arrived.
    pub(crate) async fn next_burst(&mut self) -> Vec<Received> {
        let mut burst = vec![self.next().await];
        while let Ok(received) = self.received.try_recv() {
            burst.push(received);
        }
        burst
    }

    /// Writes these frames in one go.
    pub(crate) async fn answer(&self, frames: &[Vec<u8>]) {
        self.answers.send(frames.concat()).await.unwrap();
    }
}

pub(crate) fn ack(channel: u16, tag: u64, multiple: bool) -> Vec<u8> {
    method(
        channel,
        60,
        80,
        &[&tag.to_be_bytes()[..], &[u8::from(multiple)]].concat(),
    )
}

pub(crate) fn nack(channel: u16, tag: u64, multiple: bool) -> Vec<u8> {
    method(
        channel,
        60,
        120,
        &[&tag.to_be_bytes()[..], &[u8::from(multiple)]].concat(),
    )
}

/// The publish comes back as unroutable: method, header and body.
pub(crate) fn returned(publish: &Received) -> Vec<u8> {
    let arguments = [
        &312_u16.to_be_bytes()[..],
        &short("NO_ROUTE"),
        &short("porchlight.events"),
        &short(""),
    ]
    .concat();
    let size = (publish.body.len() as u64).to_be_bytes();
    let header = [&[0, 60, 0, 0][..], &size, &[0, 0]].concat();
    [
        method(publish.channel, 60, 50, &arguments),
        frame(2, publish.channel, &header),
        frame(3, publish.channel, &publish.body),
    ]
    .concat()
}

fn short(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat()
}

fn long(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
}

fn method(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    frame(
        1,
        channel,
        &[&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat(),
    )
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind][..], &channel.to_be_bytes(), &size, payload, &[0xCE]].concat()
}

async fn serve(stream: TcpStream, report: mpsc::Sender<Received>, writers: mpsc::Sender<OwnedWriteHalf>) {
    let (mut reader, writer) = stream.into_split();
    let mut writer = Some(writer);
    let mut header = [0; 8];
    if reader.read_exact(&mut header).await.is_err() {
        return;
    }
    let version = [&short("version")[..], b"S", &long(b"3.10.8")].concat();
    let start = [&[0, 9][..], &long(&version), &long(b"PLAIN"), &long(b"en_US")].concat();
    reply(&mut writer, method(0, 10, 10, &start)).await;
    let mut tags: HashMap<u16, u64> = HashMap::new();
    let mut partial: HashMap<u16, (usize, Vec<u8>)> = HashMap::new();
    while let Some((kind, channel, payload)) = read_frame(&mut reader).await {
        match kind {
            1 => {
                let class = u16::from_be_bytes([payload[0], payload[1]]);
                let id = u16::from_be_bytes([payload[2], payload[3]]);
                let (class, id) = (class, id);
                if (class, id) == (60, 40) {
                    if let Some(writer) = writer.take() {
                        writers.send(writer).await.unwrap();
                    }
                } else if let Some(answer) = answer_to(channel, class, id) {
                    reply(&mut writer, answer).await;
                }
            }
            2 => {
                let size = u64::from_be_bytes(payload[4..12].try_into().unwrap());
                partial.insert(channel, (usize::try_from(size).unwrap(), Vec::new()));
                finish(&mut partial, &mut tags, channel, &report).await;
            }
            3 => {
                partial.get_mut(&channel).unwrap().1.extend_from_slice(&payload);
                finish(&mut partial, &mut tags, channel, &report).await;
            }
            _ => {}
        }
    }
}

async fn finish(
    partial: &mut HashMap<u16, (usize, Vec<u8>)>,
    tags: &mut HashMap<u16, u64>,
    channel: u16,
    report: &mpsc::Sender<Received>,
) {
    if partial
        .get(&channel)
        .is_some_and(|(size, body)| body.len() >= *size)
    {
        let (_, body) = partial.remove(&channel).unwrap();
        let tag = tags.entry(channel).or_default();
        *tag += 1;
        // A test that has seen enough no longer reads.
        let _ = report
            .send(Received {
                channel,
                tag: *tag,
                body,
            })
            .await;
    }
}

fn answer_to(channel: u16, class: u16, id: u16) -> Option<Vec<u8>> {
    let answer = match (class, id) {
        (10, 11) => method(
            0,
            10,
            30,
            &[&64_u16.to_be_bytes()[..], &131_072_u32.to_be_bytes(), &[0, 0]].concat(),
        ),
        (10, 40) => method(0, 10, 41, &short("")),
        (10, 50) => method(0, 10, 51, &[]),
        (20, 10) => method(channel, 20, 11, &long(b"")),
        (20, 40) => method(channel, 20, 41, &[]),
        (40, 10) => method(channel, 40, 11, &[]),
        (50, 10) => method(channel, 50, 11, &[&short("q")[..], &[0; 8]].concat()),
        (50, 20) => method(channel, 50, 21, &[]),
        (85, 10) => method(channel, 85, 11, &[]),
        _ => return None,
    };
    Some(answer)
}

async fn reply(writer: &mut Option<OwnedWriteHalf>, frame: Vec<u8>) {
    if let Some(writer) = writer {
        let _ = writer.write_all(&frame).await;
    }
}

async fn read_frame(reader: &mut OwnedReadHalf) -> Option<(u8, u16, Vec<u8>)> {
    let mut head = [0; 7];
    reader.read_exact(&mut head).await.ok()?;
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    let mut payload = vec![0; size + 1];
    reader.read_exact(&mut payload).await.ok()?;
    payload.truncate(size);
    Some((head[0], u16::from_be_bytes([head[1], head[2]]), payload))
}
