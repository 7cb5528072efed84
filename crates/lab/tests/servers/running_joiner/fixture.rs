//! What these tests begin with, and what must hold at their ends.
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::progress::StatusReader;
use rejoin_lab::{Builder, Cluster, LogMark, Node, compare, process, sample_schema};

/// Of the account with which the donor enters the joiner.
pub const PASSWORD: &str = "Open.Sesame-7";
pub const SOON: Duration = Duration::from_secs(20);

pub fn builder() -> Builder {
    Cluster::builder()
        .in_place_of("mysqldump")
        .mysqld(&format!("wsrep_sst_auth=copier:{PASSWORD}"))
        // The port for clients, not the one of other methods.
        .mysqld("wsrep_sst_receive_address=AUTO")
}

/// The account of `wsrep_sst_auth`, at each of the ways in which a program logs in.
pub fn let_in(node: &Node, password: &str, rights: &str) -> Result<()> {
    for host in ["localhost", "%"] {
        node.exec(&[
            &format!("CREATE USER copier@'{host}' IDENTIFIED BY '{password}'"),
            &format!("GRANT {rights} ON *.* TO copier@'{host}'"),
        ])?;
    }
    Ok(())
}

/// Starts a server that is a group by itself, with data of its own. (One that is in no group at all hangs in the statement that
/// tells it to join: 10.11.19 waits for its own disconnection then.)
pub fn stand_alone(node: &Node) -> Result<()> {
    node.bootstrap()?;
    node.exec(&[
        "CREATE DATABASE IF NOT EXISTS old_shop",
        "CREATE OR REPLACE TABLE old_shop.goods (a INT PRIMARY KEY, b TEXT)",
        "INSERT INTO old_shop.goods VALUES (1, 'old')",
        "CREATE OR REPLACE VIEW old_shop.seen AS SELECT * FROM old_shop.goods",
        "CREATE OR REPLACE TRIGGER old_shop.tr BEFORE INSERT ON old_shop.goods FOR EACH ROW SET NEW.b = 'x'",
        "CREATE OR REPLACE TABLE mysql.of_old (a INT)",
        "CREATE OR REPLACE USER gone_with_it@localhost",
    ])
}

/// Tells a running server to join.
pub fn told_to_join(node: &Node, donor: &Node) -> Result<()> {
    let address = format!("gcomm://127.0.0.1:{}", donor.ports().group());
    node.exec(&[&format!("SET GLOBAL wsrep_cluster_address='{address}'")])
}

/// The server is a group by itself once more: what its provider noted of the failed transfer forbids that.
pub fn starts_again(node: &Node) -> Result<()> {
    node.remove_grastate()?;
    node.bootstrap().map(drop)
}

/// Waits until the node is Synced, and not with itself alone.
pub fn joined(node: &Node, donor: &Node) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(150);
    while !(node.is_synced() && node.status("wsrep_cluster_size")? == "2") {
        let logs = || [donor, node].map(|node| process::tail(&node.log_text(), 120)).join("\n----\n");
        ensure!(Instant::now() < until && node.is_alive(), "not joined:\n{}", logs());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The scheduler knows an event of the donor: rows of `mysql.event` alone do not make it known before the next start.
pub fn events_wait_for_their_time(node: &Node) -> Result<()> {
    let question = "SELECT STATE FROM information_schema.PROCESSLIST WHERE USER = 'event_scheduler'";
    let until = Instant::now() + SOON;
    while node.value(question)? != "Waiting for next activation" {
        ensure!(Instant::now() < until, "{:?}", node.rows("SHOW PROCESSLIST")?);
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// It joins, nothing of the old data or of the way is left, and both are equal.
pub fn has_the_donors_data(donor: &Node, node: &Node) -> Result<()> {
    joined(node, donor)?;
    is_free(donor)?;
    let shown = node.rows("SHOW DATABASES")?.concat();
    ensure!(!shown.iter().any(|name| name == "old_shop" || name.starts_with("#rejoin")), "{shown:?}");
    compare::wait_caught_up(donor, node, SOON)?;
    compare::assert_equal(donor, node)
}

/// The old data is as it was; what has come of the donor's is gone.
pub fn old_data_is_there(node: &Node) -> Result<()> {
    let shown = node.rows("SET STATEMENT wsrep_sync_wait=0 FOR SHOW DATABASES")?.concat();
    ensure!(!shown.iter().any(|name| name.starts_with("#rejoin")), "{shown:?}");
    old_rows_are_there(node)
}

fn old_rows_are_there(node: &Node) -> Result<()> {
    assert_eq!(node.value("SELECT GROUP_CONCAT(b) FROM old_shop.seen")?, "old");
    assert_eq!(node.value("SELECT COUNT(*) FROM mysql.global_priv WHERE user='gone_with_it'")?, "1");
    assert_eq!(node.value("SELECT COUNT(*) FROM mysql.of_old")?, "0");
    node.exec(&["INSERT INTO old_shop.goods VALUES (2, 'new')"])?;
    assert_eq!(node.value("SELECT b FROM old_shop.goods WHERE a = 2")?, "x");
    node.exec(&["DELETE FROM old_shop.goods WHERE a = 2"])
}

/// How a transfer fails.
pub struct Failure<'a> {
    /// What the donor's log says.
    pub donor: &'a str,
    /// What the joiner's log says: the text of the number with which the donor's program ends.
    pub joiner: &'a str,
    /// The joiner's operator finds the reason there too, and nothing that came is left.
    pub is_reported: bool,
}

/// A joiner that cannot be given the state ends, because the group has none for it. Its old data is there when it starts again, and
/// the donor is as free as before.
pub fn fails_and_keeps_its_data(n1: &Node, n2: &Node, failure: &Failure<'_>) -> Result<()> {
    let marks = (n1.log_mark(), n2.log_mark());
    let accounts = n1.value("SELECT COUNT(*) FROM mysql.global_priv")?;
    told_to_join(n2, n1)?;
    ended_by_the_group(n1, n2, failure, marks)?;
    assert_eq!(n1.value("SELECT COUNT(*) FROM mysql.global_priv")?, accounts);
    starts_again(n2)?;
    if failure.is_reported {
        let file = newest_file(n2)?;
        ensure!(file.contains(failure.donor) && file.contains("is as it was before the transfer"), "{file}");
        ensure!(!file.contains(PASSWORD), "{file}");
        return old_data_is_there(n2);
    }
    old_rows_are_there(n2)
}

/// The joiner's server ends, both logs say why, and the donor is free. `marks`: since when, for each of them.
pub fn ended_by_the_group(
    n1: &Node,
    n2: &Node,
    failure: &Failure<'_>,
    marks: (LogMark, LogMark),
) -> Result<()> {
    let ended = n2.wait_exit(Duration::from_secs(60)).is_some();
    let (donor, joiner) = (n1.log_since(marks.0), n2.log_since(marks.1));
    let ours: Vec<&str> = donor.lines().filter(|line| line.contains("WSREP_SST")).collect();
    ensure!(donor.contains(failure.donor), "no {:?}:\n{}", failure.donor, ours.join("\n"));
    ensure!(!donor.contains(PASSWORD), "the password is in the log");
    ensure!(!donor.contains("has not ended within"), "{}", process::tail(&donor, 40));
    ensure!(ended, "the joiner goes on:\n{}", process::tail(&joiner, 30));
    let said = joiner.lines().any(|line| {
        line.contains("State transfer to") && line.contains("failed") && line.contains(failure.joiner)
    });
    ensure!(said, "no {:?}:\n{}", failure.joiner, process::tail(&joiner, 40));
    is_free(n1)
}

/// The donor is Synced and takes rows and definitions; no program and no session of ours is left.
pub fn is_free(donor: &Node) -> Result<()> {
    donor.wait_synced_again(SOON)?;
    assert_eq!(donor.sst_processes(), []);
    assert_eq!(donor.status("wsrep_desync_count")?, "0");
    let sessions = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER='copier'";
    let until = Instant::now() + Duration::from_secs(5);
    while donor.value(sessions)? != "0" {
        ensure!(Instant::now() < until, "{:?}", donor.rows("SHOW PROCESSLIST")?);
        std::thread::sleep(Duration::from_millis(50));
    }
    donor.exec(&[
        "CREATE DATABASE IF NOT EXISTS test",
        "CREATE OR REPLACE TABLE test.free (a INT PRIMARY KEY)",
        "INSERT INTO test.free VALUES (1)",
    ])
}

/// What the donor's program has left for the joiner's operator.
pub fn newest_file(joiner: &Node) -> Result<String> {
    let names = fs::read_dir(joiner.datadir())?.flatten().map(|entry| entry.path());
    let ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("rejoin-joiner-") && name.ends_with(".log")
    };
    let newest =
        names.filter(ours).max_by_key(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok());
    Ok(fs::read_to_string(newest.context("no file of the donor's program")?)?)
}

/// Waits until rows are on their way.
pub fn rows_arrive(donor: &Node) -> Result<()> {
    let status = StatusReader::of(donor);
    let until = Instant::now() + Duration::from_secs(60);
    while !status.read().is_some_and(|status| status.phase == "sending rows" && status.done_bytes > 1 << 20) {
        let log = || process::tail(&donor.log_text(), 40);
        ensure!(Instant::now() < until, "no rows: {:?}\n{}", status.read(), log());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What must be true of a joiner that has everything.
pub fn has_all(n1: &Node, n2: &Node) -> Result<()> {
    n1.wait_synced_again(SOON)?;
    compare::assert_equal_with_history(n1, n2)?;
    let shown = n2.rows("SHOW DATABASES")?.concat();
    ensure!(!shown.iter().any(|name| name == "old_shop" || name.starts_with("#rejoin")), "{shown:?}");
    assert_eq!(n2.value("SELECT COUNT(*) FROM mysql.global_priv WHERE user='gone_with_it'")?, "0");
    assert_eq!(n2.value("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_NAME='of_old'")?, "0");
    // Write-sets go both ways.
    n2.exec(&["INSERT INTO zoo.parent VALUES (200001)"])?;
    n1.exec(&["INSERT INTO zoo.parent VALUES (200002)"])?;
    compare::wait_caught_up(n1, n2, SOON)?;
    compare::assert_equal_with_history(n1, n2)?;
    for node in [n1, n2] {
        ensure!(!node.log_text().contains(PASSWORD), "the password is in the log of {}", node.name());
    }
    Ok(())
}

/// Everything that a donor may have, for a server that runs.
pub fn fill(n1: &Node) -> Result<()> {
    let_in(n1, PASSWORD, "ALL PRIVILEGES")?;
    sample_schema::create(n1)?;
    sample_schema::add_values(n1)?;
    n1.exec(&[
        "CREATE DATABASE zoo_far",
        "CREATE TABLE zoo_far.child (a INT PRIMARY KEY, b INT, CONSTRAINT far FOREIGN KEY (b) REFERENCES zoo.parent (a))",
        "INSERT INTO zoo_far.child VALUES (1, NULL)",
        "CREATE TABLE zoo.held (a INT PRIMARY KEY)",
        "ALTER TABLE zoo.held DISCARD TABLESPACE",
    ])
}
