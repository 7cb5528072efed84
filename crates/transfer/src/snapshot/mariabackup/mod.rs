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
//! | `without_redo` | tables that it loses: what the datadir has under its locks |
mod names;
mod stages;
pub mod tool;
mod unpack;
mod without_redo;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use formats::mariadb::gtid_list;
use formats::wsrep::state_id::StateId;
use protocol::inventory::{FileId, FileRole};
use protocol::message::SnapshotKind;

use super::declined::{Declined, SnapshotError};
use super::online::sql_checks;
use super::sink::{Position, SnapshotSink};
use super::{Snapshot, Taken};
use crate::cancel::Cancel;
use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::scan::{self, Scan};
use crate::program::{Pause, Program, Unfinished};
use crate::sql::{ANSWER_WITHIN, Listens, Login, Session};
use crate::threads::{Thread, scoped};
use names::Names;
pub(crate) use names::POSITION_FILES;
use stages::Stages;
use tool::{Tool, login_file};
use unpack::{Unpacked, unpack};
use without_redo::{Before, take_from_datadir};

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
        let (unpacked, replaced) = self.back_up(&mut names, &listed, login, sink, cancel)?;
        let state = position(&unpacked).map_err(Declined::Backup)?;
        let position = Position { state, domain: facts.gtid_domain };
        let mut summary = vec![format!("{NAME} {} made the backup; it is at {state}", self.tool.version)];
        summary.extend(replaced);
        Ok(Taken {
            binlog_state: binlog_state(&unpacked),
            files: unpacked.files,
            position,
            corrupt: Vec::new(),
            redo_rounds: None,
            summary,
        })
    }
}

impl Mariabackup<'_> {
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

    /// The backup, and which of its files are the datadir's instead, if any.
    fn back_up(
        &self,
        names: &mut Names<'_>,
        listed: &Scan,
        login: OwnedFd,
        sink: &dyn SnapshotSink,
        cancel: &Cancel,
    ) -> Result<(Unpacked, Option<String>), SnapshotError> {
        let before = Before::of(&listed.files);
        let list = || without_redo::list(self.layout, &listed.skipped, &before, cancel);
        let stages = Stages::new(sink, &list);
        let pause = Pause { at: &|line| stages.blocks_ddl(line), meanwhile: &|| stages.stands_still() };
        let program = Program {
            name: NAME,
            limit: None,
            stdin: Some(login),
            cancel,
            line: &|line| stages.line(line),
            pause: Some(pause),
        };
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
            Ok(mut unpacked) if stages.is_complete() => {
                let none = || Declined::Backup("it did not say when it held its locks".to_owned());
                let held = stages.files().transpose()?.ok_or_else(none)?;
                let replaced = take_from_datadir(&mut unpacked, held, names, sink, cancel)?;
                Ok((unpacked, replaced))
            }
            Ok(_) => {
                Err(Declined::Backup("it ended without saying that the backup is complete".to_owned()).into())
            }
            Err(Unfinished::Program(error)) => {
                cancel.check().map_err(anyhow::Error::from)?;
                Err(match (stages.was_held_up(), stages.has_tripped()) {
                    (true, _) => Declined::BackupHeldUp.into(),
                    (false, true) => Declined::BackupTripped(format!("{error:#}")).into(),
                    (false, false) => Declined::BackupFailed(format!("{error:#}")).into(),
                })
            }
            Err(Unfinished::Taking(error)) => {
                cancel.check().map_err(anyhow::Error::from)?;
                Err(error.downcast::<Declined>().map_or_else(SnapshotError::from, SnapshotError::from))
            }
        }
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
