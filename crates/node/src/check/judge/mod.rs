//! Facts to findings: pure, one file a subject. Every number that something is compared with is named and says where it
//! comes from.
mod account;
mod configuration;
#[cfg(test)]
mod fixture;
mod group;
mod installed;
mod network;
mod places;
mod redo;

use std::time::Duration;

use super::facts::{Facts, Server};
use super::{Finding, Findings};

/// Clocks this near to each other are taken for equal.
const CLOCKS_AGREE_WITHIN: Duration = Duration::from_secs(60);

/// Judges. The order is that in which an operator would look: what runs, what is set, what is there, who is around.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings::default();
    server(facts, &mut findings);
    configuration::judge(facts, &mut findings);
    installed::judge(facts, &mut findings);
    account::judge(facts, &mut findings);
    places::judge(facts, &mut findings);
    redo::judge(facts, &mut findings);
    network::judge(facts, &mut findings);
    group::judge(facts, &mut findings);
    findings.into_vec()
}

/// Whether there is a server to ask, and who asks.
fn server(facts: &Facts, findings: &mut Findings) {
    if let (own, Some(servers)) = &facts.user {
        findings.note(
            "user",
            format!("checked as {own}, not as the server's user {servers}: its rights to directories are not known"),
            format!("run the check as root or as {servers}"),
        );
    }
    match &facts.server {
        Server::Stopped => findings.ok("server", "stopped; checked by its option files"),
        Server::Silent { pid, why } => {
            let pid = pid.map_or("in another container".to_owned(), |pid| pid.to_string());
            findings.warning(
                "server",
                format!("it runs (process {pid}) and lets nobody in that a transfer would log in as: {why}"),
                "CREATE USER IF NOT EXISTS 'mysql'@'localhost' IDENTIFIED VIA unix_socket; (the name is the server's user's), \
                 or set wsrep-sst-auth under [sst]; until then this node can donate only while it holds still",
            );
        }
        Server::Running(live) => {
            let state = live.status.get("wsrep_local_state_comment").map_or("", String::as_str);
            match state {
                "Synced" => findings.ok("server", "running and Synced; checked by what it says"),
                other => findings.note(
                    "server",
                    format!("running, wsrep_local_state_comment is {other:?}"),
                    "only a Synced member can be a donor: see its error log, or wait",
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::fixture::{found, running, stopped};
    use super::*;

    #[test]
    fn a_sound_node_has_nothing_worse_than_ok() {
        let worse = |facts: &Facts| -> Vec<&'static str> {
            let all = judge(facts).into_iter().filter(|f| f.level > Level::Ok);
            all.map(|finding| finding.subject).collect()
        };
        assert!(worse(&running()).is_empty(), "{:#?}", judge(&running()));
        // Nobody can ask it for its account.
        assert_eq!(worse(&stopped()), ["account"]);
    }

    #[test]
    fn a_server_that_cannot_be_asked_and_a_check_by_somebody_else() {
        let mut facts = stopped();
        facts.server = Server::Silent { pid: Some(7), why: "mysql: denied".to_owned() };
        facts.user = ("guest".to_owned(), Some("mysql".to_owned()));
        assert!(found(&facts, "server", Level::Warning).contains("process 7"));
        assert!(found(&facts, "user", Level::Note).contains("guest"));
        let mut facts = running();
        if let Server::Running(live) = &mut facts.server {
            live.status.insert("wsrep_local_state_comment".to_owned(), "Donor/Desynced".to_owned());
        }
        assert!(found(&facts, "server", Level::Note).contains("Donor/Desynced"));
    }

    #[test]
    fn whatever_is_not_ok_has_a_fix() {
        let mut facts = stopped();
        facts.options = Default::default();
        let findings = judge(&facts);
        assert!(findings.iter().any(|f| f.level == Level::Error));
        assert!(findings.iter().all(|f| (f.level == Level::Ok) == f.fix.is_none()));
    }
}
