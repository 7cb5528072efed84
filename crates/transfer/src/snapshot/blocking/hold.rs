//! The time in which the server writes to none of its files.
//!
//! `flush tables` on stdout makes the server take a global read lock, pause replication, write a full InnoDB checkpoint
//! and stop all background writers; then it writes `tables_flushed` with its position. `continue`, or our end, releases
//! everything (MariaDB 10.11 sql/wsrep_sst.cc; docs/server-contract.md). No account is needed. The donor's clients can
//! read meanwhile, and their writes wait.
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use formats::wsrep::report::ReportLine;
use formats::wsrep::state_id::{AnnotatedStateId, StateId};
use formats::wsrep::tables_flushed;

use crate::cancel::{Cancel, Limit};
use crate::disk::durable::remove_if_there;
use crate::failure::{Failure, Kind};
use crate::server::report::Report;
use crate::threads::Thread;

/// How often we look for the server's answer.
const LOOK_FOR_ANSWER: Duration = Duration::from_millis(20);

/// While this lives, the server does not write to its files.
pub struct BlockedWrites {
    report: Arc<Report>,
    position: AnnotatedStateId,
    since: Instant,
    /// The file in which the server writes its answer.
    answer: PathBuf,
    /// Ends the thread that watches the limit when it is dropped.
    _limit: Option<Limit>,
}

impl BlockedWrites {
    /// Asks the server to stop writing and waits until it has, at most `patience`: running statements must end first.
    /// The transfer is cancelled `limit` after the request, whatever it is doing then, so that the server is released.
    pub fn take(
        report: &Arc<Report>,
        datadir: &Path,
        patience: Duration,
        limit: Option<Duration>,
        cancel: &Cancel,
    ) -> Result<BlockedWrites> {
        let answer = datadir.join(tables_flushed::FILE_NAME);
        let error = datadir.join(tables_flushed::ERROR_FILE_NAME);
        if let Some(file) = [&answer, &error].into_iter().find(|file| file.is_dir()) {
            let text = format!(
                "the donor has a database where its server writes an answer to `flush tables`: {}",
                file.display()
            );
            let hint = "rename the database, or remove the reason why the online snapshot was not possible (see above in \
                        the log)";
            return Err(Failure::new(Kind::Refused, text).hint(hint).into());
        }
        remove_if_there(&answer)?;
        remove_if_there(&error)?;
        let limit = limit.map(|limit| end_after(limit, cancel.clone())).transpose()?;
        report.print(&ReportLine::FlushTables)?;
        // From here on the server may hold its locks, even if this function fails, so the guard exists first.
        let position = AnnotatedStateId { state: StateId::UNDEFINED, domain: None, gtid: None };
        let (report, since) = (Arc::clone(report), Instant::now());
        let mut blocked = BlockedWrites { report, position, since, answer: answer.clone(), _limit: limit };
        blocked.position = wait_for_answer(&answer, &error, patience, cancel)?;
        Ok(blocked)
    }

    /// The position of all files.
    pub fn position(&self) -> &AnnotatedStateId {
        &self.position
    }

    /// How long ago the server was asked; its writers have waited at most this long.
    pub fn held_for(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for BlockedWrites {
    fn drop(&mut self) {
        // If the server no longer reads, it has ended, and its locks with it.
        self.report.print_if_possible(&ReportLine::Continue);
        // The answer is still there if the transfer was cancelled before it was read.
        let _ = remove_if_there(&self.answer);
        tracing::info!("the donor's server blocked writes for {:.3} s", self.held_for().as_secs_f64());
    }
}

/// Cancels the transfer after `limit`, unless the returned value is dropped before.
fn end_after(limit: Duration, cancel: Cancel) -> Result<Limit> {
    let seconds = limit.as_secs();
    let text = format!(
        "the donor's server has blocked writes for {seconds} s, which is the limit (blocking={seconds} under [sst] on the donor)"
    );
    Ok(cancel.after(Thread::BlockingLimit, limit, text)?)
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
