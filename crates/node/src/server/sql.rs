//! What we ask our own server, as named questions. Nothing here changes anything on it.
use std::path::Path;
use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};

use formats::wsrep::credentials::Account;

/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A session on the server's unix socket.
pub struct Session {
    connection: Conn,
}

impl Session {
    /// Logs in with the account that was given, else as the server's own user of the operating system (`unix_socket`).
    /// `None` when neither is let in, or nobody listens.
    pub fn open(socket: &Path, given: Option<&Account>) -> Option<Session> {
        let given = given.filter(|account| !account.user.is_empty());
        let given = given.and_then(|account| log_in(socket, &account.user, Some(account.password.reveal())));
        // Not $USER: a server that changed its user after the start still has the old one there.
        given.or_else(|| log_in(socket, &own_user_name()?, None))
    }

    /// `wsrep_local_state`: 4 is Synced.
    pub fn local_state(&mut self) -> Option<u8> {
        self.number("SHOW GLOBAL STATUS LIKE 'wsrep_local_state'")?.try_into().ok()
    }

    /// Undo logs that purge has not dealt with.
    pub fn history_length(&mut self) -> Option<u64> {
        self.number("SHOW GLOBAL STATUS LIKE 'Innodb_history_list_length'")
    }

    fn number(&mut self, question: &str) -> Option<u64> {
        let row: Option<(String, u64)> = self.connection.query_first(question).ok()?;
        row.map(|r| r.1)
    }
}

fn log_in(socket: &Path, user: &str, password: Option<&str>) -> Option<Session> {
    let options = OptsBuilder::new()
        .socket(Some(socket.to_string_lossy()))
        .user(Some(user))
        .pass(password)
        .prefer_socket(false)
        .read_timeout(Some(ANSWER_WITHIN))
        .write_timeout(Some(ANSWER_WITHIN));
    Conn::new(options).ok().map(|connection| Session { connection })
}

/// The name of the user we run as, from the user database: the one that `unix_socket` authentication sees.
pub(crate) fn own_user_name() -> Option<String> {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = users.lines().map(|l| l.split(':').collect::<Vec<_>>());
    fields.find(|f| f.get(2) == Some(&uid.as_str())).and_then(|f| f.first().map(|name| (*name).to_owned()))
}
