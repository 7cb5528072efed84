//! What rejoin would send of a member's data: estimated as a transfer does at its start, before anything is started.
use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use protocol::marks::MarkKey;
use protocol::sample::{Decision, Sample};

use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::managed::ManagedFile;
use crate::datadir::of_server::layout_of;
use crate::datadir::own_position::server_using;
use crate::datadir::{sample, scan};
use crate::peer::secret::random_bytes;
use crate::server::options::ServerOptions;
use crate::settings;
use crate::source::native::login::Listens;
use crate::source::native::sql::{Answer, Session};

/// Bytes that a transfer from a member would send, before compression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// What it has.
    pub all: u64,
    /// What of it differs, from a sample; none where it cannot be told, which leaves `all` as the most.
    pub about: Option<u64>,
    /// What this rests on.
    pub why: String,
}

/// What is here to compare with.
pub(super) enum Here {
    /// A few blocks of it.
    Sampled(Sample, MarkKey),
    /// Nothing is compared, and why.
    Nothing(&'static str),
}

impl Here {
    /// Reads blocks of this node's files.
    pub fn of(layout: &Layout, old: &[ManagedFile], options: &ServerOptions) -> Result<Here> {
        if options.sst_bool("incremental")? == Some(false) {
            return Ok(Here::Nothing("incremental=0 is set here"));
        }
        let key = random_bytes()?;
        let sample = sample::of(&layout.datadir, old, &key, settings::base(options).is_some());
        Ok(Here::Sampled(sample, key))
    }

    /// What a member would send. Its files are read where it runs on this host; else it is asked how large they are.
    pub fn estimate(
        &self,
        at: &Listens,
        session: &mut Session,
        variables: &BTreeMap<String, String>,
    ) -> Answer<Result<Estimate, String>> {
        match self.beside(at, variables) {
            Ok(estimate) => Ok(Ok(estimate)),
            Err(why) => Ok(match session.innodb_bytes()? {
                Some(all) => Ok(Estimate { all, about: None, why: why.to_string() }),
                None => Err("its account there may not ask for the size of the data (PROCESS)".to_owned()),
            }),
        }
    }

    fn beside(&self, at: &Listens, variables: &BTreeMap<String, String>) -> Result<Estimate> {
        let (layout, options) = layout_of(variables)?;
        // Another host's server names a directory that may be this node's own here.
        let is_here = matches!(at, Listens::Socket(_)) && matches!(server_using(&layout), Ok(Some(_)));
        ensure!(
            is_here,
            "its files are not on this host: how much of them is here already shows when the transfer begins"
        );
        let unread = "its files cannot be read by this user";
        let files = scan::scan(&layout, &EnginePolicy::from_options(&options)).context(unread)?.files;
        let all = scan::bytes(&files, false);
        let (sample, key) = match self {
            Here::Sampled(sample, key) => (sample, key),
            Here::Nothing(why) => return Ok(Estimate { all, about: Some(all), why: (*why).to_owned() }),
        };
        let shared = sample::shared(&layout, sample, key, true);
        let mut why =
            format!("estimated: {} of {} sampled blocks here are as there", shared.same, sample.blocks.len());
        let about = match sample.decide(shared, all) {
            Decision::Full => all,
            Decision::Incremental { about, in_parts } => {
                if in_parts < about {
                    let less = crate::words::size(in_parts);
                    why.push_str(&format!("; about {less} where parts of pages are sent"));
                }
                about
            }
        };
        Ok(Estimate { all, about: Some(about), why })
    }
}
