//! Failures with `snapshot=mariabackup`, and killed programs.
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rejoin_lab::{Cluster, Node, data, process};

use super::fixture::{ROWS, TABLES, changed, joined_by_mariabackup, script};

/// `snapshot=mariabackup` allows no other snapshot: the transfer fails with the reason, and the nodes are as before.
#[test]
fn its_failure_is_named_and_costs_nothing() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).sst("snapshot=mariabackup").build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    data::sysbench_tables(donor, TABLES, ROWS)?;
    joiner.join()?;
    joiner.stop()?;
    changed(donor, "meanwhile")?;
    let broken = script(
        &cluster.dir().join("broken"),
        "case \"$*\" in *--backup*) mariadb-backup \"$@\" | head -c 3000000; exit 3;; esac\nexec mariadb-backup \"$@\"",
    )?;
    donor.add_options("sst", &[&format!("mariabackup={}", broken.display())])?;
    joiner.remove_grastate()?;
    let log = joiner.fail_to_join()?;
    ensure!(
        log.contains("the snapshot of mariadb-backup is not possible: mariadb-backup failed (exit status 3)"),
        "{log}"
    );
    donor.wait_synced_again(Duration::from_secs(30))?;

    // The joiner is killed: mariadb-backup ends on the donor, which is not blocked.
    donor.add_options("sst", &["mariabackup=", "rlimit=200k", "compress=none"])?;
    joiner.remove_grastate()?;
    joiner.begin(&[])?;
    wait_for(donor, "mariadb-backup")?;
    joiner.kill();
    gone(donor, "mariadb-backup")?;
    donor.wait_synced_again(Duration::from_secs(30))?;
    donor.exec(&[
        "CREATE TABLE sbtest.after_a_kill (a INT PRIMARY KEY)",
        "INSERT INTO sbtest.after_a_kill VALUES (1)",
    ])?;

    donor.add_options("sst", &["rlimit=4G", "compress=auto"])?;
    joiner.remove_grastate()?;
    joiner.join()?;
    joined_by_mariabackup(donor, joiner)
}

/// Programs of this name that a node's transfer has started.
fn programs(node: &Node, name: &str) -> Vec<u32> {
    let seen = node.sst_processes();
    seen.into_iter().map(|seen| seen.pid).filter(|pid| comm(*pid).starts_with(name)).collect()
}

/// The kernel keeps 15 bytes of a name.
fn comm(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
}

fn wait_for(node: &Node, name: &str) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(30);
    while all_of(name).is_empty() {
        ensure!(
            Instant::now() < until,
            "{name} was not started on {}:\n{}",
            node.name(),
            process::tail(&node.log_text(), 20)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn gone(node: &Node, name: &str) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    while !all_of(name).is_empty() || !programs(node, name).is_empty() {
        ensure!(Instant::now() < until, "{name} still runs: {:?}", all_of(name));
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Programs of this name whose option file is in memory: started by a donor's program.
fn all_of(name: &str) -> Vec<u32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let ours = |pid: &u32| {
        let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        comm(*pid).starts_with(&name[..name.len().min(15)]) && words.contains("/proc/self/fd/0")
    };
    pids.filter(ours).collect()
}
