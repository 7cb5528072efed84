//! Whether the copy is consistent with its redo, checked once the consistency point is over and all redo has arrived.
//!
//! The locks are released by then, so a name may belong to another file or to none. If a file itself must be examined,
//! it was opened under the locks.
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::Result;
use formats::innodb::page;
use formats::innodb::tablespace::{TablespaceHeader, parse_page0};
use formats::{Lsn, SpaceId};
use protocol::inventory::{FileId, FileRole};
use xxhash_rust::xxh3::xxh3_64;

use super::catalog::{Catalog, FirstPage, Known};
use super::consistency_point::{ConsistencyPoint, Now, Written};
use super::dirty::Dirty;
use super::listing::Care;
use super::redo_out::RedoOut;
use super::spool::EventKind;
use crate::snapshot::copy::page_file::{HEAD_BYTES, first_page, first_page_of};
use crate::snapshot::declined::{Declined, SnapshotError};
use crate::threads::{Thread, each_in_threads};

/// Files that are open at the same time; we inherit the server's limit, which is at least 1024.
const OPEN_MAX: usize = 400;

/// One consistency point and what was copied until then.
pub struct Checks<'a> {
    /// What was copied.
    pub catalog: &'a mut Catalog,
    /// The consistency point.
    pub point: &'a ConsistencyPoint,
    /// The redo up to the end of the snapshot.
    pub out: &'a RedoOut,
    /// Pages that the redo changes.
    pub dirty: &'a Dirty,
}

impl Checks<'_> {
    /// `Some(why)`: another consistency point is needed.
    ///
    /// # Errors
    /// Something that this snapshot cannot handle, or from the system.
    pub fn run(mut self) -> Result<Option<String>, SnapshotError> {
        self.complete()?;
        self.imports()?;
        self.events()
    }

    /// No file appears or disappears under the lock, so every listed file must have been read.
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

    /// IMPORT TABLESPACE writes all pages without redo, the first one with the LSN of the import. The deletion by
    /// DISCARD may lie before the checkpoint, or the copy may be of a file that an operator was about to import.
    fn imports(&self) -> Result<(), SnapshotError> {
        for written in &self.point.written {
            let Some(file) = self.catalog.get(written.id) else { continue };
            let Some((space, lsn)) = written.first_page() else { continue };
            let imported = match (file.space(), file.first_lsn()) {
                // Its first page has redo: the table was created or changed, but perhaps after an import.
                _ if self.dirty.has_page(space, 0) => self.changed_without_redo(file, written),
                // It had no first page when it was copied.
                (None, _) => true,
                (Some(_), Some(copied)) => lsn > copied && lsn <= self.point.end,
                _ => false,
            };
            if imported {
                let name = file.path().display().to_string();
                return Err(Declined::Import { space: space.0, name }.into());
            }
        }
        Ok(())
    }

    /// True if a page at the beginning of a file differs from the copy and no redo explains it.
    fn changed_without_redo(&self, known: &Known, written: &Written) -> bool {
        let Now::Open(file) = &written.now else { return false };
        let mut bytes = vec![0; HEAD_BYTES];
        let Ok(read) = file.read_at(&mut bytes, 0) else { return false };
        let Ok(TablespaceHeader { space, format, .. }) = parse_page0(&bytes[..read]) else { return false };
        let pages: Vec<&[u8]> = bytes[..read].chunks_exact(format.physical_size).collect();
        let (since, end) = (self.dirty.since(), self.point.end);
        let is_another = |number: u32| {
            let page = pages.get(number as usize)?;
            let lsn = page::lsn(page)?;
            // Redo of older changes is no longer remembered, and later changes do not matter. The pages behind the
            // first one are imported with an LSN of 0.
            let in_time = lsn == Lsn(0) || (lsn > since && lsn <= end);
            let differs = xxh3_64(page) != *known.head().get(number as usize)?;
            // A page that is just being written is half old and half new, so it must verify.
            Some(in_time && differs && page::verify(&format, page).is_usable())
        };
        let untouched = self.dirty.untouched(space, known.head().len() as u32);
        untouched.into_iter().any(|page| is_another(page) == Some(true))
    }

    /// Compares the file events in the log, from the checkpoint to the end, with the listing.
    fn events(&mut self) -> Result<Option<String>, SnapshotError> {
        let mut again = None;
        for event in self.out.events_since(Lsn(0)) {
            let under_lock = event.lsn >= self.point.list_lsn;
            match event.kind {
                EventKind::Create(name) | EventKind::Rename(name) if under_lock => {
                    again = Some(format!(
                        "a tablespace ({}) was created or renamed under the lock",
                        name.unwrap_or_default()
                    ));
                }
                EventKind::Delete(Some(space)) => {
                    again = self.deleted(space, under_lock)?.or(again);
                }
                // An encrypted log does not say which tablespace.
                EventKind::Delete(None) if under_lock => self.forget_gone()?,
                _ => {}
            }
        }
        Ok(again)
    }

    /// A tablespace was deleted, yet a file with its number is listed. `Some`: another consistency point is needed.
    fn deleted(&mut self, space: SpaceId, under_lock: bool) -> Result<Option<String>, SnapshotError> {
        let Some(file) = self.catalog.files().iter().find(|f| f.present && f.space() == Some(space)) else {
            return Ok(None);
        };
        let (id, gone, name) = (file.id, file.is_gone()?, file.path().display().to_string());
        if under_lock {
            // It is the file of a statement that failed.
            self.catalog.forget(id);
            return Ok(None);
        }
        if gone {
            // Its deletion was in progress, or it was imported and has been discarded since the locks were released.
            return Ok(Some(format!("{name} was deleted; it was there under the lock and is gone now")));
        }
        Err(Declined::Import { space: space.0, name }.into())
    }

    fn forget_gone(&mut self) -> Result<()> {
        let mut gone = Vec::new();
        for file in self.catalog.files().iter().filter(|f| f.present && f.care == Care::Pages) {
            if file.is_gone()? {
                gone.push(file.id);
            }
        }
        gone.into_iter().for_each(|id| self.catalog.forget(id));
        Ok(())
    }
}

impl Written {
    fn first_page(&self) -> FirstPage {
        match &self.now {
            Now::Open(file) => first_page_of(file),
            Now::First(first) => *first,
        }
    }
}

/// Called before the locks are taken, right after a listing: reads the first pages that [`open_written`] would read under
/// them. A checkpoint can write to thousands of tables, whose first pages the system has not cached.
///
/// # Errors
/// A thread cannot be started.
pub fn look_ahead(catalog: &mut Catalog, dirty: &Dirty, threads: usize) -> Result<()> {
    let behind = importable(catalog).skip(OPEN_MAX).filter(|file| !is_ordinary(file, dirty));
    let unread = behind.filter(|file| catalog.noted_first_page(file.id).is_none());
    let unread: Vec<_> = unread.map(|file| (file.id, file.path())).collect();
    let read = |(id, path): (FileId, PathBuf)| Ok((id, first_page(&path)));
    for (id, first) in each_in_threads(Thread::PageReader, threads, unread, &read)? {
        catalog.note_first_page(id, first);
    }
    Ok(())
}

/// Called under the locks: collects what [`Checks::imports`] needs later.
pub fn open_written(catalog: &Catalog, dirty: &Dirty) -> Vec<Written> {
    let mut all = Vec::new();
    for file in importable(catalog) {
        let open = all.len() < OPEN_MAX;
        let now = match catalog.noted_first_page(file.id) {
            _ if open => File::open(file.path()).ok().map(Now::Open),
            _ if is_ordinary(file, dirty) => None,
            Some(first) => Some(Now::First(first)),
            None => Some(Now::First(first_page(&file.path()))),
        };
        all.extend(now.map(|now| Written { id: file.id, now }));
    }
    all
}

/// Files that were written to and may have been imported: only files of tables are imported.
fn importable(catalog: &Catalog) -> impl Iterator<Item = &Known> {
    let system =
        |file: &Known| matches!(file.listed.role(), FileRole::SystemTablespace { .. } | FileRole::Undo);
    catalog.written().filter(move |file| !system(file))
}

/// If very many tables are busy, a file whose first page has redo is probably an ordinary table and is not examined.
fn is_ordinary(file: &Known, dirty: &Dirty) -> bool {
    file.space().is_some_and(|space| dirty.has_page(space, 0))
}
