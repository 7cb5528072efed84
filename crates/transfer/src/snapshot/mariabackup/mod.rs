//! The snapshot that mariadb-backup takes: `mariadb-backup --backup --stream=mbstream`, taken apart and sent like files of our
//! own. It reads whatever redo log and file layout its server writes, so it is possible where the online snapshot cannot read
//! these.
//!
//! The server pauses replication from its `BLOCK_DDL` on, because this method's name is not mariabackup: DDL of other nodes
//! cannot get between the files (docs/snapshots.md). The joiner has mariadb-backup prepare the files.
//!
//! | module | owns |
//! |---|---|
//! | [`tool`] | the program: where it is, its version, how it logs in |
//! | `names` | what each file of its stream is |
//! | `unpack` | from the stream to ranges of files |
//! | `stages` | how far it is, and ending it when it waits for its locks too long |
mod names;
mod stages;
pub mod tool;
mod unpack;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use formats::mariadb::gtid_list;
use formats::wsrep::state_id::StateId;
use protocol::inventory::{FileEntry, FileId, FileRole};
use protocol::message::SnapshotKind;

use super::declined::{Declined, SnapshotError};
use super::online::sql_checks;
use super::sink::{Position, SnapshotSink};
use super::{Snapshot, Taken};
use crate::cancel::Cancel;
use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::scan::{self, ScannedFile, Skipped};
use crate::program::{Program, Unfinished};
use crate::sql::{ANSWER_WITHIN, Listens, Login, Session};
use crate::threads::{Thread, scoped};
use names::Names;
pub(crate) use names::POSITION_FILES;
use stages::Stages;
use tool::{Tool, login_file};
use unpack::{Unpacked, unpack};

/// Its name in messages.
const NAME: &str = "mariadb-backup";

/// How the snapshot is taken.
pub struct Mariabackup<'a> {
    /// The program.
    pub tool: &'a Tool,
    /// The server.
    pub login: Login,
    /// Where its files are.
    pub layout: &'a Layout,
    /// Which engines' files can be sent.
    pub engines: &'a EnginePolicy,
    /// Threads that read data files, and threads that compare and pack them.
    pub threads: usize,
}

impl Snapshot for Mariabackup<'_> {
    fn kind(&self) -> SnapshotKind {
        SnapshotKind::Mariabackup
    }

    fn redo(&self) -> Option<FileId> {
        None
    }

    fn blocks_writes(&self) -> bool {
        false
    }

    fn take(&self, sink: &dyn SnapshotSink, cancel: &Cancel) -> Result<Taken, SnapshotError> {
        let mut session = Session::open(&self.login, ANSWER_WITHIN)?;
        let facts = sql_checks::check_for_backup(&mut session, &self.layout.datadir)?;
        let login = self.login_file(&mut session)?;
        drop(session);
        sink.phase("listing files (mariabackup)");
        let listed = scan::scan(self.layout, self.engines)?;
        listed.refuse_what_cannot_travel().map_err(anyhow::Error::from)?;
        let mut names = Names::new(self.layout, &listed.skipped, &listed.files);
        for entry in names.expected().into_iter().filter(|entry| entry.role != FileRole::Redo) {
            // One by one, not in groups: files arrive in another order, and a group waits in memory until it is complete.
            sink.expect(&mut std::iter::once(entry));
        }
        sink.phase("sending files (mariabackup)");
        let unpacked = self.back_up(&mut names, &listed.skipped, login, sink, cancel)?;
        let state = position(&unpacked).map_err(Declined::Backup)?;
        let position = Position { state, domain: facts.gtid_domain };
        Ok(Taken {
            binlog_state: binlog_state(&unpacked),
            files: unpacked.files,
            position,
            corrupt: Vec::new(),
            redo_rounds: None,
            summary: vec![format!("{NAME} {} made the backup; it is at {state}", self.tool.version)],
        })
    }
}

impl Mariabackup<'_> {
    /// The files of tables that have no redo, as the stream names them.
    fn files_without_redo(&self, skipped: &Skipped) -> Result<BTreeSet<String>> {
        let mut files = BTreeSet::new();
        let mut take = |file: ScannedFile| {
            if has_no_redo(&file.entry) {
                files.insert(file.entry.path);
            }
        };
        scan::list(self.layout, skipped, &mut |_, _| {}, &mut take)?;
        Ok(files)
    }

    /// Logs in as the session did.
    fn login_file(&self, session: &mut Session) -> Result<OwnedFd, SnapshotError> {
        let Listens::Socket(socket) = &self.login.at else {
            return Err(Declined::Backup("it logs in at a socket only".to_owned()).into());
        };
        let user = session.user_name().map_err(|error| Declined::SessionLost(error.to_string()))?;
        let account = self.login.account.as_ref().filter(|account| account.user == user);
        Ok(login_file(socket, account, &user)?)
    }

    fn command(&self) -> Command {
        let mut command = self.tool.command();
        command
            .arg("--defaults-file=/proc/self/fd/0")
            .args(["--backup", "--stream=mbstream", "--galera-info"])
            .arg(format!("--parallel={}", self.threads))
            .arg(format!("--target-dir={}", std::env::temp_dir().display()))
            .current_dir("/");
        command
    }

    fn back_up(
        &self,
        names: &mut Names<'_>,
        skipped: &Skipped,
        login: OwnedFd,
        sink: &dyn SnapshotSink,
        cancel: &Cancel,
    ) -> Result<Unpacked, SnapshotError> {
        let list = || self.files_without_redo(skipped);
        let stages = Stages::new(sink, &list);
        let program =
            Program { name: NAME, limit: None, stdin: Some(login), cancel, line: &|line| stages.line(line) };
        let done = std::thread::scope(|scope| {
            let watch = scoped(scope, Thread::BackupWatch, || stages.watch(&self.login, cancel));
            let done =
                program.read(&mut self.command(), |stream| unpack(stream, names, sink, self.threads, cancel));
            stages.over();
            stages.ended(&self.login);
            let watched = watch.join();
            done.and_then(|done| watched.map(|()| done).map_err(Unfinished::Taking))
        });
        match done {
            Ok(unpacked) if stages.is_complete() => {
                is_whole(&unpacked, stages.files().transpose()?)?;
                Ok(unpacked)
            }
            Ok(_) => {
                Err(Declined::Backup("it ended without saying that the backup is complete".to_owned()).into())
            }
            Err(Unfinished::Program(error)) => {
                cancel.check().map_err(anyhow::Error::from)?;
                Err(match stages.was_held_up() {
                    true => Declined::BackupHeldUp.into(),
                    false => Declined::BackupFailed(format!("{error:#}")).into(),
                })
            }
            Err(Unfinished::Taking(error)) => {
                cancel.check().map_err(anyhow::Error::from)?;
                Err(error.downcast::<Declined>().map_or_else(SnapshotError::from, SnapshotError::from))
            }
        }
    }
}

/// Whether a file is of a table and has no redo: its name in the stream is its final one.
fn has_no_redo(entry: &FileEntry) -> bool {
    let of_table = matches!(entry.role, FileRole::Table | FileRole::Link { .. });
    of_table && !entry.path.ends_with(".ibd") && !entry.path.ends_with(".isl")
}

/// mariadb-backup loses tables that are dropped and created again while it works: 10.11.19 lost some in each of six backups of
/// one server on which nothing but `CREATE OR REPLACE TABLE ... ENGINE=Aria` ran. So what it has sent must be what was there
/// while it held DDL.
fn is_whole(unpacked: &Unpacked, there: Option<BTreeSet<String>>) -> Result<(), Declined> {
    let Some(there) = there else {
        return Err(Declined::Backup("it did not say when it held its locks".to_owned()));
    };
    let sent: BTreeSet<String> = unpacked.files.iter().filter(has_no_redo).map(|entry| entry.path).collect();
    // It waits for nobody: on a slow disk it may be done before the list is.
    let wrong = |what: &str, name: &String, more: usize| {
        Declined::BackupFailed(format!(
            "its backup {what} {name}, and {more} more files like it: it went wrong with them, or it released its locks before \
             they were listed"
        ))
    };
    let mut lost = there.difference(&sent);
    if let Some(name) = lost.next() {
        return Err(wrong("lacks", name, lost.count()));
    }
    let mut dropped = sent.difference(&there);
    match dropped.next() {
        Some(name) => Err(wrong("still has", name, dropped.count())),
        None => Ok(()),
    }
}

/// The position that the backup says it is at.
fn position(unpacked: &Unpacked) -> Result<StateId, String> {
    let said = unpacked.position.as_ref().ok_or("it does not say at which position of the cluster it is")?;
    let said = String::from_utf8_lossy(said);
    // Newer versions write the GTID domain behind it.
    let text = said.split_whitespace().next().unwrap_or_default();
    let state: Result<StateId, _> = text.parse();
    state
        .ok()
        .filter(StateId::is_defined)
        .ok_or_else(|| format!("it is at no position of the cluster ({said:?})"))
}

/// The GTID state at the head of the binary log that the server began under the backup's locks.
fn binlog_state(unpacked: &Unpacked) -> Option<String> {
    match gtid_list::parse(unpacked.binlog.as_ref()?) {
        Ok(list) => Some(gtid_list::state_text(&list)),
        Err(error) => {
            tracing::warn!("the joiner's binary log will not know the donor's GTID state: {error}");
            None
        }
    }
}

/// The position in a file of a prepared backup, if it has one.
pub(crate) fn position_in(directory: &Path) -> Option<StateId> {
    let text = POSITION_FILES.iter().find_map(|name| std::fs::read_to_string(directory.join(name)).ok())?;
    text.split_whitespace().next()?.parse().ok()
}
