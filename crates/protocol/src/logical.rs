//! A logical snapshot: what the donor's server shows of its data, in parts that travel as files.
//!
//! A *part* is one zstd frame. Most parts are rows of one table, as `formats::mariadb::rows_text` has them. Three kinds describe
//! them: [`DEFINITIONS`] before any rows, one for a large table after its last rows ([`of_table`]), and [`CONTENTS`] after all rows.
//! The joiner's own server makes the tables and loads the rows; definitions that the server keeps as texts in files of their own
//! (views, triggers, options of databases) travel as these texts.
use serde::{Deserialize, Serialize};

/// Version of [`Contents`]; another one is not read.
pub const VERSION: u16 = 1;

/// The path of the part that describes all others.
pub const CONTENTS: &str = "contents";

/// The path of the first part of a snapshot: the encoded [`Contents`] without the rows that are still to be read, neither their number
/// nor their parts. A donor that begins its snapshot again sends another one, and all parts with smaller numbers are void.
pub const DEFINITIONS: &str = "definitions";

/// The end of the path of a part that describes one table.
const OF_TABLE: &str = "/table";

/// The largest encoded [`Contents`]: about 300,000 tables.
pub const CONTENTS_BYTES_MAX: u64 = 512 << 20;

/// The longest path of a part.
const PATH_BYTES_MAX: usize = 80;

/// Everything that is in a logical snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// [`VERSION`].
    pub version: u16,
    /// The donor's server, as in [`crate::policy::NodeFacts`].
    pub server_version: Option<String>,
    /// `lower_case_table_names` of the donor.
    pub lower_case_table_names: u8,
    /// Names of the databases.
    pub databases: Vec<String>,
    /// Tables and sequences.
    pub tables: Vec<Table>,
    /// Tables of the database `mysql` that the joiner's server makes by itself, and whose rows are the donor's.
    pub system: Vec<SystemTable>,
    /// Definitions that the server keeps as texts.
    pub texts: Vec<Text>,
}

/// A table that the joiner makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its database.
    pub database: String,
    /// Its name.
    pub name: String,
    /// The answer of `SHOW CREATE TABLE` or `SHOW CREATE SEQUENCE`, in any character set.
    pub create: Vec<u8>,
    /// What is in it.
    pub content: Content,
}

/// What is in a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Only the definition counts: rows are elsewhere, or end with the server.
    Nothing,
    /// Nothing, because the table has no tablespace on the donor (`DISCARD TABLESPACE`).
    Discarded,
    /// Rows.
    Rows(Rows),
    /// The one row of a sequence: its columns, as texts.
    Sequence(Vec<String>),
}

/// Rows of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// The columns in each row.
    pub columns: Vec<String>,
    /// Rows that were valid before now are among them (system versioning), with the columns that say when.
    pub history: bool,
    /// The column that says until when; NULL stands for a row that is valid now, because servers differ in their end of time.
    pub until: Option<String>,
    /// How many rows there are.
    pub count: u64,
    /// Bytes of the table on the donor, about.
    pub bytes: u64,
    /// Columns about which a server may warn although they get their values: of the type `ENUM`, whose invalid value is written
    /// as an empty text, and generated ones.
    pub lenient: Vec<String>,
    /// Columns of types that take a text (`UUID`, `INET6`), and would take bytes for something else.
    pub texts: Vec<String>,
    /// Paths of the parts, in the order of the table's key.
    pub parts: Vec<String>,
}

/// A table of the database `mysql`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemTable {
    /// Its name.
    pub name: String,
    /// The rows belong to the donor's program, so only a server of the same series can use them.
    pub of_program: bool,
    /// Its rows.
    pub rows: Rows,
}

/// A definition that the server keeps as a text in a file: a view, triggers, the options of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// The path of the file in the datadir.
    pub path: String,
    /// The text.
    pub bytes: Vec<u8>,
}

/// Bytes that are no [`Contents`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the description of the logical snapshot cannot be read: {0}")]
pub struct BadContents(String);

impl Contents {
    /// The bytes of the part [`CONTENTS`], before they are packed.
    ///
    /// # Errors
    /// It is larger than a joiner accepts.
    pub fn encode(&self) -> Result<Vec<u8>, BadContents> {
        let bytes = postcard::to_stdvec(self).map_err(|e| BadContents(e.to_string()))?;
        match bytes.len() as u64 > CONTENTS_BYTES_MAX {
            true => Err(BadContents(format!("{} bytes are too many", bytes.len()))),
            false => Ok(bytes),
        }
    }

    /// The inverse of [`Contents::encode`]. Every part that is named has a path that [`is_part`] accepts.
    ///
    /// # Errors
    /// The bytes are no contents of this version.
    pub fn decode(bytes: &[u8]) -> Result<Contents, BadContents> {
        let (contents, rest): (Contents, &[u8]) =
            postcard::take_from_bytes(bytes).map_err(|e| BadContents(e.to_string()))?;
        if contents.version != VERSION {
            return Err(BadContents(format!("its version is {}, not {VERSION}", contents.version)));
        }
        if !rest.is_empty() {
            return Err(BadContents(format!("{} bytes follow it", rest.len())));
        }
        contents.rows().try_for_each(check_paths)?;
        Ok(contents)
    }

    /// The rows of all tables.
    pub fn rows(&self) -> impl Iterator<Item = &Rows> {
        let tables = self.tables.iter().filter_map(|table| match &table.content {
            Content::Rows(rows) => Some(rows),
            Content::Nothing | Content::Discarded | Content::Sequence(_) => None,
        });
        tables.chain(self.system.iter().map(|table| &table.rows))
    }
}

impl Table {
    /// The bytes of the part [`of_table`], before they are packed.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn encode(&self) -> Result<Vec<u8>, BadContents> {
        postcard::to_stdvec(self).map_err(|e| BadContents(e.to_string()))
    }

    /// The inverse of [`Table::encode`].
    ///
    /// # Errors
    /// The bytes are no table of this version, or it names a part that cannot be one of rows.
    pub fn decode(bytes: &[u8]) -> Result<Table, BadContents> {
        let table: Table = postcard::from_bytes(bytes).map_err(|e| BadContents(e.to_string()))?;
        match &table.content {
            Content::Rows(rows) => check_paths(rows)?,
            Content::Nothing | Content::Discarded | Content::Sequence(_) => {}
        }
        Ok(table)
    }
}

fn check_paths(rows: &Rows) -> Result<(), BadContents> {
    match rows.parts.iter().find(|path| !is_of_rows(path)) {
        Some(path) => Err(BadContents(format!("{path:?} is not the path of rows"))),
        None => Ok(()),
    }
}

/// The path of the part that describes a table whose rows have all been sent, if these are the beginning of the paths of its parts:
/// an encoded [`Table`]. It comes after the table's rows.
pub fn of_table(prefix: &str) -> String {
    format!("{prefix}{OF_TABLE}")
}

/// Whether this is the path of a part that describes a table.
pub fn is_of_table(path: &str) -> bool {
    is_part(path) && path.ends_with(OF_TABLE)
}

/// Whether this is the path of a part of rows.
fn is_of_rows(path: &str) -> bool {
    is_part(path) && path != CONTENTS && path != DEFINITIONS && !is_of_table(path)
}

/// Whether this is the path of a part.
pub fn is_part(path: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    path.len() <= PATH_BYTES_MAX && path.split('/').all(is_word) && path.split('/').count() <= 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contents(parts: &[&str]) -> Contents {
        let rows = Rows {
            columns: vec!["id".into(), "a`b".into()],
            count: 3,
            parts: parts.iter().map(|part| (*part).to_owned()).collect(),
            ..Rows::default()
        };
        Contents {
            version: VERSION,
            databases: vec!["d".into()],
            tables: vec![Table {
                database: "d".into(),
                name: "t".into(),
                create: b"CREATE TABLE `t` (\n)\xff".to_vec(),
                content: Content::Rows(rows),
            }],
            texts: vec![Text { path: "d/v.frm".into(), bytes: b"TYPE=VIEW\n".to_vec() }],
            ..Contents::default()
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let contents = contents(&["0011aabb/1", "0011aabb/-2"]);
        let table = &contents.tables[0];
        assert_eq!(Table::decode(&table.encode().unwrap()).as_ref(), Ok(table));
        assert_eq!(Contents::decode(&contents.encode().unwrap()), Ok(contents));
    }

    #[test]
    fn parts_have_paths_of_their_own() {
        let of_table = of_table("0011aabb");
        for path in
            ["../x", "/x", "a/b/c", "A", "contents", "definitions", &of_table, "", "a//b", ".", "x.ibd"]
        {
            let named = contents(&[path]);
            assert!(Contents::decode(&named.encode().unwrap()).is_err(), "{path}");
            assert!(Table::decode(&named.tables[0].encode().unwrap()).is_err(), "{path}");
        }
        assert!(is_part(CONTENTS) && is_part(DEFINITIONS) && is_of_table(&of_table));
    }

    #[test]
    fn another_version_is_refused() {
        let other = Contents { version: 2, ..contents(&[]) };
        assert!(Contents::decode(&other.encode().unwrap()).unwrap_err().to_string().contains("version is 2"));
        let mut longer = contents(&[]).encode().unwrap();
        longer.push(0);
        assert!(Contents::decode(&longer).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Contents::decode(&bytes);
            let _ = Table::decode(&bytes);
        }
    }
}
