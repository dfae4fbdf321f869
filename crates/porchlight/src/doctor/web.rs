//! Whoever speaks HTTP: receivers of callbacks, admin listeners of ingresses, and the public address as Ring sees it.
//!
//! No callback is posted and no event is sent.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use porchlight_service::client::{Answer, Client, SendError, StatusCode, Target, connector};
use porchlight_worker::{CallbackSettings, ReceiverSettings};
use serde::Deserialize;

use super::clock::{self, HEADER_GRAIN, Reading};
use super::finding::Finding;
use super::{certificate, is_local};
use crate::failure::chain;

/// For one question, connecting included.
const ASK_MAX: Duration = Duration::from_secs(5);

/// What an admin listener says of readiness, as far as it is used here.
#[derive(Deserialize)]
struct Readiness {
    #[serde(default)]
    reasons: Vec<Said>,
    #[serde(default)]
    notes: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    message: String,
}

/// One question and what came of it.
struct Asked {
    answer: Result<Answer, SendError>,
    took: Duration,
}

async fn ask(
    target: &Arc<Target>,
    method: &str,
    path: &str,
    ca_file: Option<&Path>,
) -> Result<Asked, String> {
    let tls = connector(target, ca_file).map_err(|error| chain(&error))?;
    let client = Client::new(Arc::clone(target), tls, ASK_MAX);
    let asked = Instant::now();
    let answer = client.send(method, path, &[], Bytes::new()).await;
    Ok(Asked {
        answer,
        took: asked.elapsed(),
    })
}

impl Asked {
    fn clock(&self, id: &'static str, whom: &str) -> Option<Finding> {
        let theirs = self.answer.as_ref().ok()?.date?;
        Some(clock::judge(
            id,
            whom,
            Reading::now(theirs, self.took, HEADER_GRAIN),
        ))
    }
}

/// Every receiver of callbacks.
pub(super) async fn receivers(callback: &CallbackSettings, ca_file: Option<&Path>) -> Vec<Finding> {
    let checks = callback
        .receivers
        .iter()
        .map(|receiver| one_receiver(receiver, ca_file));
    join_all(checks).await.into_iter().flatten().collect()
}

async fn one_receiver(receiver: &ReceiverSettings, ca_file: Option<&Path>) -> Vec<Finding> {
    let id = "callback.reach";
    let target = &receiver.target;
    let kind = receiver.kind.as_deref().unwrap_or("default");
    // Without path and query: those may be what the receiver knows its callers by.
    let whom = format!("the receiver '{kind}' at {}", target.address());
    let mut findings = Vec::new();
    if !target.is_https() && !is_local(target.host()) {
        findings.push(
            Finding::warning("callback.tls", format!("{whom} is called without TLS"))
                .why("Commands can be read on the network between; the signature keeps them from being changed.")
                .mend("https:// in PORCHLIGHT_CALLBACK_URL; PORCHLIGHT_CALLBACK_CA_FILE for an authority of your own"),
        );
    }
    let asked = match ask(target, "HEAD", target.path(), ca_file).await {
        Ok(asked) => asked,
        Err(why) => {
            findings.push(
                Finding::error(id, format!("{whom}: {why}"))
                    .mend("correct the certificates that are trusted: SSL_CERT_FILE"),
            );
            return findings;
        }
    };
    findings.push(judge_receiver(&whom, &asked.answer));
    findings.extend(asked.clock("clock.callback", &whom));
    if target.is_https() {
        findings.extend(certificate::served("certificate.callback", &whom, target, ca_file).await);
    }
    findings
}

fn judge_receiver(whom: &str, answer: &Result<Answer, SendError>) -> Finding {
    let id = "callback.reach";
    let why = "Commands for it stay owed, and become dead letters after PORCHLIGHT_CALLBACK_GIVE_UP.";
    match answer {
        Err(error) => Finding::error(id, format!("{whom}: {}", chain(error)))
            .why(why)
            .mend("is it running, and may this machine reach it? curl -I URL"),
        Ok(answer) if answer.status.is_redirection() => {
            let what = format!("{whom} answers {}, which leads elsewhere", answer.status.as_u16());
            Finding::error(id, what)
                .why("Callbacks follow no redirect: a command would go to whoever it names.")
                .mend("write the address that it leads to in PORCHLIGHT_CALLBACK_URL")
        }
        Ok(answer) if answer.status.is_server_error() => {
            let what = format!(
                "{whom} answers {} to a question without content",
                answer.status.as_u16()
            );
            Finding::warning(id, what).why(why).mend("look into its own log")
        }
        Ok(answer) => {
            let what = format!(
                "{whom} answers ({} to a HEAD, which is no command)",
                answer.status.as_u16()
            );
            Finding::ok(id, what)
        }
    }
}

/// Admin listeners: ready, and what they note.
pub(super) async fn admins(targets: &[Target]) -> Vec<Finding> {
    let checks = targets.iter().map(|target| one_admin(Arc::new(target.clone())));
    join_all(checks).await.into_iter().flatten().collect()
}

async fn one_admin(target: Arc<Target>) -> Vec<Finding> {
    let id = "daemon.ready";
    let whom = format!("the daemon at {}", target.address());
    let asked = match ask(&target, "GET", "/readyz", None).await {
        Ok(asked) => asked,
        Err(why) => {
            return vec![
                Finding::error(id, format!("{whom}: {why}"))
                    .mend("correct the certificates that are trusted: SSL_CERT_FILE"),
            ];
        }
    };
    let mut findings = vec![judge_ready(&whom, &asked.answer)];
    if let Ok(answer) = &asked.answer {
        let said: Option<Readiness> = serde_json::from_slice(&answer.body).ok();
        let notes = said.map(|said| said.notes).unwrap_or_default();
        findings.extend(notes.into_iter().map(|note| {
            Finding::warning("daemon.note", format!("{whom}: {}", note.message))
                .mend("porchlight status --ingress URL")
        }));
    }
    findings.extend(asked.clock("clock.daemon", &whom));
    findings
}

fn judge_ready(whom: &str, answer: &Result<Answer, SendError>) -> Finding {
    let id = "daemon.ready";
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            return Finding::error(id, format!("{whom}: {}", chain(error)))
                .why("It does not run, or this is not its admin listener.")
                .mend("look into its log; is the address that of PORCHLIGHT_ADMIN_LISTEN?");
        }
    };
    let Ok(said) = serde_json::from_slice::<Readiness>(&answer.body) else {
        return Finding::error(
            id,
            format!(
                "{whom} answers {}, and not as a daemon does",
                answer.status.as_u16()
            ),
        )
        .mend("is the address that of PORCHLIGHT_ADMIN_LISTEN?");
    };
    if answer.status.is_success() {
        return Finding::ok(id, format!("{whom} is ready"));
    }
    let reasons: Vec<_> = said.reasons.into_iter().map(|reason| reason.message).collect();
    Finding::error(id, format!("{whom} is not ready: {}", reasons.join("; ")))
        .why("A balancer sends it nothing, and what comes all the same is answered 503.")
        .mend("what it names is checked here, too: look at the other errors")
}

/// The address that Ring posts to, as Ring sees it: certificate, and a daemon behind it that takes posts.
pub(super) async fn public(target: Target) -> Vec<Finding> {
    let id = "public.answer";
    let target = Arc::new(target);
    let whom = format!("the public address {}", target.address());
    let mut findings = Vec::new();
    if target.is_https() {
        findings.extend(certificate::served("certificate.public", &whom, &target, None).await);
    }
    match ask(&target, "GET", target.path(), None).await {
        Ok(asked) => {
            findings.push(judge_public(&whom, target.path(), &asked.answer));
            findings.extend(asked.clock("clock.daemon", &whom));
        }
        Err(why) => findings.push(
            Finding::error(id, format!("{whom}: {why}"))
                .mend("correct the certificates that are trusted: SSL_CERT_FILE"),
        ),
    }
    findings
}

/// The edge answers 405 to a GET of the right path, and 404 to any other.
fn judge_public(whom: &str, path: &str, answer: &Result<Answer, SendError>) -> Finding {
    let id = "public.answer";
    let why = "Ring takes whatever begins with 4 as final: those events are lost.";
    match answer {
        Err(error) => Finding::error(id, format!("{whom}: {}", chain(error)))
            .why("Ring cannot deliver; it repeats each event for 73 minutes.")
            .mend("is it running, and does the balancer lead to it? Seen from outside this network it may be otherwise"),
        Ok(answer) if answer.status == StatusCode::METHOD_NOT_ALLOWED => {
            Finding::ok(id, format!("{whom} takes posts at {path}"))
        }
        Ok(answer) if answer.status.is_client_error() => {
            Finding::error(id, format!("{whom} answers {} at {path}", answer.status.as_u16()))
                .why(why)
                .mend("the path in Ring's developer portal must be PORCHLIGHT_WEBHOOK_PATH, and the balancer must not change it")
        }
        Ok(answer) => {
            let what = format!("{whom} answers {} to a GET at {path}, and an ingress would answer 405", answer.status.as_u16());
            Finding::warning(id, what)
                .why("Something else stands there, or in between.")
                .mend("does the balancer lead this path to the ingresses?")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    fn answer(status: StatusCode, body: &'static str) -> Result<Answer, SendError> {
        let body = Bytes::from_static(body.as_bytes());
        Ok(Answer {
            status,
            body,
            date: None,
        })
    }

    #[test]
    fn a_receiver_is_well_when_it_answers_for_itself() {
        for (status, severity) in [
            (StatusCode::NO_CONTENT, Severity::Ok),
            (StatusCode::METHOD_NOT_ALLOWED, Severity::Ok),
            (StatusCode::FOUND, Severity::Error),
            (StatusCode::BAD_GATEWAY, Severity::Warning),
        ] {
            assert_eq!(
                judge_receiver("r", &answer(status, "")).severity,
                severity,
                "{status}"
            );
        }
        assert_eq!(
            judge_receiver("r", &Err(SendError::Answer)).severity,
            Severity::Error
        );
    }

    #[test]
    fn the_public_address_is_an_ingress_that_takes_posts() {
        for (status, severity) in [
            (StatusCode::METHOD_NOT_ALLOWED, Severity::Ok),
            (StatusCode::NOT_FOUND, Severity::Error),
            (StatusCode::OK, Severity::Warning),
        ] {
            assert_eq!(
                judge_public("p", "/w", &answer(status, "")).severity,
                severity,
                "{status}"
            );
        }
    }

    #[test]
    fn a_daemon_that_is_not_ready_says_why() {
        let body = r#"{"status":"not_ready","reasons":[{"code":"queue","message":"no broker"}]}"#;
        let finding = judge_ready("d", &answer(StatusCode::SERVICE_UNAVAILABLE, body));
        assert_eq!(finding.severity, Severity::Error);
        assert!(finding.what.contains("no broker"), "{finding:?}");
        let ready = judge_ready("d", &answer(StatusCode::OK, r#"{"status":"ready"}"#));
        assert_eq!(ready.severity, Severity::Ok);
        assert_eq!(
            judge_ready("d", &answer(StatusCode::OK, "<html>")).severity,
            Severity::Error
        );
    }
}
