//! Where a donor's server is, and who we are to it.
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use formats::wsrep::credentials::Account;
use mysql::{Conn, OptsBuilder};

use super::sql::SqlError;
use crate::server::sql::own_user_name;
use crate::source::declined::Declined;

/// How long a login may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listens {
    /// On this host, at a unix socket.
    Socket(PathBuf),
    /// At a host and port.
    Network(String, u16),
}

impl fmt::Display for Listens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listens::Socket(path) => write!(f, "{}", path.display()),
            Listens::Network(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// Where the server listens and who we are to it.
#[derive(Clone, Debug)]
pub struct Login {
    /// Where.
    pub at: Listens,
    /// The account given. Without one, and where it is not let in, the operating system's user is tried.
    pub account: Option<Account>,
}

impl Login {
    /// A connection that gives up on a statement without an answer for `patience`.
    ///
    /// # Errors
    /// Nobody of those who may be tried is let in.
    pub(super) fn connect(&self, patience: Duration) -> Result<Conn, Declined> {
        let given = self.account.as_ref().filter(|account| !account.user.is_empty());
        let given = given.map(|account| (account.user.clone(), Some(account.password.reveal().to_owned())));
        let mut refused = Vec::new();
        // The operating system's user is let in by the `unix_socket` plugin.
        for (user, password) in given.into_iter().chain([(os_user(), None)]) {
            match connect(self, &user, password, patience) {
                Ok(conn) => return Ok(conn),
                Err(e) => refused.push(format!("{user}: {}", SqlError::from(e))),
            }
        }
        Err(Declined::NoLogin(format!("{}: {}", self.at, refused.join("; "))))
    }
}

fn connect(login: &Login, user: &str, password: Option<String>, patience: Duration) -> mysql::Result<Conn> {
    let opts = match &login.at {
        Listens::Socket(path) => OptsBuilder::new().socket(Some(path.to_string_lossy())),
        Listens::Network(host, port) => OptsBuilder::new().ip_or_hostname(Some(host.clone())).tcp_port(*port),
    };
    let opts = opts
        .user(Some(user))
        .pass(password)
        .prefer_socket(false)
        .tcp_connect_timeout(Some(CONNECT))
        .read_timeout(Some(patience))
        .write_timeout(Some(CONNECT));
    Conn::new(opts)
}

/// The name of the user this program runs as; a login needs one also where the user database does not tell.
fn os_user() -> String {
    own_user_name().or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "mysql".to_owned())
}
