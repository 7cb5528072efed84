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
    name_of_user(rustix::process::geteuid().as_raw())
}

/// The name of a user of this host.
pub(crate) fn name_of_user(uid: u32) -> Option<String> {
    user(|fields| fields.get(2) == Some(&uid.to_string().as_str())).map(|fields| fields.0)
}

/// User and group id of a user of this host, by name or number.
pub(crate) fn user_of_name(name: &str) -> Option<(u32, u32)> {
    let found = user(|fields| fields.first() == Some(&name) || fields.get(2) == Some(&name));
    found.map(|(_, uid, gid, _)| (uid, gid))
}

/// The home directory of a user of this host.
pub fn home_of_user(uid: u32) -> Option<String> {
    user(|fields| fields.get(2) == Some(&uid.to_string().as_str())).map(|fields| fields.3)
}

/// Name, user id, group id and home directory of the first user that is wanted.
fn user(wanted: impl Fn(&[&str]) -> bool) -> Option<(String, u32, u32, String)> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let fields =
        users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| wanted(fields))?;
    match fields.as_slice() {
        [name, _, uid, gid, _, home, ..] => {
            Some(((*name).to_owned(), uid.parse().ok()?, gid.parse().ok()?, (*home).to_owned()))
        }
        _ => None,
    }
}
