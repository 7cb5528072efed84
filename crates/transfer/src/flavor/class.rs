//! Which files are usable only as a set, and in which order files are retired and installed.
use serde::{Deserialize, Serialize};

/// The position of a file in the order of installing. Old files are retired in the order of
/// [`Class::leaving`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// A file of a table or database, or anything else that only these use.
    Table,
    /// A file of a table of the second engine that a server opens at every start, so that it belongs to that
    /// engine's logs.
    SecondTable,
    /// A log of the second engine.
    SecondLog,
    /// The control file of the second engine.
    SecondControl,
    /// A redo log. If it exists without the first file of the system tablespace, no server creates or deletes
    /// InnoDB files.
    Redo,
    /// An undo tablespace.
    Undo,
    /// The n-th file of the system tablespace. The first one is installed last of all.
    System(u16),
}

/// Files that are usable only together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Set {
    /// System tablespace, undo and redo, and all tables of InnoDB.
    Innodb,
    /// The second engine's, which is handled by copies.
    Second,
}

impl Class {
    /// The set that it belongs to; `None` for a table, which belongs to whichever is there.
    pub fn set(self) -> Option<Set> {
        match self {
            Class::Table => None,
            Class::SecondTable | Class::SecondLog | Class::SecondControl => Some(Set::Second),
            Class::Redo | Class::Undo | Class::System(_) => Some(Set::Innodb),
        }
    }

    /// Whether it is a table's: all others are replaced as a whole, whatever is equal.
    pub fn is_tables(self) -> bool {
        matches!(self, Class::Table | Class::SecondTable)
    }

    /// Sort key of installing: the first file of the system tablespace comes last.
    pub fn placing(self) -> (u8, u16) {
        match self {
            Class::Table => (0, 0),
            Class::SecondTable => (1, 0),
            Class::SecondLog => (2, 0),
            Class::SecondControl => (3, 0),
            Class::Redo => (4, 0),
            Class::Undo => (5, 0),
            Class::System(index) => (6, u16::MAX - index),
        }
    }

    /// Sort key of retiring: InnoDB in the reverse order of installing, then the second engine, then tables.
    pub fn leaving(self) -> (u8, u16) {
        match self {
            Class::System(index) => (0, index),
            Class::Undo => (1, 0),
            Class::Redo => (2, 0),
            Class::SecondTable => (3, 0),
            Class::SecondLog => (4, 0),
            Class::SecondControl => (5, 0),
            Class::Table => (6, 0),
        }
    }
}
