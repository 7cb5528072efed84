//! A whole cluster is killed in the middle of a transfer, and each node in turn is the one that a cluster is bootstrapped
//! from: none has lost what it had, and the one that was joining says beforehand that it has less.
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::{Cluster, Node, compare, data, process};

use super::fake_transfer::SOON;
use super::pair::{SLOW, program, set_sst, until, verb, words_of};

/// Rows that every node has, and those that were written while the third was away.
const BEFORE: usize = 300;
const AFTER: usize = 700;

#[test]
fn each_node_keeps_its_own_state_when_all_are_killed() -> Result<()> {
    let cluster = Cluster::builder().nodes(3).mysqld_of(3, "wsrep_sst_donor=n1").build()?;
    let (n1, n3) = (cluster.node(1), cluster.node(3));
    cluster.start_all()?;
    data::sysbench_tables(n1, 2, 3000)?;
    write(n1, BEFORE)?;
    compare::wait_caught_up(n1, n3, Duration::from_secs(20))?;
    n3.stop()?;
    let own = n3.grastate()?;
    write(n1, AFTER)?;
    n1.exec(&[
        "USE sbtest",
        "CREATE TABLE sbtest.later AS SELECT seq FROM seq_1_to_5000",
        "UPDATE sbtest.sbtest1 SET k=k+1",
    ])?;
    compare::wait_caught_up(n1, cluster.node(2), Duration::from_secs(20))?;
    kill_all_in_a_transfer(&cluster)?;

    says_what_it_holds(&cluster, own.seqno)?;
    let killed: Vec<_> = cluster.nodes().iter().map(|node| node.snapshot("killed")).collect::<Result<_>>()?;
    for (node, rows) in cluster.nodes().iter().zip([BEFORE + AFTER, BEFORE + AFTER, BEFORE]) {
        alone(node, rows).with_context(|| format!("bootstrapped from {}", node.name()))?;
    }

    // The right one, with the others as its members: the transfer goes on, and the warning ends.
    cluster.nodes().iter().zip(&killed).try_for_each(|(node, killed)| node.restore(killed))?;
    set_sst(n1, &[])?;
    set_safe_to_bootstrap(n1)?;
    n1.bootstrap()?;
    n3.join()?;
    compare::assert_equal(n1, n3)?;
    n3.wait_tidy()?;
    n3.stop()?;
    let (_, said) = verb(&cluster, n3, "check")?;
    ensure!(!said.contains("did not finish"), "{said}");
    Ok(())
}

fn write(node: &Node, rows: usize) -> Result<()> {
    node.exec(&[
        "USE sbtest",
        "CREATE TABLE IF NOT EXISTS sbtest.own (id INT AUTO_INCREMENT PRIMARY KEY, text TEXT)",
        &format!("INSERT INTO sbtest.own (text) SELECT REPEAT(MD5(seq), 20) FROM seq_1_to_{rows}"),
    ])
}

/// The third node receives files; then no process of the cluster is left.
fn kill_all_in_a_transfer(cluster: &Cluster) -> Result<()> {
    let (n1, n3) = (cluster.node(1), cluster.node(3));
    set_sst(n1, &SLOW)?;
    n3.remove_grastate()?;
    let _ = fs::remove_file(n3.datadir().join("rejoin-status.json"));
    n3.begin(&[])?;
    let status = rejoin_lab::progress::StatusReader::of(n3);
    until("data flows", Duration::from_secs(60), || {
        let receives = status.read().is_some_and(|s| s.phase == "receiving" && s.done_bytes > 0);
        Ok(receives && !program(n1).is_empty() && !program(n3).is_empty())
    })
    .with_context(|| words_of(n3))?;
    process::kill_cluster(cluster.dir());
    for node in cluster.nodes() {
        node.wait_exit(SOON).context("a killed server has ended")?;
    }
    ensure!(process::of_cluster(cluster.dir()).is_empty(), "a process is left");
    Ok(())
}

/// Before anything is started: the node that was joining says that it holds less than its donor did, and no other does.
fn says_what_it_holds(cluster: &Cluster, own: i64) -> Result<()> {
    for node in cluster.nodes() {
        let (_, said) = verb(cluster, node, "check")?;
        let warned =
            said.contains("did not finish") && said.contains("do not bootstrap a cluster from this node");
        ensure!(warned == (node.name() == "n3"), "{}:\n{said}", node.name());
    }
    let n3 = cluster.node(3);
    let (_, said) = verb(cluster, n3, "check")?;
    let line = said.lines().find(|line| line.contains("did not finish")).context("no finding")?;
    let donors = cluster.node(1).recover_position()?;
    ensure!(line.contains(&format!("n1, which was at {}:{}", donors.uuid, donors.seqno)), "{line}");
    ensure!(line.contains(&format!("(position {}:{own})", donors.uuid)), "{line}");
    let (_, said) = verb(cluster, n3, "status")?;
    ensure!(said.contains("do not bootstrap a cluster from it"), "{said}");
    Ok(())
}

/// A cluster of this node alone has what the node had.
fn alone(node: &Node, rows: usize) -> Result<()> {
    set_safe_to_bootstrap(node)?;
    node.bootstrap()?;
    let count = |table: &str| node.value(&format!("SELECT COUNT(*) FROM sbtest.{table}"));
    ensure!(count("own")? == rows.to_string(), "{} rows of {rows}", count("own")?);
    ensure!(count("sbtest1")? == "3000" && count("sbtest2")? == "3000");
    let later = count("later").ok();
    ensure!(later.as_deref() == (rows > BEFORE).then_some("5000"), "{later:?}");
    for table in ["own", "sbtest1", "sbtest2"] {
        let said = node.rows(&format!("CHECK TABLE sbtest.{table} EXTENDED"))?;
        ensure!(said.iter().any(|row| row.last().is_some_and(|text| text == "OK")), "{said:?}");
    }
    node.kill();
    Ok(())
}

/// What an operator does who is sure; the server refuses to bootstrap otherwise.
fn set_safe_to_bootstrap(node: &Node) -> Result<()> {
    let path = node.datadir().join("grastate.dat");
    let text = fs::read_to_string(&path)?.replace("safe_to_bootstrap: 0", "safe_to_bootstrap: 1");
    Ok(fs::write(path, text)?)
}
