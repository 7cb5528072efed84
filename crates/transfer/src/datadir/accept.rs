//! Which files a donor may name. A joiner writes to paths that a peer sends, so it accepts only names that a
//! donor of this program sends: no `grastate.dat`, no key file, no file of the host's own.
use protocol::inventory::{FileEntry, FileRole, Place};
use protocol::logical::is_part;
use protocol::message::SnapshotKind;

use crate::failure::{Failure, Kind};
use crate::flavor::{Flavor, InDatadir, Numbered};

/// Refuses a file whose role no file of such a snapshot has. A file of a backup may have any name, because it is never installed:
/// that is true only where another program prepares the backup. A link would lead that program out of its directory.
///
/// # Errors
/// It has that role.
pub fn accept_in(kind: SnapshotKind, entry: &FileEntry) -> Result<(), Failure> {
    let fits = match (kind, &entry.role) {
        (SnapshotKind::Mariabackup, role) => !matches!(role, FileRole::Part | FileRole::Link { .. }),
        (SnapshotKind::Logical, role) => *role == FileRole::Part,
        (SnapshotKind::Online | SnapshotKind::Blocking, role) => is_installed(role),
    };
    match fits {
        true => Ok(()),
        false => Err(does_not_belong(entry, &format!("a snapshot of the kind {}", kind.name()))),
    }
}

/// Refuses a file that belongs to no datadir.
///
/// # Errors
/// It does not.
pub fn accept_to_install(entry: &FileEntry) -> Result<(), Failure> {
    match is_installed(&entry.role) {
        true => Ok(()),
        false => Err(does_not_belong(entry, "an install")),
    }
}

fn is_installed(role: &FileRole) -> bool {
    !matches!(role, FileRole::Part | FileRole::Backup)
}

fn does_not_belong(entry: &FileEntry, to: &str) -> Failure {
    let text =
        format!("the donor named {:?} with the role {:?}, which {to} does not have", entry.path, entry.role);
    Failure::new(Kind::Peer, text)
}

/// Refuses an entry whose place and name do not match its role.
///
/// # Errors
/// The mismatch.
pub(super) fn accept(flavor: &dyn Flavor, entry: &FileEntry) -> Result<(), String> {
    let fits = match (&entry.role, entry.place) {
        // The name does not matter, because the joiner uses its own.
        (FileRole::SystemTablespace { .. }, Place::DataHome) => true,
        (FileRole::Server, Place::DataHome) => true,
        // Never installed ([`accept_in`], [`accept_to_install`]): where it goes has a name of ours.
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
    fn each_kind_of_snapshot_has_roles_of_its_own() {
        use SnapshotKind::{Blocking, Logical, Mariabackup, Online};
        let link = FileRole::Link { target: "/ssd/db/t.MYD".to_owned() };
        for (role, of) in [
            (FileRole::Table, [true, true, false, true]),
            (FileRole::Redo, [true, true, false, true]),
            (link, [true, true, false, false]),
            (FileRole::Part, [false, false, true, false]),
            (FileRole::Backup, [false, false, false, true]),
        ] {
            // A name that no datadir has, in the role that may have any.
            let entry = entry(Place::Datadir, ".ssh/authorized_keys", role.clone());
            for (kind, fits) in [Online, Blocking, Logical, Mariabackup].into_iter().zip(of) {
                assert_eq!(accept_in(kind, &entry).is_ok(), fits, "{kind:?} {role:?}");
            }
            let installed = !matches!(role, FileRole::Part | FileRole::Backup);
            assert_eq!(accept_to_install(&entry).is_ok(), installed, "{role:?}");
        }
        let why = accept_in(Online, &entry(Place::Datadir, ".my.cnf", FileRole::Backup)).unwrap_err();
        assert_eq!(why.kind, Kind::Peer);
        assert!(why.text.contains("\".my.cnf\" with the role Backup"), "{why}");
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
