//! Exclusive access to a datadir, for the verbs that change it: as its owner, and with no server running on
//! it.
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use formats::wsrep::invocation::SstArgs;
use transfer::advisor::check::wanted::Wanted;
use transfer::cancel::Cancel;
use transfer::datadir::layout::Layout;
use transfer::datadir::owner::become_owner_of;
use transfer::datadir::recognise::require_datadir;
use transfer::datadir::server_on::{refuse_server_on, server_on};
use transfer::disk::lock::DatadirLock;
use transfer::failure::{Failure, Kind};
use transfer::install::record_check;
use transfer::server::options::ServerOptions;
use transfer::server::{credentials, synced};

use super::answer::Answer;
use super::which::Which;

/// How long a transfer whose server died may still hold the lock: it ends within 1.5 s.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

/// Options of these verbs: which node, and which form of output.
#[derive(clap::Args)]
pub struct Common {
    #[command(flatten)]
    pub node: Which,
    #[command(flatten)]
    pub answer: Answer,
}

/// Exclusive access to a datadir, held as long as this value lives.
pub struct Alone {
    /// The datadir.
    pub datadir: PathBuf,
    /// Where its server keeps which files.
    pub layout: Layout,
    /// The options in its option files.
    pub options: ServerOptions,
    _lock: DatadirLock,
}

impl Alone {
    /// Takes exclusive access for a verb.
    ///
    /// # Errors
    /// The path is no datadir; another program works on it; a server runs on it; it holds a record that no
    /// transfer of this node can have written.
    pub fn on(which: &Which, verb: &str) -> Result<Alone> {
        Alone::locked(which, verb, |alone| refuse_server_on(&alone.layout))
    }

    /// The same, but the datadir's own server may run if it reports that it is Synced: then the files that
    /// the last install replaced are no longer needed.
    ///
    /// # Errors
    /// As [`Alone::on`].
    pub fn or_synced(which: &Which, verb: &str) -> Result<Alone> {
        Alone::locked(which, verb, Alone::refuse_unsynced_server)
    }

    fn refuse_unsynced_server(&self) -> Result<()> {
        let Some(server) = server_on(&self.layout)? else { return Ok(()) };
        let socket = synced::socket_path(self.options.server("socket"), &self.datadir);
        let account = credentials::collect(&SstArgs::default(), &self.options, false).local;
        if synced::is_synced(&socket, account.as_ref(), &self.datadir) {
            return Ok(());
        }
        let text =
            format!("{server} runs on {} and does not report that it is Synced", self.datadir.display());
        let hint = "wait until it is Synced, or stop it; rejoin asks it on its socket with the account under [sst] or as the datadir's \
                    owner (--defaults-file names its option file)";
        Err(Failure::new(Kind::Server, text).hint(hint).into())
    }

    fn locked(which: &Which, verb: &str, may_work: impl FnOnce(&Alone) -> Result<()>) -> Result<Alone> {
        let wanted = which.wanted()?;
        let datadir = wanted.layout()?.datadir;
        let wanted = Wanted { datadir: Some(datadir.clone()), ..wanted };
        become_owner_of(&datadir)?;
        require_datadir(&datadir)?;
        let lock = DatadirLock::take(&datadir, &format!("rejoin {verb}"), LOCK_PATIENCE, &Cancel::new())?;
        // The options are read again as the owner: root's own option files do not apply to the server.
        let (layout, options) = (wanted.layout()?, wanted.options()?);
        let alone = Alone { datadir, layout, options, _lock: lock };
        may_work(&alone)?;
        record_check::check(&alone.datadir, || Ok(alone.layout.clone()))?;
        Ok(alone)
    }
}
