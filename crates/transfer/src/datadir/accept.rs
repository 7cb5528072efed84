//! Which files a donor may name. A joiner writes to paths that a peer sends, so it accepts only names that a
//! donor of this program sends: no `grastate.dat`, no key file, no file of the host's own.
use formats::mariadb::file_kind::{self, FileKind, TableFile};
use protocol::inventory::{FileEntry, FileRole, Place};

/// Refuses an entry whose place and name do not match its role.
///
/// # Errors
/// The mismatch.
pub(super) fn accept(entry: &FileEntry) -> Result<(), String> {
    let kind = || file_kind::top_level(&entry.path);
    let fits = match (&entry.role, entry.place) {
        // The name does not matter, because the joiner uses its own.
        (FileRole::SystemTablespace { .. }, Place::DataHome) => true,
        (FileRole::Server, Place::DataHome) => true,
        (FileRole::Server, Place::Datadir) => kind() == FileKind::UpgradeInfo,
        (FileRole::Redo, Place::LogHome) => kind() == FileKind::Redo,
        (FileRole::Undo, Place::UndoDir) => kind() == FileKind::Undo,
        (FileRole::AriaLog, Place::AriaLogDir) => matches!(kind(), FileKind::AriaLog | FileKind::AriaControl),
        (FileRole::Table, Place::Datadir) => is_table_path(&entry.path),
        (FileRole::Link { target }, Place::Datadir) => is_table_path(&entry.path) && has_table_name(target),
        (FileRole::TableElsewhere { owner }, Place::External) => {
            is_table_path(owner) && has_table_name(&entry.path)
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
fn is_table_path(path: &str) -> bool {
    path.split_once('/').is_some_and(|(database, name)| {
        file_kind::database_directory(database) && !name.contains('/') && has_table_name(name)
    })
}

fn has_table_name(path: &str) -> bool {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    file_kind::in_database(name) != TableFile::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;
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
            (Place::AriaLogDir, "aria_log_control", FileRole::AriaLog, true),
            (Place::Datadir, "db/t.MYD", link("/ssd/db/t.MYD"), true),
            (Place::Datadir, "db/t.MYD", link("/etc/passwd"), false),
            (Place::External, "/ssd/db/t.ibd", elsewhere("db/t.isl"), true),
            (Place::External, "/home/u/.bashrc", elsewhere("db/t.isl"), false),
            (Place::External, "/ssd/db/t.ibd", FileRole::Table, false),
        ] {
            assert_eq!(accept(&entry(place, path, role.clone())).is_ok(), fits, "{place:?} {path} {role:?}");
        }
    }
}
