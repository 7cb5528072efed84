//! Queries other members, if the given account may log in over the network.
//!
//! Without an account no member is queried: the login of the operating system's user works on its own host
//! only.
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use formats::wsrep::address::ListenAddress;
use formats::wsrep::credentials::Account;
use mysql::Conn;
use mysql::prelude::Queryable;

use super::facts::{Member, MemberSays};
use crate::sql::connect::{Listens, connect};
use crate::threads::{Thread, scoped};

/// How long a member may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Queries all members in parallel, by name and address.
pub(super) fn ask_all(others: &[(String, String)], account: Option<&Account>) -> Vec<Member> {
    std::thread::scope(|scope| {
        let ask = |at| scoped(scope, Thread::Member, move || Ok(ask(at, account)));
        let asked: Vec<_> = others.iter().map(|(_, at)| ask(at)).collect();
        let members = others.iter().zip(asked).map(|((name, address), thread)| Member {
            name: name.clone(),
            address: address.clone(),
            says: thread.join().unwrap_or_else(|why| Err(why.to_string())),
        });
        members.collect()
    })
}

fn ask(address: &str, account: Option<&Account>) -> Result<MemberSays, String> {
    let account = account.filter(|account| !account.user.is_empty());
    let account = account.ok_or("not asked: no account with a password is configured")?;
    let at = ListenAddress::parse(address).map_err(|e| e.to_string())?;
    // A member that does not announce its client address (AUTO, or its own bind-address) gives port 0.
    let port =
        at.port.filter(|port| *port != 0).ok_or("not asked: it does not announce its client address")?;
    let (user, password) = (&account.user, account.password.reveal().to_owned());
    let at = Listens::Network(at.host, port);
    let connected = connect(&at, user, Some(password), ANSWER_WITHIN, ANSWER_WITHIN);
    let mut connection = connected.map_err(|e| format!("no login: {e}"))?;
    read(&mut connection).map_err(|e| e.to_string())
}

fn read(connection: &mut Conn) -> mysql::Result<MemberSays> {
    let began = (Instant::now(), seconds_now());
    let theirs: Option<f64> = connection.query_first("SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) AS DOUBLE)")?;
    let took = began.0.elapsed().as_secs_f64();
    let row: Option<(String, String)> = connection.query_first("SELECT @@version, @@wsrep_sst_method")?;
    let (version, method) = row.unwrap_or_default();
    // The clock was read at some time between the query and its result.
    let clock = theirs.map_or(0.0, |theirs| theirs - (began.1 + took / 2.0));
    Ok(MemberSays { version, method, clock: (clock, took / 2.0) })
}

fn seconds_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_without_an_account_or_an_address() {
        let others = [("n2".to_owned(), "127.0.0.1:1".to_owned()), ("n3".to_owned(), "AUTO".to_owned())];
        for account in [None, Account::from_pair("u:p").as_ref()] {
            let members = ask_all(&others, account);
            assert_eq!((members.len(), members[0].name.as_str()), (2, "n2"));
            assert!(members[1].says.as_ref().unwrap_err().starts_with("not asked"));
        }
    }
}
