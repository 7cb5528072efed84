//! Where a node keeps its files is its own affair: donor and joiner differ in it, and everything arrives.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::other::OtherFilesystem;
use rejoin_lab::skipped::skip;
use rejoin_lab::{Cluster, Node, compare, data, places, process, sample_schema, sst};

#[test]
fn each_part_of_the_datadir_lies_elsewhere_on_each_node() -> Result<()> {
    let mut builder = Cluster::builder().nodes(2);
    for line in [
        "innodb_page_size=4k",
        // What 4k pages cannot have becomes something else instead of an error.
        "innodb_strict_mode=OFF",
        "innodb_data_file_path=ibdata1:12M;ibdata2:12M:autoextend",
        "innodb_undo_tablespaces=3",
    ] {
        builder = builder.mysqld(line);
    }
    let cluster = builder.apart(1).build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    sample_schema::create(n1)?;
    data::sysbench_tables(n1, 2, 3000)?;

    // None of the joiner's directories exists: relative ones, and two on another filesystem.
    n2.wipe()?;
    let other = OtherFilesystem::of(n2)?;
    n2.add_options(
        "mysqld",
        &[
            "innodb_data_home_dir=ihome",
            &format!("innodb_log_group_home_dir={}/a/log", other.path().display()),
            &format!("innodb_undo_directory={}/undo", other.path().display()),
            "aria_log_dir_path=./aria/",
            "ignore_db_dirs=ihome",
            "ignore_db_dirs=aria",
        ],
    )?;
    let parts = |other: &Path| {
        let data = n2.datadir();
        [
            data.join("ihome/ibdata1"),
            data.join("ihome/ibdata2"),
            data.join("aria/aria_log_control"),
            other.join("a/log/ib_logfile0"),
            other.join("undo/undo001"),
            other.join("undo/undo003"),
        ]
    };
    for round in ["an empty node", "its own earlier copy"] {
        n2.join().context(round)?;
        compare::assert_equal(n1, n2)?;
        sst::assert_not_behind(n1, n2)?;
        assert_eq!(n2.unexpected_errors(&[]), Vec::<String>::new());
        n2.wait_tidy()?;
        for part in parts(other.path()) {
            ensure!(part.is_file(), "{round}: {} is not there", part.display());
        }
        ensure!(!n2.datadir().join("ibdata1").exists() && !n2.datadir().join("undo001").exists());
        ensure!(!other.path().join("undo/.rejoin").exists() && !other.path().join("a/log/.rejoin").exists());
        n1.exec(&["UPDATE sbtest.sbtest1 SET k=k+1", "INSERT INTO zoo.aria_t VALUES (99999, 'more')"]).ok();
        n2.stop()?;
        n2.innochecksum()?;
        n2.remove_grastate()?;
    }
    Ok(())
}

#[test]
fn tables_outside_the_datadir_arrive_and_strangers_are_left_alone() -> Result<()> {
    if !places::User::for_servers()?.switch {
        return skip(
            "root: each node has a mount namespace of its own, for they would share the directories",
        );
    }
    let mut builder = Cluster::builder().nodes(2).private_external();
    builder = builder.mysqld("ignore_db_dirs=lost+found").mysqld("ignore_db_dirs=scratch");
    let cluster = builder.build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    for node in [n1, n2] {
        // As mkfs leaves it: not the server's.
        fs::DirBuilder::new().mode(0o700).create(node.datadir().join("lost+found"))?;
    }
    n1.bootstrap()?;
    n1.exec(&["CREATE DATABASE zoo", "CREATE DATABASE linked", "USE linked"])?;
    sample_schema::create_external(n1, &cluster.external())?;
    n1.exec(&[
        "USE linked",
        "CREATE TABLE linked.t (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB",
        "INSERT INTO linked.t SELECT seq, REPEAT(MD5(seq), 20) FROM seq_1_to_5000",
        "CREATE TABLE linked.m (a INT) ENGINE=MyISAM",
        "INSERT INTO linked.m SELECT seq FROM seq_1_to_500",
    ])?;
    n1.stop()?;
    lead_elsewhere(n1, "linked", &n1.dir().join("elsewhere"))?;
    fs::create_dir(n1.datadir().join("scratch"))?;
    fs::write(n1.datadir().join("scratch/t.ibd"), "not a table")?;
    n1.bootstrap()?;

    refuses_strangers(n1, n2)?;

    // A missing directory is made.
    fs::remove_dir_all(n2.dir().join("external/data"))?;
    n2.join()?;
    sst::assert_snapshot(n2, "online")?;
    equal_and_complete(n1, n2)?;
    ensure!(n2.datadir().join("lost+found").is_dir() && !n2.datadir().join("scratch").exists());

    // The earlier copy of its own is replaced, also behind the links of its own operator.
    n2.stop()?;
    n2.remove_grastate()?;
    let other = OtherFilesystem::of(n2)?;
    lead_elsewhere(n2, "linked", &other.path().join("linked"))?;
    n1.exec(&[
        "USE linked",
        "UPDATE zoo.ext_innodb SET b=REVERSE(b)",
        "DELETE FROM zoo.ext_myisam WHERE a % 2 = 0",
        "UPDATE linked.t SET b=MD5(b)",
    ])?;
    n1.add_options("sst", &["snapshot=blocking"])?;
    n2.join()?;
    sst::assert_snapshot(n2, "blocking")?;
    equal_and_complete(n1, n2)?;
    let link = n2.datadir().join("linked");
    ensure!(link.is_symlink() && other.path().join("linked/t.ibd").is_file(), "the operator's link stays");
    n2.stop()?;
    n2.innochecksum()?;
    Ok(())
}

fn equal_and_complete(donor: &Node, joiner: &Node) -> Result<()> {
    compare::assert_equal(donor, joiner)?;
    sst::assert_not_behind(donor, joiner)?;
    assert_eq!(joiner.unexpected_errors(&[]), Vec::<String>::new());
    joiner.wait_tidy()?;
    for file in ["data/zoo/ext_innodb.ibd", "data/ext_myisam.MYD", "index/ext_aria.MAI"] {
        let path = joiner.dir().join("external").join(file);
        ensure!(path.is_file(), "{} is not there", path.display());
    }
    ensure!(joiner.datadir().join("zoo/ext_myisam.MYD").is_symlink());
    Ok(())
}

/// A file that nobody can tell to be this node's own stands where a table must go.
fn refuses_strangers(donor: &Node, joiner: &Node) -> Result<()> {
    for file in ["data/zoo/ext_innodb.ibd", "data/ext_myisam.MYD"] {
        let stranger = joiner.dir().join("external").join(file);
        fs::create_dir_all(stranger.parent().context("its directory")?)?;
        fs::write(&stranger, "somebody's")?;
        places::User::for_servers()?.own(&joiner.dir().join("external"))?;
        // What arrived lies in directories of the program's own, and the next start removes it.
        let old_files = || -> Result<sst::Listing> {
            let own = |path: &Path| {
                path.components().any(|c| c.as_os_str() == ".rejoin" || c.as_os_str() == "#sql-rejoin")
            };
            Ok(joiner.files()?.into_iter().filter(|(path, _)| !own(path)).collect())
        };
        let (before, mark) = (old_files()?, donor.log_mark());
        let log = joiner.fail_to_join()?;
        donor.wait_synced_again(Duration::from_secs(20))?;
        let words = format!("{file} exists on this node and is not an earlier copy of the donor's");
        ensure!(log.contains(&words), "the joiner's log does not say it:\n{}", process::tail(&log, 30));
        // The donor's failure comes a second after the joiner's.
        let until = Instant::now() + Duration::from_secs(10);
        while !donor.log_since(mark).contains(&words) {
            ensure!(Instant::now() < until, "the donor's log does not say it:\n{}", donor.log_since(mark));
            std::thread::sleep(Duration::from_millis(100));
        }
        donor.wait_synced_again(Duration::from_secs(20))?;
        ensure!(old_files()? == before, "something was touched");
        donor.exec(&["INSERT INTO linked.t SELECT MAX(a)+1, 'still writes' FROM linked.t"])?;
        fs::remove_file(&stranger)?;
    }
    Ok(())
}

/// Moves a database's directory and leaves a symbolic link, as operators do with large ones.
fn lead_elsewhere(node: &Node, database: &str, to: &Path) -> Result<()> {
    let from = node.datadir().join(database);
    let owner = from.metadata()?;
    let mut copy = std::process::Command::new("cp");
    copy.arg("-a").arg(&from).arg(to);
    process::run(copy, Duration::from_secs(60))?;
    fs::remove_dir_all(&from)?;
    symlink(to, &from)?;
    std::os::unix::fs::lchown(&from, Some(owner.uid()), Some(owner.gid())).context("owner of the link")
}
