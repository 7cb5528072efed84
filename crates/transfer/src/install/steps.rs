//! The parts of a plan.
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::flavor::class::{Class, Set};
use crate::flavor::pattern::Pattern;

/// What happens to the replaced files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// They are kept until the node has been Synced once.
    Old,
    /// They are deleted.
    Nothing,
    /// Most of them are already deleted: the transfer was made in place.
    InPlace,
}

/// The kind of an old file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldKind {
    /// Part of the old state, which a rollback brings back.
    Data(Class),
    /// A rollback does not need it: it is removed in any case.
    RemoveOnly,
}

impl OldKind {
    /// When it is retired.
    pub fn class(self) -> Class {
        match self {
            OldKind::Data(class) => class,
            OldKind::RemoveOnly => Class::Table,
        }
    }
}

/// An old file that is retired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// Its path.
    pub path: PathBuf,
    /// Its path in the previous state; `None` if it is removed.
    pub to: Option<PathBuf>,
    /// When it is retired.
    pub class: Class,
}

/// A staged file that is installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Its path.
    pub staged: PathBuf,
    /// Its destination.
    pub target: PathBuf,
    /// When it is installed.
    pub class: Class,
}

/// An old file that is identical to the new one and stays in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unchanged {
    /// Its path.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last modified, in nanoseconds since 1970. If a server writes to the file, it belongs to
    /// the new state only.
    pub changed: i128,
}

impl Unchanged {
    /// Whether the file is unmodified, given its current length and modification time.
    pub fn is_as_it_was(&self, now: Option<(u64, i128)>) -> bool {
        now == Some((self.size, self.changed))
    }
}

/// A table that is patched in place ([`crate::install::patch`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patched {
    /// The table.
    pub table: PathBuf,
    /// The patch.
    pub patch: PathBuf,
    /// The patch that undoes it, staged.
    pub back: Option<PathBuf>,
    /// Its path in the previous state.
    pub kept: Option<PathBuf>,
}

/// A patch that a rollback applies after whole files are back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPatch {
    /// The table.
    pub table: PathBuf,
    /// The patch.
    pub patch: PathBuf,
}

/// A file of the previous state that a rollback puts back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its destination.
    pub path: PathBuf,
    /// Its path in the previous state.
    pub copy: PathBuf,
    /// When it is put back.
    pub class: Class,
}

/// Files that a server may have created in between: they are removed unless they are ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    /// The directory.
    pub directory: PathBuf,
    /// The set that these files belong to.
    pub set: Set,
    /// Names in it.
    pub pattern: Pattern,
}
