//! What `mariabackup` and `xtrabackup` write beside a backup's files: whether it was prepared, and its position.
//!
//! ```text
//! xtrabackup_checkpoints, mariadb_backup_checkpoints     lines "name = value": backup_type, from_lsn, ...
//! xtrabackup_galera_info, mariadb_backup_galera_info     "UUID:SEQNO", then " GTID" in newer versions
//! ```
use crate::wsrep::state_id::StateId;

/// Names of the file with the kind of the backup: of MariaDB 11, and of those before it and Percona's.
pub const CHECKPOINTS: [&str; 2] = ["mariadb_backup_checkpoints", "xtrabackup_checkpoints"];
/// Names of the file with the position.
pub const GALERA_INFO: [&str; 2] = ["mariadb_backup_galera_info", "xtrabackup_galera_info"];

/// Whether a server can start on the files, from the text of [`CHECKPOINTS`]; the kind if it cannot.
///
/// # Errors
/// The kind of the backup, or that none is named.
pub fn is_prepared(text: &str) -> Result<(), String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let kind =
        pairs.map(|(name, value)| (name.trim(), value.trim())).find(|(name, _)| *name == "backup_type");
    match kind {
        Some((_, "log-applied" | "full-prepared")) => Ok(()),
        Some((_, other)) => Err(format!("backup_type = {}", other.chars().take(40).collect::<String>())),
        None => Err("no backup_type".to_owned()),
    }
}

/// The position, from the text of [`GALERA_INFO`].
pub fn position(text: &str) -> Option<StateId> {
    text.split_ascii_whitespace().next()?.parse().ok().filter(StateId::is_defined)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kinds() {
        // Of mariabackup 10.11.
        let of =
            |kind: &str| format!("backup_type = {kind}\nfrom_lsn = 0\nto_lsn = 66047\nlast_lsn = 66047\n");
        assert_eq!(is_prepared(&of("log-applied")), Ok(()));
        assert_eq!(is_prepared(&of("full-prepared")), Ok(()));
        assert_eq!(is_prepared(&of("full-backuped")), Err("backup_type = full-backuped".to_owned()));
        assert_eq!(is_prepared("from_lsn = 0\n"), Err("no backup_type".to_owned()));
    }

    #[test]
    fn positions() {
        const UUID: &str = "2f0eaefd-11aa-11f0-9b0e-0242ac110002";
        let of = |text: &str| position(text).map(|state| state.to_string());
        assert_eq!(of(&format!("{UUID}:42\n")), Some(format!("{UUID}:42")));
        assert_eq!(of(&format!("{UUID}:42 0-1-7")), Some(format!("{UUID}:42")));
        for none in ["", "\n", UUID, &format!("{UUID}:-1"), "00000000-0000-0000-0000-000000000000:4"] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,200}") {
            let _ = is_prepared(&text);
            let _ = position(&text);
        }
    }
}
