//! What must be true before the start: privileges, and a server that pauses replication for a backup.
use crate::snapshot::declined::Declined;
use crate::sql::{Answer, Session, SqlError, Step};
use std::path::{Path, PathBuf};

/// Settings of the server.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its datadir.
    pub datadir: PathBuf,
    /// Bytes per page.
    pub page_size: u32,
    /// It writes data files past the page cache.
    pub direct: bool,
    /// It is a member of a cluster.
    pub galera: bool,
    /// Redo is written at commit or on request (`innodb_flush_log_at_trx_commit` is not 0).
    pub log_follows_flush: bool,
    /// It writes a binary log.
    pub log_bin: bool,
    /// `wsrep_gtid_domain_id`, if `wsrep_gtid_mode` is on.
    pub gtid_domain: Option<u32>,
}

/// Checks privileges and settings.
///
/// # Errors
/// A [`Declined`] reason.
pub fn check(session: &mut Session, datadir: &Path) -> Result<Facts, Declined> {
    if archives_redo(session).map_err(lost)? {
        return Err(Declined::RedoArchived);
    }
    check_locks(session, datadir)
}

/// Checks what the backup locks need.
///
/// # Errors
/// A [`Declined`] reason.
pub fn check_locks(session: &mut Session, datadir: &Path) -> Result<Facts, Declined> {
    let facts = read_facts(session).map_err(lost)?;
    same_datadir(&facts, datadir)?;
    check_rights(session, facts.log_bin)?;
    if facts.galera {
        check_pauses(session)?;
    }
    Ok(facts)
}

/// As [`check`], for a backup by mariadb-backup, which reads any redo log of its server and needs PROCESS.
///
/// # Errors
/// A [`Declined`] reason.
pub fn check_for_backup(session: &mut Session, datadir: &Path) -> Result<Facts, Declined> {
    let facts = read_facts(session).map_err(lost)?;
    same_datadir(&facts, datadir)?;
    let mut missing = missing_rights(session, facts.log_bin).map_err(lost)?;
    if !session.sees_others().map_err(lost)? {
        missing.push("PROCESS");
    }
    refuse_missing(session, &missing)?;
    if facts.galera {
        check_pauses(session)?;
    }
    Ok(facts)
}

/// As [`check`], as far as another account than the donor's can tell: its server's settings, not the privileges.
///
/// # Errors
/// A [`Declined`] reason.
pub fn check_settings(session: &mut Session) -> Result<(), Declined> {
    if archives_redo(session).map_err(lost)? {
        return Err(Declined::RedoArchived);
    }
    check_settings_for_backup(session)
}

/// As [`check_settings`], for a backup by mariadb-backup.
///
/// # Errors
/// A [`Declined`] reason.
pub fn check_settings_for_backup(session: &mut Session) -> Result<(), Declined> {
    match read_facts(session).map_err(lost)?.galera {
        true => check_pauses(session),
        false => Ok(()),
    }
}

/// As [`check_locks`], where the server itself holds every write-set back: no backup locks are taken.
///
/// # Errors
/// A [`Declined`] reason.
pub fn check_isolated(session: &mut Session, datadir: &Path) -> Result<Facts, Declined> {
    let facts = read_facts(session).map_err(lost)?;
    same_datadir(&facts, datadir)?;
    Ok(facts)
}

fn lost(error: SqlError) -> Declined {
    Declined::SessionLost(error.to_string())
}

/// Whether the server writes its redo log to archived files (13.0). It can be switched on while we run.
///
/// # Errors
/// The session is gone.
pub fn archives_redo(session: &mut Session) -> Answer<bool> {
    Ok(session.variable("innodb_log_archive")?.as_deref() == Some("ON"))
}

fn read_facts(session: &mut Session) -> Answer<Facts> {
    let mut get = |name: &str| session.variable(name).map(Option::unwrap_or_default);
    let direct = matches!(get("innodb_flush_method")?.as_str(), "O_DIRECT" | "O_DIRECT_NO_FSYNC");
    let provider = get("wsrep_provider")?;
    let gtid_mode = get("wsrep_gtid_mode")? == "ON";
    let gtid_domain = get("wsrep_gtid_domain_id")?.parse().ok().filter(|_| gtid_mode);
    Ok(Facts {
        datadir: PathBuf::from(get("datadir")?),
        page_size: get("innodb_page_size")?.parse().unwrap_or(16384),
        direct,
        galera: !provider.is_empty() && provider != "none" && get("wsrep_on")? == "ON",
        log_follows_flush: get("innodb_flush_log_at_trx_commit")? != "0",
        log_bin: get("log_bin")? == "ON",
        gtid_domain,
    })
}

/// The option file that names the socket may be another server's.
fn same_datadir(facts: &Facts, datadir: &Path) -> Result<(), Declined> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if real(&facts.datadir) == real(datadir) {
        return Ok(());
    }
    let (theirs, ours) = (facts.datadir.display(), datadir.display());
    Err(Declined::Layout(format!("the server at the socket has the datadir {theirs}, not {ours}")))
}

fn check_rights(session: &mut Session, log_bin: bool) -> Result<(), Declined> {
    let missing = missing_rights(session, log_bin).map_err(lost)?;
    refuse_missing(session, &missing)
}

fn refuse_missing(session: &mut Session, missing: &[&str]) -> Result<(), Declined> {
    if missing.is_empty() {
        return Ok(());
    }
    let account = session.current_user().map_err(lost)?;
    Err(Declined::MissingPrivilege { grant: grant_of(&account, missing) })
}

/// The privileges that the account lacks. Harmless statements are tried: the server's own answer counts, whatever roles
/// and grants say.
///
/// # Errors
/// The session is gone.
pub fn missing_rights(session: &mut Session, log_bin: bool) -> Answer<Vec<&'static str>> {
    let mut missing = Vec::new();
    let mut need = |right, answer: Answer<()>| {
        match answer {
            Err(e) if e.is_denied() => missing.push(right),
            Err(e) if e.is_lost() => return Err(e),
            // Any other error comes after the check of the privilege.
            _ => {}
        }
        Ok(())
    };
    // END without a stage: the server checks the privilege before anything else.
    need("RELOAD", session.backup_stage(Step::End))?;
    if log_bin {
        need("BINLOG MONITOR", session.binlog_end())?;
    }
    Ok(missing)
}

/// The statement with which an administrator gives privileges to an account, `user@host` as the server writes it.
pub fn grant_of(account: &str, rights: &[&str]) -> String {
    let (name, host) = account.rsplit_once('@').unwrap_or((account, "localhost"));
    let quoted = |text: &str| format!("`{}`", text.replace('`', "``"));
    format!("GRANT {} ON *.* TO {}@{};", rights.join(", "), quoted(name), quoted(host))
}

/// Checks the three settings with which the server does not pause replication (sql/backup.cc, MariaDB 10.11 and 11.8).
fn check_pauses(session: &mut Session) -> Result<(), Declined> {
    let mut get = |name: &str| session.variable(name).map(Option::unwrap_or_default).map_err(lost);
    if get("wsrep_on")? != "ON" {
        return Err(Declined::SessionWsrepOff);
    }
    if get("wsrep_mode")?.split(',').any(|mode| mode.trim() == "BF_ABORT_MARIABACKUP") {
        return Err(Declined::BfAbortMariabackup);
    }
    if get("wsrep_sst_method")? == "mariabackup" {
        return Err(Declined::DonorMethodMariabackup);
    }
    Ok(())
}
