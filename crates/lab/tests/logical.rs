//! Transfers of definitions and rows, to joiners that cannot open the donor's files.
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::{Cluster, Node, compare, data, process, sample_schema, sst};

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
    values(n1)?;
    data::sysbench_tables(n1, 2, 20000)?;
    let load =
        Load::start(n1, Intensity { threads: 2, tables: 2, rows: 20000, pause: Duration::from_millis(2) })?;
    let joined = n2.join();
    let load = load.stop()?;
    joined?;
    ensure!(load.commits > 0, "{load:?}");
    n1.wait_synced_again(Duration::from_secs(20))?;
    equal(n1, n2)?;
    assert_eq!(n2.value("SELECT @@innodb_page_size")?, "65536");
    sst::assert_snapshot(n2, "logical (snapshot=logical is set on the donor)")?;
    sst::assert_not_behind(n1, n2)?;
    assert_eq!(n2.sst_processes(), []);
    // Write-sets go both ways.
    n2.exec(&["INSERT INTO zoo.parent VALUES (200001)", "UPDATE zoo.versioned SET b = b + 1 WHERE a = 7"])?;
    compare::wait_caught_up(n1, n2, Duration::from_secs(20))?;
    equal(n1, n2)?;
    // The state of before the transfer: a new datadir, without the zoo.
    n2.stop()?;
    let mut rollback = Command::new(cluster.program_dir().join("rejoin"));
    rollback.arg("rollback").arg("--datadir").arg(n2.datadir()).arg("--defaults-file").arg(n2.option_file());
    process::run(rollback, Duration::from_secs(60))?;
    ensure!(!n2.datadir().join("zoo").exists(), "the zoo is still there");
    n2.join()?;
    n1.wait_synced_again(Duration::from_secs(20))?;
    equal(n1, n2)
}

/// Values of every type, to the byte.
fn values(node: &Node) -> Result<()> {
    node.exec(&[
        "SET SESSION sql_mode=''",
        "CREATE TABLE zoo.numbers (a INT PRIMARY KEY, f FLOAT, d DOUBLE, f2 FLOAT(7,4), n DECIMAL(40,20), b1 BIT(1), b64 BIT(64), u BIGINT UNSIGNED)",
        "INSERT INTO zoo.numbers VALUES (1, 0.1, 0.1, 0.12345, 1.5, b'1', ~0, ~0), (2, 16777217, 1e308, -1.5, -99999999999999999999.99999999999999999999, b'0', 9, 0), \
         (3, 3.4028234e38, 4.9e-324, 0, 0, NULL, 0x5C090A00, 1), (4, -0.0, -0.0, NULL, NULL, b'1', 10, 9)",
        "INSERT INTO zoo.numbers SELECT seq + 10, 1 / seq, 1 / seq, 1 / seq, 1 / seq, seq % 2, seq * 92233720368547, seq FROM zoo.parent, (SELECT 1 AS seq) s LIMIT 0",
        "CREATE TABLE zoo.texts (a INT PRIMARY KEY, b BINARY(5), v VARBINARY(50), l LONGBLOB, c CHAR(5), s VARCHAR(20) CHARACTER SET sjis, \
         k VARCHAR(20) CHARACTER SET koi8r, u4 VARCHAR(20) CHARACTER SET utf32, e ENUM('a','b',''), e2 ENUM('1','2'), st SET('x','y'), j JSON)",
        "INSERT INTO zoo.texts VALUES (1, 0x0000, 0x5C6E0A09000D1A5C, 0x00FF, 'x  ', _utf8mb4'表示能力', _utf8mb4'привет', _utf8mb4'a😀', '', '2', 'x,y', '{\"a\": \"\\\\n\"}'), \
         (2, NULL, '', '', '', '', '', '', 'b', 'no such value', '', NULL), (3, '\\\\N', '\\\\N', '\\\\N', '\\\\N', '\\\\', '\\t', '\\n', 'a', '1', 'y', '[]')",
        "CREATE TABLE zoo.times (a INT PRIMARY KEY, d DATE, t TIME(6), dt DATETIME(3), ts TIMESTAMP(6) NULL, y YEAR)",
        "INSERT INTO zoo.times VALUES (1, '0000-00-00', '-838:59:59', '0000-00-00', '2001-02-03 04:05:06.789012', 0), (2, '2024-00-10', '00:00:00.000001', '2024-01-01 00:00:00.999', NULL, 2155)",
        "SET SESSION sql_mode='ALLOW_INVALID_DATES'",
        "INSERT INTO zoo.times VALUES (3, '2023-02-31', NULL, '2023-02-31 10:00:00', '1970-01-01 12:00:00', 1901)",
        "SET SESSION sql_mode=DEFAULT",
        "CREATE TABLE zoo.shapes (a INT PRIMARY KEY, g GEOMETRY, p POLYGON, u UUID, i6 INET6, i4 INET4)",
        "INSERT INTO zoo.shapes VALUES (1, ST_GeomFromText('LINESTRING(0 0,1e300 -1.5)', 4326), ST_GeomFromText('POLYGON((0 0,9 0,9 9,0 0))'), \
         '00000000-0000-1000-8000-00000000000a', '::ffff:1.2.3.4', '255.0.10.9'), (2, NULL, NULL, NULL, NULL, NULL)",
        "CREATE TABLE zoo.defaults (a INT AUTO_INCREMENT PRIMARY KEY, b BINARY(3) DEFAULT 0x00FF5C, c VARCHAR(30) CHARACTER SET cp1251 DEFAULT 'цена', \
         d DATETIME DEFAULT '0000-00-00 00:00:00', n BIGINT DEFAULT (NEXT VALUE FOR zoo.seq_innodb), h INT INVISIBLE DEFAULT 7, x TEXT DEFAULT (CONCAT('a', 'b')), \
         KEY (h), KEY (c(5))) AUTO_INCREMENT=100 COMMENT='it''s \\\\ a `table`'",
        "INSERT INTO zoo.defaults (x, h) VALUES ('1', 8), (DEFAULT, DEFAULT)",
        "CREATE TABLE zoo.period (a INT, s DATE, e DATE, since TIMESTAMP(6) GENERATED ALWAYS AS ROW START, until TIMESTAMP(6) GENERATED ALWAYS AS ROW END, \
         PERIOD FOR SYSTEM_TIME (since, until), PERIOD FOR valid (s, e), PRIMARY KEY (a, valid WITHOUT OVERLAPS)) WITH SYSTEM VERSIONING",
        "INSERT INTO zoo.period (a, s, e) VALUES (1, '2020-01-01', '2021-01-01'), (1, '2022-01-01', '2023-01-01')",
        "DELETE FROM zoo.period WHERE s = '2022-01-01'",
        "UPDATE zoo.period SET e = '2020-06-01'",
        "CREATE DEFINER=nobody@nowhere SQL SECURITY DEFINER VIEW zoo.v_stranger AS SELECT a FROM zoo.numbers",
        "SET SESSION sql_mode='ANSI_QUOTES,PIPES_AS_CONCAT'",
        "CREATE DEFINER=nobody@nowhere PROCEDURE zoo.p_ansi() SELECT \"a\" || 'b' FROM zoo.numbers",
        "CREATE TRIGGER zoo.tr_ansi BEFORE UPDATE ON zoo.texts FOR EACH ROW SET NEW.\"c\" = 'a' || 'b'",
        "CREATE TRIGGER zoo.tr_second BEFORE UPDATE ON zoo.texts FOR EACH ROW PRECEDES tr_ansi SET NEW.l = 'x'",
        "SET SESSION sql_mode=DEFAULT",
        "CREATE SEQUENCE zoo.seq_down START WITH -5 INCREMENT BY -2 MAXVALUE 100 CYCLE CACHE 7",
        "SELECT NEXT VALUE FOR zoo.seq_down",
    ])
}

/// [`compare::assert_equal`], and the rows that were valid before.
fn equal(donor: &Node, joiner: &Node) -> Result<()> {
    compare::assert_equal(donor, joiner)?;
    for table in ["zoo.versioned", "zoo.period"] {
        let times = if table == "zoo.period" { "since, until" } else { "row_start, row_end" };
        let rows = format!("SELECT *, {times} FROM {table} FOR SYSTEM_TIME ALL ORDER BY 1, 2, 3, 4");
        let (there, here) = (donor.rows(&rows)?, joiner.rows(&rows)?);
        ensure!(there == here && there.len() > 2, "history of {table}: {there:?} and {here:?}");
    }
    Ok(())
}

/// Without the option, files are refused by name, and nothing is touched.
#[test]
fn another_page_size_is_named() -> Result<()> {
    let cluster = Cluster::builder().sst_of(1, "snapshot=online").mysqld_of(2, "innodb_page_size=64k").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    n2.begin(&[])?;
    n2.wait_exit(Duration::from_secs(60));
    let log = n2.log_since_start();
    ensure!(log.contains("innodb_page_size differs: donor 16384, joiner 65536"), "{}", process::tail(&log, 40));
    Ok(())
}
