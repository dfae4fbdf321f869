//! HTTPS without a balancer in front.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use porchlight_testbed::http::RawConnection;
use porchlight_testbed::wait_for;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};

use crate::support::{BODY, Ingress, SOON, passed, signed, told};

struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// Writes a new certificate and its key; the certificate is what clients trust.
    fn renew(&self) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(self.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
        fs::write(self.path("cert.pem"), made.cert.pem()).unwrap();
        made.cert.der().clone()
    }

    fn path(&self, name: &str) -> String {
        Path::new(self.directory.path())
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }

    async fn start(&self, flags: &[&str]) -> Ingress {
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        Ingress::start(
            &[
                &["--tls-cert-file", cert.as_str(), "--tls-key-file", key.as_str()],
                flags,
            ]
            .concat(),
        )
        .await
    }
}

async fn connect(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<RawConnection> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = "localhost".try_into().unwrap();
    Ok(RawConnection::over(
        TlsConnector::from(Arc::new(config)).connect(name, stream).await?,
    ))
}

#[tokio::test]
async fn events_come_over_tls_1_2_and_1_3() {
    let files = Files::new();
    let trusted = files.renew();
    let ingress = files.start(&[]).await;
    for version in [&version::TLS12, &version::TLS13] {
        let mut connection = connect(ingress.public, &trusted, version).await.unwrap();
        for _ in 0..2 {
            connection.send(&signed(BODY)).await.unwrap();
            assert_eq!(told(&connection.response().await.unwrap()), passed());
        }
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_and_a_wrong_one_is_not() {
    let files = Files::new();
    let first = files.renew();
    let ingress = files.start(&[]).await;
    connect(ingress.public, &first, &version::TLS13).await.unwrap();
    let second = files.renew();
    wait_for("the renewed certificate", SOON, async || {
        let connected = connect(ingress.public, &second, &version::TLS13).await;
        connected.map(drop).map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    fs::write(files.path("key.pem"), "no key").unwrap();
    ingress.hang_up();
    ingress
        .counts(r#"porchlight_ingress_file_loads_total{file="certificate",outcome="refused"} "#)
        .await;
    connect(ingress.public, &second, &version::TLS13).await.unwrap();
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut_off_and_plain_http_gets_no_answer() {
    let files = Files::new();
    files.renew();
    let ingress = files.start(&["--tls-handshake-timeout", "2s"]).await;
    let mut silent = ingress.connect().await;
    assert_eq!(silent.closed_within(SOON).await.unwrap(), b""[..]);
    let mut plain = ingress.connect().await;
    plain.send(&signed(BODY)).await.unwrap();
    assert!(!plain.closed_within(SOON).await.unwrap().starts_with(b"HTTP"));
    ingress
        .counts(r#"porchlight_ingress_connections_failed_total{cause="tls_handshake"} 1"#)
        .await;
    ingress
        .counts(r#"porchlight_ingress_connections_failed_total{cause="tls_handshake_slow"} 1"#)
        .await;
}
