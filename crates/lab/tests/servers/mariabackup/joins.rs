//! Joins with `snapshot=mariabackup`: of an empty node, of one with its old files, and with files in several places.
use anyhow::{Context, Result, ensure};
use rejoin_lab::other::OtherFilesystem;
use rejoin_lab::progress::sent;
use rejoin_lab::{Cluster, data, sample_schema};

use super::fixture::{ROWS, TABLES, changed, joined_by_mariabackup};

#[test]
fn a_node_joins_by_mariadb_backup_with_nothing_and_with_its_old_files() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).sst("compress=zstd").build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    sample_schema::create(donor)?;
    data::sysbench_tables(donor, TABLES, ROWS)?;
    donor.add_options("sst", &["snapshot=mariabackup"])?;
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
    // The donor is not blocked, and no program is left on it.
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
