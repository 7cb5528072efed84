//! One run of the program by the server: what it was told, read once, before anything is done.
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use formats::wsrep::invocation::SstArgs;

use crate::cancel::Cancel;
use crate::failure::{Failure, Kind};
use crate::peer::Terms;
use crate::server::options::ServerOptions;
use crate::server::parent::ServerProcess;
use crate::server::progress::Progress;
use crate::server::report::Report;
use crate::settings::Settings;

/// Everything a role needs.
pub struct Job {
    /// The server's arguments.
    pub args: SstArgs,
    /// The server's options.
    pub options: ServerOptions,
    /// What `[sst]` says.
    pub settings: Settings,
    /// The server's datadir.
    pub datadir: PathBuf,
    /// The server's process.
    pub server: Option<ServerProcess>,
    /// The wire to the server.
    pub report: Arc<Report>,
    /// Counters and phases.
    pub progress: Arc<Progress>,
    /// The way to end early.
    pub cancel: Cancel,
}

impl Job {
    /// What this node brings to every connection.
    pub fn terms(&self) -> Terms {
        Terms {
            stall: self.settings.stall,
            certificates: self.settings.certificates.clone(),
            ..Terms::of_this_program()
        }
    }
}

/// The datadir the server gave.
pub fn datadir_of(args: &SstArgs) -> Result<PathBuf, Failure> {
    let given = args.datadir.as_deref().filter(|d| !d.is_empty());
    let given = given.ok_or_else(|| Failure::new(Kind::Configuration, "the server gave no --datadir"))?;
    std::path::absolute(given)
        .map_err(|e| Failure::new(Kind::Configuration, format!("--datadir {given} cannot be used: {e}")))
}
