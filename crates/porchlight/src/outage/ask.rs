//! Asks admin listeners for their page of outages.
//!
//! It believes what they say, and waits for none of them for long.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use porchlight_ingress::outage::page::OutagesPage;
use porchlight_service::client::{Client, Target, connector};

use crate::failure::{Failure, chain};

/// For one listener, connecting included; all are asked at once.
const ASK_MAX: Duration = Duration::from_secs(3);
/// The last part of the page's path.
const PAGE: &str = "outages";

/// What one listener says.
pub(super) struct Answered {
    address: String,
    page: Result<OutagesPage, String>,
}

impl Answered {
    /// Who answered, and what.
    pub(super) fn page(self) -> Option<(String, OutagesPage)> {
        Some((self.address, self.page.ok()?))
    }

    /// Who does not answer, and why.
    pub(super) fn silence(&self) -> Option<String> {
        let error = self.page.as_ref().err()?;
        Some(format!("{}: {error}", self.address))
    }
}

/// Asks all of them.
pub(super) async fn all(urls: &[String]) -> Result<Vec<Answered>, Failure> {
    let parsed = urls.iter().map(|url| {
        Target::parse(url.trim()).map_err(|error| {
            Failure::usage("PORCHLIGHT_INGRESS_ADMIN_URLS (--ingress)")
                .because(&error)
                .advise("the admin listener of an ingress or a standalone, for example http://127.0.0.1:9090")
        })
    });
    let targets: Vec<Target> = parsed.collect::<Result<_, _>>()?;
    Ok(join_all(targets.into_iter().map(ask_one)).await)
}

async fn ask_one(target: Target) -> Answered {
    let address = target.to_string().trim_end_matches('/').to_owned();
    let path = sibling(target.path());
    let page = match client(target) {
        Ok(client) => look_at(&client, &path).await,
        Err(error) => Err(error),
    };
    Answered { address, page }
}

fn client(target: Target) -> Result<Client, String> {
    let tls = connector(&target, None).map_err(|error| chain(&error))?;
    Ok(Client::new(Arc::new(target), tls, ASK_MAX))
}

/// Where the page is if another page of the same listener is at `path`.
pub(crate) fn sibling(path: &str) -> String {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{folder}/{PAGE}")
}

/// Reads the page at `path`. The error is one line for a person.
pub(crate) async fn look_at(client: &Client, path: &str) -> Result<OutagesPage, String> {
    let answer = client.send("GET", path, &[], Bytes::new()).await;
    let answer = answer.map_err(|error| chain(&error))?;
    let page = serde_json::from_slice(&answer.body).ok();
    page.filter(|_| answer.status.is_success()).ok_or_else(|| {
        format!(
            "answers {}, and not as an ingress or a standalone does",
            answer.status.as_u16()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lies_beside_the_others() {
        assert_eq!(sibling("/"), "/outages");
        assert_eq!(sibling("/readyz"), "/outages");
        assert_eq!(sibling("/ingress-1/readyz"), "/ingress-1/outages");
    }
}
