//! Which files are only good together, and in which order they leave and come.
use std::collections::BTreeMap;
use std::path::Path;

use protocol::inventory::FileRole;
use serde::{Deserialize, Serialize};

use super::names::{Pattern, file_name};
use super::plan::OldKind;

/// When in the order a file is placed. Old files leave in the order of [`Class::leaving`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// A file of a table or database, or anything else that only these use.
    Table,
    /// An Aria file of the `mysql` database: a server opens some of these at every start, so they go with the Aria logs.
    ServerTable,
    /// An Aria log.
    AriaLog,
    /// The Aria control file.
    AriaControl,
    /// A redo log: while one is there without `ibdata1`, no server creates or deletes anything of InnoDB's.
    Redo,
    /// An undo tablespace.
    Undo,
    /// The n-th file of the system tablespace; the first is placed last of all.
    System(u16),
}

impl Class {
    /// The class of a file that goes to this path.
    pub fn of(role: &FileRole, target: &Path) -> Class {
        match role {
            FileRole::SystemTablespace { index } => Class::System(*index),
            FileRole::Undo => Class::Undo,
            FileRole::Redo => Class::Redo,
            FileRole::AriaLog => Class::of_system_name(target),
            _ => Class::of_table_path(target),
        }
    }

    /// Of the server's Aria set, which is handled by copies.
    pub fn is_aria(self) -> bool {
        matches!(self, Class::ServerTable | Class::AriaLog | Class::AriaControl)
    }

    /// Of InnoDB's system set.
    pub fn is_innodb(self) -> bool {
        matches!(self, Class::Redo | Class::Undo | Class::System(_))
    }

    /// Sorts by the order of placing: the first file of the system tablespace comes last.
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

    /// Sorts by the order in which old files leave: InnoDB in the reverse of placing, then Aria, then tables.
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
        // The two log tables can be large, and no start opens them before it has recovered.
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
            // After the files whose number is known.
            () => Class::System(u16::MAX),
        }
    }

    /// The class of an old file; `numbers` knows which paths are which file of the system tablespace.
    pub(super) fn of_old(path: &Path, kind: OldKind, numbers: &BTreeMap<&Path, u16>) -> Class {
        match (kind, numbers.get(path)) {
            (OldKind::Table | OldKind::RemoveOnly, _) => Class::of_table_path(path),
            (OldKind::System, Some(number)) => Class::System(*number),
            (OldKind::System, None) => Class::of_system_name(path),
        }
    }
}
