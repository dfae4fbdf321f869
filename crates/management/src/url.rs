//! Where the management API is, and who asks it: read once, shown without the password.
//!
//! Nothing is resolved or connected here.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use porchlight_service::Secret;
use porchlight_service::client::{Target, TargetError};

/// An address of the management API with a user's name and password.
///
/// `Display` and `Debug` show everything but the password.
#[derive(Clone)]
pub struct ManagementUrl {
    target: Arc<Target>,
    scheme: &'static str,
    user: String,
    authorization: Secret,
}

/// Why text is no address of the management API. Never holds the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagementUrlError {
    /// It answers nobody without a name.
    #[error("names no user; write http://USER:PASSWORD@HOST:15672")]
    User,
    /// Percent-encoding that is no text.
    #[error("has a user or password that is not text; write characters such as @ and / as %40 and %2F")]
    Credentials,
    /// Anything else.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Requests have paths and queries of their own.
    #[error("must not hold a query")]
    Query,
}

impl ManagementUrl {
    /// Reads `http://user:password@host:15672`, or the same with https and a path before `/api`. Characters with a
    /// meaning in URLs are percent-encoded in user and password.
    ///
    /// # Errors
    /// [`ManagementUrlError`]
    pub fn parse(text: &str) -> Result<Self, ManagementUrlError> {
        let text = text.trim();
        let (scheme, rest) = if let Some(rest) = text.strip_prefix("http://") {
            ("http://", rest)
        } else if let Some(rest) = text.strip_prefix("https://") {
            ("https://", rest)
        } else {
            return Err(TargetError::Scheme.into());
        };
        let authority = rest.find(['/', '?', '#']).map_or(rest, |end| &rest[..end]);
        let (credentials, _) = authority.rsplit_once('@').ok_or(ManagementUrlError::User)?;
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let (user, password) = (decoded(user)?, decoded(password)?);
        // The name ends at the first colon of the header, so it cannot hold one.
        if user.is_empty() || user.contains(':') {
            return Err(ManagementUrlError::User);
        }
        let target = Target::parse(&format!("{scheme}{}", &rest[credentials.len() + 1..]))?;
        if target.path().contains('?') {
            return Err(ManagementUrlError::Query);
        }
        // A password with both signs in it, not encoded: its end would be taken for the path, and shown.
        if target.path().contains('@') {
            return Err(ManagementUrlError::Credentials);
        }
        let basic = STANDARD.encode(format!("{user}:{password}"));
        Ok(Self {
            target: Arc::new(target),
            scheme,
            user,
            authorization: Secret::new(format!("Basic {basic}")),
        })
    }

    /// Who asks.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Where it is.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// The value of the header `Authorization`.
    pub(crate) fn authorization(&self) -> &str {
        self.authorization.expose()
    }

    /// The path that every request's own is added to; no slash at its end.
    pub(crate) fn base_path(&self) -> &str {
        self.target.path().trim_end_matches('/')
    }
}

fn decoded(text: &str) -> Result<String, ManagementUrlError> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(String::from)
        .map_err(|_| ManagementUrlError::Credentials)
}

impl fmt::Display for ManagementUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, user, .. } = self;
        write!(f, "{scheme}{user}@{}{}", self.target.address(), self.base_path())
    }
}

impl fmt::Debug for ManagementUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManagementUrl({self})")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_are_taken_out_of_the_address_and_the_password_is_never_shown() {
        let url = ManagementUrl::parse("https://op:hunter%402@[::1]:15671/rabbit/").unwrap();
        assert_eq!(url.to_string(), "https://op@[::1]:15671/rabbit");
        assert!(!format!("{url:?}").contains("hunter"));
        let header = url.authorization().strip_prefix("Basic ").unwrap();
        assert_eq!(STANDARD.decode(header).unwrap(), b"op:hunter@2");
        assert_eq!(ManagementUrl::parse("http://a@h").unwrap().base_path(), "");
    }

    #[test]
    fn what_is_no_address_of_it_says_why_without_the_text() {
        for (text, wanted) in [
            ("http://host:15672", ManagementUrlError::User),
            ("http://:hunter2@host:15672", ManagementUrlError::User),
            ("http://a%3Ab:hunter2@host", ManagementUrlError::User),
            ("http://u:%FF@host", ManagementUrlError::Credentials),
            ("http://u:hunter2@host/?a=b", ManagementUrlError::Query),
            ("amqp://u:hunter2@host", TargetError::Scheme.into()),
            ("http://u:hunter2@:15672", TargetError::NotUrl.into()),
            // A slash in a password ends the authority.
            ("http://u:hunter/2@host", ManagementUrlError::User),
            (
                "http://u:p@ss/hunter2@host:15672",
                ManagementUrlError::Credentials,
            ),
        ] {
            let error = ManagementUrl::parse(text).unwrap_err();
            assert_eq!(error, wanted, "{text}");
            assert!(!error.to_string().contains("hunter"));
        }
    }
}
