//! Copies files for the rounds and for the settled moment, and notes in the catalog what was copied.
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use formats::innodb::tablespace::{PAGE0_BYTES, PageFormat, parse_page0};
use protocol::inventory::{FileEntry, FileId, FileRole};

use super::catalog::{Catalog, Known};
use super::declined::Declined;
use super::direct::{Buffer, Direct};
use super::page_file::Damage;
use super::pages::{self, Copied, Copier, Wanted, is_further_system_file};
use super::small::{self, Small};
use crate::disk::identity::{Identity, look};

/// Copies files for the rounds and for the settled moment.
pub struct CopyFiles<'a> {
    /// Reads data files.
    pub copier: Copier<'a>,
    /// Files of the system tablespace, in order.
    pub system_files: &'a [PathBuf],
    /// Bytes of a page.
    pub page_size: u32,
    /// Damaged pages that were delivered as they are.
    pub damaged: Mutex<Vec<String>>,
}

impl CopyFiles<'_> {
    /// Copies data files and notes it.
    ///
    /// # Errors
    /// From the system, the sink, cancelled, or [`Declined::CorruptPages`].
    pub fn pages(&self, catalog: &mut Catalog, ids: &[FileId]) -> Result<()> {
        let known = ids.iter().filter_map(|id| catalog.get(*id));
        let wanted = known.map(|known| self.wanted(known)).collect::<Result<Vec<_>>>()?;
        for file in self.data_files(&wanted)? {
            catalog.copied(file.id, file.bytes, None, file.space);
        }
        Ok(())
    }

    /// What is read of a data file.
    ///
    /// # Errors
    /// From the system.
    pub fn wanted(&self, known: &Known) -> Result<Wanted> {
        self.wanted_at(known.entry(), known.path().clone(), known.listed.look.identity)
    }

    /// What is read of a data file that no catalog knows.
    ///
    /// # Errors
    /// From the system.
    pub fn wanted_at(&self, entry: FileEntry, path: PathBuf, identity: Identity) -> Result<Wanted> {
        let system = if is_further_system_file(&entry) { self.further(&entry)? } else { None };
        Ok(Wanted { entry, path, identity, system })
    }

    /// Copies data files; damaged pages end it unless they are allowed.
    ///
    /// # Errors
    /// From the system, the sink, cancelled, or [`Declined::CorruptPages`].
    pub fn data_files(&self, wanted: &[Wanted]) -> Result<Vec<Copied>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let (copied, damage) = pages::copy(self.copier, wanted)?;
        self.note(damage)?;
        Ok(copied)
    }

    /// Pages that stay damaged.
    ///
    /// # Errors
    /// [`Declined::CorruptPages`], when they may not be delivered.
    pub fn note(&self, damage: Vec<Damage>) -> Result<()> {
        if let Some(first) = damage.first() {
            if !self.copier.allow_corrupt {
                let (count, first) = (damage.len() as u64, first.text.clone());
                return Err(Declined::CorruptPages { count, first }.into());
            }
            let mut all = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(damage.into_iter().map(|d| d.text));
        }
        Ok(())
    }

    /// Copies files without pages and notes it.
    ///
    /// # Errors
    /// From the system, the sink, or cancelled.
    pub fn small(&self, catalog: &mut Catalog, ids: &[FileId]) -> Result<()> {
        for id in ids {
            (self.copier.pace)()?;
            let Some(known) = catalog.get(*id) else { continue };
            let file =
                Small { entry: &known.entry(), path: known.path(), identity: known.listed.look.identity };
            match small::copy(self.copier.sink, &file, self.copier.cancel)? {
                Some((bytes, signature)) => catalog.copied(*id, Some(bytes), Some(signature), None),
                None if known.is_gone()? => catalog.forget(*id),
                // Not the server's to read: whoever needs it in the end says so.
                None => {}
            }
        }
        Ok(())
    }

    /// Format and first page number of a further file of the system tablespace: those before it have fixed sizes.
    fn further(&self, entry: &FileEntry) -> Result<Option<(PageFormat, u32)>> {
        let FileRole::SystemTablespace { index } = entry.role else { return Ok(None) };
        let files = self.system_files;
        let before = files.get(..usize::from(index)).unwrap_or_default();
        let mut pages = 0;
        for path in before {
            pages += look(path)?.map_or(0, |l| l.signature.size) / u64::from(self.page_size);
        }
        let first = files.first().context("no system tablespace")?;
        let mut buffer = Buffer::new(PAGE0_BYTES);
        Direct::open(first, self.copier.direct)?.read(buffer.bytes(), 0)?;
        let header = parse_page0(buffer.bytes()).context("the system tablespace has no first page")?;
        Ok(Some((header.format, pages as u32)))
    }
}
