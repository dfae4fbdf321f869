//! Asking the management API: one deadline on each question, one kept connection, bounded answers.
//!
//! It only ever reads.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use porchlight_service::client::{Answer, Client, SendError, StatusCode, TlsError, connector};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::answers::{Binding, Node, Overview, Page, Permission, Policy, QueueStats, User};
use crate::url::ManagementUrl;

/// Queues asked for at once; with the fields asked for a page is some 200 KiB.
const PAGE_SIZE: u32 = 200;
/// Most pages that are read: so many queues of one kind nobody watches.
const PAGES_MAX: u32 = 50;
/// The fields of a queue that are asked for: all of them cost the broker and the network many times as much.
const QUEUE_FIELDS: &str = "name,type,messages_ready,messages_unacknowledged,consumers,message_bytes,arguments,\
                            policy,operator_policy,effective_policy_definition,leader,members,online";
/// Most characters of a refusal's reason that are shown.
const REASON_CHARS_MAX: usize = 200;
/// Everything but the characters that every part of a URL may hold as they are.
const PART: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The management API of one broker. It connects when it is asked and keeps the connection for a while.
pub struct Management {
    url: ManagementUrl,
    client: Client,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody answered.
    #[error("the management API at {address} does not answer")]
    Send {
        /// Host and port.
        address: String,
        /// What went wrong.
        source: SendError,
    },
    /// Name or password is wrong.
    #[error("the management API does not know the user '{user}' with this password")]
    Login {
        /// Who asked.
        user: String,
    },
    /// The user may not see it.
    #[error("the management API does not let the user '{user}' see {what}: {reason}")]
    Forbidden {
        /// Who asked.
        user: String,
        /// The path asked for.
        what: String,
        /// The broker's words.
        reason: String,
    },
    /// There is no such thing, for example no such virtual host; or the address is that of something else.
    #[error("the management API has no {what}")]
    Missing {
        /// The path asked for.
        what: String,
    },
    /// Another refusal.
    #[error("the management API answers {status} to {what}: {reason}")]
    Refused {
        /// The status.
        status: u16,
        /// The path asked for.
        what: String,
        /// The broker's words.
        reason: String,
    },
    /// An answer that is not one of the API; is it another server?
    #[error("the answer to {what} is not one of RabbitMQ's management API")]
    Odd {
        /// The path asked for.
        what: String,
        /// Where reading it ended.
        source: serde_json::Error,
    },
}

impl Management {
    /// A client that is not connected yet. `timeout` bounds each question, connecting included. Under https the
    /// system's certificates are trusted, or those of the file that `SSL_CERT_FILE` names.
    ///
    /// # Errors
    /// [`TlsError`], under https alone.
    pub fn new(url: ManagementUrl, timeout: Duration) -> Result<Self, TlsError> {
        let tls = connector(url.target(), None)?;
        let client = Client::new(std::sync::Arc::clone(url.target()), tls, timeout);
        Ok(Self { url, client })
    }

    /// Where it asks.
    pub fn url(&self) -> &ManagementUrl {
        &self.url
    }

    /// The queues of a virtual host whose names begin with `prefix`; with none, all. At most 10 000.
    ///
    /// # Errors
    /// [`AskError`]; `Missing` when there is no such virtual host.
    ///
    /// # Cancel safety
    /// Safe, as every question here; the connection is closed.
    pub async fn queues(&self, vhost: &str, prefix: &str) -> Result<Vec<QueueStats>, AskError> {
        let pattern = format!("^{}", literal(prefix));
        let mut queues = Vec::new();
        for page in 1..=PAGES_MAX {
            let path = format!(
                "/api/queues/{}?page={page}&page_size={PAGE_SIZE}&use_regex=true&name={}&columns={QUEUE_FIELDS}",
                part(vhost),
                part(&pattern)
            );
            let Page { items, page_count } = self.ask::<Page<QueueStats>>(&path).await?;
            queues.extend(items);
            if page >= page_count {
                break;
            }
        }
        Ok(queues)
    }

    /// The broker as a whole.
    ///
    /// # Errors
    /// [`AskError`]
    pub async fn overview(&self) -> Result<Overview, AskError> {
        let path = "/api/overview?columns=rabbitmq_version,erlang_version,cluster_name,node";
        let answer = self.get(path).await?;
        let mut overview: Overview = read(path, &answer)?;
        overview.clock = answer.date;
        Ok(overview)
    }

    /// The nodes of the cluster, those that do not run, too. The user needs the tag `monitoring`.
    ///
    /// # Errors
    /// [`AskError`]; `Forbidden` without that tag.
    pub async fn nodes(&self) -> Result<Vec<Node>, AskError> {
        self.ask(
            "/api/nodes?columns=name,running,mem_alarm,mem_used,mem_limit,disk_free_alarm,disk_free,disk_free_limit,\
             fd_used,fd_total,partitions",
        )
        .await
    }

    /// The policies of a virtual host.
    ///
    /// # Errors
    /// [`AskError`]
    pub async fn policies(&self, vhost: &str) -> Result<Vec<Policy>, AskError> {
        self.ask(&format!("/api/policies/{}", part(vhost))).await
    }

    /// The bindings that lead away from an exchange.
    ///
    /// # Errors
    /// [`AskError`]; `Missing` when there is no such exchange.
    pub async fn bindings_from(&self, vhost: &str, exchange: &str) -> Result<Vec<Binding>, AskError> {
        let (vhost, exchange) = (part(vhost), part(exchange));
        self.ask(&format!("/api/exchanges/{vhost}/{exchange}/bindings/source"))
            .await
    }

    /// What each user may do in a virtual host. The user who asks needs the tag `administrator`.
    ///
    /// # Errors
    /// [`AskError`]; `Forbidden` without that tag.
    pub async fn permissions(&self, vhost: &str) -> Result<Vec<Permission>, AskError> {
        self.ask(&format!("/api/vhosts/{}/permissions", part(vhost)))
            .await
    }

    /// Who asks, as the broker sees it.
    ///
    /// # Errors
    /// [`AskError`]
    pub async fn whoami(&self) -> Result<User, AskError> {
        self.ask("/api/whoami").await
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, AskError> {
        read(path, &self.get(path).await?)
    }

    async fn get(&self, path: &str) -> Result<Answer, AskError> {
        let whole = format!("{}{path}", self.url.base_path());
        let headers = [("authorization", self.url.authorization())];
        let sent = self.client.send("GET", &whole, &headers, Bytes::new()).await;
        let answer = sent.map_err(|source| AskError::Send {
            address: self.url.target().address(),
            source,
        })?;
        if answer.status == StatusCode::OK {
            return Ok(answer);
        }
        Err(self.refused(path, &answer))
    }

    fn refused(&self, path: &str, answer: &Answer) -> AskError {
        let (what, user) = (shown(path), self.url.user().to_owned());
        let reason = reason(&answer.body);
        match answer.status {
            // The same status for both; only the words differ.
            StatusCode::UNAUTHORIZED if reason.as_deref().is_none_or(is_login) => AskError::Login { user },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => AskError::Forbidden {
                user,
                what,
                reason: reason.unwrap_or_else(|| "no reason given".to_owned()),
            },
            StatusCode::NOT_FOUND => AskError::Missing { what },
            status => AskError::Refused {
                status: status.as_u16(),
                what,
                reason: reason.unwrap_or_else(|| "no reason given".to_owned()),
            },
        }
    }
}

fn read<T: DeserializeOwned>(path: &str, answer: &Answer) -> Result<T, AskError> {
    serde_json::from_slice(&answer.body).map_err(|source| AskError::Odd {
        what: shown(path),
        source,
    })
}

/// The broker's words about a refusal.
fn reason(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        reason: String,
    }
    let refusal: Refusal = serde_json::from_slice(body).ok()?;
    Some(refusal.reason.chars().take(REASON_CHARS_MAX).collect())
}

fn is_login(reason: &str) -> bool {
    reason.to_ascii_lowercase().contains("login")
}

/// A path without its query, which is of no use to a person.
fn shown(path: &str) -> String {
    path.split('?').next().unwrap_or(path).to_owned()
}

fn part(text: &str) -> String {
    utf8_percent_encode(text, PART).to_string()
}

/// A regular expression for exactly this text.
fn literal(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        if character.is_ascii_punctuation() {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

impl fmt::Debug for Management {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Management({})", self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_a_path_and_means_only_itself_in_a_pattern() {
        assert_eq!(part("/a b"), "%2Fa%20b");
        assert_eq!(literal("porchlight.events"), "porchlight\\.events");
    }
}
