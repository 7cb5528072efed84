//! Everything two servers must agree on, as text.
use std::collections::BTreeMap;

use anyhow::Result;
use mysql::Conn;
use mysql::prelude::Queryable;

use crate::storm::ACCOUNTS;

pub type State = BTreeMap<String, String>;

/// Definitions and checksums of all tables, views, triggers, users.
pub fn state(conn: &mut Conn) -> Result<State> {
    let mut state = State::new();
    // Everything the cluster had accepted must have been applied.
    let _ = conn.query_drop("SET SESSION wsrep_sync_wait = 15");
    let tables: Vec<(String, String, String)> = conn.query(
        "SELECT table_schema, table_name, table_type FROM information_schema.tables \
         WHERE table_schema IN ('test','sbtest') ORDER BY 1, 2",
    )?;
    for (schema, table, kind) in tables {
        let show = if kind == "VIEW" { "VIEW" } else { "TABLE" };
        let mut text =
            match conn.query_first::<mysql::Row, _>(format!("SHOW CREATE {show} `{schema}`.`{table}`")) {
                Ok(Some(row)) => row.get::<String, _>(1).unwrap_or_default(),
                Ok(None) => "none".to_owned(),
                Err(e) => format!("error {e}"),
            };
        // The next number is not replicated.
        if let Some((head, tail)) = text.split_once(" AUTO_INCREMENT=") {
            text = format!("{head}{}", tail.trim_start_matches(|c: char| c.is_ascii_digit()));
        }
        if kind != "VIEW" {
            let sum: Option<(String, Option<u64>)> =
                conn.query_first(format!("CHECKSUM TABLE `{schema}`.`{table}`"))?;
            text += &format!(" CHECKSUM {:?}", sum.and_then(|s| s.1));
        }
        state.insert(format!("{schema}.{table}"), text);
    }
    for (schema, name, text) in conn.query::<(String, String, String), _>(
        "SELECT trigger_schema, trigger_name, action_statement FROM information_schema.triggers",
    )? {
        state.insert(format!("trigger {schema}.{name}"), text);
    }
    for (user, host, text) in
        conn.query::<(String, String, String), _>("SELECT User, Host, Priv FROM mysql.global_priv")?
    {
        state.insert(format!("user {user}@{host}"), text);
    }
    Ok(state)
}

/// Differences between two.
pub fn differences(a: &State, b: &State) -> Vec<String> {
    let keys = a.keys().chain(b.keys()).collect::<std::collections::BTreeSet<_>>();
    keys.into_iter()
        .filter(|key| a.get(*key) != b.get(*key))
        .map(|key| format!("{key}: {:?} / {:?}", a.get(key), b.get(key)))
        .collect()
}

/// What is wrong within one server: sums, gaps, damage, leftovers.
pub fn faults(conn: &mut Conn) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let sum: Option<i64> = conn.query_first(
        "SELECT CAST((SELECT SUM(bal) FROM test.acct_a) + (SELECT SUM(bal) FROM test.acct_b) AS SIGNED)",
    )?;
    if sum != Some(2 * 1000 * ACCOUNTS as i64) {
        faults.push(format!("balances sum to {sum:?}"));
    }
    let gaps: Vec<String> = conn.query(
        "SELECT worker FROM test.counter GROUP BY worker HAVING COUNT(*) <> MAX(seq) OR MIN(seq) <> 1",
    )?;
    faults.extend(gaps.into_iter().map(|w| format!("worker {w} has gaps")));
    let tables: Vec<(String, String)> = conn.query(
        "SELECT table_schema, table_name FROM information_schema.tables \
         WHERE table_schema IN ('test','sbtest') AND table_type = 'BASE TABLE'",
    )?;
    for (schema, table) in tables {
        let rows: Vec<(String, String, String, String)> =
            conn.query(format!("CHECK TABLE `{schema}`.`{table}` EXTENDED"))?;
        let bad = rows.into_iter().filter(|r| !(r.2 == "status" && r.3 == "OK"));
        faults.extend(bad.map(|r| format!("{schema}.{table}: {} {}", r.2, r.3)));
    }
    let left: Vec<String> =
        conn.query("SELECT NAME FROM information_schema.INNODB_SYS_TABLES WHERE NAME LIKE '%#sql%'")?;
    faults.extend(left.into_iter().map(|name| format!("left over: {name}")));
    Ok(faults)
}
