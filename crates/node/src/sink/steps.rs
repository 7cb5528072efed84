//! What a plan consists of.
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::class::Class;
use super::names::Pattern;

/// What kind of old file the finder found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OldKind {
    /// Of the set that is only good together: system tablespace, undo, redo, Aria logs and control file.
    System,
    /// A file of a table or database.
    Table,
    /// Nothing that a rollback would want: removed in any case.
    RemoveOnly,
}

/// What happens to the files that are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// Kept until the node was once Synced.
    Old,
    /// Deleted.
    Nothing,
    /// Already deleted, most of them: the transfer was made in place.
    InPlace,
}

/// An old file that leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Displaced {
    /// Where it is.
    pub path: PathBuf,
    /// Where it is kept; removed when there is nothing here.
    pub to: Option<PathBuf>,
    /// When it leaves.
    pub class: Class,
}

/// A staged file that comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Where it is.
    pub staged: PathBuf,
    /// Where it goes.
    pub target: PathBuf,
    /// When it comes.
    pub class: Class,
}

/// A file as it was: an old one that is the new one as well, byte for byte, and stays where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staying {
    /// Where it is.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// When it changed last, in nanoseconds since 1970: a server that writes to it makes it the new state's alone.
    pub changed: i128,
}

impl Staying {
    /// Nobody wrote to it since, when this is its length and time of change now.
    pub fn is_as_it_was(&self, now: Option<(u64, i128)>) -> bool {
        now == Some((self.size, self.changed))
    }
}

/// A table that is changed where it lies ([`super::patch`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patched {
    /// The table.
    pub table: PathBuf,
    /// The patch.
    pub patch: PathBuf,
    /// The patch that undoes it, staged.
    pub back: Option<PathBuf>,
    /// Where that is kept.
    pub kept: Option<PathBuf>,
}

/// A patch that a rollback applies, after whole files are back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPatch {
    /// The table.
    pub table: PathBuf,
    /// The patch.
    pub patch: PathBuf,
}

/// A kept file that a rollback puts back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Where it belongs.
    pub path: PathBuf,
    /// Where it is kept.
    pub copy: PathBuf,
    /// When it comes back.
    pub class: Class,
}

/// Files that a server started in between may have made: removed unless they are ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    /// The directory.
    pub directory: PathBuf,
    /// Names in it.
    pub pattern: Pattern,
}
