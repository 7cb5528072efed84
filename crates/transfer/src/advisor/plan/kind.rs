//! What the settings of two nodes lead to: files of which snapshot, definitions and rows instead of them, or a refusal. The two
//! programs compare them in the same way when a transfer begins.
use std::collections::BTreeMap;

use anyhow::Result;
use formats::wsrep::invocation::SstArgs;
use protocol::message::Logical;
use protocol::policy::{self, Allowed, NodeFacts, series};

use super::snapshot::{Asked, Donor, Predicted};
use crate::advisor::check::program;
use crate::cancel::Cancel;
use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::of_server::layout_of;
use crate::datadir::own_position::server_using;
use crate::donor::not_logical;
use crate::joiner::permit_options;
use crate::server::command_line::arguments_of_server;
use crate::server::options::ServerOptions;
use crate::settings::{Blocking, Settings};
use crate::snapshot::declined::Declined;
use crate::snapshot::logical::locked::{Hold, LockedTables, never_held};
use crate::snapshot::mariabackup::tool::Tool;
use crate::sql::{Listens, Session};

/// From this series on a donor's server runs the program for a running joiner like any other; before, it holds every commit until the
/// program has ended. (Tried: 10.11 and 11.8.)
const RUNS_LIKE_ANY: (u32, u32) = (11, 0);

/// What would travel from a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferKind {
    /// Files, from this snapshot.
    Files(Predicted),
    /// Definitions and rows, for this reason: the logical snapshot.
    Rows(String),
    /// Nothing: one of both hosts refuses, for this reason.
    Nothing(String),
}

/// A stopped node, as far as it decides what it can take.
pub(super) struct Joiner {
    facts: NodeFacts,
    options: ServerOptions,
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
        Ok(Joiner { facts, options: options.clone(), upgrade, gets_rows: program::gets_rows(options) })
    }

    /// What would travel from the member with these global variables, and what holds writes there meanwhile, if that are rows.
    ///
    /// # Errors
    /// A variable is not valid.
    pub fn takes(
        &self,
        at: &Listens,
        session: &mut Session,
        variables: &BTreeMap<String, String>,
    ) -> Result<(TransferKind, Option<Hold>)> {
        let (layout, _) = layout_of(variables)?;
        let own = own_options(at, &layout);
        let kind = self.kind_from(session, variables, (&layout, own.as_ref()));
        let options = own.as_ref().map(|(_, options)| options);
        Ok(self.with_hold(kind, session, variables.get("version"), options))
    }

    fn kind_from(
        &self,
        session: &mut Session,
        variables: &BTreeMap<String, String>,
        (layout, own): (&Layout, Option<&(Layout, ServerOptions)>),
    ) -> TransferKind {
        // The donor asks for nothing but names that this server can write.
        if self.gets_rows {
            return TransferKind::Rows(
                "wsrep_sst_method=mysqldump: a donor gives them to this server while it runs".to_owned(),
            );
        }
        let version = variables.get("version");
        let facts = layout.facts(version.cloned());
        let donor = Asked {
            session,
            layout: own.map_or(layout, |(layout, _)| layout),
            version: version.map(String::as_str),
            options: own.map(|(_, options)| options),
        };
        let tool = || Tool::find(&self.options, self.facts.server_version.as_deref(), &Cancel::new());
        self.kind(&facts, &donor.look(&tool))
    }

    /// Adds what holds writes while rows are read, which the donor may refuse. `options`: those of a donor on this host.
    fn with_hold(
        &self,
        kind: TransferKind,
        session: &mut Session,
        version: Option<&String>,
        options: Option<&ServerOptions>,
    ) -> (TransferKind, Option<Hold>) {
        let TransferKind::Rows(why) = &kind else { return (kind, None) };
        let skip = options.map(EnginePolicy::from_options).unwrap_or_default().skip;
        let Some(tables) = LockedTables::seen(session, &skip) else { return (kind, None) };
        let settings = options.and_then(|options| Settings::read(options).ok());
        let server_holds = self.gets_rows && series(&version.cloned()).is_some_and(|of| of < RUNS_LIKE_ANY);
        let (rlimit, blocking) =
            settings.map_or((None, Blocking::Auto), |settings| (settings.rlimit, settings.blocking));
        if let (Some(large), Blocking::Never, false) = (tables.too_large(), blocking, server_holds) {
            let refused = not_logical(&Declined::Layout(never_held(&large)), why);
            return (TransferKind::Nothing(refused.text), None);
        }
        let all = session.innodb_bytes().ok().flatten().map(|bytes| bytes.saturating_add(tables.bytes()));
        let hold = tables.hold(all, rlimit, blocking, server_holds);
        (kind, hold)
    }

    /// In the order in which the joiner's program decides (`joiner/agree.rs`).
    fn kind(&self, donor: &NodeFacts, takes: &Donor) -> TransferKind {
        if let Err(refusal) = permit_options(&self.options) {
            return TransferKind::Nothing(refusal.text);
        }
        let logical = takes.snapshot.logical();
        let verdict = policy::compare(donor, &self.facts, Allowed { upgrade: self.upgrade, logical });
        match (verdict.refusals.is_empty(), verdict.logical.is_empty()) {
            (false, _) => TransferKind::Nothing(verdict.refusals.join("; ")),
            (true, false) => TransferKind::Rows(verdict.logical.join("; ")),
            (true, true) if logical == Logical::Always => {
                TransferKind::Rows("snapshot=logical is set on the donor".to_owned())
            }
            (true, true) => {
                takes.predict(verdict.without_redo).map_or_else(TransferKind::Nothing, TransferKind::Files)
            }
        }
    }
}

/// The option files of a member, if it runs on this host, and where they say that its files are.
fn own_options(at: &Listens, layout: &Layout) -> Option<(Layout, ServerOptions)> {
    let pid = matches!(at, Listens::Socket(_)).then(|| server_using(layout).ok()?)??.pid?;
    let args = SstArgs { mysqld_args: arguments_of_server(pid)?, ..SstArgs::default() };
    let options = ServerOptions::load(&args).ok()?;
    Some((Layout::resolve(&args, &options).ok()?, options))
}

#[cfg(test)]
mod tests {
    use protocol::message::SnapshotKind;

    use super::*;
    use crate::settings::SnapshotChoice;

    fn joiner(facts: NodeFacts, upgrade: bool, words: &[&str]) -> Joiner {
        let file = tempfile::NamedTempFile::new().unwrap();
        let args = SstArgs {
            defaults_file: Some(file.path().to_string_lossy().into_owned()),
            mysqld_args: words.iter().map(|word| (*word).to_owned()).collect(),
            ..SstArgs::default()
        };
        let options = ServerOptions::load(&args).unwrap();
        Joiner { facts, options, upgrade, gets_rows: false }
    }

    fn takes(snapshot: SnapshotChoice) -> Donor {
        Donor { snapshot, blocking: Blocking::Auto, not_online: None, not_mariabackup: None, is_here: true }
    }

    /// `plan` predicted files for a joiner that takes nothing.
    #[test]
    fn what_the_joiners_options_refuse_is_predicted() {
        let archives = joiner(NodeFacts::default(), false, &["--innodb_log_archive=ON"]);
        for snapshot in [SnapshotChoice::Auto, SnapshotChoice::Logical] {
            let kind = archives.kind(&NodeFacts::default(), &takes(snapshot));
            assert!(
                matches!(&kind, TransferKind::Nothing(why) if why.contains("innodb_log_archive=ON")),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn what_travels_depends_on_both_nodes() {
        let node = |page_size, version: &str| NodeFacts {
            server_version: Some(version.to_owned()),
            page_size,
            ..NodeFacts::default()
        };
        let own = "10.11.19-MariaDB";
        let of = |page_size, snapshot| {
            joiner(node(page_size, own), false, &[]).kind(&node(16384, own), &takes(snapshot))
        };
        let online = Predicted { kind: SnapshotKind::Online, why: String::new() };
        assert_eq!(of(16384, SnapshotChoice::Auto), TransferKind::Files(online));
        let rows = TransferKind::Rows("innodb_page_size differs: donor 16384, joiner 4096".to_owned());
        assert_eq!(of(4096, SnapshotChoice::Auto), rows);
        assert_eq!(of(4096, SnapshotChoice::Logical), rows);
        let set = TransferKind::Rows("snapshot=logical is set on the donor".to_owned());
        assert_eq!(of(16384, SnapshotChoice::Logical), set);
        assert!(matches!(of(4096, SnapshotChoice::Online), TransferKind::Nothing(_)));

        // A joiner of a newer series may not be able to apply the donor's redo.
        let auto = takes(SnapshotChoice::Auto);
        let newer = joiner(node(16384, "11.8.6-MariaDB"), true, &[]).kind(&node(16384, own), &auto);
        let is_blocking = |from: &Predicted| from.kind == SnapshotKind::Blocking;
        assert!(matches!(&newer, TransferKind::Files(from) if is_blocking(from)), "{newer:?}");
    }
}
