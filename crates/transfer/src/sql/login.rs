//! Where a server is, and who we are to it.
use std::path::Path;
use std::time::Duration;

use formats::wsrep::credentials::Account;
use mysql::Conn;

use super::connect::{Listens, Refused, advice, connect};
use crate::server::users::own_user_name;

/// How long a login may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Where the server listens and who we are to it.
#[derive(Clone, Debug)]
pub struct Login {
    /// Where.
    pub at: Listens,
    /// The account given. Without one, and where it is not let in, the operating system's user is tried.
    pub account: Option<Account>,
}

/// No account could log in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no login to the donor's server: {answers}{}", advice.as_ref().map_or_else(String::new, |advice| format!("; {advice}")))]
pub struct NoLogin {
    /// What each login was answered.
    pub answers: String,
    /// What can be done about it.
    pub advice: Option<String>,
}

impl Login {
    /// At a server's unix socket, with the account that was given.
    pub fn at_socket(socket: &Path, account: Option<&Account>) -> Login {
        Login { at: Listens::Socket(socket.to_owned()), account: account.cloned() }
    }

    /// A connection that gives up on a statement without an answer for `patience`.
    ///
    /// # Errors
    /// Nobody of those who may be tried is let in.
    pub(super) fn connect(&self, patience: Duration) -> Result<Conn, NoLogin> {
        let given = self.account.as_ref().filter(|account| !account.user.is_empty());
        let given = given.map(|account| (account.user.clone(), Some(account.password.reveal().to_owned())));
        let mut refused = Vec::new();
        // The operating system's user is let in by the `unix_socket` plugin, which knows nobody on another host.
        let proxied = matches!(self.at, Listens::Proxied { .. });
        let own = if proxied { None } else { os_user() };
        if own.is_none() && !proxied {
            refused.push(Refused::no_name(rustix::process::geteuid().as_raw()));
        }
        for (user, password) in given.into_iter().chain(own.map(|user| (user, None))) {
            match connect(&self.at, &user, password, CONNECT, patience) {
                Ok(conn) => return Ok(conn),
                Err(why) => refused.push(why),
            }
        }
        // One that says the same of every account is said once.
        let mut answers: Vec<String> = refused.iter().map(Refused::to_string).collect();
        answers.dedup();
        let advice = advice(&refused, &self.at);
        Err(NoLogin { answers: format!("{}: {}", self.at, answers.join("; ")), advice })
    }
}

/// The name of the user this program runs as. Where the user database is no file, the environment may tell.
fn os_user() -> Option<String> {
    own_user_name().or_else(|| std::env::var("USER").ok())
}
