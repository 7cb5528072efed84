//! Whether a directory is a datadir. A verb reports a wrong directory instead of saying that all is well
//! there.
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use super::KEPT_DIRECTORY;
use crate::disk::lock;
use crate::failure::{Failure, Kind};
use crate::flavor;
use crate::server::status::STATUS_FILE;

/// Names that a transfer leaves in a datadir.
const OURS: [&str; 3] = [STATUS_FILE, ".rejoin", KEPT_DIRECTORY];

/// The kind of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// It contains a server's data, or did.
    Datadir,
    /// It is empty, as for a new node.
    Empty,
    /// Something else.
    Other,
}

/// Determines the kind of a directory.
///
/// # Errors
/// It does not exist, is not a directory, or cannot be read.
pub fn looks(directory: &Path) -> std::io::Result<Looks> {
    let mut empty = true;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_known(&name) || is_system_database(&entry.path()) {
            return Ok(Looks::Datadir);
        }
        // These are created by the filesystem, or by an earlier verb.
        empty &= name == "lost+found" || name == lock::FILE;
    }
    Ok(if empty { Looks::Empty } else { Looks::Other })
}

fn is_known(name: &OsStr) -> bool {
    let of_servers = flavor::ALL.iter().flat_map(|flavor| flavor.landmarks());
    of_servers.chain(&OURS).any(|known| name == *known)
}

/// Whether this is the server's own system database: `/etc` has a `mysql` too.
fn is_system_database(path: &Path) -> bool {
    let table = |ending: &str| path.join(format!("plugin.{ending}")).exists();
    path.file_name().is_some_and(|name| name == "mysql") && ["frm", "MAI"].into_iter().any(table)
}

/// Fails unless the directory is a datadir, or empty as for a new node.
///
/// # Errors
/// A configuration failure that names the problem.
pub fn require_datadir(directory: &Path) -> Result<()> {
    let shown = directory.display();
    let why = match looks(directory) {
        Ok(Looks::Datadir | Looks::Empty) => return Ok(()),
        Ok(Looks::Other) => format!("{shown} is not a MariaDB data directory"),
        Err(e) => format!("the data directory {shown} cannot be read: {e}"),
    };
    bail!(Failure::new(Kind::Configuration, why).hint(HINT))
}

/// The remedy for a wrong directory.
pub const HINT: &str =
    "give the server's datadir with --datadir, and run rejoin as root or as the server's user";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datadir_a_new_one_and_others() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("new/lost+found")).unwrap();
        assert_eq!(looks(&at("new")).unwrap(), Looks::Empty);
        for mark in ["ibdata1", "grastate.dat", "rejoin-status.json"] {
            fs::create_dir_all(at(mark)).unwrap();
            fs::write(at(mark).join(mark), "").unwrap();
            assert_eq!(looks(&at(mark)).unwrap(), Looks::Datadir, "{mark}");
        }
        // As in /etc, and as in a datadir.
        fs::create_dir_all(at("etc/mysql")).unwrap();
        fs::write(at("etc/mysql/my.cnf"), "").unwrap();
        assert_eq!(looks(&at("etc")).unwrap(), Looks::Other);
        let error = require_datadir(&at("etc")).unwrap_err().to_string();
        assert!(error.contains("etc is not a MariaDB data directory (hint: "), "{error}");
        fs::write(at("etc/mysql/plugin.frm"), "").unwrap();
        assert_eq!(looks(&at("etc")).unwrap(), Looks::Datadir);
        let error = require_datadir(&at("nowhere")).unwrap_err().to_string();
        assert!(error.contains("nowhere cannot be read: No such file"), "{error}");
    }
}
