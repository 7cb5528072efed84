//! Whether the account that a donor's program would use may do what is needed.
use protocol::policy::series;

use super::super::facts::{Facts, Server};
use super::super::{Findings, Level};
use crate::settings::SourceChoice;

/// Since this series the server makes an account for each transfer, with every right, when `wsrep_sst_auth` is not set
/// (MDEV-31809).
const OWN_ACCOUNT: (u32, u32) = (11, 6);

/// Judges.
pub(super) fn judge(facts: &Facts, findings: &mut Findings) {
    let given = |value: Option<&str>| value.is_some_and(|text| !text.is_empty());
    let makes_one = series(&facts.version).is_some_and(|series| series >= OWN_ACCOUNT);
    if makes_one && !given(facts.in_files("wsrep_sst_auth")) {
        return findings.ok("account", "this server makes an account for each transfer, with every right");
    }
    let live = match &facts.server {
        Server::Running(live) => live,
        // Said by the finding about the server.
        Server::Silent { .. } => return,
        Server::Stopped => {
            return findings.note(
                "account",
                "not asked: the server is stopped (the account matters when this node donates)",
                "run the check again while the server runs",
            );
        }
    };
    let account = &live.account;
    if let Some(grant) = &live.grant {
        // With source=native there is nothing to fall back to.
        let native = facts.settings.as_ref().is_ok_and(|settings| settings.source == SourceChoice::Native);
        let (level, effect) = match native {
            true => (Level::Error, "and source=native: this node cannot donate"),
            false => (Level::Warning, "so this node can donate only while it holds still"),
        };
        let text = format!("{account} lacks {}, {effect}", live.missing.join(", "));
        findings.push(level, "account", text, grant.clone());
    }
    if !live.sees_others {
        findings.note(
            "account",
            format!(
                "{account} lacks PROCESS: the log cannot name the statement of another that is in the way"
            ),
            crate::source::native::sql_checks::grant_of(account, &["PROCESS"]),
        );
    }
    findings.ok_if_clean("account", format!("{account} has the rights that a donor needs"));
}

#[cfg(test)]
mod tests {
    use super::super::super::Level::{Error, Note, Ok, Warning};
    use super::super::fixture::{found, live, running, set_sst, stopped};

    #[test]
    fn missing_rights_are_named_as_the_statement_that_gives_them() {
        let mut facts = running();
        live(&mut facts).missing = vec!["RELOAD"];
        live(&mut facts).grant = Some("GRANT RELOAD ON *.* TO `m`@`localhost`;".to_owned());
        assert!(found(&facts, "account", Warning).ends_with("GRANT RELOAD ON *.* TO `m`@`localhost`;"));
        set_sst(&mut facts, "source=native\n");
        assert!(found(&facts, "account", Error).contains("cannot donate"));
        // A server that makes its own account needs nobody's rights.
        facts.version = Some("11.8.6-MariaDB".to_owned());
        assert!(found(&facts, "account", Ok).contains("makes an account"));
    }

    #[test]
    fn without_process_the_log_says_less_and_a_stopped_server_nothing() {
        assert!(found(&stopped(), "account", Note).contains("not asked"));
        let mut facts = running();
        live(&mut facts).sees_others = false;
        assert!(found(&facts, "account", Note).contains("GRANT PROCESS ON *.* TO `mysql`@`localhost`;"));
    }
}
