//! An archive of write-sets: what the provider's cache held and has overwritten since, compressed, for as long as the disk
//! allows. `rejoin archive run` writes it (`follow/` reads the live cache, `write` appends); [`Archive`] reads it.
//!
//! What is in it is as the provider had it, verified by the write-sets' own checksums, with final verdicts. What is missing is
//! recorded as a gap. The format is described in [`formats::archive`].
mod follow;
mod output;
mod read;
mod recognise;
mod run;
mod segment;
mod shifts;
mod status;
mod write;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use read::{Archive, Gap, Run, is_archive};
pub use run::{Settings, prune, refuse_inside, run};
pub use segment::{Piece, Segment};
pub use status::{GapStatus, RangeStatus, STATUS_FILE, Status};
pub use write::{Block, Retention, Writer};

/// Where the archive of a server lies unless it is told otherwise: beside its datadir, under the datadir's name and
/// `-archive`. Not within it: the server takes a directory there for a database, and other SST methods empty it.
pub fn default_dir(datadir: &Path) -> PathBuf {
    let mut name = datadir.file_name().map_or_else(|| OsString::from("mysql"), OsString::from);
    name.push("-archive");
    datadir.with_file_name(name)
}
