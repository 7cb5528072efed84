//! Transfers of definitions and rows, to joiners that cannot open the donor's files.
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::progress::StatusReader;
use rejoin_lab::sst::Listing;
use rejoin_lab::{Cluster, Installation, Node, compare, data, process, sample_schema, sst};

/// Everything that a datadir may hold comes over between servers with other pages, while rows are written; then the previous state is
/// put back.
#[test]
fn the_zoo_comes_to_other_pages_under_load() -> Result<()> {
    let cluster = Cluster::builder()
        .sst_of(1, "snapshot=logical")
        .mysqld_of(2, "innodb_page_size=64k")
        .sst_of(2, "keep-previous=always")
        .build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    sample_schema::create(n1)?;
    sample_schema::add_values(n1)?;
    data::sysbench_tables(n1, 2, 20000)?;
    let load =
        Load::start(n1, Intensity { threads: 2, tables: 2, rows: 20000, pause: Duration::from_millis(2) })?;
    let joined = n2.join();
    let load = load.stop()?;
    joined?;
    ensure!(load.commits > 0, "{load:?}");
    n1.wait_synced_again(Duration::from_secs(20))?;
    compare::assert_equal_with_history(n1, n2)?;
    assert_eq!(n2.value("SELECT @@innodb_page_size")?, "65536");
    sst::assert_snapshot(n2, "logical (innodb_page_size differs: donor 16384, joiner 65536)")?;
    for node in [n1, n2] {
        let log = node.log_text();
        let plan = log.lines().find(|line| line.contains("plan: full, the rows of ")).unwrap_or_default();
        ensure!(plan.contains(" tables without transactions are read, "), "{}: {plan}", node.name());
        ensure!(
            plan.contains("zoo.") && plan.contains(" and ") && plan.contains(" at an assumed "),
            "{plan}"
        );
    }
    sst::assert_not_behind(n1, n2)?;
    assert_eq!(n2.sst_processes(), []);
    // Write-sets go both ways.
    n2.exec(&["INSERT INTO zoo.parent VALUES (200001)", "UPDATE zoo.versioned SET b = b + 1 WHERE a = 7"])?;
    compare::wait_caught_up(n1, n2, Duration::from_secs(20))?;
    compare::assert_equal_with_history(n1, n2)?;
    // The state of before the transfer: a new datadir, without the zoo.
    n2.stop()?;
    let mut rollback = Command::new(cluster.program_dir().join("rejoin"));
    rollback.arg("rollback").arg("--datadir").arg(n2.datadir()).arg("--defaults-file").arg(n2.option_file());
    process::run(rollback, Duration::from_secs(60))?;
    ensure!(!n2.datadir().join("zoo").exists(), "the zoo is still there");
    n2.join()?;
    n1.wait_synced_again(Duration::from_secs(20))?;
    compare::assert_equal_with_history(n1, n2)
}

/// Rows and accounts come from one series to the other by themselves, where files would be refused.
#[test]
fn a_newer_series_gets_rows() -> Result<()> {
    between_series(Installation::system()?, Installation::mariadb_11_8()?, "newer")
}

#[test]
fn an_older_series_gets_rows() -> Result<()> {
    between_series(Installation::mariadb_11_8()?, Installation::system()?, "older")
}

fn between_series(from: Installation, to: Installation, which: &str) -> Result<()> {
    let cluster = Cluster::builder().installation_of(1, from).installation_of(2, to).build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    sample_schema::create(n1)?;
    sample_schema::add_values(n1)?;
    n1.exec(&[
        "CREATE USER dba@'%'",
        "GRANT ALL PRIVILEGES ON *.* TO dba@'%'",
        "CREATE PROCEDURE zoo.granted() SELECT 1",
        &format!(
            "GRANT EXECUTE{} ON PROCEDURE zoo.granted TO dba@'%'",
            if which == "older" { ", SHOW CREATE ROUTINE" } else { "" }
        ),
    ])?;
    n2.join()?;
    n1.wait_synced_again(Duration::from_secs(20))?;
    if which == "older" {
        let grants = n2.rows("SHOW GRANTS FOR dba@'%'")?.concat().join(";");
        ensure!(
            grants.contains("GRANT ALL PRIVILEGES ON *.*") && grants.contains("EXECUTE ON PROCEDURE"),
            "{grants}"
        );
        let log = n2.log_text();
        // Other accounts of the server may have all privileges too.
        let says = |parts: [&str; 2]| log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        let ours: Vec<&str> = log.lines().filter(|line| line.contains("WSREP_SST")).collect();
        ensure!(says(["dba@%", " loaded without this privilege"]), "global: {}", ours.join("\n"));
    }
    sst::assert_snapshot(
        n2,
        &format!(
            "logical (the joiner's server is of a{} major version",
            if which == "older" { "n older" } else { " newer" }
        ),
    )?;
    compare::wait_caught_up(n1, n2, Duration::from_secs(20))?;
    // The servers' own routines, help and views are of their series.
    let of_data = |object: &str| {
        ["`zoo`", "`sbtest`", "zoo_a", "zoo b", "zoo_reader"].iter().any(|name| object.contains(name))
    };
    for found in compare::compare(n1, n2)?.iter().filter(|found| of_data(&found.object)) {
        ensure!(means_the_same(n1, n2, &found.object)?, "{found}");
    }
    n1.exec(&["INSERT INTO zoo.parent VALUES (200001)"])?;
    n2.exec(&["SET SESSION wsrep_sync_wait=1", "DELETE FROM zoo.parent WHERE a = 200001"])
}

/// What two series show in different words, or compute a checksum of in different ways.
fn means_the_same(donor: &Node, joiner: &Node, object: &str) -> Result<bool> {
    Ok(match object {
        // 11.8 shows a binary default as x'...', and INVISIBLE last.
        "definition of `zoo`.`defaults`" => true,
        // ALL of 10.11 is without a privilege that 11.8 has.
        "grants of 'zoo_a'@'%'" => {
            let rows = joiner.rows("SHOW GRANTS FOR 'zoo_a'@'%'")?.concat().join(";");
            rows.contains("DELETE HISTORY ON `zoo\\_empty`.*") && !rows.contains("ALL PRIVILEGES")
        }
        // UUIDs are stored otherwise, and the end of time is another.
        "rows of `zoo`.`generated`" | "rows of `zoo`.`period`" | "rows of `zoo`.`versioned`" => {
            let table = object.trim_start_matches("rows of ");
            let count = donor.value(&format!("SELECT COUNT(*) FROM {table}"))?;
            let shown = match object.contains("period") {
                true => format!("SELECT a, s, e, since FROM {table} ORDER BY 1, 2"),
                false => format!("SELECT * FROM {table} ORDER BY 1, 2"),
            };
            let history = match object {
                "rows of `zoo`.`generated`" => "SELECT 1".to_owned(),
                _ => format!("SELECT COUNT(*), SUM(a) FROM {table} FOR SYSTEM_TIME ALL"),
            };
            count != "0"
                && donor.rows(&shown)? == joiner.rows(&shown)?
                && donor.rows(&history)? == joiner.rows(&history)?
        }
        _ => false,
    })
}

/// Names with upper case letters, for a joiner that has none, and back to a node that could have them.
#[test]
fn names_get_lower_case_or_are_refused() -> Result<()> {
    let cluster = Cluster::builder().mysqld_of(2, "lower_case_table_names=1").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    n1.exec(&[
        "CREATE DATABASE Shop",
        "CREATE TABLE Shop.Orders (Id INT AUTO_INCREMENT PRIMARY KEY, what TEXT)",
        "INSERT INTO Shop.Orders (what) VALUES ('a'), ('b')",
        "CREATE VIEW Shop.Recent AS SELECT * FROM Shop.Orders",
        "CREATE VIEW Shop.Seldom AS SELECT Id FROM Shop.Orders",
        "CREATE TRIGGER Shop.Stamp BEFORE INSERT ON Shop.Orders FOR EACH ROW SET NEW.what = UPPER(NEW.what)",
        "CREATE PROCEDURE Shop.Say() SELECT 'said'",
        "CREATE USER clerk@localhost",
        "GRANT SELECT, EXECUTE ON Shop.* TO clerk@localhost",
        "GRANT INSERT ON Shop.Orders TO clerk@localhost",
        "CREATE TABLE Shop.orders (a INT PRIMARY KEY)",
    ])?;
    let log = n2.fail_to_join()?;
    ensure!(
        log.contains("Shop.Orders and Shop.orders of the donor are one name"),
        "{}",
        process::tail(&log, 30)
    );
    n1.wait_synced_again(Duration::from_secs(20))?;
    n1.exec(&["DROP TABLE Shop.orders"])?;
    n2.join()?;
    sst::assert_snapshot(n2, "logical (lower_case_table_names differs: donor 0, joiner 1)")?;
    assert_eq!(n2.value("SELECT GROUP_CONCAT(what) FROM shop.orders")?, "a,b");
    assert_eq!(n2.value("SELECT COUNT(*) FROM shop.recent")?, "2");
    n1.stop()?;
    n1.remove_grastate()?;
    // Triggers and views are texts, and stay as they are.
    n2.exec(&[
        "DROP TRIGGER shop.Stamp",
        "CREATE TRIGGER shop.stamp BEFORE INSERT ON shop.orders FOR EACH ROW SET NEW.what = UPPER(NEW.what)",
        "CREATE OR REPLACE VIEW shop.recent AS SELECT * FROM shop.orders",
        "CREATE TABLE shop.others (a INT PRIMARY KEY)",
        "CREATE TRIGGER shop.loud BEFORE INSERT ON Shop.Others FOR EACH ROW SET NEW.a = NEW.a + 1",
    ])?;
    n1.join()?;
    let log = n1.log_since_start();
    let words = "shop/others.TRG, shop/seldom.frm name tables with upper-case letters";
    ensure!(log.contains(words), "{}", process::tail(&log, 30));
    n2.wait_synced_again(Duration::from_secs(20))?;
    sst::assert_snapshot(n1, "logical (lower_case_table_names differs: donor 1, joiner 0)")?;
    assert_eq!(n1.value("SELECT @@lower_case_table_names")?, "0");
    ensure!(n1.exec(&["SELECT * FROM shop.ORDERS"]).is_err(), "its names have no case");
    let shops =
        "SELECT GROUP_CONCAT(SCHEMA_NAME) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE 'shop'";
    assert_eq!(n1.value(shops)?, "shop");
    n2.exec(&["DROP VIEW shop.seldom", "DROP TABLE shop.others"])?;
    // Both have the same names now, so write-sets go both ways.
    n2.exec(&["INSERT INTO shop.orders (what) VALUES ('c')", "CALL shop.say()"])?;
    n1.exec(&["INSERT INTO shop.orders (what) VALUES ('d')", "CALL shop.say()"])?;
    compare::wait_caught_up(n1, n2, Duration::from_secs(20))?;
    for node in [n1, n2] {
        let what = node.value("SELECT GROUP_CONCAT(what ORDER BY what) FROM shop.recent")?;
        assert_eq!(what, "a,b,C,D", "{}", node.name());
        let grants = node.rows("SHOW GRANTS FOR clerk@localhost")?.concat().join(";");
        ensure!(
            grants.contains("SELECT, EXECUTE ON `shop`.*") && grants.contains("INSERT ON `shop`.`orders`"),
            "{grants}"
        );
    }
    // The server's own views name tables of the information schema in another case.
    let found = compare::compare(n1, n2)?;
    let others: Vec<String> =
        found.iter().filter(|found| !found.object.contains("`sys`.")).map(ToString::to_string).collect();
    ensure!(others.is_empty(), "{}", others.join("\n"));
    Ok(())
}

/// A joiner whose server is killed while rows arrive and are loaded leaves nothing behind; the next transfer takes what arrived.
#[test]
fn an_interrupted_transfer_goes_on() -> Result<()> {
    let cluster = Cluster::builder()
        .sst_of(1, "snapshot=logical")
        .sst_of(1, "rlimit=700k")
        .mysqld_of(2, "innodb_page_size=8k")
        .build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    data::sysbench_tables(n1, 2, 60000)?;
    let before = old_files(n2)?;
    n2.begin(&[])?;
    let status = StatusReader::of(n2);
    let until = Instant::now() + Duration::from_secs(60);
    while !status.read().is_some_and(|status| status.phase == "receiving" && status.done_bytes > 3 << 20) {
        ensure!(Instant::now() < until, "no rows arrive:\n{}", process::tail(&n2.log_since_start(), 30));
        std::thread::sleep(Duration::from_millis(50));
    }
    let log = n2.log_since_start();
    ensure!(log.contains("a private server runs"), "{}", process::tail(&log, 30));
    n2.kill();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(n2.sst_processes(), []);
    ensure!(old_files(n2)? == before, "something was touched");
    n1.wait_synced_again(Duration::from_secs(20))?;
    n1.add_options("sst", &["rlimit=500M"])?;
    n2.join()?;
    n1.wait_synced_again(Duration::from_secs(20))?;
    compare::assert_equal(n1, n2)?;
    let log = n2.log_since_start();
    let again =
        log.lines().find(|line| line.contains("of them from an interrupted transfer")).unwrap_or_default();
    ensure!(
        again.contains(" MiB of them from an interrupted transfer"),
        "{again}\n{}",
        process::tail(&log, 30)
    );
    Ok(())
}

/// The private server does not outlive the joiner's program.
#[test]
fn a_private_server_dies_with_its_program() -> Result<()> {
    let cluster =
        Cluster::builder().sst_of(1, "snapshot=logical").mysqld_of(2, "innodb_page_size=32k").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    data::sysbench_tables(n1, 2, 100_000)?;
    let before = old_files(n2)?;
    n2.begin(&[])?;
    n2.wait_log("a private server runs", Duration::from_secs(120))?;
    n2.kill();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(n2.sst_processes(), []);
    ensure!(old_files(n2)? == before, "something was touched");
    n1.wait_synced_again(Duration::from_secs(20))?;
    n2.join()?;
    n1.wait_synced_again(Duration::from_secs(20))?;
    compare::assert_equal(n1, n2)
}

/// What a donor's server has set for all sessions neither cuts its answers nor ends the sessions that wait; an account that does not see
/// everything is refused.
#[test]
fn neither_global_settings_nor_grants_lose_anything() -> Result<()> {
    let cluster = Cluster::builder()
        .sst_of(1, "snapshot=logical")
        .sst_of(1, "threads=1")
        .sst_of(1, "rlimit=2M")
        .sst_of(1, "wsrep-sst-auth=small:secret")
        .mysqld_of(2, "innodb_page_size=8k")
        .build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    data::sysbench_tables(n1, 3, 30000)?;
    n1.exec(&[
        "CREATE DATABASE `dé 表-1`",
        "CREATE TABLE `dé 表-1`.`Tä@ß.x` (a INT PRIMARY KEY)",
        "INSERT INTO `dé 表-1`.`Tä@ß.x` VALUES (1), (2), (3)",
        "CREATE SEQUENCE sbtest.s NOCACHE",
        "SELECT NEXT VALUE FOR sbtest.s",
        "CREATE USER small@localhost IDENTIFIED BY 'secret'",
        "GRANT RELOAD, PROCESS, BINLOG MONITOR ON *.* TO small@localhost",
        "GRANT SELECT ON sbtest.* TO small@localhost",
        "GRANT SELECT ON mysql.* TO small@localhost",
    ])?;
    let log = n2.fail_to_join()?;
    ensure!(log.contains("GRANT SELECT ON *.* TO `small`@`localhost`;"), "{}", process::tail(&log, 30));
    n1.wait_synced_again(Duration::from_secs(20))?;
    let idle =
        ["idle_transaction_timeout", "idle_readonly_transaction_timeout", "idle_write_transaction_timeout"];
    let idle_is = |seconds: u8| idle.map(|name| format!("SET GLOBAL {name}={seconds}")).join("; ");
    n1.exec(&["GRANT SELECT ON *.* TO small@localhost"])?;
    n1.exec(&["SET GLOBAL sql_select_limit=2", &idle_is(1), "SET GLOBAL autocommit=0"])?;
    let joined = n2.join();
    n1.exec(&["SET GLOBAL sql_select_limit=DEFAULT", &idle_is(0), "SET GLOBAL autocommit=1"])?;
    joined?;
    n1.wait_synced_again(Duration::from_secs(20))?;
    let log = n2.log_since_start();
    ensure!(!log.contains("begins again"), "{}", process::tail(&log, 30));
    compare::assert_equal(n1, n2)
}

/// Small tables that are read last.
const RENAMED: u32 = 12;

/// Definitions change while rows are read and loaded: the snapshot begins again, and in the end the joiner is equal.
#[test]
fn ddl_meanwhile_changes_nothing_in_the_result() -> Result<()> {
    let cluster = Cluster::builder()
        .sst_of(1, "snapshot=logical")
        .sst_of(1, "rlimit=2M")
        .mysqld_of(2, "innodb_page_size=8k")
        .build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    data::sysbench_tables(n1, 2, 60000)?;
    for table in 1..=RENAMED {
        n1.exec(&[&format!(
            "CREATE TABLE sbtest.renamed{table} AS SELECT id, pad AS pad0 FROM sbtest.sbtest1 LIMIT 3000"
        )])?;
    }
    let over = AtomicBool::new(false);
    let joined = std::thread::scope(|scope| {
        let changes = scope.spawn(|| -> Result<u32> {
            // What has been loaded is thrown away.
            n2.wait_log("a private server runs on a new datadir", Duration::from_secs(60))?;
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                number += 1;
                let mut changes = vec![
                    format!("ALTER TABLE sbtest.sbtest1 COMMENT='{number}', ADD COLUMN x{number} INT DEFAULT {number}"),
                    format!("CREATE TABLE sbtest.made{number} AS SELECT {number} AS a"),
                ];
                // What was described is there no more under its name when it is read.
                changes.extend((1..=RENAMED).map(|table| {
                    format!("ALTER TABLE sbtest.renamed{table} RENAME COLUMN IF EXISTS pad{} TO pad{number}", number - 1)
                }));
                let changed = n1.exec(&changes.iter().map(String::as_str).collect::<Vec<_>>());
                // Under the backup locks the server refuses DDL of its own clients.
                changed.or_else(|e| if format!("{e:#}").contains("Replication paused") { Ok(()) } else { Err(e) })?;
                std::thread::sleep(Duration::from_millis(300));
            }
            Ok(number)
        });
        let joined = n2.join();
        over.store(true, Ordering::Relaxed);
        joined.and_then(|_| changes.join().map_err(|_| anyhow::anyhow!("the changes panicked"))?)
    });
    ensure!(joined? > 2, "too few changes");
    n1.wait_synced_again(Duration::from_secs(20))?;
    let log = n2.log_since_start();
    ensure!(log.contains("the donor's logical snapshot begins again"), "{}", process::tail(&log, 30));
    ensure!(log.contains("the new datadir is discarded and created again"), "{}", process::tail(&log, 30));
    compare::assert_equal(n1, n2)
}

/// Files of the datadir, without what waits to be installed.
fn old_files(node: &Node) -> Result<Listing> {
    let mut files = node.files()?;
    files.retain(|path, _| {
        path.components().all(|part| part.as_os_str() != ".rejoin" && part.as_os_str() != "#sql-rejoin")
    });
    Ok(files)
}
