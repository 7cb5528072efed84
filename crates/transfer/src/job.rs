//! One run of the program by the server: its arguments and options, read once at the start.
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use formats::wsrep::invocation::{Role, SstArgs};
use report::record;

use crate::cancel::{Cancel, Limit};
use crate::failure::{Failure, Kind};
use crate::peer::{Link, Side, Terms, TransferSecret};
use crate::server::options::ServerOptions;
use crate::server::parent::ServerProcess;
use crate::server::progress::Progress;
use crate::server::report::Report;
use crate::settings::Settings;
use crate::threads::Thread;

/// Everything a role needs.
pub struct Job {
    /// The server's arguments.
    pub args: SstArgs,
    /// The server's options.
    pub options: ServerOptions,
    /// The options of `[sst]`.
    pub settings: Settings,
    /// The server's datadir.
    pub datadir: PathBuf,
    /// The server's process.
    pub server: Option<ServerProcess>,
    /// Our stdout, which the server reads.
    pub report: Arc<Report>,
    /// Counters and phases.
    pub progress: Arc<Progress>,
    /// Ends the transfer early.
    pub cancel: Cancel,
}

impl Job {
    /// Ends the transfer if it takes longer than the operator allows, until the value is dropped.
    ///
    /// # Errors
    /// No thread can be started for it.
    pub fn limit(&self) -> Result<Option<Limit>, Failure> {
        let end = |limit: Duration| {
            let seconds = limit.as_secs();
            let text =
                format!("the transfer took longer than max-time={seconds} under [sst] on this node allows");
            self.cancel.after(Thread::TimeLimit, limit, text)
        };
        self.settings.max_time.map(end).transpose()
    }

    /// Records the transfer's name, which both hosts know, and what [`Job::record_node`] does.
    pub fn record(&self, secret: &TransferSecret) {
        self.record_node();
        self.progress.ledger.update(|record| record.id = Some(secret.transfer_id()));
    }

    /// Records this node's name, and the settings that a transfer's duration depends on.
    pub fn record_node(&self) {
        let settings = record::Settings {
            threads: self.settings.threads.into(),
            rlimit: self.settings.rlimit,
            incremental: self.settings.incremental,
        };
        self.progress.ledger.update(|record| {
            (record.node, record.settings) = (self.options.node_name(), settings);
        });
    }

    /// Records who is at the other end of the control connection, whose bytes and waits are the transfer's from now on.
    pub fn connected(&self, link: &mut Link, program: &str) {
        link.count_in(&self.progress);
        link.share_waits(&self.progress);
        tracing::info!("connected to {}, {program}", link.peer());
        self.progress.ledger.connected(link.peer_address(), program);
    }

    /// What this node offers on every connection.
    pub fn terms(&self) -> Terms {
        let side = match self.args.effective_role() {
            Role::Joiner => Side::Joiner,
            Role::Donor => Side::Donor,
        };
        Terms {
            stall: self.settings.stall,
            certificates: self.settings.certificates.of(side).cloned(),
            ..Terms::of_this_program()
        }
    }
}

/// The datadir that the server passed.
pub fn datadir_of(args: &SstArgs) -> Result<PathBuf, Failure> {
    let given = args.datadir.as_deref().filter(|d| !d.is_empty());
    let given = given.ok_or_else(|| Failure::new(Kind::Configuration, "the server passed no --datadir"))?;
    std::path::absolute(given)
        .map_err(|e| Failure::new(Kind::Configuration, format!("--datadir {given} cannot be used: {e}")))
}
