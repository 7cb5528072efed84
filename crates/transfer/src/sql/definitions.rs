//! What the server shows of its definitions: databases, tables, columns and keys.
use formats::mariadb::sql_text::{table, text};

use super::error::Answer;
use super::keys::{Key, KeyColumn, Written};
use super::session::Session;

/// ER_BAD_FIELD_ERROR.
const UNKNOWN_COLUMN: u16 = 1054;

/// A table, as the server lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its database.
    pub database: String,
    /// Its name.
    pub name: String,
    /// `BASE TABLE`, `SYSTEM VERSIONED`, `SEQUENCE`, `VIEW`.
    pub kind: String,
    /// Its engine; empty for a view, or if the server cannot open it.
    pub engine: String,
}

/// A database, as the server describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// The character set of tables that name none.
    pub character_set: String,
    /// Their collation.
    pub collation: String,
    /// Its comment, or empty.
    pub comment: String,
}

/// A column, as the server describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// `int`, `float`, `enum`, in lower case.
    pub data_type: String,
    /// `int(11)`, `datetime(3)`, as in a definition.
    pub column_type: String,
    /// It has no sign.
    pub unsigned: bool,
    /// What it is generated from; none for an ordinary column.
    pub generated: Option<String>,
    /// Its generated value is stored in each row.
    pub stored: bool,
    /// Its character set and its collation, if it is made of characters.
    pub characters: Option<(String, String)>,
}

/// How much there is of a table, as far as the engine knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Rows, about.
    pub rows: u64,
    /// Bytes of rows, without secondary keys.
    pub bytes: u64,
}

impl Session {
    /// The name that the name of a file or directory encodes, without its extension.
    ///
    /// # Errors
    /// From the server.
    pub fn name_of_file(&mut self, file: &str) -> Answer<String> {
        let rows = self.texts(&format!("SELECT CONVERT(_filename {} USING utf8mb4)", text(file)))?;
        Ok(rows.into_iter().flatten().next().unwrap_or_else(|| file.to_owned()))
    }

    /// All tables, views and sequences of databases on disk.
    ///
    /// # Errors
    /// From the server.
    pub fn listed(&mut self) -> Answer<Vec<Listed>> {
        let rows = self.texts(
            "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA NOT IN ('information_schema', 'performance_schema')",
        )?;
        let listed = |row: Vec<String>| match <[String; 4]>::try_from(row) {
            Ok([database, name, kind, engine]) => Some(Listed { database, name, kind, engine }),
            Err(_) => None,
        };
        Ok(rows.into_iter().filter_map(listed).collect())
    }

    /// All databases on disk.
    ///
    /// # Errors
    /// From the server.
    pub fn databases(&mut self) -> Answer<Vec<Database>> {
        let ask = |session: &mut Session, comment: &str| {
            session.texts(&format!(
                "SELECT SCHEMA_NAME, DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME, {comment} FROM information_schema.SCHEMATA \
                 WHERE SCHEMA_NAME NOT IN ('information_schema', 'performance_schema')"
            ))
        };
        let rows = match ask(self, "SCHEMA_COMMENT") {
            // Servers before 10.5.
            Err(e) if e.code == UNKNOWN_COLUMN => ask(self, "''")?,
            rows => rows?,
        };
        let database = |row: Vec<String>| match <[String; 4]>::try_from(row) {
            Ok([name, character_set, collation, comment]) => {
                Some(Database { name, character_set, collation, comment })
            }
            Err(_) => None,
        };
        Ok(rows.into_iter().filter_map(database).collect())
    }

    /// The columns of a table, in order, also those that are not visible.
    ///
    /// # Errors
    /// From the server.
    pub fn columns(&mut self, database: &str, of: &str) -> Answer<Vec<Column>> {
        let rows = self.texts(&format!(
            "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_GENERATED, GENERATION_EXPRESSION, CHARACTER_SET_NAME, COLLATION_NAME, \
             EXTRA FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} ORDER BY ORDINAL_POSITION",
            text(database),
            text(of)
        ))?;
        let column = |row: Vec<String>| match <[String; 8]>::try_from(row) {
            Ok([name, data_type, column_type, generated, from, charset, collation, extra]) => Some(Column {
                name,
                data_type: data_type.to_ascii_lowercase(),
                unsigned: column_type.contains("unsigned"),
                column_type,
                generated: (generated == "ALWAYS").then_some(from),
                stored: extra.contains("STORED GENERATED"),
                characters: (!charset.is_empty()).then_some((charset, collation)),
            }),
            Err(_) => None,
        };
        Ok(rows.into_iter().filter_map(column).collect())
    }

    /// The key in whose order a table with these columns is read: the first that identifies a row, which is the one by which the
    /// engine stores the rows. The primary one is listed first.
    ///
    /// # Errors
    /// From the server.
    pub fn key(&mut self, database: &str, of: &str, columns: &[Column]) -> Answer<Key> {
        let rows = self.texts(&format!("SHOW INDEX FROM {} WHERE Non_unique = 0", table(database, of)))?;
        let mut keys: Vec<(String, Vec<Part>)> = Vec::new();
        for row in rows {
            let Some((index, part)) = Part::of(row) else { continue };
            match keys.last_mut().filter(|(last, _)| *last == index) {
                Some((_, parts)) => parts.push(part),
                None => keys.push((index, vec![part])),
            }
        }
        let usable = |(index, parts): &(String, Vec<Part>)| {
            parts.iter().all(|part| part.identifies && (part.whole || index == "PRIMARY"))
        };
        let Some((index, parts)) = keys.into_iter().find(usable) else { return Ok(Key::default()) };
        let whole = parts.iter().all(|part| part.whole);
        let parts = parts.into_iter().take_while(|part| part.whole);
        let columns = parts.map(|Part { column: name, descending, .. }| {
            let written = columns.iter().find(|column| column.name == name).and_then(Written::of);
            KeyColumn { name, descending, written }
        });
        Ok(Key { index, columns: columns.collect(), whole })
    }

    /// The number that is the answer to a question.
    ///
    /// # Errors
    /// From the server.
    pub fn count(&mut self, question: &str) -> Answer<u64> {
        let rows = self.texts(question)?;
        Ok(rows.first().and_then(|row| row.first()?.parse().ok()).unwrap_or(0))
    }

    /// How much there is of a table.
    ///
    /// # Errors
    /// From the server.
    pub fn extent(&mut self, database: &str, of: &str) -> Answer<Extent> {
        let rows = self.texts(&format!(
            "SELECT TABLE_ROWS, DATA_LENGTH FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
            text(database),
            text(of)
        ))?;
        let number = |at: usize| rows.first().and_then(|row| row.get(at)?.parse().ok()).unwrap_or(0);
        Ok(Extent { rows: number(0), bytes: number(1) })
    }

    /// The row of a sequence: its columns, as texts.
    ///
    /// # Errors
    /// From the server.
    pub fn sequence(&mut self, database: &str, of: &str) -> Answer<Vec<String>> {
        let rows = self.texts(&format!("SELECT * FROM {}", table(database, of)))?;
        Ok(rows.into_iter().next().unwrap_or_default())
    }
}

/// A column of a key, as the server lists it.
struct Part {
    column: String,
    descending: bool,
    /// The key has more than the beginning of its values.
    whole: bool,
    /// It is never NULL, and the server uses the key.
    identifies: bool,
}

impl Part {
    /// From a row of `SHOW INDEX`: the name of the key, and the column. Since 10.6 the last field says whether the key is ignored.
    fn of(row: Vec<String>) -> Option<(String, Part)> {
        let field = |at: usize| row.get(at).map(String::as_str);
        let ignored = field(13) == Some("YES");
        let part = Part {
            column: field(4)?.to_owned(),
            descending: field(5)? == "D",
            whole: field(7)?.is_empty(),
            identifies: field(9)? != "YES" && field(10)? == "BTREE" && !ignored,
        };
        Some((field(2)?.to_owned(), part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_do_not_identify_a_row_are_left_out() {
        let row = |null: &str, kind: &str, ignored: &str| {
            let row =
                ["t", "0", "u", "1", "a", "A", "9", "", "", null, kind, "", "", ignored].map(str::to_owned);
            Part::of(row.to_vec()).unwrap().1.identifies
        };
        assert!(row("", "BTREE", "NO"));
        assert!(!row("YES", "BTREE", "NO") && !row("", "HASH", "NO") && !row("", "BTREE", "YES"));
        assert!(Part::of(vec!["t".to_owned()]).is_none());
    }
}
