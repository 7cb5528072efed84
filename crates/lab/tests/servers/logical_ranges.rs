//! How the rows of large tables are divided for a logical snapshot, whatever their keys are; and a joiner with other system files.
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::{Cluster, Node, compare, process, sql, sst};
use serde_json::Value;

/// Tables of 20 to 40 MB with the keys of their names, and whether they can be divided.
const TABLES: [(&str, &str, &str, bool); 8] = [
    ("dense", "id INT AUTO_INCREMENT PRIMARY KEY", "seq", true),
    ("sparse", "id BIGINT UNSIGNED PRIMARY KEY", "seq * seq * 1000000", true),
    (
        "words",
        "id VARCHAR(50) COLLATE utf8mb4_general_ci PRIMARY KEY",
        "CONCAT(CHAR(65 + seq % 58), ' é', seq)",
        true,
    ),
    ("bytes", "id VARBINARY(20) PRIMARY KEY", "UNHEX(MD5(seq))", true),
    ("two", "a SMALLINT, b VARCHAR(40) CHARACTER SET latin1, PRIMARY KEY (a, b)", "seq % 3, MD5(seq)", true),
    ("down", "a DATE, b INT, PRIMARY KEY (a, b DESC)", "FROM_DAYS(730000 + seq % 200), seq", false),
    ("unique_only", "id DECIMAL(20,4) NOT NULL UNIQUE", "seq / 7 - 3000", true),
    ("none", "id INT", "seq % 1000", false),
];

/// Rows of each.
const ROWS: u32 = 60_000;

#[test]
fn tables_with_every_kind_of_key_come_in_ranges_to_other_system_files() -> Result<()> {
    let files = "innodb_data_file_path=system1:10M;system2:12M:autoextend";
    let cluster = Cluster::builder().mysqld_of(2, files).build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    tables(n1)?;
    let reason = "innodb_data_file_path differs: 1 files on the donor, 2 on the joiner";
    let plan = plan(&cluster, n1, n2)?;
    ensure!(plan["kind"] == "logical" && plan["kind_why"] == reason, "{plan:#}");
    n2.join()?;
    sst::assert_snapshot(n2, &format!("logical ({reason})"))?;
    n1.wait_synced_again(Duration::from_secs(20))?;
    compare::assert_equal(n1, n2)?;
    each_was_divided(n1)?;
    // The server works with these files, and starts on them again.
    for (name, bytes) in [("system1", 10 << 20), ("system2", 12 << 20)] {
        let found = std::fs::metadata(n2.datadir().join(name)).with_context(|| name.to_owned())?.len();
        ensure!(found >= bytes, "{name} has {found} bytes");
    }
    n2.exec(&["INSERT INTO d.dense (c) VALUES ('after')"])?;
    n2.stop()?;
    n2.join()?;
    compare::wait_caught_up(n1, n2, Duration::from_secs(20))?;
    compare::assert_equal(n1, n2)
}

/// Rows that a server loads while they are read come in the same ranges.
#[test]
fn a_server_that_runs_gets_the_same_ranges() -> Result<()> {
    let cluster = Cluster::builder()
        .in_place_of("mysqldump")
        .mysqld("wsrep_sst_auth=copier:Open.Sesame-7")
        .mysqld("wsrep_sst_receive_address=AUTO")
        .build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    for node in [n1, n2] {
        node.bootstrap()?;
        for host in ["localhost", "%"] {
            node.exec(&[&format!(
                "GRANT ALL PRIVILEGES ON *.* TO copier@'{host}' IDENTIFIED BY 'Open.Sesame-7'"
            )])?;
        }
    }
    n2.stop()?;
    tables(n1)?;
    n2.join().map_err(|e| e.context(process::tail(&n1.log_text(), 40)))?;
    n1.wait_synced_again(Duration::from_secs(20))?;
    compare::assert_equal(n1, n2)?;
    each_was_divided(n1)
}

fn each_was_divided(donor: &Node) -> Result<()> {
    for (name, key, _, divided) in TABLES {
        let ranges = ranges_of(donor, name)?;
        ensure!(if divided { ranges > 1 } else { ranges == 1 }, "{name} ({key}) was read in {ranges} ranges");
    }
    Ok(())
}

fn tables(node: &Node) -> Result<()> {
    let mut conn = node.connect()?;
    sql::exec(&mut conn, "CREATE DATABASE d")?;
    sql::exec(&mut conn, "USE d")?;
    for (name, key, values, _) in TABLES {
        let columns = "c VARCHAR(400) NOT NULL, KEY c (c(20))";
        sql::exec(&mut conn, &format!("CREATE TABLE {name} ({key}, {columns}) CHARACTER SET utf8mb4"))?;
        sql::exec(
            &mut conn,
            &format!("INSERT INTO {name} SELECT {values}, REPEAT(MD5(seq), 11) FROM seq_1_to_{ROWS}"),
        )?;
        sql::exec(&mut conn, &format!("ANALYZE TABLE {name}"))?;
    }
    Ok(())
}

/// What `rejoin plan` says of the joiner, which is down.
fn plan(cluster: &Cluster, donor: &Node, joiner: &Node) -> Result<Value> {
    let mut command = Command::new(cluster.program_dir().join("rejoin"));
    command.args(["plan", "--json", "--defaults-file"]).arg(joiner.option_file());
    let out = command.arg("--donor").arg(donor.socket()).output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    serde_json::from_str(&text).with_context(|| format!("{text}\n{}", String::from_utf8_lossy(&out.stderr)))
}

/// In how many ranges the donor read a table, by its transfer log.
fn ranges_of(donor: &Node, table: &str) -> Result<u32> {
    let logs = std::fs::read_dir(donor.datadir())?.flatten().map(|entry| entry.path());
    let log = logs
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("rejoin-donor-") && name.ends_with(".log")
        })
        .max()
        .context("no log of a transfer")?;
    let text = std::fs::read_to_string(log)?;
    let words = format!("d.{table} was read in ");
    let line = text.lines().find(|line| line.contains(&words));
    let number = line.and_then(|line| line.split_once(&words)?.1.split(' ').next()?.parse().ok());
    number.with_context(|| format!("nothing about {table}:\n{}", process::tail(&text, 30)))
}
