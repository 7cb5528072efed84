//! What depends on the server's flavor: what a file of a datadir is, which files are usable only as a set and in which
//! order they are replaced, what a server makes anew when it starts, and by what a server and its datadir are recognised.
//!
//! | module | owns |
//! |---|---|
//! | [`class`] | the sets of files, and their order in an install |
//! | [`pattern`] | patterns of the names that a server gives to its files |
//! | [`mariadb`] | MariaDB, the only flavor so far |
//!
//! [`Layout`](crate::datadir::layout::Layout) has the flavor of its server, and everything that looks at names asks it. What
//! an install then does is in its plan as classes, sets and patterns: only the check of a record asks the flavor again. A snapshot
//! of a running server ([`crate::snapshot`]) has locks and redo formats of its own, and declines a server it cannot read.
pub mod class;
pub mod mariadb;
pub mod pattern;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use protocol::inventory::{FileRole, Place};

use class::{Class, Set};
use pattern::Pattern;

/// Every flavor that a datadir or a process may belong to.
pub const ALL: [&dyn Flavor; 1] = [&mariadb::MariaDb];

/// One flavor of server.
pub trait Flavor: fmt::Debug + Send + Sync {
    /// Names of the server's program, as the kernel shows them.
    fn programs(&self) -> &'static [&'static str];

    /// Names that its server leaves in a datadir, and that are rare elsewhere.
    fn landmarks(&self) -> &'static [&'static str];

    /// What a file is whose directory an option names, and whose name the server chooses.
    fn numbered(&self, place: Place, name: &str) -> Option<Numbered>;

    /// What a file directly in the datadir is that no option names.
    fn in_datadir(&self, name: &str) -> InDatadir;

    /// What a file in the directory of a database is; `None` if it is of no table.
    fn in_database(&self, name: &str) -> Option<TableFile>;

    /// Whether a directory of this name in the datadir is a database.
    fn is_database(&self, directory: &str) -> bool;

    /// The class of a file with this role. `name` is its path below the directory of its place, whatever links it has on this
    /// node.
    fn class(&self, role: &FileRole, name: &Path) -> Class;

    /// Files that a server creates by itself when it starts, by the place of their directory.
    fn made_at_start(&self) -> Vec<(Place, Set, Pattern)>;

    /// The name of the redo log, or of its first file.
    fn redo_log(&self) -> &'static str;

    /// The engine beside InnoDB that has a log of its own, if there is one.
    fn second_engine(&self) -> Option<&'static SecondEngine>;
}

/// An engine beside InnoDB that has a log of its own, and that a server starts before InnoDB, whether InnoDB starts or not.
#[derive(Debug)]
pub struct SecondEngine {
    /// Its name, for log lines.
    pub name: &'static str,
    /// The option that names the directory of its logs.
    pub directory: &'static str,
    /// Its control file, in that directory. A server locks it, and refuses to start if it is not one.
    pub control: &'static str,
    /// The option that encrypts its tables.
    pub encrypts: &'static str,
    /// The extension of the file of a table whose beginning says whether the table is encrypted.
    pub header: &'static str,
    /// Whether such a file, with these first bytes, needs keys to be read.
    pub is_encrypted: fn(&[u8]) -> bool,
    /// How many bytes that function looks at.
    pub head_bytes: usize,
}

impl SecondEngine {
    /// Whether the file of this name has the header of a table.
    pub fn has_header(&self, name: &str) -> bool {
        name.rsplit_once('.').is_some_and(|(_, extension)| extension == self.header)
    }
}

/// A file in a directory that an option names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Numbered {
    /// A donor sends it in this role.
    Data(FileRole),
    /// It is meaningful only together with the old data: not sent, and removed by an install.
    Past,
}

/// A file directly in the datadir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InDatadir {
    /// It belongs to the data, so a donor sends it.
    Data,
    /// It is meaningful only together with the old data: not sent, and removed by an install.
    Past {
        /// It does not affect new data, so an operator may keep it.
        keepable: bool,
    },
    /// Where this node replicates from, outside the cluster: as [`InDatadir::Past`], and may be kept.
    ReplicationSource,
    /// A marker of a state transfer.
    TransferMarker,
    /// It belongs to this host or to a running program.
    Own,
    /// It is not sent and not touched, for this reason.
    LeftOut(&'static str),
    /// The server has no such file.
    Unknown,
}

/// A file of a table or of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFile {
    /// The definition of a table, a view or a sequence.
    Definition,
    /// An InnoDB tablespace.
    Tablespace,
    /// The path of an InnoDB tablespace elsewhere.
    TablespaceLink,
    /// Rows of a table of another engine.
    Rows,
    /// The list of tables whose rows a table shows.
    RowsOfOthers,
    /// What another engine keeps beside the rows.
    Index,
    /// A small text of a table or database: written and closed, never written in place.
    Description,
    /// What a statement left that did not finish.
    Leftover,
}

impl TableFile {
    /// Whether it holds the rows of a table, or leads to them.
    pub fn has_rows(self) -> bool {
        use TableFile::{Rows, RowsOfOthers, Tablespace, TablespaceLink};
        matches!(self, Rows | RowsOfOthers | Tablespace | TablespaceLink)
    }

    /// Whether the server writes it and closes it, or replaces it, but never writes in place.
    pub fn is_replaced(self) -> bool {
        use TableFile::{Definition, Description, RowsOfOthers, TablespaceLink};
        matches!(self, Definition | Description | RowsOfOthers | TablespaceLink)
    }

    /// Whether it is InnoDB's, so that it has redo.
    pub fn is_innodbs(self) -> bool {
        matches!(self, TableFile::Tablespace | TableFile::TablespaceLink)
    }
}
