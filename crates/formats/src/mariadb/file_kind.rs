//! The kind of a file in a data directory, from its name alone.
//!
//! Names from the servers' own data directories and, for rare ones, from storage/innobase/include/log0log.h,
//! srv/srv0start.cc, storage/maria, sql/ddl_log.cc, sql/log.h, sql/wsrep_sst.cc, sql/handler.cc and the
//! engines' `ha_*.cc` (MariaDB 10.11), and gcache/src (Galera 26.4.23). Names are byte for byte in the
//! server's spelling: case counts.

/// A file directly in the data directory (or in a directory the configuration names for its kind).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// `ib_logfile<N>`, InnoDB's redo log; only 0 exists since 10.5.
    Redo,
    /// `ib_<LSN>.log`, a redo log of a server with `innodb_log_archive=ON` (13.0): it writes the newest and keeps the others.
    RedoArchived,
    /// `ib_logfile101`, a redo log being created: at start, or for an online resize.
    RedoResizing,
    /// `undoNNN`, an undo tablespace.
    Undo,
    /// `ibtmp*`, tablespace of temporary tables, created at each start.
    TempTablespace,
    /// `ib_buffer_pool`, the list of pages to warm up with (its name can be configured).
    BufferPoolDump,
    /// `ib_*.dblwr` and `#ib_*.dblwr`, doublewrite files of MySQL; MariaDB keeps that area in the system tablespace.
    DoublewriteOther,
    /// `aria_log.NNNNNNNN`.
    AriaLog,
    /// `aria_log_control`.
    AriaControl,
    /// `ddl_recovery.log` and its backup, or `<basename>-ddl-recovery.log` and its backup: DDL in progress.
    DdlRecovery,
    /// `tc.log`, the transaction coordinator's.
    TcLog,
    /// `grastate.dat`, `gvwstate.dat`.
    GaleraState,
    /// `galera.cache`, `gcache.page.NNNNNN`.
    GaleraCache,
    /// `sst_in_progress`, `wsrep_sst.pid`, `tables_flushed`, `sst_error`, `sst_retry_count`, `sst_retry_limit_reached`: markers of
    /// a transfer, and what a count of failed ones leaves (the operator of Percona XtraDB Cluster has the same names).
    SstMarker,
    /// `master*.info`, `relay-log*.info`, `multi-master.info`: the replication sources of this node.
    ReplicaState,
    /// `mysql_upgrade_info`, `mariadb_upgrade_info`.
    UpgradeInfo,
    /// `*.pem`: this host's keys and certificates.
    Pem,
    /// `*.err`, or `*.log` that is none of the above.
    Log,
    /// None of these. That includes the system tablespace, whose names come from the configuration.
    Unknown,
}

/// Classifies a name directly in the data directory.
pub fn top_level(name: &str) -> FileKind {
    match name {
        "ib_logfile101" => return FileKind::RedoResizing,
        "ib_buffer_pool" | "ib_buffer_pool.incomplete" => return FileKind::BufferPoolDump,
        "aria_log_control" => return FileKind::AriaControl,
        "tc.log" => return FileKind::TcLog,
        "grastate.dat" | "gvwstate.dat" | "gvwstate.dat.tmp" => return FileKind::GaleraState,
        "galera.cache" => return FileKind::GaleraCache,
        "sst_in_progress"
        | "wsrep_sst.pid"
        | "tables_flushed"
        | "tables_flushed.tmp"
        | "sst_error"
        | "sst_retry_count"
        | "sst_retry_limit_reached" => return FileKind::SstMarker,
        "multi-master.info" => return FileKind::ReplicaState,
        "mysql_upgrade_info" | "mariadb_upgrade_info" => return FileKind::UpgradeInfo,
        _ => {}
    }
    if numbered(name, "ib_logfile", 1) {
        FileKind::Redo
    } else if is_archived_redo(name) {
        FileKind::RedoArchived
    } else if numbered(name, "undo", 3) {
        FileKind::Undo
    } else if name.starts_with("ibtmp") {
        FileKind::TempTablespace
    } else if name.ends_with(".dblwr") {
        FileKind::DoublewriteOther
    } else if numbered(name, "aria_log.", 8) {
        FileKind::AriaLog
    } else if is_ddl_recovery(name) {
        FileKind::DdlRecovery
    } else if numbered(name, "gcache.page.", 6) {
        FileKind::GaleraCache
    } else if name.ends_with(".info") && (name.starts_with("master") || name.starts_with("relay-log")) {
        FileKind::ReplicaState
    } else if name.ends_with(".pem") {
        FileKind::Pem
    } else if name.ends_with(".err") || name.ends_with(".log") {
        FileKind::Log
    } else {
        FileKind::Unknown
    }
}

/// `ib_<LSN>.log`. The public documentation of 13.0 does not say how the LSN is written: eight or more
/// hexadecimal digits, so that an operator's `ib_db.log` is none.
fn is_archived_redo(name: &str) -> bool {
    let lsn = name.strip_prefix("ib_").and_then(|rest| rest.strip_suffix(".log"));
    lsn.is_some_and(|lsn| lsn.len() >= 8 && lsn.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// `prefix` and at least `digits` digits, nothing else.
fn numbered(name: &str, prefix: &str, digits: usize) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| rest.len() >= digits && rest.bytes().all(|b| b.is_ascii_digit()))
}

/// `ddl_recovery.log`, `ddl_recovery-backup.log`; with `--log-basename=X` `X-ddl-recovery.log` and so on.
fn is_ddl_recovery(name: &str) -> bool {
    ["ddl_recovery", "ddl-recovery"].iter().any(|stem| {
        ["-backup.log", ".log"].iter().any(|tail| {
            let head = name.strip_suffix(tail).and_then(|rest| rest.strip_suffix(stem));
            head.is_some_and(|head| head.is_empty() || head.ends_with('-'))
        })
    })
}

/// A file inside a database's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableFile {
    /// `.frm`: definition of a table, view or sequence.
    Definition,
    /// `.ibd`: an InnoDB tablespace.
    InnodbTablespace,
    /// `.isl`: path of a tablespace elsewhere (`DATA DIRECTORY`).
    InnodbLink,
    /// `.cfg`: left by `FLUSH TABLES ... FOR EXPORT`.
    InnodbImport,
    /// `.MYD`.
    MyisamData,
    /// `.MYI`.
    MyisamIndex,
    /// `.MAD`.
    AriaData,
    /// `.MAI`.
    AriaIndex,
    /// `.CSV`.
    CsvData,
    /// `.CSM`.
    CsvMeta,
    /// `.ARZ`.
    ArchiveData,
    /// `.ARM`: ARCHIVE of MySQL 5.0 and before.
    ArchiveMeta,
    /// `.ARN`: an ARCHIVE table being rebuilt.
    ArchiveTemp,
    /// `.MRG`: list of a MERGE table's parts.
    Merge,
    /// `.TRG`: triggers of a table.
    Trigger,
    /// `.TRN`: the table that a trigger belongs to.
    TriggerName,
    /// `.par`: partitions of a table.
    Partition,
    /// `db.opt`: the database's character set.
    DatabaseOptions,
    /// None of these.
    Unknown,
}

/// Classifies a name inside a database's directory.
pub fn in_database(name: &str) -> TableFile {
    if name == "db.opt" {
        return TableFile::DatabaseOptions;
    }
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "frm" => TableFile::Definition,
        "ibd" => TableFile::InnodbTablespace,
        "isl" => TableFile::InnodbLink,
        "cfg" => TableFile::InnodbImport,
        "MYD" => TableFile::MyisamData,
        "MYI" => TableFile::MyisamIndex,
        "MAD" => TableFile::AriaData,
        "MAI" => TableFile::AriaIndex,
        "CSV" => TableFile::CsvData,
        "CSM" => TableFile::CsvMeta,
        "ARZ" => TableFile::ArchiveData,
        "ARM" => TableFile::ArchiveMeta,
        "ARN" => TableFile::ArchiveTemp,
        "MRG" => TableFile::Merge,
        "TRG" => TableFile::Trigger,
        "TRN" => TableFile::TriggerName,
        "par" => TableFile::Partition,
        _ => TableFile::Unknown,
    }
}

/// Whether this is a file of a table that a statement is creating, or of a temporary table: `#sql` at the
/// start. A user's `#` becomes `@0023` in a file name, so no table of a user has such a name.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with("#sql")
}

/// Whether a directory of this name in the data directory is a database. Not: hidden ones (including ours), a
/// filesystem's `lost+found`, and those in which RocksDB and MySQL have their own files.
pub fn database_directory(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && !name.starts_with("#sql")
        && !matches!(name, "lost+found" | "#rocksdb" | "#innodb_redo" | "#innodb_temp")
}

/// Whether `file_name` is a binary log of the base name, its index, or its saved state: `<basename>.NNNNNN`
/// (six digits or more), `<basename>.index`, `<basename>.state`. Both are without directories; a base name
/// that was configured with an extension has none here, because the server drops it.
pub fn is_binlog_of(basename: &str, file_name: &str) -> bool {
    !basename.is_empty()
        && file_name
            .strip_prefix(basename)
            .and_then(|rest| rest.strip_prefix('.'))
            .is_some_and(|ext| matches!(ext, "index" | "state") || numbered(ext, "", 6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_a_real_data_directory() {
        for (name, kind) in [
            ("ib_logfile0", FileKind::Redo),
            ("ib_logfile1", FileKind::Redo),
            ("ib_logfile101", FileKind::RedoResizing),
            ("ib_logfile", FileKind::Unknown),
            ("ibdata1", FileKind::Unknown),
            ("undo001", FileKind::Undo),
            ("undo127", FileKind::Undo),
            ("undo1", FileKind::Unknown),
            ("undo_001", FileKind::Unknown),
            ("ibtmp1", FileKind::TempTablespace),
            ("ib_buffer_pool", FileKind::BufferPoolDump),
            ("#ib_16384_0.dblwr", FileKind::DoublewriteOther),
            ("aria_log.00000001", FileKind::AriaLog),
            ("aria_log_control", FileKind::AriaControl),
            ("ddl_recovery.log", FileKind::DdlRecovery),
            ("ddl_recovery-backup.log", FileKind::DdlRecovery),
            ("node1-ddl-recovery.log", FileKind::DdlRecovery),
            ("node1-ddl-recovery-backup.log", FileKind::DdlRecovery),
            ("tc.log", FileKind::TcLog),
            ("grastate.dat", FileKind::GaleraState),
            ("galera.cache", FileKind::GaleraCache),
            ("gcache.page.000000", FileKind::GaleraCache),
            ("sst_in_progress", FileKind::SstMarker),
            ("master.info", FileKind::ReplicaState),
            ("master-west.info", FileKind::ReplicaState),
            ("relay-log-west.info", FileKind::ReplicaState),
            ("multi-master.info", FileKind::ReplicaState),
            ("mysql_upgrade_info", FileKind::UpgradeInfo),
            ("ca.pem", FileKind::Pem),
            ("node1.err", FileKind::Log),
            ("slow.log", FileKind::Log),
            ("ib_0000000000c0ffee.log", FileKind::RedoArchived),
            ("ib_00012288.log", FileKind::RedoArchived),
            ("ib_.log", FileKind::Log),
            ("ib_db.log", FileKind::Log),
            ("anything", FileKind::Unknown),
        ] {
            assert_eq!(top_level(name), kind, "{name}");
        }
    }

    #[test]
    fn names_of_a_real_database() {
        for (name, kind) in [
            ("t.frm", TableFile::Definition),
            ("t#P#p0.ibd", TableFile::InnodbTablespace),
            ("t.isl", TableFile::InnodbLink),
            ("t.cfg", TableFile::InnodbImport),
            ("t.MYD", TableFile::MyisamData),
            ("t.MAI", TableFile::AriaIndex),
            ("t.CSM", TableFile::CsvMeta),
            ("t.ARZ", TableFile::ArchiveData),
            ("t.TRG", TableFile::Trigger),
            ("t.par", TableFile::Partition),
            ("db.opt", TableFile::DatabaseOptions),
            ("x.opt", TableFile::Unknown),
            ("t.myd", TableFile::Unknown),
            ("frm", TableFile::Unknown),
        ] {
            assert_eq!(in_database(name), kind, "{name}");
        }
        assert!(is_temporary("#sql-alter-1a2-3.ibd") && !is_temporary("sql.frm"));
    }

    #[test]
    fn directories_that_are_databases() {
        for (name, is) in [
            ("test", true),
            ("#mysql50#x", true),
            (".rejoin", false),
            ("lost+found", false),
            ("", false),
            ("#sql-x", false),
        ] {
            assert_eq!(database_directory(name), is, "{name}");
        }
    }

    #[test]
    fn binlogs() {
        for (file, is) in [
            ("mybin.000001", true),
            ("mybin.1000000", true),
            ("mybin.index", true),
            ("mybin.state", true),
            ("mybin.00001", false),
            ("mybin.00000x", false),
            ("mybin2.000001", false),
            ("mybin", false),
        ] {
            assert_eq!(is_binlog_of("mybin", file), is, "{file}");
        }
        assert!(!is_binlog_of("", ".000001"));
    }

    proptest! {
        #[test]
        fn never_panics(name in ".{0,20}", base in ".{0,5}") {
            let _ = (top_level(&name), in_database(&name), database_directory(&name), is_binlog_of(&base, &name));
        }
    }
}
