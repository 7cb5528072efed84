//! MariaDB. Its second engine is Aria, in which the tables of `mysql` are.
use std::path::Path;

use formats::mariadb::aria_index;
use formats::mariadb::file_kind::{self, FileKind};
use protocol::inventory::{FileRole, Place};

use super::class::{Class, Set};
use super::pattern::Pattern;
use super::{Flavor, InDatadir, Numbered, SecondEngine, TableFile};

/// MariaDB 10.5 and later.
#[derive(Debug)]
pub struct MariaDb;

static ARIA: SecondEngine = SecondEngine {
    name: "Aria",
    directory: "aria_log_dir_path",
    control: "aria_log_control",
    encrypts: "aria-encrypt-tables",
    header: "MAI",
    is_encrypted: aria_index::is_encrypted,
    head_bytes: aria_index::HEAD_BYTES,
};

impl Flavor for MariaDb {
    fn programs(&self) -> &'static [&'static str] {
        &["mariadbd", "mysqld", "mariadbd-debug", "mysqld-debug"]
    }

    fn landmarks(&self) -> &'static [&'static str] {
        &[
            "ibdata1",
            "ib_logfile0",
            "ib_buffer_pool",
            "undo001",
            "aria_log_control",
            "aria_log.00000001",
            "grastate.dat",
            "gvwstate.dat",
            "galera.cache",
            "mysql_upgrade_info",
            "multi-master.info",
            "sst_in_progress",
        ]
    }

    fn numbered(&self, place: Place, name: &str) -> Option<Numbered> {
        match (place, file_kind::top_level(name)) {
            (Place::LogHome, FileKind::Redo | FileKind::RedoArchived) => Some(Numbered::Data(FileRole::Redo)),
            (Place::LogHome, FileKind::RedoResizing) => Some(Numbered::Past),
            (Place::UndoDir, FileKind::Undo) => Some(Numbered::Data(FileRole::Undo)),
            (Place::SecondLogDir, FileKind::AriaLog | FileKind::AriaControl) => {
                Some(Numbered::Data(FileRole::SecondLog))
            }
            _ => None,
        }
    }

    fn in_datadir(&self, name: &str) -> InDatadir {
        match file_kind::top_level(name) {
            FileKind::UpgradeInfo => InDatadir::Data,
            FileKind::TempTablespace | FileKind::RedoResizing | FileKind::DdlRecovery | FileKind::TcLog => {
                InDatadir::Past { keepable: false }
            }
            FileKind::ReplicaState => InDatadir::ReplicationSource,
            FileKind::SstMarker => InDatadir::TransferMarker,
            FileKind::GaleraState | FileKind::GaleraCache | FileKind::Pem | FileKind::Log => InDatadir::Own,
            FileKind::Redo | FileKind::RedoArchived => {
                InDatadir::LeftOut("a redo log, but innodb_log_group_home_dir is elsewhere")
            }
            FileKind::Undo => {
                InDatadir::LeftOut("an undo tablespace, but innodb_undo_directory is elsewhere")
            }
            FileKind::AriaLog | FileKind::AriaControl => {
                InDatadir::LeftOut("an Aria log, but aria_log_dir_path is elsewhere")
            }
            FileKind::BufferPoolDump => {
                InDatadir::LeftOut("a dump of the buffer pool, but the configured one is another")
            }
            FileKind::DoublewriteOther => InDatadir::LeftOut("a doublewrite file of MySQL"),
            FileKind::Unknown if file_kind::is_temporary(name) => InDatadir::Past { keepable: true },
            FileKind::Unknown => InDatadir::Unknown,
        }
    }

    fn in_database(&self, name: &str) -> Option<TableFile> {
        use file_kind::TableFile as Kind;
        let kind = match file_kind::in_database(name) {
            Kind::Definition => TableFile::Definition,
            Kind::InnodbTablespace => TableFile::Tablespace,
            Kind::InnodbLink => TableFile::TablespaceLink,
            Kind::MyisamData | Kind::AriaData | Kind::CsvData | Kind::ArchiveData => TableFile::Rows,
            Kind::MyisamIndex | Kind::AriaIndex | Kind::CsvMeta | Kind::ArchiveMeta => TableFile::Index,
            Kind::Merge => TableFile::RowsOfOthers,
            Kind::InnodbImport
            | Kind::Trigger
            | Kind::TriggerName
            | Kind::Partition
            | Kind::DatabaseOptions => TableFile::Description,
            Kind::ArchiveTemp => TableFile::Leftover,
            Kind::Unknown => return None,
        };
        // InnoDB's intermediate tables have redo and an entry in its dictionary, so they are data. Those of other
        // engines are leftovers of statements and temporary tables, like every temporary definition.
        Some(if file_kind::is_temporary(name) && !kind.is_innodbs() { TableFile::Leftover } else { kind })
    }

    fn is_database(&self, directory: &str) -> bool {
        file_kind::database_directory(directory)
    }

    fn class(&self, role: &FileRole, name: &Path) -> Class {
        match role {
            FileRole::SystemTablespace { index } => Class::System(*index),
            FileRole::Undo => Class::Undo,
            FileRole::Redo => Class::Redo,
            FileRole::SecondLog if name.ends_with(ARIA.control) => Class::SecondControl,
            FileRole::SecondLog => Class::SecondLog,
            _ if is_opened_at_start(name) => Class::SecondTable,
            _ => Class::Table,
        }
    }

    fn made_at_start(&self) -> Vec<(Place, Set, Pattern)> {
        let truncated = Pattern::Between("undo_".to_owned(), "_trunc.log".to_owned());
        vec![
            (Place::LogHome, Set::Innodb, Pattern::numbered("ib_logfile")),
            (Place::UndoDir, Set::Innodb, Pattern::numbered("undo")),
            (Place::UndoDir, Set::Innodb, truncated),
            (Place::DataHome, Set::Innodb, Pattern::numbered("ibtmp")),
            (Place::Datadir, Set::Innodb, Pattern::numbered("ibtmp")),
            (Place::SecondLogDir, Set::Second, Pattern::numbered("aria_log.")),
            (Place::SecondLogDir, Set::Second, Pattern::name(ARIA.control)),
            (Place::Datadir, Set::Innodb, Pattern::name("tc.log")),
            (Place::Datadir, Set::Innodb, Pattern::name("ddl_recovery.log")),
            (Place::Datadir, Set::Innodb, Pattern::name("ddl_recovery-backup.log")),
        ]
    }

    fn redo_log(&self) -> &'static str {
        "ib_logfile0"
    }

    fn second_engine(&self) -> Option<&'static SecondEngine> {
        Some(&ARIA)
    }
}

/// Whether a server opens this file at every start, before it has recovered: an Aria file of the `mysql` database. The
/// two log tables can be large, and are not opened.
fn is_opened_at_start(path: &Path) -> bool {
    let text = |part: Option<&std::ffi::OsStr>| part.and_then(|p| p.to_str()).unwrap_or_default().to_owned();
    let is_aria = ["MAI", "MAD"].contains(&text(path.extension()).as_str());
    let is_log = ["general_log.", "slow_log."].iter().any(|log| text(path.file_name()).starts_with(log));
    is_aria && !is_log && text(path.parent().and_then(Path::file_name)) == "mysql"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_arias_tables_of_mysql_belong_to_its_logs() {
        for (role, path, class) in [
            (FileRole::Table, "/d/mysql/plugin.MAI", Class::SecondTable),
            (FileRole::Table, "/d/mysql/slow_log.MAD", Class::Table),
            (FileRole::Table, "/d/mysql/plugin.frm", Class::Table),
            (FileRole::Table, "/d/shop/plugin.MAI", Class::Table),
            (FileRole::SecondLog, "/d/aria_log.00000001", Class::SecondLog),
            (FileRole::SecondLog, "/d/aria_log_control", Class::SecondControl),
            (FileRole::Redo, "/d/ib_logfile0", Class::Redo),
            (FileRole::SystemTablespace { index: 1 }, "/d/more", Class::System(1)),
        ] {
            assert_eq!(MariaDb.class(&role, path.as_ref()), class, "{path}");
        }
    }

    #[test]
    fn what_a_server_makes_anew_is_known_by_its_name() {
        let made = MariaDb.made_at_start();
        let is_made =
            |place, name: &str| made.iter().any(|(at, _, pattern)| *at == place && pattern.matches(name));
        assert!(is_made(Place::LogHome, "ib_logfile101") && is_made(Place::UndoDir, "undo_1_trunc.log"));
        assert!(is_made(Place::SecondLogDir, "aria_log_control") && is_made(Place::Datadir, "ibtmp1"));
        assert!(!is_made(Place::UndoDir, "undo001.ibd") && !is_made(Place::SecondLogDir, "aria_log.old"));
    }
}
