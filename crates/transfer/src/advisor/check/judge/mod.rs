//! Derives findings from facts: a pure function, one file for each subject. Every number that a fact is
//! compared with has a name and a source.
mod account;
mod configuration;
#[cfg(test)]
mod fixture;
mod group;
mod installed;
mod network;
mod places;
mod position;
mod redo;

use std::time::Duration;

use super::facts::{Facts, Server};
use super::{Finding, Findings};

/// Clocks that differ by less are considered equal.
const CLOCKS_AGREE_WITHIN: Duration = Duration::from_secs(60);

/// Derives all findings, in the order in which an operator would search: what runs, what is set, what exists,
/// who the neighbours are.
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

/// Whether there is a server to query, and which user queries it.
fn server(facts: &Facts, findings: &mut Findings) {
    if let (own, Some(servers)) = &facts.user {
        findings.note(
            "user",
            format!("checked as {own}, not as the server's user {servers}: that user's access to directories is not known"),
            format!("run the check as root or as {servers}"),
        );
    }
    match &facts.server {
        Server::Stopped => findings.ok("server", "stopped; its option files were checked"),
        Server::Waits { pid } => findings.note(
            "server",
            format!(
                "{} has started and accepts no clients yet: it waits for its group or for a state transfer",
                process(*pid)
            ),
            "rejoin status --watch follows a transfer; the server's error log says what the server waits for",
        ),
        Server::Silent { pid, why, advice } => {
            let pid = pid.map_or("in another container".to_owned(), |pid| pid.to_string());
            findings.warning(
                "server",
                format!("it runs (process {pid}) but refuses every login that a transfer would use: {why}"),
                format!(
                    "{}; until then this node can donate only with the blocking snapshot",
                    advice.as_deref().unwrap_or("read the server's error log, and run the check again")
                ),
            );
        }
        Server::Running(live) => {
            let state = live.status.get("wsrep_local_state_comment").map_or("", String::as_str);
            match state {
                "Synced" => {
                    findings.ok("server", "running and Synced; its variables and status were checked")
                }
                other => findings.note(
                    "server",
                    format!("running, wsrep_local_state_comment is {other:?}"),
                    "only a Synced member can be a donor: read its error log, or wait",
                ),
            }
        }
    }
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "the server, in another container,".to_owned(),
        |pid| format!("the server (process {pid})"),
    )
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
        // Its account cannot be queried.
        assert_eq!(worse(&stopped()), ["account"]);
    }

    #[test]
    fn a_server_that_cannot_be_asked_and_a_check_by_somebody_else() {
        let mut facts = stopped();
        facts.server = Server::Silent {
            pid: Some(7),
            why: "a: locked".to_owned(),
            advice: Some("unlock it".to_owned()),
        };
        facts.user = ("guest".to_owned(), Some("mysql".to_owned()));
        let text = found(&facts, "server", Level::Warning);
        assert!(
            text.contains("process 7")
                && text.contains("a: locked")
                && text.contains("unlock it; until then")
        );
        assert!(found(&facts, "user", Level::Note).contains("guest"));
        let mut facts = running();
        if let Server::Running(live) = &mut facts.server {
            live.status.insert("wsrep_local_state_comment".to_owned(), "Donor/Desynced".to_owned());
        }
        assert!(found(&facts, "server", Level::Note).contains("Donor/Desynced"));
    }

    /// Between its start and its data a server has no socket, and its ports are in use by itself.
    #[test]
    fn a_server_that_waits_for_its_state_is_neither_stopped_nor_in_its_own_way() {
        let mut facts = stopped();
        (facts.server, facts.ports) = (Server::Waits { pid: Some(7) }, vec![]);
        assert!(found(&facts, "server", Level::Note).contains("process 7"));
        assert!(found(&facts, "port", Level::Ok).contains("not tested"));
        assert!(judge(&facts).iter().all(|f| f.level < Level::Warning), "{:#?}", judge(&facts));
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
