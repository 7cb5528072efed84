//! Names in `.rejoin/` and `#sql-rejoin/`.
use std::path::{Path, PathBuf};

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
/// What a transfer that has begun to receive files was about to bring.
pub const RECEIVING: &str = "receiving.json";
/// Every staging root that may exist.
pub const ROOTS: &str = "roots.json";
/// A root's directory of a private server ([`crate::private_server`]).
pub const SERVER: &str = "server";
/// The directory in which mariadb-backup prepares a backup ([`crate::receive::prepared`]).
pub const PREPARE: &str = "prepare";
/// Working directories in which other programs work. Unlike the others they have subdirectories, and their content is useless once
/// the program has ended.
pub const OF_PROGRAMS: [&str; 2] = [SERVER, PREPARE];
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
    if matches!(name, "stage" | "copy" | SERVER | PREPARE) {
        working_directory(root, name)
    } else {
        root.join(name)
    }
}

/// A path's last component, empty when it is not text.
pub fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|n| n.to_str()).unwrap_or("")
}
