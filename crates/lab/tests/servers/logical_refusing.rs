//! Rows that would not be the same on the joiner are refused by name; what only looks like that is loaded.
use std::time::Duration;

use anyhow::{Result, ensure};
use rejoin_lab::{Cluster, compare, process};

/// Tables whose rows would change, with the words that name them.
const REFUSED: [(&[&str], &str); 3] = [
    (
        &[
            "CREATE TABLE d.bad (a INT PRIMARY KEY) WITH SYSTEM VERSIONING PARTITION BY SYSTEM_TIME LIMIT 2 \
             (PARTITION p0 HISTORY, PARTITION p1 HISTORY, PARTITION pn CURRENT)",
            "INSERT INTO d.bad VALUES (1), (2), (3)",
            "DELETE FROM d.bad WHERE a = 1",
        ],
        "the table d.bad fills one partition after the other with its history",
    ),
    (
        &[
            "CREATE TABLE d.bad (a INT PRIMARY KEY, ts TIMESTAMP(3) NULL, c DATE AS (DATE(ts)) STORED)",
            "SET SESSION time_zone='+05:00'",
            "INSERT INTO d.bad (a, ts) VALUES (1, '2026-01-01 03:00:00.5'), (2, NULL), (3, '2026-01-01 10:00:00')",
        ],
        "the generated column c of the table d.bad depends on the time zone of the session that wrote a row, and the joiner computes \
         it in UTC: 1 of its values would change",
    ),
    (
        &[
            "CREATE TABLE d.bad (a INT PRIMARY KEY, e ENUM('a',''))",
            "SET SESSION sql_mode=''",
            "INSERT INTO d.bad VALUES (1, ''), (2, 'no such value')",
        ],
        "1 values of the column e of the table d.bad are read as an empty text like another value of this enum",
    ),
];

#[test]
fn rows_that_would_change_are_refused_by_name() -> Result<()> {
    let cluster = Cluster::builder()
        .sst_of(1, "snapshot=logical")
        .mysqld_of(2, "innodb_page_size=64k")
        // None of these reaches the private server's sessions.
        .mysqld_of(2, "lc_messages=de_DE")
        .mysqld_of(2, "sql_safe_updates=ON")
        .build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    n1.exec(&["CREATE DATABASE d"])?;
    for (statements, words) in REFUSED {
        n1.exec(statements)?;
        let log = n2.fail_to_join()?;
        ensure!(log.contains(words), "{}", process::tail(&log, 30));
        n1.wait_synced_again(Duration::from_secs(20))?;
        n1.exec(&["DROP TABLE d.bad"])?;
    }
    n1.exec(&[
        "CREATE TABLE d.one (a INT PRIMARY KEY) WITH SYSTEM VERSIONING PARTITION BY SYSTEM_TIME LIMIT 9 \
         (PARTITION p0 HISTORY, PARTITION pn CURRENT)",
        "INSERT INTO d.one VALUES (1), (2), (3)",
        "DELETE FROM d.one WHERE a = 1",
        "CREATE TABLE d.zoned (a INT PRIMARY KEY, ts TIMESTAMP(3) NULL, dt DATETIME(3), d DATE AS (DATE(ts)) STORED, \
         s VARCHAR(40) AS (CONCAT(ts)) STORED, u BIGINT AS (UNIX_TIMESTAMP(dt)) STORED, \
         h INT AS (HOUR(ts)), KEY h (h))",
        "SET SESSION time_zone='+00:00'",
        "INSERT INTO d.zoned (a, ts, dt) VALUES (1, '2026-01-01 23:00:00.5', '2026-01-01 23:00:00'), (2, NULL, NULL)",
        "CREATE TABLE d.member (a INT PRIMARY KEY, e ENUM('a',''), e2 ENUM('b'), s SET('','x'))",
        "SET SESSION sql_mode=''",
        "INSERT INTO d.member VALUES (1, '', 'no such value', ''), (2, 'a', 'b', 'x')",
        // The parent is large enough for keys that are made after its rows.
        "CREATE TABLE d.parent (a INT PRIMARY KEY, code INT, plain INT, filler CHAR(200), KEY code (code), KEY plain (plain))",
        "INSERT INTO d.parent SELECT seq, seq, seq, 'x' FROM d.seq_1_to_60000",
        "ANALYZE TABLE d.parent",
        "CREATE TABLE d.child (a INT PRIMARY KEY, code INT, CONSTRAINT c FOREIGN KEY (code) REFERENCES parent (code))",
        "INSERT INTO d.child VALUES (1, 1)",
    ])?;
    n2.join()?;
    n1.wait_synced_again(Duration::from_secs(20))?;
    // Errors are compared too.
    n2.exec(&["SET GLOBAL lc_messages='en_US'"])?;
    compare::assert_equal(n1, n2)?;
    let history = "SELECT a, row_start, row_end FROM d.one FOR SYSTEM_TIME ALL ORDER BY 1, 2, 3";
    let (ours, theirs) = (n1.rows(history)?, n2.rows(history)?);
    ensure!(ours.len() == 3 && ours == theirs, "{ours:?} and {theirs:?}");
    Ok(())
}
