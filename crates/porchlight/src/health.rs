//! `porchlight health`: asks a daemon whether it is well, for container health checks that have no other client.
//!
//! It reports what the daemon says and judges nothing itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use porchlight_service::settings::parse;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Output, plain};
use porchlight_service::client::{Client, Target};

/// Most characters of an answer that are shown.
const SHOWN_CHARS_MAX: usize = 300;

/// Asks a daemon's admin listener whether it is well.
///
/// Without a path, /livez is asked: does the process run? /readyz says whether it can do its work now.
#[derive(clap::Args)]
pub(crate) struct HealthArgs {
    /// Where to ask, for example http://127.0.0.1:9091/readyz for a worker
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:9090/livez")]
    url: String,
    /// How long to wait for the answer: ms, s or m
    #[arg(long, value_name = "SPAN", default_value = "3s", value_parser = parse::duration)]
    timeout: Duration,
}

#[derive(Serialize)]
struct Health<'a> {
    url: String,
    status: u16,
    ok: bool,
    answer: &'a str,
}

/// Asks once. Fails when the answer is not 2xx.
pub(crate) async fn run(args: HealthArgs, output: Output) -> Result<(), Failure> {
    let target = Target::parse(&args.url).map_err(|error| Failure::usage("the URL").because(&error))?;
    let path = if target.path() == "/" {
        "/livez".to_owned()
    } else {
        target.path().to_owned()
    };
    let tls = porchlight_service::client::connector(&target, None)
        .map_err(|error| Failure::usage("TLS").because(&error))?;
    let url = target.to_string();
    let client = Client::new(Arc::new(target), tls, args.timeout);
    let answer = client
        .send("GET", &path, &[], Bytes::new())
        .await
        .map_err(|error| {
            Failure::unavailable("no answer")
                .because(&error)
                .advise("is the daemon running, and is this its admin listener?")
        })?;
    let text: String = String::from_utf8_lossy(&answer.body)
        .trim()
        .chars()
        .take(SHOWN_CHARS_MAX)
        .collect();
    let ok = answer.status.is_success();
    if output.is_json() {
        output.document(&Health {
            url,
            status: answer.status.as_u16(),
            ok,
            answer: &text,
        });
    } else {
        output.line(format_args!("{} {}", answer.status.as_u16(), plain(&text)));
    }
    if ok { Ok(()) } else { Err(Failure::told()) }
}
