//! Which tables there are, how each of them is read, and the definitions that the server keeps as texts in files.
use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, Result};
use formats::mariadb::system_tables::is_made_by_server;
use formats::mariadb::table_name::decoded;
use protocol::logical::Text;

use super::INCOMING;
use super::error::ReadError;
use crate::datadir::layout::Layout;
use crate::flavor::{Flavor, TableFile};
use crate::snapshot::declined::Declined;
use crate::sql::Session;
use crate::sql::definitions::Listed;

/// The longest definition in a file: a database directory has no longer ones.
const TEXT_BYTES_MAX: u64 = 16 << 20;
/// How the file of a view begins.
const VIEW: &[u8] = b"TYPE=VIEW\n";
/// How the server shows a name that it did not encode: a directory or file of another program.
const NOT_ENCODED: &str = "#mysql50#";
/// Tables that are named at most.
const NAMED: usize = 5;

/// How a table is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// In a view, without locks.
    InView,
    /// Under the locks.
    UnderLocks,
    /// Only its definition, under the locks.
    DefinitionOnly,
    /// A sequence, under the locks.
    Sequence,
    /// Not at all.
    Not,
}

/// Whether a database is no part of the data: a directory of another program, or what a transfer to this server has left.
pub(crate) fn is_foreign(database: &str) -> bool {
    database.starts_with(NOT_ENCODED) || database.starts_with(INCOMING)
}

/// How a table is read.
///
/// # Errors
/// It cannot be read.
pub(super) fn kind_of(listed: &Listed, skip: &BTreeSet<String>) -> Result<Kind, Declined> {
    let engine = listed.engine.to_ascii_uppercase();
    let is_sequence = listed.kind == "SEQUENCE";
    let is_table = matches!(listed.kind.as_str(), "BASE TABLE" | "SYSTEM VERSIONED");
    // Of sequences too: their databases are not among those that travel.
    let foreign = listed.name.starts_with(NOT_ENCODED) || is_foreign(&listed.database);
    if is_sequence && !foreign {
        return Ok(Kind::Sequence);
    }
    if !is_table || foreign || is_made_by_server(&listed.database, &listed.name) || skip.contains(&engine) {
        return Ok(Kind::Not);
    }
    match engine.as_str() {
        "INNODB" => Ok(Kind::InView),
        "MYISAM" | "ARIA" | "CSV" | "ARCHIVE" => Ok(Kind::UnderLocks),
        // Rows that are nowhere, end with the server, or are another's.
        "BLACKHOLE" | "MEMORY" | "MRG_MYISAM" | "FEDERATED" | "CONNECT" | "SPIDER" | "SPHINX" | "OQGRAPH" => {
            Ok(Kind::DefinitionOnly)
        }
        other => {
            let engine = if other.is_empty() {
                "which the server cannot open".to_owned()
            } else {
                format!("of the engine {other}")
            };
            let text = format!(
                "the table {}.{}, {engine}, cannot be read for a logical snapshot; repair or convert it, or name its engine in \
                 skip-engines under [sst] on the donor",
                listed.database, listed.name
            );
            Err(Declined::Layout(text))
        }
    }
}

/// What the server has in files of its databases.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    /// Views, triggers, options of databases: the server keeps them as texts.
    pub texts: Vec<Text>,
    /// Tables and sequences: the names of the directory and of the file, without its extension.
    tables: Vec<(String, String)>,
}

/// The definitions in files.
///
/// # Errors
/// A file cannot be read.
pub(super) fn definitions(layout: &Layout) -> Result<Definitions> {
    let mut found = Definitions::default();
    for directory in entries(&layout.datadir)? {
        let name = directory.file_name().to_string_lossy().into_owned();
        let is_ignored = layout.ignore_db_dirs.contains(&name) || is_foreign(&decoded(&name));
        if !is_ignored && layout.flavor.is_database(&name) && directory.path().is_dir() {
            of_database(layout.flavor, &name, &directory.path(), &mut found)?;
        }
    }
    found.texts.sort_by(|a: &Text, b: &Text| a.path.cmp(&b.path));
    Ok(found)
}

fn of_database(flavor: &dyn Flavor, database: &str, directory: &Path, found: &mut Definitions) -> Result<()> {
    for file in entries(directory)? {
        let name = file.file_name().to_string_lossy().into_owned();
        let may_be_table = match flavor.in_database(&name) {
            Some(TableFile::Definition) => true,
            Some(TableFile::Description) if !name.ends_with(".par") && !name.ends_with(".cfg") => false,
            _ => continue,
        };
        let path = file.path();
        let read = read(&path, may_be_table).with_context(|| format!("cannot read {}", path.display()))?;
        match read {
            Definition::Text(bytes) => {
                found.texts.push(Text { path: format!("{database}/{name}"), bytes });
            }
            Definition::Table => {
                let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
                found.tables.push((database.to_owned(), stem.to_owned()));
            }
            Definition::Gone => {}
        }
    }
    Ok(())
}

/// What is in a file.
enum Definition {
    Text(Vec<u8>),
    Table,
    Gone,
}

fn read(path: &Path, may_be_table: bool) -> Result<Definition> {
    let mut file = match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Definition::Gone),
        file => file?,
    };
    let mut bytes = Vec::new();
    if may_be_table {
        file.by_ref().take(VIEW.len() as u64).read_to_end(&mut bytes)?;
        if bytes != VIEW {
            return Ok(Definition::Table);
        }
    }
    file.take(TEXT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Definition::Text(bytes))
}

/// Fails unless the server lists every table whose definition is in its files: it leaves out silently what an account may not see.
///
/// # Errors
/// It does not, and they are named; or from the server.
pub(super) fn check_complete(
    session: &mut Session,
    found: &Definitions,
    listed: &[Listed],
) -> Result<(), ReadError> {
    let missing = missing(found, listed, &mut |name| session.name_of_file(name))?;
    if missing.is_empty() {
        return Ok(());
    }
    let named: Vec<&str> = missing.iter().take(NAMED).map(String::as_str).collect();
    let text = format!(
        "the server does not show {} tables whose definitions are in its datadir: {}; the account must be able to see everything, \
         and files that are no tables of this server must not be there",
        missing.len(),
        named.join(", ")
    );
    Err(Declined::Layout(text).into())
}

/// The name of a file without what the server appends to names that are devices elsewhere: `CON@@@`.
fn without_mark(file: &str) -> &str {
    file.strip_suffix("@@@").unwrap_or(file)
}

/// Tables with a definition in a file that are not listed. `name_of` decodes the name of a file.
fn missing<E>(
    found: &Definitions,
    listed: &[Listed],
    name_of: &mut dyn FnMut(&str) -> Result<String, E>,
) -> Result<Vec<String>, E> {
    let listed: HashSet<(&str, &str)> =
        listed.iter().map(|table| (table.database.as_str(), table.name.as_str())).collect();
    // As the server shows a name that is none of an encoded one.
    let foreign = |name: &str| format!("#mysql50#{name}");
    let is_listed = |database: &str, table: &str| listed.contains(&(database, table));
    let mut missing = Vec::new();
    for (directory, file) in &found.tables {
        let is_plain = |name: &str| !name.contains('@');
        if is_plain(directory) && is_plain(file) && is_listed(directory, file) {
            continue;
        }
        let databases = [name_of(without_mark(directory))?, foreign(directory)];
        let tables = [name_of(without_mark(file))?, foreign(file)];
        if !databases.iter().any(|database| tables.iter().any(|table| is_listed(database, table))) {
            let [database, table] = [&databases, &tables].map(|names| names[0].as_str());
            missing.push(format!("{database}.{table}"));
        }
    }
    Ok(missing)
}

fn entries(directory: &Path) -> Result<Vec<fs::DirEntry>> {
    let cannot = || format!("cannot list {}", directory.display());
    fs::read_dir(directory).with_context(cannot)?.map(|entry| entry.with_context(cannot)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flavor::mariadb::MariaDb;

    fn listed(database: &str, kind: &str, engine: &str) -> Listed {
        Listed { database: database.into(), name: "t".into(), kind: kind.into(), engine: engine.into() }
    }

    #[test]
    fn each_table_is_read_in_its_way_or_refused_by_name() {
        let skip = BTreeSet::from(["ROCKSDB".to_owned()]);
        for (kind, engine, how) in [
            ("BASE TABLE", "InnoDB", Kind::InView),
            ("SYSTEM VERSIONED", "InnoDB", Kind::InView),
            ("BASE TABLE", "Aria", Kind::UnderLocks),
            ("BASE TABLE", "MEMORY", Kind::DefinitionOnly),
            ("SEQUENCE", "InnoDB", Kind::Sequence),
            ("VIEW", "", Kind::Not),
            ("TEMPORARY", "InnoDB", Kind::Not),
            ("BASE TABLE", "ROCKSDB", Kind::Not),
        ] {
            assert_eq!(kind_of(&listed("d", kind, engine), &skip), Ok(how), "{kind} {engine}");
        }
        let why = kind_of(&listed("d", "BASE TABLE", "S3"), &skip).unwrap_err().to_string();
        assert!(why.contains("d.t, of the engine S3"), "{why}");
        assert!(
            kind_of(&listed("d", "BASE TABLE", ""), &skip).unwrap_err().to_string().contains("cannot open")
        );
        // What an earlier transfer to this server has left is in no database that the joiner makes.
        for kind in ["SEQUENCE", "BASE TABLE"] {
            let left = listed(&format!("{INCOMING}0"), kind, "InnoDB");
            assert_eq!(kind_of(&left, &skip), Ok(Kind::Not), "{kind}");
            let not_encoded = Listed { name: format!("{NOT_ENCODED}t"), ..listed("d", kind, "InnoDB") };
            assert_eq!(kind_of(&not_encoded, &skip), Ok(Kind::Not), "{kind}");
        }
        let of_server = Listed { name: "global_priv".into(), ..listed("mysql", "BASE TABLE", "Aria") };
        assert_eq!(kind_of(&of_server, &skip), Ok(Kind::Not));
    }

    #[test]
    fn only_definitions_that_are_texts_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("d");
        fs::create_dir(&database).unwrap();
        for (name, bytes) in [
            ("v.frm", &b"TYPE=VIEW\nquery=select 1\n"[..]),
            ("t.frm", b"\xfe\x01\x0a"),
            ("t.TRG", b"TYPE=TRIGGERS\n"),
            ("x.TRN", b"TYPE=TRIGGERNAME\n"),
            ("db.opt", b"default-character-set=latin1\n"),
            ("t.ibd", b""),
            ("t.par", b"p"),
            ("notes.txt", b"mine"),
        ] {
            fs::write(database.join(name), bytes).unwrap();
        }
        let mut found = Definitions::default();
        of_database(&MariaDb, "d", &database, &mut found).unwrap();
        let mut paths: Vec<&str> = found.texts.iter().map(|text| text.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["d/db.opt", "d/t.TRG", "d/v.frm", "d/x.TRN"]);
        assert!(found.texts.iter().any(|text| text.bytes == b"TYPE=VIEW\nquery=select 1\n"));
        assert_eq!(found.tables, [("d".to_owned(), "t".to_owned())]);
    }

    #[test]
    fn a_table_that_is_not_listed_is_named() {
        let of = |database: &str, name: &str| Listed {
            name: name.into(),
            ..listed(database, "BASE TABLE", "InnoDB")
        };
        let files = ["t", "a@002db", "x-y", "hidden"].map(|file| ("d@0020".to_owned(), file.to_owned()));
        let found = Definitions { tables: files.to_vec(), ..Definitions::default() };
        let mut decode =
            |name: &str| -> Result<String, ()> { Ok(name.replace("@0020", " ").replace("@002d", "-")) };
        let seen = [of("d ", "t"), of("d ", "a-b"), of("d ", "#mysql50#x-y")];
        assert_eq!(missing(&found, &seen, &mut decode), Ok(vec!["d .hidden".to_owned()]));
        let device = Definitions {
            tables: vec![("CON@@@".to_owned(), "AUX@@@".to_owned())],
            ..Definitions::default()
        };
        assert_eq!(missing(&device, &[of("CON", "AUX")], &mut decode), Ok(vec![]));
        // As it is: nothing is asked.
        let plain = Definitions { tables: vec![("d".to_owned(), "t".to_owned())], ..Definitions::default() };
        assert_eq!(missing(&plain, &[of("d", "t")], &mut |_| Err("asked")), Ok(vec![]));
    }
}
