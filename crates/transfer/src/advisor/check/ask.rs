//! Queries the node's own server, with the account that a transfer from this node would use.
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use formats::wsrep::credentials::Account;

use super::facts::Live;
use super::members;
use crate::snapshot::online::sql_checks::{grant_of, missing_rights};
use crate::sql::Login;
use crate::sql::{Answer, Session, SqlError};

/// Seconds that a server must have run before its mean rates are used.
const MEAN_AFTER_S: f64 = 600.0;
/// How long one response may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Why a server was not queried, and a remedy.
pub(super) type NotAsked = (String, Option<String>);

/// Queries the server. An error holds the result of each login.
pub(super) fn ask(socket: &Path, account: Option<&Account>, sample: Duration) -> Result<Live, NotAsked> {
    let login = Login::at_socket(socket, account);
    let mut session = Session::open(&login, ANSWER_WITHIN).map_err(|why| (why.answers, why.advice))?;
    let broke = |why: SqlError| (why.to_string(), None);
    let mut live = read(&mut session, sample).map_err(broke)?;
    let known = session.members().map_err(broke)?;
    live.members = members::ask_all(&others(&known, &live.status), account);
    Ok(live)
}

fn read(session: &mut Session, sample: Duration) -> Answer<Live> {
    let variables = session.variables()?;
    let (began, before) = (Instant::now(), session.statuses()?);
    std::thread::sleep(sample);
    let (status, seconds) = (session.statuses()?, began.elapsed().as_secs_f64());
    let log_bin = variables.get("log_bin").is_some_and(|value| value == "ON");
    let missing = missing_rights(session, log_bin)?;
    let account = session.current_user()?;
    let rate = |names: &[&str]| rate(&before, &status, names, seconds);
    let mean = |names: &[&str]| rate_since_start(&status, names);
    Ok(Live {
        grant: (!missing.is_empty()).then(|| grant_of(&account, &missing)),
        sees_others: session.sees_others()?,
        reads_everything: session.reads_everything()?,
        makes_checkpoints: session.may_make_checkpoints()?,
        redo_rate: rate(&["Innodb_lsn_current"]).max(mean(&["Innodb_os_log_written"])),
        write_set_rate: rate(&WRITE_SETS).max(mean(&WRITE_SETS)),
        members: vec![],
        account,
        missing,
        variables,
        status,
    })
}

/// Returns name and address of the other members; names are empty if only the status lists the members.
fn others(known: &[(String, String, String)], status: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let of = |name: &str| status.get(name).map_or("", String::as_str);
    if !known.is_empty() {
        let others = known.iter().filter(|(uuid, ..)| uuid != of("wsrep_gcomm_uuid"));
        return others.map(|(_, name, address)| (name.clone(), address.clone())).collect();
    }
    // The index in the list is that of all members, including this node.
    let own: Option<usize> = of("wsrep_local_index").parse().ok();
    let all = of("wsrep_incoming_addresses").split(',').map(str::trim).enumerate();
    let others = all.filter(|(index, address)| !address.is_empty() && Some(*index) != own);
    others.map(|(_, address)| (String::new(), address.to_owned())).collect()
}

/// Bytes of write-sets: a node's gcache holds its own and those that it received.
const WRITE_SETS: [&str; 2] = ["wsrep_replicated_bytes", "wsrep_received_bytes"];

fn sum(status: &BTreeMap<String, String>, names: &[&str]) -> f64 {
    names.iter().filter_map(|name| status.get(*name)?.parse::<f64>().ok()).sum()
}

fn rate(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    names: &[&str],
    seconds: f64,
) -> f64 {
    (sum(after, names) - sum(before, names)).max(0.0) / seconds.max(0.001)
}

/// The mean rate since the server's start, so that a quiet second does not hide a busy day. A server that has
/// just started reports only its start.
fn rate_since_start(status: &BTreeMap<String, String>, names: &[&str]) -> f64 {
    let uptime = sum(status, &["Uptime"]);
    if uptime < MEAN_AFTER_S { 0.0 } else { sum(status, names) / uptime }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_no_member_of_ourselves() {
        let status: BTreeMap<String, String> = [
            ("wsrep_gcomm_uuid", "a"),
            ("wsrep_local_index", "1"),
            ("wsrep_incoming_addresses", "10.0.0.2:3306,10.0.0.1:3306"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let member = |uuid: &str, name: &str| (uuid.to_owned(), name.to_owned(), "AUTO".to_owned());
        let known = [member("a", "n1"), member("b", "n2")];
        assert_eq!(others(&known, &status), [("n2".to_owned(), "AUTO".to_owned())]);
        assert_eq!(others(&[], &status), [(String::new(), "10.0.0.2:3306".to_owned())]);
        assert!(others(&[], &BTreeMap::new()).is_empty());
    }

    #[test]
    fn the_busier_of_now_and_the_mean_counts() {
        let status = |bytes: &str, uptime: &str| {
            [("wsrep_replicated_bytes", bytes), ("wsrep_received_bytes", "100"), ("Uptime", uptime)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into_iter()
                .collect::<BTreeMap<_, _>>()
        };
        assert_eq!(rate(&status("1000", "9"), &status("3000", "10"), &WRITE_SETS, 2.0), 1000.0);
        assert_eq!(rate_since_start(&status("99900", "1000"), &WRITE_SETS), 100.0);
        assert_eq!(rate_since_start(&status("99900", "10"), &WRITE_SETS), 0.0);
        assert_eq!(rate(&status("3000", "9"), &status("1000", "1"), &WRITE_SETS, 2.0), 0.0);
    }
}
