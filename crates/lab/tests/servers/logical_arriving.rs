//! Rows of a logical snapshot are loaded while others arrive.
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::progress::StatusReader;
use rejoin_lab::{Builder, Cluster, Node, compare, data, process};

/// A donor behind a slow link.
fn slow(rlimit: &str) -> Builder {
    Cluster::builder().sst_of(1, "snapshot=logical").sst_of(1, &format!("rlimit={rlimit}"))
}

/// Rows are in files of the private server before the last ones have come, and its sessions wait for rows for longer than the server's
/// option would let them.
#[test]
fn rows_are_in_tables_before_all_have_come() -> Result<()> {
    let cluster = slow("1M").mysqld_of(2, "innodb_page_size=8k").mysqld_of(2, "wait_timeout=1").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    data::sysbench_tables(n1, 2, 60000)?;
    n2.begin(&[])?;
    n2.wait_log("a private server runs on a new datadir", Duration::from_secs(60))?;
    wait_for_rows(n2)?;
    n2.wait_synced(Duration::from_secs(90))?;
    n1.wait_synced_again(Duration::from_secs(20))?;
    compare::assert_equal(n1, n2)?;
    let log = n2.log_since_start();
    let (all, after) = loading(&log).with_context(|| process::tail(&log, 30))?;
    ensure!(after < all / 2.0, "{after} of {all} s after the last row had arrived");
    ensure!(!n2.datadir().join(".rejoin/server").exists(), "the private server's directory is left");
    Ok(())
}

/// Waits until the private server has rows in a file, which must be while others arrive.
fn wait_for_rows(joiner: &Node) -> Result<()> {
    let (status, until) = (StatusReader::of(joiner), Instant::now() + Duration::from_secs(60));
    let table = joiner.datadir().join(".rejoin/server/data/sbtest/sbtest1.ibd");
    loop {
        let bytes = table.metadata().map_or(0, |found| found.len());
        let status = status.read().unwrap_or_default();
        if bytes > 4 << 20 {
            ensure!(status.phase == "receiving", "{status:?}");
            ensure!(status.done_bytes < status.total_bytes, "{status:?}");
            return Ok(());
        }
        ensure!(Instant::now() < until, "{bytes} bytes: {status:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How long loading took, and how much of that was after the last row had arrived, in seconds.
fn loading(log: &str) -> Option<(f64, f64)> {
    let line = log.lines().find(|line| line.contains("[INFO] loaded "))?;
    let (all, after) = line.split_once(" s of them after the last row had arrived")?.0.rsplit_once(", ")?;
    let all = all.rsplit_once(" in ")?.1.split(' ').next()?.parse().ok()?;
    Some((all, after.parse().ok()?))
}

/// The donor begins its snapshot again: parts that had arrived are not sent again.
#[test]
fn parts_of_a_void_snapshot_are_not_sent_again() -> Result<()> {
    // Those that the donor asks about before the joiner knows that they are void are: one for each session that reads.
    let cluster = slow("2M").sst_of(1, "threads=1").sst_of(2, "threads=1");
    let cluster = cluster.mysqld_of(2, "innodb_page_size=8k").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    data::sysbench_tables(n1, 1, 200_000)?;
    n1.exec(&["CREATE TABLE sbtest.changes (a INT PRIMARY KEY)"])?;
    n2.begin(&[])?;
    let (status, until) = (StatusReader::of(n2), Instant::now() + Duration::from_secs(60));
    while status.read().is_none_or(|status| status.phase != "receiving" || status.done_bytes < 10 << 20) {
        ensure!(Instant::now() < until, "{}", process::tail(&n2.log_since_start(), 30));
        std::thread::sleep(Duration::from_millis(20));
    }
    n1.exec(&["ALTER TABLE sbtest.changes ADD COLUMN b INT"])?;
    n2.wait_synced(Duration::from_secs(90))?;
    n1.wait_synced_again(Duration::from_secs(20))?;
    compare::assert_equal(n1, n2)?;
    let log = n2.log_since_start();
    ensure!(log.contains("the donor's logical snapshot begins again"), "{}", process::tail(&log, 30));
    let again =
        log.lines().find(|line| line.contains("of them from an interrupted transfer or a void snapshot"));
    let again = again.with_context(|| process::tail(&log, 30))?;
    ensure!(again.contains(" MiB were already here, ") && again.contains(" MiB of them"), "{again}");
    Ok(())
}

/// If the joiner's server refuses a table, the transfer ends once the donor has had time to begin its snapshot again, and the donor
/// logs the reason.
#[test]
fn a_refusal_ends_the_transfer_while_rows_arrive() -> Result<()> {
    let cluster = slow("100k").mysqld_of(2, "innodb_page_size=4k").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    data::sysbench_tables(n1, 2, 60000)?;
    n1.exec(&["CREATE TABLE sbtest.long_key (a VARBINARY(2000) PRIMARY KEY)"])?;
    let (mark, began) = (n1.log_mark(), Instant::now());
    let log = n2.fail_to_join()?;
    let took = began.elapsed();
    let words = "this node's server refused sbtest.long_key: Specified key was too long";
    ensure!(log.contains(words), "{}", process::tail(&log, 30));
    ensure!(took < Duration::from_secs(60), "it took {took:?}");
    n1.wait_synced_again(Duration::from_secs(20))?;
    let log = n1.log_since(mark);
    let told = log.lines().any(|line| line.contains("the joiner gave up: ") && line.contains(words));
    ensure!(told, "{}", process::tail(&log, 30));
    assert_eq!(n2.sst_processes(), []);
    ensure!(!n2.datadir().join(".rejoin/server/data").exists(), "the private server's files are left");
    Ok(())
}
