//! A directory of events: its file system, room, rights, and the file itself. A standalone's, or an ingress's spool.
//!
//! Nothing in it is changed.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use porchlight_journal::{Journal, JournalConfig, Look, OpenError, Purpose, Queue, Role};
use porchlight_queue::DepthReader;
use tokio::time::Instant;

use super::finding::{Finding, shell};
use crate::failure::chain;
use crate::output::{at_most, is_bounded, size};

/// For each question to the file.
const ASK_MAX: Duration = Duration::from_secs(8);
/// Free space below this is little, in bytes.
const FREE_FEW: u64 = 512 << 20;
/// Free space below this is as good as none, in bytes: the log alone may take that.
const FREE_NONE: u64 = 64 << 20;
/// Free places for files below this: SQLite makes two files of its own.
const FILES_FEW: u64 = 100;
/// From so many percent of its bound on, a file is nearly full.
const NEARLY_FULL_PERCENT: u64 = 80;
/// A log larger than this, in bytes, was not put away for long: it is 24 MiB as a rule.
const LOG_LARGE: u64 = 256 << 20;
/// SQLite's log.
const LOG: &str = "porchlight.db-wal";

/// File systems by their magic numbers, as the system tells them.
const NETWORK: [(u64, &str); 7] = [
    (0x6969, "nfs"),
    (0xFF53_4D42, "cifs"),
    (0xFE53_4D42, "smb2"),
    (0x517B, "smb"),
    (0x0102_1997, "9p"),
    (0x00C3_6400, "ceph"),
    (0x0BD0_0BD0, "lustre"),
];
const TMPFS: [u64; 2] = [0x0102_1994, 0x8584_58F6];
const OVERLAY: u64 = 0x794C_7630;
const FUSE: u64 = 0x6573_5546;

/// Looks at a directory that may not be there yet.
pub(super) async fn check(dir: &Path, purpose: Purpose) -> Vec<Finding> {
    let mut findings = Vec::new();
    let shown = dir.display();
    let folder = match std::fs::metadata(dir) {
        Ok(folder) => folder,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let what = format!("there is no {shown} yet");
            return vec![
                Finding::note("data.directory", what)
                    .mend("a daemon makes it when it starts; is the path right?"),
            ];
        }
        Err(error) => {
            return vec![
                Finding::error("data.directory", format!("{shown}: {error}"))
                    .why("A daemon that cannot use it does not start.")
                    .mend("run the doctor as the user that the daemon runs as; then chown the directory to that user"),
            ];
        }
    };
    findings.push(rights(dir, &folder));
    findings.extend(rustix::fs::statfs(dir).ok().map(|system| {
        // The same number, whatever type a platform gives it.
        #[expect(clippy::cast_sign_loss, reason = "a magic number is a pattern of bits")]
        file_system(dir, system.f_type as u64 & 0xFFFF_FFFF)
    }));
    let look = open(dir, purpose, &mut findings).await;
    findings.extend(space(dir, look.as_ref()));
    findings.push(log(dir));
    findings
}

fn rights(dir: &Path, folder: &std::fs::Metadata) -> Finding {
    let id = "data.directory";
    let shown = dir.display();
    let path = shell(&shown.to_string());
    let own = rustix::process::geteuid().as_raw();
    if folder.mode() & 0o007 != 0 {
        return Finding::warning(
            id,
            format!(
                "everybody on this machine may look into {shown} (mode {:o})",
                folder.mode() & 0o777
            ),
        )
        .why("It holds what Ring sent about people's homes.")
        .mend(format!("chmod 700 {path}"));
    }
    if folder.uid() != own && own != 0 {
        return Finding::note(
            id,
            format!("{shown} belongs to the user {}, and this is {own}", folder.uid()),
        )
        .mend("run the doctor as the user that the daemon runs as");
    }
    Finding::ok(id, format!("{shown} is there, for its owner alone"))
}

fn file_system(dir: &Path, kind: u64) -> Finding {
    let id = "data.file_system";
    let shown = dir.display();
    if let Some((_, name)) = NETWORK.iter().find(|(known, _)| *known == kind) {
        return Finding::error(id, format!("{shown} is on a network file system ({name})"))
            .why("Its locks and its syncs are not to be trusted: the file may be damaged, or an answered event be lost.")
            .mend("move the directory to a local disk, with the daemon stopped: cp -a, then PORCHLIGHT_DATA_DIR");
    }
    if TMPFS.contains(&kind) {
        return Finding::error(id, format!("{shown} is in memory (tmpfs)"))
            .why("A restart of the machine loses every event that was answered 200.")
            .mend("move the directory to a disk: PORCHLIGHT_DATA_DIR=/var/lib/porchlight");
    }
    match kind {
        OVERLAY => Finding::warning(id, format!("{shown} is in a container's own layer (overlay)"))
            .why("It goes with the container: everything that was answered 200 and is not worked off is lost with it.")
            .mend("mount a volume there: -v porchlight-data:/var/lib/porchlight"),
        FUSE => Finding::warning(id, format!("{shown} is on a file system in user space (fuse)"))
            .why("Whether a sync reaches a disk depends on what is behind it.")
            .mend("findmnt -T DIR    # what is it? A local disk is better"),
        _ => Finding::ok(id, format!("{shown} is on a local file system")),
    }
}

/// Opens the file as a tool does, which changes nothing, and looks into it.
async fn open(dir: &Path, purpose: Purpose, findings: &mut Vec<Finding>) -> Option<Look> {
    let id = "data.file";
    let mut config = JournalConfig::new(dir);
    config.purpose = purpose;
    let journal = match Journal::open(config, Role::Tool) {
        Ok(journal) => journal,
        Err(error @ OpenError::Missing { .. }) => {
            findings.push(Finding::note(id, chain(&error)));
            return None;
        }
        Err(error) => {
            findings.push(
                Finding::error(id, chain(&error))
                    .why("A daemon does not start on it; nothing in it is changed.")
                    .mend(mend(&error)),
            );
            return None;
        }
    };
    let look = match journal.look(Instant::now() + ASK_MAX).await {
        Ok(look) => look,
        Err(error) => {
            findings.push(Finding::error(id, chain(&error)).mend("the same again; it may be busy"));
            return None;
        }
    };
    findings.push(Finding::ok(
        id,
        format!(
            "the file opens: {}{} in use",
            size(look.bytes_in_use),
            at_most(look.bytes_max)
        ),
    ));
    findings.push(bound(look));
    if purpose == Purpose::Standalone {
        findings.push(if look.is_held {
            Finding::ok("data.daemon", "a daemon runs on it")
        } else {
            Finding::note("data.daemon", "no daemon runs on it")
                .why("Nothing is received and nothing is sent.")
                .mend("porchlight standalone    # or: systemctl start porchlight")
        });
        findings.extend(dead(&journal).await);
    }
    Some(look)
}

fn mend(error: &OpenError) -> &'static str {
    match error {
        OpenError::Damaged { .. } => "cp -a DIR DIR.damaged; then restore the backup: README, Backup",
        OpenError::Newer { .. } => "run the newer porchlight, which wrote it",
        OpenError::OtherPurpose { .. } | OpenError::Foreign { .. } => {
            "name another directory in PORCHLIGHT_DATA_DIR"
        }
        _ => "run the doctor as the user that the daemon runs as",
    }
}

fn bound(look: Look) -> Finding {
    let id = "data.bound";
    let percent = look.bytes_in_use.saturating_mul(100) / look.bytes_max.max(1);
    let what = format!("{percent} % of its bound in use");
    let why = "At the bound every event is answered 503 until some were worked off.";
    let mend = "porchlight status    # what waits, and why? Or raise PORCHLIGHT_DATA_BYTES_MAX";
    match percent {
        100.. => Finding::error(id, what).why(why).mend(mend),
        NEARLY_FULL_PERCENT..100 => Finding::warning(id, what).why(why).mend(mend),
        _ => Finding::ok(id, what),
    }
}

async fn dead(journal: &Journal) -> Option<Finding> {
    let depths = DepthReader::Sqlite(Queue::new(journal)).read().await.ok()?;
    let dead = depths
        .iter()
        .find(|depth| depth.queue == "porchlight.dead")?
        .counts?;
    Some(match dead.ready {
        0 => Finding::ok("data.dead", "there are no dead letters"),
        count => Finding::warning("data.dead", format!("{count} dead letters"))
            .why("Each is an event or a command that could not be worked on.")
            .mend("porchlight dead list"),
    })
}

/// Room on the disk, for now and up to the bound.
fn space(dir: &Path, look: Option<&Look>) -> Vec<Finding> {
    let Ok(system) = rustix::fs::statvfs(dir) else {
        return vec![Finding::note("data.space", "how much is free is not known")];
    };
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let mut findings = vec![room(free, look)];
    // Some file systems count no files.
    if system.f_files > 0 && system.f_favail < FILES_FEW {
        let what = format!("the file system has room for {} more files", system.f_favail);
        findings.push(
            Finding::warning("data.space", what)
                .why("SQLite cannot make its own files then, and nothing can be stored.")
                .mend("df -i    # remove what has many small files"),
        );
    }
    findings
}

fn room(free: u64, look: Option<&Look>) -> Finding {
    let id = "data.space";
    let what = format!("{} free on its disk", size(free));
    let why = "On a full disk events are answered 503; it recovers by itself when there is room.";
    if free < FREE_NONE {
        return Finding::error(id, what)
            .why(why)
            .mend("df -h; du -xh --max-depth=2 / | sort -h | tail    # make room");
    }
    if free < FREE_FEW {
        return Finding::warning(id, what).why(why).mend("df -h    # make room");
    }
    let look = look.filter(|look| is_bounded(look.bytes_max));
    let grows = look.map_or(0, |look| look.bytes_max.saturating_sub(look.bytes_in_use));
    if grows > free {
        return Finding::warning(id, format!("{what}, and the data may grow by {}", size(grows)))
            .why("The disk is full before the bound is met, and then whatever else is on it suffers, too.")
            .mend("PORCHLIGHT_DATA_BYTES_MAX (of a spool PORCHLIGHT_SPOOL_BYTES_MAX) below what is free, or a larger disk");
    }
    Finding::ok(id, what)
}

fn log(dir: &Path) -> Finding {
    let id = "data.log";
    let bytes = std::fs::metadata(dir.join(LOG)).map_or(0, |file| file.len());
    if bytes > LOG_LARGE {
        return Finding::warning(id, format!("the write-ahead log has {}", size(bytes)))
            .why("Something keeps it open and being read, such as a backup that does not end: reading grows slow and \
                  the disk fills.")
            .mend(format!("fuser -v {}/*    # who has it open?", shell(&dir.display().to_string())));
    }
    Finding::ok(id, format!("the write-ahead log has {}", size(bytes)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn only_a_local_disk_is_well() {
        for (kind, severity) in [
            (0xEF53, Severity::Ok),
            (0x6969, Severity::Error),
            (0x0102_1994, Severity::Error),
            (OVERLAY, Severity::Warning),
            (FUSE, Severity::Warning),
        ] {
            assert_eq!(file_system(Path::new("/d"), kind).severity, severity, "{kind:x}");
        }
    }

    #[test]
    fn room_is_judged_now_and_up_to_the_bound() {
        let look = Look {
            is_held: true,
            bytes_in_use: 1 << 30,
            bytes_max: 4 << 30,
            bytes_on_disk: 1 << 30,
        };
        for (free, severity) in [
            (10 << 30, Severity::Ok),
            (2 << 30, Severity::Warning),
            (256 << 20, Severity::Warning),
            (1 << 20, Severity::Error),
        ] {
            assert_eq!(room(free, Some(&look)).severity, severity, "{free}");
        }
        assert_eq!(bound(look).severity, Severity::Ok);
        let filled = |bytes_in_use| bound(Look { bytes_in_use, ..look }).severity;
        assert_eq!(
            [filled(35 << 27), filled(4 << 30)],
            [Severity::Error, Severity::Error]
        );
        assert_eq!(filled(29 << 27), Severity::Warning);
    }

    #[tokio::test]
    async fn a_directory_is_looked_at_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let found = check(&path, Purpose::Standalone).await;
        assert_eq!((found.len(), found[0].severity), (1, Severity::Note));
        assert!(!path.exists());

        let journal = Journal::open(JournalConfig::new(&path), Role::Daemon).unwrap();
        let severity = |findings: &[Finding], id: &str| {
            let of_id = findings.iter().filter(|finding| finding.id == id);
            of_id.map(|finding| finding.severity).max()
        };
        let found = check(&path, Purpose::Standalone).await;
        assert_eq!(severity(&found, "data.daemon"), Some(Severity::Ok));
        assert_eq!(severity(&found, "data.directory"), Some(Severity::Ok));
        journal.close(ASK_MAX).await;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let found = check(&path, Purpose::Standalone).await;
        assert_eq!(severity(&found, "data.directory"), Some(Severity::Warning));
        assert_eq!(severity(&found, "data.daemon"), Some(Severity::Note));
        // A spool is another thing.
        let found = check(&path, Purpose::Spool).await;
        assert_eq!(severity(&found, "data.file"), Some(Severity::Error));
    }
}
