//! Whether what was copied is what the redo leads to, asked once the consistency point is over and its redo is there.
//!
//! The locks are let go by then: names may stand for other files again, or for none. What must be asked of a file
//! itself is asked of one that was opened under them.
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::Result;
use formats::innodb::page;
use formats::innodb::tablespace::{TablespaceHeader, parse_page0};
use formats::{Lsn, SpaceId};
use protocol::inventory::{FileId, FileRole};
use xxhash_rust::xxh3::xxh3_64;

use super::catalog::{Catalog, Known};
use super::dirty::Dirty;
use super::listing::Care;
use super::redo_out::RedoOut;
use super::settle::ConsistencyPoint;
use super::spool::EventKind;
use crate::snapshot::copy::page_file::{HEAD_BYTES, first_page_of};
use crate::snapshot::declined::{Declined, SnapshotError};

/// Files that are open at the same time; the server leaves us its limit, 1024 at least.
const OPEN_MAX: usize = 400;

/// One consistency point and what was copied until then.
pub struct Checks<'a> {
    /// What was copied.
    pub catalog: &'a mut Catalog,
    /// The moment.
    pub moment: &'a ConsistencyPoint,
    /// The redo up to its end.
    pub out: &'a RedoOut,
    /// Pages that the redo changes.
    pub dirty: &'a Dirty,
}

impl Checks<'_> {
    /// `Some(why)`: another moment is needed.
    ///
    /// # Errors
    /// What this snapshot does not follow; from the system.
    pub fn run(mut self) -> Result<Option<String>, SnapshotError> {
        self.complete()?;
        self.imports()?;
        self.events()
    }

    /// Under the lock nothing comes or goes: what was listed must have been read.
    fn complete(&mut self) -> Result<(), SnapshotError> {
        while let Some(file) = self.catalog.not_copied() {
            if !file.is_gone()? {
                let text = format!("{} is there and cannot be read", file.path().display());
                return Err(Declined::Layout(text).into());
            }
            let id = file.id;
            self.catalog.forget(id);
        }
        Ok(())
    }

    /// IMPORT TABLESPACE writes all pages without redo, the first one with the LSN of its time. Its deletion by DISCARD may
    /// lie before the checkpoint, or the copy may be of what an operator was about to import.
    fn imports(&self) -> Result<(), SnapshotError> {
        for written in &self.moment.written {
            let Some(file) = self.catalog.get(written.id) else { continue };
            let Some((space, lsn)) = written.first_page() else { continue };
            let imported = match (file.space(), file.first_lsn()) {
                // What has redo for its first page was made or changed, but perhaps after it was imported.
                _ if self.dirty.has_page(space, 0) => self.changed_without_redo(file, written),
                // It had no first page when it was copied.
                (None, _) => true,
                (Some(_), Some(copied)) => lsn > copied && lsn <= self.moment.end,
                _ => false,
            };
            if imported {
                let name = file.path().display().to_string();
                return Err(Declined::Import { space: space.0, name }.into());
            }
        }
        Ok(())
    }

    /// A page at the beginning of a file is another one than when it was copied, and no redo says why.
    fn changed_without_redo(&self, known: &Known, written: &Written) -> bool {
        let Now::Open(file) = &written.now else { return false };
        let mut bytes = vec![0; HEAD_BYTES];
        let Ok(read) = file.read_at(&mut bytes, 0) else { return false };
        let Ok(TablespaceHeader { space, format, .. }) = parse_page0(&bytes[..read]) else { return false };
        let pages: Vec<&[u8]> = bytes[..read].chunks_exact(format.physical_size).collect();
        let (since, end) = (self.dirty.since(), self.moment.end);
        let is_another = |number: u32| {
            let page = pages.get(number as usize)?;
            let lsn = page::lsn(page)?;
            // Redo of older changes is forgotten once the page was read again; what came later is no matter. The pages
            // behind the first one are imported with an LSN of 0.
            let in_time = lsn == Lsn(0) || (lsn > since && lsn <= end);
            let differs = xxh3_64(page) != *known.head().get(number as usize)?;
            // One that is just being written is half of each.
            Some(in_time && differs && page::verify(&format, page).is_usable())
        };
        let untouched = self.dirty.untouched(space, known.head().len() as u32);
        untouched.into_iter().any(|page| is_another(page) == Some(true))
    }

    /// What the log says about files from the checkpoint to the end, against what was listed.
    fn events(&mut self) -> Result<Option<String>, SnapshotError> {
        let mut again = None;
        for event in self.out.events_since(Lsn(0)) {
            let under_lock = event.lsn >= self.moment.list_lsn;
            match event.kind {
                EventKind::Create(name) | EventKind::Rename(name) if under_lock => {
                    again = Some(format!("a tablespace ({}) came under the lock", name.unwrap_or_default()));
                }
                EventKind::Delete(Some(space)) => {
                    again = self.deleted(space, under_lock)?.or(again);
                }
                // An encrypted log does not say which.
                EventKind::Delete(None) if under_lock => self.forget_gone()?,
                _ => {}
            }
        }
        Ok(again)
    }

    /// A tablespace was deleted, and a file with its number is there all the same. `Some` = again.
    fn deleted(&mut self, space: SpaceId, under_lock: bool) -> Result<Option<String>, SnapshotError> {
        let Some(file) = self.catalog.files().iter().find(|f| f.present && f.space() == Some(space)) else {
            return Ok(None);
        };
        let (id, gone, name) = (file.id, file.is_gone()?, file.path().display().to_string());
        if under_lock {
            // The file of a statement that failed.
            self.catalog.forget(id);
            return Ok(None);
        }
        if gone {
            // Its deletion was under way, or it was imported and is discarded again since the locks were let go.
            return Ok(Some(format!("{name} was deleted, was there under the lock, and is gone")));
        }
        Err(Declined::Import { space: space.0, name }.into())
    }

    fn forget_gone(&mut self) -> Result<()> {
        let mut gone = Vec::new();
        for file in self.catalog.files().iter().filter(|f| f.present && f.listed.care == Care::Pages) {
            if file.is_gone()? {
                gone.push(file.id);
            }
        }
        gone.into_iter().for_each(|id| self.catalog.forget(id));
        Ok(())
    }
}

/// A data file that was written to since the snapshot began.
#[derive(Debug)]
pub struct Written {
    id: FileId,
    now: Now,
}

#[derive(Debug)]
enum Now {
    /// Held open: in the next instant the file may have another name, or none.
    Open(File),
    /// Its first page.
    First(Option<(SpaceId, Lsn)>),
}

impl Written {
    fn first_page(&self) -> Option<(SpaceId, Lsn)> {
        match &self.now {
            Now::Open(file) => first_page_of(file),
            Now::First(first) => *first,
        }
    }
}

/// For the moment in which nothing comes or goes: all that there is to ask about [`Checks::imports`] later.
pub fn open_written(catalog: &Catalog, dirty: &Dirty) -> Vec<Written> {
    let mut all = Vec::new();
    for file in catalog.written() {
        // Only files of tables are imported.
        let system = matches!(file.listed.role(), FileRole::SystemTablespace { .. } | FileRole::Undo);
        let open = all.len() < OPEN_MAX;
        // Where very many tables are busy, what is probably one of them is not opened for nothing.
        if system || (!open && file.space().is_some_and(|space| dirty.has_page(space, 0))) {
            continue;
        }
        let Ok(opened) = File::open(file.path()) else { continue };
        let now = if open { Now::Open(opened) } else { Now::First(first_page_of(&opened)) };
        all.push(Written { id: file.id, now });
    }
    all
}
