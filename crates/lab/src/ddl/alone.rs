//! The storm of one node.

use fastrand::Rng;

use super::{account, alter_table, create_table};
use crate::data;

pub(super) fn statements(rng: &mut Rng, sysbench_tables: u32) -> Vec<String> {
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
        _ => touch_sysbench(rng, sysbench_tables),
    }
}

fn touch_sysbench(rng: &mut Rng, tables: u32) -> Vec<String> {
    if tables == 0 {
        return vec![];
    }
    let table = format!("{}.sbtest{}", data::DATABASE, rng.u32(1..=tables));
    let change =
        if rng.bool() { "ADD INDEX IF NOT EXISTS storm (pad(10))" } else { "DROP INDEX IF EXISTS storm" };
    vec![format!("ALTER TABLE {table} {change}")]
}
