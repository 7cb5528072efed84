//! Whether what was copied is what the redo leads to, asked once the settled moment is over and its redo is there.
//!
//! The locks are let go by then: names may stand for other files again, so a file is known by its identity.
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Result;
use formats::{Lsn, SpaceId};
use protocol::inventory::FileRole;

use super::catalog::{Catalog, Known};
use super::dirty::Dirty;
use super::listing::{self, Care, Roots};
use super::redo_out::RedoOut;
use super::settle::Moment;
use super::spool::EventKind;
use crate::disk::identity::{Identity, look_at};
use crate::source::copy::page_file::first_page_of;
use crate::source::declined::{Declined, SnapshotError};

/// One settled moment and what was copied until then.
pub struct Checks<'a> {
    /// What was copied.
    pub catalog: &'a mut Catalog,
    /// The moment.
    pub moment: &'a Moment,
    /// The redo up to its end.
    pub out: &'a RedoOut,
    /// Pages that the redo changes.
    pub dirty: &'a Dirty,
    /// Where files are.
    pub roots: &'a Roots,
    /// Page numbers in encrypted redo cannot be relied on.
    pub encrypted: bool,
}

impl Checks<'_> {
    /// `Some(why)`: another moment is needed.
    ///
    /// # Errors
    /// What this source does not follow; from the system.
    pub fn run(mut self) -> Result<Option<String>, SnapshotError> {
        self.complete()?;
        let imports = self.imports()?;
        Ok(self.events()?.or(imports))
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

    /// IMPORT TABLESPACE writes pages without redo, the first one among them, with the LSN of its time. Its deletion by
    /// DISCARD may lie before the checkpoint, or the copy may be of what an operator was about to import.
    fn imports(&self) -> Result<Option<String>, SnapshotError> {
        if self.encrypted {
            return Ok(None);
        }
        let mut moved = Moved { roots: self.roots, paths: None };
        for file in self.catalog.written() {
            // Only files of tables are imported. And whatever a first page is that the redo has, recovery makes it.
            let system = matches!(file.listed.role, FileRole::SystemTablespace { .. } | FileRole::Undo);
            if system || file.space.is_some_and(|space| self.dirty.has_first_page(space)) {
                continue;
            }
            let Some((path, opened)) = moved.open(file)? else {
                return Ok(Some(format!("{} was there under the lock, and is gone", file.path().display())));
            };
            let Some((space, lsn)) = first_page_of(&opened) else { continue };
            let imported = match (file.space, file.first_lsn) {
                // It had no first page when it was copied and has none in the redo.
                (None, _) => !self.dirty.has_first_page(space),
                (Some(_), Some(copied)) => lsn > copied && lsn <= self.moment.end,
                _ => false,
            };
            if imported {
                let name = path.display().to_string();
                return Err(Declined::Import { space: space.0, name }.into());
            }
        }
        Ok(None)
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
        let Some(file) = self.catalog.files().iter().find(|f| f.present && f.space == Some(space)) else {
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

/// Where files are that have another name by now.
struct Moved<'a> {
    roots: &'a Roots,
    paths: Option<HashMap<Identity, PathBuf>>,
}

impl Moved<'_> {
    fn open(&mut self, file: &Known) -> Result<Option<(PathBuf, File)>> {
        let identity = file.listed.look.identity;
        if let Some(opened) = open_same(file.path(), identity) {
            return Ok(Some((file.path().clone(), opened)));
        }
        let paths = match &mut self.paths {
            Some(paths) => paths,
            None => self.paths.insert(by_identity(self.roots)?),
        };
        let Some(path) = paths.get(&identity) else { return Ok(None) };
        Ok(open_same(path, identity).map(|opened| (path.clone(), opened)))
    }
}

fn open_same(path: &Path, identity: Identity) -> Option<File> {
    File::open(path).ok().filter(|file| look_at(file).is_ok_and(|look| look.identity == identity))
}

fn by_identity(roots: &Roots) -> Result<HashMap<Identity, PathBuf>> {
    let files = listing::list(roots)?.into_iter();
    let pages = files.filter(|file| file.care == Care::Pages);
    Ok(pages.map(|file| (file.look.identity, file.path)).collect())
}
