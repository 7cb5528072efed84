//! Estimates what rejoin would send of a member's data, as a transfer does at its start, without starting
//! anything.
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use protocol::fingerprint::FingerprintKey;
use protocol::sample::Decision;

use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::managed::ManagedFiles;
use crate::datadir::of_server::layout_of;
use crate::datadir::own_position::server_using;
use crate::datadir::{sample, scan};
use crate::human::size;
use crate::peer::secret::random_bytes;
use crate::server::options::ServerOptions;
use crate::settings;
use crate::snapshot::online::estimate::Prices;
use crate::snapshot::online::outlook::{Expected, Outlook, RedoClock};
use crate::sql::{Answer, Listens, Session};

/// Bytes that a transfer from a member would send, before compression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The size of its data.
    pub all: u64,
    /// The most that will be sent, from a sample; none if it is not known, which leaves `all` as the most.
    pub about: Option<u64>,
    /// The least that will be sent, from the same sample.
    pub at_least: u64,
    /// The same in words, with its basis; or why it is not known.
    pub why: String,
    /// What is expected of the redo, beside all that; none where the server does not tell.
    pub redo: Option<Expected>,
}

/// Why the size of a member's data is not known.
const UNKNOWN_SIZE: &str = "the account there lacks PROCESS to read the size of the data";

impl Estimate {
    /// No more than all.
    fn at_most(all: u64, why: String) -> Estimate {
        Estimate { all, about: None, at_least: 0, why, redo: None }
    }

    /// The rows of all tables, instead of files.
    pub(super) fn of_rows(session: &mut Session) -> Answer<Result<Estimate, String>> {
        let why =
            "packed rows of all tables, which are less than their files: nothing of this node's data is used";
        let all = session.innodb_bytes()?;
        Ok(all.map(|all| Estimate::at_most(all, why.to_owned())).ok_or_else(|| UNKNOWN_SIZE.to_owned()))
    }
}

/// This node's data to compare with.
pub(super) enum Here {
    /// A few blocks of it.
    Sampled(sample::Taken, FingerprintKey),
    /// Nothing is compared, for this reason.
    Nothing(&'static str),
}

impl Here {
    /// Samples this node's files.
    pub fn of(layout: &Layout, old: &ManagedFiles, options: &ServerOptions) -> Result<Here> {
        if options.sst_bool("incremental")? == Some(false) {
            return Ok(Here::Nothing("incremental=0 is set on this node"));
        }
        let key = random_bytes()?;
        let sample = sample::of(&layout.datadir, old, &key, settings::base(options).is_some())?;
        Ok(Here::Sampled(sample, key))
    }

    /// Estimates what a member would send. Its files are read if it runs on this host; otherwise it is
    /// queried for their size.
    pub fn estimate(
        &self,
        at: &Listens,
        session: &mut Session,
        variables: &BTreeMap<String, String>,
    ) -> Answer<Result<Estimate, String>> {
        let clock = RedoClock::start(session)?;
        let tablespaces = session.tablespaces()?.unwrap_or(0);
        let outlook = Outlook::of(session, tablespaces)?;
        let beside = self.beside(at, variables);
        let written = clock.rate(session)?;
        let outlook = outlook.map(|outlook| Outlook { written, ..outlook });
        // What its rlimit is, and what the link carries, shows when the transfer begins.
        let prices = Prices::new(None, None, written as f64).recovering_at(self.page_time());
        let with_redo = |estimate: Estimate| {
            let Some(outlook) = outlook else { return estimate };
            let files = estimate.about.unwrap_or(estimate.all);
            let why = format!("{}; {}", estimate.why, outlook.in_words(&prices, files));
            Estimate { why, redo: Some(outlook.expect(&prices, files)), ..estimate }
        };
        match beside {
            Ok(estimate) => Ok(Ok(with_redo(estimate))),
            Err(why) => Ok(match session.innodb_bytes()? {
                Some(all) => Ok(with_redo(Estimate::at_most(all, why.to_string()))),
                None => Err(UNKNOWN_SIZE.to_owned()),
            }),
        }
    }

    /// How long this node's disk takes to read a page.
    fn page_time(&self) -> Option<Duration> {
        match self {
            Here::Sampled(taken, _) => taken.page_time,
            Here::Nothing(_) => None,
        }
    }

    fn beside(&self, at: &Listens, variables: &BTreeMap<String, String>) -> Result<Estimate> {
        let (layout, options) = layout_of(variables)?;
        // Another host's server may name a directory that is this node's own on this host.
        let is_here = matches!(at, Listens::Socket(_)) && matches!(server_using(&layout), Ok(Some(_)));
        ensure!(
            is_here,
            "its files are on another host, so how much of them this node already has is known only when the transfer begins"
        );
        let unread = "this user cannot read its files";
        let files = scan::scan(&layout, &EnginePolicy::from_options(&options)).context(unread)?.files;
        let all = scan::bytes(&files, false);
        let (sample, key) = match self {
            Here::Sampled(taken, key) => (&taken.sample, key),
            Here::Nothing(why) => {
                let why = format!("{} to send: {why}", size(all));
                return Ok(Estimate { all, about: Some(all), at_least: all, why, redo: None });
            }
        };
        let shared = sample::shared(&layout, sample, key, true);
        let decision = sample.decide(shared, all);
        let why = sample::in_words(decision, shared, sample.blocks.len(), all);
        let (about, at_least) = match decision {
            Decision::Full => (all, all),
            Decision::Incremental { about, at_least, .. } => (about, at_least),
        };
        Ok(Estimate { all, about: Some(about), at_least, why, redo: None })
    }
}
