//! The storm two nodes make together.

use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;

use super::{account, alter_table, create_table};
use crate::node::Node;
use crate::repeated::Repeated;
use crate::sql;

/// Pairs of tables that swap their names: `storm.swap1a` and `storm.swap1b`, ... Rows tell by `home` which table they
/// were made in, and each pair holds its own number of rows.
const SWAPPED: u32 = 3;
/// Time from one update of their rows to the next.
const UPDATE_EVERY: Duration = Duration::from_millis(10);

/// Makes what the storms of both nodes meet at.
pub fn create_shared(node: &Node) -> Result<()> {
    let mut conn = node.connect()?;
    sql::exec(&mut conn, "CREATE DATABASE IF NOT EXISTS storm")?;
    for pair in 1..=SWAPPED {
        for (home, rows) in [("a", 40 * pair), ("b", 300 + 40 * pair)] {
            let table = format!("storm.swap{pair}{home}");
            sql::exec(
                &mut conn,
                &format!("CREATE TABLE {table} (id INT PRIMARY KEY, home CHAR(20), n INT)"),
            )?;
            let rows = format!("SELECT seq, 'made in {pair}{home}', 0 FROM storm.seq_1_to_{rows}");
            sql::exec(&mut conn, &format!("INSERT INTO {table} {rows}"))?;
        }
    }
    for part in 0..2 {
        let table = format!("storm.part{part}");
        let ranges = "PARTITION p0 VALUES LESS THAN (100), PARTITION p1 VALUES LESS THAN (200)";
        let columns = "id INT PRIMARY KEY, n INT";
        sql::exec(
            &mut conn,
            &format!("CREATE TABLE {table} ({columns}) PARTITION BY RANGE (id) ({ranges})"),
        )?;
        sql::exec(&mut conn, &format!("INSERT INTO {table} SELECT seq, seq FROM storm.seq_1_to_199"))?;
    }
    (1..=2).try_for_each(|n| {
        let columns = "id INT AUTO_INCREMENT PRIMARY KEY, n BIGINT";
        sql::exec(&mut conn, &format!("CREATE TABLE storm.triggered{n} ({columns})"))
    })
}

/// Updates rows of both tables of each pair until it is stopped, by the names that the tables have at that moment. An update
/// that reached the other table of its pair makes the nodes differ.
///
/// # Errors
/// No thread can be started.
pub fn write_swapped(node: &Node, seed: u64) -> Result<Repeated> {
    let mut rng = Rng::with_seed(seed);
    Repeated::start(node, "swapped", UPDATE_EVERY, move |conn| {
        let table = format!("storm.swap{}{}", rng.u32(1..=SWAPPED), if rng.bool() { "a" } else { "b" });
        let id = rng.u32(1..=400);
        sql::exec(conn, &format!("UPDATE {table} SET n = n + 1 WHERE id = {id}"))
    })
}

/// Views are a node's own, too: `CREATE VIEW` locks its table before it waits for its turn in the group, and DDL on that
/// table from the other node then waits for it for good, whatever kills it.
pub(super) fn statements(rng: &mut Rng, node: usize) -> Vec<String> {
    let n = rng.u32(0..8);
    let (t, other) = (format!("storm.t{n}"), format!("storm.t{}", rng.u32(0..8)));
    let one = |statement: String| vec![statement];
    match rng.u32(0..100) {
        0..16 => create_table(rng, &t),
        16..23 => one(format!("DROP TABLE IF EXISTS {t}")),
        23..31 => one(format!("RENAME TABLE {t} TO {other}")),
        31..45 => one(swap(rng.u32(1..=SWAPPED))),
        45..51 => one(format!("TRUNCATE TABLE {t}")),
        51..65 => alter_table(rng, &t),
        65..74 => partitions(rng),
        74..77 => one(format!("OPTIMIZE TABLE {t}")),
        77..83 => one(format!(
            "CREATE OR REPLACE VIEW storm.v{node}_{n} AS SELECT id, n, {} AS x FROM storm.triggered{node}",
            rng.u32(..)
        )),
        83..85 => one(format!("DROP VIEW IF EXISTS storm.v{node}_{n}")),
        85..88 => trigger(rng, node),
        88..90 => sequence(rng, node),
        90..96 => account(rng, n),
        96..98 => one(format!("CREATE OR REPLACE PROCEDURE storm.p{n}() SELECT {}", rng.u32(..))),
        _ => one(format!("CREATE OR REPLACE TABLE storm.aria{n} (a INT PRIMARY KEY, b INT) ENGINE=Aria")),
    }
}

fn swap(pair: u32) -> String {
    let (a, b, t) =
        (format!("storm.swap{pair}a"), format!("storm.swap{pair}b"), format!("storm.swap{pair}t"));
    format!("RENAME TABLE {a} TO {t}, {b} TO {a}, {t} TO {b}")
}

fn partitions(rng: &mut Rng) -> Vec<String> {
    let table = format!("storm.part{}", rng.u32(0..2));
    let change = match rng.u32(0..6) {
        0 => "ADD PARTITION (PARTITION p2 VALUES LESS THAN (300))",
        1 => "DROP PARTITION p2",
        2 => {
            "REORGANIZE PARTITION p0 INTO (PARTITION p0a VALUES LESS THAN (50), PARTITION p0b VALUES LESS THAN (100))"
        }
        3 => "REORGANIZE PARTITION p0a, p0b INTO (PARTITION p0 VALUES LESS THAN (100))",
        4 => "TRUNCATE PARTITION p1",
        _ => {
            let rows = "SELECT seq, seq FROM storm.seq_1_to_299";
            return vec![format!("INSERT IGNORE INTO {table} {rows}")];
        }
    };
    vec![format!("ALTER TABLE {table} {change}")]
}

/// A sequence, too, is a node's own. None has a cache: that takes the increment 0, with which each node has values of its own, by
/// its `auto_increment_offset`.
fn sequence(rng: &mut Rng, node: usize) -> Vec<String> {
    let name = format!("storm.seq{node}_{}", rng.u32(0..2));
    match rng.u32(0..5) {
        0 => vec![format!("DROP SEQUENCE IF EXISTS {name}")],
        1 => vec![format!("ALTER SEQUENCE IF EXISTS {name} RESTART {}", rng.u32(1..100_000))],
        _ => vec![
            format!("CREATE SEQUENCE IF NOT EXISTS {name} START WITH {} NOCACHE", rng.u32(1..1000)),
            format!("SELECT NEXTVAL({name})"),
        ],
    }
}

/// Triggers on one table from two nodes at once undo each other's files: each node has a table of its own for them.
fn trigger(rng: &mut Rng, node: usize) -> Vec<String> {
    let (table, number) = (format!("storm.triggered{node}"), rng.u32(0..1000));
    let name = if rng.bool() { "first" } else { "second" };
    let trigger = format!("storm.{name}{node}");
    if rng.u32(0..4) == 0 {
        return vec![format!("DROP TRIGGER IF EXISTS {trigger}")];
    }
    let set = format!("SET NEW.n = NEW.n + {number}");
    vec![
        format!("CREATE OR REPLACE TRIGGER {trigger} BEFORE INSERT ON {table} FOR EACH ROW {set}"),
        format!("INSERT INTO {table} (n) VALUES ({number})"),
    ]
}
