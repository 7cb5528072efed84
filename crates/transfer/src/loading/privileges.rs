//! Privileges that this server's series does not know, because the donor's is a newer one: accounts and routines come without them.
use anyhow::Result;
use protocol::logical::SystemTable;

use crate::sql::loading::Warning;
use crate::sql::{Answer, Session};

/// Since then there is SHOW CREATE ROUTINE (MDEV-29167), the last bit of `access` in `mysql.global_priv` and a member of
/// `mysql.procs_priv.Proc_priv`.
const SHOW_CREATE_ROUTINE_SINCE: (u32, u32) = (11, 3);
/// The bits before it, from SELECT to SLAVE MONITOR (sql/privilege.h 10.11). A server takes an account with another bit for one
/// without any privilege.
const BITS_BEFORE: u64 = (1 << 39) - 1;
/// How the first account of a server has everything.
const EVERYTHING: u64 = u64::MAX;
/// Tables with privileges in columns of the type SET.
const WITH_SETS: [&str; 3] = ["tables_priv", "columns_priv", "procs_priv"];
/// WARN_DATA_TRUNCATED: a SET was given a member that it has not.
const NO_MEMBER: u16 = 1265;
/// Accounts that one line names.
const NAMED: usize = 20;

/// The privileges of an account that a server of this series knows; none if it knows all of them.
fn known(access: u64, series: (u32, u32)) -> Option<u64> {
    let lacks = series < SHOW_CREATE_ROUTINE_SINCE && access != EVERYTHING && access & !BITS_BEFORE != 0;
    lacks.then_some(access & BITS_BEFORE)
}

/// Takes privileges on everything from accounts that this server does not know: `series` is its own.
///
/// # Errors
/// From the server.
pub(super) fn remove_unknown(session: &mut Session, series: (u32, u32)) -> Answer<()> {
    let mut changed = Vec::new();
    for (user, host, access) in session.global_privileges()? {
        if let Some(access) = known(access, series) {
            session.set_global_privileges(&user, &host, access)?;
            changed.push(if host.is_empty() { user } else { format!("{user}@{host}") });
        }
    }
    if !changed.is_empty() {
        tracing::warn!(
            "the joiner's server is older than SHOW CREATE ROUTINE: {} without this privilege (GRANT ALL PRIVILEGES ON *.*)",
            listed(&changed)
        );
    }
    Ok(())
}

/// `a, b and 3 more are loaded`
fn listed(accounts: &[String]) -> String {
    let (named, more) = accounts.split_at(accounts.len().min(NAMED));
    let (named, verb) = (named.join(", "), if accounts.len() == 1 { "is" } else { "are" });
    match more.len() {
        0 => format!("{named} {verb} loaded"),
        more => format!("{named} and {more} more are loaded"),
    }
}

/// The table as it is loaded by a server of an older series than the donor's: its SET columns may lose members.
///
/// # Errors
/// From the server.
pub(super) fn with_fewer_members(session: &mut Session, system: &SystemTable) -> Result<SystemTable> {
    let mut system = system.clone();
    if WITH_SETS.contains(&system.name.as_str()) {
        let columns = session.columns("mysql", &system.name)?;
        let sets = columns.into_iter().filter(|column| column.data_type == "set").map(|column| column.name);
        system.rows.lenient = sets.collect();
    }
    Ok(system)
}

/// Logs that rows of a table of `mysql` came without a privilege.
pub(crate) fn log_unknown(table: &str, warnings: &[Warning]) {
    let rows = warnings.iter().filter(|warning| warning.code == NO_MEMBER).count();
    if rows > 0 {
        tracing::warn!(
            "the joiner's server does not know a privilege in {rows} rows of mysql.{table} (as SHOW CREATE ROUTINE before 11.3): they \
             are loaded without it"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server of 10.11 took `GRANT ALL PRIVILEGES ON *.*` of 11.8 for no privilege at all.
    #[test]
    fn an_older_server_gets_the_privileges_that_it_knows() {
        let all_of_11_8 = (1 << 40) - 1;
        assert_eq!(known(all_of_11_8, (10, 11)), Some((1 << 39) - 1));
        assert_eq!(known(1 << 39 | 1, (11, 2)), Some(1));
        for (access, series) in
            [(all_of_11_8, (11, 4)), (BITS_BEFORE, (10, 11)), (EVERYTHING, (10, 11)), (0, (10, 6))]
        {
            assert_eq!(known(access, series), None, "{access} {series:?}");
        }
    }

    #[test]
    fn not_all_accounts_are_named() {
        let of = |count: usize| (0..count).map(|n| format!("u{n}@%")).collect::<Vec<_>>();
        assert_eq!(listed(&of(1)), "u0@% is loaded");
        assert_eq!(listed(&of(2)), "u0@%, u1@% are loaded");
        assert!(listed(&of(23)).ends_with("u19@% and 3 more are loaded"));
    }
}
