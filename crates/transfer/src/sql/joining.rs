//! The statements that a running joiner's server gets beside those that load: what holds for the whole server, and what puts the
//! donor's data in the place of its own. The sessions write on that server only.
use std::path::Path;

use formats::mariadb::sql_text::{name, table, text};
use mysql::prelude::Queryable;

use super::definitions::Database;
use super::error::Answer;
use super::session::Session;

/// ER_FILE_EXISTS_ERROR.
pub const FILE_EXISTS: u16 = 1086;

impl Session {
    /// What this session writes stays on its server: neither the group nor the binary log gets it. A server that waits for its
    /// state takes every statement of such a session. Nothing ends the session but its client.
    ///
    /// # Errors
    /// From the server; needs SUPER.
    pub fn stay_local(&mut self) -> Answer<()> {
        self.run("SET SESSION wsrep_on=OFF, sql_log_bin=OFF")?;
        self.run(
            "SET SESSION wait_timeout=604800, net_read_timeout=86400, net_write_timeout=86400, max_statement_time=0",
        )
    }

    /// The privileges on everything that an account has by itself, `user@host` as the server writes it.
    ///
    /// # Errors
    /// From the server.
    pub fn privileges(&mut self, account: &str) -> Answer<Vec<String>> {
        let (user, host) = account.rsplit_once('@').unwrap_or((account, ""));
        let grantee = text(&format!("'{user}'@'{host}'"));
        Ok(self.statement().query(format!(
            "SELECT PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES WHERE GRANTEE = {grantee}"
        ))?)
    }

    /// Has the server write a file that does not exist.
    ///
    /// # Errors
    /// From the server; [`FILE_EXISTS`] if there is one.
    pub fn write_file(&mut self, path: &Path, bytes: &[u8]) -> Answer<()> {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.run(&format!("SELECT X'{digits}' INTO DUMPFILE {}", text(&path.to_string_lossy())))
    }

    /// Sets a global variable to a text or a word.
    ///
    /// # Errors
    /// From the server.
    pub fn set_global(&mut self, variable: &str, value: &str) -> Answer<()> {
        self.run(&format!("SET GLOBAL {variable}={}", text(value)))
    }

    /// Sets a global variable to a number.
    ///
    /// # Errors
    /// From the server.
    pub fn set_global_number(&mut self, variable: &str, value: u64) -> Answer<()> {
        self.run(&format!("SET GLOBAL {variable}={value}"))
    }

    /// Removes a database with everything in it.
    ///
    /// # Errors
    /// From the server.
    pub fn drop_database(&mut self, database: &str) -> Answer<()> {
        self.run(&format!("DROP DATABASE IF EXISTS {}", name(database)))
    }

    /// Gives a database the options of another one of its name.
    ///
    /// # Errors
    /// From the server.
    pub fn alter_database(&mut self, as_this: &Database) -> Answer<()> {
        let Database { name: of, character_set, collation, comment } = as_this;
        let comment = if comment.is_empty() { String::new() } else { format!(" COMMENT {}", text(comment)) };
        self.run(&format!(
            "ALTER DATABASE {} CHARACTER SET {} COLLATE {}{comment}",
            name(of),
            text(character_set),
            text(collation)
        ))
    }

    /// Moves tables to other databases, at once: `((from, table), to)`.
    ///
    /// # Errors
    /// From the server.
    pub fn move_tables(&mut self, tables: &[((String, String), String)]) -> Answer<()> {
        let moves = tables.iter().map(|((from, of), to)| format!("{} TO {}", table(from, of), table(to, of)));
        self.run(&format!("RENAME TABLE {}", moves.collect::<Vec<_>>().join(", ")))
    }

    /// Changes a table as the fragments of an `ALTER TABLE` say.
    ///
    /// # Errors
    /// From the server.
    pub fn change_table(&mut self, database: &str, of: &str, how: &[u8]) -> Answer<()> {
        self.add_keys(database, of, how).map(drop)
    }

    /// Databases and names of the events that the server is to run.
    ///
    /// # Errors
    /// From the server.
    pub fn enabled_events(&mut self) -> Answer<Vec<(String, String)>> {
        let rows = self.texts("SELECT db, name FROM mysql.event WHERE status = 'ENABLED'")?;
        let event =
            |row: Vec<String>| <[String; 2]>::try_from(row).ok().map(|[database, name]| (database, name));
        Ok(rows.into_iter().filter_map(event).collect())
    }

    /// Has the server take note of an event whose row was written past it. That changes the row.
    ///
    /// # Errors
    /// From the server.
    pub fn touch_event(&mut self, database: &str, event: &str) -> Answer<()> {
        self.run(&format!("ALTER EVENT {} COMMENT ''", table(database, event)))
    }

    /// Names of the plugins that the server has loaded.
    ///
    /// # Errors
    /// From the server.
    pub fn plugins(&mut self) -> Answer<Vec<String>> {
        Ok(self
            .statement()
            .query("SELECT PLUGIN_NAME FROM information_schema.PLUGINS WHERE PLUGIN_STATUS='ACTIVE'")?)
    }

    /// Loads a plugin, from now on and at each start.
    ///
    /// # Errors
    /// From the server.
    pub fn install_plugin(&mut self, plugin: &str, library: &str) -> Answer<()> {
        self.run(&format!("INSTALL PLUGIN {} SONAME {}", name(plugin), text(library)))
    }

    /// Has the server forget what it knows of tables, and of what was in the files beside them.
    ///
    /// # Errors
    /// From the server.
    pub fn reload_tables(&mut self) -> Answer<()> {
        self.run("FLUSH NO_WRITE_TO_BINLOG TABLES")
    }

    /// Has the server read accounts, privileges and foreign servers from its tables. Sessions keep the privileges on everything
    /// that they have.
    ///
    /// # Errors
    /// From the server.
    pub fn reload_accounts(&mut self) -> Answer<()> {
        self.run("FLUSH NO_WRITE_TO_BINLOG PRIVILEGES")
    }

    /// Removes all binary logs, and gives the next one this state, one GTID a line.
    ///
    /// # Errors
    /// From the server.
    pub fn restart_binlog(&mut self, state: &str) -> Answer<()> {
        let state = state.lines().collect::<Vec<_>>().join(",");
        // A member of a group refuses it, and this server is about to be one.
        self.run("SET GLOBAL wsrep_on=OFF")?;
        let done = self
            .run("RESET MASTER")
            .and_then(|()| self.run(&format!("SET GLOBAL gtid_binlog_state={}", text(&state))));
        self.run("SET GLOBAL wsrep_on=ON").and(done)
    }

    /// Tells the server at which position its data is, which ends its wait for a state.
    ///
    /// # Errors
    /// From the server.
    pub fn set_start_position(&mut self, position: &str) -> Answer<()> {
        self.run(&format!("SET GLOBAL wsrep_start_position={}", text(position)))
    }
}
