//! What other members say of themselves, where the account that was given is let in over the network.
//!
//! Without an account nobody is asked: the login of the operating system's user holds on its own host only.
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use formats::wsrep::address::ListenAddress;
use formats::wsrep::credentials::Account;
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};

use super::facts::{Member, MemberSays};

/// How long a member may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Asks all of them at the same time, by name and address.
pub(super) fn ask_all(others: &[(String, String)], account: Option<&Account>) -> Vec<Member> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = others.iter().map(|(_, at)| scope.spawn(move || ask(at, account))).collect();
        let members = others.iter().zip(asked).map(|((name, address), thread)| Member {
            name: name.clone(),
            address: address.clone(),
            says: thread.join().unwrap_or_else(|_| Err("not asked".to_owned())),
        });
        members.collect()
    })
}

fn ask(address: &str, account: Option<&Account>) -> Result<MemberSays, String> {
    let account = account.filter(|account| !account.user.is_empty());
    let account = account.ok_or("not asked: no account with a password is configured")?;
    let at = ListenAddress::parse(address).map_err(|e| e.to_string())?;
    // A member that does not say where it serves clients (AUTO, a bind-address of its own) gives port 0.
    let port =
        at.port.filter(|port| *port != 0).ok_or("not asked: it does not say where it serves clients")?;
    let options = OptsBuilder::new()
        .ip_or_hostname(Some(at.host.clone()))
        .tcp_port(port)
        .user(Some(account.user.clone()))
        .pass(Some(account.password.reveal().to_owned()))
        .prefer_socket(false)
        .tcp_connect_timeout(Some(ANSWER_WITHIN))
        .read_timeout(Some(ANSWER_WITHIN))
        .write_timeout(Some(ANSWER_WITHIN));
    let mut connection = Conn::new(options).map_err(|e| format!("no login: {e}"))?;
    read(&mut connection).map_err(|e| e.to_string())
}

fn read(connection: &mut Conn) -> mysql::Result<MemberSays> {
    let began = (Instant::now(), seconds_now());
    let theirs: Option<f64> = connection.query_first("SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) AS DOUBLE)")?;
    let took = began.0.elapsed().as_secs_f64();
    let row: Option<(String, String)> = connection.query_first("SELECT @@version, @@wsrep_sst_method")?;
    let (version, method) = row.unwrap_or_default();
    // The answer was made somewhere between question and arrival.
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
