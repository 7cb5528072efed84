//! The frozen source: the server itself keeps every file still for as long as we ask.
//!
//! `flush tables` on stdout makes the server take a global read lock, pause replication, write a full InnoDB
//! checkpoint and stop all background writers; then it writes `tables_flushed` with its position. `continue`, or our
//! end, lets everything go again (MariaDB 10.11 sql/wsrep_sst.cc; docs/server-contract.md). Needs no account.
//! The donor's clients can read meanwhile, and their writes wait.
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use formats::wsrep::report::ReportLine;
use formats::wsrep::state_id::{AnnotatedStateId, StateId};
use formats::wsrep::tables_flushed;

use crate::cancel::Cancel;
use crate::disk::durable::remove_if_there;
use crate::failure::{Failure, Kind};
use crate::server::report::Report;

/// How often the server's answer is looked for.
const LOOK_FOR_ANSWER: Duration = Duration::from_millis(20);

/// The server keeps its files still while this lives.
pub struct Frozen {
    report: Arc<Report>,
    position: AnnotatedStateId,
    since: Instant,
}

impl Frozen {
    /// Asks the server to stop and waits until it has, at most `patience`: running statements are waited for.
    pub fn take(report: &Arc<Report>, datadir: &Path, patience: Duration, cancel: &Cancel) -> Result<Frozen> {
        let answer = datadir.join(tables_flushed::FILE_NAME);
        let error = datadir.join(tables_flushed::ERROR_FILE_NAME);
        remove_if_there(&answer)?;
        remove_if_there(&error)?;
        report.say(&ReportLine::FlushTables)?;
        // From here on the server may hold its locks, also while this function fails: the guard exists first.
        let position = AnnotatedStateId { state: StateId::UNDEFINED, domain: None, gtid: None };
        let mut frozen = Frozen { report: Arc::clone(report), position, since: Instant::now() };
        frozen.position = wait_for_answer(&answer, &error, patience, cancel)?;
        let _ = remove_if_there(&answer);
        Ok(frozen)
    }

    /// The position all files are at.
    pub fn position(&self) -> &AnnotatedStateId {
        &self.position
    }

    /// How long the server has been asked to hold still; its writers have waited at most this long.
    pub fn held_for(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // If the server no longer reads, it is gone, and its locks with it.
        self.report.say_if_possible(&ReportLine::Continue);
        tracing::info!("the donor's files were held still for {:.3} s", self.held_for().as_secs_f64());
    }
}

fn wait_for_answer(
    answer: &PathBuf,
    error: &Path,
    patience: Duration,
    cancel: &Cancel,
) -> Result<AnnotatedStateId> {
    let began = Instant::now();
    loop {
        cancel.check()?;
        if error.exists() {
            let _ = remove_if_there(error);
            let text = "the donor's server refused to flush its tables; its error log says why";
            return Err(Failure::new(Kind::Server, text).into());
        }
        match fs::read_to_string(answer) {
            // The server renames the finished file into place, so what can be read is complete.
            Ok(text) => {
                return tables_flushed::parse(&text).context("cannot read the server's tables_flushed");
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", answer.display())),
        }
        if began.elapsed() > patience {
            let text = format!("the donor's server did not flush its tables within {} s", patience.as_secs());
            let hint = "look for a long statement in its process list, or raise flush-timeout under [sst]";
            return Err(Failure::new(Kind::Timeout, text).hint(hint).into());
        }
        std::thread::sleep(LOOK_FOR_ANSWER);
    }
}
