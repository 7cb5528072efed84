//! A storm of DDL from another member: what a snapshot of the donor must survive.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use fastrand::Rng;
use mysql::Conn;

use crate::node::Node;
use crate::{data, sql};

/// What to do, how often.
#[derive(Debug, Clone, Copy)]
pub struct Storm {
    /// The same seed makes the same statements.
    pub seed: u64,
    /// Time from one statement's start to the next one's.
    pub every: Duration,
    /// How many sysbench tables may get and lose an index, too (0: leave them alone).
    pub sysbench_tables: u32,
}

impl Default for Storm {
    fn default() -> Self {
        Self { seed: 1, every: Duration::from_millis(100), sysbench_tables: 0 }
    }
}

/// A storm under way, in the database `storm`.
#[derive(Debug)]
pub struct RunningStorm {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: Option<JoinHandle<Failures>>,
}

/// What a storm did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StormReport {
    /// Statements that succeeded.
    pub done: u64,
    /// Statements that failed: some always do, their object being in the wrong state.
    pub failed: u64,
    /// The last failure.
    pub last_error: Option<String>,
}

#[derive(Debug, Default)]
struct Failures {
    count: u64,
    last: Option<String>,
}

impl Storm {
    /// Starts it against `node`.
    pub fn start(self, node: &Node) -> Result<RunningStorm> {
        node.exec(&["CREATE DATABASE IF NOT EXISTS storm"])?;
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop2, done2, socket) = (Arc::clone(&stop), Arc::clone(&done), node.socket());
        let work = move || self.blow(&socket, &stop2, &done2);
        let thread = std::thread::Builder::new().name("ddl-storm".to_owned()).spawn(work)?;
        Ok(RunningStorm { stop, done, thread: Some(thread) })
    }

    fn blow(self, socket: &Path, stop: &AtomicBool, done: &AtomicU64) -> Failures {
        let mut rng = Rng::with_seed(self.seed);
        let mut failures = Failures::default();
        let mut conn: Option<Conn> = None;
        while !stop.load(Relaxed) {
            let start = Instant::now();
            for statement in self.statements(&mut rng) {
                match self.run(&mut conn, socket, &statement) {
                    Ok(()) => {
                        done.fetch_add(1, Relaxed);
                    }
                    Err(error) => {
                        failures.count += 1;
                        failures.last = Some(format!("{error:#}"));
                    }
                }
            }
            std::thread::sleep(self.every.saturating_sub(start.elapsed()));
        }
        failures
    }

    fn run(self, conn: &mut Option<Conn>, socket: &Path, statement: &str) -> Result<()> {
        let live = match conn {
            Some(live) => live,
            None => {
                let new = conn.insert(sql::connect(socket, sql::STATEMENT_TIMEOUT)?);
                sql::exec(new, "USE storm")?;
                new
            }
        };
        let result = sql::exec(live, statement);
        if result.is_err() && live.ping().is_err() {
            *conn = None;
        }
        result
    }

    /// What comes next; few names, so that objects meet often.
    fn statements(self, rng: &mut Rng) -> Vec<String> {
        let n = rng.u32(0..8);
        let (t, other) = (format!("storm.t{n}"), format!("storm.t{}", rng.u32(0..8)));
        let one = |statement: String| vec![statement];
        match rng.u32(0..100) {
            0..20 => create_table(rng, &t),
            20..28 => one(format!("DROP TABLE IF EXISTS {t}")),
            28..36 => one(format!("TRUNCATE TABLE {t}")),
            36..44 => one(format!("RENAME TABLE {t} TO {other}")),
            44..66 => alter_table(rng, &t),
            66..70 => one(format!("OPTIMIZE TABLE {t}")),
            70..74 => one(format!("CREATE OR REPLACE VIEW storm.v{n} AS SELECT id, a FROM {t}")),
            74..76 => one(format!("DROP VIEW IF EXISTS storm.v{n}")),
            76..79 => one(format!(
                "CREATE OR REPLACE TRIGGER storm.tr{n} BEFORE INSERT ON {t} FOR EACH ROW SET NEW.a = NEW.a + 1"
            )),
            79..81 => one(format!("DROP TRIGGER IF EXISTS storm.tr{n}")),
            81..84 => one(format!("CREATE OR REPLACE PROCEDURE storm.p{n}() SELECT {}", rng.u32(..))),
            84..90 => account(rng, n),
            90..92 => one(format!("CREATE OR REPLACE SEQUENCE storm.s{n} START WITH {}", rng.u32(1..1000))),
            92..95 => vec![
                format!("CREATE DATABASE IF NOT EXISTS storm_db{n}"),
                format!("CREATE OR REPLACE TABLE storm_db{n}.t (a INT PRIMARY KEY) ENGINE=InnoDB"),
            ],
            95..97 => one(format!("DROP DATABASE IF EXISTS storm_db{n}")),
            _ => self.touch_sysbench(rng),
        }
    }

    fn touch_sysbench(self, rng: &mut Rng) -> Vec<String> {
        if self.sysbench_tables == 0 {
            return vec![];
        }
        let table = format!("{}.sbtest{}", data::DATABASE, rng.u32(1..=self.sysbench_tables));
        let change =
            if rng.bool() { "ADD INDEX IF NOT EXISTS storm (pad(10))" } else { "DROP INDEX IF EXISTS storm" };
        vec![format!("ALTER TABLE {table} {change}")]
    }
}

fn create_table(rng: &mut Rng, table: &str) -> Vec<String> {
    let shape = rng.choice([
        "ENGINE=InnoDB ROW_FORMAT=DYNAMIC",
        "ENGINE=InnoDB ROW_FORMAT=COMPACT",
        "ENGINE=InnoDB ROW_FORMAT=REDUNDANT",
        "ENGINE=InnoDB ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8",
        "ENGINE=InnoDB PAGE_COMPRESSED=1",
        "ENGINE=InnoDB PARTITION BY HASH(id) PARTITIONS 3",
    ]);
    let rows = rng.u32(1..2000);
    let number = rng.u32(..);
    vec![
        format!(
            "CREATE OR REPLACE TABLE {table} (id INT PRIMARY KEY, a BIGINT, c VARCHAR(200), KEY (a)) {}",
            shape.unwrap_or_default()
        ),
        format!(
            "INSERT INTO {table} (id, a, c) SELECT seq, seq * {number}, REPEAT(MD5(seq + {number}), 5) FROM seq_1_to_{rows}"
        ),
    ]
}

fn alter_table(rng: &mut Rng, table: &str) -> Vec<String> {
    let x = rng.u32(0..4);
    let change = match rng.u32(0..9) {
        0 => format!("ADD COLUMN IF NOT EXISTS x{x} VARCHAR(50) DEFAULT 'x', ALGORITHM=INSTANT"),
        1 => format!("ADD COLUMN IF NOT EXISTS x{x} INT DEFAULT 7, ALGORITHM=COPY"),
        2 => format!("DROP COLUMN IF EXISTS x{x}"),
        3 => format!("ADD INDEX IF NOT EXISTS i{x} (c({}))", rng.u32(1..40)),
        4 => format!("DROP INDEX IF EXISTS i{x}"),
        5 => "FORCE".to_owned(),
        6 => "ADD FULLTEXT INDEX IF NOT EXISTS ft (c)".to_owned(),
        7 => "DROP INDEX IF EXISTS ft".to_owned(),
        _ => format!("COMMENT='{x}', ROW_FORMAT=DYNAMIC"),
    };
    vec![format!("ALTER TABLE {table} {change}")]
}

fn account(rng: &mut Rng, n: u32) -> Vec<String> {
    match rng.u32(0..3) {
        0 => vec![
            format!("CREATE OR REPLACE USER 'storm{n}'@'localhost' IDENTIFIED BY 'secret{}'", rng.u32(..)),
            format!("GRANT SELECT, INSERT ON storm.* TO 'storm{n}'@'localhost'"),
        ],
        1 => vec![format!("GRANT UPDATE ON storm.* TO 'storm{n}'@'localhost'")],
        _ => vec![format!("DROP USER IF EXISTS 'storm{n}'@'localhost'")],
    }
}

impl RunningStorm {
    /// Statements that succeeded so far.
    pub fn done(&self) -> u64 {
        self.done.load(Relaxed)
    }

    /// Stops it.
    pub fn stop(mut self) -> Result<StormReport> {
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().context("stopped already")?;
        let failures = thread.join().map_err(|_| anyhow!("the storm's thread panicked"))?;
        Ok(StormReport { done: self.done(), failed: failures.count, last_error: failures.last })
    }
}

impl Drop for RunningStorm {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}
