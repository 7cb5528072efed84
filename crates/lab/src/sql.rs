//! Statements over a node's unix socket, as root. Answers are text.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder, Value};

/// How long a statement may take unless told otherwise.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(120);

/// A connection that gives up on an answer after `timeout`.
pub fn connect(socket: &Path, timeout: Duration) -> Result<Conn> {
    let opts = OptsBuilder::new()
        .socket(Some(socket.to_string_lossy().into_owned()))
        .user(Some("root"))
        .read_timeout(Some(timeout))
        .write_timeout(Some(timeout))
        // Told, not asked: a node that refuses queries (joining, or a donor that rejects them) can still be asked SHOW.
        .max_allowed_packet(Some(16 << 20));
    Conn::new(opts).with_context(|| format!("connecting to {}", socket.display()))
}

/// All rows of an answer; NULL is the text `NULL`.
pub fn rows(conn: &mut Conn, statement: &str) -> Result<Vec<Vec<String>>> {
    let context = || format!("statement: {}", abbreviate(statement));
    let answer = conn.query_iter(statement).with_context(context)?;
    answer.map(|row| Ok(row.with_context(context)?.unwrap().into_iter().map(text).collect())).collect()
}

/// Runs a statement and throws its answer away.
pub fn exec(conn: &mut Conn, statement: &str) -> Result<()> {
    conn.query_drop(statement).with_context(|| format!("statement: {}", abbreviate(statement)))
}

/// The first column of the first row.
pub fn value(conn: &mut Conn, statement: &str) -> Result<Option<String>> {
    Ok(rows(conn, statement)?.into_iter().next().and_then(|row| row.into_iter().next()))
}

/// A global status variable, empty when there is none of that name.
pub fn status(conn: &mut Conn, name: &str) -> Result<String> {
    let found = rows(conn, &format!("SHOW GLOBAL STATUS LIKE '{name}'"))?;
    Ok(found.into_iter().next().and_then(|mut row| row.pop()).unwrap_or_default())
}

/// A name as an identifier in SQL.
pub fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A string literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn text(value: Value) -> String {
    match value {
        Value::NULL => "NULL".to_owned(),
        Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        other => other.as_sql(true),
    }
}

fn abbreviate(statement: &str) -> String {
    statement.chars().take(300).collect()
}
