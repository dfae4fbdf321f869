//! The broker's addresses: parsed once, completed with our settings, shown without credentials.
//!
//! Nothing is resolved or connected here.

use std::fmt;

use lapin::uri::{AMQPScheme, AMQPUri};

/// Seconds between heartbeats unless a URL says otherwise; lapin gives a peer up after twice that, while the
/// server's own default of 60 s would leave us two minutes with a dead connection.
const HEARTBEAT_S: u16 = 10;
/// Channels per connection unless a URL says otherwise; we open fewer than ten, the rest is headroom.
const CHANNEL_MAX: u16 = 64;
/// The name and the password that every RabbitMQ begins with.
const DEFAULT_LOGIN: &str = "guest";

/// One or more broker addresses, tried in turn.
///
/// `Display` and `Debug` show scheme, user, host, port and virtual host, never a password.
#[derive(Clone)]
pub struct BrokerUrls {
    uris: Vec<AMQPUri>,
}

/// What may be told of one address: everything but the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether it is spoken to under TLS.
    pub tls: bool,
    /// Who logs in.
    pub user: String,
    /// Whether name and password are those that every RabbitMQ begins with.
    pub is_default_login: bool,
}

/// Why a list of broker URLs was refused. Says where, never what the URL holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The list has no URL in it.
    #[error("no broker URL given")]
    Empty,
    /// One URL of the list is wrong.
    #[error("broker URL {position}: {problem}")]
    Invalid {
        /// Position in the comma-separated list, from 1.
        position: usize,
        /// What is wrong with it.
        problem: UrlProblem,
    },
}

/// What is wrong with one URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlProblem {
    /// Neither `amqp://` nor `amqps://`.
    #[error("must begin with amqp:// or amqps://")]
    Scheme,
    /// No host.
    #[error("has no host")]
    Host,
    /// A trailing slash alone names the virtual host "", which is hardly ever meant.
    #[error("names an empty virtual host; write %2f for the default one")]
    VirtualHost,
    /// A virtual host with `@` in it as it is: with a `/` in the password, which ends the host, that is the password's
    /// end, and would be shown.
    #[error("has an @ behind the host; write @ as %40 and / as %2F in user, password and virtual host")]
    At,
    /// Anything else that does not parse: port, percent-encoding, query values.
    #[error("is not a valid AMQP URL (check the port, percent-encoding and query values)")]
    Syntax,
}

impl BrokerUrls {
    /// Parses a comma-separated list and adds `heartbeat=10` and `channel_max=64` where they are not given.
    ///
    /// A comma inside a password must be written `%2c`.
    ///
    /// # Errors
    /// [`UrlError`] with the position of the first URL that is wrong.
    pub fn parse(list: &str) -> Result<Self, UrlError> {
        let mut uris = Vec::new();
        for (index, one) in list
            .split(',')
            .map(str::trim)
            .filter(|one| !one.is_empty())
            .enumerate()
        {
            uris.push(parse_one(one).map_err(|problem| UrlError::Invalid {
                position: index + 1,
                problem,
            })?);
        }
        if uris.is_empty() {
            return Err(UrlError::Empty);
        }
        Ok(Self { uris })
    }

    /// How many addresses there are; at least one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.uris.len()
    }

    /// Always false; here because `len` is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.uris.is_empty()
    }

    /// The virtual host of the first address, as its name is and not as a URL writes it.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.uri(0).vhost
    }

    /// Each address by itself, with what may be told of it, in their order.
    #[must_use]
    pub fn each(&self) -> Vec<(Self, Endpoint)> {
        let alone = |uri: &AMQPUri| {
            (
                Self {
                    uris: vec![uri.clone()],
                },
                endpoint(uri),
            )
        };
        self.uris.iter().map(alone).collect()
    }

    pub(crate) fn uri(&self, index: usize) -> &AMQPUri {
        &self.uris[index % self.uris.len()]
    }
}

fn parse_one(one: &str) -> Result<AMQPUri, UrlProblem> {
    let rest = one
        .strip_prefix("amqp://")
        .or_else(|| one.strip_prefix("amqps://"))
        .ok_or(UrlProblem::Scheme)?;
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(end) => rest.split_at(end),
        None => (rest, ""),
    };
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host_and_port.is_empty() || host_and_port.starts_with(':') {
        return Err(UrlProblem::Host);
    }
    if path == "/" || path.starts_with("/?") {
        return Err(UrlProblem::VirtualHost);
    }
    if path.contains('@') {
        return Err(UrlProblem::At);
    }
    let mut uri: AMQPUri = one.parse().map_err(|_| UrlProblem::Syntax)?;
    // lapin's parser knows names only and quietly turns `[::1]` into `localhost`.
    if let Some(v6) = host_and_port.strip_prefix('[') {
        let (address, _) = v6.split_once(']').ok_or(UrlProblem::Host)?;
        address
            .parse::<std::net::Ipv6Addr>()
            .map_err(|_| UrlProblem::Host)?;
        uri.authority.host = address.to_owned();
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
    uri.query.channel_max.get_or_insert(CHANNEL_MAX);
    Ok(uri)
}

fn endpoint(uri: &AMQPUri) -> Endpoint {
    let login = &uri.authority.userinfo;
    Endpoint {
        host: uri.authority.host.clone(),
        port: uri.authority.port,
        tls: uri.scheme == AMQPScheme::AMQPS,
        user: login.username.clone(),
        is_default_login: login.username == DEFAULT_LOGIN && login.password == DEFAULT_LOGIN,
    }
}

/// An address as logs and errors may show it.
pub(crate) fn redacted(uri: &AMQPUri) -> String {
    let scheme = match uri.scheme {
        AMQPScheme::AMQP => "amqp",
        AMQPScheme::AMQPS => "amqps",
    };
    let authority = &uri.authority;
    let host = if authority.host.contains(':') {
        format!("[{}]", authority.host)
    } else {
        authority.host.clone()
    };
    let vhost = if uri.vhost == "/" {
        "%2f"
    } else {
        uri.vhost.as_str()
    };
    format!(
        "{scheme}://{}@{host}:{}/{vhost}",
        authority.userinfo.username, authority.port
    )
}

impl fmt::Display for BrokerUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, uri) in self.uris.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{}", redacted(uri))?;
        }
        Ok(())
    }
}

impl fmt::Debug for BrokerUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrls({self})")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn heartbeat_and_channel_max_are_added_unless_given() {
        let urls = BrokerUrls::parse("amqp://a/%2f, amqp://b/%2f?heartbeat=7&channel_max=9").unwrap();
        assert_eq!(
            (urls.uri(0).query.heartbeat, urls.uri(0).query.channel_max),
            (Some(10), Some(64))
        );
        assert_eq!(
            (urls.uri(1).query.heartbeat, urls.uri(1).query.channel_max),
            (Some(7), Some(9))
        );
    }

    #[test]
    fn no_shown_form_holds_the_password() {
        let urls = BrokerUrls::parse("amqp://user:hunter2@h:1/%2f,amqps://u:hunter2@h/v").unwrap();
        let shown = format!(
            "{urls} {urls:?} {:?}",
            BrokerUrls::parse("amqp://u:hunter2@h:port/%2f")
        );
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(
            shown.contains("amqp://user@h:1/%2f") && shown.contains("amqps://u@h:5671/v"),
            "{shown}"
        );
    }

    #[test]
    fn an_error_names_the_position_and_the_problem() {
        for (list, position, problem) in [
            ("amqp://a/%2f,http://b", 2, UrlProblem::Scheme),
            ("amqp://u:p@/%2f", 1, UrlProblem::Host),
            ("amqp://a/", 1, UrlProblem::VirtualHost),
            ("amqp://u:p@ss/hunter2@host/%2f", 1, UrlProblem::At),
            ("amqp://a:99999/%2f", 1, UrlProblem::Syntax),
            ("amqp://a/%2f?heartbeat=often", 1, UrlProblem::Syntax),
            ("amqp://[::1/%2f", 1, UrlProblem::Syntax),
        ] {
            let error = BrokerUrls::parse(list).unwrap_err();
            assert_eq!(error, UrlError::Invalid { position, problem }, "{list}");
        }
        assert_eq!(BrokerUrls::parse(" , ").unwrap_err(), UrlError::Empty);
    }

    #[test]
    fn an_ipv6_host_is_kept() {
        let urls = BrokerUrls::parse("amqp://u:p@[::1]:5673/%2f").unwrap();
        assert_eq!(urls.uri(0).authority.host, "::1");
        assert_eq!(urls.to_string(), "amqp://u@[::1]:5673/%2f");
    }
}
