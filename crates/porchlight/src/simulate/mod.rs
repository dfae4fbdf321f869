//! `porchlight simulate`: plays Ring's part against an ingress and sums up how it answered.
//!
//! It knows nothing of what becomes of an event behind the answer.

mod args;
mod latency;
mod permutation;
mod plan;
mod send;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use porchlight_event::SigningKey;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub(crate) use args::SimulateArgs;
use latency::Quantiles;
use plan::Plan;
use send::{Sending, Tally, send_all};

use crate::clock::now_ms;
use crate::failure::Failure;
use crate::output::{Output, bar};
use porchlight_service::client::{Client, Target, connector};

#[derive(Serialize)]
struct Summary {
    url: String,
    seed: u64,
    events: u64,
    requests: u64,
    sent: u64,
    stored: u64,
    answers: BTreeMap<u16, u64>,
    errors: BTreeMap<&'static str, u64>,
    error_texts: Vec<String>,
    latency_ms: Option<Quantiles>,
    seconds: f64,
    per_second: f64,
    ok: bool,
}

#[derive(Serialize)]
struct Signed<'a> {
    x_signature: String,
    body: std::borrow::Cow<'a, str>,
}

/// Sends what is asked for. Fails when any request was not answered 2xx.
pub(crate) async fn run(args: SimulateArgs, output: Output, stop: CancellationToken) -> Result<(), Failure> {
    let target =
        Target::parse(&args.url).map_err(|error| Failure::usage("PORCHLIGHT_URL (--url)").because(&error))?;
    let key = args.keys.signing_key()?;
    let (plan, seed) = args.plan(now_ms())?;
    if args.dry_run {
        print_signed(&plan, &key, output, &stop);
        return Ok(());
    }
    let tls = connector(&target, args.ca_file.as_deref())
        .map_err(|error| Failure::usage("--ca-file").because(&error))?;
    let target = Arc::new(target);
    let (events, requests) = (plan.events(), plan.len());
    let clients = (0..u64::from(args.concurrency).min(requests))
        .map(|_| Client::new(Arc::clone(&target), tls.clone(), args.timeout))
        .collect();
    let sending = Sending {
        path: target.path().to_owned(),
        plan,
        key,
        rate: args.rate,
        bar: bar(requests, "requests"),
        stop: stop.clone(),
    };
    let tally = send_all(sending, clients).await;
    let summary = Summary::new(target.to_string(), seed, events, requests, tally);
    summary.print(output);
    if summary.ok {
        Ok(())
    } else {
        Err(summary.failure())
    }
}

impl Summary {
    fn new(url: String, seed: u64, events: u64, requests: u64, tally: Tally) -> Self {
        let (sent, stored) = (tally.sent(), tally.stored());
        let seconds = tally.took.as_secs_f64();
        Self {
            url,
            seed,
            events,
            requests,
            sent,
            stored,
            latency_ms: tally.latencies.quantiles(),
            answers: tally.answers,
            errors: tally.errors,
            error_texts: tally.texts,
            seconds,
            per_second: if seconds > 0.0 {
                Duration::from_secs(sent).as_secs_f64() / seconds
            } else {
                0.0
            },
            ok: stored == requests,
        }
    }

    fn print(&self, output: Output) {
        if output.is_json() {
            return output.document(self);
        }
        let Self {
            requests,
            sent,
            events,
            seconds,
            ..
        } = self;
        output.line(format_args!(
            "{sent} of {requests} requests ({events} events) sent to {} in {seconds:.1} s, {:.0} per second",
            self.url, self.per_second
        ));
        for (status, count) in &self.answers {
            let meaning = match status {
                200..300 => "stored",
                401 => "not signed with a key of the ingress",
                404 => "not a path for webhooks; see --url",
                503 => "not stored; Ring would send it again",
                _ => "not stored",
            };
            output.line(format_args!("  {status}  {count:>9}  {meaning}"));
        }
        for (code, count) in &self.errors {
            output.line(format_args!("  {code}  {count}"));
        }
        for text in &self.error_texts {
            output.line(format_args!("    {}", crate::output::plain(text)));
        }
        if let Some(Quantiles { p50, p90, p99, max }) = &self.latency_ms {
            output.line(format_args!(
                "latency in ms: p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1}, max {max:.1}"
            ));
        }
        output.line(format_args!("seed {}", self.seed));
    }

    fn failure(&self) -> Failure {
        let unreached = self.errors.get("connect").copied().unwrap_or_default();
        if unreached == self.requests {
            return Failure::unavailable(format_args!("nothing answers at {}", self.url))
                .advise("is the ingress running, and is --url its webhook listener?");
        }
        if self.answers.contains_key(&401) {
            return Failure::failed("some requests were answered 401")
                .advise("sign with a key that the ingress has: PORCHLIGHT_SIGNING_KEYS, --key-name");
        }
        if self.sent < self.requests {
            return Failure::failed(format_args!(
                "stopped after {} of {} requests",
                self.sent, self.requests
            ));
        }
        Failure::failed(format_args!(
            "{} of {} requests were not stored",
            self.requests - self.stored,
            self.requests
        ))
    }
}

fn print_signed(plan: &Plan, key: &SigningKey, output: Output, stop: &CancellationToken) {
    for position in 0..plan.len() {
        if stop.is_cancelled() {
            return;
        }
        let body = plan.body(position);
        output.json_line(&Signed {
            x_signature: key.sign(&body),
            body: String::from_utf8_lossy(&body),
        });
    }
}
