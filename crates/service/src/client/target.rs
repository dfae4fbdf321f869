//! Where requests go, and what is trusted there.
//!
//! It opens no connection.

use std::path::Path;
use std::sync::Arc;

use hyper::Uri;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub(super) https: bool,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) authority: String,
    path: String,
}

/// Why text is not a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Something else.
    #[error("is not a URL; it begins with http:// or https://, as http://127.0.0.1:9090 does")]
    NotUrl,
    /// Another protocol.
    #[error("must begin with http:// or https://")]
    Scheme,
    /// They would end in logs.
    #[error("must not hold a user or a password")]
    Credentials,
}

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that is missing or no PEM.
    #[error("cannot read the certificates in {0}")]
    Read(String, #[source] tokio_rustls::rustls::pki_types::pem::Error),
    /// A file of something else.
    #[error("there is no certificate in {0}")]
    Empty(String),
    /// Nothing to trust.
    #[error("the system has no trusted certificates")]
    NoRoots,
    /// A certificate of an unknown form.
    #[error("a certificate is not usable")]
    Config(#[source] tokio_rustls::rustls::Error),
}

impl Target {
    /// Reads an absolute http or https URL.
    ///
    /// # Errors
    /// [`TargetError`], without the text.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let uri: Uri = text.trim().parse().map_err(|_| TargetError::NotUrl)?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(TargetError::Scheme),
            None => return Err(TargetError::NotUrl),
        };
        let authority = uri.authority().ok_or(TargetError::NotUrl)?;
        if authority.as_str().contains('@') {
            return Err(TargetError::Credentials);
        }
        let host = authority.host();
        // A port out of range reads like none, and the usual one is not what was asked for.
        let port = match authority.as_str().strip_prefix(host).unwrap_or_default() {
            "" | ":" => Some(if https { 443 } else { 80 }),
            _ => authority.port_u16().filter(|port| *port > 0),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(TargetError::NotUrl);
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            https,
            host: host.to_owned(),
            port: port.ok_or(TargetError::NotUrl)?,
            authority: authority.as_str().to_owned(),
            path: if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            },
        })
    }

    /// The path with its query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The host: a name, or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port, for a person.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether it is spoken to under TLS.
    pub fn is_https(&self) -> bool {
        self.https
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}://{}{}",
            if self.https { "https" } else { "http" },
            self.authority,
            self.path
        )
    }
}

/// What `https` trusts: the certificates of `ca_file` when one is given, else the system's. Nothing for plain `http`.
///
/// # Errors
/// [`TlsError`]
pub fn connector(target: &Target, ca_file: Option<&Path>) -> Result<Option<TlsConnector>, TlsError> {
    if !target.https {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let shown = path.display().to_string();
            let read = |error| TlsError::Read(shown.clone(), error);
            for certificate in CertificateDer::pem_file_iter(path).map_err(read)? {
                roots.add(certificate.map_err(read)?).map_err(TlsError::Config)?;
            }
            if roots.is_empty() {
                return Err(TlsError::Empty(shown));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError::NoRoots);
            }
        }
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Config)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Some(TlsConnector::from(Arc::new(config))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_a_port_and_a_path_whatever_the_url_leaves_out() {
        let target = Target::parse("https://ring.example").unwrap();
        assert_eq!((target.https, target.port, target.path()), (true, 443, "/"));
        let target = Target::parse("http://[::1]:8080/a?b=c").unwrap();
        assert_eq!(
            (target.host.as_str(), target.port, target.path()),
            ("::1", 8080, "/a?b=c")
        );
        assert_eq!(target.to_string(), "http://[::1]:8080/a?b=c");
        // A request line begins with a slash, whatever a URL may leave out.
        let target = Target::parse("http://host?a=b").unwrap();
        assert_eq!((target.port, target.path()), (80, "/?a=b"));
    }

    #[test]
    fn what_is_no_target_says_why() {
        assert_eq!(Target::parse("127.0.0.1:8080"), Err(TargetError::NotUrl));
        assert_eq!(Target::parse("/path"), Err(TargetError::NotUrl));
        assert_eq!(Target::parse("ftp://host/"), Err(TargetError::Scheme));
        for odd in ["http://:80/", "http://host:65536/", "http://host:0/"] {
            assert_eq!(Target::parse(odd), Err(TargetError::NotUrl), "{odd}");
        }
        assert_eq!(
            Target::parse("http://user:secret@host/"),
            Err(TargetError::Credentials)
        );
    }
}
