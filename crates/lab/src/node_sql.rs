//! Statements on a node's server.

use anyhow::{Context, Result};
use mysql::Conn;

use crate::node::Node;
use crate::sql;

impl Node {
    /// A connection as root.
    pub fn connect(&self) -> Result<Conn> {
        sql::connect(&self.socket(), sql::STATEMENT_TIMEOUT)
    }

    /// Runs statements on a new connection, stopping at the first that fails.
    pub fn exec(&self, statements: &[&str]) -> Result<()> {
        let mut conn = self.connect()?;
        statements.iter().try_for_each(|statement| sql::exec(&mut conn, statement))
    }

    /// Makes an account for the user who runs this, whom the server knows by its socket: `root` has one already.
    pub fn let_in_who_tests(&self) -> Result<()> {
        if self.user.switch {
            return Ok(());
        }
        let name = sql::literal(&self.user.name()?);
        self.exec(&[
            &format!("CREATE USER IF NOT EXISTS {name}@'localhost' IDENTIFIED BY ''"),
            &format!("GRANT ALL ON *.* TO {name}@'localhost'"),
        ])
    }

    /// All rows of an answer, as text.
    pub fn rows(&self, statement: &str) -> Result<Vec<Vec<String>>> {
        sql::rows(&mut self.connect()?, statement)
    }

    /// The first column of the first row.
    pub fn value(&self, statement: &str) -> Result<String> {
        sql::value(&mut self.connect()?, statement)?.with_context(|| format!("no row: {statement}"))
    }

    /// A global status variable.
    pub fn status(&self, name: &str) -> Result<String> {
        sql::status(&mut self.connect()?, name)
    }

    /// The lowest seqno in its cache of write-sets.
    pub fn cached_downto(&self) -> Result<i64> {
        Ok(self.status("wsrep_local_cached_downto")?.parse()?)
    }
}
