//! A directory of the demo's own, and secrets that nobody knows before.
//!
//! Both are gone when the demo ends.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// A directory that is removed, with everything in it, when this is dropped.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    /// Makes one where the system keeps what is temporary, for its owner alone.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn make() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("porchlight-demo-{}", random_hex(4)?));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed now is the system's to remove.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// So many random bytes, as hex digits.
///
/// # Errors
/// What the system says.
pub(super) fn random_hex(bytes: usize) -> io::Result<String> {
    let mut random = vec![0; bytes];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let mut hex = String::with_capacity(2 * bytes);
    for byte in random {
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(hex)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_its_owners_alone_and_goes_with_everything_in_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = Directory::make().unwrap();
        let path = directory.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(path.join("file"), "x").unwrap();
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn secrets_differ() {
        assert_eq!(random_hex(24).unwrap().len(), 48);
        assert_ne!(random_hex(24).unwrap(), random_hex(24).unwrap());
    }
}
