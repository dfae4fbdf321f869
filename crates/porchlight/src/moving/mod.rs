//! `porchlight export` and `porchlight import`: everything from one way to run to the other, and back.
//!
//! What taking records in does to what is there is the ledger's; see `porchlight_device::merge`.

mod ends;
mod export;
mod file;
mod import;
mod letters;
mod lines;

pub(crate) use export::{ExportArgs, run as run_export};
pub(crate) use file::{FileError, Reader, Writer, check_name};
pub(crate) use import::{ImportArgs, run as run_import};
pub(crate) use letters::Letter as LetterLine;
pub(crate) use lines::{Form, Header, Line};
