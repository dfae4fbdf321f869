//! What a command stands on: RabbitMQ and Redis, the directory of a standalone, or a control API. Decided here alone.
//!
//! Nothing is asked of any of them yet; a directory is opened, for that fails at once or never.

mod choice;
mod told;

use std::path::{Path, PathBuf};
use std::time::Duration;

use porchlight_broker::BrokerUrls;
use porchlight_journal::{Journal, JournalConfig, LedgerConfig, OpenError, Queue, Role};
use porchlight_ledger::Ledger;
use porchlight_service::client::Target;
use porchlight_store::Store;
use tokio::time::Instant;

use crate::control_api::ControlApi;
use crate::failure::Failure;
use crate::servers::{AmqpArgs, RedisArgs, given};
use choice::{Choice, Named, Wishes, named};
use told::Told;

/// Where a standalone keeps everything unless it is told otherwise.
pub(crate) const DATA_DIR: &str = "./porchlight-data";
/// The one file of a journal.
const JOURNAL_FILE: &str = "porchlight.db";

/// For SQLite to answer one question.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// What a command stands on.
pub(crate) enum Place {
    /// The scaled form.
    Servers(Box<Servers>),
    /// A standalone's directory, beside its daemon or without one.
    Directory(Directory),
    /// A daemon that is asked over HTTP.
    Api(Box<ControlApi>),
}

/// The servers of the scaled form.
pub(crate) struct Servers {
    pub(crate) amqp: BrokerUrls,
    pub(crate) store: Store,
}

/// A standalone's directory.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) journal: Journal,
}

/// Where a standalone is.
#[derive(clap::Args, Debug)]
struct HereArgs {
    /// Directory of a standalone, instead of RabbitMQ and Redis; its daemon may run or not [default: ./porchlight-data
    /// where a standalone has run there and nothing else is named]
    #[arg(
        long,
        value_name = "DIR",
        env = "PORCHLIGHT_DATA_DIR",
        hide_env_values = true,
        help_heading = "Where"
    )]
    data_dir: Option<PathBuf>,
    /// Bearer token of the control API
    #[arg(
        long,
        value_name = "TOKEN",
        env = "PORCHLIGHT_ADMIN_TOKEN",
        hide_env_values = true,
        help_heading = "Where"
    )]
    admin_token: Option<String>,
}

#[derive(clap::Args, Debug)]
struct QueueFlags {
    #[command(flatten)]
    here: HereArgs,
    /// Ask a standalone's control API, for example http://127.0.0.1:9090; as a variable it counts only where no
    /// server is named
    #[arg(
        long,
        value_name = "URL",
        env = "PORCHLIGHT_API_URL",
        hide_env_values = true,
        help_heading = "Where"
    )]
    api: Option<String>,
    #[command(flatten)]
    amqp: AmqpArgs,
    #[command(flatten)]
    redis: RedisArgs,
}

#[derive(clap::Args, Debug)]
struct LedgerFlags {
    #[command(flatten)]
    here: HereArgs,
    /// Ask the control API of a worker or a standalone instead of Redis, for example http://127.0.0.1:9091
    #[arg(
        long,
        value_name = "URL",
        env = "PORCHLIGHT_API_URL",
        hide_env_values = true,
        help_heading = "Where"
    )]
    api: Option<String>,
    #[command(flatten)]
    redis: RedisArgs,
}

/// The flags of a command that looks at queues.
///
/// A flag overrules every variable; two flags that name different places are an error, and so are a directory and a
/// server that are both named by variables.
#[derive(clap::Args)]
pub(crate) struct QueueArgs {
    #[command(flatten)]
    told: Told<QueueFlags>,
}

/// The flags of a command that asks the ledger alone; see [`QueueArgs`].
#[derive(clap::Args)]
pub(crate) struct LedgerArgs {
    #[command(flatten)]
    told: Told<LedgerFlags>,
}

impl QueueArgs {
    /// The place that the flags and variables name.
    pub(crate) fn place(&self) -> Result<Place, Failure> {
        let here = &self.told.args.here;
        Ok(match self.choice()? {
            Choice::Servers => Place::Servers(self.servers()?),
            choice => near(choice, here, &self.told.args.api)?,
        })
    }

    /// The same, for a command that opens a directory in its own way.
    pub(crate) fn site(&self) -> Result<Site, Failure> {
        Ok(match (self.choice()?, &self.told.args.here.data_dir) {
            (Choice::Servers, _) => Site::Servers(self.servers()?),
            (Choice::Api, _) => Site::Api,
            (Choice::Directory, Some(dir)) => Site::Directory(dir.clone()),
            (Choice::Directory | Choice::DefaultDirectory, _) => Site::Directory(DATA_DIR.into()),
        })
    }

    /// Everything that the variables name, for a command that looks a daemon's environment over: an ingress with a spool
    /// has both servers and a directory. An address that is wrong is handed on.
    pub(crate) fn whole(&self) -> Result<Whole, Failure> {
        let (flags, here) = (&self.told.args, &self.told.args.here);
        let dir = here.data_dir.as_ref().filter(|dir| !dir.as_os_str().is_empty());
        let is_flag = ["data_dir", "api", "amqp_url", "redis_url"].map(|field| self.told.is_flag(field));
        let with_servers = flags.amqp.is_given() || flags.redis.is_given();
        let spool = dir.filter(|_| with_servers && is_flag == [false; 4]).cloned();
        let choice = if spool.is_some() {
            Choice::Servers
        } else {
            self.choice()?
        };
        Ok(match (choice, dir) {
            (Choice::Servers, _) => Whole::Servers {
                amqp: flags.amqp.urls(),
                store: flags.redis.store(),
                spool,
            },
            (Choice::Api, _) => {
                let url = given(&flags.api).unwrap_or_default();
                let target = Target::parse(url)
                    .map_err(|error| Failure::usage("PORCHLIGHT_API_URL (--api)").because(&error));
                Whole::Api(target?)
            }
            (Choice::Directory, Some(dir)) => Whole::Directory(dir.clone()),
            (Choice::Directory | Choice::DefaultDirectory, _) => Whole::Directory(DATA_DIR.into()),
        })
    }

    fn servers(&self) -> Result<Box<Servers>, Failure> {
        let flags = &self.told.args;
        Ok(Box::new(Servers {
            amqp: flags.amqp.urls()?,
            store: flags.redis.store()?,
        }))
    }

    fn choice(&self) -> Result<Choice, Failure> {
        let flags = &self.told.args;
        let amqp = named(flags.amqp.is_given(), self.told.is_flag("amqp_url"));
        let redis = named(flags.redis.is_given(), self.told.is_flag("redis_url"));
        let wishes = Wishes {
            data_dir: data_dir_named(&flags.here, self.told.is_flag("data_dir")),
            api: named(given(&flags.api).is_some(), self.told.is_flag("api")),
            servers: amqp.max(redis),
            api_before_servers: false,
            is_default_dir: is_default_dir(),
        };
        wishes.choose()
    }
}

impl LedgerArgs {
    /// The place that the flags and variables name. Of servers it has Redis alone.
    pub(crate) fn place(&self) -> Result<LedgerPlace, Failure> {
        let flags = &self.told.args;
        let wishes = Wishes {
            data_dir: data_dir_named(&flags.here, self.told.is_flag("data_dir")),
            api: named(given(&flags.api).is_some(), self.told.is_flag("api")),
            servers: named(flags.redis.is_given(), self.told.is_flag("redis_url")),
            api_before_servers: true,
            is_default_dir: is_default_dir(),
        };
        Ok(match wishes.choose()? {
            Choice::Servers => LedgerPlace::Redis(flags.redis.store()?),
            choice => match near(choice, &flags.here, &flags.api)? {
                Place::Api(api) => LedgerPlace::Api(api),
                Place::Directory(directory) => LedgerPlace::Directory(directory),
                Place::Servers(servers) => LedgerPlace::Redis(servers.store),
            },
        })
    }
}

/// A place of which nothing was opened yet.
pub(crate) enum Site {
    Servers(Box<Servers>),
    Directory(PathBuf),
    Api,
}

/// What a daemon's environment names, and nothing opened.
pub(crate) enum Whole {
    /// The scaled form, with the spool of an ingress where one is named.
    Servers {
        amqp: Result<BrokerUrls, Failure>,
        store: Result<Store, Failure>,
        spool: Option<PathBuf>,
    },
    Directory(PathBuf),
    Api(Target),
}

/// What a command about devices stands on.
pub(crate) enum LedgerPlace {
    Redis(Store),
    Directory(Directory),
    Api(Box<ControlApi>),
}

fn data_dir_named(here: &HereArgs, is_flag: bool) -> Named {
    let is_given = here
        .data_dir
        .as_ref()
        .is_some_and(|dir| !dir.as_os_str().is_empty());
    named(is_given, is_flag)
}

fn is_default_dir() -> bool {
    Path::new(DATA_DIR).join(JOURNAL_FILE).is_file()
}

/// A place that is no server.
fn near(choice: Choice, here: &HereArgs, api: &Option<String>) -> Result<Place, Failure> {
    match (choice, &here.data_dir, given(api)) {
        (Choice::Directory, Some(dir), _) => Directory::open(dir).map(Place::Directory),
        (Choice::Api, _, Some(url)) => {
            let api = ControlApi::new(url, given(&here.admin_token))?;
            Ok(Place::Api(Box::new(api)))
        }
        _ => Directory::open(Path::new(DATA_DIR)).map(Place::Directory),
    }
}

impl Directory {
    /// Opens a standalone's directory, as a tool beside its daemon.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let journal =
            Journal::open(JournalConfig::new(path), Role::Tool).map_err(|error| refused(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            journal,
        })
    }

    /// The same, with the bound that its daemon has set: for a command that puts much in.
    pub(crate) async fn with_its_bound(self) -> Result<Self, Failure> {
        let unread = |error| Failure::unavailable("the data directory").because(&error);
        let look = self
            .journal
            .look(Instant::now() + LOOK_MAX)
            .await
            .map_err(unread)?;
        self.journal.close(LOOK_MAX).await;
        let config = JournalConfig {
            bytes_max: look.bytes_max,
            ..JournalConfig::new(&self.path)
        };
        let journal = Journal::open(config, Role::Tool).map_err(|error| refused(&self.path, &error))?;
        Ok(Self { journal, ..self })
    }

    /// The directory of a journal that is open already.
    pub(crate) fn of(journal: &Journal) -> Self {
        Self {
            path: journal.config().dir.clone(),
            journal: journal.clone(),
        }
    }

    /// The queue in it.
    pub(crate) fn queue(&self) -> Queue {
        Queue::new(&self.journal)
    }

    /// The ledger in it. What a command makes owed is the daemon's to send, at once.
    pub(crate) fn ledger(&self) -> Ledger {
        let config = LedgerConfig {
            settle: Duration::ZERO,
            head_start: Duration::ZERO,
        };
        Ledger::Sqlite(porchlight_journal::Ledger::new(self.journal.clone(), config))
    }
}

pub(crate) fn refused(path: &Path, error: &OpenError) -> Failure {
    match error {
        OpenError::Missing { .. } => {
            let failure = if path.is_dir() {
                Failure::usage("PORCHLIGHT_DATA_DIR (--data-dir)").because(error)
            } else {
                Failure::usage(format_args!(
                    "PORCHLIGHT_DATA_DIR (--data-dir): there is no directory '{}'",
                    path.display()
                ))
            };
            failure.advise(
                "name the directory that `porchlight standalone` has as --data-dir, or start one there first",
            )
        }
        OpenError::Foreign { .. } | OpenError::OtherPurpose { .. } | OpenError::Newer { .. } => {
            Failure::usage("PORCHLIGHT_DATA_DIR (--data-dir)").because(error)
        }
        OpenError::Path { .. } | OpenError::Sqlite { .. } => {
            Failure::unavailable("the data directory").because(error).advise(
                "run the tool as the user that the standalone runs as; if the file is locked, the same again",
            )
        }
        _ => Failure::unavailable("the data directory").because(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[test]
    fn a_directory_without_a_journal_is_a_wrong_setting_and_none_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        for path in [folder.path(), &missing] {
            let failure = Directory::open(path).map(|_| ()).unwrap_err();
            assert_eq!(failure.exit(), Exit::Usage);
        }
        assert!(!missing.exists() && std::fs::read_dir(folder.path()).unwrap().next().is_none());
    }
}
