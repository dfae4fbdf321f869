//! Signing keys: there, readable by those alone who must read them, not easily guessed, and no more of them than needed.
//!
//! No key is shown, nor how long it is beyond "short".

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use porchlight_event::SigningKeys;

use super::finding::{Finding, shell};
use super::variable;

/// Fewer bytes than this can be guessed by trying.
const KEY_BYTES_FEW: usize = 16;
/// Fewer different characters than this are no random key.
const DISTINCT_FEW: usize = 6;
/// While a key is changed there are two. More are left over.
const KEYS_USUAL: usize = 2;
/// Largest file of keys that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// In every secret of the examples that come with Porchlight.
pub(super) const DEMO_WORDS: [&str; 2] = ["never-use-in-production", "neveruseinproduction"];

/// One named key, as it was written.
struct Entry {
    name: String,
    key: String,
}

/// Whether any key is named in this environment.
pub(super) fn are_given() -> bool {
    variable("PORCHLIGHT_SIGNING_KEYS").is_some() || variable("PORCHLIGHT_SIGNING_KEYS_FILE").is_some()
}

/// Looks at list and file. What cannot be read as keys is told where the settings are.
pub(super) fn check() -> Vec<Finding> {
    if !are_given() {
        return vec![
            Finding::note(
                "keys.given",
                "no signing keys in this environment, so they were not checked",
            )
            .mend(
                "run the doctor with the variables that the ingress has: set -a; . ./FILE; porchlight doctor",
            ),
        ];
    }
    let mut findings = Vec::new();
    let mut entries = Vec::new();
    if let Some(list) =
        variable("PORCHLIGHT_SIGNING_KEYS").filter(|list| SigningKeys::parse_list(list).is_ok())
    {
        entries.extend(list.split(',').filter_map(entry));
    }
    if let Some(path) = variable("PORCHLIGHT_SIGNING_KEYS_FILE") {
        entries.extend(read_file(Path::new(&path), &mut findings));
    }
    findings.extend(judge(&entries));
    findings
}

fn entry(text: &str) -> Option<Entry> {
    let (name, key) = text.trim().split_once('=')?;
    let (name, key) = (name.trim().to_owned(), key.to_owned());
    Some(Entry { name, key })
}

fn read_file(path: &Path, findings: &mut Vec<Finding>) -> Vec<Entry> {
    let id = "keys.file";
    let shown = path.display();
    let file = match std::fs::metadata(path) {
        Ok(file) => file,
        Err(error) => {
            findings.push(
                Finding::error(id, format!("{shown}: {error}"))
                    .why("Until it is there the ingress answers 503 to everything.")
                    .mend("is the secret mounted, and PORCHLIGHT_SIGNING_KEYS_FILE right?"),
            );
            return Vec::new();
        }
    };
    if file.len() > FILE_BYTES_MAX {
        findings.push(Finding::error(
            id,
            format!("{shown} is larger than {FILE_BYTES_MAX} bytes"),
        ));
        return Vec::new();
    }
    if file.mode() & 0o007 != 0 {
        findings.push(
            Finding::warning(
                id,
                format!(
                    "everybody on this machine may read {shown} (mode {:o})",
                    file.mode() & 0o777
                ),
            )
            .why("With a key anybody can send events in Ring's name.")
            .mend(format!("chmod o= {}", shell(&shown.to_string()))),
        );
    }
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            findings.push(
                Finding::error(id, format!("{shown}: {error}"))
                    .why("An ingress that cannot read it answers 503 to everything.")
                    .mend(
                        "run the doctor as the user that the ingress runs as; then chown or chmod the file",
                    ),
            );
            return Vec::new();
        }
    };
    let lines = text.lines().map(str::trim);
    let entries: Vec<_> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter_map(entry)
        .collect();
    if entries.is_empty() {
        findings.push(
            Finding::error(id, format!("{shown} holds no key"))
                .why("Until it does the ingress answers 503 to everything.")
                .mend("write one line name=key for each key, as Ring's developer portal shows it"),
        );
    } else if findings.is_empty() {
        findings.push(Finding::ok(
            id,
            format!("{shown} is readable, and not for everybody"),
        ));
    }
    entries
}

fn judge(entries: &[Entry]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for Entry { name, key } in entries {
        findings.extend(weakness(name, key));
    }
    for (index, Entry { name, key }) in entries.iter().enumerate() {
        if let Some(first) = entries[..index].iter().find(|known| known.key == *key) {
            findings.push(
                Finding::warning("keys.repeated", format!("the keys {} and {name} are the same", first.name))
                    .why("Metrics tell which key matched, and always name the first: a change of keys cannot be followed.")
                    .mend(format!("remove one of them, or give {name} the key that it was meant to have")),
            );
        }
    }
    if entries.len() > KEYS_USUAL {
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        findings.push(
            Finding::note(
                "keys.count",
                format!("{} keys are accepted: {}", entries.len(), names.join(", ")),
            )
            .why("Each one that Ring no longer signs with is one more that may be stolen.")
            .mend("remove those that porchlight_ingress_signatures_total does not count any more"),
        );
    }
    if findings.is_empty() && !entries.is_empty() {
        findings.push(Finding::ok(
            "keys.strength",
            format!("signing keys: {}, none short or well known", entries.len()),
        ));
    }
    findings
}

fn weakness(name: &str, key: &str) -> Option<Finding> {
    let id = "keys.strength";
    let portal = "take the HMAC signing key from Ring's developer portal";
    if DEMO_WORDS.iter().any(|words| key.contains(words)) {
        return Some(
            Finding::error(id, format!("the key {name} is the one of the examples"))
                .why("It is public: with it anybody can send events in Ring's name.")
                .mend(portal),
        );
    }
    let bare = key.trim();
    let quoted = bare.len() > 1
        && ['"', '\'']
            .iter()
            .any(|mark| bare.starts_with(*mark) && bare.ends_with(*mark));
    if quoted || bare.len() != key.len() {
        let what =
            format!("the key {name} has quotation marks or white space around it, which count as part of it");
        return Some(
            Finding::warning(id, what)
                .why("If they were not meant, no signature matches and every event is refused with 401.")
                .mend("write name=key without them"),
        );
    }
    if key.len() < KEY_BYTES_FEW || key.bytes().collect::<BTreeSet<_>>().len() < DISTINCT_FEW {
        return Some(
            Finding::warning(id, format!("the key {name} is short or simple"))
                .why("Whoever sees one signed event can find it by trying, and then send events in Ring's name.")
                .mend(portal),
        );
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    fn judged(list: &str) -> Vec<(&'static str, Severity)> {
        let entries: Vec<_> = list.split(',').filter_map(entry).collect();
        let findings = judge(&entries);
        let shown = format!("{findings:?}");
        for Entry { key, .. } in &entries {
            assert!(!shown.contains(key.as_str()), "{shown}");
        }
        findings
            .into_iter()
            .map(|finding| (finding.id, finding.severity))
            .collect()
    }

    #[test]
    fn weak_repeated_and_left_over_keys_are_told_and_never_shown() {
        let (good, other) = ("a-long-and-random-key-1", "a-long-and-random-key-2");
        assert_eq!(judged(&format!("ring={good}")), [("keys.strength", Severity::Ok)]);
        let strength = |severity| [("keys.strength", severity)];
        assert_eq!(judged("ring=short-key"), strength(Severity::Warning));
        assert_eq!(judged("ring=abababababababababab"), strength(Severity::Warning));
        assert_eq!(judged(&format!("ring=\"{good}\"")), strength(Severity::Warning));
        assert_eq!(
            judged("ring=porchlight-demo-key-never-use-in-production"),
            strength(Severity::Error)
        );
        assert_eq!(
            judged(&format!("a={good},b={good}")),
            [("keys.repeated", Severity::Warning)]
        );
        let three = format!("a={good},b={other},c=a-long-and-random-key-3");
        assert_eq!(judged(&three), [("keys.count", Severity::Note)]);
    }

    #[test]
    fn every_secret_of_the_examples_has_the_words_that_give_it_away() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.env.example");
        let text = std::fs::read_to_string(path).unwrap();
        let secrets = text.lines().filter(|line| !line.starts_with('#'));
        let secrets = secrets.filter(|line| {
            ["KEY", "TOKEN", "PASSWORD"]
                .iter()
                .any(|word| line.contains(word))
        });
        let mut count = 0;
        for line in secrets {
            assert!(DEMO_WORDS.iter().any(|words| line.contains(words)), "{line}");
            count += 1;
        }
        assert_eq!(count, 4);
    }

    #[test]
    fn a_file_is_there_readable_and_not_for_everybody() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let read = |mode: u32, text: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let mut findings = Vec::new();
            let entries = read_file(&path, &mut findings);
            (entries.len(), findings[0].severity)
        };
        assert_eq!(read(0o600, "# ours\nring=a-key\n"), (1, Severity::Ok));
        assert_eq!(read(0o644, "ring=a-key\n"), (1, Severity::Warning));
        assert_eq!(read(0o600, "# none\n"), (0, Severity::Error));
        let mut findings = Vec::new();
        assert!(read_file(&folder.path().join("missing"), &mut findings).is_empty());
        assert_eq!(findings[0].severity, Severity::Error);
    }
}
