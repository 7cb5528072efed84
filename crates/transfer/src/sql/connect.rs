//! Logging in to a server with any supported authentication. This is the only place in the program that does
//! it.
//!
//! The SQL library implements `mysql_native_password`, `ed25519`, `parsec` and `caching_sha2_password`. Clear
//! text and the old password method are allowed on a unix socket only. `unix_socket` needs nothing from a
//! client. If the library fails or panics, the login counts as refused, with the reason.
use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use mysql::{Conn, DriverError, Opts, OptsBuilder};

use crate::panics::contained;
use crate::server::users::own_user_name;

/// How often a login is tried that is denied. The library cuts a zero off the end of an `ed25519` nonce, so the right
/// password is denied once in 256 logins (mysql_common 0.37, `AuthSwitchRequest::plugin_data`); each login has another nonce.
const LOGINS: u32 = 3;

/// The largest packet that a server can be set to take.
const PACKET_MAX: usize = 1 << 30;

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listens {
    /// A unix socket on this host.
    Socket(PathBuf),
    /// A host and port.
    Network(String, u16),
    /// Another host, through a program of ours on this one that has a socket for the client.
    Proxied {
        /// Where the client connects.
        socket: PathBuf,
        /// The server behind it, `host:port`.
        server: String,
    },
}

impl fmt::Display for Listens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listens::Socket(path) => write!(f, "{}", path.display()),
            Listens::Network(host, port) => write!(f, "{host}:{port}"),
            Listens::Proxied { server, .. } => f.write_str(server),
        }
    }
}

/// Why a login was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cause {
    /// The server refused it with this error number.
    Server(u16),
    /// The account's authentication needs a client plugin that the library does not have.
    Plugin,
    /// No server listens there.
    NoServer,
    /// The user of this process has no name, so it cannot be a server's account.
    NoName,
    /// The connection broke, or the library failed.
    Other,
}

/// A login that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    user: String,
    cause: Cause,
    text: String,
}

impl Refused {
    fn of(user: &str, at: &Listens, error: mysql::Error) -> Refused {
        let (cause, text) = match error {
            mysql::Error::MySqlError(e) => {
                (Cause::Server(e.code), format!("{user}: {} ({})", e.message, e.code))
            }
            mysql::Error::DriverError(DriverError::UnknownAuthPlugin(name)) => unknown_plugin(user, &name),
            mysql::Error::DriverError(DriverError::OldMysqlPasswordDisabled) => {
                unknown_plugin(user, "mysql_old_password")
            }
            mysql::Error::DriverError(DriverError::CleartextPluginDisabled) => {
                unknown_plugin(user, "mysql_clear_password")
            }
            other if nobody_listens(&other) => (Cause::NoServer, format!("no server is listening on {at}")),
            other => (Cause::Other, format!("{user}: {other}")),
        };
        Refused { user: user.to_owned(), cause, text }
    }

    /// The user of this process has no name, so no login was tried.
    pub fn no_name(uid: u32) -> Refused {
        let text = format!(
            "this program runs as uid {uid}, which has no name in /etc/passwd: unix_socket login is impossible"
        );
        Refused { user: String::new(), cause: Cause::NoName, text }
    }

    /// Suggests a remedy to the administrator.
    fn advice(&self) -> Option<String> {
        let user = &self.user;
        Some(match self.cause {
            Cause::Server(1040) => "end idle sessions, or raise max_connections".to_owned(),
            Cause::Server(1203 | 1226) => {
                format!(
                    "end sessions of {user}, or raise max_user_connections (the server's, or the account's)"
                )
            }
            Cause::Server(4151) => format!("ALTER USER '{user}'@'localhost' ACCOUNT UNLOCK;"),
            Cause::Server(1820 | 1862) => {
                format!("the password has expired: ALTER USER '{user}'@'localhost' PASSWORD EXPIRE NEVER;")
            }
            Cause::Server(1524) => "load the plugin into the server (INSTALL SONAME)".to_owned(),
            Cause::Plugin => {
                format!(
                    "give {user} unix_socket, ed25519, parsec or mysql_native_password, or name another account"
                )
            }
            Cause::NoServer => "start the server, or correct `socket` in the option file".to_owned(),
            Cause::NoName => "add the uid to /etc/passwd, or set wsrep-sst-auth under [sst]".to_owned(),
            Cause::Server(_) | Cause::Other => return None,
        })
    }

    /// The server has no such account, or the password is wrong.
    fn is_denied(&self) -> bool {
        matches!(self.cause, Cause::Server(1044 | 1045 | 1130 | 1698))
    }
}

fn nobody_listens(error: &mysql::Error) -> bool {
    match error {
        mysql::Error::IoError(e) => matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused),
        mysql::Error::DriverError(DriverError::CouldNotConnect(Some((_, _, kind)))) => {
            matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused)
        }
        _ => false,
    }
}

fn unknown_plugin(user: &str, plugin: &str) -> (Cause, String) {
    let of_server = match plugin {
        "dialog" | "mysql_clear_password" => " (PAM)",
        "auth_gssapi_client" => " (GSSAPI)",
        _ => "",
    };
    let text = format!(
        "{user}: the account uses the authentication plugin {plugin}{of_server}, which rejoin does not support"
    );
    (Cause::Plugin, text)
}

/// Suggests a remedy after all these refusals. If an account exists but cannot be used, no new one is
/// suggested.
pub fn advice(refused: &[Refused], at: &Listens) -> Option<String> {
    let mut all: Vec<String> = refused.iter().filter_map(Refused::advice).collect();
    all.dedup();
    if !all.is_empty() {
        return Some(all.join("; "));
    }
    let own = refused.iter().rev().find(|one| one.is_denied())?;
    match at {
        Listens::Network(..) | Listens::Proxied { .. } => {
            Some("correct the account, or its password".to_owned())
        }
        Listens::Socket(_) => Some(format!(
            "CREATE USER IF NOT EXISTS '{}'@'localhost' IDENTIFIED VIA unix_socket; (use the name of the server's operating system user), \
             or set wsrep-sst-auth under [sst]",
            own_user_name().unwrap_or_else(|| own.user.clone())
        )),
    }
}

/// Logs in.
///
/// # Errors
/// The login was refused.
pub fn connect(
    at: &Listens,
    user: &str,
    password: Option<String>,
    connect_within: Duration,
    answer_within: Duration,
) -> Result<Conn, Refused> {
    let has_password = password.as_ref().is_some_and(|password| !password.is_empty());
    let options = match at {
        // No other user can read what goes over a unix socket.
        Listens::Socket(path) => OptsBuilder::new()
            .socket(Some(path.to_string_lossy()))
            .secure_auth(false)
            .enable_cleartext_plugin(true),
        Listens::Network(host, port) => OptsBuilder::new().ip_or_hostname(Some(host.clone())).tcp_port(*port),
        // The client would ask for the limit, and a server that waits for its state answers no question but SHOW.
        Listens::Proxied { socket, .. } => {
            OptsBuilder::new().socket(Some(socket.to_string_lossy())).max_allowed_packet(Some(PACKET_MAX))
        }
    };
    let options = options
        .user(Some(user))
        .pass(password)
        .prefer_socket(false)
        .tcp_connect_timeout(Some(connect_within))
        .read_timeout(Some(answer_within))
        .write_timeout(Some(connect_within));
    let options = Opts::from(options);
    for _ in 1..LOGINS {
        match log_in(user, at, &options) {
            Err(refused) if has_password && refused.cause == Cause::Server(1045) => {}
            other => return other,
        }
    }
    log_in(user, at, &options)
}

fn log_in(user: &str, at: &Listens, options: &Opts) -> Result<Conn, Refused> {
    // The connection does not exist yet, so a panic here leaves no shared state broken.
    match contained(|| Conn::new(options.clone())) {
        Ok(connected) => connected.map_err(|e| Refused::of(user, at, e)),
        Err(words) => {
            let text = format!("{user}: the SQL library failed during login: {words}");
            Err(Refused { user: user.to_owned(), cause: Cause::Plugin, text })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(user: &str, code: u16) -> Refused {
        Refused { user: user.to_owned(), cause: Cause::Server(code), text: String::new() }
    }

    #[test]
    fn a_new_account_is_advised_only_where_none_could_be_used() {
        let socket = Listens::Socket("/s".into());
        let advised = |all: &[Refused]| advice(all, &socket).unwrap_or_default();
        assert!(
            advised(&[refused("a", 1045), refused("mysql", 1698)]).contains("IDENTIFIED VIA unix_socket")
        );
        for code in [1040, 1203, 1226, 1524, 1820, 1862, 4151] {
            let text = advised(&[refused("a", code), refused("mysql", 1045)]);
            assert!(!text.is_empty() && !text.contains("CREATE USER"), "{code}: {text}");
        }
        assert_eq!(advised(&[refused("a", 4151)]), "ALTER USER 'a'@'localhost' ACCOUNT UNLOCK;");
        let nameless = Refused::no_name(4242);
        assert!(nameless.to_string().contains("uid 4242"));
        assert!(!advised(&[refused("a", 1045), nameless]).contains("CREATE USER"));
        // A repeated remedy is listed once.
        assert_eq!(advised(&[refused("a", 1040), refused("b", 1040)]).matches("max_connections").count(), 1);
        assert_eq!(advice(&[refused("a", 9999)], &socket), None);
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_no_refusal_of_the_account() {
        let at = Listens::Socket("/nowhere/s.sock".into());
        let second = Duration::from_secs(1);
        let refused = connect(&at, "a", None, second, second).err().unwrap();
        assert_eq!(refused.to_string(), "no server is listening on /nowhere/s.sock");
    }
}
