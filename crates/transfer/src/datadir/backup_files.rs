//! What files are called in a backup of mariadb-backup: everything is below one directory, and a table that is elsewhere has its
//! database and name as its path (10.11.19: its streams, and extra/mariabackup/backup_copy.cc).
use protocol::inventory::{FileEntry, FileRole, Place};

use crate::flavor::{Flavor, InDatadir, Numbered, TableFile};

/// The path of a file in a backup.
pub fn name_in_backup(entry: &FileEntry) -> String {
    match (&entry.role, entry.place) {
        (FileRole::TableElsewhere { owner }, Place::External) => match owner.strip_suffix(".isl") {
            Some(table) => format!("{table}.ibd"),
            None => owner.clone(),
        },
        _ => entry.path.clone(),
    }
}

/// The table that such a file of a backup becomes when it is prepared: one that was created since the last checkpoint.
pub fn table_of_new(path: &str) -> Option<String> {
    path.strip_suffix(".new").map(|table| format!("{table}.ibd"))
}

/// What a file of a backup is, by its name alone: the system tablespace and tables that are elsewhere are known only to who
/// has listed them. Files that belong to no datadir are the backup's own.
pub fn file_in_backup(flavor: &dyn Flavor, path: &str) -> (Place, FileRole) {
    let Some((database, name)) = path.split_once('/') else { return top_level(flavor, path) };
    let table = flavor.in_database(name).is_some_and(|kind| kind != TableFile::Leftover);
    match flavor.is_database(database) && !name.contains('/') && table {
        true => (Place::Datadir, FileRole::Table),
        false => (Place::Datadir, FileRole::Backup),
    }
}

fn top_level(flavor: &dyn Flavor, name: &str) -> (Place, FileRole) {
    for place in [Place::LogHome, Place::UndoDir, Place::SecondLogDir] {
        if let Some(Numbered::Data(role)) = flavor.numbered(place, name) {
            return (place, role);
        }
    }
    match flavor.in_datadir(name) {
        InDatadir::Data => (Place::Datadir, FileRole::Server),
        _ => (Place::Datadir, FileRole::Backup),
    }
}

#[cfg(test)]
mod tests {
    use protocol::inventory::FileId;

    use super::*;
    use crate::flavor::mariadb::MariaDb;

    fn entry(place: Place, path: &str, role: FileRole) -> FileEntry {
        FileEntry { id: FileId(0), place, path: path.to_owned(), size: 0, allocated: 0, role }
    }

    #[test]
    fn names_of_a_real_backup() {
        for (name, place, role) in [
            ("undo001", Place::UndoDir, FileRole::Undo),
            ("ib_logfile0", Place::LogHome, FileRole::Redo),
            ("aria_log_control", Place::SecondLogDir, FileRole::SecondLog),
            ("aria_log.00000001", Place::SecondLogDir, FileRole::SecondLog),
            ("mysql/user.frm", Place::Datadir, FileRole::Table),
            ("shop/t.ibd", Place::Datadir, FileRole::Table),
            ("shop/t#P#p0.ibd", Place::Datadir, FileRole::Table),
            ("shop/t.isl", Place::Datadir, FileRole::Table),
            ("shop/t.ibd.new", Place::Datadir, FileRole::Backup),
            ("shop/t.new", Place::Datadir, FileRole::Backup),
            ("17.ren", Place::Datadir, FileRole::Backup),
            ("shop/17.del", Place::Datadir, FileRole::Backup),
            ("backup-my.cnf", Place::Datadir, FileRole::Backup),
            ("xtrabackup_galera_info", Place::Datadir, FileRole::Backup),
            ("mariadb_backup_checkpoints", Place::Datadir, FileRole::Backup),
            ("grastate.dat", Place::Datadir, FileRole::Backup),
        ] {
            assert_eq!(file_in_backup(&MariaDb, name), (place, role), "{name}");
        }
    }

    #[test]
    fn tables_elsewhere_have_the_name_that_leads_to_them() {
        let elsewhere = |path: &str, owner: &str| {
            name_in_backup(&entry(
                Place::External,
                path,
                FileRole::TableElsewhere { owner: owner.to_owned() },
            ))
        };
        assert_eq!(elsewhere("/ssd/shop/t.ibd", "shop/t.isl"), "shop/t.ibd");
        assert_eq!(elsewhere("/ssd/t#1.MYD", "shop/t.MYD"), "shop/t.MYD");
        assert_eq!(name_in_backup(&entry(Place::UndoDir, "undo001", FileRole::Undo)), "undo001");
    }
}
