//! A private Prometheus server: own port, own directory; it scrapes what a test names, by the rules that a test names.
//!
//! It asserts nothing about what is scraped.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::directory::Directory;
use crate::http;
use crate::keeper::mortal;
use crate::ports::free_port;
use crate::process::{Process, StartError, folder};

const START_PATIENCE: Duration = Duration::from_secs(120);
/// How often it scrapes and evaluates its rules, in milliseconds: a rate needs two scrapes, and a test should not wait. It
/// is also the time that a scrape may take, after which a target counts as down.
const INTERVAL_MS: u32 = 1_000;

/// A private server. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Prometheus {
    port: u16,
    // Before the directory: the process must be gone when the data are removed.
    _process: Process,
    _directory: Directory,
}

/// What is scraped, and under which name.
#[derive(Debug, Clone, Copy)]
pub struct Target<'t> {
    /// The label `job`.
    pub job: &'t str,
    /// Who answers `/metrics` there.
    pub address: SocketAddr,
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The server could not be asked.
    #[error("prometheus cannot be asked")]
    Io(#[from] io::Error),
    /// It says that the question is wrong.
    #[error("prometheus refuses: {0}")]
    Refused(String),
}

impl Prometheus {
    /// Starts a server with the rules in the file `rules`, and waits until it answers.
    ///
    /// # Errors
    /// [`StartError`] when Prometheus is not installed or does not start; the end of its log is in it.
    pub async fn start(targets: &[Target<'_>], rules: &Path) -> Result<Self, StartError> {
        let directory = folder("prometheus")?;
        let config = directory.path().join("prometheus.yml");
        std::fs::write(&config, configuration(targets, rules)).map_err(|source| StartError::Files {
            program: "prometheus".to_owned(),
            source,
        })?;
        let port = free_port();
        let mut command = mortal("prometheus");
        command.current_dir(directory.path());
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.args(["--storage.tsdb.path=data", "--log.level=warn"]);
        let log = directory.path().join("output.log");
        let process = Process::start("prometheus", command, log)?;
        let server = Self {
            port,
            _process: process,
            _directory: directory,
        };
        let ready = server
            ._process
            .wait_ready(START_PATIENCE, async || match server.get("/-/ready").await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.text()),
                Err(error) => Err(error.to_string()),
            });
        ready.await?;
        Ok(server)
    }

    /// The result of an instant query: a list of series with their values, or a scalar.
    ///
    /// # Errors
    /// [`AskError`] when the query is wrong, or cannot be evaluated on what was scraped.
    pub async fn query(&self, expression: &str) -> Result<Value, AskError> {
        let path = format!("/api/v1/query?query={}", percent_encoded(expression));
        Ok(self.api(&path).await?["result"].take())
    }

    /// The label sets of all series of a metric that were seen so far.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn series(&self, selector: &str) -> Result<Vec<Value>, AskError> {
        let path = format!("/api/v1/series?match[]={}", percent_encoded(selector));
        match self.api(&path).await? {
            Value::Array(found) => Ok(found),
            other => Err(AskError::Refused(other.to_string())),
        }
    }

    /// All groups of rules with what became of their last evaluation.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn rules(&self) -> Result<Value, AskError> {
        Ok(self.api("/api/v1/rules").await?["groups"].take())
    }

    async fn api(&self, path: &str) -> Result<Value, AskError> {
        let answer = self.get(path).await?;
        let mut body: Value = answer.json().map_err(io::Error::other)?;
        if body["status"] == "success" {
            Ok(body["data"].take())
        } else {
            Err(AskError::Refused(body["error"].to_string()))
        }
    }

    async fn get(&self, path: &str) -> io::Result<http::Response> {
        http::get(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)), path).await
    }
}

/// JSON, which is YAML.
fn configuration(targets: &[Target<'_>], rules: &Path) -> String {
    let interval = format!("{INTERVAL_MS}ms");
    let jobs = targets.iter().enumerate().map(|(number, target)| {
        // The name of a job in the file must be used once; the label may be the same for several.
        serde_json::json!({
            "job_name": format!("{}-{number}", target.job),
            "static_configs": [{ "targets": [target.address.to_string()] }],
            "relabel_configs": [{ "target_label": "job", "replacement": target.job }],
        })
    });
    let config = serde_json::json!({
        "global": { "scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval },
        "rule_files": [rules],
        "scrape_configs": jobs.collect::<Vec<_>>(),
    });
    config.to_string()
}

fn percent_encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric();
    let encode = |byte: u8| {
        if plain(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_encoded_byte_by_byte() {
        assert_eq!(percent_encoded(r#"up{a="ä"}"#), "up%7Ba%3D%22%C3%A4%22%7D");
    }
}
