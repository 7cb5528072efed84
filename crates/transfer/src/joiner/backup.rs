//! A backup, or the datadir of a stopped node (the option `base`), that is installed as the start of a deep IST: then the
//! donor sends write-sets only.
use std::path::Path;
use std::sync::{Arc, PoisonError};

use anyhow::{Context, Result};
use formats::mariadb::backup;
use formats::wsrep::state_id::StateId;
use protocol::entries::Entries;
use protocol::inventory::{FileRole, Place};
use protocol::message::SnapshotKind;

use super::agree::Room;
use super::expected::Position;
use super::file_list::FileList;
use super::incoming::IncomingTransfer;
use super::settled::VerifiedStaging;
use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::managed::ManagedFiles;
use crate::datadir::own_position::server_using;
use crate::datadir::recovered_position::{InnodbFiles, Recovered, recovered_position};
use crate::datadir::scan::{Scan, bytes, scan};
use crate::failure::{Failure, Kind};
use crate::human::size;
use crate::job::Job;
use crate::receive::reusable::Old;
use crate::server::options::ServerOptions;
use crate::writesets::ist::trust;

/// Bytes that are recorded at once.
const STEP: u64 = 1 << 30;

/// Files that can be installed, and their position.
#[derive(Debug)]
pub(crate) struct Backup {
    files: Scan,
    pub position: StateId,
}

impl Backup {
    /// What is in a directory; why it cannot be installed if it cannot. `layout` is this node's.
    ///
    /// # Errors
    /// Something is there and cannot be read.
    pub fn find(options: &ServerOptions, layout: &Layout, dir: &Path) -> Result<Result<Backup, String>> {
        if layout.binlog.is_some() {
            return Ok(Err("this node writes a binary log, whose state a backup does not hold".to_owned()));
        }
        let there = layout.gathered_in(dir);
        if let Some(server) = server_using(&there)? {
            return Ok(Err(format!("{server} has its files open")));
        }
        let position = match position(&there)? {
            Ok(position) => position,
            Err(why) => return Ok(Err(why)),
        };
        let files = scan(&there, &EnginePolicy::from_options(options))?;
        if let Err(why) = files.refuse_what_cannot_travel() {
            return Ok(Err(why.to_string()));
        }
        let elsewhere = files.files.iter().find(|file| {
            let link = matches!(file.entry.role, FileRole::Link { .. } | FileRole::TableElsewhere { .. });
            link || file.entry.place == Place::External
        });
        let unusable = elsewhere.map(|file| &file.path).or(files.unreadable.first());
        Ok(match unusable {
            Some(path) => Err(format!("{} is outside of it or cannot be read", path.display())),
            None => Ok(Backup { files, position }),
        })
    }

    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        bytes(&self.files.files, true)
    }

    /// Stages its files, copied or shared, as if they had come from a donor.
    ///
    /// # Errors
    /// As of a transfer.
    pub(super) fn stage(
        self,
        job: &Job,
        layout: &Layout,
        old: &Arc<ManagedFiles>,
        domain: Option<u32>,
    ) -> Result<VerifiedStaging> {
        job.progress.phase("copying the backup", &size(self.bytes()));
        // Its files are as complete as those of a server that stands still.
        let incoming = IncomingTransfer::prepare(job, layout, old, Room::Beside, SnapshotKind::Blocking)?;
        incoming.staging().drop_leftovers()?;
        let mut files = Entries::default();
        for file in self.files.files {
            job.cancel.check()?;
            let (id, bytes) = (file.entry.id, file.entry.size);
            incoming.begin(&file.entry)?;
            let mut coverage = incoming.coverage().lock().unwrap_or_else(PoisonError::into_inner);
            coverage.begin(id)?;
            let old = Old::new(file.path, file.look);
            for from in (0..bytes).step_by(STEP as usize) {
                let len = u32::try_from((bytes - from).min(STEP)).context("a step is shorter than 4 GiB")?;
                incoming.staging().hold(id, from..from + u64::from(len), &[(0, len)], Some(old.clone()))?;
                coverage.record(id, from, len)?;
            }
            drop(coverage);
            incoming.staging().may_rest(id);
            files.insert(&file.entry);
        }
        let position: Position = (self.position, domain);
        let file_list = FileList { files, position, binlog_state: None };
        incoming.settle(file_list, job)?.verify(job)
    }
}

/// The position of the files, if what was written beside them says the same.
fn position(there: &Layout) -> Result<Result<StateId, String>> {
    let found = match recovered_position(&InnodbFiles::of(there)?)? {
        Recovered::Known(found) => found.state,
        Recovered::None => return Ok(Err("its files hold no position".to_owned())),
        Recovered::Unknown(why) => return Ok(Err(format!("its position is not known: {why}"))),
    };
    let first = |names: &[&str]| -> Result<Option<(String, String)>> {
        for name in names {
            let path = there.datadir.join(name);
            match std::fs::read_to_string(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(unreadable(&path, &error).into()),
                Ok(text) => return Ok(Some(((*name).to_owned(), text))),
            }
        }
        Ok(None)
    };
    if let Some((name, text)) = first(&backup::CHECKPOINTS)?
        && let Err(kind) = backup::is_prepared(&text)
    {
        return Ok(Err(format!("it is not prepared ({name}: {kind})")));
    }
    if let Some((name, text)) = first(&backup::GALERA_INFO)? {
        return Ok(match backup::position(&text) {
            Some(said) if said == found => Ok(found),
            Some(said) => Err(format!("its files are at {found}, {name} says {said}")),
            None => Err(format!("{name} names no position")),
        });
    }
    let Some(said) = trust::provider_says(&there.datadir) else {
        let names = backup::GALERA_INFO.join(", ");
        return Ok(Err(format!("it has neither {names} nor grastate.dat")));
    };
    // That of a running or killed server is -1, and its files may change while they are copied.
    match said.seqno.0 >= 0 {
        true => Ok(trust::judge(found, Some(&said), None)),
        false => Ok(Err("grastate.dat does not say that its server was stopped in order".to_owned())),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Kind::Disk, format!("cannot read {}: {error}", path.display()))
}
