//! HTTPS in this process: certificate and key from files, TLS 1.2 and 1.3, replaced while running when they change.
//!
//! It accepts no connection; the server asks it for what is in force at each one.

use std::path::PathBuf;
use std::sync::Arc;

use porchlight_service::Checker;
use porchlight_service::follow::{self, Reading};
use porchlight_service::stop::Hangups;
use tokio::sync::watch;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig, version};
use tokio_util::sync::CancellationToken;

use crate::metrics::IngressMetrics;

const CERT_FILE: &str = "PORCHLIGHT_TLS_CERT_FILE";
const KEY_FILE: &str = "PORCHLIGHT_TLS_KEY_FILE";

/// What every handshake looks at.
pub(crate) type TlsInForce = watch::Receiver<Arc<ServerConfig>>;

/// Certificate and key files, and what was in them at the start.
#[derive(Debug)]
pub struct TlsFiles {
    paths: [PathBuf; 2],
    readings: [Reading; 2],
    first: Arc<ServerConfig>,
}

/// Why certificate and key are not taken. Shows nothing of the key.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("the certificate file cannot be read: {0}")]
    CertificateUnreadable(String),
    #[error("the certificate file is not PEM: {0}")]
    CertificateMalformed(pem::Error),
    #[error("the certificate file holds no certificate")]
    CertificateMissing,
    #[error("the key file cannot be read: {0}")]
    KeyUnreadable(String),
    #[error("the key file holds no private key in PEM")]
    KeyMalformed,
    #[error("certificate and key cannot be used: {0}")]
    Unusable(rustls::Error),
}

impl LoadError {
    fn setting(&self) -> &'static str {
        match self {
            Self::KeyUnreadable(_) | Self::KeyMalformed => KEY_FILE,
            _ => CERT_FILE,
        }
    }
}

impl TlsFiles {
    /// Checks that both files or none are given, and that they can be used.
    pub(crate) fn check(checker: &mut Checker, cert: Option<PathBuf>, key: Option<PathBuf>) -> Option<Self> {
        let paths = match (cert, key) {
            (Some(cert), Some(key)) => [cert, key],
            (None, None) => return None,
            (Some(_), None) => {
                checker.problem(KEY_FILE, format!("is required, since {CERT_FILE} is given"));
                return None;
            }
            (None, Some(_)) => {
                checker.problem(CERT_FILE, format!("is required, since {KEY_FILE} is given"));
                return None;
            }
        };
        let readings = [follow::read(&paths[0]), follow::read(&paths[1])];
        match load(&readings) {
            Ok(first) => Some(Self {
                paths,
                readings,
                first,
            }),
            Err(error) => {
                checker.problem(error.setting(), error.to_string());
                None
            }
        }
    }

    /// What is in force from now on, kept up to date until `ended`.
    pub(crate) fn watch(
        self,
        metrics: Arc<IngressMetrics>,
        hangups: Hangups,
        ended: CancellationToken,
    ) -> TlsInForce {
        let (sender, in_force) = watch::channel(self.first);
        let apply = move |readings: &[Reading]| {
            let loaded = load(readings);
            let is_ok = loaded.is_ok();
            match loaded {
                Ok(config) => {
                    sender.send_replace(config);
                    // Whoever reads this may rely on it.
                    tracing::info!("certificate read again and in force");
                }
                Err(error) => {
                    let setting = error.setting();
                    tracing::error!(%error, setting, "certificate is not usable; the one in force stays");
                }
            }
            metrics.count_file_load("certificate", is_ok);
        };
        let following = follow::follow(self.paths.to_vec(), self.readings.to_vec(), hangups, apply);
        tokio::spawn(ended.run_until_cancelled_owned(following));
        in_force
    }
}

fn load(readings: &[Reading]) -> Result<Arc<ServerConfig>, LoadError> {
    let [cert, key] = readings else {
        unreachable!("there are two files")
    };
    let cert = cert
        .as_ref()
        .map_err(|error| LoadError::CertificateUnreadable(error.clone()))?;
    let key = key
        .as_ref()
        .map_err(|error| LoadError::KeyUnreadable(error.clone()))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert.as_bytes()).collect();
    let chain = chain.map_err(LoadError::CertificateMalformed)?;
    if chain.is_empty() {
        return Err(LoadError::CertificateMissing);
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| LoadError::KeyMalformed)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(LoadError::Unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(LoadError::Unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn pair() -> [Reading; 2] {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        [Ok(made.cert.pem()), Ok(made.signing_key.serialize_pem())]
    }

    #[test]
    fn certificate_and_key_must_belong_together() {
        let [cert, key] = pair();
        assert!(load(&[cert.clone(), key]).is_ok());
        let [_, other] = pair();
        assert!(matches!(
            load(&[cert, other]).unwrap_err(),
            LoadError::Unusable(_)
        ));
    }

    #[test]
    fn errors_name_the_file_and_show_no_key() {
        let [cert, key] = pair();
        let swapped = load(&[key.clone(), cert.clone()]).unwrap_err();
        assert_eq!(swapped.setting(), CERT_FILE);
        let empty = load(&[cert, Ok(String::new())]).unwrap_err();
        assert_eq!(empty.setting(), KEY_FILE);
        assert!(!format!("{swapped:?} {empty:?}").contains(&key.unwrap()[40..60]));
    }
}
