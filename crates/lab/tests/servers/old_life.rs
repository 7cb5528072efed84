//! Nothing of a joiner's earlier life acts on the new data, and nothing of the host's is lost.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::{Cluster, Node, compare, places, sst};

/// Written into files of the old life; no new file may hold it.
const OLD: &str = "of the old life";
/// Files of the host's own.
const KEPT: [&str; 7] =
    ["server-key.pem", "n2.err", "n2-slow.log", "notes.txt", "backup/dump.sql", "ours.cnf", ".hidden"];
/// Files that a server would act upon.
const PAST: [&str; 5] =
    ["tc.log", "ib_logfile101", "aria_log.00000009", "#sql-alter-1.MYD", "ddl_recovery.log"];

#[test]
fn an_old_life_ends_and_the_hosts_files_stay() -> Result<()> {
    let builder = Cluster::builder().mysqld("log_bin=mybin").mysqld("log_slave_updates=ON");
    let builder = builder
        .mysqld("relay_log=myrelay")
        .mysqld("gtid_domain_id=4")
        .mysqld("innodb_undo_tablespaces=2")
        .mysqld("ignore_db_dirs=backup")
        .provider("pc.recovery", "yes");
    let cluster =
        builder.sst_of(2, r"cpat=.*/kept_db\|.*/tc\.log").sst_of(2, "keep-previous=always").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    n1.exec(&["CREATE DATABASE d", "CREATE TABLE d.t (a INT PRIMARY KEY) ENGINE=InnoDB"])?;
    n1.exec(&["INSERT INTO d.t VALUES (1),(2),(3)"])?;

    lives_alone(n2)?;
    let kept = leave_files(n2)?;
    n2.join().context("the join")?;
    sst::assert_not_behind(n1, n2)?;

    assert_eq!(n2.rows("SHOW ALL SLAVES STATUS")?, Vec::<Vec<String>>::new(), "a replica of the old life");
    assert_eq!(
        n2.value("SELECT @@global.gtid_binlog_state")?,
        n1.value("SELECT @@global.gtid_binlog_state")?
    );
    assert_eq!(n2.rows("SHOW BINARY LOGS")?.len(), 1);
    ensure!(n2.value("SELECT COUNT(*) FROM kept_db.m")? == "3", "cpat keeps a database");
    n2.exec(&["SET SESSION wsrep_on=0", "DROP DATABASE kept_db"])?;
    compare::assert_equal(n1, n2)?;
    assert_eq!(n2.unexpected_errors(&[]), Vec::<String>::new());
    ensure!(n2.log_since_start().contains("tc.log"), "cpat cannot keep tc.log, and the log should say so");
    ensure!(
        n2.log_since_start().contains("/master.info is removed with the old data"),
        "a replica ends unsaid"
    );

    for (name, text) in &kept {
        assert_eq!(&fs::read_to_string(n2.datadir().join(name))?, text, "{name} was to stay");
    }
    for name in ["grastate.dat", "galera.cache", "gvwstate.dat"] {
        ensure!(n2.datadir().join(name).is_file(), "{name} is gone");
    }
    let mut aside = Vec::new();
    for path in n2.files()?.keys().filter(|path| path.metadata().is_ok_and(|m| m.len() < 1 << 20)) {
        let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
        let kept = path.starts_with(n2.datadir().join("#sql-rejoin"));
        ensure!(kept || !text.contains(OLD), "{} is of the old life", path.display());
        aside.extend(text.strip_suffix(OLD).map(|name| name.trim().to_owned()));
    }
    // A server would write over some of them without a word: they were gone before it looked.
    aside.sort();
    let mut past = PAST.map(str::to_owned);
    past.sort();
    assert_eq!(aside, past);
    // The server makes an empty one at its start.
    assert_eq!(fs::read_to_string(n2.datadir().join("multi-master.info"))?.trim(), "");
    for name in ["master.info", "relay-log.info", "master-other.info", "myrelay.index", "only_old"] {
        ensure!(!n2.datadir().join(name).exists(), "{name} is of the old life");
    }
    Ok(())
}

/// A server of its own: a replica of two sources, with binary and relay logs, databases, accounts.
fn lives_alone(node: &Node) -> Result<()> {
    node.begin(&["--wsrep-new-cluster", "--skip-slave-start"])?;
    node.wait_synced(Duration::from_secs(60))?;
    node.exec(&[
        "CREATE DATABASE only_old",
        "CREATE TABLE only_old.t (a INT PRIMARY KEY) ENGINE=InnoDB",
        "INSERT INTO only_old.t VALUES (1)",
        "CREATE DATABASE kept_db",
        "CREATE TABLE kept_db.m (a INT) ENGINE=MyISAM",
        "INSERT INTO kept_db.m VALUES (1),(2),(3)",
        "FLUSH BINARY LOGS",
        "INSERT INTO only_old.t VALUES (2)",
        "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=1, MASTER_USER='nobody', MASTER_CONNECT_RETRY=60",
        "CHANGE MASTER 'other' TO MASTER_HOST='127.0.0.1', MASTER_PORT=2, MASTER_USER='nobody'",
        "START SLAVE",
        "START SLAVE 'other'",
        "FLUSH TABLES kept_db.m",
    ])?;
    // A crash: nothing was put in order.
    node.kill();
    Ok(())
}

/// Everything else an old datadir may hold. Answers what must stay.
fn leave_files(node: &Node) -> Result<Vec<(&'static str, String)>> {
    let data = node.datadir();
    let old = [
        "master.info",
        "relay-log.info",
        "multi-master.info",
        "master-other.info",
        "mybin.000002",
        "myrelay.index",
    ];
    for name in old {
        ensure!(data.join(name).exists(), "the old life was to have {name}");
    }
    for name in PAST {
        fs::write(data.join(name), format!("{name} {OLD}"))?;
    }
    fs::create_dir(data.join("backup"))?;
    let mut kept = Vec::new();
    for name in KEPT {
        let text = format!("{name} of the host's");
        fs::write(data.join(name), &text)?;
        kept.push((name, text));
    }
    places::User::for_servers()?.own(&data)?;
    Ok(kept)
}
