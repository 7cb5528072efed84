//! Names in `.rejoin/` and `#sql-rejoin/`, and names of the server's files that matter for the order of an install.
use std::path::{Path, PathBuf};

use formats::mariadb::file_kind::is_binlog_of;
use serde::{Deserialize, Serialize};

pub use crate::datadir::KEPT_DIRECTORY;

/// The directory of received files: inside the datadir and on each other filesystem in use. In the datadir it
/// exists only while no server can see it, because a server shows it as a database, and its tools fail on the
/// name.
pub const OWN_DIRECTORY: &str = ".rejoin";
/// A plan that has begun and must be finished.
pub const INSTALL: &str = "install.json";
/// The last finished install.
pub const INSTALLED: &str = "installed.json";
/// The previous state is being deleted.
pub const RELEASED: &str = "released.json";
/// The old datadir is no longer complete.
pub const IN_PLACE: &str = "in-place";
/// The last transfer filled the disk.
pub const RAN_FULL: &str = "ran-full";
/// Every staging root that may exist.
pub const ROOTS: &str = "roots.json";
/// The provider's state file; the previous state has a copy under the same name.
pub const GRASTATE: &str = "grastate.dat";

/// The datadir's own root.
pub fn own_directory(datadir: &Path) -> PathBuf {
    datadir.join(KEPT_DIRECTORY)
}

/// A root's directory for files that are not yet in place (`stage`, `copy`). In the datadir it is separate
/// from the previous state.
pub fn working_directory(root: &Path, name: &str) -> PathBuf {
    waiting_room(root).join(name)
}

/// The directory that holds a root's working directories.
pub fn waiting_room(root: &Path) -> PathBuf {
    if file_name(root) == KEPT_DIRECTORY { root.with_file_name(OWN_DIRECTORY) } else { root.to_owned() }
}

/// A root's directory of this name, wherever it is.
pub fn directory_of(root: &Path, name: &str) -> PathBuf {
    if matches!(name, "stage" | "copy") { working_directory(root, name) } else { root.join(name) }
}

/// Files that a server creates by itself when it starts, by the pattern of their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pattern {
    /// `ib_logfile0`, `ib_logfile101`: redo logs.
    Redo,
    /// `undo001`, and `undo_1_trunc.log`.
    Undo,
    /// `ibtmp1`: temporary tablespaces.
    Temporary,
    /// `aria_log.00000001` and `aria_log_control`.
    Aria,
    /// Exactly this name.
    Name(String),
    /// Files of the binary log with this base name.
    Binlog(String),
}

impl Pattern {
    /// Whether the name matches.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Pattern::Redo => numbered(name, "ib_logfile"),
            Pattern::Undo => {
                numbered(name, "undo") || (name.starts_with("undo_") && name.ends_with("_trunc.log"))
            }
            Pattern::Temporary => numbered(name, "ibtmp"),
            Pattern::Aria => numbered(name, "aria_log.") || name == "aria_log_control",
            Pattern::Name(exact) => name == exact,
            Pattern::Binlog(base) => is_binlog_of(base, name),
        }
    }
}

fn numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// A path's last component, empty when it is not text.
pub fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|n| n.to_str()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn patterns_match_only_the_servers_own_names() {
        assert!(Pattern::Redo.matches("ib_logfile0") && Pattern::Redo.matches("ib_logfile101"));
        assert!(!Pattern::Redo.matches("ib_logfile") && !Pattern::Redo.matches("ib_logfile0.bak"));
        assert!(Pattern::Undo.matches("undo001") && Pattern::Undo.matches("undo_1_trunc.log"));
        assert!(!Pattern::Undo.matches("undo001.ibd") && !Pattern::Undo.matches("undone"));
        assert!(Pattern::Aria.matches("aria_log.00000001") && Pattern::Aria.matches("aria_log_control"));
        assert!(!Pattern::Aria.matches("aria_log.old"));
        let binlog = Pattern::Binlog("bin".to_owned());
        assert!(binlog.matches("bin.000001") && binlog.matches("bin.state") && !binlog.matches("bin.err"));
    }
}
