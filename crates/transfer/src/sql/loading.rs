//! The statements with which a private server, or a running joiner's, gets its data. What they are about comes from a donor, so names are quoted.
use std::io::{self, Read};
use std::path::Path;

use formats::mariadb::sql_text::{name, names, table, text};
use mysql::prelude::Queryable;
use mysql::{LocalInfile, LocalInfileHandler, Row, Value};

use super::error::{Answer, SqlError};
use super::session::Session;

/// Values are taken as they are: dates that do not exist, zero as a counter, names of directories that this node has not.
const MODE: &str = "ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO,NO_DIR_IN_CREATE,NO_ENGINE_SUBSTITUTION";

/// Warnings of one statement that the server keeps, at most. It counts no further.
const WARNINGS_MAX: u16 = u16::MAX;
/// ER_UNKNOWN_SYSTEM_VARIABLE.
const UNKNOWN_VARIABLE: u16 = 1193;

/// What a server says of a statement that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Its number.
    pub code: u16,
    /// Its text.
    pub text: String,
}

/// How rows are loaded.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// Database of the table.
    pub database: &'a str,
    /// The table.
    pub table: &'a str,
    /// Columns of the rows; `None` for one that the table has not.
    pub columns: &'a [Option<String>],
    /// The column with the end of a row's validity, and the value of this server for a row that is valid now.
    pub until: Option<(&'a str, &'a str)>,
    /// Columns that take a text; the rows are bytes.
    pub texts: &'a [String],
    /// A value that does not fit is an error; otherwise it is a warning.
    pub strict: bool,
}

impl Session {
    /// Makes this a session that loads: nothing is checked that the donor has checked before.
    ///
    /// # Errors
    /// From the server.
    pub fn set_loading(&mut self) -> Answer<()> {
        for variable in [
            "sql_log_bin=0",
            "foreign_key_checks=0",
            // Without this check, InnoDB locks an empty table for the statement that fills it (MDEV-515), and sorts its rows
            // (MDEV-24621), which are sorted already: that takes twice the processor time.
            "unique_checks=1",
            "check_constraint_checks=0",
            // What the server warns of is judged by its words.
            "lc_messages='en_US'",
            "time_zone='+00:00'",
            "character_set_client=utf8mb4",
            "character_set_results=NULL",
            "collation_connection=utf8mb4_general_ci",
            &format!("max_error_count={WARNINGS_MAX}"),
            "lock_wait_timeout=86400",
            "innodb_lock_wait_timeout=86400",
            // A session that loads waits for rows as long as they take to come.
            "wait_timeout=31536000",
            "alter_algorithm='DEFAULT'",
            // What an option file may say for every session.
            "TRANSACTION READ WRITE",
            "enforce_storage_engine=NULL",
            "sql_safe_updates=0",
            // Rows of sys.sys_config say who wrote them.
            "autocommit=1, @sys.ignore_sys_config_triggers=1",
            &format!("sql_mode='{MODE}'"),
        ] {
            match self.run(&format!("SET SESSION {variable}")) {
                // Not every version has every one.
                Err(e) if e.code == UNKNOWN_VARIABLE => {}
                set => set?,
            }
        }
        Ok(())
    }

    /// Rows may say since when and until when they were valid (10.11 and later).
    ///
    /// # Errors
    /// From the server; it is older.
    pub fn insert_history(&mut self, on: bool) -> Answer<()> {
        self.run(&format!("SET SESSION system_versioning_insert_history={}", u8::from(on)))
    }

    /// Makes a database, unless there is one.
    ///
    /// # Errors
    /// From the server.
    pub fn create_database(&mut self, database: &str) -> Answer<()> {
        self.run(&format!("CREATE DATABASE IF NOT EXISTS {}", name(database)))
    }

    /// Removes a table, if there is one.
    ///
    /// # Errors
    /// From the server.
    pub fn drop_table(&mut self, database: &str, of: &str) -> Answer<()> {
        self.run(&format!("DROP TABLE IF EXISTS {}", table(database, of)))
    }

    /// Runs the statement with which a server defines a table. It may contain bytes that are no text. It is prepared, because a text
    /// that is prepared is one statement: the client's library lets a text be several. Returns what the server warned of.
    ///
    /// # Errors
    /// From the server.
    pub fn define(&mut self, database: &str, statement: &[u8]) -> Answer<Vec<Warning>> {
        self.run(&format!("USE {}", name(database)))?;
        let Ok(define) = std::str::from_utf8(statement) else {
            // The server reads such a text as the bytes that it consists of.
            let digits: String = statement.iter().map(|byte| format!("{byte:02x}")).collect();
            self.run("SET SESSION character_set_client=binary")?;
            let defined = self.run(&format!("EXECUTE IMMEDIATE X'{digits}'"));
            let warnings = defined.and_then(|()| self.warnings());
            self.run("SET SESSION character_set_client=utf8mb4")?;
            return warnings;
        };
        self.run(&format!("EXECUTE IMMEDIATE {}", text(define)))?;
        self.warnings()
    }

    /// Takes the tablespace of a table away.
    ///
    /// # Errors
    /// From the server.
    pub fn discard(&mut self, database: &str, of: &str) -> Answer<()> {
        self.run(&format!("ALTER TABLE {} DISCARD TABLESPACE", table(database, of)))
    }

    /// Adds keys to a table.
    ///
    /// # Errors
    /// From the server.
    pub fn add_keys(&mut self, database: &str, of: &str, add: &[u8]) -> Answer<Vec<Warning>> {
        let statement = [format!("ALTER TABLE {} ", table(database, of)).as_bytes(), add].concat();
        self.define(database, &statement)
    }

    /// The definition of a table, as the server shows it.
    ///
    /// # Errors
    /// From the server.
    pub fn definition(&mut self, database: &str, of: &str) -> Answer<Vec<u8>> {
        self.shown("TABLE", database, of)
    }

    /// The definition of a sequence, as the server shows it.
    ///
    /// # Errors
    /// From the server.
    pub fn sequence_definition(&mut self, database: &str, of: &str) -> Answer<Vec<u8>> {
        self.shown("SEQUENCE", database, of)
    }

    fn shown(&mut self, kind: &str, database: &str, of: &str) -> Answer<Vec<u8>> {
        let row: Option<Row> =
            self.statement().query_first(format!("SHOW CREATE {kind} {}", table(database, of)))?;
        match row.and_then(|mut row| row.take_opt::<Value, _>(1)) {
            Some(Ok(Value::Bytes(text))) => Ok(text),
            _ => Err(SqlError { code: u16::MAX, text: format!("{database}.{of} has no definition") }),
        }
    }

    /// Names of the columns of a table, in order.
    ///
    /// # Errors
    /// From the server.
    pub fn column_names(&mut self, database: &str, of: &str) -> Answer<Vec<String>> {
        let rows: Vec<Row> = self.statement().query(format!("SHOW COLUMNS FROM {}", table(database, of)))?;
        let first = |mut row: Row| match row.take_opt::<Value, _>(0) {
            Some(Ok(Value::Bytes(name))) => String::from_utf8(name).ok(),
            _ => None,
        };
        Ok(rows.into_iter().filter_map(first).collect())
    }

    /// Loads rows from a file or pipe. Returns how many it has loaded, and what it warned of.
    ///
    /// # Errors
    /// From the server.
    pub fn load_rows(&mut self, from: &Path, load: Load<'_>) -> Answer<(u64, Vec<Warning>)> {
        self.load(&format!("INFILE {}", text(&from.to_string_lossy())), load)
    }

    /// Loads rows that `source` gives, which the server reads from this program. A value that does not fit and a second row with one
    /// key are warnings here, never errors: the caller compares counts and looks at the warnings.
    ///
    /// # Errors
    /// From the server, or of the source. Then the session is of no more use.
    pub fn load_sent_rows(
        &mut self,
        mut source: impl Read + Send + 'static,
        load: Load<'_>,
    ) -> Answer<(u64, Vec<Warning>)> {
        let send = move |_: &[u8], server: &mut LocalInfile<'_>| io::copy(&mut source, server).map(drop);
        self.conn.set_local_infile_handler(Some(LocalInfileHandler::new(send)));
        let loaded = self.load("LOCAL INFILE 'rows'", load);
        self.conn.set_local_infile_handler(None);
        loaded
    }

    fn load(&mut self, from: &str, load: Load<'_>) -> Answer<(u64, Vec<Warning>)> {
        let strict = if load.strict { ",STRICT_ALL_TABLES" } else { "" };
        self.run(&format!("SET SESSION sql_mode='{MODE}{strict}'"))?;
        let is_until = |column: &String| load.until.is_some_and(|(until, _)| until == column);
        let is_text = |column: &String| load.texts.contains(column) || is_until(column);
        let column = |(number, column): (usize, &Option<String>)| match column {
            None => "@unknown".to_owned(),
            Some(column) if is_text(column) => format!("@text{number}"),
            Some(column) => name(column),
        };
        let columns: Vec<String> = load.columns.iter().enumerate().map(column).collect();
        let set = load.columns.iter().enumerate().filter_map(|(number, column)| {
            let column = column.as_ref().filter(|column| is_text(column))?;
            let value = format!("CONVERT(@text{number} USING latin1)");
            Some(match load.until.filter(|_| is_until(column)) {
                Some((_, now)) => format!("{} = IFNULL({value}, {})", name(column), text(now)),
                None => format!("{} = {value}", name(column)),
            })
        });
        let set: Vec<String> = set.collect();
        let set = if set.is_empty() { String::new() } else { format!(" SET {}", set.join(", ")) };
        let loaded = self.run(&format!(
            "LOAD DATA {from} INTO TABLE {} CHARACTER SET binary FIELDS TERMINATED BY '\\t' ENCLOSED BY '' ESCAPED BY '\\\\' \
             LINES TERMINATED BY '\\n' ({}){set}",
            table(load.database, load.table),
            columns.join(", ")
        ));
        let rows = self.conn.affected_rows();
        let loaded = loaded.and_then(|()| self.warnings());
        self.run(&format!("SET SESSION sql_mode='{MODE}'"))?;
        Ok((rows, loaded?))
    }

    /// Gives a sequence its one row.
    ///
    /// # Errors
    /// From the server.
    pub fn set_sequence(&mut self, database: &str, of: &str, values: &[String]) -> Answer<()> {
        let values: Vec<String> = values.iter().map(|value| text(value)).collect();
        self.run(&format!("INSERT INTO {} VALUES ({})", table(database, of), values.join(", ")))
    }

    /// Removes rows of a table of `mysql`, as far as `condition` says.
    ///
    /// # Errors
    /// From the server.
    pub fn delete_rows(&mut self, of: &str, condition: &str) -> Answer<()> {
        self.run(&format!("DELETE FROM {} WHERE {condition}", table("mysql", of)))
    }

    /// The accounts and roles with their privileges on everything, as bits: user, host, bits. A role has no host.
    ///
    /// # Errors
    /// From the server.
    pub fn global_privileges(&mut self) -> Answer<Vec<(String, String, u64)>> {
        let rows = self.texts("SELECT User, Host, JSON_VALUE(Priv, '$.access') FROM mysql.global_priv")?;
        let account = |row: Vec<String>| match <[String; 3]>::try_from(row) {
            Ok([user, host, access]) => Some((user, host, access.parse().ok()?)),
            Err(_) => None,
        };
        Ok(rows.into_iter().filter_map(account).collect())
    }

    /// Gives an account these privileges on everything instead of its own.
    ///
    /// # Errors
    /// From the server.
    pub fn set_global_privileges(&mut self, user: &str, host: &str, access: u64) -> Answer<()> {
        self.run(&format!(
            "UPDATE mysql.global_priv SET Priv = JSON_SET(Priv, '$.access', {access}) WHERE User = {} AND Host = {}",
            text(user),
            text(host)
        ))
    }

    /// Makes the names in these columns of a table of `mysql` lower case.
    ///
    /// # Errors
    /// From the server.
    pub fn lower_names(&mut self, of: &str, columns: &[&str]) -> Answer<()> {
        let set: Vec<String> =
            columns.iter().map(|column| format!("{0} = LOWER({0})", names([*column]))).collect();
        self.run(&format!("UPDATE {} SET {}", table("mysql", of), set.join(", ")))
    }

    /// Ends the server.
    ///
    /// # Errors
    /// From the server.
    pub fn shut_down(&mut self) -> Answer<()> {
        self.run("SHUTDOWN")
    }

    /// What the server warned of.
    ///
    /// # Errors
    /// From the server; there may be more than it keeps, and one of them may say that something is lost.
    fn warnings(&mut self) -> Answer<Vec<Warning>> {
        match self.conn.warnings() {
            0 => return Ok(Vec::new()),
            WARNINGS_MAX => {
                let text = format!("there are {WARNINGS_MAX} warnings or more, which cannot all be judged");
                return Err(SqlError { code: u16::MAX, text });
            }
            _ => {}
        }
        let rows: Vec<(String, u16, Vec<u8>)> = self.statement().query("SHOW WARNINGS")?;
        let warning = |(level, code, text): (String, u16, Vec<u8>)| {
            let text = String::from_utf8_lossy(&text).into_owned();
            (level != "Note").then_some(Warning { code, text })
        };
        Ok(rows.into_iter().filter_map(warning).collect())
    }
}
