//! The file of an export: written whole or not at all, and read twice, once to be sure of it and once to use it.
//!
//! It does not know what the lines mean.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::failure::Failure;

use super::lines::{Counts, End, FORMAT, Form, Header, Line, Odd, Thing, VERSION};

/// Longest line, in bytes: a device with 256 operations whose parameters are all escaped, or the largest body in base64,
/// stay below it.
const LINE_BYTES_MAX: u64 = 64 << 20;
const BUFFER_BYTES: usize = 1 << 20;
/// Every kind of line that this version knows.
const KINDS: [&str; 7] = ["header", "account", "device", "marks", "letter", "event", "end"];

/// Refuses a name that is taken. A file gets its name when it is whole, in place of what has it then: that may be a file,
/// and nothing else, not a device, and not a link that somebody else reads through.
pub(crate) fn check_name(path: &Path, force: bool) -> Result<(), Failure> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(Failure::usage(format_args!(
            "'{shown}' is there, and is no plain file"
        ))
        .advise("another name")),
        Ok(_) if !force => Err(Failure::usage(format_args!("'{shown}' is there already"))
            .advise("another name, or --force to overwrite it")),
        _ => Ok(()),
    }
}

/// A file that is being written, under a name of its own until it is whole.
pub(crate) struct Writer {
    file: BufWriter<File>,
    partial: PathBuf,
    path: PathBuf,
    hash: Sha256,
    counts: Counts,
    is_finished: bool,
}

/// A file that was read to its end once and found whole.
pub(crate) struct Whole {
    path: PathBuf,
    pub(crate) header: Header,
    pub(crate) counts: Counts,
    sha256: String,
}

/// Reads line after line.
pub(crate) struct Reader {
    file: BufReader<File>,
    hash: Sha256,
    hash_before: Sha256,
    number: u64,
    line: Vec<u8>,
}

/// Why a file cannot be used. Nothing of the lines is shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("reading or writing failed")]
    Io(#[from] io::Error),
    #[error("it is not an export of porchlight")]
    Foreign,
    #[error(
        "it has version {0}, and this program reads version {VERSION}; use the program that wrote it, or a newer one"
    )]
    Version(String),
    #[error(
        "line {line} is of a kind '{kind}' that this program does not know; use the program that wrote it, or a newer one"
    )]
    UnknownKind { line: u64, kind: String },
    #[error("line {line} holds {what}")]
    Odd { line: u64, what: Odd },
    #[error("line {0} cannot be read; the file was changed or damaged")]
    Line(u64),
    #[error("line {0} is longer than any that an export has")]
    LongLine(u64),
    #[error("it ends too early: the last line is missing, so the export was cut off or is not complete")]
    Cut,
    #[error("its sum is not the one in its last line: the file was changed or damaged")]
    Sum,
    #[error("it does not hold as many things as its last line says")]
    Counts,
    #[error("something follows its last line")]
    Tail,
}

impl Writer {
    /// Begins a file that only its owner can read, with the first line.
    pub(crate) fn create(path: &Path, header: Header) -> Result<Self, FileError> {
        let name = path
            .file_name()
            .ok_or(io::ErrorKind::InvalidInput)
            .map_err(io::Error::from)?;
        let mut partial = std::ffi::OsString::from(".");
        partial.push(name);
        partial.push(format!(".partial-{}", std::process::id()));
        let partial = path.with_file_name(partial);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)?;
        let mut writer = Self {
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            partial,
            path: path.to_owned(),
            hash: Sha256::new(),
            counts: Counts::default(),
            is_finished: false,
        };
        writer.put(&Line::Header(header))?;
        Ok(writer)
    }

    /// Adds a line.
    pub(crate) fn add(&mut self, line: &Line, counted: u64) -> Result<(), FileError> {
        *self.counts.of(line) += counted;
        self.put(line)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Writes the last line and gives the file its name, when all of it is on the disk.
    pub(crate) fn finish(mut self) -> Result<End, FileError> {
        let end = End {
            counts: self.counts,
            sha256: hex::encode(self.hash.clone().finalize()),
        };
        self.put(&Line::End(end.clone()))?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        fs::rename(&self.partial, &self.path)?;
        self.is_finished = true;
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(dir.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(end)
    }

    fn put(&mut self, line: &Line) -> Result<(), FileError> {
        let mut bytes = serde_json::to_vec(line).map_err(io::Error::from)?;
        bytes.push(b'\n');
        self.hash.update(&bytes);
        self.file.write_all(&bytes)?;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.is_finished {
            // What cannot be removed has a name that says what it is.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

impl Counts {
    fn of(&mut self, line: &Line) -> &mut u64 {
        match line {
            Line::Account(_) => &mut self.accounts,
            Line::Device(_) => &mut self.devices,
            Line::Marks(_) => &mut self.marks,
            Line::Letter(_) => &mut self.letters,
            Line::Header(_) | Line::Event(_) | Line::End(_) => &mut self.events,
        }
    }

    /// How many lines' worth of things.
    pub(crate) fn total(&self) -> u64 {
        self.accounts + self.devices + self.marks + self.letters + self.events
    }
}

impl Whole {
    /// Reads the file to its end, and says that all of it can be read and none is missing.
    pub(crate) fn check(path: &Path) -> Result<Self, FileError> {
        let mut reader = Reader::open(path)?;
        let header = reader.header()?;
        let mut counts = Counts::default();
        let end = loop {
            match reader.next()?.ok_or(FileError::Cut)? {
                Line::Header(_) => return Err(FileError::Line(reader.number)),
                Line::End(end) => break end,
                line => {
                    let counted = counts.of(&line);
                    *counted += reader.thing(line, &header)?.count();
                }
            }
        };
        let sha256 = reader.sum();
        if end.sha256 != sha256 {
            return Err(FileError::Sum);
        }
        if end.counts != counts {
            return Err(FileError::Counts);
        }
        if !reader.next().is_ok_and(|line| line.is_none()) {
            return Err(FileError::Tail);
        }
        let path = path.to_owned();
        Ok(Self {
            path,
            header,
            counts,
            sha256,
        })
    }

    /// Reads it once more, from the first thing on.
    pub(crate) fn again(&self) -> Result<Reader, FileError> {
        let mut reader = Reader::open(&self.path)?;
        reader.next()?;
        Ok(reader)
    }

    /// The next thing of a second reading; `None` at the end of a file that is still the one that was found whole.
    pub(crate) fn next(&self, reader: &mut Reader) -> Result<Option<Thing>, FileError> {
        match reader.next()?.ok_or(FileError::Cut)? {
            Line::End(_) if reader.sum() == self.sha256 => Ok(None),
            Line::End(_) => Err(FileError::Sum),
            line => reader.thing(line, &self.header).map(Some),
        }
    }
}

impl Header {
    /// The first line of a file that this program writes now.
    pub(crate) fn new(from: Form, at_ms: i64) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION.to_owned(),
            from,
            at: at_ms,
            program: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn check(&self) -> Result<(), FileError> {
        let major = |version: &str| version.split('.').next().unwrap_or_default().to_owned();
        if self.format != FORMAT {
            return Err(FileError::Foreign);
        }
        if major(&self.version) != major(VERSION) {
            return Err(FileError::Version(self.version.chars().take(20).collect()));
        }
        Ok(())
    }
}

impl FileError {
    fn at_first(self) -> Self {
        match self {
            Self::Line(_) | Self::UnknownKind { .. } | Self::LongLine(_) => Self::Foreign,
            other => other,
        }
    }
}

impl Reader {
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        Ok(Self {
            file: BufReader::with_capacity(BUFFER_BYTES, File::open(path)?),
            hash: Sha256::new(),
            hash_before: Sha256::new(),
            number: 0,
            line: Vec::new(),
        })
    }

    /// The sum of every line before the one that was read last.
    pub(crate) fn sum(&self) -> String {
        hex::encode(self.hash_before.clone().finalize())
    }

    fn thing(&self, line: Line, header: &Header) -> Result<Thing, FileError> {
        let line_number = self.number;
        match line.thing(header) {
            Ok(Some(thing)) => Ok(thing),
            Ok(None) => Err(FileError::Line(line_number)),
            Err(what) => Err(FileError::Odd {
                line: line_number,
                what,
            }),
        }
    }

    /// The first line, which says what follows.
    pub(crate) fn header(&mut self) -> Result<Header, FileError> {
        let Some(Line::Header(header)) = self.next().map_err(FileError::at_first)? else {
            return Err(FileError::Foreign);
        };
        header.check()?;
        Ok(header)
    }

    /// The number of the line that was read last, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The sum of every line that was read.
    pub(crate) fn sum_of_all(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }

    /// Bytes of the line that was read last.
    pub(crate) fn line_bytes(&self) -> u64 {
        self.line.len() as u64
    }

    /// The next line; `None` at the end of the file.
    pub(crate) fn next(&mut self) -> Result<Option<Line>, FileError> {
        #[derive(Deserialize)]
        struct Kind {
            line: String,
        }
        self.line.clear();
        self.number += 1;
        let mut limited = (&mut self.file).take(LINE_BYTES_MAX);
        if limited.read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        if self.line.last() != Some(&b'\n') {
            let is_long = self.line.len() as u64 == LINE_BYTES_MAX;
            return Err(if is_long {
                FileError::LongLine(self.number)
            } else {
                FileError::Cut
            });
        }
        self.hash_before = self.hash.clone();
        self.hash.update(&self.line);
        if let Ok(line) = serde_json::from_slice(&self.line) {
            return Ok(Some(line));
        }
        match serde_json::from_slice::<Kind>(&self.line) {
            Ok(Kind { line }) if !KINDS.contains(&line.as_str()) => Err(FileError::UnknownKind {
                line: self.number,
                kind: line.chars().take(40).collect(),
            }),
            _ => Err(FileError::Line(self.number)),
        }
    }
}
