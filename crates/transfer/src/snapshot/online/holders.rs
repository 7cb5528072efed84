//! Which session holds the lock that the consistency point needs, as far as the account can see.
//!
//! With the plugin `metadata_lock_info` the server says which. Without it, a running statement is named, or the idle
//! sessions, one of which holds the lock. Sessions of other accounts are visible only with PROCESS. On MariaDB 10.11.19
//! START waits for another backup, `LOCK TABLES ... WRITE` and most DDL; BLOCK_DDL waits for statements that write
//! tables without transactions.
use std::collections::BTreeMap;

use mysql::prelude::Queryable;

use crate::sql::{Answer, Session, SqlError};

/// Maximum number of idle sessions that are named.
const NAMED_MAX: usize = 3;
/// A statement that has run for less time than this is not what keeps a lock from being granted again and again.
const LONG_MS: u64 = 1000;
/// A DDL statement that has run this long is waited for before the provider is paused.
pub const LONG_DDL_MS: u64 = 300;

/// A session that is not ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Other {
    /// Its connection ID.
    pub session: u64,
    /// `user@host`.
    pub account: String,
    /// Name of its program, if performance_schema knows it.
    pub program: Option<String>,
    /// How long it has run its statement, or been idle, in milliseconds.
    pub for_ms: u64,
    /// Its state, as the server names it.
    pub state: String,
    /// Beginning of its statement; `None` if it is idle.
    pub statement: Option<String>,
}

/// What is known of other sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The sessions, without ours.
    pub others: Vec<Other>,
    /// Locks that block us, by session; `None` without the plugin.
    pub locks: Option<BTreeMap<u64, String>>,
    /// Tables in use, as far as the account may see them.
    pub in_use: Vec<String>,
    /// The account may not see sessions of other accounts.
    pub blind: bool,
}

impl Session {
    /// The other sessions and the locks they hold, without the sessions `ours`.
    ///
    /// # Errors
    /// The session is gone.
    pub fn see(&mut self, ours: &[u32]) -> Answer<Seen> {
        if !self.sees_others()? {
            return Ok(Seen { blind: true, ..Seen::default() });
        }
        let mut others = self.others()?;
        others.retain(|other| !ours.iter().any(|id| u64::from(*id) == other.session));
        let programs = self.programs();
        for other in &mut others {
            other.program = programs.get(&other.session).cloned();
        }
        let mut locks = self.backup_locks();
        if let Some(locks) = &mut locks {
            locks.retain(|session, _| others.iter().any(|other| other.session == *session));
        }
        Ok(Seen { others, locks, in_use: self.tables_in_use(), blind: false })
    }

    /// Other sessions, longest in their present state first. Without PROCESS only those of this account.
    ///
    /// # Errors
    /// From the server.
    pub fn others(&mut self) -> Answer<Vec<Other>> {
        let question = "SELECT ID, USER, HOST, TIME_MS, COALESCE(STATE, ''), \
                        IF(COMMAND = 'Sleep', NULL, LEFT(INFO, 120)) FROM information_schema.PROCESSLIST \
                        WHERE ID <> CONNECTION_ID() AND COMMAND <> 'Daemon' \
                        AND (USER <> 'system user' OR INFO IS NOT NULL) ORDER BY TIME_MS DESC LIMIT 500";
        let other = |(session, user, host, ms, state, statement): (u64, String, String, f64, String, _)| {
            // The port does not help to identify the session.
            let host = host.split(':').next().unwrap_or_default();
            let account = format!("{user}@{host}");
            Other { session, account, program: None, for_ms: ms.max(0.0) as u64, state, statement }
        };
        let mut all: Vec<Other> = self.statement().query_map(question, other).map_err(SqlError::from)?;
        all.retain(|other| !Session::is_bystander(other.session));
        Ok(all)
    }

    /// Names of programs by session, if performance_schema is on.
    fn programs(&mut self) -> BTreeMap<u64, String> {
        let question = "SELECT PROCESSLIST_ID, ATTR_VALUE FROM performance_schema.session_connect_attrs \
                        WHERE ATTR_NAME = 'program_name'";
        let rows: Vec<(u64, Option<String>)> = self.statement().query(question).unwrap_or_default();
        rows.into_iter().filter_map(|(session, name)| Some((session, name?))).collect()
    }

    fn backup_locks(&mut self) -> Option<BTreeMap<u64, String>> {
        let question = "SELECT THREAD_ID, LOCK_MODE, COALESCE(TABLE_SCHEMA, ''), COALESCE(TABLE_NAME, '') \
                        FROM information_schema.METADATA_LOCK_INFO WHERE LOCK_TYPE = 'Backup lock' \
                        OR LOCK_MODE = 'MDL_SHARED_NO_READ_WRITE'";
        let rows: Vec<(u64, String, String, String)> = self.statement().query(question).ok()?;
        let mut locks = BTreeMap::new();
        for (session, mode, schema, table) in rows {
            let text = match mode.as_str() {
                "MDL_SHARED_NO_READ_WRITE" => format!("LOCK TABLES on {schema}.{table}"),
                "MDL_BACKUP_FTWRL1" | "MDL_BACKUP_FTWRL2" => "FLUSH TABLES WITH READ LOCK".to_owned(),
                "MDL_BACKUP_START"
                | "MDL_BACKUP_FLUSH"
                | "MDL_BACKUP_WAIT_FLUSH"
                | "MDL_BACKUP_WAIT_DDL"
                | "MDL_BACKUP_WAIT_COMMIT" => "BACKUP STAGE".to_owned(),
                // Every writing statement takes such a lock. In some versions its mode has the name of another one, so
                // no name is given.
                _ => String::new(),
            };
            let known: &mut String = locks.entry(session).or_default();
            if known.is_empty() {
                *known = text;
            }
        }
        Some(locks)
    }

    /// Tables in use: those of `LOCK TABLES` stay in use while the session is idle.
    fn tables_in_use(&mut self) -> Vec<String> {
        let rows: Vec<(String, String, u64, u64)> =
            self.statement().query("SHOW OPEN TABLES WHERE In_use > 0").unwrap_or_default();
        rows.into_iter().map(|(schema, table, ..)| format!("{schema}.{table}")).collect()
    }
}

/// True for a statement that changes which tables exist and is not itself waiting, perhaps for us.
pub fn is_ddl(other: &Other) -> bool {
    let statement = other.statement.as_deref().unwrap_or_default();
    let word = statement.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    let words = ["ALTER", "OPTIMIZE", "CREATE", "DROP", "TRUNCATE", "RENAME", "REPAIR", "ANALYZE", "FLUSH"];
    words.contains(&word.as_str()) && !waits(other)
}

fn waits(other: &Other) -> bool {
    other.state.starts_with("Waiting for")
}

/// A sentence that names the session holding the lock, and how to end it.
pub fn name(seen: &Seen) -> String {
    if seen.blind {
        return "the account may not see which session holds the lock; GRANT PROCESS ON *.* to it, and its name is shown".to_owned();
    }
    let of = |session: u64| seen.others.iter().find(|other| other.session == session);
    if let Some(locks) = &seen.locks {
        // Named locks first, then sessions that do not wait themselves, then the oldest.
        let mut holders: Vec<_> =
            locks.iter().filter_map(|(session, lock)| Some((of(*session)?, lock))).collect();
        holders.sort_by_key(|(other, lock)| (lock.is_empty(), waits(other), std::cmp::Reverse(other.for_ms)));
        if let Some((other, lock)) = holders.first() {
            let lock = if lock.is_empty() { "a backup lock".to_owned() } else { format!("a lock ({lock})") };
            return format!("session {} holds {lock}{}", describe(other), end(other));
        }
    }
    let running = |other: &&Other| other.statement.is_some() && !waits(other);
    let long = |other: &&Other| running(other) && other.for_ms >= LONG_MS;
    let mut all = seen.others.iter();
    let statement = all.clone().find(|other| is_ddl(other) && other.for_ms >= LONG_DDL_MS);
    if let Some(other) = statement.or_else(|| all.find(long)) {
        return format!("session {} probably holds a lock{}", describe(other), end(other));
    }
    let idle: Vec<&Other> =
        seen.others.iter().filter(|o| o.statement.is_none() && o.for_ms >= LONG_MS).collect();
    if idle.is_empty() {
        return "no session was seen that holds a lock".to_owned();
    }
    idle_ones(&idle, &seen.in_use)
}

/// The server does not say which idle session holds the lock. A backup tool that gives its name is the most likely.
fn idle_ones(idle: &[&Other], in_use: &[String]) -> String {
    let backup = |other: &&&Other| other.program.as_deref().is_some_and(|name| name.contains("backup"));
    if let Some(other) = idle.iter().find(backup) {
        return format!("session {} probably holds a backup lock{}", describe(other), end(other));
    }
    let named: Vec<String> =
        idle.iter().take(NAMED_MAX).map(|other| format!("session {}", describe(other))).collect();
    let more = match idle.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let tables = match in_use {
        [] => String::new(),
        tables => format!("; in use: {}", tables.join(", ")),
    };
    let end = match idle {
        [one] => end(one),
        _ => {
            "; end it with KILL and its number (INSTALL SONAME 'metadata_lock_info' has the server say which)"
                .to_owned()
        }
    };
    format!(
        "no statement runs that holds the lock, so an idle session does (LOCK TABLES, BACKUP STAGE): {}{more}{tables}{end}",
        named.join(", ")
    )
}

fn end(other: &Other) -> String {
    format!("; end it with KILL {}", other.session)
}

fn describe(other: &Other) -> String {
    let Other { session, account, program, for_ms, statement, .. } = other;
    let program = program.as_ref().map(|name| format!(", {name}")).unwrap_or_default();
    let seconds = for_ms / 1000;
    match statement {
        None => format!("{session} ({account}{program}, idle for {seconds} s)"),
        Some(text) => format!("{session} ({account}{program}, for {seconds} s: {text})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(session: u64, seconds: u64, statement: Option<&str>) -> Other {
        let (account, statement) = ("app@localhost".to_owned(), statement.map(str::to_owned));
        Other { session, account, for_ms: seconds * 1000, statement, ..Other::default() }
    }

    #[test]
    fn the_server_says_who_holds_it() {
        let others = vec![other(7, 900, Some("SELECT SLEEP(1000)")), other(42, 312, None)];
        let locks = Some(BTreeMap::from([(42, "BACKUP STAGE".to_owned())]));
        let mut seen = Seen { others, locks, ..Seen::default() };
        seen.others[1].program = Some("mariadb-backup".to_owned());
        assert_eq!(
            name(&seen),
            "session 42 (app@localhost, mariadb-backup, idle for 312 s) holds a lock (BACKUP STAGE); end it with KILL 42"
        );
    }

    #[test]
    fn a_statement_is_named_before_an_idle_session() {
        let others = vec![other(1, 5000, None), other(7, 9, Some("ALTER TABLE t ENGINE=InnoDB"))];
        let seen = Seen { others, ..Seen::default() };
        assert_eq!(
            name(&seen),
            "session 7 (app@localhost, for 9 s: ALTER TABLE t ENGINE=InnoDB) probably holds a lock; end it with KILL 7"
        );
        // A statement that waits itself does not hold the lock.
        let mut waiting = other(7, 9, Some("ALTER TABLE t ENGINE=InnoDB"));
        waiting.state = "Waiting for backup lock".to_owned();
        let seen = Seen { others: vec![waiting, other(3, 20, None)], ..Seen::default() };
        assert!(name(&seen).contains("session 3 (app@localhost, idle for 20 s); end it with KILL 3"));
    }

    #[test]
    fn idle_sessions_are_named_with_what_is_locked() {
        let others = (1..=5).map(|n| other(n, 100 - n, None)).collect();
        let seen = Seen { others, in_use: vec!["shop.orders".to_owned()], ..Seen::default() };
        let text = name(&seen);
        assert!(text.contains("session 1 (app@localhost, idle for 99 s), session 2"), "{text}");
        assert!(text.contains("and 2 more; in use: shop.orders; end it with KILL and its number"), "{text}");
        assert!(name(&Seen { blind: true, ..Seen::default() }).contains("GRANT PROCESS"));
    }
}
