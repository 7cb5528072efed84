//! What this node's server cannot have as the donor has it. It is refused by name, before anything is loaded.
use std::collections::HashMap;

use anyhow::Result;
use protocol::logical::{Content, Contents, Table};

use super::in_words;
use super::texts::path_of;
use crate::datadir::layout::Layout;
use crate::failure::{Failure, Kind};
use crate::flavor::{Flavor, TableFile};
use crate::human::printable;

/// Checks names and paths.
///
/// # Errors
/// Two names are one here, a name cannot be written here, or the peer names what is none.
pub fn check(contents: &Contents, layout: &Layout) -> Result<(), Failure> {
    if let Some(text) = contents.texts.iter().find(|text| !is_text(layout.flavor, &text.path)) {
        let text = format!("{:?} is not the path of a definition", text.path);
        return Err(Failure::new(Kind::Peer, text));
    }
    if let Some(table) = contents.tables.iter().find(|table| !is_definition(table)) {
        let begins = String::from_utf8_lossy(&table.create).chars().take(40).collect::<String>();
        let text = format!("{begins:?} is no definition of {}", printable(&in_words(table)));
        return Err(Failure::new(Kind::Peer, text));
    }
    check_names(contents, layout.lower_case_table_names)
}

/// Checks names of tables for a server with this `lower_case_table_names`.
///
/// # Errors
/// Two names are one there, or a name cannot be written there.
pub fn check_names(contents: &Contents, lower_case_table_names: u8) -> Result<(), Failure> {
    match lower_case_table_names != 0 && contents.lower_case_table_names == 0 {
        true => check_lower_case(contents),
        false => Ok(()),
    }
}

/// Whether the statement that makes a table can be one that a server shows of one.
fn is_definition(table: &Table) -> bool {
    let begins: &[u8] = match &table.content {
        Content::Sequence(_) => b"CREATE SEQUENCE `",
        Content::Nothing | Content::Discarded | Content::Rows(_) => b"CREATE TABLE `",
    };
    table.create.starts_with(begins)
}

fn is_text(flavor: &dyn Flavor, path: &str) -> bool {
    path.split_once('/').is_some_and(|(database, name)| {
        let kind = flavor.in_database(name);
        flavor.is_database(database)
            && !name.contains('/')
            && matches!(kind, Some(TableFile::Definition | TableFile::Description))
    })
}

/// With `lower_case_table_names` here and without it on the donor, names that differ in case only are one.
fn check_lower_case(contents: &Contents) -> Result<(), Failure> {
    let databases = contents.databases.iter().map(|name| (name.to_lowercase(), name.clone()));
    let tables =
        contents.tables.iter().map(|table: &Table| (in_words(table).to_lowercase(), in_words(table)));
    let texts = contents
        .texts
        .iter()
        .map(|text| (path_of(&text.path, true).to_string_lossy().into_owned(), text.path.clone()));
    let mut seen: HashMap<String, String> = HashMap::new();
    for (lower, name) in databases.chain(tables).chain(texts) {
        // A file name encodes such a character in a way in which case cannot be changed.
        if name.chars().any(|c| !c.is_ascii() && c.to_lowercase().ne([c])) {
            let text = format!(
                "{name} has an upper case letter that lower_case_table_names of this node cannot change"
            );
            return Err(Failure::new(Kind::Refused, text)
                .hint("rename it on the donor, or use the donor's lower_case_table_names"));
        }
        if let Some(other) = seen.insert(lower, name.clone()).filter(|other| *other != name) {
            // Tables come in the order in which they were read.
            let (first, second) = if other < name { (other, name) } else { (name, other) };
            let text = format!(
                "{first} and {second} of the donor are one name with lower_case_table_names of this node"
            );
            return Err(Failure::new(Kind::Refused, text)
                .hint("rename one of them, or use the donor's lower_case_table_names"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use protocol::logical::Text;

    use super::*;
    use crate::flavor::mariadb::MariaDb;

    fn contents(tables: &[&str]) -> Contents {
        let table = |name: &&str| Table {
            database: "d".into(),
            name: (*name).to_owned(),
            create: Vec::new(),
            content: Content::Nothing,
        };
        Contents {
            databases: vec!["d".into()],
            tables: tables.iter().map(table).collect(),
            ..Contents::default()
        }
    }

    #[test]
    fn names_that_are_one_in_lower_case_are_refused() {
        assert!(check_lower_case(&contents(&["a", "B"])).is_ok());
        let why = check_lower_case(&contents(&["Tab", "tAB"])).unwrap_err();
        assert!(why.text.contains("d.Tab and d.tAB"), "{why}");
        let why = check_lower_case(&contents(&["Ä"])).unwrap_err();
        assert!(why.text.contains("d.Ä has an upper case letter"), "{why}");
        let views = |path: &str| Text { path: path.to_owned(), bytes: Vec::new() };
        let both = Contents { texts: vec![views("d/V.frm"), views("d/v.frm")], ..contents(&[]) };
        assert!(check_lower_case(&both).is_err());
    }

    #[test]
    fn only_definitions_define_tables() {
        let of = |create: &[u8], content| {
            is_definition(&Table { database: "d".into(), name: "t".into(), create: create.to_vec(), content })
        };
        assert!(of(b"CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB", Content::Nothing));
        assert!(of(b"CREATE SEQUENCE `s` start with 1", Content::Sequence(Vec::new())));
        assert!(!of(b"CREATE SEQUENCE `s` start with 1", Content::Nothing));
        assert!(!of(b"SET GLOBAL general_log_file='/home/u/.ssh/authorized_keys'", Content::Discarded));
        assert!(!of(b"", Content::Nothing));
    }

    #[test]
    fn only_definitions_have_paths() {
        for (path, is) in [
            ("d/v.frm", true),
            ("d/db.opt", true),
            ("d/t.TRG", true),
            ("d/t.ibd", false),
            ("../v.frm", false),
            ("a/b/v.frm", false),
            ("grastate.dat", false),
            ("d/my.cnf", false),
        ] {
            assert_eq!(is_text(&MariaDb, path), is, "{path}");
        }
    }
}
