//! Whether the account of a donor's program has the required privileges.
use protocol::message::Logical;
use protocol::policy::series;

use super::super::facts::{Facts, Live, Server};
use super::super::{Findings, Level};
use crate::human::{size, span};
use crate::settings::SnapshotChoice;
use crate::snapshot::online::dirty::Touched;
use crate::snapshot::online::estimate::{Prices, Redo};
use crate::snapshot::online::outlook::recovery;

/// Since this series the server creates an account with all privileges for each transfer, unless
/// `wsrep_sst_auth` is set (MDEV-31809).
const OWN_ACCOUNT: (u32, u32) = (11, 6);

/// Adds the findings.
pub(super) fn judge(facts: &Facts, findings: &mut Findings) {
    let given = |value: Option<&str>| value.is_some_and(|text| !text.is_empty());
    let makes_one = series(&facts.version).is_some_and(|series| series >= OWN_ACCOUNT);
    if makes_one && !given(facts.in_files("wsrep_sst_auth")) {
        return findings
            .ok("account", "this server creates an account with all privileges for each transfer");
    }
    let live = match &facts.server {
        Server::Running(live) => live,
        // The finding about the server reports it.
        Server::Silent { .. } => return,
        Server::Stopped | Server::Waits { .. } => {
            return findings.note(
                "account",
                "not checked: the server accepts no clients now (the account matters when this node is the donor)",
                "run the check again while the server runs",
            );
        }
    };
    let account = &live.account;
    let choice = facts.settings.as_ref().map(|settings| settings.snapshot);
    // Why there is no other snapshot.
    let only = match choice {
        _ if facts.gives_rows() => Some("wsrep_sst_method = mysqldump"),
        Ok(SnapshotChoice::Online) => Some("snapshot=online"),
        Ok(SnapshotChoice::Logical) => Some("snapshot=logical"),
        _ => None,
    };
    let reads_rows = facts.gives_rows() || choice == Ok(SnapshotChoice::Logical);
    if let Some(only) = only.filter(|_| reads_rows && !live.reads_everything) {
        findings.push(
            Level::Error,
            "account",
            format!("{account} lacks SELECT on everything, and {only}: this node cannot donate"),
            crate::snapshot::online::sql_checks::grant_of(account, &["SELECT"]),
        );
    }
    let logical = facts.settings.as_ref().map(|settings| settings.snapshot.logical());
    if !reads_rows && logical == Ok(Logical::IfNeeded) && !live.reads_everything {
        findings.note(
            "account",
            format!(
                "{account} lacks SELECT on everything: from this donor a joiner that needs rows instead of files (of another series, \
                 or with another page size) is refused"
            ),
            crate::snapshot::online::sql_checks::grant_of(account, &["SELECT"]),
        );
    }
    if let Some(grant) = &live.grant {
        let (level, effect) = match only {
            Some(only) => (Level::Error, format!("and {only}: this node cannot donate")),
            None => (Level::Warning, "so this node can donate only with the blocking snapshot".to_owned()),
        };
        let text = format!("{account} lacks {}, {effect}", live.missing.join(", "));
        findings.push(level, "account", text, grant.clone());
    }
    if !live.sees_others {
        findings.note(
            "account",
            format!(
                "{account} lacks PROCESS: the log cannot name another session's statement that blocks the transfer"
            ),
            crate::snapshot::online::sql_checks::grant_of(account, &["PROCESS"]),
        );
    }
    if !live.makes_checkpoints {
        findings.note(
            "checkpoint",
            format!(
                "{account} lacks SUPER: this donor cannot ask its server for a checkpoint, so all redo since the last one is \
                 sent, and the joiner's server replays it{}",
                saved(live, "")
            ),
            crate::snapshot::online::sql_checks::grant_of(account, &["SUPER"]),
        );
    } else {
        findings.ok(
            "checkpoint",
            format!(
                "{account} may ask this server for a checkpoint (SUPER), so that redo before it is neither sent nor \
                 replayed{}",
                saved(live, "up to ")
            ),
        );
    }
    findings.ok_if_clean("account", format!("{account} has the privileges that a donor needs"));
}

/// What the right to ask for a checkpoint is worth at the moment.
fn saved(live: &Live, at_most: &str) -> String {
    let number = |name: &str| live.status.get(name).and_then(|text| text.parse::<u64>().ok());
    let since = number("Innodb_lsn_current").zip(number("Innodb_lsn_last_checkpoint"));
    let Some(bytes) = since.map(|(end, last)| end.saturating_sub(last)) else { return String::new() };
    let pages = number("Innodb_buffer_pool_pages_dirty").unwrap_or(0);
    let took = recovery(&Prices::new(None, None, 0.0), Redo { bytes, touched: Touched { pages, spaces: 0 } });
    format!(" (at the moment {at_most}{} and about {} of recovery)", size(bytes), span(took))
}

#[cfg(test)]
mod tests {
    use super::super::super::Level::{Error, Note, Ok, Warning};
    use super::super::super::facts::Program;
    use super::super::fixture::{found, live, running, set_sst, stopped, with_options};

    #[test]
    fn missing_rights_are_named_as_the_statement_that_gives_them() {
        let mut facts = running();
        live(&mut facts).missing = vec!["RELOAD"];
        live(&mut facts).grant = Some("GRANT RELOAD ON *.* TO `m`@`localhost`;".to_owned());
        assert!(found(&facts, "account", Warning).ends_with("GRANT RELOAD ON *.* TO `m`@`localhost`;"));
        set_sst(&mut facts, "snapshot=online\n");
        assert!(found(&facts, "account", Error).contains("cannot donate"));
        // A server that creates its own account needs no other.
        facts.version = Some("11.8.6-MariaDB".to_owned());
        assert!(found(&facts, "account", Ok).contains("creates an account"));
    }

    #[test]
    fn rows_are_sent_only_by_who_may_read_all_of_them() {
        let mut facts = running();
        live(&mut facts).reads_everything = false;
        let note = found(&facts, "account", Note);
        assert!(note.contains("GRANT SELECT ON *.* TO `mysql`@`localhost`;"), "{note}");
        set_sst(&mut facts, "snapshot=online\n");
        assert!(found(&facts, "account", Ok).contains("has the privileges"));
        set_sst(&mut facts, "snapshot=logical\n");
        let error = found(&facts, "account", Error);
        assert!(
            error.contains("lacks SELECT") && error.contains("GRANT SELECT ON *.* TO `mysql`@`localhost`;"),
            "{error}"
        );
        live(&mut facts).reads_everything = true;
        assert!(found(&facts, "account", Ok).contains("has the privileges"));
    }

    #[test]
    fn a_donor_of_rows_for_a_running_joiner_has_no_other_snapshot() {
        let mut facts = with_options(running(), &["--wsrep_sst_method=mysqldump"]);
        let program = Program::Found {
            path: "/usr/bin/wsrep_sst_mysqldump".into(),
            executable: true,
            same: true,
            version: Some("0.1.0".to_owned()),
        };
        facts.program = program;
        assert!(found(&facts, "account", Ok).contains("has the privileges"));
        live(&mut facts).reads_everything = false;
        assert!(found(&facts, "account", Error).contains("wsrep_sst_method = mysqldump: this node cannot"));
        live(&mut facts).reads_everything = true;
        live(&mut facts).missing = vec!["RELOAD"];
        live(&mut facts).grant = Some("GRANT RELOAD ON *.* TO `m`@`localhost`;".to_owned());
        assert!(found(&facts, "account", Error).contains("lacks RELOAD, and wsrep_sst_method = mysqldump"));
    }

    #[test]
    fn without_process_the_log_says_less_and_a_stopped_server_nothing() {
        assert!(found(&stopped(), "account", Note).contains("not checked"));
        let mut facts = running();
        live(&mut facts).sees_others = false;
        assert!(found(&facts, "account", Note).contains("GRANT PROCESS ON *.* TO `mysql`@`localhost`;"));
    }

    #[test]
    fn without_super_redo_is_a_part_of_the_price() {
        let mut facts = running();
        live(&mut facts).makes_checkpoints = false;
        live(&mut facts).status.insert("Innodb_lsn_current".to_owned(), (80u64 << 20).to_string());
        live(&mut facts).status.insert("Innodb_lsn_last_checkpoint".to_owned(), (7u64 << 20).to_string());
        live(&mut facts).status.insert("Innodb_buffer_pool_pages_dirty".to_owned(), "20000".to_owned());
        let note = found(&facts, "checkpoint", Note);
        assert!(note.contains("(at the moment 73.0 MiB and about 1.6 s of recovery)"), "{note}");
        assert!(note.contains("GRANT SUPER ON *.* TO"), "{note}");
        // What it saves is said where it is there, too.
        live(&mut facts).makes_checkpoints = true;
        let ok = found(&facts, "checkpoint", Ok);
        assert!(ok.contains("(SUPER)") && ok.contains("up to 73.0 MiB and about 1.6 s"), "{ok}");
    }
}
