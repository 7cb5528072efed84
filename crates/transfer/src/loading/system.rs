//! Rows of the database `mysql`: accounts with their privileges and roles, routines, events, and what else belongs to the data.
use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Result;
use formats::mariadb::rows_text::columns;
use formats::mariadb::system_tables::of_the_data;
use protocol::logical::{Contents, SystemTable};
use protocol::policy::series;

use super::arriving::Complete;
use super::parts;
use super::privileges::{log_unknown, remove_unknown, with_fewer_members};
use super::statement::Statement;
use super::tables::{Loader, refused};
use crate::failure::Failure;
use crate::sql::{Session, SqlError};

/// Most bytes of the list of plugins that are read.
const PLUGINS_MAX: u64 = 1 << 20;

/// The parts that have the list of the donor's plugins.
pub(super) fn plugins(contents: &Contents) -> &[String] {
    list_of_plugins(contents).map_or(&[], |plugins| &plugins.rows.parts)
}

fn list_of_plugins(contents: &Contents) -> Option<&SystemTable> {
    contents.system.iter().find(|system| system.name == "plugin")
}

/// Libraries of the donor's plugins that its tables may need: engines and types of columns. Others wait until this node's server
/// starts. `plugins`: files of the parts that have their list.
///
/// # Errors
/// The list cannot be read.
pub(super) fn engines(contents: &Contents, plugins: &[PathBuf]) -> Result<Vec<String>> {
    let columns_of = list_of_plugins(contents).map(|list| &list.rows.columns);
    let library = columns_of.and_then(|all| all.iter().position(|column| column.eq_ignore_ascii_case("dl")));
    let Some(library) = library else { return Ok(Vec::new()) };
    let mut text = Vec::new();
    for part in plugins {
        parts::open(part)?.take(PLUGINS_MAX).read_to_end(&mut text)?;
    }
    let names = text.split(|byte| *byte == b'\n').filter_map(|row| {
        String::from_utf8(columns(row).into_iter().nth(library)??).ok().filter(|name| is_engine(name))
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Whether a library, by its name, has an engine or a type of columns.
pub(crate) fn is_engine(library: &str) -> bool {
    let plain = library.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    plain && (library.starts_with("ha_") || library.starts_with("type_"))
}

/// Puts the donor's rows in place of those that the server has made by itself. `lower`: names get lower case here that have not on the
/// donor.
///
/// # Errors
/// The server refuses a row, or cancelled.
pub(super) fn load(loader: &Loader<'_>, complete: &Complete, lower: bool) -> Result<()> {
    loader.progress.phase("loading accounts and routines", "");
    let mut session = loader.session()?;
    let rows = &mut |session: &mut Session, system: &SystemTable, columns: &[Option<String>]| {
        let staged = system.rows.parts.iter().map(|part| Ok(complete.parts.staged(part)?.to_owned()));
        let staged = staged.collect::<Result<Vec<PathBuf>>>()?;
        let statement = Statement {
            database: "mysql",
            table: &system.name,
            rows: &system.rows,
            parts: &staged,
            columns,
            number: 0,
        };
        let loaded = statement.run(loader, session)?;
        log_unknown(&system.name, &loaded.expected);
        Ok(statement.check_count(loaded.rows)?)
    };
    replace(&mut session, &complete.contents, lower, &refused, rows)
}

/// Loads the rows of a table whose columns are these.
pub(crate) type LoadRows<'a> = &'a mut dyn FnMut(&mut Session, &SystemTable, &[Option<String>]) -> Result<()>;

/// As [`load`], with the rows that `rows` loads into a table whose columns are these. `refuses`: how a refusal of the server is said.
///
/// # Errors
/// The server refuses a row.
pub(crate) fn replace(
    session: &mut Session,
    contents: &Contents,
    lower: bool,
    refuses: &dyn Fn(&str, &SqlError) -> Failure,
    rows: LoadRows<'_>,
) -> Result<()> {
    let version = session.variable("version")?;
    let (own_series, of_donor) = (series(&version), series(&contents.server_version));
    for system in &contents.system {
        let Some(known) = of_the_data(&system.name) else { continue };
        let what = format!("the rows of mysql.{}", known.name);
        let own = session.column_names("mysql", known.name)?;
        if own.is_empty() {
            tracing::warn!("the joiner's server has no table mysql.{}: its rows are left out", known.name);
            continue;
        }
        let column = |column: &String| own.iter().find(|own| own.eq_ignore_ascii_case(column)).cloned();
        let columns: Vec<Option<String>> = system.rows.columns.iter().map(column).collect();
        for (unknown, _) in system.rows.columns.iter().zip(&columns).filter(|(_, own)| own.is_none()) {
            tracing::warn!(
                "the joiner's server has no column {unknown} in mysql.{}: its values are left out",
                known.name
            );
        }
        let refuses = |e: &SqlError| refuses(&what, e);
        // Routines of another series' program may not work in this one.
        if system.of_program && own_series != of_donor {
            continue;
        }
        let replaced =
            if system.of_program { format!("NOT ({})", known.rows) } else { known.rows.to_owned() };
        session.delete_rows(known.name, &replaced).map_err(|e| refuses(&e))?;
        if own_series < of_donor {
            let system = with_fewer_members(session, system)?;
            rows(session, &system, &columns)?;
        } else {
            rows(session, system, &columns)?;
        }
        if let ("global_priv", Some(own)) = (known.name, own_series) {
            remove_unknown(session, own).map_err(|e| refuses(&e))?;
        }
        if lower && !known.names.is_empty() {
            session.lower_names(known.name, known.names).map_err(|e| refuses(&e))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use protocol::logical::Rows;

    use super::*;

    #[test]
    fn engines_are_loaded_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let rows =
            b"ARCHIVE\tha_archive.so\nx\t../ha_x.so\nAUDIT\tserver_audit.so\nA2\tha_archive.so\nn\t\\N\n";
        let part = dir.path().join("p");
        std::fs::write(&part, zstd::bulk::compress(rows, 1).unwrap()).unwrap();
        let of =
            Rows { columns: vec!["name".into(), "dl".into()], parts: vec!["p".into()], ..Rows::default() };
        let system = vec![SystemTable { name: "plugin".into(), of_program: false, rows: of }];
        let contents = Contents { system, ..Contents::default() };
        assert_eq!(plugins(&contents), ["p"]);
        assert_eq!(engines(&contents, &[part]).unwrap(), ["ha_archive.so"]);
        assert!(plugins(&Contents::default()).is_empty());
        assert!(engines(&Contents::default(), &[]).unwrap().is_empty());
    }
}
