//! The letters of an exported file, line by line; a line that cannot be read does not end it.
//!
//! It imports nothing.

use std::path::Path;

use porchlight_event::queue::DeadLetter;

use crate::moving::{FileError, Header, Line, Reader};

/// Bad lines that are told one by one.
const BAD_TOLD_MAX: usize = 10;

/// What a file holds.
pub(super) struct FileLook {
    pub(super) header: Header,
    pub(super) letters: u64,
    /// Lines about anything else.
    pub(super) others: u64,
    pub(super) bad_count: u64,
    /// What is wrong with the first of them.
    pub(super) bad: Vec<String>,
    /// Of all of it.
    pub(super) sum: String,
}

/// Reads line after line.
pub(super) struct LetterReader {
    reader: Reader,
    header: Header,
    counted: u64,
    has_ended: bool,
}

/// One line.
pub(super) enum Step {
    Letter(Box<DeadLetter>),
    Other,
    /// It cannot be read, for this reason.
    Bad(FileError),
    End,
}

impl FileLook {
    /// Reads all of it. An error where it is no export at all.
    pub(super) fn at(path: &Path) -> Result<Self, FileError> {
        let mut reader = LetterReader::open(path)?;
        let mut look = Self {
            header: reader.header.clone(),
            letters: 0,
            others: 0,
            bad_count: 0,
            bad: Vec::new(),
            sum: String::new(),
        };
        loop {
            match reader.step()? {
                Step::Letter(_) => look.letters += 1,
                Step::Other => look.others += 1,
                Step::Bad(error) => {
                    look.bad_count += 1;
                    if look.bad.len() < BAD_TOLD_MAX {
                        look.bad.push(error.to_string());
                    }
                }
                Step::End => break,
            }
        }
        look.sum = reader.sum();
        Ok(look)
    }
}

impl LetterReader {
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let mut reader = Reader::open(path)?;
        let header = reader.header()?;
        Ok(Self {
            reader,
            header,
            counted: 0,
            has_ended: false,
        })
    }

    /// Of all lines that were read.
    pub(super) fn sum(&self) -> String {
        self.reader.sum_of_all()
    }

    /// The next line. An error only where nothing more can be read.
    pub(super) fn step(&mut self) -> Result<Step, FileError> {
        let line = match self.reader.next() {
            Ok(None) if self.has_ended => return Ok(Step::End),
            Ok(None) => {
                self.has_ended = true;
                return Ok(Step::Bad(FileError::Cut));
            }
            Ok(Some(_)) if self.has_ended => return Ok(Step::Bad(FileError::Tail)),
            Ok(Some(line)) => line,
            Err(error @ (FileError::Io(_) | FileError::LongLine(_))) => return Err(error),
            Err(error) => return Ok(Step::Bad(error)),
        };
        Ok(match line {
            Line::Letter(letter) => match letter.read(self.header.at) {
                Ok(letter) => {
                    self.counted += 1;
                    Step::Letter(Box::new(letter))
                }
                Err(what) => Step::Bad(FileError::Odd {
                    line: self.reader.number(),
                    what,
                }),
            },
            Line::End(end) => {
                self.has_ended = true;
                if end.sha256 != self.reader.sum() {
                    Step::Bad(FileError::Sum)
                } else if end.counts.letters != self.counted {
                    Step::Bad(FileError::Counts)
                } else {
                    // Nothing follows, or it is told.
                    return self.step();
                }
            }
            Line::Header(_) => Step::Bad(FileError::Line(self.reader.number())),
            _ => Step::Other,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::moving::{Form, LetterLine, Writer};
    use bytes::Bytes;
    use porchlight_event::Envelope;
    use porchlight_event::queue::Origin;

    fn letter(number: usize) -> DeadLetter {
        DeadLetter {
            envelope: Envelope::bare(Bytes::from(number.to_string())),
            origin: Origin::Event,
            routing_key: String::new(),
            reason: "not_json".to_owned(),
            stage: None,
            detail: None,
            dead_at_ms: Some(7),
            deaths: Vec::new(),
            delivery_count: 0,
            headers: Vec::new(),
        }
    }

    /// A look at a file of five letters, after `change` was made to its lines.
    fn look(change: impl FnOnce(&mut Vec<String>)) -> FileLook {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let mut writer = Writer::create(&path, Header::new(Form::Standalone, 1)).unwrap();
        for number in 0..5 {
            let line = Line::Letter(LetterLine::from(&letter(number)));
            writer.add(&line, 1).unwrap();
        }
        writer.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        change(&mut lines);
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        FileLook::at(&path).unwrap()
    }

    #[test]
    fn a_whole_file_has_nothing_bad() {
        let whole = look(|_| {});
        assert_eq!((whole.letters, whole.bad_count), (5, 0), "{:?}", whole.bad);
        assert_eq!(whole.others, 0, "its end is about nothing else");
    }

    #[test]
    fn every_damaged_line_is_told_by_its_number_and_the_others_are_read() {
        let damaged = look(|lines| {
            lines[2] = lines[2].replace("\"reason\"", "\"rea");
            lines[4] = lines[4].replace("\"origin\":\"event\"", "\"origin\":\"nothing\"");
        });
        assert_eq!(damaged.letters, 3);
        let told = damaged.bad.join("; ");
        assert!(told.contains("line 3 ") && told.contains("line 5 "), "{told}");
    }

    #[test]
    fn a_file_without_its_end_and_one_whose_letters_were_changed_are_told_as_that() {
        let cut = look(|lines| drop(lines.pop()));
        assert_eq!((cut.letters, cut.bad_count), (5, 1));
        assert!(cut.bad[0].contains("cut off"), "{:?}", cut.bad);
        let changed = look(|lines| lines[1] = lines[1].replace("not_json", "no_device"));
        assert!(changed.bad[0].contains("sum"), "{:?}", changed.bad);
        let fewer = look(|lines| drop(lines.remove(3)));
        assert_eq!((fewer.letters, fewer.bad_count), (4, 1));
    }
}
