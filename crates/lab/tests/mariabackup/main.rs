//! mariadb-backup as a source of data: as the donor's snapshot, and as a base that a command of the joiner restores.

mod ddl;
mod stream;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::other::OtherFilesystem;
use rejoin_lab::progress::sent;
use rejoin_lab::{Cluster, Node, compare, data, places, process, sample_schema, sst};
use serde_json::Value;

const TABLES: u32 = 3;
const ROWS: u32 = 10_000;

/// The kind of snapshot of a node that donates.
fn set_snapshot(donor: &Node, lines: &[&str]) -> Result<()> {
    donor.add_options("sst", lines)
}

/// An executable file of the servers' user.
fn script(path: &Path, text: &str) -> Result<PathBuf> {
    fs::write(path, format!("#!/bin/sh\n{text}\n"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    places::User::for_servers()?.own(path)?;
    Ok(path.to_owned())
}

fn changed(donor: &Node, round: &str) -> Result<()> {
    donor.exec(&[
        "USE sbtest",
        &format!("UPDATE sbtest1 SET c = 'changed in {round}' WHERE id BETWEEN 100 AND 120"),
        &format!("CREATE TABLE of_{round} (a INT PRIMARY KEY) SELECT seq a FROM seq_1_to_1000"),
    ])
}

fn joined_by_mariabackup(donor: &Node, joiner: &Node) -> Result<()> {
    sst::assert_snapshot(joiner, "mariabackup")?;
    let log = joiner.log_since_start();
    for said in ["read back: ", "the backup is prepared, at ", "the files that arrived recover to "] {
        ensure!(log.contains(said), "the joiner does not say {said:?}:\n{log}");
    }
    compare::assert_equal(donor, joiner)?;
    sst::assert_not_behind(donor, joiner)?;
    assert_eq!(joiner.unexpected_errors(&[]), Vec::<String>::new());
    joiner.wait_tidy()
}

#[test]
fn a_node_joins_by_mariadb_backup_with_nothing_and_with_its_old_files() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).sst("compress=zstd").build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    sample_schema::create(donor)?;
    data::sysbench_tables(donor, TABLES, ROWS)?;
    set_snapshot(donor, &["snapshot=mariabackup"])?;
    joiner.wipe()?;
    joiner.join()?;
    joined_by_mariabackup(donor, joiner)?;
    let full = sent(joiner)?;

    for round in ["first", "second"] {
        joiner.stop()?;
        changed(donor, round)?;
        donor.checkpoint()?;
        joiner.remove_grastate()?;
        joiner.join()?;
        joined_by_mariabackup(donor, joiner)?;
        let little = sent(joiner)?;
        ensure!(little.same > little.all / 2 && little.wire < full.wire / 2, "{little:?}, all were {full:?}");
    }
    // The donor is as before: nothing of it is blocked, and no program is left.
    donor.exec(&["UPDATE sbtest.sbtest1 SET k = k + 1 WHERE id < 10"])?;
    ensure!(donor.sst_processes().is_empty(), "{:?}", donor.sst_processes());
    joiner.stop()?;
    ensure!(joiner.innochecksum()? > 4, "tablespaces were checked");
    Ok(())
}

#[test]
fn files_of_a_backup_go_where_each_node_keeps_them() -> Result<()> {
    let mut builder = Cluster::builder().nodes(2).sst("snapshot=mariabackup");
    for line in ["innodb_data_file_path=ibdata1:12M;ibdata2:12M:autoextend", "innodb_undo_tablespaces=3"] {
        builder = builder.mysqld(line);
    }
    let cluster = builder.apart(1).build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    sample_schema::create(donor)?;
    data::sysbench_tables(donor, TABLES, ROWS)?;
    joiner.wipe()?;
    let other = OtherFilesystem::of(joiner)?;
    joiner.add_options(
        "mysqld",
        &[
            "innodb_data_home_dir=ihome",
            &format!("innodb_log_group_home_dir={}/log", other.path().display()),
            &format!("innodb_undo_directory={}/undo", other.path().display()),
            "ignore_db_dirs=ihome",
        ],
    )?;
    for round in ["an empty node", "its own earlier copy"] {
        joiner.join().context(round)?;
        joined_by_mariabackup(donor, joiner).context(round)?;
        let at = |path: &str| joiner.datadir().join(path);
        for file in [
            at("ihome/ibdata2"),
            at("aria_log_control"),
            other.path().join("log/ib_logfile0"),
            other.path().join("undo/undo003"),
        ] {
            ensure!(file.is_file(), "{round}: {} is not there", file.display());
        }
        ensure!(!at("ibdata1").exists() && !at("undo001").exists() && !at("ib_logfile0").exists());
        joiner.stop()?;
        joiner.remove_grastate()?;
    }
    Ok(())
}

/// What `rejoin plan` says to the joiner, which is down, where the donor's redo log counts as unknown.
fn planned(cluster: &Cluster) -> Result<Value> {
    let mut command = Command::new(cluster.program_dir().join("rejoin"));
    command.env("REJOIN_UNKNOWN_REDO", "1");
    command.args(["plan", "--json", "--defaults-file"]).arg(cluster.node(2).option_file());
    let out = command.arg("--donor").arg(cluster.node(1).socket()).output()?;
    serde_json::from_slice(&out.stdout).with_context(|| format!("{out:?}"))
}

/// It is taken by itself where the online snapshot cannot read what the server writes.
#[test]
fn it_is_chosen_where_the_online_snapshot_cannot_read_the_log() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    data::sysbench_tables(donor, TABLES, ROWS)?;
    // The donor's program takes every redo log for one of an unknown format.
    let (bin, program) = (cluster.program_dir(), cluster.program_dir().join("wsrep_sst_rejoin"));
    fs::create_dir(bin.join("real"))?;
    std::os::unix::fs::symlink("../rejoin", bin.join("real/wsrep_sst_rejoin"))?;
    fs::remove_file(&program)?;
    let real = bin.join("real/wsrep_sst_rejoin");
    script(&program, &format!("REJOIN_UNKNOWN_REDO=1 exec {} \"$@\"", real.display()))?;

    joiner.wipe()?;
    joiner.join()?;
    joined_by_mariabackup(donor, joiner)?;
    for node in [donor, joiner] {
        let log = node.log_text();
        let line = "snapshot: mariabackup (the layout of the redo log is not supported";
        ensure!(log.contains(line), "{}: {}", node.name(), process::tail(&log, 30));
    }

    joiner.stop()?;
    joiner.remove_grastate()?;
    let plan = planned(&cluster)?;
    ensure!(plan["snapshot"] == "mariabackup" && plan["pause"]["what"] == "replication", "{plan:#}");
    ensure!(plan["room"]["whole"] == true, "{plan:#}");
    joiner.join()?;
    joined_by_mariabackup(donor, joiner)?;

    // Where there is no such program, or it fails on either host, the blocking snapshot serves, and both logs say why.
    let fails = |name: &str, when: &str| {
        let text = format!(
            "case \"$*\" in *{when}*) echo 'broken on purpose' >&2; exit 9;; esac\nexec mariadb-backup \"$@\""
        );
        script(&cluster.dir().join(name), &text)
    };
    let (backup, prepare) = (fails("no-backup", "--backup")?, fails("no-prepare", "--prepare")?);
    for (node, path, why) in [
        (donor, Path::new("/nowhere"), "on the donor: mariadb-backup: cannot run /nowhere"),
        (joiner, Path::new("/nowhere"), "on the joiner: mariadb-backup: cannot run /nowhere"),
        (donor, &*backup, "mariadb-backup failed (exit status 9): broken on purpose"),
        (
            joiner,
            &*prepare,
            "the joiner could not prepare the backup of mariadb-backup: mariadb-backup --prepare failed",
        ),
    ] {
        joiner.stop()?;
        node.add_options("sst", &[&format!("mariabackup={}", path.display())])?;
        changed(
            donor,
            &format!("{}{}", node.name(), path.file_name().unwrap_or_default().to_string_lossy().len()),
        )?;
        joiner.remove_grastate()?;
        // That there is no program shows beforehand, that it fails does not.
        let plan = planned(&cluster)?;
        let said = plan["kind_why"].as_str().unwrap_or_default();
        let is_seen = plan["snapshot"] == "blocking" && plan["pause"]["what"] == "writes" && said.contains(why);
        ensure!(is_seen == (path == Path::new("/nowhere")), "{why}: {plan:#}");
        joiner.join().with_context(|| why.to_owned())?;
        sst::assert_snapshot(joiner, "blocking")?;
        for node in [donor, joiner] {
            ensure!(
                node.log_text().contains(why),
                "{} does not say {why:?}:\n{}",
                node.name(),
                process::tail(&node.log_text(), 40)
            );
        }
        compare::assert_equal(donor, joiner)?;
        joiner.wait_tidy()?;
        node.add_options("sst", &["mariabackup="])?;
    }

    // An operator who does not want it.
    joiner.stop()?;
    donor.add_options("sst", &["snapshot=online-or-blocking"])?;
    joiner.remove_grastate()?;
    let plan = planned(&cluster)?;
    ensure!(plan["snapshot"] == "blocking", "{plan:#}");
    joiner.join()?;
    sst::assert_snapshot(joiner, "blocking")?;
    let log = joiner.log_text();
    ensure!(log.contains("snapshot: blocking (the layout of the redo log is not supported"), "{log}");
    Ok(())
}

/// With `snapshot=mariabackup` there is no other: the transfer fails with the reason, and costs nothing.
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

    // A joiner that is killed, and a donor whose backup is: nothing goes on, and nothing is held.
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
        ensure!(Instant::now() < until, "{name} goes on: {:?}", all_of(name));
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
