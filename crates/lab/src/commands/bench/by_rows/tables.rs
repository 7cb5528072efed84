//! What is transferred.

use anyhow::{Context, Result};
use rejoin_lab::{Node, sql};

/// The tables; the first has more than half of all bytes.
pub const NAMES: [&str; 5] = ["large", "by_number", "by_text", "by_two", "unique_too"];
/// Of a hundred rows.
const SHARES: [u64; 5] = [60, 10, 10, 10, 10];
/// What a row takes with its keys, about.
const ROW_BYTES: u64 = 280;
/// Rows that one statement makes.
const STEP: u64 = 100_000;

/// The columns before the others, with the keys that identify a row.
fn definition(name: &str) -> &'static str {
    match name {
        "large" => "id BIGINT AUTO_INCREMENT PRIMARY KEY",
        "by_text" => "id VARCHAR(40) NOT NULL PRIMARY KEY",
        "by_two" => "shop INT NOT NULL, id INT NOT NULL, PRIMARY KEY (shop, id)",
        "unique_too" => "id INT NOT NULL PRIMARY KEY, UNIQUE KEY u (c(40), id)",
        _ => "id INT NOT NULL PRIMARY KEY",
    }
}

/// The keys that can be added later.
fn keys(name: &str) -> &'static [&'static str] {
    if name == "large" { &["KEY k (k)", "KEY c (c(24))"] } else { &["KEY k (k)"] }
}

/// The statement that makes a table, and the one that adds its keys, if they come after its rows.
pub fn create(name: &str, keys_after: bool) -> (String, Option<String>) {
    let columns = "k INT UNSIGNED NOT NULL, c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL";
    let mut parts = vec![definition(name), columns];
    let add = keys(name).iter().map(|key| format!("ADD {key}")).collect::<Vec<_>>().join(", ");
    if !keys_after {
        parts.extend(keys(name));
    }
    let create = format!("CREATE TABLE d.{name} ({})", parts.join(", "));
    (create, keys_after.then(|| format!("ALTER TABLE d.{name} {add}")))
}

/// The values of the key.
fn key(name: &str) -> &'static str {
    match name {
        "by_text" => "CONCAT(MD5(seq), seq)",
        "by_two" => "seq MOD 20, seq",
        _ => "seq",
    }
}

/// Makes them, on this node alone.
pub fn make(node: &Node, megabytes: u64) -> Result<()> {
    let mut conn = node.connect()?;
    sql::exec(&mut conn, "SET SESSION wsrep_on=OFF")?;
    sql::exec(&mut conn, "CREATE DATABASE d")?;
    sql::exec(&mut conn, "USE d")?;
    let all = megabytes * 1_000_000 / ROW_BYTES;
    for (name, share) in NAMES.into_iter().zip(SHARES) {
        let rows = all * share / 100;
        sql::exec(&mut conn, &create(name, false).0)?;
        for from in (1..=rows).step_by(STEP as usize) {
            let to = (from + STEP - 1).min(rows);
            sql::exec(
                &mut conn,
                &format!(
                    "INSERT INTO {name} SELECT {}, CRC32(seq), \
                     CONCAT_WS('-', MD5(seq), MD5(seq + 1), MD5(-seq)), SHA1(seq) FROM seq_{from}_to_{to} ORDER BY 1",
                    key(name)
                ),
            )?;
        }
        sql::exec(&mut conn, &format!("ANALYZE TABLE {name}"))?;
    }
    Ok(())
}

/// Their bytes, with their keys.
pub fn bytes(node: &Node) -> Result<f64> {
    let question =
        "SELECT SUM(DATA_LENGTH + INDEX_LENGTH) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'd'";
    node.value(question)?.parse().context("bytes")
}

/// How many rows each has.
pub fn rows(node: &Node) -> Result<Vec<String>> {
    NAMES.iter().map(|name| node.value(&format!("SELECT COUNT(*) FROM d.{name}"))).collect()
}
