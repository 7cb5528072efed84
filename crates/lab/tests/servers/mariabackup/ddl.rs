//! DDL on the donor while mariadb-backup works.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::repeated::Repeated;
use rejoin_lab::{Cluster, Node, data, process, sql};

use super::fixture::{ROWS, TABLES, joined_by_mariabackup};

/// Joins while tables are made again. One is enough, as a rule, for mariadb-backup to lose some.
const ROUNDS: usize = 3;

/// Tables without redo that are dropped, created and altered again and again, with rows. All of it is replicated.
fn remade(donor: &Node) -> Result<Repeated> {
    let mut n = 0_u32;
    Repeated::start(donor, "remade", Duration::from_millis(20), move |conn| {
        n += 1;
        let (table, engine) = (format!("sbtest.remade{}", n % 8), ["Aria", "MyISAM"][n as usize % 2]);
        let columns = format!("a INT PRIMARY KEY, b{n} INT, pad CHAR(200)");
        sql::exec(conn, &format!("CREATE OR REPLACE TABLE {table} ({columns}) ENGINE={engine}"))?;
        sql::exec(conn, &format!("INSERT INTO {table} VALUES ({n}, {n}, MD5({n}))"))?;
        if n.is_multiple_of(3) {
            sql::exec(conn, &format!("ALTER TABLE {table} ADD COLUMN c{n} INT DEFAULT {n}"))?;
        }
        Ok(())
    })
}

/// mariadb-backup loses such tables, or keeps an earlier one of the same name: what the datadir has under its locks counts, and
/// no second backup is needed because of it.
#[test]
fn tables_without_redo_that_are_made_again_meanwhile_arrive() -> Result<()> {
    let cluster = Cluster::builder()
        .nodes(2)
        .mysqld("wsrep_mode=REPLICATE_ARIA,REPLICATE_MYISAM")
        .sst("snapshot=mariabackup")
        .build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    data::sysbench_tables(donor, TABLES, ROWS)?;
    for round in 1..=ROUNDS {
        joiner.wipe()?;
        let work = remade(donor)?;
        let joined = joiner.join();
        let done = work.stop()?.done;
        joined.with_context(|| process::tail(&donor.log_text(), 40))?;
        joined_by_mariabackup(donor, joiner).with_context(|| format!("round {round}, {done} tables made"))?;
        joiner.stop()?;
    }
    let log = donor.log_text();
    // Another fault of mariadb-backup may have it started again, but not this one.
    let again: Vec<&str> =
        log.lines().filter(|line| line.contains("started again") && line.contains("its backup")).collect();
    ensure!(again.is_empty(), "{}", again.join("\n"));
    let read = log.lines().filter(|line| line.contains("files without redo")).count();
    ensure!(read >= ROUNDS, "files were read under the locks in {read} rounds:\n{log}");
    let lost =
        log.lines().any(|line| line.contains("mariadb-backup had lost ") && !line.contains("had lost 0"));
    ensure!(lost, "mariadb-backup lost no table, so this has tested nothing");
    Ok(())
}
