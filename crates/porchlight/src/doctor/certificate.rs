//! Certificates: until when they hold, for which names, and whether whoever connects would trust them.
//!
//! Private keys are not read here.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use porchlight_service::client::{Target, connector};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::finding::Finding;
use crate::failure::chain;
use crate::output::span;

/// Fewer days left than this: whatever renews it has failed for a while.
const LEFT_WARNING: Duration = Duration::from_secs(30 * 86_400);
/// Fewer days left than this: somebody must do it by hand.
const LEFT_ERROR: Duration = Duration::from_secs(7 * 86_400);
/// For connecting and the handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Largest file of certificates that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is looked at of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    not_before: SystemTime,
    not_after: SystemTime,
    names: Vec<String>,
    subject: String,
    is_self_signed: bool,
    /// Whether the next one of the chain signed it, by name.
    issuer: String,
}

/// Looks at the chain in a file, as whoever connects would see it.
pub(super) fn in_file(path: &Path, public_host: Option<&str>) -> Vec<Finding> {
    let id = "certificate.file";
    let shown = path.display().to_string();
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    if size > FILE_BYTES_MAX {
        return vec![Finding::error(
            id,
            format!("{shown} is larger than {FILE_BYTES_MAX} bytes"),
        )];
    }
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    match read() {
        // That a file is missing or no PEM is told where the settings are.
        Err(_) => Vec::new(),
        Ok(ders) => judge(id, &shown, &ders, public_host, RENEW_FILE, SystemTime::now()),
    }
}

const RENEW_FILE: &str = "certbot renew    # or whatever made it; a daemon reads the files again by itself";
const RENEW_SERVED: &str = "renew it on that server, and let it read the file again: for RabbitMQ rabbitmqctl eval \
                            'ssl:clear_pem_cache().'; for Redis redis-cli CONFIG SET tls-cert-file FILE";

/// Connects as a daemon would, and looks at the chain that is shown. One that is not trusted is an error by itself.
pub(super) async fn served(
    id: &'static str,
    whom: &str,
    target: &Target,
    ca_file: Option<&Path>,
) -> Vec<Finding> {
    let whom = format!("{whom} at {}", target.address());
    let tls = match connector(target, ca_file) {
        Ok(Some(tls)) => tls,
        Ok(None) => return Vec::new(),
        Err(error) => return vec![Finding::error(id, chain(&error)).mend("SSL_CERT_FILE=/path/to/ca.pem")],
    };
    let handshake = async {
        let stream = TcpStream::connect((target.host(), target.port())).await?;
        let name = ServerName::try_from(target.host().to_owned())
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error))?;
        tls.connect(name, stream).await
    };
    match tokio::time::timeout(HANDSHAKE_MAX, handshake).await {
        Ok(Ok(stream)) => {
            let ders = stream.get_ref().1.peer_certificates().unwrap_or_default();
            judge(id, &whom, ders, None, RENEW_SERVED, SystemTime::now())
        }
        Ok(Err(error)) => vec![refused(id, &whom, &error)],
        Err(_) => vec![Finding::warning(
            id,
            format!("{whom}: no TLS handshake within {}", span(HANDSHAKE_MAX)),
        )],
    }
}

fn refused(id: &'static str, whom: &str, error: &std::io::Error) -> Finding {
    let text = chain(error);
    // Nobody is there; that is told where the server is.
    if text.contains("refused") || text.contains("unreachable") {
        return Finding::note(id, format!("{whom}: not checked: {text}"));
    }
    Finding::error(id, format!("{whom}: {text}"))
        .why("Daemons refuse to speak to a server whose certificate they cannot trust.")
        .mend(if text.contains("UnknownIssuer") {
            "SSL_CERT_FILE=/path/to/ca.pem    # for the daemons and this tool, where the authority is your own"
        } else {
            RENEW_SERVED
        })
}

/// What a chain tells at `now`, the server's own certificate first.
fn judge(
    id: &'static str,
    whom: &str,
    ders: &[CertificateDer<'_>],
    host: Option<&str>,
    renew: &str,
    now: SystemTime,
) -> Vec<Finding> {
    let facts: Option<Vec<Facts>> = ders.iter().map(|der| facts_of(der)).collect();
    let Some(facts) = facts.filter(|facts| !facts.is_empty()) else {
        return vec![Finding::warning(
            id,
            format!("{whom}: the certificate cannot be read"),
        )];
    };
    let mut findings = vec![dates(id, whom, &facts, renew, now)];
    let own = &facts[0];
    if let Some(host) = host.filter(|host| !own.names.iter().any(|name| covers(name, host))) {
        findings.push(
            Finding::error(
                id,
                format!("{whom} is for {}, and not for {host}", own.names.join(", ")),
            )
            .why("Whoever calls that name does not trust it: Ring cannot deliver.")
            .mend("ask for a certificate that has this name as well"),
        );
    }
    if own.is_self_signed {
        findings.push(
            Finding::warning(id, format!("{whom} is signed by itself"))
                .why("Nobody trusts it who was not told to; Ring was not.")
                .mend("use a certificate of a public authority, such as Let's Encrypt, where Ring connects"),
        );
    } else if !facts.windows(2).all(|pair| pair[0].issuer == pair[1].subject) {
        findings.push(
            Finding::warning(id, format!("{whom}: the chain is not in order"))
                .why("Some callers do not find their way from the certificate to an authority they know.")
                .mend("put the server's own certificate first, then the one that signed it, and so on"),
        );
    } else if facts.len() == 1 && id == "certificate.file" {
        findings.push(
            Finding::warning(id, format!("{whom} holds the server's certificate alone"))
                .why("Callers that know only root authorities, as Ring does, cannot connect it to one.")
                .mend("use the full chain; certbot calls it fullchain.pem"),
        );
    }
    findings
}

/// The one of the chain that ends first decides.
fn dates(id: &'static str, whom: &str, facts: &[Facts], renew: &str, now: SystemTime) -> Finding {
    let Some(first) = facts.iter().min_by_key(|facts| facts.not_after) else {
        return Finding::note(id, format!("{whom}: no certificate"));
    };
    let why = "Who checks certificates refuses the connection from then on.";
    if let Some(early) = facts.iter().find(|facts| facts.not_before > now) {
        let ahead = early.not_before.duration_since(now).unwrap_or_default();
        return Finding::error(id, format!("{whom} holds only in {}", span(ahead)))
            .why("It is refused until then; or this machine's clock is behind.")
            .mend("timedatectl    # is the clock right?");
    }
    let left = match first.not_after.duration_since(now) {
        Ok(left) => left,
        Err(past) => {
            let what = format!("{whom} ended {} ago", span(past.duration()));
            return Finding::error(id, what).why(why).mend(renew);
        }
    };
    let what = format!("{whom} holds for {} more", span(left));
    if left < LEFT_ERROR {
        Finding::error(id, what).why(why).mend(renew)
    } else if left < LEFT_WARNING {
        Finding::warning(id, what).why(why).mend(renew)
    } else {
        Finding::ok(id, what)
    }
}

fn facts_of(der: &CertificateDer<'_>) -> Option<Facts> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs());
    let validity = certificate.validity();
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative.iter().flat_map(|names| &names.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    });
    Some(Facts {
        not_before: at(validity.not_before.timestamp()),
        not_after: at(validity.not_after.timestamp()),
        names: names.collect(),
        subject: certificate.subject().to_string(),
        is_self_signed: certificate.subject() == certificate.issuer(),
        issuer: certificate.issuer().to_string(),
    })
}

fn address(bytes: &[u8]) -> Option<String> {
    let four = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from);
    let sixteen = || <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from);
    four.or_else(|_| sixteen())
        .ok()
        .map(|address| address.to_string())
}

/// Whether a name of a certificate stands for a host; a star stands for one label.
fn covers(name: &str, host: &str) -> bool {
    let (name, host) = (name.to_ascii_lowercase(), host.to_ascii_lowercase());
    match name.strip_prefix("*.") {
        Some(rest) => host
            .split_once('.')
            .is_some_and(|(label, parent)| !label.is_empty() && parent == rest),
        None => name == host,
    }
}

/// An https address of a server that speaks another protocol under TLS.
pub(super) fn target(host: &str, port: u16) -> Option<Arc<Target>> {
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    Target::parse(&format!("https://{host}:{port}"))
        .ok()
        .map(Arc::new)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use rcgen::{CertificateParams, CertifiedIssuer, DnType, KeyPair};

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    /// A certificate for `shop.example` that ends so many days from now, and the one that signed it.
    fn pair(days: i64) -> [CertificateDer<'static>; 2] {
        let date = |days: i64| {
            let seconds = 1_800_000_000 + days * 86_400;
            time::OffsetDateTime::from_unix_timestamp(seconds).unwrap()
        };
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.distinguished_name.push(DnType::CommonName, "authority");
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let mut own = CertificateParams::new(vec!["shop.example".to_owned()]).unwrap();
        own.distinguished_name.push(DnType::CommonName, "shop");
        (own.not_before, own.not_after) = (date(-100), date(days));
        let own = own.signed_by(&KeyPair::generate().unwrap(), &authority).unwrap();
        [own.der().clone(), authority.der().clone()]
    }

    fn judged(ders: &[CertificateDer<'_>], host: &str) -> Vec<Severity> {
        let findings = judge(
            "certificate.file",
            "cert.pem",
            ders,
            Some(host),
            RENEW_FILE,
            now(),
        );
        findings.into_iter().map(|finding| finding.severity).collect()
    }

    #[test]
    fn an_end_that_comes_near_is_a_warning_and_then_an_error() {
        for (days, severity) in [
            (90, Severity::Ok),
            (29, Severity::Warning),
            (6, Severity::Error),
            (-1, Severity::Error),
        ] {
            assert_eq!(judged(&pair(days), "shop.example"), [severity], "{days}");
        }
        let early = judge(
            "certificate.file",
            "c",
            &pair(90),
            None,
            RENEW_FILE,
            now() - 200 * DAY,
        );
        assert_eq!(early[0].severity, Severity::Error);
    }

    #[test]
    fn a_wrong_name_and_a_chain_that_is_not_whole_are_told() {
        let [own, authority] = pair(90);
        assert_eq!(
            judged(&[own.clone(), authority.clone()], "other.example"),
            [Severity::Ok, Severity::Error]
        );
        assert_eq!(
            judged(std::slice::from_ref(&own), "shop.example"),
            [Severity::Ok, Severity::Warning]
        );
        assert_eq!(
            judged(&[own.clone(), own], "shop.example"),
            [Severity::Ok, Severity::Warning]
        );
        assert_eq!(
            judged(&[authority], "shop.example")[1..],
            [Severity::Error, Severity::Warning]
        );
        assert_eq!(
            judged(&[CertificateDer::from(vec![1, 2, 3])], "a"),
            [Severity::Warning]
        );
    }

    #[test]
    fn a_star_stands_for_one_label() {
        assert!(covers("*.shop.example", "a.shop.example") && covers("Shop.example", "shop.EXAMPLE"));
        assert!(!covers("*.shop.example", "a.b.shop.example") && !covers("*.shop.example", "shop.example"));
        assert_eq!(address(&[10, 0, 0, 1]).as_deref(), Some("10.0.0.1"));
    }
}
