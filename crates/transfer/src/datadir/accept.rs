//! Which files a donor may name. A joiner writes to paths that a peer sends, so it accepts only names that a
//! donor of this program sends: no `grastate.dat`, no key file, no file of the host's own.
use protocol::inventory::{FileEntry, FileRole, Place};
use protocol::logical::is_part;

use crate::flavor::{Flavor, InDatadir, Numbered};

/// Refuses an entry whose place and name do not match its role.
///
/// # Errors
/// The mismatch.
pub(super) fn accept(flavor: &dyn Flavor, entry: &FileEntry) -> Result<(), String> {
    let fits = match (&entry.role, entry.place) {
        // The name does not matter, because the joiner uses its own.
        (FileRole::SystemTablespace { .. }, Place::DataHome) => true,
        (FileRole::Server, Place::DataHome) => true,
        // Never installed: where it goes has a name of ours.
        (FileRole::Backup, Place::Datadir) => true,
        (FileRole::Server, Place::Datadir) => flavor.in_datadir(&entry.path) == InDatadir::Data,
        (FileRole::Redo | FileRole::Undo | FileRole::SecondLog, place) => {
            flavor.numbered(place, &entry.path) == Some(Numbered::Data(entry.role.clone()))
        }
        (FileRole::Table, Place::Datadir) => is_table_path(flavor, &entry.path),
        (FileRole::Part, Place::Parts) => is_part(&entry.path),
        (FileRole::Link { target }, Place::Datadir) => {
            is_table_path(flavor, &entry.path) && has_table_name(flavor, target)
        }
        (FileRole::TableElsewhere { owner }, Place::External) => {
            is_table_path(flavor, owner) && has_table_name(flavor, &entry.path)
        }
        _ => false,
    };
    if fits {
        Ok(())
    } else {
        Err(format!("{:?} in {:?} does not match its role {:?}", entry.path, entry.place, entry.role))
    }
}

/// Whether the path is `database/file`, both in a form that the server creates.
fn is_table_path(flavor: &dyn Flavor, path: &str) -> bool {
    path.split_once('/').is_some_and(|(database, name)| {
        flavor.is_database(database) && !name.contains('/') && has_table_name(flavor, name)
    })
}

fn has_table_name(flavor: &dyn Flavor, path: &str) -> bool {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    flavor.in_database(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flavor::mariadb::MariaDb;
    use protocol::inventory::FileId;

    fn entry(place: Place, path: &str, role: FileRole) -> FileEntry {
        FileEntry { id: FileId(0), place, path: path.to_owned(), size: 0, allocated: 0, role }
    }

    #[test]
    fn only_names_that_fit_their_role() {
        let link = |target: &str| FileRole::Link { target: target.to_owned() };
        let elsewhere = |owner: &str| FileRole::TableElsewhere { owner: owner.to_owned() };
        for (place, path, role, fits) in [
            (Place::Datadir, "db/t.ibd", FileRole::Table, true),
            (Place::Datadir, "db/db.opt", FileRole::Table, true),
            (Place::Datadir, "grastate.dat", FileRole::Table, false),
            (Place::Datadir, "db/own.cnf", FileRole::Table, false),
            (Place::Datadir, "a/b/t.ibd", FileRole::Table, false),
            (Place::Datadir, "lost+found/t.ibd", FileRole::Table, false),
            (Place::Datadir, ".ssh/t.ibd", FileRole::Table, false),
            (Place::Datadir, "ca.pem", FileRole::Server, false),
            (Place::Datadir, "mysql_upgrade_info", FileRole::Server, true),
            (Place::LogHome, "ib_logfile0", FileRole::Redo, true),
            (Place::LogHome, "grastate.dat", FileRole::Redo, false),
            (Place::Datadir, "ib_logfile0", FileRole::Redo, false),
            (Place::UndoDir, "undo001", FileRole::Undo, true),
            (Place::SecondLogDir, "aria_log_control", FileRole::SecondLog, true),
            (Place::Datadir, "db/t.MYD", link("/ssd/db/t.MYD"), true),
            (Place::Datadir, "db/t.MYD", link("/etc/passwd"), false),
            (Place::External, "/ssd/db/t.ibd", elsewhere("db/t.isl"), true),
            (Place::External, "/home/u/.bashrc", elsewhere("db/t.isl"), false),
            (Place::External, "/ssd/db/t.ibd", FileRole::Table, false),
            (Place::Parts, "0011aabb/1", FileRole::Part, true),
            (Place::Parts, "db/t.ibd", FileRole::Part, false),
            (Place::Datadir, "0011aabb/1", FileRole::Part, false),
            (Place::Parts, "0011aabb/1", FileRole::Table, false),
        ] {
            assert_eq!(
                accept(&MariaDb, &entry(place, path, role.clone())).is_ok(),
                fits,
                "{place:?} {path} {role:?}"
            );
        }
    }
}
