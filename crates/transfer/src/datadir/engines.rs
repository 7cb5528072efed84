//! Tables whose rows are not in files that are sent: which engine holds them, and what to do about each.
//!
//! Only definitions without a data file beside them are opened; a server with 20,000 InnoDB tables has none
//! of those.
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;

use anyhow::{Context, Result};
use formats::mariadb::frm::{self, Engine};

use super::found::{Definition, is_gone};
use crate::failure::{Failure, Kind};
use crate::server::options::ServerOptions;

/// At most this many table names are in one message.
const NAMES_SHOWN: usize = 20;

/// What the operator wants for engines whose tables cannot be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnginePolicy {
    /// Engines (upper case) whose tables are left out, definition and all.
    pub skip: BTreeSet<String>,
}

impl EnginePolicy {
    /// `[sst] skip-engines`.
    pub fn from_options(options: &ServerOptions) -> EnginePolicy {
        EnginePolicy { skip: options.sst_names("skip-engines") }
    }
}

/// How a table without a data file of its own is handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is sent: its rows are in the system tablespace, or it has none to lose.
    Travels,
    /// The definition is sent. The rows are elsewhere by design and must be reachable from the joiner too.
    RowsElsewhere(String),
    /// The rows are on this node and cannot be sent.
    Stuck(String),
    /// Like `Stuck`, but the operator chose to leave the table out.
    LeftOut(String),
}

/// Decides for one engine. Engine names are those of `SHOW ENGINES` in upper case.
pub(super) fn fate(engine: &Engine, policy: &EnginePolicy) -> Fate {
    let Some(name) = name_of(engine) else { return Fate::Travels };
    match name.as_str() {
        _ if policy.skip.contains(&name) => Fate::LeftOut(name),
        "S3" | "SPIDER" | "CONNECT" | "FEDERATED" | "FEDERATEDX" | "SPHINX" => Fate::RowsElsewhere(name),
        // OQGRAPH is a view of another table; the server creates the others on demand.
        "OQGRAPH" | "SEQUENCE" | "SQL_SEQUENCE" | "INFORMATION_SCHEMA" | "EXAMPLE" => Fate::Travels,
        _ => Fate::Stuck(name),
    }
}

/// The engine's name if its rows may not be sent; `None` for engines whose tables are always sent.
fn name_of(engine: &Engine) -> Option<String> {
    match engine {
        // The rows are in the system tablespace (innodb_file_per_table=0), or discarded, or do not outlive
        // the server.
        Engine::InnoDb
        | Engine::Memory
        | Engine::Blackhole
        | Engine::Merge
        | Engine::View
        | Engine::PerformanceSchema => None,
        // A data file is missing: the table is as broken on the joiner as it is here.
        Engine::Aria | Engine::MyIsam | Engine::Csv | Engine::Archive => None,
        Engine::Sequence { of } => name_of(of),
        Engine::Partition { of: Some(parts) } => name_of(parts),
        Engine::Partition { of: None } => Some("PARTITION".to_owned()),
        Engine::Federated => Some("FEDERATED".to_owned()),
        Engine::RocksDb => Some("ROCKSDB".to_owned()),
        Engine::S3 => Some("S3".to_owned()),
        Engine::Other(name) => Some(name.clone()),
    }
}

/// The outcome for all of a node's tables.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// One for each engine whose rows cannot be sent.
    pub refusals: Vec<Failure>,
    /// Warnings for the log.
    pub warnings: Vec<String>,
    /// Database and table to leave out.
    pub skipped: HashSet<(String, String)>,
}

/// Opens the definitions and decides for each.
pub(super) fn judge(lonely: &[Definition], policy: &EnginePolicy) -> Result<Judged> {
    let mut judged = Judged::default();
    let (mut elsewhere, mut stuck, mut left_out) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for definition in lonely {
        let name = format!("{}.{}", definition.database, definition.table);
        let content = match fs::read(&definition.path) {
            Ok(content) => content,
            Err(e) if is_gone(&e) => continue,
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", definition.path.display())),
        };
        let engine = match frm::engine(&content) {
            Ok(engine) => engine,
            Err(e) => {
                judged
                    .warnings
                    .push(format!("{}: {e}; the file is sent unchanged", definition.path.display()));
                continue;
            }
        };
        let (group, engine): (&mut BTreeMap<String, BTreeSet<String>>, String) = match fate(&engine, policy) {
            Fate::Travels => continue,
            Fate::RowsElsewhere(engine) => (&mut elsewhere, engine),
            Fate::Stuck(engine) => (&mut stuck, engine),
            Fate::LeftOut(engine) => {
                judged.skipped.insert((definition.database.clone(), definition.table.clone()));
                (&mut left_out, engine)
            }
        };
        group.entry(engine).or_default().insert(name);
    }
    for (engine, tables) in elsewhere {
        judged.warnings.push(format!(
            "the rows of {engine} tables are not in the datadir; only their definitions are sent: {}",
            shown(&tables)
        ));
    }
    for (engine, tables) in left_out {
        judged.warnings.push(format!("{engine} tables are left out (skip-engines): {}", shown(&tables)));
    }
    for (engine, tables) in stuck {
        judged.refusals.push(refusal(&engine, &tables));
    }
    Ok(judged)
}

fn refusal(engine: &str, tables: &BTreeSet<String>) -> Failure {
    let text = format!("tables of engine {engine} cannot be sent: {}", shown(tables));
    Failure::new(Kind::Configuration, text).hint(format!(
        "convert or drop them, or set skip-engines={engine} under [sst] on the donor to leave them out"
    ))
}

fn shown(tables: &BTreeSet<String>) -> String {
    let names: Vec<&str> = tables.iter().take(NAMES_SHOWN).map(String::as_str).collect();
    match tables.len().saturating_sub(NAMES_SHOWN) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(skip: &str) -> EnginePolicy {
        EnginePolicy { skip: skip.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect() }
    }

    #[test]
    fn fates() {
        let other = |name: &str| Engine::Other(name.to_owned());
        let parts = |of| Engine::Partition { of: Some(Box::new(of)) };
        for (engine, want) in [
            (Engine::InnoDb, Fate::Travels),
            (Engine::View, Fate::Travels),
            (Engine::Memory, Fate::Travels),
            (parts(Engine::InnoDb), Fate::Travels),
            (other("OQGRAPH"), Fate::Travels),
            (Engine::S3, Fate::RowsElsewhere("S3".into())),
            (parts(other("SPIDER")), Fate::RowsElsewhere("SPIDER".into())),
            (other("CONNECT"), Fate::RowsElsewhere("CONNECT".into())),
            (Engine::RocksDb, Fate::Stuck("ROCKSDB".into())),
            (other("TOKUDB"), Fate::Stuck("TOKUDB".into())),
            (other("#77"), Fate::Stuck("#77".into())),
            (Engine::Partition { of: None }, Fate::Stuck("PARTITION".into())),
            (other("MROONGA"), Fate::LeftOut("MROONGA".into())),
        ] {
            assert_eq!(fate(&engine, &policy("MROONGA")), want, "{engine:?}");
        }
        assert_eq!(fate(&Engine::RocksDb, &policy("ROCKSDB")), Fate::LeftOut("ROCKSDB".into()));
    }

    #[test]
    fn a_long_list_is_cut() {
        let tables: BTreeSet<String> = (10..35).map(|n| format!("d.t{n}")).collect();
        assert!(shown(&tables).ends_with("d.t29 and 5 more"));
        assert_eq!(shown(&["d.b", "d.a"].map(str::to_owned).into()), "d.a, d.b");
    }
}
