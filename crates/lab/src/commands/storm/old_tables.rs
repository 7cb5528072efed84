//! Tables that nobody has written to for minutes, so that both hosts remember them and a transfer reads them not: a client of the
//! donor begins to write to some of them while it gives.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use rejoin_lab::repeated::Repeated;
use rejoin_lab::{Node, sql};

use super::fixture::Fixture;
use super::workload::Giving;
use crate::commands::SETTLED;
use crate::commands::record::Counted;

/// Many, so that most of those that are chosen are old.
const TABLES: u32 = 400;
/// One in so many has several ranges.
const LARGE: u32 = 20;
const KINDS: [&str; 6] = [
    "ROW_FORMAT=DYNAMIC",
    "ROW_FORMAT=COMPACT",
    "ROW_FORMAT=REDUNDANT",
    "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8",
    "PAGE_COMPRESSED=1",
    "PARTITION BY HASH(id) PARTITIONS 3",
];

/// Makes them on a donor that is alone.
pub fn create(donor: &Node) -> Result<()> {
    let mut conn = donor.connect()?;
    sql::exec(&mut conn, "CREATE DATABASE old")?;
    for n in 0..TABLES {
        let (kind, rows) = (KINDS[n as usize % KINDS.len()], if n % LARGE == 0 { 15_000 } else { 200 });
        let columns = "id INT PRIMARY KEY, n INT, pad VARCHAR(250), KEY (n)";
        sql::exec(&mut conn, &format!("CREATE TABLE old.t{n} ({columns}) ENGINE=InnoDB {kind}"))?;
        sql::exec(&mut conn, &format!("INSERT INTO old.t{n} {}", filling(rows, n)))?;
    }
    donor.write_pages()
}

fn filling(rows: u32, number: u32) -> String {
    format!("SELECT seq, seq, REPEAT(MD5(seq + {number}), 7) FROM storm.seq_1_to_{rows}")
}

/// Has both hosts remember them, by a transfer that does not count.
pub fn remember(fixture: &Fixture) -> Result<()> {
    std::thread::sleep(SETTLED);
    let joiner = fixture.joiner();
    joiner.wipe()?;
    joiner.join().context("the join after which both hosts remember")?;
    fixture.donor().wait_synced_again(Duration::from_secs(30))?;
    joiner.wait_tidy()?;
    joiner.stop()
}

/// Writes to one after the other while the donor gives. Half of what is written to a table is at once in its file.
pub fn write(donor: &Node) -> Result<Repeated> {
    let mut rng = Rng::new();
    Repeated::start(donor, "old", Duration::from_millis(80), move |conn| {
        // A step that fails does not count as done.
        ensure!(sql::status(conn, "wsrep_local_state")? == Giving::DONOR, "the donor does not give");
        let (n, other, number) = (rng.u32(0..TABLES), rng.u32(0..TABLES), rng.u32(..));
        let update = format!(
            "UPDATE old.t{n} SET n = n + 1, pad = REPEAT(MD5(id + {number}), 7) WHERE id % 9 = {}",
            n % 9
        );
        let statements = match rng.u32(0..20) {
            0..8 => vec![update],
            8..16 => vec![
                update,
                "SET SESSION wsrep_on=OFF".to_owned(),
                format!("FLUSH TABLES old.t{n} FOR EXPORT"),
                "UNLOCK TABLES".to_owned(),
                "SET SESSION wsrep_on=ON".to_owned(),
            ],
            16 => vec![format!("ALTER TABLE old.t{n} FORCE")],
            17 => vec![
                format!("TRUNCATE TABLE old.t{n}"),
                format!("INSERT INTO old.t{n} {}", filling(200, number)),
            ],
            18 => vec![format!(
                "ALTER TABLE old.t{n} ADD COLUMN IF NOT EXISTS x INT DEFAULT 7, ALGORITHM=INSTANT"
            )],
            _ => vec![format!(
                "RENAME TABLE old.t{n} TO old.x, old.t{other} TO old.t{n}, old.x TO old.t{other}"
            )],
        };
        let done = statements.iter().try_for_each(|statement| sql::exec(conn, statement));
        // A step that fails in the middle leaves no locks, and its session as it was.
        done.or_else(|error| {
            sql::exec(conn, "UNLOCK TABLES")?;
            sql::exec(conn, "SET SESSION wsrep_on=ON")?;
            Err(error)
        })
    })
}

/// What both hosts did not read in the last transfer. An error when one of them read everything: then the round was about nothing.
pub fn remembered(fixture: &Fixture) -> Result<String> {
    let hosts = [fixture.donor(), fixture.joiner()];
    let counted = hosts.map(Counted::on).into_iter().collect::<Result<Vec<_>>>()?;
    for (node, counted) in hosts.iter().zip(&counted) {
        ensure!(counted.remembered > 0, "{} remembered nothing: {counted:?}", node.name());
    }
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let text = |c: &Counted| format!("{:.0} MB remembered and {:.0} read", mb(c.remembered), mb(c.read));
    Ok(format!("donor {}, joiner {}", text(&counted[0]), text(&counted[1])))
}
