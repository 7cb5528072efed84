//! The lab itself, with a method that is known to work.

use std::time::Duration;

use anyhow::Result;
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::{Cluster, compare, data, places, process, sample_schema};

#[test]
fn a_planted_difference_is_found_and_nothing_else() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).method("rsync").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    sample_schema::create(n1)?;
    data::sysbench_tables(n1, 2, 1000)?;
    n2.wipe()?;
    let load =
        Load::start(n1, Intensity { threads: 2, tables: 2, rows: 1000, pause: Duration::from_millis(2) })?;
    n2.join()?;
    let report = load.stop()?;
    assert!(report.commits > 0 && report.longest >= report.p99 && report.p99 >= report.p50, "{report:?}");
    compare::assert_equal(n1, n2)?;
    assert_eq!(n2.unexpected_errors(&[]), Vec::<String>::new());

    n2.exec(&["SET SESSION wsrep_on=0", "INSERT INTO zoo.parent VALUES (77777)"])?;
    let found = compare::compare(n1, n2)?;
    let objects: Vec<&str> = found.iter().map(|difference| difference.object.as_str()).collect();
    assert_eq!(objects, ["rows of `zoo`.`parent`"]);
    Ok(())
}

#[test]
fn a_dropped_cluster_leaves_no_process_no_port_no_file() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).method("rsync").build()?;
    cluster.node(1).bootstrap()?;
    let (dir, port) = (cluster.dir().to_owned(), cluster.node(1).ports().client());
    assert!(!process::of_cluster(&dir).is_empty());
    drop(cluster);
    assert_eq!(process::of_cluster(&dir), []);
    assert!(!dir.exists());
    assert!(!rejoin_lab::ports::is_busy(port));
    Ok(())
}

#[test]
fn a_start_that_fails_tells_why() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).method("rsync").mysqld("no-such-option=1").build()?;
    let error = cluster.node(1).bootstrap().unwrap_err().to_string();
    assert!(error.contains("no-such-option"), "{error}");
    Ok(())
}

#[test]
fn directories_elsewhere_belong_to_the_node() -> Result<()> {
    let mut builder = Cluster::builder().nodes(2).method("rsync").mysqld("innodb_page_size=8k");
    for line in [
        "innodb_undo_directory={dir}/undo",
        "innodb_log_group_home_dir={dir}/log",
        "innodb_undo_tablespaces=3",
    ] {
        builder = builder.mysqld(line);
    }
    let root = places::User::for_servers()?.switch;
    let cluster = if root { builder.private_external().build()? } else { builder.build()? };
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    assert_eq!(n1.value("SELECT @@innodb_page_size")?, "8192");
    assert!(n1.dir().join("undo/undo001").exists() && n1.dir().join("log/ib_logfile0").exists());
    n1.exec(&["CREATE DATABASE zoo"])?;
    if root {
        sample_schema::create_external(n1, &cluster.external())?;
        assert!(n1.dir().join("external/data/zoo/ext_innodb.ibd").exists());
        assert!(n1.dir().join("external/data/ext_myisam.MYD").exists());
        assert!(!cluster.external().join("data").exists(), "each node sees its own");
    }

    let position = n1.status("wsrep_last_committed")?.parse()?;
    n1.stop()?;
    assert_eq!(n1.grastate()?.seqno, n1.recover_position()?.seqno);
    assert!(n1.grastate()?.seqno >= position);
    let snapshot = n1.snapshot("whole")?;
    n1.wipe()?;
    assert_eq!(std::fs::read_dir(n1.dir().join("undo"))?.count(), 0);
    n1.restore(&snapshot)?;
    n1.bootstrap()?;
    assert_eq!(n1.value("CHECK TABLE mysql.innodb_table_stats")?, "mysql.innodb_table_stats");
    assert_eq!(n2.sst_processes(), []);
    Ok(())
}
