//! Whether two nodes hold the same, object by object.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use mysql::Conn;

use crate::node::Node;
use crate::sql::{self, literal, quote};

/// Checksums of large tables take their time.
const CHECKSUM_TIMEOUT: Duration = Duration::from_secs(600);
/// How often a table that is complained of is checked.
const CHECKS: u32 = 4;

/// Tables whose content is each node's own.
const OWN: [(&str, &str); 10] = [
    ("mysql.innodb_index_stats", "InnoDB recomputes it in the background; not replicated"),
    ("mysql.innodb_table_stats", "the same"),
    ("mysql.table_stats", "ANALYZE and the server's own sampling; not replicated"),
    ("mysql.column_stats", "the same"),
    ("mysql.index_stats", "the same"),
    ("mysql.general_log", "what this server's clients did"),
    ("mysql.slow_log", "the same"),
    ("mysql.wsrep_cluster_members", "rewritten by each node at each view"),
    ("mysql.wsrep_streaming_log", "fragments of transactions still open"),
    ("mysql.gtid_slave_pos", "positions of this server as an asynchronous replica"),
];

/// Tables whose rows are compared by other means.
const OTHERWISE: [(&str, &str); 2] = [
    ("mysql.event", "holds when an event last ran here; SHOW CREATE EVENT is compared"),
    ("mysql.wsrep_cluster", "holds the view each node saw; a joiner may have seen a later one"),
];

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What differs: "rows of `db`.`t`".
    pub object: String,
    /// How.
    pub how: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.how)
    }
}

/// What [`compare_all`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// For each member, in order, what the joiner has otherwise.
    pub beside: Vec<Vec<Difference>>,
    /// What is wrong on the joiner by itself.
    pub damage: Vec<Difference>,
}

/// Compares everything, and looks for damage on the `joiner`. Nothing may write meanwhile: both first have to reach
/// the same position.
pub fn compare(donor: &Node, joiner: &Node) -> Result<Vec<Difference>> {
    let mut found = compare_all(&[donor], joiner)?;
    Ok(found.beside.drain(..).flatten().chain(found.damage).collect())
}

/// Compares a joiner with each of some members, the first of which was the donor.
pub fn compare_all(members: &[&Node], joiner: &Node) -> Result<Found> {
    let donor = *members.first().context("no member to compare with")?;
    members.iter().try_for_each(|member| wait_caught_up(member, joiner, Duration::from_secs(120)))?;
    let (all, theirs) = std::thread::scope(|scope| {
        let others: Vec<_> =
            members.iter().map(|member| scope.spawn(move || inventory(member, false))).collect();
        let theirs = inventory(joiner, true);
        (others.into_iter().map(joined).collect::<Result<Vec<_>>>(), theirs)
    });
    let (all, theirs) = (all?, theirs?);
    let beside = all.iter().map(|ours| differences(&ours.objects, &theirs.objects)).collect();
    let mut damage = Vec::new();
    for (table, complaint) in &theirs.complaints {
        // What the donor says of its own table in the same words (that its tablespace is discarded, say) is none.
        if *complaint != self::complaint(&mut donor.connect()?, table) {
            damage.push(Difference { object: format!("check of {table}"), how: complaint.clone() });
        }
    }
    damage.extend(stray_files(joiner)?);
    Ok(Found { beside, damage })
}

fn joined(thread: std::thread::ScopedJoinHandle<'_, Result<Inventory>>) -> Result<Inventory> {
    thread.join().unwrap_or_else(|_| Err(anyhow!("the comparing thread panicked")))
}

fn inventory(node: &Node, check: bool) -> Result<Inventory> {
    Inventory::of(node, check).with_context(|| format!("inventory of {}", node.name()))
}

/// [`compare`], an error naming the differences if there are any.
pub fn assert_equal(donor: &Node, joiner: &Node) -> Result<()> {
    let found = compare(donor, joiner)?;
    let list: Vec<String> = found.iter().take(50).map(ToString::to_string).collect();
    let (a, b) = (donor.name(), joiner.name());
    ensure!(found.is_empty(), "{} differences between {a} and {b}:\n{}", found.len(), list.join("\n"));
    Ok(())
}

/// [`assert_equal`], and the rows of the zoo that were valid before.
pub fn assert_equal_with_history(donor: &Node, joiner: &Node) -> Result<()> {
    assert_equal(donor, joiner)?;
    for table in ["zoo.versioned", "zoo.period"] {
        let times = if table == "zoo.period" { "since, until" } else { "row_start, row_end" };
        let rows = format!("SELECT *, {times} FROM {table} FOR SYSTEM_TIME ALL ORDER BY 1, 2, 3, 4");
        let (there, here) = (donor.rows(&rows)?, joiner.rows(&rows)?);
        ensure!(there == here && there.len() > 2, "history of {table}: {there:?} and {here:?}");
    }
    Ok(())
}

/// Waits until purge has left no more than so many transactions: what it has not removed yet differs between nodes.
pub fn wait_purged(node: &Node, at_most: u64, timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    while node.status("Innodb_history_list_length")?.parse::<u64>()? > at_most {
        ensure!(Instant::now() < deadline, "{} does not purge", node.name());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Waits until both nodes have committed the same, and no more comes.
pub fn wait_caught_up(a: &Node, b: &Node, timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    let mut last = String::new();
    loop {
        let at = [a.status("wsrep_last_committed")?, b.status("wsrep_last_committed")?];
        if at[0] == at[1] && at[0] == last {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{} is at {}, {} at {} and they do not meet", a.name(), at[0], b.name(), at[1]);
        }
        at[0].clone_into(&mut last);
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Everything a node holds: the name of each thing, and a text that is equal where the thing is.
struct Inventory {
    objects: BTreeMap<String, String>,
    tables: Vec<String>,
    /// What `CHECK TABLE` finds fault with.
    complaints: Vec<(String, String)>,
}

impl Inventory {
    fn of(node: &Node, check: bool) -> Result<Self> {
        let mut conn = sql::connect(&node.socket(), CHECKSUM_TIMEOUT)?;
        let mut all = Self { objects: BTreeMap::new(), tables: Vec::new(), complaints: Vec::new() };
        for row in sql::rows(&mut conn, "SHOW DATABASES")? {
            if !["information_schema", "performance_schema"].contains(&row[0].as_str()) {
                all.database(&mut conn, &row[0])?;
            }
        }
        all.accounts(&mut conn)?;
        for table in all.tables.iter().filter(|_| check) {
            let complaint = lasting_complaint(&mut conn, table);
            if !complaint.is_empty() {
                all.complaints.push((table.clone(), complaint));
            }
        }
        Ok(all)
    }

    fn database(&mut self, conn: &mut Conn, name: &str) -> Result<()> {
        let db = quote(name);
        self.ask(conn, format!("database {db}"), &format!("SHOW CREATE DATABASE {db}"));
        for row in sql::rows(conn, &format!("SHOW FULL TABLES FROM {db}"))? {
            self.table(conn, name, &row[0], &row[1]);
        }
        for row in sql::rows(conn, &format!("SHOW TRIGGERS FROM {db}"))? {
            let trigger = format!("{db}.{}", quote(&row[0]));
            let text = answer(conn, &format!("SHOW CREATE TRIGGER {trigger}"));
            self.objects.insert(format!("trigger {trigger}"), without_hundredths(&text).to_owned());
        }
        let routines =
            "SELECT ROUTINE_TYPE, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA=";
        for row in sql::rows(conn, &format!("{routines}{}", literal(name)))? {
            let routine = format!("{} {db}.{}", row[0], quote(&row[1]));
            self.ask(conn, routine.clone(), &format!("SHOW CREATE {routine}"));
        }
        for row in sql::rows(conn, &format!("SHOW EVENTS FROM {db}"))? {
            let event = format!("{db}.{}", quote(&row[1]));
            self.ask(conn, format!("event {event}"), &format!("SHOW CREATE EVENT {event}"));
        }
        Ok(())
    }

    fn table(&mut self, conn: &mut Conn, db: &str, name: &str, kind: &str) {
        let (plain, table) = (format!("{db}.{name}"), format!("{}.{}", quote(db), quote(name)));
        let excluded = |list: &[(&str, &str)]| list.iter().any(|(known, _)| *known == plain);
        let create = if kind == "VIEW" { "SHOW CREATE VIEW" } else { "SHOW CREATE TABLE" };
        let definition = answer(conn, &format!("{create} {table}"));
        // Each node counts in steps of its own (auto_increment_offset) to its next free number.
        self.objects.insert(format!("definition of {table}"), without_counter(&definition));
        // Rows of MEMORY tables end with the server.
        if kind == "VIEW" || definition.contains("ENGINE=MEMORY") {
            return;
        }
        self.tables.push(table.clone());
        if !excluded(&OWN) && !excluded(&OTHERWISE) {
            let rows = match kind {
                "SEQUENCE" => format!("SELECT * FROM {table}"),
                _ => format!("CHECKSUM TABLE {table} EXTENDED"),
            };
            self.ask(conn, format!("rows of {table}"), &rows);
        }
    }

    fn accounts(&mut self, conn: &mut Conn) -> Result<()> {
        for row in sql::rows(conn, "SELECT User, Host, is_role FROM mysql.user")? {
            let role = row[2] == "Y";
            let account = match role {
                true => quote(&row[0]),
                false => format!("{}@{}", literal(&row[0]), literal(&row[1])),
            };
            if !role {
                self.ask(conn, format!("account {account}"), &format!("SHOW CREATE USER {account}"));
            }
            self.ask(conn, format!("grants of {account}"), &format!("SHOW GRANTS FOR {account}"));
        }
        Ok(())
    }

    fn ask(&mut self, conn: &mut Conn, object: String, statement: &str) {
        self.objects.insert(object, answer(conn, statement));
    }
}

/// The answer as one text; an error is an answer too, equal where both nodes give it.
fn answer(conn: &mut Conn, statement: &str) -> String {
    match sql::rows(conn, statement) {
        Ok(rows) => rows.iter().map(|row| row.join(" | ")).collect::<Vec<_>>().join("\n"),
        Err(error) => format!("error: {error:#}"),
    }
}

/// The fraction of the second in which a trigger was created, at the end, is known only where that was.
fn without_hundredths(trigger: &str) -> &str {
    match trigger.rsplit_once('.') {
        Some((seconds, fraction)) if fraction.bytes().all(|b| b.is_ascii_digit()) => seconds,
        _ => trigger,
    }
}

fn without_counter(definition: &str) -> String {
    let Some((before, rest)) = definition.split_once(" AUTO_INCREMENT=") else {
        return definition.to_owned();
    };
    format!("{before}{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
}

fn differences(ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>) -> Vec<Difference> {
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let judge = |name: &String| match (ours.get(name), theirs.get(name)) {
        (Some(a), Some(b)) if a == b => None,
        (Some(a), Some(b)) => Some(format!("donor has {a:?}, joiner has {b:?}")),
        (Some(_), None) => Some("missing on the joiner".to_owned()),
        _ => Some("only on the joiner".to_owned()),
    };
    let found = names.into_iter().filter_map(|name| Some((name, judge(name)?)));
    found.map(|(name, how)| Difference { object: name.clone(), how }).collect()
}

/// A check that runs beside purge can meet a record of a secondary index that is about to go, and not find its row, which
/// has gone since. What is still said when purge has had its time is damage.
fn lasting_complaint(conn: &mut Conn, table: &str) -> String {
    let mut last = complaint(conn, table);
    for _ in 1..CHECKS {
        if last.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_secs(2));
        last = complaint(conn, table);
    }
    last
}

fn complaint(conn: &mut Conn, table: &str) -> String {
    let statement = format!("CHECK TABLE {table} EXTENDED");
    let rows = match sql::rows(conn, &statement) {
        Ok(rows) => rows,
        Err(error) => return format!("{error:#}"),
    };
    let bad = rows.iter().filter(|row| {
        let (kind, text) = (row[2].to_lowercase(), row[3].as_str());
        kind != "note" && !(kind == "status" && matches!(text, "OK" | "Table is already up to date"))
    });
    bad.map(|row| format!("{} {}", row[2], row[3])).collect::<Vec<_>>().join("; ")
}

/// Tablespaces without a table, and files of unfinished DDL. InnoDB drops some in the background: they get a moment.
fn stray_files(node: &Node) -> Result<Vec<Difference>> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let rows = node.rows("SELECT NAME FROM information_schema.INNODB_SYS_TABLES")?;
        let known: BTreeSet<String> = rows.into_iter().flatten().collect();
        let mut found = Vec::new();
        for entry in std::fs::read_dir(node.datadir())?.flatten().filter(|e| e.path().is_dir()) {
            if !entry.file_name().to_string_lossy().starts_with('.') {
                stray_in(&entry.path(), &known, &mut found);
            }
        }
        if found.is_empty() || Instant::now() > deadline {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}

fn stray_in(database: &Path, known: &BTreeSet<String>, found: &mut Vec<Difference>) {
    let db = database.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for entry in std::fs::read_dir(database).into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let unknown =
            file.strip_suffix(".ibd").is_some_and(|table| !known.contains(&format!("{db}/{table}")));
        if file.starts_with("#sql") || unknown {
            found.push(Difference {
                object: format!("file {db}/{file}"),
                how: "belongs to no table".to_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_difference_is_named() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let found = differences(
            &map(&[("a", "1"), ("b", "1"), ("c", "1")]),
            &map(&[("b", "2"), ("c", "1"), ("d", "1")]),
        );
        let text: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            ["a: missing on the joiner", "b: donor has \"1\", joiner has \"2\"", "d: only on the joiner"]
        );
    }

    #[test]
    fn a_trigger_is_known_by_its_second() {
        assert_eq!(
            without_hundredths("SET NEW.a = 1.5 | 2026-11-25 03:57:58.12"),
            "SET NEW.a = 1.5 | 2026-11-25 03:57:58"
        );
        assert_eq!(without_hundredths("error: no storm.tr1"), "error: no storm.tr1");
    }

    #[test]
    fn the_counter_alone_is_no_difference() {
        assert_eq!(
            without_counter("x ENGINE=InnoDB AUTO_INCREMENT=4711 CHARSET=a"),
            "x ENGINE=InnoDB CHARSET=a"
        );
    }
}
