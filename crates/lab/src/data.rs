//! Test data in quantity: the tables of sysbench.

use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::node::Node;
use crate::{places, process, sql};

/// The database sysbench works in.
pub const DATABASE: &str = "sbtest";

/// Sessions that create tables.
const SESSIONS: u32 = 4;

/// What a row of sysbench takes on disk with its index and the room pages leave.
const ROW_BYTES: u64 = 250;

/// Rows of a page that sysbench has filled.
const ROWS_OF_A_PAGE: f64 = 70.0;
/// Rows that a statement of [`rewrite_pages`] looks at: what a transaction leaves to purge stays small.
const REWRITTEN_AT_ONCE: u32 = 10_000;

/// Bytes of a call of `RANDOM_BYTES`, calls for each row, and rows for each statement of [`filler`].
const FILLER_BYTES: usize = 1024;
const FILLER_PARTS: usize = 60;
const FILLER_ROWS: u64 = 500;

/// Rows of each of `tables` sysbench tables that are `megabytes` of data together.
pub fn rows_of(megabytes: u64, tables: u32) -> Result<u32> {
    Ok(u32::try_from(megabytes * 1_000_000 / ROW_BYTES / u64::from(tables))?.max(1000))
}

/// Creates `tables` tables `sbtest1`, ... of `rows` rows (about 240 bytes each, with their index) in `sbtest`.
pub fn sysbench_tables(node: &Node, tables: u32, rows: u32) -> Result<()> {
    node.exec(&[&format!("CREATE DATABASE IF NOT EXISTS {DATABASE}")])?;
    let mut prepare = sysbench(node, "oltp_write_only", tables, rows)?;
    prepare.args(["--threads=2", "prepare"]);
    process::run(prepare, Duration::from_secs(900)).context("sysbench prepare").map(drop)
}

/// Creates `count` small tables `t0`, ... in a database: by several sessions, and on this node alone, so that nodes that
/// join later get them with everything else.
pub fn small_tables(node: &Node, database: &str, count: u32) -> Result<()> {
    more_small_tables(node, database, 0..count)
}

/// As [`small_tables`], those with these numbers.
pub fn more_small_tables(node: &Node, database: &str, numbers: Range<u32>) -> Result<()> {
    node.exec(&[&format!("CREATE DATABASE IF NOT EXISTS {database}")])?;
    let make = |session: u32| -> Result<()> {
        let mut conn = node.connect()?;
        sql::exec(&mut conn, "SET SESSION wsrep_on=OFF")?;
        numbers.clone().filter(|n| n % SESSIONS == session).try_for_each(|n| {
            let table = format!("{database}.t{n}");
            sql::exec(&mut conn, &format!("CREATE TABLE {table} (id INT PRIMARY KEY, pad VARCHAR(100))"))
        })
    };
    std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS).map(|session| scope.spawn(move || make(session))).collect();
        let ended = sessions.into_iter().map(|s| s.join().map_err(|_| anyhow!("a session panicked"))?);
        ended.collect::<Result<()>>()
    })
}

/// Creates a table of so many megabytes of random bytes in `sbtest`: on this node alone, in a fraction of the time that rows
/// of sysbench take.
pub fn filler(node: &Node, table: &str, megabytes: u64) -> Result<()> {
    if megabytes == 0 {
        return Ok(());
    }
    let mut conn = node.connect()?;
    let bytes = vec![format!("RANDOM_BYTES({FILLER_BYTES})"); FILLER_PARTS].join(", ");
    let rows = megabytes * 1_000_000 / (FILLER_PARTS * FILLER_BYTES) as u64;
    let table = format!("{DATABASE}.{table}");
    sql::exec(&mut conn, "SET SESSION wsrep_on=OFF")?;
    sql::exec(&mut conn, &format!("CREATE TABLE {table} (id INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB)"))?;
    (0..rows.div_ceil(FILLER_ROWS)).try_for_each(|_| {
        let rows =
            format!("INSERT INTO {table} (b) SELECT CONCAT({bytes}) FROM {DATABASE}.seq_1_to_{FILLER_ROWS}");
        sql::exec(&mut conn, &rows)
    })
}

/// Rewrites rows of each of `tables` sysbench tables, chosen at random: of pages a share `before` of which had been rewritten
/// like that, a share `after` of 1 is then. Each row has the same bytes in another order, so that it compresses as before, and
/// its place. Pages of the secondary index stay as they are.
pub fn rewrite_pages(node: &Node, tables: u32, before: f64, after: f64) -> Result<()> {
    let share = rows_between(before, after);
    let mut conn = sql::connect(&node.socket(), Duration::from_secs(600))?;
    for n in 1..=tables {
        let table = format!("{DATABASE}.sbtest{n}");
        let last: u32 = node.value(&format!("SELECT MAX(id) FROM {table}"))?.parse()?;
        for from in (1..=last).step_by(REWRITTEN_AT_ONCE as usize) {
            let to = from + REWRITTEN_AT_ONCE - 1;
            let rows = format!("id BETWEEN {from} AND {to} AND RAND() < {share}");
            let turned = "CONCAT(SUBSTRING(c, 13), LEFT(c, 12))";
            sql::exec(&mut conn, &format!("UPDATE {table} SET c = {turned} WHERE {rows}"))?;
        }
    }
    Ok(())
}

/// The share of all rows: a page is as it was when none of its rows is chosen.
fn rows_between(before: f64, after: f64) -> f64 {
    1.0 - ((1.0 - after) / (1.0 - before)).powf(1.0 / ROWS_OF_A_PAGE)
}

/// A sysbench command against a node; the caller adds threads, times and the verb.
pub fn sysbench(node: &Node, script: &str, tables: u32, rows: u32) -> Result<Command> {
    // Run as we are, but not longer than we are.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(places::program("sysbench")?).arg(script);
    command.arg(format!("--mysql-socket={}", node.socket().display()));
    command.args(["--mysql-user=root", &format!("--mysql-db={DATABASE}"), "--db-driver=mysql"]);
    command.args([format!("--tables={tables}"), format!("--table-size={rows}")]);
    Ok(command)
}

/// Bytes the data in a datadir takes on disk; Galera's cache, which no transfer carries, does not count.
pub fn disk_bytes(datadir: &Path) -> Result<u64> {
    let mut du = Command::new("du");
    du.args(["-s", "--block-size=1", "--exclude=galera.cache", "--exclude=gcache.page.*"]).arg(datadir);
    // Files come and go while a server runs: du complains, and is right about the rest.
    let output = du.output().context("du")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().next().and_then(|n| n.parse().ok()).context("what du says")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_rows_are_many_pages() {
        assert_eq!((rows_between(0.0, 0.0), rows_between(0.4, 1.0)), (0.0, 1.0));
        let share = rows_between(0.0, 0.4);
        assert!((0.007..0.008).contains(&share), "{share}");
        // In two steps as in one.
        let both = 1.0 - (1.0 - rows_between(0.0, 0.1)) * (1.0 - rows_between(0.1, 0.4));
        assert!((both - share).abs() < 1e-12, "{both} and {share}");
    }
}
