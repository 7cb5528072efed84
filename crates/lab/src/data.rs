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
