//! A storm of DDL: what a snapshot of the donor must survive.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;

use crate::node::Node;
use crate::repeated::Repeated;
use crate::sql;

mod alone;
mod shared;

pub use shared::{create_shared, write_swapped};

/// What to do, how often.
#[derive(Debug, Clone, Copy)]
pub struct Storm {
    /// The same seed makes the same statements.
    pub seed: u64,
    /// Time from one statement's start to the next one's.
    pub every: Duration,
    /// Which statements.
    pub repertoire: Repertoire,
}

/// What a storm is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repertoire {
    /// Everything one node may do while no other changes tables.
    Alone {
        /// How many sysbench tables get and lose an index, too (0: leave them alone).
        sysbench_tables: u32,
    },
    /// What two nodes may do at once, mostly to the same objects, which [`create_shared`] has made. No databases and
    /// no triggers or views on a shared table: the server itself does not survive those from two nodes.
    Shared {
        /// Number of the node the storm runs on.
        node: usize,
    },
}

impl Storm {
    /// Starts it against `node`, in the database `storm`. Some statements always fail, their object being in the
    /// wrong state.
    pub fn start(self, node: &Node) -> Result<Repeated> {
        if matches!(self.repertoire, Repertoire::Alone { .. }) {
            node.exec(&["CREATE DATABASE IF NOT EXISTS storm"])?;
        }
        let (mut rng, mut next) = (Rng::with_seed(self.seed), VecDeque::new());
        Repeated::start(node, "ddl-storm", self.every, move |conn| {
            while next.is_empty() {
                next.extend(self.statements(&mut rng));
            }
            next.pop_front().map_or(Ok(()), |statement| sql::exec(conn, &statement))
        })
    }

    /// What comes next; few names, so that objects meet often.
    fn statements(self, rng: &mut Rng) -> Vec<String> {
        match self.repertoire {
            Repertoire::Alone { sysbench_tables } => alone::statements(rng, sysbench_tables),
            Repertoire::Shared { node } => shared::statements(rng, node),
        }
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
            "INSERT INTO {table} (id, a, c) SELECT seq, seq * {number}, REPEAT(MD5(seq + {number}), 5) FROM storm.seq_1_to_{rows}"
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
