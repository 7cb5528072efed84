//! Tables without transactions in transfers of rows: they are read under locks, and named before.
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::{Cluster, Node, compare, process};
use serde_json::Value;

/// What `rejoin plan` says of a stopped node, as text and as JSON.
fn plan(cluster: &Cluster, node: &Node, donor: &Node) -> Result<(String, Value)> {
    let said = |more: &[&str]| -> Result<String> {
        let mut command = Command::new(cluster.program_dir().join("rejoin"));
        command.arg("plan").args(more).arg("--defaults-file").arg(node.option_file());
        let output = command.arg("--donor").arg(donor.socket()).output()?;
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (text, json) = (said(&[])?, said(&["--json"])?);
    let json = serde_json::from_str(&json).with_context(|| json.clone())?;
    Ok((text, json))
}

/// Tables without transactions that are too large for a consistency point hold the locks, or are refused by name.
#[test]
fn large_tables_without_transactions_are_named() -> Result<()> {
    let cluster =
        Cluster::builder().sst_of(1, "blocking=never").mysqld_of(2, "innodb_page_size=8k").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    n1.exec(&[
        "CREATE DATABASE d",
        "USE d",
        "CREATE TABLE d.small (a INT PRIMARY KEY) ENGINE=Aria",
        "INSERT INTO d.small SELECT seq FROM seq_1_to_2000",
    ])?;
    let (text, json) = plan(&cluster, n2, n1)?;
    let small = &json["tables_under_locks"];
    ensure!(small["tables"][0]["name"] == "d.small" && small["tables"][0]["engine"] == "Aria", "{json:#}");
    ensure!(small["until_all_is_read"] == false && small["rate_from"] == "assumed", "{json:#}");
    ensure!(json["kind"] == "logical" && json["pause"]["what"] == "writes", "{json:#}");
    ensure!(
        text.contains("while 1 table without transactions is read, ") && text.contains("d.small (Aria, "),
        "{text}"
    );
    n1.exec(&[
        "USE d",
        "CREATE TABLE d.large (a INT PRIMARY KEY, b VARCHAR(2000)) ENGINE=MyISAM",
        "INSERT INTO d.large SELECT seq, REPEAT(MD5(seq), 60) FROM seq_1_to_20000",
    ])?;
    let (text, json) = plan(&cluster, n2, n1)?;
    ensure!(json["kind"] == "refused" && text.contains("blocking=never forbids"), "{text}\n{json:#}");
    let log = n2.fail_to_join()?;
    ensure!(
        log.contains("d.large (MyISAM, ") && log.contains("blocking=never forbids"),
        "{}",
        process::tail(&log, 30)
    );
    n1.wait_synced_again(Duration::from_secs(20))?;
    n1.add_options("sst", &["blocking=auto", "rlimit=20M"])?;
    let (text, json) = plan(&cluster, n2, n1)?;
    let large = &json["tables_under_locks"];
    ensure!(large["tables"][0]["name"] == "d.large" && large["count"] == 2, "{json:#}");
    ensure!(large["until_all_is_read"] == true && large["rate_from"] == "rlimit", "{json:#}");
    let holds = large["holds_writes_s"].as_f64().unwrap_or_default();
    ensure!(holds > 1.5 && json["pause"]["takes_s"].as_f64() == Some(holds), "{json:#}");
    ensure!(
        text.contains("until everything is read, about ") && text.contains("d.large (MyISAM, "),
        "{text}"
    );
    n2.join()?;
    n1.wait_synced_again(Duration::from_secs(20))?;
    let log = n2.log_since_start();
    ensure!(log.contains("locks held until everything was read"), "{}", process::tail(&log, 30));
    for log in [log, n1.log_text()] {
        let words = "plan: full, the rows of ";
        let line = log.lines().rev().find(|line| line.contains(words)).unwrap_or_default();
        ensure!(
            line.contains("until everything is read, about ") && line.contains("d.large (MyISAM, "),
            "{line}"
        );
        ensure!(line.contains("at the rlimit of 20.0 MiB/s"), "{line}");
    }
    compare::assert_equal(n1, n2)
}

/// The locks that are held until everything is read go when the operator's time is over, and both hosts say why.
#[test]
fn locks_are_held_no_longer_than_the_operator_allows() -> Result<()> {
    let cluster = Cluster::builder()
        .sst_of(1, "blocking=5")
        .sst_of(1, "rlimit=500k")
        .mysqld_of(2, "innodb_page_size=8k")
        .build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    n1.exec(&[
        "CREATE DATABASE d",
        "USE d",
        "CREATE TABLE d.large (a INT PRIMARY KEY, b VARBINARY(1000)) ENGINE=MyISAM",
        "INSERT INTO d.large SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_40000",
        "CREATE TABLE d.written (a INT AUTO_INCREMENT PRIMARY KEY)",
    ])?;
    let log = n2.fail_to_join()?;
    let before = "; blocking=5 under [sst] on the donor would end the transfer after 5 s of that";
    ensure!(log.contains(before), "{}", process::tail(&log, 30));
    ensure!(
        log.contains("took longer than the 5 s that blocking= under [sst] on the donor allows"),
        "{}",
        process::tail(&log, 30)
    );
    n1.wait_synced_again(Duration::from_secs(20))?;
    n1.exec(&["INSERT INTO d.written VALUES ()"])
}
