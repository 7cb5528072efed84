//! The binary log of a joiner continues from the donor's GTID state, whatever each of them logs.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::{Cluster, Node, compare, places, sst};

const OFF: &[&str] = &["skip_log_bin"];

#[test]
fn gtid_state_without_the_groups_own_domain() -> Result<()> {
    let builder = Cluster::builder().mysqld("gtid_domain_id=7").mysqld("log_slave_updates=ON");
    all_combinations(&builder.mysqld_of(1, "server_id=1").mysqld_of(2, "server_id=2").build()?)
}

#[test]
fn gtid_state_with_the_groups_own_domain() -> Result<()> {
    let builder = Cluster::builder().mysqld("log_slave_updates=ON").mysqld("wsrep_gtid_mode=ON");
    let builder = builder.mysqld("wsrep_gtid_domain_id=9").mysqld("server_id=5");
    all_combinations(&builder.mysqld_of(1, "gtid_domain_id=11").mysqld_of(2, "gtid_domain_id=12").build()?)
}

/// mariadb-backup has the server begin a binary log under its locks; the state is at the head of that.
#[test]
fn gtid_state_of_a_backup() -> Result<()> {
    let builder = Cluster::builder().mysqld("log_slave_updates=ON").mysqld("wsrep_gtid_mode=ON");
    let builder = builder.mysqld("wsrep_gtid_domain_id=9").mysqld("server_id=5").sst("snapshot=mariabackup");
    all_combinations(&builder.mysqld_of(1, "gtid_domain_id=11").mysqld_of(2, "gtid_domain_id=12").build()?)
}

fn all_combinations(cluster: &Cluster) -> Result<()> {
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    // Names, places and extensions of the two have nothing in common.
    let logs = n2.dir().join("logs");
    fs::create_dir(&logs)?;
    places::User::for_servers()?.own(&logs)?;
    let donor_on: &[&str] = &["log_bin=donor"];
    let joiner_bin = format!("log_bin={}/joiner.x", logs.display());
    let joiner_on: &[&str] = &[&joiner_bin, "log_bin_index=their-names"];
    n1.bootstrap()?;
    n1.exec(&[
        "CREATE DATABASE d",
        "CREATE TABLE d.t (a INT AUTO_INCREMENT PRIMARY KEY, b INT) ENGINE=InnoDB",
    ])?;
    for (donor_logs, joiner_logs) in
        [(true, true), (true, false), (false, true), (true, true), (false, false)]
    {
        let what = format!("donor logs: {donor_logs}, joiner logs: {joiner_logs}");
        n1.stop()?;
        n1.add_options("mysqld", if donor_logs { donor_on } else { OFF })?;
        n2.add_options("mysqld", if joiner_logs { joiner_on } else { OFF })?;
        n1.bootstrap()?;
        // More than one domain: the second one's events stay on the donor, its rows travel as files.
        n1.exec(&[
            "INSERT INTO d.t (b) VALUES (1)",
            "SET SESSION wsrep_on=0",
            "SET SESSION gtid_domain_id=3",
            "CREATE TABLE IF NOT EXISTS d.alone (a INT) ENGINE=InnoDB",
            "INSERT INTO d.alone VALUES (2)",
        ])?;
        n2.remove_grastate()?;
        n2.join().with_context(|| what.clone())?;
        judge(n1, n2, donor_logs, joiner_logs, &what)?;
        assert_eq!(n2.unexpected_errors(&[]), Vec::<String>::new(), "{what}");
        n2.stop()?;
    }
    Ok(())
}

fn judge(n1: &Node, n2: &Node, donor_logs: bool, joiner_logs: bool, what: &str) -> Result<()> {
    sst::assert_not_behind(n1, n2)?;
    let equal = donor_logs && joiner_logs;
    for moment in ["after the join", "after writes from both"] {
        compare::wait_caught_up(n1, n2, Duration::from_secs(20))?;
        let (ours, theirs) = (state(n1)?, state(n2)?);
        ensure!(!equal || ours == theirs, "{what}, {moment}: donor {ours:?}, joiner {theirs:?}");
        ensure!(!donor_logs || ours.len() >= 2, "{what}: one domain only: {ours:?}");
        for n in 0..4 {
            n1.exec(&[&format!("INSERT INTO d.t (b) VALUES ({n})")])?;
            n2.exec(&[&format!("INSERT INTO d.t (b) VALUES ({n})")])?;
        }
    }
    compare::assert_equal(n1, n2)?;
    if joiner_logs {
        let logs = n2.rows("SHOW BINARY LOGS")?;
        ensure!(logs.len() == 1, "{what}: logs of the old life: {logs:?}");
    }
    Ok(())
}

/// The last position of each domain and server, in an order of its own.
fn state(node: &Node) -> Result<Vec<String>> {
    let text = node.value("SELECT @@global.gtid_binlog_state")?;
    let mut all: Vec<String> = text.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect();
    all.sort();
    Ok(all)
}
