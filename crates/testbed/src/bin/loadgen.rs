//! `porchlight-loadgen`: signed events against a running ingress, and what came back, for rough measurements.
//!
//! It is no benchmark by itself: it shares the machine's cores with what it measures.

use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::Parser;
use porchlight_event::SigningKey;
use porchlight_event::sample::Sample;
use porchlight_testbed::{LoadGenerator, RingSchedule};

/// Sends signed device events to one or more ingresses and reports rate, latency and answers.
#[derive(Debug, Parser)]
#[command(name = "porchlight-loadgen", version)]
struct Arguments {
    /// Where to post, such as http://127.0.0.1:8080/webhooks/ring; several are used in turn, with the first one's path.
    #[arg(long, required = true, value_delimiter = ',')]
    url: Vec<String>,
    /// The signing key itself, without a name.
    #[arg(long, env = "PORCHLIGHT_LOADGEN_KEY", hide_env_values = true)]
    key: String,
    /// Connections, and so the most events under way at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Begins no new event after so many seconds.
    #[arg(long)]
    seconds: Option<f64>,
    /// Ends after so many events.
    #[arg(long)]
    count: Option<u64>,
    /// Events per second (open loop); as fast as answers come when not given.
    #[arg(long)]
    rate: Option<f64>,
    /// Devices the events are about, in turn.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    devices: u64,
    /// Retries as Ring does, with its pauses divided by this number; no retries when not given.
    #[arg(long)]
    retry_factor: Option<u32>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let targets: Result<Vec<_>, _> = arguments.url.iter().map(|url| parse_url(url)).collect();
    let targets = match targets {
        Ok(targets) => targets,
        Err(problem) => {
            #[expect(clippy::print_stderr, reason = "a command line's own error")]
            {
                eprintln!("porchlight-loadgen: {problem}");
            }
            return ExitCode::from(2);
        }
    };
    let path = targets.first().map(|(_, path)| path.clone()).unwrap_or_default();
    let addresses: Vec<SocketAddr> = targets.into_iter().map(|(address, _)| address).collect();
    let mut run = LoadGenerator::new(addresses, SigningKey::new("loadgen", arguments.key.as_bytes()))
        .path(&path)
        .connections(usize::from(arguments.connections));
    if let Some(seconds) = arguments.seconds {
        run = run.lasting(Duration::from_secs_f64(seconds));
    }
    if let Some(count) = arguments.count {
        run = run.count(count);
    }
    if arguments.seconds.is_none() && arguments.count.is_none() {
        run = run.lasting(Duration::from_secs(10));
    }
    if let Some(rate) = arguments.rate {
        run = run.rate(rate);
    }
    if let Some(factor) = arguments.retry_factor {
        run = run.retry(RingSchedule::ring(factor.max(1)));
    }
    let (devices, begun_at_ms) = (arguments.devices, now_ms());
    let report = run.run(move |number| event(number, devices, begun_at_ms)).await;
    #[expect(clippy::print_stdout, reason = "the report is the program's output")]
    {
        println!("{report}");
    }
    if report.given_up.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Event number N: devices in turn, each offline and online by turns, a millisecond apart.
fn event(number: u64, devices: u64, begun_at_ms: i64) -> Bytes {
    let device = format!("ava1.ring.device.load-{:06}", number % devices);
    let round = number / devices;
    let timestamp_ms = begun_at_ms.saturating_add(i64::try_from(round).unwrap_or(i64::MAX));
    let sample = Sample {
        event_type: if round.is_multiple_of(2) {
            "device_offline"
        } else {
            "device_online"
        },
        device_id: &device,
        account_id: "ava1.ring.account.load",
        timestamp_ms,
        sent_at_ms: timestamp_ms,
        request_id: &format!("00000000-0000-4000-8000-{number:012x}"),
    };
    Bytes::from(sample.body())
}

/// Host, port and path of a plain HTTP URL.
fn parse_url(url: &str) -> Result<(SocketAddr, String), String> {
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| format!("{url} does not begin with http://"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, "webhooks/ring"));
    let host = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let mut found = host
        .to_socket_addrs()
        .map_err(|error| format!("{host}: {error}"))?;
    let address = found.next().ok_or_else(|| format!("{host} has no address"))?;
    Ok((address, format!("/{path}")))
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
