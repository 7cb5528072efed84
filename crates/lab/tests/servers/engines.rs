//! Tables whose rows are not in files that travel: nothing is silently left out.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use rejoin_lab::{Cluster, Node, compare, places, process, sst};

/// Definitions made by servers with these engines.
const FRM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../formats/tests/data/frm");

#[test]
fn engines_that_cannot_travel_are_named_on_both_hosts() -> Result<()> {
    let cluster = Cluster::builder().build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    n1.exec(&[
        "CREATE DATABASE eng",
        "CREATE TABLE eng.t (a INT PRIMARY KEY) ENGINE=InnoDB",
        "INSERT INTO eng.t VALUES (1),(2)",
    ])?;
    n1.stop()?;
    for name in ["rocksdb_t", "part_rocksdb", "mroonga_t", "connect_t", "spider_t", "federated_t"] {
        fs::copy(Path::new(FRM).join(format!("{name}.frm")), n1.datadir().join(format!("eng/{name}.frm")))?;
    }
    // The file a partitioned table of RocksDB has beside its definition, and where the rows are.
    fs::write(n1.datadir().join("eng/part_rocksdb.par"), "")?;
    fs::create_dir(n1.datadir().join("#rocksdb"))?;
    fs::write(n1.datadir().join("#rocksdb/CURRENT"), "MANIFEST-000001\n")?;
    fs::write(n1.datadir().join("eng.mrn"), "rows of Mroonga")?;
    places::User::for_servers()?.own(&n1.datadir())?;
    n1.bootstrap()?;

    refused(n1, n2)?;

    // The operator knows, and does without.
    n1.stop()?;
    n1.add_options("sst", &["skip-engines=RocksDB, mroonga"])?;
    n1.bootstrap()?;
    let mark = n1.log_mark();
    n2.join()?;
    sst::assert_not_behind(n1, n2)?;
    for log in [n1.log_since(mark), n2.log_since_start()] {
        for words in [
            "ROCKSDB tables are left out (skip-engines): eng.part_rocksdb, eng.rocksdb_t",
            "MROONGA tables are left out (skip-engines): eng.mroonga_t",
            "the rows of CONNECT tables are not in the datadir; only their definitions are sent: eng.connect_t",
            "the rows of SPIDER tables are not in the datadir; only their definitions are sent: eng.spider_t",
            "#rocksdb: a directory of another engine",
            "eng.mrn: not a known file of the server",
        ] {
            ensure!(log.contains(words), "{words:?} is not in:\n{}", process::tail(&log, 60));
        }
    }
    let has = |name: &str| n2.datadir().join("eng").join(name).exists();
    ensure!(has("t.ibd") && has("connect_t.frm") && has("spider_t.frm") && has("federated_t.frm"));
    ensure!(
        !has("rocksdb_t.frm")
            && !has("part_rocksdb.frm")
            && !has("part_rocksdb.par")
            && !has("mroonga_t.frm")
    );
    assert_eq!(n2.value("SELECT COUNT(*) FROM eng.t")?, "2");
    compare::wait_caught_up(n1, n2, Duration::from_secs(10))
}

fn refused(donor: &Node, joiner: &Node) -> Result<()> {
    let (before, mark) = (joiner.files()?, donor.log_mark());
    let log = joiner.fail_to_join()?;
    donor.wait_synced_again(Duration::from_secs(20))?;
    for log in [log, donor.log_since(mark)] {
        for words in [
            "tables of engine ROCKSDB cannot be sent: eng.part_rocksdb, eng.rocksdb_t",
            "tables of engine MROONGA cannot be sent: eng.mroonga_t",
            "skip-engines=ROCKSDB",
        ] {
            ensure!(log.contains(words), "{words:?} is not in:\n{}", process::tail(&log, 40));
        }
    }
    ensure!(
        !donor.log_since(mark).contains("blocked writes for"),
        "the donor's server was stopped for nothing"
    );
    assert_eq!(joiner.files()?, before, "something was touched");
    donor.exec(&["INSERT INTO eng.t VALUES (3)", "DELETE FROM eng.t WHERE a=3"])
}
