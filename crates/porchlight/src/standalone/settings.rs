//! The settings of `standalone`: checked all at once, then taken apart for the parts that use them.
//!
//! It starts nothing; checking reads the files that settings name.

use std::net::SocketAddr;
use std::path::PathBuf;

use porchlight_ingress::EdgeSettings;
use porchlight_service::telemetry::LogSettings;
use porchlight_service::trace::TraceSettings;
use porchlight_service::{Checker, Problems, Secret};
use porchlight_worker::{CallbackSettings, WorkSettings};

use super::args::{StandaloneArgs, command};

/// Fewest bytes of the control API's token: what a person would guess is shorter.
const TOKEN_BYTES_MIN: usize = 16;
/// What is logged unless something else is asked for: a daemon tells more than a command.
const LOG: &str = "info";

/// Everything checked, in pieces.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(super) data_dir: PathBuf,
    pub(super) data_bytes_max: u64,
    pub(crate) edge: EdgeSettings,
    pub(crate) work: WorkSettings,
    pub(crate) callback: Option<CallbackSettings>,
    pub(crate) admin_listen: SocketAddr,
    pub(crate) admin_token: Option<Secret>,
    pub(super) trace: Option<TraceSettings>,
}

/// What the first line of the log says of the settings; no secret is in it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) path: String,
    pub(super) tls: bool,
    pub(super) control_api: bool,
    pub(super) commands: String,
}

impl Settings {
    /// What may be told of them.
    pub(super) fn told(&self) -> Told {
        let receivers = self.callback.iter().flat_map(|callback| &callback.receivers);
        // Without path and query: those may be what the receiver knows its callers by.
        let addresses: Vec<String> = receivers.map(|receiver| receiver.target.address()).collect();
        Told {
            path: self.edge.webhook_path().to_owned(),
            tls: self.edge.tls.is_some(),
            control_api: self.admin_token.is_some(),
            commands: if addresses.is_empty() {
                "lines on standard output".to_owned()
            } else {
                format!("callbacks to {}", addresses.join(", "))
            },
        }
    }

    /// Checks everything, and takes the log's settings apart from the rest.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub(crate) fn check(args: &StandaloneArgs, log: Option<&str>) -> Result<(Self, LogSettings), Problems> {
        let mut checker = Checker::new(&command());
        let c = &mut checker;
        let filter = log.filter(|text| !text.trim().is_empty()).unwrap_or(LOG);
        let log = LogSettings::read(c, filter, &args.log_format);
        let bytes = 16 << 20..=1 << 40;
        let settings = Self {
            data_dir: c.path("PORCHLIGHT_DATA_DIR", &args.data_dir),
            data_bytes_max: c.bytes("PORCHLIGHT_DATA_BYTES_MAX", &args.data_bytes_max, bytes) as u64,
            edge: EdgeSettings::check(c, &args.edge),
            work: WorkSettings::check(c, &args.work),
            callback: CallbackSettings::check(c, &args.callback),
            admin_listen: c.address("PORCHLIGHT_ADMIN_LISTEN", &args.admin_listen),
            admin_token: c.optional_secret(
                "PORCHLIGHT_ADMIN_TOKEN",
                args.admin_token.as_deref(),
                TOKEN_BYTES_MIN,
            ),
            trace: TraceSettings::check(c, &args.trace),
        };
        checker.finish()?;
        Ok((settings, log))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use clap::FromArgMatches as _;
    use porchlight_service::settings::inconsistent_flags;

    fn check(flags: &[&str]) -> Result<Settings, String> {
        let bare = clap::Command::new("standalone");
        let command = <StandaloneArgs as clap::Args>::augment_args(bare);
        let command = command.mut_args(|arg| arg.env(clap::builder::Resettable::Reset));
        let matches = command
            .try_get_matches_from(std::iter::once(&"t").chain(flags))
            .unwrap();
        let args = StandaloneArgs::from_arg_matches(&matches).unwrap();
        Settings::check(&args, None)
            .map(|(settings, _)| settings)
            .map_err(|problems| problems.to_string())
    }

    #[test]
    fn every_flag_has_its_variable_and_its_help() {
        let bare = clap::Command::new("standalone");
        let command = <StandaloneArgs as clap::Args>::augment_args(bare);
        assert_eq!(inconsistent_flags(&command), Vec::<String>::new());
        command.debug_assert();
    }

    #[test]
    fn keys_are_all_that_must_be_given() {
        let settings = check(&["--signing-keys", "ring=k"]).unwrap();
        assert_eq!(settings.data_dir, PathBuf::from("./porchlight-data"));
        assert_eq!(settings.data_bytes_max, 4 << 30);
        assert_eq!(settings.admin_listen.to_string(), "127.0.0.1:9090");
        assert!(settings.callback.is_none() && settings.admin_token.is_none());
    }

    #[test]
    fn every_wrong_setting_of_every_part_is_named_at_once_and_no_secret_shown() {
        let problems = check(&[
            "--signing-keys=hunter2",
            "--admin-token=hunter2",
            "--data-bytes-max=1KiB",
            "--listen=8080",
            "--settle=2h",
            "--callback-url=ftp://hunter2",
            "--log-format=loud",
        ])
        .unwrap_err();
        for name in [
            "SIGNING_KEYS",
            "ADMIN_TOKEN",
            "DATA_BYTES_MAX",
            "LISTEN",
            "SETTLE",
            "CALLBACK_URL",
            "LOG_FORMAT",
        ] {
            assert!(
                problems.contains(&format!("PORCHLIGHT_{name} ")),
                "{name}: {problems}"
            );
        }
        assert!(!problems.contains("hunter2"), "{problems}");
    }
}
