//! What the settings of two nodes lead to: files, definitions and rows instead of them, or a refusal. The joiner compares them in
//! the same way when a transfer begins.
use std::collections::BTreeMap;

use anyhow::Result;
use formats::wsrep::invocation::SstArgs;
use protocol::message::Logical;
use protocol::policy::{self, Allowed, NodeFacts};

use crate::advisor::check::program;
use crate::datadir::layout::Layout;
use crate::datadir::of_server::layout_of;
use crate::datadir::own_position::server_using;
use crate::server::command_line::arguments_of_server;
use crate::server::options::ServerOptions;
use crate::settings::{Settings, SnapshotChoice};
use crate::sql::Listens;

/// What would travel from a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferKind {
    /// Files.
    Files,
    /// Definitions and rows, for this reason: the logical snapshot.
    Rows(String),
    /// Nothing: the joiner refuses, for this reason.
    Nothing(String),
}

/// A stopped node, as far as it decides what it can take.
pub(super) struct Joiner {
    facts: NodeFacts,
    /// `allow-upgrade`.
    upgrade: bool,
    /// It gets rows while its server runs.
    gets_rows: bool,
}

impl Joiner {
    /// The node with these options.
    ///
    /// # Errors
    /// An option under `[sst]` is not valid.
    pub fn of(layout: &Layout, options: &ServerOptions) -> Result<Joiner> {
        let facts = layout.facts(program::server_version(None, options));
        let upgrade = Settings::read(options)?.allow_upgrade;
        Ok(Joiner { facts, upgrade, gets_rows: program::gets_rows(options) })
    }

    /// What would travel from the member with these global variables.
    ///
    /// # Errors
    /// A variable is not valid.
    pub fn takes(&self, at: &Listens, variables: &BTreeMap<String, String>) -> Result<TransferKind> {
        // The donor asks for nothing but names that this server can write.
        if self.gets_rows {
            return Ok(TransferKind::Rows(
                "wsrep_sst_method=mysqldump: a donor gives them to this server while it runs".to_owned(),
            ));
        }
        let (layout, _) = layout_of(variables)?;
        let donor = layout.facts(variables.get("version").cloned());
        Ok(kind(&donor, &self.facts, self.upgrade, snapshot_of(at, &layout)))
    }
}

/// `snapshot` of a member: from its option files if it runs on this host, otherwise the default.
fn snapshot_of(at: &Listens, layout: &Layout) -> SnapshotChoice {
    let own = || {
        let pid = matches!(at, Listens::Socket(_)).then(|| server_using(layout).ok()?)??.pid?;
        let args = SstArgs { mysqld_args: arguments_of_server(pid)?, ..SstArgs::default() };
        Some(Settings::read(&ServerOptions::load(&args).ok()?).ok()?.snapshot)
    };
    own().unwrap_or(SnapshotChoice::Auto)
}

fn kind(donor: &NodeFacts, joiner: &NodeFacts, upgrade: bool, snapshot: SnapshotChoice) -> TransferKind {
    let verdict = policy::compare(donor, joiner, Allowed { upgrade, logical: snapshot.logical() });
    match (verdict.refusals.is_empty(), verdict.logical.is_empty()) {
        (false, _) => TransferKind::Nothing(verdict.refusals.join("; ")),
        (true, false) => TransferKind::Rows(verdict.logical.join("; ")),
        (true, true) if snapshot.logical() == Logical::Always => {
            TransferKind::Rows("snapshot=logical is set on the donor".to_owned())
        }
        (true, true) => TransferKind::Files,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_travels_depends_on_both_nodes() {
        let node = |page_size| NodeFacts {
            server_version: Some("10.11.19-MariaDB".to_owned()),
            page_size,
            ..NodeFacts::default()
        };
        let of = |page_size, snapshot| kind(&node(16384), &node(page_size), false, snapshot);
        assert_eq!(of(16384, SnapshotChoice::Auto), TransferKind::Files);
        let rows = TransferKind::Rows("innodb_page_size differs: donor 16384, joiner 4096".to_owned());
        assert_eq!(of(4096, SnapshotChoice::Auto), rows);
        assert_eq!(of(4096, SnapshotChoice::Logical), rows);
        let set = TransferKind::Rows("snapshot=logical is set on the donor".to_owned());
        assert_eq!(of(16384, SnapshotChoice::Logical), set);
        assert!(matches!(of(4096, SnapshotChoice::Online), TransferKind::Nothing(_)));
    }
}
