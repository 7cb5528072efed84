//! The statements with which a logical snapshot is read: rows, in one consistent view. [`super::definitions`] has what the server
//! shows of its definitions.
use formats::mariadb::sql_text::{name, names, table};
use mysql::prelude::Queryable;
use mysql::{Row, Value};

use super::definitions::{Column, Listed};
use super::error::{Answer, SqlError};
use super::keys::{Between, Key, Values};
use super::session::Session;

/// Tables that one statement opens at once; the server joins no more than 61.
const OPENED_AT_ONCE: usize = 50;

/// ER_TABLESPACE_DISCARDED.
const DISCARDED: u16 = 1814;

/// Takes each row as it comes: its columns, none for NULL.
pub type EachRow<'a, E> = &'a mut dyn FnMut(&[Option<&[u8]>]) -> Result<(), E>;

impl Session {
    /// Makes this a session that reads: values come as the bytes that are stored, points in time in UTC, and neither the session
    /// nor a statement ends before the snapshot does.
    ///
    /// # Errors
    /// From the server.
    pub fn set_reading(&mut self) -> Answer<()> {
        for variables in [
            "wait_timeout=604800, net_write_timeout=86400, max_statement_time=0, lock_wait_timeout=20",
            // A reader waits in its transaction for its turn, and the one that keeps tables open for the end.
            "idle_transaction_timeout=0, idle_readonly_transaction_timeout=0, idle_write_transaction_timeout=0",
            "time_zone='+00:00', sql_mode='', sql_quote_show_create=1",
            "character_set_client=utf8mb4, collation_connection=utf8mb4_general_ci, character_set_results=NULL",
            "transaction_isolation='REPEATABLE-READ'",
        ] {
            match self.run(&format!("SET SESSION {variables}")) {
                // Servers before 11.1 have it under its old name.
                Err(e) if e.code == 1193 && variables.starts_with("transaction") => {
                    self.run("SET SESSION tx_isolation='REPEATABLE-READ'")?;
                }
                set => set?,
            }
        }
        Ok(())
    }

    /// Begins a transaction that sees what is committed now, until [`Session::end_view`].
    ///
    /// # Errors
    /// From the server.
    pub fn begin_view(&mut self) -> Answer<()> {
        self.run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    }

    /// Ends the transaction.
    ///
    /// # Errors
    /// From the server.
    pub fn end_view(&mut self) -> Answer<()> {
        self.run("ROLLBACK")
    }

    /// Whether the transaction that was begun is still the same one: the provider ends one whose tables another node changes.
    ///
    /// # Errors
    /// It is not, and the server says so.
    pub fn has_view(&mut self) -> Answer<bool> {
        let open: Option<u8> = self.statement().query_first("SELECT @@in_transaction")?;
        Ok(open == Some(1))
    }

    /// Opens tables, so that no definition of theirs changes before the transaction ends. A definition that another node changes ends
    /// the transaction instead.
    ///
    /// # Errors
    /// From the server.
    pub fn hold_definitions<'a>(&mut self, tables: impl IntoIterator<Item = &'a Listed>) -> Answer<()> {
        let all: Vec<String> = tables.into_iter().map(|of| table(&of.database, &of.name)).collect();
        for some in all.chunks(OPENED_AT_ONCE) {
            match self.open_tables(some) {
                // One of them has no tablespace, and so nothing to read.
                Err(e) if e.code == DISCARDED => {
                    for one in some.chunks(1) {
                        self.open_tables(one)
                            .or_else(|e| if e.code == DISCARDED { Ok(()) } else { Err(e) })?;
                    }
                }
                opened => opened?,
            }
        }
        Ok(())
    }

    /// Locks tables against writes of others, until this session ends.
    ///
    /// # Errors
    /// From the server.
    pub fn lock_for_reading(&mut self, tables: &[&Listed]) -> Answer<()> {
        let tables: Vec<String> =
            tables.iter().map(|of| format!("{} READ", table(&of.database, &of.name))).collect();
        self.run(&format!("LOCK TABLES {}", tables.join(", ")))
    }

    fn open_tables(&mut self, tables: &[String]) -> Answer<()> {
        let aliased: Vec<String> =
            tables.iter().enumerate().map(|(number, of)| format!("{of} AS t{number}")).collect();
        self.run(&format!("SELECT 1 FROM {} LIMIT 0", aliased.join(", ")))
    }

    /// Whether this account may read every table, by any grants and roles. The server checks that before it looks for the database,
    /// so only an account that may read all databases is told that this one does not exist.
    ///
    /// # Errors
    /// The session is gone.
    pub fn reads_everything(&mut self) -> Answer<bool> {
        /// ER_TABLEACCESS_DENIED_ERROR.
        const TABLE_DENIED: u16 = 1142;
        match self.run("SELECT 1 FROM `rejoin: no such database`.`t` LIMIT 0") {
            Err(e) if e.is_denied() || e.code == TABLE_DENIED => Ok(false),
            Err(e) if e.is_lost() => Err(e),
            _ => Ok(true),
        }
    }

    /// The values of the first row after `from` that ends a range. About one row in `every` does, depending on its values only, so the
    /// same rows are divided in the same way while others are inserted and deleted.
    ///
    /// # Errors
    /// From the server.
    pub fn next_border(
        &mut self,
        database: &str,
        of: &str,
        key: &Key,
        from: Option<&Values>,
        every: u64,
    ) -> Answer<Option<Values>> {
        let columns = names(key.dividing().iter().map(|column| column.name.as_str()));
        let after = from.and_then(|from| key.after(from)).map(|after| format!("{after} AND "));
        let statement = format!(
            "SELECT {columns} FROM {}{} WHERE {}MOD({}, {every}) = 0 ORDER BY {columns} LIMIT 1",
            table(database, of),
            key.forced(),
            after.unwrap_or_default(),
            key.hash()
        );
        let row: Option<Row> = self.statement().query_first(statement)?;
        let values = row.map(|row| row.unwrap().into_iter().map(bytes).collect());
        Ok(values)
    }

    /// The least and the greatest value of a column of whole numbers; none if there is no row.
    ///
    /// # Errors
    /// From the server.
    pub fn least_and_greatest(
        &mut self,
        database: &str,
        of: &str,
        column: &str,
    ) -> Answer<Option<(i128, i128)>> {
        let (column, of) = (name(column), table(database, of));
        let rows = self.texts(&format!("SELECT MIN({column}), MAX({column}) FROM {of}"))?;
        let number = |at: usize| rows.first().and_then(|row| row.get(at)?.parse().ok());
        Ok(number(0).zip(number(1)))
    }

    /// Reads rows: `select` is what is read of them, `rest` where from. Each row is passed on as it comes; if that fails, the rest
    /// of the rows still comes unless another session ends this one.
    ///
    /// # Errors
    /// From the server, or what `each` returns.
    pub fn read_rows<E: From<SqlError>>(
        &mut self,
        select: &str,
        rest: &str,
        each: EachRow<'_, E>,
    ) -> Result<(), E> {
        let rows = self.statement().query_iter(format!("SELECT {select} {rest}")).map_err(SqlError::from)?;
        for row in rows {
            let row = row.map_err(SqlError::from)?;
            let mut columns: Vec<Option<&[u8]>> = Vec::with_capacity(row.len());
            for at in 0..row.len() {
                columns.push(match row.as_ref(at) {
                    Some(Value::Bytes(bytes)) => Some(bytes),
                    Some(Value::NULL) | None => None,
                    // In answers to a text every value is a text.
                    Some(other) => {
                        let text =
                            format!("the server sent a value of an unexpected kind ({})", other.as_sql(true));
                        return Err(SqlError { code: u16::MAX, text }.into());
                    }
                });
            }
            each(&columns)?;
        }
        Ok(())
    }

    /// Rows of texts; NULL is an empty one, and bytes that are no text have replacements.
    pub(super) fn texts(&mut self, question: &str) -> Answer<Vec<Vec<String>>> {
        let rows: Vec<Row> = self.statement().query(question)?;
        let text = |value: Value| String::from_utf8_lossy(&bytes(value)).into_owned();
        Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect())
    }
}

/// Bytes of a value in an answer to a text; none of NULL.
fn bytes(value: Value) -> Vec<u8> {
    match value {
        Value::Bytes(bytes) => bytes,
        _ => Vec::new(),
    }
}

/// What of a table's columns is read: the names, and the list for a SELECT. A FLOAT is read as the number that is stored: as a text
/// it has six digits. `until`: the column with the end of a row's validity, which is NULL for a row that is valid now.
pub fn select(columns: &[&Column], until: Option<&str>) -> (Vec<String>, String) {
    let list: Vec<String> = columns
        .iter()
        .map(|column| match column.data_type.as_str() {
            // A row's end is in the future only if the row is valid now.
            _ if Some(column.name.as_str()) == until => {
                format!("IF({0} > SYSDATE(6) + INTERVAL 1 DAY, NULL, {0})", name(&column.name))
            }
            "float" => format!("CAST({} AS DOUBLE)", name(&column.name)),
            _ => name(&column.name),
        })
        .collect();
    (columns.iter().map(|column| column.name.clone()).collect(), list.join(", "))
}

/// Where rows are read from: the table with all its history, in the order of its key, and a range of its values only.
pub fn rest(database: &str, of: &str, history: bool, key: &Key, between: &Between) -> String {
    let mut text = format!("FROM {}", table(database, of));
    match history {
        true => text.push_str(" FOR SYSTEM_TIME ALL"),
        false => text.push_str(&key.forced()),
    }
    if let Some(condition) = key.condition(between) {
        text.push_str(&format!(" WHERE {condition}"));
    }
    text + &key.order()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::keys::{KeyColumn, Written};

    #[test]
    fn what_is_read_of_a_table() {
        let column = |name: &str, data_type: &str| Column {
            name: name.to_owned(),
            data_type: data_type.to_owned(),
            ..Column::default()
        };
        let (id, f) = (column("id", "int"), column("f`", "float"));
        let (names, list) = select(&[&id, &f], None);
        assert_eq!(
            (names, list),
            (vec!["id".to_owned(), "f`".to_owned()], "`id`, CAST(`f``` AS DOUBLE)".to_owned())
        );
        let (_, list) = select(&[&id], Some("id"));
        assert_eq!(list, "IF(`id` > SYSDATE(6) + INTERVAL 1 DAY, NULL, `id`)");
        let of = |name: &str| KeyColumn {
            name: name.to_owned(),
            descending: false,
            written: Some(Written::Whole),
        };
        let key = Key { index: "PRIMARY".to_owned(), columns: vec![of("id"), of("b")], whole: true };
        assert_eq!(
            rest("d", "t", false, &key, &Between::Numbers(-5, 7)),
            "FROM `d`.`t` FORCE INDEX (`PRIMARY`) WHERE `id` BETWEEN -5 AND 7 ORDER BY `id`, `b`"
        );
        assert_eq!(rest("d", "t", true, &Key::default(), &Between::All), "FROM `d`.`t` FOR SYSTEM_TIME ALL");
    }
}
