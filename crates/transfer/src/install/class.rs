//! Which files are usable only as a set, and in which order files are retired and installed.
use std::collections::BTreeMap;
use std::path::Path;

use protocol::inventory::FileRole;
use serde::{Deserialize, Serialize};

use crate::install::names::{Pattern, file_name};

/// The kind of an old file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OldKind {
    /// Part of the set that is usable only together: system tablespace, undo, redo, Aria logs and control
    /// file.
    System,
    /// A file of a table or database.
    Table,
    /// A file that a rollback does not need: it is removed in any case.
    RemoveOnly,
}

/// The position of a file in the order of installing. Old files are retired in the order of
/// [`Class::leaving`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// A file of a table or database, or anything else that only these use.
    Table,
    /// An Aria file of the `mysql` database. A server opens some of these at every start, so they belong to
    /// the Aria logs.
    ServerTable,
    /// An Aria log.
    AriaLog,
    /// The Aria control file.
    AriaControl,
    /// A redo log. If it exists without `ibdata1`, no server creates or deletes InnoDB files.
    Redo,
    /// An undo tablespace.
    Undo,
    /// The n-th file of the system tablespace. The first one is installed last of all.
    System(u16),
}

impl Class {
    /// The class of a file that is installed at this path.
    pub fn of(role: &FileRole, target: &Path) -> Class {
        match role {
            FileRole::SystemTablespace { index } => Class::System(*index),
            FileRole::Undo => Class::Undo,
            FileRole::Redo => Class::Redo,
            FileRole::AriaLog => Class::of_system_name(target),
            _ => Class::of_table_path(target),
        }
    }

    /// Whether it belongs to the server's Aria set, which is handled by copies.
    pub fn is_aria(self) -> bool {
        matches!(self, Class::ServerTable | Class::AriaLog | Class::AriaControl)
    }

    /// Whether it belongs to InnoDB's system set.
    pub fn is_innodb(self) -> bool {
        matches!(self, Class::Redo | Class::Undo | Class::System(_))
    }

    /// Sort key of installing: the first file of the system tablespace comes last.
    pub fn placing(self) -> (u8, u16) {
        match self {
            Class::Table => (0, 0),
            Class::ServerTable => (1, 0),
            Class::AriaLog => (2, 0),
            Class::AriaControl => (3, 0),
            Class::Redo => (4, 0),
            Class::Undo => (5, 0),
            Class::System(index) => (6, u16::MAX - index),
        }
    }

    /// Sort key of retiring: InnoDB in the reverse order of installing, then Aria, then tables.
    pub fn leaving(self) -> (u8, u16) {
        match self {
            Class::System(index) => (0, index),
            Class::Undo => (1, 0),
            Class::Redo => (2, 0),
            Class::ServerTable => (3, 0),
            Class::AriaLog => (4, 0),
            Class::AriaControl => (5, 0),
            Class::Table => (6, 0),
        }
    }

    fn of_table_path(path: &Path) -> Class {
        let database = path.parent().map(file_name).unwrap_or("");
        let aria = matches!(path.extension().and_then(|e| e.to_str()), Some("MAI" | "MAD"));
        // The two log tables can be large, and no server opens them before it has recovered.
        let log = ["general_log.", "slow_log."].iter().any(|log| file_name(path).starts_with(log));
        if database == "mysql" && aria && !log { Class::ServerTable } else { Class::Table }
    }

    fn of_system_name(path: &Path) -> Class {
        let name = file_name(path);
        match () {
            () if name == "aria_log_control" => Class::AriaControl,
            () if Pattern::Aria.matches(name) => Class::AriaLog,
            () if Pattern::Redo.matches(name) => Class::Redo,
            () if Pattern::Undo.matches(name) => Class::Undo,
            // It follows the files with a known number.
            () => Class::System(u16::MAX),
        }
    }

    /// The class of an old file; `numbers` maps paths to file numbers in the system tablespace.
    pub(super) fn of_old(path: &Path, kind: OldKind, numbers: &BTreeMap<&Path, u16>) -> Class {
        match (kind, numbers.get(path)) {
            (OldKind::Table | OldKind::RemoveOnly, _) => Class::of_table_path(path),
            (OldKind::System, Some(number)) => Class::System(*number),
            (OldKind::System, None) => Class::of_system_name(path),
        }
    }
}
