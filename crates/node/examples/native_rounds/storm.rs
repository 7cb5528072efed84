//! Writes and DDL of every kind, from several clients.
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use mysql::Conn;
use mysql::prelude::Queryable;

pub const ACCOUNTS: u64 = 2000;

#[derive(Default)]
pub struct Storm {
    pub stop: AtomicBool,
    pub commits: AtomicU64,
    pub ddl: AtomicU64,
    pub ddl_failed: AtomicU64,
    /// Longest commit of the probe since this was last taken, and when it began.
    pub longest: Mutex<Duration>,
}

pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

pub fn prepare(conn: &mut Conn, clients: &[String]) -> Result<()> {
    conn.query_drop("CREATE DATABASE IF NOT EXISTS test")?;
    conn.query_drop("CREATE TABLE test.acct_a (id INT PRIMARY KEY, bal BIGINT NOT NULL, pad VARCHAR(200))")?;
    conn.query_drop("CREATE TABLE test.acct_b LIKE test.acct_a")?;
    for table in ["acct_a", "acct_b"] {
        let rows = format!("SELECT seq, 1000, REPEAT('x', 180) FROM test.seq_1_to_{ACCOUNTS}");
        conn.query_drop(format!("INSERT INTO test.{table} {rows}"))?;
    }
    conn.query_drop(
        "CREATE TABLE test.counter (worker VARCHAR(20), seq BIGINT, v CHAR(32), PRIMARY KEY (worker, seq))",
    )?;
    conn.query_drop("CREATE TABLE test.probe (id INT PRIMARY KEY, n BIGINT)")?;
    conn.query_drop("INSERT INTO test.probe VALUES (1,0)")?;
    for c in clients {
        for (table, rows) in [("x", 3), ("y", 40)] {
            conn.query_drop(format!(
                "CREATE TABLE test.{c}_{table} (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(100))"
            ))?;
            for _ in 0..rows {
                conn.query_drop(format!("INSERT INTO test.{c}_{table}(v) VALUES ('{table}')"))?;
            }
        }
        conn.query_drop(format!("CREATE TABLE test.{c}_alter (id INT PRIMARY KEY, v INT, w VARCHAR(50))"))?;
        conn.query_drop(format!("INSERT INTO test.{c}_alter SELECT id, id, 'w' FROM test.acct_a"))?;
        conn.query_drop(format!("CREATE TABLE test.{c}_trunc (id INT AUTO_INCREMENT PRIMARY KEY, v INT)"))?;
        conn.query_drop(format!(
            "CREATE TABLE test.{c}_part (id INT PRIMARY KEY, v INT) PARTITION BY RANGE (id) \
            (PARTITION p0 VALUES LESS THAN (100), PARTITION p1 VALUES LESS THAN (200))"
        ))?;
        conn.query_drop(format!("INSERT INTO test.{c}_part SELECT id, id FROM test.acct_a WHERE id < 200"))?;
    }
    Ok(())
}

/// Moves money between two tables, counts, and sometimes changes many rows at once (undo).
pub fn write(mut conn: Conn, name: &str, seed: u64, storm: &Storm) {
    let mut dice = Dice::new(seed);
    let first: Option<i64> = conn
        .query_first(format!("SELECT COALESCE(MAX(seq),0) FROM test.counter WHERE worker='{name}'"))
        .unwrap_or_default();
    let mut seq = first.unwrap_or_default();
    while !storm.stop.load(Ordering::Relaxed) {
        let (a, b, n) = (1 + dice.roll(ACCOUNTS), 1 + dice.roll(ACCOUNTS), dice.roll(50));
        let mut once = || -> Result<(), mysql::Error> {
            conn.query_drop("BEGIN")?;
            conn.query_drop(format!("UPDATE test.acct_a SET bal = bal - {n} WHERE id = {a}"))?;
            conn.query_drop(format!("UPDATE test.acct_b SET bal = bal + {n} WHERE id = {b}"))?;
            conn.query_drop(format!("INSERT INTO test.counter VALUES ('{name}', {}, MD5({seq}))", seq + 1))?;
            if dice.roll(40) == 0 {
                conn.query_drop("UPDATE test.acct_a SET pad = REPEAT(CHAR(97 + RAND()*20), 100 + RAND()*90) WHERE id < 600")?;
            }
            conn.query_drop("COMMIT")
        };
        match once() {
            Ok(()) => {
                seq += 1;
                storm.commits.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => drop(conn.query_drop("ROLLBACK")),
        }
    }
}

/// One small commit after another, to see how long the longest waits.
pub fn probe(mut conn: Conn, storm: &Storm) {
    while !storm.stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let _ = conn.query_drop("UPDATE test.probe SET n = n + 1 WHERE id = 1");
        let took = began.elapsed();
        let mut longest = storm.longest.lock().expect("lock");
        *longest = took.max(*longest);
        drop(longest);
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// DDL of every kind on this client's own tables.
pub fn ddl(mut conn: Conn, c: &str, seed: u64, pause: Duration, storm: &Storm) {
    let mut dice = Dice::new(seed);
    let mut n = seed * 100_000;
    while !storm.stop.load(Ordering::Relaxed) {
        n += 1;
        for statement in statements(c, n, &mut dice) {
            let result = conn.query_drop(&statement);
            storm.ddl.fetch_add(1, Ordering::Relaxed);
            if result.is_err() {
                storm.ddl_failed.fetch_add(1, Ordering::Relaxed);
            }
            if storm.stop.load(Ordering::Relaxed) {
                return;
            }
        }
        let until = Instant::now() + pause;
        while Instant::now() < until && !storm.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20).min(pause));
        }
    }
}

fn statements(c: &str, n: u64, dice: &mut Dice) -> Vec<String> {
    let all: &[&str] = match dice.roll(14) {
        0 | 1 => &[
            "RENAME TABLE test.{c}_x TO test.{c}_swap, test.{c}_y TO test.{c}_x, test.{c}_swap TO test.{c}_y",
            "INSERT INTO test.{c}_x(v) VALUES ('{n}')",
        ],
        2 => &[
            "TRUNCATE test.{c}_trunc",
            "INSERT INTO test.{c}_trunc(v) SELECT id FROM test.acct_a WHERE id < 300",
        ],
        3 => &[
            "ALTER TABLE test.{c}_alter ADD COLUMN c{n} INT DEFAULT 7, ALGORITHM=INSTANT",
            "UPDATE test.{c}_alter SET v = v + 1 WHERE id < 50",
            "ALTER TABLE test.{c}_alter DROP COLUMN c{n}",
        ],
        4 => &["ALTER TABLE test.{c}_alter FORCE, ALGORITHM=COPY"],
        5 => &[
            "ALTER TABLE test.{c}_alter ADD INDEX i{n} (v), ALGORITHM=INPLACE",
            "ALTER TABLE test.{c}_alter DROP INDEX i{n}",
        ],
        6 => &["ALTER TABLE test.{c}_alter FORCE, ALGORITHM=INPLACE"],
        7 => &[
            "CREATE TABLE test.{c}_ft{n} (id INT PRIMARY KEY, t TEXT, FULLTEXT KEY (t))",
            "INSERT INTO test.{c}_ft{n} VALUES (1,'some words here'),(2,'and others')",
            "DROP TABLE test.{c}_ft{n}",
        ],
        8 => &[
            "ALTER TABLE test.{c}_part ADD PARTITION (PARTITION p{n} VALUES LESS THAN (300))",
            "INSERT INTO test.{c}_part VALUES (250, {n})",
            "ALTER TABLE test.{c}_part DROP PARTITION p{n}",
        ],
        9 => &["OPTIMIZE TABLE test.{c}_trunc"],
        10 => &[
            "CREATE OR REPLACE VIEW test.{c}_v AS SELECT {n} AS n, id FROM test.{c}_alter",
            "CREATE OR REPLACE TRIGGER test.{c}_tr BEFORE INSERT ON test.{c}_trunc FOR EACH ROW SET NEW.v = NEW.v + {n}",
        ],
        11 => &[
            "CREATE USER u{n}_{c}@localhost IDENTIFIED BY 'x'",
            "GRANT SELECT ON test.* TO u{n}_{c}@localhost",
            "DROP USER IF EXISTS u{n}_{c}@localhost",
            "CREATE OR REPLACE USER {c}@localhost IDENTIFIED BY '{n}'",
        ],
        12 => &[
            "CREATE TABLE test.{c}_new{n} (id INT PRIMARY KEY, v INT) ROW_FORMAT=COMPRESSED",
            "INSERT INTO test.{c}_new{n} VALUES (1,{n})",
            "RENAME TABLE test.{c}_new{n} TO test.{c}_ren{n}",
            "DROP TABLE test.{c}_ren{n}",
        ],
        _ => &[
            "CREATE OR REPLACE TABLE test.{c}_cor (id INT PRIMARY KEY, v INT) AS SELECT id, {n} AS v FROM test.acct_a WHERE id < 100",
            "CREATE OR REPLACE TABLE test.{c}_my (id INT PRIMARY KEY, n BIGINT) ENGINE=ARIA",
        ],
    };
    all.iter().map(|s| s.replace("{c}", c).replace("{n}", &n.to_string())).collect()
}
